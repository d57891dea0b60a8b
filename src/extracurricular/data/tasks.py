"""Decide whether labels are classes or real numbers, and say why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from extracurricular.data.several import Meaning, meaning_of, read_as, strata_of, why
from extracurricular.distributions import FAMILIES, Kind, Task
from extracurricular.errors import DataError, shorten

Array: TypeAlias = np.ndarray[Any, Any]

FEW = 20
"""A target of at most so many different whole numbers is taken for classes."""


KINDS: dict[Meaning, Kind] = {
    "labels": "multilabel",
    "one-hot": "classification",
    "probabilities": "classification",
    "numbers": "regression",
}
"""The kind of task that several targets suggest, by what they look like."""


def kind_of(name: str, y: Array, indices: bool = False) -> tuple[Kind | None, str]:
    """Return the kind of task that labels suggest, and a sentence that says why.

    Texts are classes, and so are at most :data:`FEW` different whole numbers; other numbers are
    real. Several columns are labels where they hold only 0 and 1, and classes where each row has a
    single 1 or probabilities (:mod:`extracurricular.data.several`).

    Args:
        name: Name of the target, for the sentence.
        y: Labels [N], or several real targets [N, D]; numbers, booleans or texts.
        indices: Whether whole numbers are class indices where they are all of 0 to C - 1, as in
            arrays. Other whole numbers of many kinds are then anybody's guess, and the kind None.
    """
    target = f"The target {name!r}" if name else "The target"
    if y.ndim > 1 and y.shape[1] > 1:
        meaning = meaning_of(y)
        return KINDS[meaning], why(meaning, y.shape[1])
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
        meaning: How several columns are read; None for one.
    """

    y: Any
    task: Task | None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    meaning: Meaning | None = None

    def strata(self) -> Array:
        """Return labels by which a split is made fair (:func:`.splits.strata`)."""
        y = to_numpy(self.y)
        if self.meaning is None or y.ndim == 1:
            return y
        return strata_of(y, binary=self.meaning == "labels")

    def coded(self, y: Any) -> Any:
        """Return labels of another split as those of the first are."""
        if self.meaning is not None:
            return read_as(self.meaning, columns_of(y), "y of a split")
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
    if kind is not None and kind not in FAMILIES:
        raise DataError(
            f"data {name!r}: task is {task!r}; it must be 'classification', 'regression' or "
            "'multilabel'"
        )
    array = to_numpy(y)
    if array.dtype.kind in "UO":
        if kind in ("regression", "multilabel") or array.ndim != 1:
            text = shorten(str(array.flat[0]))
            raise DataError(
                f"data {name!r}: y has texts such as {text}; a real target must have numbers, and "
                "a class one text"
            )
        names, codes = np.unique(array.astype(str), return_inverse=True)
        notes = () if kind else (kind_of("y", array.astype(str))[1],)
        made = task if isinstance(task, Task) else Task("classification", len(names))
        return Labels(codes, made, tuple(names.tolist()), notes)
    found = _several(array, kind, name)
    if found is not None:
        given = task if isinstance(task, Task) else None
        return replace(found, task=given or found.task)
    if kind is None:
        if array.dtype.kind == "f" and array.ndim == 2 and array.shape[1] > 1:
            # All examples decide, not those of a split.
            return Labels(y, Task("regression", array.shape[1]))
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


def _several(array: Array, kind: Kind | None, name: str) -> Labels | None:
    """Return several columns of labels or probabilities; None for anything else."""
    if array.dtype.kind not in "fiub" or array.ndim not in (1, 2):
        return None
    if kind == "multilabel":
        meaning: Meaning = "labels"
    elif kind == "regression" or array.ndim == 1 or array.shape[1] < 2:
        return None
    else:
        meaning = meaning_of(array)
        if kind == "classification" and meaning in ("labels", "numbers"):
            # The refusal names a row that is no distribution over classes.
            meaning = "probabilities"
        if meaning == "numbers":
            return None
    columns = columns_of(array)
    size = columns.shape[1]
    notes = (why(meaning, size),) if kind is None else ()
    y = read_as(meaning, columns, f"data {name!r}")
    return Labels(y, Task(KINDS[meaning], size), notes=notes, meaning=meaning)


def columns_of(y: Any) -> Array:
    """Return labels as columns, [N, D]."""
    array = to_numpy(y)
    return array[:, None] if array.ndim == 1 else array


def _real(y: Any) -> Any:
    if isinstance(y, Tensor):
        return y if y.is_floating_point() else y.double()
    return np.asarray(y, dtype=np.float64)


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
