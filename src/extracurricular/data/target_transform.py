"""The setting ``target_transform`` of data sets: students learn the log or asinh of a target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from extracurricular.data.base import Data, fit_scale
from extracurricular.data.transform import NAMES, Name, Rule, Setting, Transform
from extracurricular.errors import DataError, known_names, shorten


def transform_targets(data: Data, setting: Setting) -> Data:
    """Return a data set whose real targets are learned as their log or asinh.

    Targets stay in their own units. Students learn the transform, standardised by the training
    split; predictions, figures and densities are in the targets' units
    (:class:`~extracurricular.data.transformed.Transformed`).

    Args:
        data: The data set.
        setting: ``log``, for targets above 0; ``asinh``, of the target in units of its median
            magnitude in training (of those that are not 0); a mapping of these, or ``none``, by
            the target's name; None changes nothing.

    Raises:
        DataError: The targets are classes; a name is unknown; or ``log`` meets a target that is
            not above 0.
    """
    if setting is None:
        return data
    where = f"data {data.name!r}: target_transform is {shorten(setting)}"
    if data.task.kind != "regression":
        nouns = "labels of 0 and 1" if data.task.binary else "classes"
        raise DataError(f"{where}, but the targets are {nouns}; `task: regression` makes numbers")
    names = names_of(data)
    chosen = _chosen(where, names, setting)
    y = data.train.y
    assert y is not None
    rules = [
        Rule(name, unit_of(name, y[:, k])) if name != "none" else Rule("none")
        for k, name in enumerate(chosen)
    ]
    for k, rule in enumerate(rules):
        if rule.name == "log":
            _refuse_negative(data, k, names[k])
    transform = Transform(tuple(rules))
    scale = fit_scale(transform.apply(y))
    found = replace(data, y_scale=scale, y_transform=transform)
    return replace(found, notes=(*data.notes, *learned(found)))


def learned(data: Data) -> list[str]:
    """Return a sentence on what students learn of transformed targets; none without any."""
    if data.y_transform is None:
        return []
    several = data.task.size > 1
    names = data.outputs or tuple(
        f"target {k}" if several else "the target" for k in range(data.task.size)
    )
    forms = {"log": "log {0}", "asinh": "asinh({0} / {1:.4g})"}
    parts = [
        forms[rule.name].format(name, rule.unit)
        for name, rule in zip(names, data.y_transform.rules, strict=True)
        if rule.name in forms
    ]
    if not parts:
        return []
    whose = "their" if several else "its"
    return [f"Students learn {' and '.join(parts)}; figures are in {whose} own units."]


def names_of(data: Data) -> tuple[str, ...]:
    """Return the names of real targets; their numbers, from 0, where they have none."""
    return data.outputs or tuple(str(k) for k in range(data.task.size))


def transformed_errors(data: Data, means: Tensor, y: Tensor) -> Tensor:
    """Return errors of means [N, D] as the std of a teacher of means alone counts them, float64.

    They are in the target's own units, or where it is transformed, in those of the transform: a
    deviation of 0.2 under ``log`` is an error of about 20 % everywhere, which a deviation in the
    target's own units cannot say.
    """
    means, y = means.double(), y.double()
    if data.y_transform is None:
        return means - y

    def apart(rule: Rule, mean: Tensor, own: Tensor) -> Tensor:
        low = mean.clamp_min(rule.unit) if rule.name == "log" else mean
        return rule.apply(low) - rule.apply(own)

    return data.y_transform.each(apart, means, y)


def _chosen(where: str, names: tuple[str, ...], setting: Setting) -> list[Name]:
    """Return the transform of each target."""
    given = setting if isinstance(setting, Mapping) else dict.fromkeys(names, setting)
    for name, chosen in given.items():
        if name not in names:
            raise DataError(f"{where}; {name!r} is no target; {known_names(name, names)}")
        if chosen not in NAMES:
            raise DataError(f"{where}; it must be 'log' or 'asinh', or one of these by target")
    return [given.get(name) or "none" for name in names]


def unit_of(name: Name, y: Tensor) -> float:
    """Return the unit of a rule (:class:`.Rule`), from the training targets [N]."""
    if name == "log":
        # Half of the least target is less than any that the student has seen.
        return float(y[y > 0].min()) / 2 if bool((y > 0).any()) else 1.0
    sizes = y.abs()[y != 0]
    return float(sizes.median()) if len(sizes) else 1.0


def _refuse_negative(data: Data, k: int, name: str) -> None:
    """Refuse targets of any split that have no logarithm."""
    parts = (data.train, data.validation, data.test)
    values = torch.cat([split.y[:, k] for split in parts if split.y is not None])
    bad = values[values <= 0]
    if len(bad):
        rows = "1 row has" if len(bad) == 1 else f"{len(bad):,} rows have"
        raise DataError(
            f"data {data.name!r}: target_transform is 'log', but {rows} a target {name!r} that is "
            f"not above 0, the least {float(bad.min()):g}; `target_transform: asinh` takes any "
            "number"
        )
