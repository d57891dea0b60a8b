"""Read the columns of tables from CSV, parquet and .npz files: numbers or texts, none missing."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from extracurricular.data.formats import parquet
from extracurricular.errors import DataError, shorten

Array: TypeAlias = np.ndarray[Any, Any]

_LARGEST = float(np.finfo(np.float32).max)
_MISSING = ("", "?", "na", "n/a", "nan", "null", "none")
_KINDS = "a .csv, .tsv, .parquet or .npz file"


@dataclass(frozen=True)
class Table:
    """A table as its file has it.

    Args:
        path: The file.
        columns: float64 or texts, [N] each, by name, in the order of the file.
        place: Function from row k, counted from 0, to its name in errors (``"line 2"``).
    """

    path: Path
    columns: dict[str, Array]
    place: Callable[[int], str]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def named(self, which: str | int, setting: str) -> str:
        """Return the name of a column that is given by name or position; -1 is the last.

        Raises:
            DataError: There is no such column; the sentence names the setting.
        """
        names = list(self.columns)
        if isinstance(which, str) and which in names:
            return which
        if isinstance(which, int) and -len(names) <= which < len(names):
            return names[which]
        raise DataError(
            f"the file {str(self.path)!r} has no column {which!r}, which {setting} names; "
            f"it has {shorten_names(names)}"
        )


def shorten_names(names: Sequence[str]) -> str:
    """Return a list of names for a sentence; of many names the middle ones are left out."""
    return ", ".join(names if len(names) <= 12 else [*names[:8], "…", *names[-3:]])


def read_table(
    path: Path,
    separator: str = ",",
    header: bool = True,
    categorical: Collection[str | int] = (),
    drop: Collection[str | int] = (),
) -> Table:
    """Read a table.

    Args:
        path: A .csv (or .tsv, .txt), .parquet or .npz file. In an .npz file each array [N] is a
            column, and each array [N, D] is D columns, ``NAME.0`` and so on.
        separator: The character between the columns of a text.
        header: Whether the first line of a text names the columns; else they are ``"0"``, ``"1"``…
        categorical: Columns, by name or position, whose values are names even if they look like
            numbers.
        drop: Columns to leave out, whatever they hold.

    Raises:
        DataError: The file is missing or damaged, or a value is missing, too large, or a text
            among numbers.
    """
    if not path.is_file():
        raise DataError(f"the file {str(path)!r} does not exist; path must name {_KINDS}")
    kind = path.suffix.lower()
    if kind in (".csv", ".tsv", ".txt"):
        raw, place = _text(path, separator, header)
    elif kind == ".parquet":
        raw, place = _parquet(path), lambda row: f"row {row}"
    elif kind == ".npz":
        raw, place = _npz(path), lambda row: f"row {row}"
    else:
        raise DataError(f"path is {str(path)!r}; it must name {_KINDS}")
    whole = Table(path, raw, place)
    dropped = {whole.named(which, "drop") for which in drop}
    names = {whole.named(which, "categorical") for which in categorical}
    kept = {name: values for name, values in raw.items() if name not in dropped}
    if not kept or not len(whole):
        raise DataError(f"the file {str(path)!r} has no {'rows' if kept else 'columns'}")
    columns = {name: _column(whole, name, v, name in names) for name, v in kept.items()}
    return Table(path, columns, place)


def _column(table: Table, name: str, values: Array, categorical: bool) -> Array:
    """Check a column and return numbers as float64, anything else as texts."""
    where = f"the file {str(table.path)!r}"
    if values.dtype.kind in "fiub":
        reals = values.astype(np.float64)
        with np.errstate(invalid="ignore"):
            wrong = np.flatnonzero(~(np.abs(reals) <= _LARGEST))
        if len(wrong):
            raise _missing(table, name, int(wrong[0]), values[wrong[0]])
        return np.array([f"{v:.15g}" for v in reals]) if categorical else reals
    if values.dtype.kind not in "UO":
        raise DataError(
            f"{where}: the column {name!r} is neither of numbers nor of texts; name it in `drop`"
        )
    words = []
    for row, value in enumerate(values.tolist()):
        word = "" if value is None else str(value).strip()
        if word.lower() in _MISSING:
            raise _missing(table, name, row, word)
        words.append(word)
    if categorical:
        return np.array(words)
    numbers = [_number(word) for word in words]
    first = next((k for k, number in enumerate(numbers) if number is None), None)
    if first is not None:
        if all(number is None for number in numbers):
            return np.array(words)
        raise DataError(
            f"{where}, {table.place(first)}: the column {name!r} has {shorten(words[first])} "
            "among numbers; mend it, or name the column in `categorical` or `drop`"
        )
    for row, number in enumerate(numbers):
        if number is None or not abs(number) <= _LARGEST:
            raise _missing(table, name, row, words[row])
    return np.array(numbers, dtype=np.float64)


def _missing(table: Table, name: str, row: int, value: Any) -> DataError:
    empty = value is None or str(value).lower() in _MISSING
    problem = "no value" if empty else f"{value}, which float32 cannot hold"
    if empty and value:
        problem += f" ({value})"
    return DataError(
        f"the file {str(table.path)!r}, {table.place(row)}: the column {name!r} has {problem}; "
        "fill it in, leave out the row, or name the column in `drop`"
    )


def _number(word: str) -> float | None:
    try:
        # Python reads 1_000 as a number, but no such file means one.
        return float(word) if "_" not in word else None
    except ValueError:
        return None


# Files


def _text(
    path: Path, separator: str, header: bool
) -> tuple[dict[str, Array], Callable[[int], str]]:
    where = f"the file {str(path)!r}"
    if len(separator) != 1:
        raise DataError(f"separator is {separator!r}; it must be one character")
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=separator, strict=True, skipinitialspace=True)
            for row in reader:
                if row:
                    rows.append(row)
                    lines.append(reader.line_num)
    except csv.Error as error:
        raise DataError(f"{where}, line {reader.line_num}: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is no text in UTF-8: {error}") from error
    if not rows:
        raise DataError(f"{where} is empty")
    names = [name.strip() for name in rows[0]] if header else [str(k) for k in range(len(rows[0]))]
    if header:
        _check_names(where, names, separator)
        rows, lines = rows[1:], lines[1:]
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(names):
            raise DataError(
                f"{where}, line {line}: the row has {len(row)} values, but there are "
                f"{len(names)} columns"
            )
    columns = {n: np.array([row[k] for row in rows], dtype=object) for k, n in enumerate(names)}
    return columns, lambda row: f"line {lines[row]}"


def _check_names(where: str, names: list[str], separator: str) -> None:
    if all(_number(name) is not None for name in names):
        raise DataError(
            f"{where}: the first line has numbers where the names of the columns should be; "
            "if there are no names, set `header: false`"
        )
    if len(names) == 1:
        other = next((c for c in (";", "\t", ",", "|") if c != separator and c in names[0]), None)
        if other is not None:
            raise DataError(
                f"{where} has one column, {shorten(names[0])}; set `separator: {other!r}`"
            )
    for k, name in enumerate(names):
        if not name or name in names[:k]:
            problem = f"{name!r} is there twice" if name else f"column {k} has no name"
            raise DataError(f"{where}, line 1: {problem}; each column needs a name of its own")


def _parquet(path: Path) -> dict[str, Array]:
    with parquet.opened(path) as file:
        from pyarrow import types

        table = file.read()
        columns: dict[str, Array] = {}
        for name in table.schema.names:
            values, kind = table[name], table.schema.field(name).type
            if types.is_dictionary(kind):
                kind = kind.value_type
                values = values.cast(kind)
            numbers = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal)
            if any(is_kind(kind) for is_kind in numbers):
                # A missing value becomes NaN, which is reported as missing.
                columns[name] = np.array(
                    [math.nan if v is None else float(v) for v in values.to_pylist()]
                )
            elif types.is_string(kind) or types.is_large_string(kind):
                columns[name] = np.array(values.to_pylist(), dtype=object)
            else:
                # This column is of no use, but it may be one to drop.
                columns[name] = np.zeros(len(values), "V1")
    return columns


def _npz(path: Path) -> dict[str, Array]:
    where = f"the file {str(path)!r}"
    try:
        # The file is opened here, as numpy leaks its own handle if the archive is damaged.
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as stored:
            found = {name: stored[name] for name in stored.files}
    except Exception as error:  # numpy and zipfile raise a dozen kinds for a damaged file
        raise DataError(f"{where} cannot be read as .npz: {error}") from error
    columns: dict[str, Array] = {}
    for name, array in found.items():
        if array.ndim == 1:
            columns[name] = array
        elif array.ndim == 2:
            columns |= {f"{name}.{k}": array[:, k] for k in range(array.shape[1])}
        else:
            raise DataError(
                f"{where}: {name!r} has shape {array.shape}; the arrays of a table must be [N] or "
                "[N, D]"
            )
    counts = {name: len(array) for name, array in columns.items()}
    if len(set(counts.values())) > 1:
        raise DataError(f"{where} has columns of different lengths: {counts}")
    return columns
