"""Turn raw rows into inputs by a description of their columns, and fit that description.

:func:`encode` is a pure function of :class:`~extracurricular.data.fields.Fields` and the rows: the
input of a row does not depend on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import polars as pl

from extracurricular.data.fields import Field, Fields
from extracurricular.data.frames import to_polars
from extracurricular.data.texts import (
    MISSING_NUMBERS,
    NumberForm,
    days,
    numbers,
    since_1970,
    stripped,
    without,
    words,
)
from extracurricular.errors import DataError, shorten

Array: TypeAlias = np.ndarray[Any, Any]

MOST_CATEGORIES = 1000
_YEAR, _WEEK = 365.2425, 7.0
# float32 has 24 bits. Of a column that is this far from 0, in deviations, too few would be left.
_FAR = 2.0**13
# Deviations beyond these bounds come too near to what float32 can hold.
_TINY, _HUGE = 1e-7, 1e15


def encode(fields: Fields, rows: Any) -> Array:
    """Return the inputs of raw rows, float32, [N, D], as training saw them.

    Args:
        fields: The description of the columns.
        rows: A data frame of pandas or polars, a dict, or a list of dicts; other columns are passed
            over.

    Raises:
        DataError: A column is missing, a value is missing where training had none to learn from, or
            a value is of another kind.
    """
    return encode_columns(fields, read(fields, to_polars(rows)))


def read(fields: Fields, frame: pl.DataFrame, strict: bool = True) -> dict[str, pl.Series]:
    """Return the columns of raw rows as numbers, dates in days and texts, null where missing.

    Args:
        fields: The description of the columns.
        frame: The rows.
        strict: Whether a text that is no value of its column is refused; else it becomes NaN.

    Raises:
        DataError: A column is missing, or a value is of another kind.
    """
    absent = [name for name in fields.names if name not in frame.columns]
    if absent:
        raise DataError(
            f"the rows lack the column{'s' if len(absent) > 1 else ''} {', '.join(absent)}; they "
            f"must have {', '.join(fields.names)}"
        )
    return {field.name: _read(fields, field, frame[field.name], strict) for field in fields.inputs}


def labels(fields: Fields, rows: Any) -> Array:
    """Return the targets of raw rows: reals, float64, [N, D], or classes, int64, [N].

    Several columns are reals as they stand, also where they are labels or probabilities.

    Raises:
        DataError: A target is missing or unknown.
    """
    frame = to_polars(rows)
    found = []
    for field in fields.targets:
        if field.name not in frame.columns:
            raise DataError(f"the rows lack the target {field.name!r}")
        values = _read(fields, field, frame[field.name])
        if field.kind == "category":
            codes = _codes(field, values)
            if codes.null_count():
                row = int(codes.is_null().arg_true()[0])
                raise DataError(
                    f"row {row}: the target {field.name!r} is {shorten(values[row])}; it must be "
                    f"one of {', '.join(field.categories[:12])}"
                )
            return codes.to_numpy().astype(np.int64)
        if values.null_count():
            row = int(values.is_null().arg_true()[0])
            raise DataError(f"row {row}: the target {field.name!r} is missing")
        found.append(values.to_numpy())
    return np.stack(found, axis=1)


def unlike(fields: Fields, rows: Any) -> dict[str, Array]:
    """Return what is unlike the training rows, by column: bool, [N], for columns with any.

    A value is unlike them if it is missing and no training value was, if it is a category that they
    do not have, or if it lies outside of their range by more than half of its width.
    """
    columns = read(fields, to_polars(rows))
    found = {field.name: unlike_values(field, columns[field.name]) for field in fields.inputs}
    return {name: odd for name, odd in found.items() if odd.any()}


def unlike_values(field: Field, values: pl.Series) -> Array:
    """Return which values of a column, as :func:`read` gives them, are so: bool, [N]."""
    if field.kind == "category":
        odd = _codes(field, values).is_null() & values.is_not_null()
    else:
        room = (field.high - field.low) / 2
        odd = (values < field.low - room) | (values > field.high + room)
    odd = odd.fill_null(False)
    return (odd if field.indicator else odd | values.is_null()).to_numpy()


def _read(fields: Fields, field: Field, values: pl.Series, strict: bool = True) -> pl.Series:
    """Return one raw column as its field says, null where a value is missing."""
    if isinstance(values.dtype, pl.Categorical | pl.Enum):
        values = values.cast(pl.String)
    if field.kind == "category":
        texts = words(values, fields.missing)
        return texts.replace(dict(fields.rename)) if fields.rename else texts
    if field.kind == "date":
        if values.dtype in (pl.Date, pl.Datetime):
            return since_1970(values)
        texts = stripped(words(values, fields.missing), MISSING_NUMBERS)
        return _checked(field, texts, days(texts, field.date_format or "%Y-%m-%d"), strict)
    if values.dtype == pl.String:
        texts = stripped(stripped(values, fields.missing), MISSING_NUMBERS)
        form = NumberForm(field.decimal, field.thousands, field.units)
        reals = _checked(field, texts, numbers(texts, form), strict)
    elif values.dtype == pl.Null:
        reals = values.cast(pl.Float64)
    elif values.dtype.is_numeric() or values.dtype == pl.Boolean:
        reals = values.cast(pl.Float64).fill_nan(None)
    else:
        raise DataError(f"the column {field.name!r} has {values.dtype}; it must have numbers")
    for absent in fields.missing_numbers:
        reals = without(reals, absent)
    return reals


def _checked(field: Field, texts: pl.Series, values: pl.Series, strict: bool) -> pl.Series:
    """Refuse a text that is no value of its column, or put NaN in its place."""
    if values.null_count() > texts.null_count():
        wrong = values.is_null() & texts.is_not_null()
        if not strict:
            return values.zip_with(~wrong, pl.Series([np.nan], dtype=pl.Float64))
        row = int(wrong.arg_true()[0])
        raise DataError(
            f"row {row}: the column {field.name!r} has {shorten(texts[row])}; it must have "
            + (f"dates of the form {field.date_format}" if field.kind == "date" else "numbers")
        )
    return values


def encode_columns(fields: Fields, columns: Mapping[str, pl.Series], rows: Any = None) -> Array:
    """Return the inputs of columns that are read, float32, [N, D].

    Args:
        fields: The description of the columns.
        columns: Numbers, dates in days, and texts; null where a value is missing.
        rows: The rows to take, in order; all where None.

    Raises:
        DataError: A value is missing where none may be.
    """
    names = fields.columns
    count = len(next(iter(columns.values()))) if rows is None else len(rows)
    out = np.zeros((count, len(names)), dtype=np.float32)
    start = 0
    for field in fields.inputs:
        values = columns[field.name]
        values = values if rows is None else values.gather(rows)
        width = len(field.labels)
        _fill(field, values, out[:, start : start + width])
        start += width
    return out


def _fill(field: Field, values: pl.Series, out: Array) -> None:
    """Write the inputs that are made of one column."""
    absent = values.is_null()
    if absent.any():
        if field.fill is None:
            row = int(absent.arg_true()[0])
            raise DataError(
                f"row {row}: the column {field.name!r} has no value, and training had none to "
                "learn from (`missing: impute` learns from them)"
            )
        values = values.fill_null(field.fill)
    if field.indicator:
        out[:, -1] = absent.to_numpy()
    if field.kind == "category":
        codes = _codes(field, values).fill_null(len(field.categories)).to_numpy()
        # A category that training does not have is in none of its columns.
        known = codes < len(field.categories)
        out[np.flatnonzero(known), codes[known]] = 1
        return
    reals = values.to_numpy()
    with np.errstate(over="ignore"):
        out[:, 0] = reals if (field.origin, field.factor) == (0, 1) else (
            (reals - field.origin) * field.factor
        )  # fmt: skip
    for k, (shift, period) in enumerate(turns(field)):
        angle = 2 * np.pi * ((reals + shift) / period % 1)
        out[:, 1 + 2 * k], out[:, 2 + 2 * k] = np.sin(angle), np.cos(angle)


def turns(field: Field) -> list[tuple[float, float]]:
    """Return shift and length, in days, of the circles whose sine and cosine a date becomes."""
    if not field.parts:
        return []
    # 1970-01-01 was a Thursday.
    return [(0.0, _YEAR), (3.0, _WEEK), *([(0.0, 1.0)] if field.clock else [])]


def _codes(field: Field, values: pl.Series) -> pl.Series:
    """Return the place of each text among the categories, null for others."""
    kind = pl.Enum(field.categories)
    return values.cast(kind, strict=False).to_physical().cast(pl.UInt32)


# Fitting


def fit_field(
    name: str,
    values: pl.Series,
    kind: Literal["number", "date", "text"],
    form: NumberForm | None = None,
    *,
    date_format: str = "",
    impute: bool = False,
    parts: bool = False,
) -> Field:
    """Describe a column from its training values.

    Args:
        name: Its name.
        values: Its training values: numbers, dates in days, or texts; null where missing.
        kind: What it holds.
        form, date_format: How it is written in texts.
        impute: Whether the median, or the commonest value, stands in for a missing one.
        parts: Whether seasons and weekdays are made of dates.

    Raises:
        DataError: All values are missing.
    """
    known = values.drop_nulls()
    if not len(known):
        raise DataError(f"the column {name!r} has no value in the training rows; name it in `drop`")
    form = form or NumberForm()
    indicator = impute and len(known) < len(values)
    if kind == "text":
        categories = ordered(known.unique().to_list())
        commonest = known.value_counts(sort=True)
        most = commonest.filter(pl.col("count") == commonest["count"].max())[name].to_list()
        fill = min(most, key=categories.index) if impute else None
        return Field(name, "category", categories=tuple(categories), fill=fill, indicator=indicator)
    low, high, middle = _float(known.min()), _float(known.max()), _float(known.median())
    fill = middle if impute else None
    if kind == "date":
        clock = bool((known != known.floor()).any())
        return Field(
            name, "date", date_format=date_format, fill=fill, indicator=indicator, parts=parts,
            clock=clock, origin=float(np.floor(low)), low=low, high=high,
        )  # fmt: skip
    deviation = _float(known.std(ddof=0))
    far = deviation > 0 and min(abs(low), abs(high)) > _FAR * deviation
    factor = 1.0
    if 0 < deviation < _TINY or deviation > _HUGE:
        factor = 10.0 ** -round(float(np.log10(deviation)))
    return Field(
        name, "number", form.units, form.decimal, form.thousands, fill=fill, indicator=indicator,
        origin=low if far else 0.0, factor=factor, low=low, high=high,
    )  # fmt: skip


def _float(value: object) -> float:
    return float(value)  # type: ignore[arg-type]


def ordered(texts: Sequence[str]) -> list[str]:
    """Return texts in the order of their numbers if all are numbers, else of their signs."""
    kinds = sorted(texts)
    try:
        return sorted(kinds, key=float)
    except ValueError:
        return kinds
