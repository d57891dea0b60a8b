"""Figures by group: how a model fares where a column of the data has each of its values."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from extracurricular.data.base import Data, Split
from extracurricular.data.fields import Field, Fields
from extracurricular.data.formats.columns import shorten_names
from extracurricular.distributions import Bernoulli, Categorical, Distribution
from extracurricular.errors import RecipeError
from extracurricular.inputs import hard_labels, is_leaf

MOST = 20
"""Groups that have figures of their own; the examples of all others are together."""
# A number with more values than this is cut into quarters.
_FEW = 10
# The normal distribution has 95 % of its mass within as many deviations.
_Z = 1.959964
MISSING = "missing"


def slices(
    prediction: Distribution, y: Tensor, data: Data, split: Split, column: str
) -> dict[str, Any]:
    """Return figures of the examples of each group, the largest first.

    Args:
        prediction: Distributions for the N examples of a split, in the target's own units.
        y: Their labels.
        data, split: The data set and its split.
        column: A column of the input, or the target. A number with more than 10 values is cut into
            quarters of equally many examples.

    Returns:
        ``column``, and ``groups``: for each, by name, its number of ``examples``, and ``nll`` with
        ``accuracy`` of classes or of several labels, or with ``rmse``. Each has a ``_low`` and a
        ``_high``, the 95 % interval over examples: Wilson's of classes, else the normal one. Of
        more than 20 groups, the rest are together.

    Raises:
        RecipeError: There is no such column.
    """
    names = group_names(data, split, column)
    counted = Counter(names).most_common()
    shown = [name for name, _ in counted[:MOST]] if len(counted) > MOST + 1 else dict(counted)
    rest = f"the other {len(counted) - MOST:,} groups"
    place = {name: k for k, name in enumerate(shown)}
    index = torch.tensor([place.get(name, MOST) for name in names])
    found = {}
    for k, name in enumerate([*shown, rest] if len(shown) < len(counted) else shown):
        rows = (index == k).nonzero()[:, 0]
        found[name] = _figures(prediction[rows], y[rows])
    return {"column": column, "groups": found}


def _figures(said: Distribution, y: Tensor) -> dict[str, Any]:
    found: dict[str, Any] = {"examples": len(y)}
    nll, low, high = _mean(said.nll(y).double())
    # That of classes and labels is never below 0.
    low = max(0.0, low) if isinstance(said, Categorical | Bernoulli) else low
    found |= _named("nll", nll, low, high)
    if isinstance(said, Categorical):
        right = (said.top()[1] == hard_labels(y)).double()
        return found | _named("accuracy", float(right.mean()), *_wilson(right))
    if isinstance(said, Bernoulli):
        return found | _named("accuracy", *_mean(((said.probs >= 0.5) == (y >= 0.5)).double()))
    squares = (said.mean.double() - y.double()).square().mean(1)
    return found | _named("rmse", *(math.sqrt(max(0.0, value)) for value in _mean(squares)))


def _named(name: str, value: float, low: float, high: float) -> dict[str, float]:
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _mean(values: Tensor) -> tuple[float, float, float]:
    """Return the mean over examples and its normal interval; of one example there is none."""
    each = values.reshape(len(values), -1).mean(1)
    mean = float(each.mean())
    half = _Z * float(each.std()) / math.sqrt(len(each)) if len(each) > 1 else math.nan
    return mean, mean - half, mean + half


def _wilson(right: Tensor) -> tuple[float, float]:
    """Return the interval of a share (Wilson 1927), which is sound for few examples too."""
    count, share, square = len(right), float(right.mean()), _Z**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = _Z * math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    half /= 1 + square / count
    return max(0.0, middle - half), min(1.0, middle + half)


# Groups


def group_names(data: Data, split: Split, column: str) -> list[str]:
    """Return the name of the group of each example.

    Raises:
        RecipeError: There is no such column.
    """
    fields = data.fields
    inputs = fields.names if fields is not None else data.columns
    targets = _targets(data)
    if column in targets:
        return _of_labels(data, split, targets.index(column))
    if column not in inputs or not is_leaf(split.x):
        names = [*inputs, *targets]
        there = f"there are {shorten_names(names)}" if names else "they name no columns"
        raise RecipeError(
            "--by", f"is {column!r}, which is no column of the data's input, nor a target; {there}"
        )
    x = split.x.cpu().double().numpy()
    if fields is None:
        return _of_numbers(x[:, data.columns.index(column)])
    start = 0
    for field in fields.inputs:
        own = x[:, start : start + len(field.labels)]
        if field.name == column:
            return _of_field(field, own)
        start += len(field.labels)
    raise AssertionError(column)


def _targets(data: Data) -> list[str]:
    """Return the names by which the labels can be asked for."""
    if data.task.kind == "classification":
        fields: Fields | None = data.fields
        named = fields.targets[0].name if fields is not None and fields.targets else "class"
        return [named]
    return list(data.outputs)


def _of_labels(data: Data, split: Split, place: int) -> list[str]:
    assert split.y is not None
    y = split.y.cpu()
    if data.task.kind != "classification":
        return _of_numbers(y[:, place].double().numpy())
    names = data.classes or tuple(map(str, range(data.task.size)))
    return [str(names[k]) for k in hard_labels(y).tolist()]


def _of_field(field: Field, x: np.ndarray[Any, Any]) -> list[str]:
    absent = x[:, -1] > 0 if field.indicator else np.zeros(len(x), bool)
    if field.kind == "category":
        width = len(field.categories)
        names = (*field.categories, "none of training's")
        # Its place; the last name where no category has a 1.
        places = np.where(x[:, :width].max(1) > 0, x[:, :width].argmax(1), width)
        found = [names[k] for k in places]
    else:
        found = _of_numbers(x[:, 0] / field.factor + field.origin, absent)
    return [MISSING if gone else name for name, gone in zip(found, absent, strict=True)]


def _of_numbers(
    values: np.ndarray[Any, Any], absent: np.ndarray[Any, Any] | None = None
) -> list[str]:
    """Return each number as a text where there are few; else its quarter."""
    used = values if absent is None else values[~absent]
    if len(used) == 0 or len(np.unique(used)) <= _FEW:
        return [_number(value) for value in values]
    edges = np.quantile(used, [0.25, 0.5, 0.75])
    texts = [_number(edge) for edge in edges]
    names: Sequence[str] = [
        f"up to {texts[0]}",
        *(f"{low} to {high}" for low, high in pairwise(texts)),
        f"above {texts[-1]}",
    ]
    return [names[k] for k in np.searchsorted(edges, values, side="left")]


def _number(value: float) -> str:
    return f"{value:.6g}"
