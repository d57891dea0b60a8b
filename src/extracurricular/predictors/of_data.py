"""Predictors that a data set describes: its scales, classes and names around a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from extracurricular.data.base import Data, Split
from extracurricular.distributions import Conformal, Distribution
from extracurricular.evaluation.predict import own_units
from extracurricular.inputs import Batch, Inputs, batch_size, is_leaf
from extracurricular.predictors.predictor import Predictor, input_forms, input_names
from extracurricular.teachers import HasMembers, Teacher

Ask: TypeAlias = Callable[[dict[str, Tensor]], Distribution]
Members: TypeAlias = Callable[[dict[str, Tensor]], list[Distribution]]


def of_data(
    name: str,
    ask: Ask,
    data: Data,
    parameters: int | None,
    batch_size: int = 1024,
    members: Members | None = None,
    conformal: Conformal | None = None,
) -> Predictor:
    """Make a predictor for what is described by a data set."""
    return Predictor(
        name=name,
        task=data.task,
        inputs=input_forms(data),
        ask=ask,
        classes=data.classes,
        outputs=data.outputs,
        input_columns=data.columns,
        members=members,
        reading=data.reading,
        angular=data.angular,
        parameters=parameters,
        batch_size=batch_size,
        conformal=conformal,
    )


@dataclass(frozen=True)
class Scaled:
    """A teacher that is asked in raw values and answers in the target's own units.

    Args:
        teacher: The teacher, which takes and gives standardised values.
        scales: A data set with the scales of the teacher's own.
    """

    teacher: Teacher
    scales: Data

    def __call__(self, parts: dict[str, Tensor]) -> Distribution:
        """Return the distribution for raw tensors [B, ...] by name, on the CPU."""
        return own_units(self.teacher(self._batch(parts)), self.scales)

    def members(self, parts: dict[str, Tensor]) -> list[Distribution]:
        """Return the distribution of each member of an ensemble."""
        assert isinstance(self.teacher, HasMembers)
        return [own_units(one, self.scales) for one in self.teacher.members(self._batch(parts))]

    def _batch(self, parts: dict[str, Tensor]) -> Batch:
        structure, device = self.scales.train.x, self.scales.device
        x = _as(structure, [parts[name].to(device) for name in input_names(structure)])
        return Batch(torch.arange(batch_size(x), device=device), self.scales.inputs(x))

    def goes_with(self, data: Data) -> bool:
        """Return whether a data set is standardised as the teacher's own."""
        return _scales_of(self.scales) == _scales_of(data)


def with_scales(teacher: Teacher, data: Data) -> Scaled:
    """Let a teacher be asked in raw values and answer in the target's own units."""
    # One example of each split is enough, and a predictor may live long.
    scales = replace(
        data,
        train=_first(data.train),
        validation=_first(data.validation),
        test=_first(data.test),
    )
    return Scaled(teacher, scales)


def _scales_of(data: Data) -> dict[str, list[Any]]:
    scales = data.x_scale | ({} if data.y_scale is None else {"the target": data.y_scale})
    found = {name: [one.shift.tolist(), one.scale.tolist()] for name, one in scales.items()}
    transform = data.y_transform
    return found if transform is None else found | {"the transform": transform.dump()}


def _first(split: Split) -> Split:
    return split[torch.arange(min(1, len(split)))]


def _as(structure: Inputs, tensors: list[Tensor]) -> Inputs:
    if is_leaf(structure):
        return tensors[0]
    if isinstance(structure, dict):
        return dict(zip(structure, tensors, strict=True))
    return tuple(tensors)
