"""Say what became of the columns of a table."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import polars as pl

from extracurricular.data.fields import Field, Fields

Array: TypeAlias = np.ndarray[Any, Any]

_EPOCH = np.datetime64("1970-01-01")


def column_notes(
    fields: Fields, columns: dict[str, pl.Series], rows: dict[str, Array]
) -> list[str]:
    """Return sentences about what became of columns, with the settings that change it.

    Args:
        fields: The description of the columns.
        columns: Their values.
        rows: The rows of each split.
    """
    notes = []
    for field in fields.inputs:
        values = columns[field.name]
        if field.kind == "date":
            first = _EPOCH + np.timedelta64(int(field.origin), "D")
            form = f" (`date_format: {field.date_format!r}`)" if field.date_format else ""
            more = "" if field.parts else "; `dates: parts` adds season and weekday"
            notes.append(
                f"The column {field.name!r} has dates{form}, read as days since {first}{more}."
            )
        if field.kind == "number" and field.origin:
            notes.append(
                f"The column {field.name!r} is read less {field.origin:.15g}, as float32 could not "
                "tell its values apart."
            )
        if field.kind == "number" and field.factor != 1:
            notes.append(f"The column {field.name!r} is multiplied with {field.factor:g}.")
        if field.indicator:
            shown = f"{field.fill:g}" if isinstance(field.fill, float) else repr(field.fill)
            notes.append(
                f"{values.null_count():,} missing values of {field.name!r} become {shown}, and a "
                "column says where."
            )
        if field.kind == "category":
            away = [part for part in ("validation", "test") if _new(field, values, rows[part])]
            if away:
                notes.append(
                    f"Some values of {field.name!r} in {' and '.join(away)} are not in training; "
                    "their columns are all 0."
                )
    return notes


def _new(field: Field, values: pl.Series, rows: Array) -> bool:
    """Return whether rows have a category that training does not have."""
    own = values.gather(rows).drop_nulls()
    return not bool(own.is_in(list(field.categories)).all())
