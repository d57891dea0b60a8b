"""Tables of the names of image files: which column has them, and where the files lie."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import polars as pl

from extracurricular.data.base import Data
from extracurricular.data.formats.blocks import Images, table_blocks
from extracurricular.data.formats.columns import (
    Column,
    Reading,
    Table,
    column_named,
    shorten_names,
)
from extracurricular.data.formats.delimited import Raw
from extracurricular.data.formats.tables import TEXTS, kind_of_file, read_raw, table_files
from extracurricular.data.formats.trees import find_store
from extracurricular.data.images.decode import endings
from extracurricular.data.images.packed import Store
from extracurricular.data.images.sizes import quoted
from extracurricular.data.texts import words
from extracurricular.errors import DataError
from extracurricular.inputs import leaves

Array: TypeAlias = np.ndarray[Any, Any]

# A column of names has so many, in parts, that are called like images.
_MOST = 0.9
_KINDS = (*TEXTS, ".parquet", ".xlsx", ".xls", ".xlsb", ".ods")


def image_column(frame: pl.DataFrame) -> str | None:
    """Return the first column of texts that are called like image files; None if there is none."""
    for name in frame.columns:
        if frame[name].dtype == pl.String:
            given = frame[name].drop_nulls()
            shown = given.str.strip_chars().str.to_lowercase()
            known = sum(shown.str.ends_with(end).sum() for end in endings())
            if len(given) and known >= _MOST * len(given):
                return name
    return None


def read_columns(
    path: Path,
    reading: Reading,
    image: str | int | None,
    target: Any,
    special: Mapping[str, str | int | None],
) -> tuple[Raw, Chosen]:
    """Read those columns of a table that are used.

    Args:
        path: The table.
        reading: How it is read.
        image: The column of the names of images; found out if None.
        target: The columns of the targets.
        special: Columns by the setting that names them.

    Returns:
        The table with the columns of targets and splits, and which they are.

    Raises:
        DataError: The table cannot be read, or has no such column.
    """
    # Names that look like numbers, such as 00012, are read as they stand there.
    texts = None if isinstance(image, int) else [] if image is None else [image]
    form = replace(reading, categorical=() if image is None else (image,))
    raw = read_raw(path, form, texts)
    every = raw.frame.columns
    if image is None:
        column = image_column(raw.frame)
        if column is None:
            raise DataError(
                f"{raw.source} has no column of names of images; set `image` to the column that "
                f"has them, and `ending` if they lack one; it has {shorten_names(every)}"
            )
    else:
        column = column_named(raw.source, every, image, "image")
    given = target if isinstance(target, list | tuple) else [target]
    targets = [column_named(raw.source, every, one, "target") for one in given]
    chosen = {
        key: column_named(raw.source, every, one, key)
        for key, one in special.items()
        if one is not None
    }
    if column in targets:
        raise DataError(
            f"{raw.source}: the target {column!r} is the column of names of images; set `target`"
        )
    used = list(dict.fromkeys([*targets, *chosen.values()]))
    passed = [name for name in every if name not in (*used, column)]
    notes = list(raw.notes)
    if passed:
        word = "column is" if len(passed) == 1 else "columns are"
        shown = shorten_names([repr(name) for name in passed])
        notes.append(f"The images are in {column!r}; {len(passed):,} {word} passed over: {shown}.")
    kept = replace(raw, frame=raw.frame.select(used), notes=tuple(notes))
    return kept, Chosen(column, raw.frame[column], targets, chosen)


@dataclass(frozen=True)
class Chosen:
    """The columns of a table of images.

    Args:
        image: The column of names.
        names: Its values.
        targets: Columns to predict.
        special: Columns that make the splits, by setting.
    """

    image: str
    names: pl.Series
    targets: list[str]
    special: dict[str, str]


def some_rows(raw: Raw, rows: list[int]) -> Raw:
    """Return some rows of a table, in their order."""
    return replace(raw, frame=raw.frame[rows], place=lambda k: raw.place(rows[k]))


def with_rows(table: Table, name: str) -> Table:
    """Return a table with a further column, of the numbers of its rows."""
    counted = Column("number", pl.Series(name, range(len(table)), dtype=pl.Float64))
    return replace(table, columns={**table.columns, name: counted})


def rows_of(made: Data) -> dict[str, Array]:
    """Return the rows of each split of a data set whose one input is the number of the row."""
    found = {part: np.array(ids, dtype=np.int64) for part, ids in made.ids.items()}
    if made.unlabelled is not None and made.fields is not None:
        [field] = made.fields.inputs
        [x] = leaves(made.unlabelled.x).values()
        exact = x[:, 0].double().numpy() / field.factor + field.origin
        found["unlabelled"] = np.round(exact).astype(np.int64)
    return found


def file_names(values: pl.Series, missing: Collection[str], ending: str = "") -> list[str | None]:
    """Return the names of files that a column has; None where it has none.

    Args:
        values: The column.
        missing: Words, in lower case, that mean a missing value.
        ending: A text that is added to each name.
    """
    given = words(values.cast(pl.String), tuple(missing)).to_list()
    return [None if name is None else _plain(name) + ending for name in given]


def _plain(name: str) -> str:
    """Return a name with the sign between folders that all systems take."""
    return name.replace("\\", "/") if "/" not in name else name.removeprefix("./")


@dataclass(frozen=True)
class Listed:
    """Rows of a table whose images are there.

    Args:
        rows: Their numbers in the table, ascending.
        names: Name of the image of each.
        store: Where the images lie.
        top: What stands before the names there.
        notes: Sentences about other rows.
    """

    rows: list[int]
    names: list[str]
    store: Store
    top: str
    notes: list[str]


def find_images(
    raw: Raw, names: list[str | None], root: Path, rows: list[int], column: str, skip: bool
) -> Listed:
    """Find the images that the rows of a table name.

    Args:
        raw: The table, for sentences.
        names: The name of the image of each row.
        root: The folder or archive that the names are relative to.
        rows: The rows that are used.
        column: The column of the names, for sentences.
        skip: Whether rows without an image are left out.

    Raises:
        DataError: ``root`` cannot be read, or a row has no image and may not be left out.
    """
    store, top = find_store(root, [name for k in rows[:100] if (name := names[k]) is not None])
    there = [(name := names[k]) is not None and top + name in store for k in rows]
    found = [k for k, has in zip(rows, there, strict=True) if has]
    lost = [k for k, has in zip(rows, there, strict=True) if not has]
    notes = []
    if lost and (not skip or not found):
        raise DataError(_missing(raw, names[lost[0]], lost, len(rows), store, column))
    if lost:
        shown = quoted([names[k] or raw.place(k) for k in lost])
        verb = (
            "is left out, as its image is"
            if len(lost) == 1
            else "are left out, as their images are"
        )
        notes.append(f"{len(lost):,} of {len(rows):,} rows {verb} not there: {shown}.")
    return Listed(found, [str(names[k]) for k in found], store, top, notes)


def _missing(
    raw: Raw, name: str | None, lost: list[int], count: int, store: Store, column: str
) -> str:
    """Return a sentence about the first row whose image is not there."""
    where = f"{raw.source}, {raw.place(lost[0])}"
    skip = f"set `damaged: skip` to leave such rows out ({len(lost):,} of {count:,})"
    if name is None:
        return f"{where}: the column {column!r} has no name of an image; fill it in, or {skip}"
    longer = next((end for end in endings() if name + end in store), None)
    if longer is not None:
        return f"{where}: there is no image {name!r}, but {name + longer!r}; set `ending: {longer}`"
    return (
        f"{where}: the image {name!r} is not in the {store.noun} {str(store.root)!r}; set `root` "
        f"to the folder or archive that has it, mend the name, or {skip}"
    )


def explained(raw: Raw, listed: Listed) -> Callable[[int, str], str]:
    """Return a function that makes a sentence of the place of a listed image, and of its fault."""

    def explain(place: int, why: str) -> str:
        row = listed.rows[place]
        return (
            f"{raw.source}, {raw.place(row)}: the image {listed.names[place]!r} {why}; mend it, "
            "leave out the row, or set `damaged: skip`"
        )

    return explain


# Tables to predict


def is_table(path: Path) -> bool:
    """Return whether a path names a table, or several by a pattern; a list in a .txt is none."""
    return kind_of_file(path) in _KINDS and path.suffix.lower() not in (".txt", "")


def home_of(root: Path, table: Path) -> str:
    """Return the folder of images relative to that of the table, to find those of other tables."""
    return os.path.relpath(root.absolute(), table.absolute().parent)


def tabled_images(
    path: Path, reading: Mapping[str, Any], given: Mapping[str, Any], id: str | None = None
) -> tuple[Images, pl.Series]:
    """Return the images that a table names, as the table of the training data did, and their ids.

    Args:
        path: The table.
        reading: How tables are written (:meth:`.columns.Reading.load`).
        given: The description of the images: ``column``, ``home`` and ``ending`` are used.
        id: The column of the ids; the names of the files are the ids if None.

    Raises:
        DataError: The table cannot be read, or has no such column.
    """
    form = Reading.load(reading)
    names: list[str] = []
    ids: list[pl.Series] = []
    for block in table_blocks(path, form, 8192):
        names += _names(path, block, form, given)
        if id is not None:
            ids.append(block[column_named(f"the table {str(path)!r}", block.columns, id, "--id")])
    if not names:
        raise DataError(f"the table {str(path)!r} has no rows")
    folder = table_files(path)[0].absolute().parent
    home = folder / str(given.get("home", "."))
    store, top = find_store(home if home.exists() else folder, names)
    # A row whose image is not there is told when its turn comes.
    found = Images(names, store, [top + name for name in names])
    return found, pl.concat(ids) if ids else pl.Series("file", names)


def _names(path: Path, block: pl.DataFrame, form: Reading, given: Mapping[str, Any]) -> list[str]:
    column = given.get("column") or image_column(block)
    if column is None or column not in block.columns:
        named = f"the column {column!r}" if column else "a column of names of images"
        raise DataError(
            f"the table {str(path)!r} lacks {named}; it has {shorten_names(block.columns)}"
        )
    ending = str(given.get("ending", ""))
    return [name or "" for name in file_names(block[column], form.missing, ending)]
