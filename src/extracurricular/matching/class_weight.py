"""Weights of classes in the terms of a loss that come from labels.

A class of few examples has little say in a mean over examples. With ``balanced``, the examples of
class c count n / (K · n_c) each, where n_c of the n training examples are of class c and K classes
have any: so every class has the same say, and the mean weight of the training examples is 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from extracurricular.data.base import Data
from extracurricular.errors import known_names, shorten
from extracurricular.inputs import hard_labels

BALANCED = "balanced"
Weighing: TypeAlias = Any
"""A setting of weights: ``balanced``, ``{CLASS: weight, …}``, None; or :class:`ClassWeights`."""


@dataclass(frozen=True)
class ClassWeights:
    """The weight of each class.

    Args:
        values: The weights, at least 0, in the order of the classes, [C].
        whole: Whether the whole loss comes from labels (ERM), not the label term alone.
    """

    values: tuple[float, ...]
    whole: bool = False
    _on: dict[torch.device, Tensor] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def of(self, y: Tensor) -> Tensor:
        """Return the weight of each example, float32, [B].

        The weights are copied to a device at the first step there.

        Args:
            y: Class indices [B]; or soft labels [B, C], of which an example has the mean weight.
        """
        table = self._on.get(y.device)
        if table is None:
            table = self._on[y.device] = torch.tensor(self.values, device=y.device)
        return y.float() @ table if y.is_floating_point() else table.index_select(0, y)


def check_class_weight(value: Any) -> None:
    """Refuse weights of classes that are none.

    Raises:
        ValueError: The value is neither ``balanced`` nor weights of at least 0 by name.
    """
    if value is None or value == BALANCED or isinstance(value, ClassWeights):
        return
    if not isinstance(value, Mapping) or not value:
        raise ValueError(
            f"class_weight is {shorten(value)}; it must be balanced, or {{CLASS: weight, …}}"
        )
    for name, weight in value.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not 0 <= weight < math.inf:
            raise ValueError(
                f"class_weight of {shorten(str(name))} is {shorten(weight)}; it must be a finite "
                "number of at least 0"
            )


def class_weights(value: Any, data: Data, whole: bool) -> ClassWeights:
    """Return the weights that a setting means for a data set.

    Args:
        value: ``balanced``, or weights by the names of classes; a class that has none counts 1.
        data: The data set, whose training labels decide what is balanced.
        whole: As :class:`ClassWeights` has it.

    Raises:
        ValueError: The data have no classes or no labels, or a name is none of a class.
    """
    if data.task.kind != "classification":
        raise ValueError("class_weight is for classes, which these data do not have; leave it out")
    size = data.task.size
    if value == BALANCED:
        if data.train.y is None:
            raise ValueError("class_weight: balanced needs training labels, and there are none")
        labels = hard_labels(data.train.y if data.drawn is None else data.train.y[data.drawn])
        counts = torch.bincount(labels.cpu(), minlength=size).tolist()
        some = sum(count > 0 for count in counts)
        # Of a class without examples no label asks for a weight, but a soft one may.
        return ClassWeights(
            tuple(sum(counts) / (some * count) if count else 1.0 for count in counts), whole
        )
    names = [str(name) for name in data.classes] or [str(k) for k in range(size)]
    given = {str(name): float(weight) for name, weight in value.items()}
    for name in given:
        if name not in names:
            raise ValueError(
                f"class_weight has {shorten(name)}, which is no class; {known_names(name, names)}"
            )
    return ClassWeights(tuple(given.get(name, 1.0) for name in names), whole)
