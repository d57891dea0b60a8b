"""Several target columns of a table as labels of 0 and 1, or as probabilities of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import polars as pl

from extracurricular.data.formats.columns import Column, Table
from extracurricular.data.several import Meaning, meaning_of, read_as, why
from extracurricular.errors import DataError, shorten

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class SeveralTargets:
    """Several target columns that are no real numbers.

    Args:
        y: Labels of 0 and 1 or probabilities, float64, [N, D], or class indices, int64, [N]; 0
            where not known.
        known: Whether each row has all of them, bool, [N].
        meaning: How they are read.
        why: A sentence that says so; empty where the task is set.
    """

    y: Array
    known: Array
    meaning: Meaning
    why: str


def read_several(
    table: Table, names: list[str], columns: Sequence[Column], task: str | None
) -> SeveralTargets | None:
    """Return what several target columns are; None where they are real numbers.

    Raises:
        DataError: They do not fit the task, or a row has some of its targets and not the others.
    """
    for name, column in zip(names, columns, strict=True):
        if column.kind != "number":
            if task is None:
                return None
            text = shorten(str(column.values.drop_nulls()[0]))
            raise DataError(
                f"{table.source}: task is {task!r}, but the target {name!r} has texts such as "
                f"{text}; several targets must be 0 or 1, or probabilities of classes"
            )
    known = np.stack([column.values.is_not_null().to_numpy() for column in columns], axis=1)
    whole = np.logical_and.reduce(known, axis=1)
    values = np.stack([column.values.fill_null(0.0).to_numpy() for column in columns], axis=1)
    meaning: Meaning = "labels" if task == "multilabel" else meaning_of(values[whole])
    if task == "classification" and meaning in ("labels", "numbers"):
        # The refusal names a row that is no distribution over classes.
        meaning = "probabilities"
    if meaning == "numbers":
        return None
    part = np.flatnonzero(known.any(1) & ~whole)
    if len(part):
        row = int(part[0])
        absent = names[int(np.flatnonzero(~known[row])[0])]
        raise DataError(
            f"{table.source}, {table.place(row)}: the target {absent!r} has no value, but others "
            "of the row have; a row must have all of its labels or none"
        )
    found = read_as(meaning, values[whole], table.source, names)
    y = np.zeros((len(table), *found.shape[1:]), dtype=found.dtype)
    y[whole] = found
    return SeveralTargets(y, whole, meaning, why(meaning, len(names), names) if not task else "")


def flags(column: Column) -> Column:
    """Return a column of the texts true and false as one of 1 and 0; others as they are."""
    if column.kind != "text":
        return column
    texts = column.values.cast(pl.String).str.to_lowercase()
    if not set(texts.drop_nulls().unique().to_list()) <= {"true", "false"}:
        return column
    return replace(column, kind="number", values=(texts == "true").cast(pl.Float64))
