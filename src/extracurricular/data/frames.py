"""Take rows as people have them: data frames of pandas and polars, dicts, lists of dicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from extracurricular.errors import DataError, first_line, shorten

_FRAMES = {"pandas": ("DataFrame",), "polars": ("DataFrame", "LazyFrame"), "pyarrow": ("Table",)}


def is_frame(given: object) -> bool:
    """Return whether a value is a data frame of pandas or polars, or a table of pyarrow."""
    home = type(given).__module__.partition(".")[0]
    return type(given).__name__ in _FRAMES.get(home, ())


def to_polars(rows: Any) -> pl.DataFrame:
    """Return rows as a data frame of polars.

    Args:
        rows: A data frame of pandas (whose index is passed over) or polars, a table of pyarrow, one
            row as a dict, columns as a dict of lists or arrays, or a list of dicts.

    Raises:
        DataError: It is none of these, a name is there twice, or a column has no plain values.
    """
    if isinstance(rows, pl.LazyFrame):
        return rows.collect()
    if isinstance(rows, pl.DataFrame):
        return rows
    if is_frame(rows):
        if type(rows).__module__.startswith("pyarrow"):
            found = pl.from_arrow(rows)
            assert isinstance(found, pl.DataFrame)
            return found
        return _of_pandas(rows)
    if isinstance(rows, Mapping):
        plain = all(isinstance(v, str) or not hasattr(v, "__len__") for v in rows.values())
        columns = {str(k): [v] if plain else v for k, v in rows.items()}
    elif isinstance(rows, Sequence) and rows and all(isinstance(row, Mapping) for row in rows):
        names = dict.fromkeys(str(key) for row in rows for key in row)
        columns = {name: [row.get(name) for row in rows] for name in names}
    else:
        raise DataError(
            f"the rows are {shorten(rows)}; they must be a data frame of pandas or polars, a dict, "
            "or a list of dicts"
        )
    try:
        return pl.DataFrame([_series(name, values) for name, values in columns.items()])
    except pl.exceptions.PolarsError as error:
        raise DataError(f"the rows cannot be read: {first_line(error)}") from error


def _of_pandas(frame: Any) -> pl.DataFrame:
    names = ["" if name is None else str(name) for name in frame.columns]
    for k, name in enumerate(names):
        if name in names[:k]:
            raise DataError(
                f"the frame has the column {name!r} twice; each needs a name of its own"
            )
    return pl.DataFrame([_of_series(name, frame.iloc[:, k]) for k, name in enumerate(names)])


def _of_series(name: str, values: Any) -> pl.Series:
    """Turn a series of pandas into one of polars, without pyarrow."""
    if getattr(values.dtype, "tz", None) is not None:
        values = values.dt.tz_convert("UTC").dt.tz_localize(None)
    home = type(values.dtype).__module__.partition(".")[0]
    if home == "numpy" and values.dtype.kind in "fiubM":
        plain = values.to_numpy()
        return pl.Series(name, plain.astype("datetime64[us]") if plain.dtype.kind == "M" else plain)
    missing = values.isna().tolist()
    known = values.astype(object).tolist()
    return _series(name, [None if m else v for v, m in zip(known, missing, strict=True)])


def _series(name: str, values: Any) -> pl.Series:
    """Return values as numbers, dates or texts; a mixture of these as texts."""
    if isinstance(values, pl.Series):
        return values.alias(name)
    if hasattr(values, "dtype") and getattr(values, "ndim", 1) == 1 and values.dtype.kind in "fiub":
        return pl.Series(name, values)
    known = list(values)
    try:
        return pl.Series(name, known, strict=True)
    except (TypeError, pl.exceptions.PolarsError):
        # Whole numbers among fractions are numbers; other mixtures are texts.
        if all(v is None or isinstance(v, int | float) for v in known):
            return pl.Series(name, known, dtype=pl.Float64, strict=False)
        return pl.Series(name, [None if v is None else str(v) for v in known], dtype=pl.String)
