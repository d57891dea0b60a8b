"""Read the files of tables: texts, parquet, spreadsheets and .npz, one or several by a pattern."""

from __future__ import annotations

import glob
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from extracurricular.data.formats.columns import (
    Reading,
    Table,
    column_named,
    shorten_names,
    understood,
)
from extracurricular.data.formats.delimited import Raw, read_delimited
from extracurricular.data.formats.npz import read_npz
from extracurricular.data.frames import to_polars
from extracurricular.data.progress import FEWEST_BYTES
from extracurricular.data.progress import reading as watched
from extracurricular.data.texts import words
from extracurricular.errors import DataError, first_line, from_extra

TEXTS = (".csv", ".tsv", ".tab", ".txt", ".dat", ".data")
_SHEETS = (".xlsx", ".xls", ".xlsb", ".ods")
_KINDS = "a .csv (.tsv, .txt; also .gz or .zst), .parquet, .xlsx or .npz file, or several by a *"
_INDEX = r"^(Unnamed: \d+(\.\d+)*|__index_level_\d+__|)$"


def read_table(path: Path, reading: Reading | None = None) -> Table:
    """Read a table from a file, or from several by a pattern with ``*``.

    Raises:
        DataError: The file is missing or damaged, or a column cannot be understood.
    """
    reading = reading or Reading()
    return understood(read_raw(path, reading), reading)


def read_raw(path: Path, reading: Reading, texts: Collection[str] | None = None) -> Raw:
    """Read a table as its files have it, without finding out what its columns mean.

    Args:
        path: A text, parquet, Excel or .npz file, or a pattern. In an .npz file each array [N] is a
            column, and each array [N, D] is D columns, ``NAME.0`` and so on.
        reading: How it is read.
        texts: Columns of a text file that are kept as texts; those that ``reading`` names if None.

    Raises:
        DataError: The file is missing or damaged, or the files differ in their columns.
    """
    paths = table_files(path)
    parts = []
    size = sum(file.stat().st_size for file in paths)
    count = len(paths) if len(paths) > 1 else None
    with watched("reading a table", count, "files", size >= FEWEST_BYTES) as tell:
        for file in paths:
            parts.append(without_index(_one(file, reading, texts), reading))
            tell(len(parts))
    if len(parts) == 1:
        return parts[0]
    names = parts[0].frame.columns
    for file, part in zip(paths, parts, strict=True):
        if set(part.frame.columns) != set(names):
            odd = sorted(set(part.frame.columns) ^ set(names))
            raise DataError(
                f"the file {str(file)!r} has other columns than {str(paths[0])!r}: "
                f"{shorten_names(odd)} in one of them alone"
            )
    frames = [part.frame.select(names) for part in parts]
    if len({tuple(frame.dtypes) for frame in frames}) > 1:
        # A column that is plain in one file and has units in another is a text in both.
        frames = [f.select(words(column) for column in f.get_columns()) for f in frames]
    ends = np.cumsum([part.frame.height for part in parts])

    def place(row: int) -> str:
        k = int(np.searchsorted(ends, row, side="right"))
        start = int(ends[k - 1]) if k else 0
        return f"{paths[k].name!r}, {parts[k].place(row - start)}"

    notes = [f"{len(paths)} files are read, {paths[0].name!r} to {paths[-1].name!r}."]
    notes += dict.fromkeys(note for part in parts for note in part.notes)
    return Raw(f"the files {str(path)!r}", pl.concat(frames), place, tuple(notes))


def table_files(path: Path) -> list[Path]:
    """Return the file, or the files of a pattern, by name.

    Raises:
        DataError: There is none.
    """
    path = path.expanduser()
    if path.is_file():
        return [path]
    # A pattern may have stars in any part of it, which Path.glob takes in relative ones alone.
    names = glob.glob(str(path)) if "*" in str(path) else []  # noqa: PTH207
    found = [Path(name) for name in sorted(names)]
    files = [name for name in found if name.is_file()]
    if not files:
        where = "" if path.is_absolute() else f" ({str(path.absolute())!r})"
        raise DataError(f"the file {str(path)!r}{where} does not exist; path must name {_KINDS}")
    return files


def raw_frame(name: str, rows: Any, reading: Reading) -> Raw:
    """Take a data frame, or other rows, as a table."""
    frame = to_polars(rows)
    if not frame.width:
        raise DataError(f"the frame {name!r} has no columns")
    raw = Raw(f"the frame {name!r}", frame, lambda row: f"row {row}")
    return without_index(raw, reading)


def kind_of_file(path: Path) -> str:
    """Return the ending of a file, without that of what packs it, in lower case."""
    endings = [ending.lower() for ending in path.suffixes]
    packed = endings[-1:] and endings[-1] in (".gz", ".zst", ".zstd") and len(endings) > 1
    return (endings[-2] if packed else endings[-1]) if endings else ""


def _one(path: Path, reading: Reading, texts: Collection[str] | None) -> Raw:
    """Read one file."""
    kind = kind_of_file(path)
    where = f"the file {str(path)!r}"
    if kind in TEXTS:

        def kept(names: Sequence[str]) -> Collection[str]:
            if texts is not None:
                return texts
            given = reading.date_format
            dated = list(given) if isinstance(given, Mapping) else []
            known = [w for w in (*reading.categorical, *dated) if w in names or isinstance(w, int)]
            return [column_named(where, names, which, "categorical") for which in known]

        return read_delimited(path, reading.text_of(kind), kept, reading.missing, reading.decimal)
    readers = {".parquet": _parquet, ".npz": _npz} | dict.fromkeys(_SHEETS, _sheet)
    if kind not in readers:
        raise DataError(f"path is {str(path)!r}; it must name {_KINDS}")
    return Raw(where, readers[kind](path, reading), lambda row: f"row {row}")


def without_index(raw: Raw, reading: Reading) -> Raw:
    """Leave out columns that count the rows and have the name that pandas and R give them."""
    frame, notes = raw.frame, list(raw.notes)
    for name in frame.select(pl.col(_INDEX)).columns if frame.width else ():
        counted = frame[name].cast(pl.Float64, strict=False)
        start = counted[0] if frame.height else None
        wanted = pl.Series(np.arange(frame.height, dtype=np.float64))
        if reading.index == "drop" and start in (0.0, 1.0) and (counted - start).equals(wanted):
            frame = frame.drop(name)
            shown = repr(name) if name else "without name"
            notes.append(
                f"The column {shown} counts the rows and is left out (`index: keep` keeps it)."
            )
        elif not name:
            frame = frame.rename({"": "column 0"})
            notes.append("The first column has no name; it is called 'column 0'.")
    return replace(raw, frame=frame, notes=tuple(notes))


def _parquet(path: Path, reading: Reading) -> pl.DataFrame:
    try:
        return pl.read_parquet(path, glob=False, hive_partitioning=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"the file {str(path)!r} cannot be read as parquet: {first_line(error)}"
        ) from error


def _sheet(path: Path, reading: Reading) -> pl.DataFrame:
    try:
        import fastexcel
    except ImportError:
        raise DataError(f"reading {str(path)!r} needs fastexcel, {from_extra('excel')}") from None
    header = None if reading.text.header is False else 0
    try:
        sheet = fastexcel.read_excel(path).load_sheet(reading.sheet, header_row=header)
        frame: pl.DataFrame = sheet.to_polars()
    except Exception as error:  # its errors have no common base
        raise DataError(
            f"the file {str(path)!r} cannot be read: {first_line(error)}; `sheet` is "
            f"{reading.sheet!r}"
        ) from error
    if header is None:
        frame.columns = [str(k) for k in range(frame.width)]
    return frame.rename({n: "" for n in frame.columns if n == "__UNNAMED__0"}, strict=False)


def _npz(path: Path, reading: Reading) -> pl.DataFrame:
    where = f"the file {str(path)!r}"
    found = read_npz(path)
    columns: dict[str, np.ndarray[Any, Any]] = {}
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
    return pl.DataFrame({name: _series(name, array) for name, array in columns.items()})


def _series(name: str, array: np.ndarray[Any, Any]) -> pl.Series:
    if array.dtype.kind in "fiub":
        return pl.Series(name, np.ascontiguousarray(array.astype(np.float64)))
    if array.dtype.kind in "UM":
        return pl.Series(name, array.tolist() if array.dtype.kind == "U" else array)
    return pl.Series(name, [[0]] * len(array))  # of no use, but it may be one to drop
