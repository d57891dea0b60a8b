"""Decide whether labels are classes or real numbers, and say why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from torch import Tensor

from extracurricular.distributions import Task
from extracurricular.errors import DataError, shorten

Array: TypeAlias = np.ndarray[Any, Any]
Kind: TypeAlias = Literal["classification", "regression"]

FEW = 20
"""A target of at most so many different whole numbers is taken for classes."""


def kind_of(name: str, y: Array, indices: bool = False) -> tuple[Kind | None, str]:
    """Return the kind of task that labels suggest, and a sentence that says why.

    Texts are classes, and so are at most :data:`FEW` different whole numbers; other numbers are
    real.

    Args:
        name: Name of the target, for the sentence.
        y: Labels [N], or several real targets [N, D]; numbers, booleans or texts.
        indices: Whether whole numbers are class indices where they are all of 0 to C - 1, as in
            arrays. Other whole numbers of many kinds are then anybody's guess, and the kind None.
    """
    target = f"The target {name!r}" if name else "The target"
    if y.ndim > 1 and y.shape[1] > 1:
        return "regression", f"There are {y.shape[1]} targets, which are read as numbers."
    y = y.reshape(-1)
    if y.dtype.kind not in "fiu":
        count = len(np.unique(y))
        return "classification", f"{target} has texts, which are read as {count} classes."
    if y.dtype.kind == "f" and not bool((y == np.round(y)).all()):
        return "regression", f"{target} has numbers with a fraction, so it is read as numbers."
    kinds = np.unique(y)
    has = f"{target} has {len(kinds)} different whole numbers, {kinds[0]:g} to {kinds[-1]:g}"
    if len(kinds) <= FEW:
        return "classification", (
            f"{has}, which are read as classes; `task: regression` reads them as numbers."
        )
    if indices:
        if kinds[0] == 0 and kinds[-1] == len(kinds) - 1:
            return "classification", (
                f"{has}, all of them, which are read as classes; `task: regression` reads them as "
                "numbers."
            )
        return None, (
            f"{has}, which may be classes or numbers; set task to 'classification' or 'regression'"
        )
    return "regression", f"{has}, so it is read as numbers; `task: classification` makes classes."


@dataclass(frozen=True)
class Labels:
    """Labels that are understood.

    Args:
        y: Class indices or reals.
        task: The task; None if the labels say it.
        classes: Names of classes that were texts.
        notes: A sentence on the kind of the task.
    """

    y: Any
    task: Task | None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def coded(self, y: Any) -> Any:
        """Return labels of another split as those of the first are."""
        if self.classes:
            odd = sorted(set(map(str, y)) - set(self.classes))
            if odd:
                raise DataError(f"the label {odd[0]!r} is none of {', '.join(self.classes[:12])}")
            return np.searchsorted(self.classes, np.asarray(y).astype(str))
        if self.task is not None and self.task.kind == "regression":
            return _real(y)
        return y if self.task is None else _whole(y, "")


def read_labels(y: Any, name: str, task: Task | Kind | None) -> Labels:
    """Decide what labels mean.

    Raises:
        DataError: They can be read in two ways, or do not fit the task.
    """
    kind = task.kind if isinstance(task, Task) else task
    if kind not in (None, "classification", "regression"):
        raise DataError(
            f"data {name!r}: task is {task!r}; it must be 'classification' or 'regression'"
        )
    array = to_numpy(y)
    if array.dtype.kind in "UO":
        if kind == "regression" or array.ndim != 1:
            text = shorten(str(array.flat[0]))
            raise DataError(
                f"data {name!r}: y has texts such as {text}; a real target must have numbers, and "
                "a class one text"
            )
        names, codes = np.unique(array.astype(str), return_inverse=True)
        notes = () if kind else (kind_of("y", array.astype(str))[1],)
        made = task if isinstance(task, Task) else Task("classification", len(names))
        return Labels(codes, made, tuple(names.tolist()), notes)
    if kind is None:
        _refuse_one_hot(y, name)
        if array.dtype.kind == "b" or array.ndim != 1 or not len(array):
            return Labels(y, None)
        if array.dtype.kind == "f":
            return Labels(y, None, notes=("y has reals, which are read as numbers.",))
        kind, why = kind_of("y", array, indices=True)
        if kind is None:
            raise DataError(f"data {name!r}: {why[0].lower()}{why[1:]}")
        return Labels(y, None, notes=(why,))
    if kind == "regression":
        real = _real(y)
        size = real.shape[1] if real.ndim > 1 else 1
        return Labels(real, task if isinstance(task, Task) else Task("regression", size))
    whole = _whole(y, name)
    given = task if isinstance(task, Task) else None
    return Labels(whole, given or Task("classification", int(to_numpy(whole).max()) + 1))


def _real(y: Any) -> Any:
    return y.float() if isinstance(y, Tensor) else np.asarray(y, dtype=np.float64)


def _whole(y: Any, name: str) -> Any:
    """Return class indices that may be written as floats."""
    array = to_numpy(y)
    if array.dtype.kind == "f":
        odd = np.flatnonzero(array.reshape(-1) != np.round(array.reshape(-1)))
        if len(odd):
            raise DataError(
                f"data {name!r}: y[{odd[0]}] is {array.reshape(-1)[odd[0]]:g}; classes must be "
                "whole numbers or texts"
            )
        return array.astype(np.int64)
    return y


def to_numpy(values: Any) -> Array:
    """Return an array or a tensor as an array of NumPy."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _refuse_one_hot(y: Any, name: str) -> None:
    """Refuse labels with a 1 in the column of the class, and 0 elsewhere."""
    array = np.asarray(y.cpu() if isinstance(y, Tensor) else y)
    if array.ndim != 2 or array.shape[1] < 2 or array.dtype.kind not in "fiub":
        return
    if bool(((array == 0) | (array == 1)).all() and (array.sum(1) == 1).all()):
        raise DataError(
            f"data {name!r}: y is one-hot; it must be class indices [N], as y.argmax(1) gives them"
        )


def one_each(values: Any, setting: str, count: int, name: str) -> Array:
    """Return what a split goes by, one value for each example."""
    array = to_numpy(values)
    if array.ndim != 1 or len(array) != count:
        raise DataError(
            f"data {name!r}: {setting} has shape {array.shape}; it must have a value for each of "
            f"{count} examples"
        )
    if setting == "time" and array.dtype.kind not in "fiubM":
        raise DataError(f"data {name!r}: time has {array.dtype}; it must have numbers or dates")
    return array.astype(str) if array.dtype.kind == "O" else array
