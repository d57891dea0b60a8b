"""Several target columns: labels of 0 and 1, probabilities of classes, or real numbers.

Labels that stand on their own (multi-label) are kept as 0 and 1. Rows of probabilities are soft
labels, such as the stored answers of a teacher; rows with a single 1 are classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from torch import Tensor

from extracurricular.distributions import Task
from extracurricular.errors import DataError, shorten

Array: TypeAlias = np.ndarray[Any, Any]
Meaning: TypeAlias = Literal["labels", "probabilities", "one-hot", "numbers"]

SLACK = 1e-3
"""A row of probabilities may miss the sum of 1 by so much."""

# Combinations of labels that fewer examples have make one stratum of a split.
_RARE = 10


def meaning_of(y: Array) -> Meaning:
    """Return what several columns [N, D] of numbers look like."""
    if y.ndim != 2 or y.shape[1] < 2 or not len(y):
        return "numbers"
    sums = y.sum(1, dtype=np.float64)
    # Columns of 0 alone, or of 1 alone, say nothing.
    if bool(((y == 0) | (y == 1)).all()) and bool((y != y[0, 0]).any()):
        return "one-hot" if bool((sums == 1).all()) else "labels"
    if bool(((y >= 0) & (y <= 1)).all()) and bool((np.abs(sums - 1) <= SLACK).all()):
        return "probabilities"
    return "numbers"


def why(meaning: Meaning, count: int, names: Sequence[str] = ()) -> str:
    """Return a sentence that says how several targets are read, and how to read them otherwise."""
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    of = f"the classes {shown}" if names else f"{count} classes"
    return {
        "labels": (
            f"There are {count} targets of 0 and 1, which are read as labels of their own; "
            "`task: regression` reads them as numbers."
        ),
        "one-hot": (
            f"The {count} targets have a single 1 in each row, and 0 elsewhere, so they are read "
            f"as {of}; `task: multilabel` reads them as labels of their own."
        ),
        "probabilities": (
            f"The {count} targets are within 0 and 1 and sum to 1 in each row, so they are read as "
            f"the probabilities of {of}; `task: regression` reads them as numbers."
        ),
        "numbers": f"There are {count} targets, which are read as numbers.",
    }[meaning]


def read_as(meaning: Meaning, y: Array, where: str, names: Sequence[str] = ()) -> Array:
    """Return labels as float64 of 0 and 1, probabilities that sum to 1, or class indices.

    Args:
        meaning: How they are to be read.
        y: Several columns of numbers, [N, D].
        where: Name of the data, for errors.
        names: Names of the columns, if known.

    Raises:
        DataError: They cannot be read so; the sentence names a row and what would be right.
    """
    if meaning == "labels":
        odd = np.argwhere((y != 0) & (y != 1))
        if len(odd):
            row, column = odd[0]
            name = repr(names[column]) if len(names) else f"y[{row}, {column}]"
            raise DataError(
                f"{where}: task is 'multilabel', and the target {name} is {y[row, column]:g}; "
                "labels are 0 or 1"
            )
        return y.astype(np.float64)
    reals: Array = y.astype(np.float64)
    sums = reals.sum(1)
    wrong = np.flatnonzero(
        (reals < 0).any(1) | (np.abs(sums - 1) > SLACK) | (~np.isfinite(reals)).any(1)
    )
    if len(wrong):
        row = int(wrong[0])
        shown = shorten(reals[row].tolist())
        raise DataError(
            f"{where}: task is 'classification', but the {y.shape[1]} targets of example {row} are "
            f"{shown}; they must be probabilities that sum to 1, or one column of classes"
        )
    found: Array = reals.argmax(1) if meaning == "one-hot" else reals / sums[:, None]
    return found


def check_columns(where: str, y: Tensor, task: Task) -> None:
    """Refuse labels that are not 0 or 1, and soft labels that are no probabilities.

    Raises:
        DataError: They have another shape or other values.
    """
    noun = "labels of 0 and 1" if task.binary else "probabilities"
    if y.ndim != 2 or y.shape[1] != task.size:
        raise DataError(
            f"{where}: y has shape {tuple(y.shape)}; it must be [N, {task.size}] {noun}"
        )
    read_as("labels" if task.binary else "probabilities", y.cpu().numpy(), where)


def summing_to_1(y: Tensor | None, task: Task) -> Tensor | None:
    """Return soft labels whose probabilities sum to 1 exactly; other labels as they are."""
    if y is None or task.kind != "classification" or not y.is_floating_point():
        return y
    return y / y.sum(1, keepdim=True)


def strata_of(y: Array, binary: bool) -> Array:
    """Return labels by which a split is made fair.

    Args:
        y: Class indices [N], reals, or several labels or probabilities [N, D].
        binary: Whether they are several labels of 0 and 1.

    Returns:
        For labels the number of each example's combination, int64, [N], where rare combinations
        count as one; for probabilities the most probable class; others as they are.
    """
    if binary:
        _, place, counts = np.unique(y, axis=0, return_inverse=True, return_counts=True)
        place = place.reshape(-1)
        rare = counts[place] < _RARE
        return np.where(rare, len(counts), place).astype(np.int64)
    most: Array = y.argmax(1).astype(np.int64)
    return most


def alike(y: Array, names: Sequence[str], part: str) -> list[str]:
    """Return a sentence about labels that have one value in a whole split, [N, L]."""
    if not len(y):
        return []
    same = np.flatnonzero((y == y[:1]).all(0))
    shown = [f"{names[k]} ({y[0, k]:g})" for k in same[:8]]
    if not shown:
        return []
    more = f" and {len(same) - 8} more" if len(same) > 8 else ""
    some = "This label has" if len(same) == 1 else "These labels have"
    word = "training" if part == "train" else part
    return [
        f"{some} one value in all {word} examples, so no AUROC there: {', '.join(shown)}{more}."
    ]
