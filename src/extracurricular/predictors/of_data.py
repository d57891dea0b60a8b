"""Predictors that a data set describes: its scales, classes and names around a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor

from extracurricular.data.base import Data, Split
from extracurricular.distributions import Distribution
from extracurricular.evaluation.predict import own_units
from extracurricular.inputs import Batch, Inputs, is_leaf
from extracurricular.predictors.predictor import Predictor, input_forms, input_names
from extracurricular.teachers import Teacher

Ask: TypeAlias = Callable[[dict[str, Tensor]], Distribution]


def of_data(
    name: str, ask: Ask, data: Data, parameters: int | None, batch_size: int = 1024
) -> Predictor:
    """Make a predictor for what is described by a data set."""
    return Predictor(
        name=name,
        task=data.task,
        inputs=input_forms(data),
        ask=ask,
        classes=data.classes,
        outputs=data.outputs,
        angular=data.angular,
        parameters=parameters,
        batch_size=batch_size,
    )


def with_scales(teacher: Teacher, data: Data) -> Ask:
    """Let a teacher be asked in raw values and answer in the target's own units."""
    # Of the examples just one of each split is kept, as a predictor may live long.
    scales = replace(
        data,
        train=_first(data.train),
        validation=_first(data.validation),
        test=_first(data.test),
    )
    structure, names, device = scales.train.x, input_names(data.train.x), data.device

    def ask(parts: dict[str, Tensor]) -> Distribution:
        there = {name: part.to(device) for name, part in parts.items()}
        x = _as(structure, [there[name] for name in names])
        ids = torch.arange(len(there[names[0]]), device=device)
        return own_units(teacher(Batch(ids, scales.inputs(x))), scales)

    return ask


def _first(split: Split) -> Split:
    return split[torch.arange(min(1, len(split)))]


def _as(structure: Inputs, tensors: list[Tensor]) -> Inputs:
    if is_leaf(structure):
        return tensors[0]
    if isinstance(structure, dict):
        return dict(zip(structure, tensors, strict=True))
    return tuple(tensors)
