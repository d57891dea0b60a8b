"""Data sets from tables: numbers, dates and categories in, real targets or classes out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from extracurricular.data.base import Data
from extracurricular.data.sets import DATA
from extracurricular.data.tasks import one_each, to_numpy
from extracurricular.data.transform import Setting
from extracurricular.distributions import Kind, Task
from extracurricular.errors import DataError


@DATA.register("table")
def table(
    path: str,
    target: str | int | list[str | int] = -1,
    task: Literal["classification", "regression", "multilabel"] | None = None,
    test: int | float = 0.2,
    validation: int | float = 0.1,
    split: str | int | None = None,
    group: str | int | None = None,
    time: str | int | None = None,
    id: str | int | None = None,
    stratify: bool = True,
    duplicates: Literal["keep", "drop"] = "keep",
    missing: Literal["error", "drop", "impute"] = "error",
    missing_values: list[str | int | float] | None = None,
    categorical: list[str | int] | None = None,
    drop: list[str | int] | None = None,
    dates: Literal["days", "parts"] = "days",
    date_format: str | dict[str, str] | None = None,
    decimal: Literal[".", ","] | None = None,
    thousands: Literal["", ",", ".", " ", "'"] | None = None,
    separator: str | None = None,
    header: bool | None = None,
    encoding: str | None = None,
    skip: int = 0,
    sheet: str | int = 0,
    index: Literal["drop", "keep"] = "drop",
    rename: dict[str, str] | None = None,
    fewest: int = 1,
    seed: int = 0,
    target_transform: Setting = None,
    memory: int | float = 4,
    on_disk: bool | Literal["auto"] = "auto",
) -> Data:
    """Read a table from a text, parquet, Excel or .npz file, or from several.

    Columns of texts, and those named in ``categorical``, become one column of 0 and 1 for each
    value that the training rows have. Dates become days since the first training day. Targets stay
    in their own units. A row without a target is kept apart as an unlabelled example.

    Args:
        path: The file, or a pattern with ``*`` for several of the same columns (see
            :func:`extracurricular.data.formats.tables.read_raw`); or a URL of such, whose files are
            copied to the user's cache folder.
        target: Name or position of the target's column, or a list of several; -1 is the last.
        task: Kind of the target. Without it texts are classes, and so are at most 20 different
            whole numbers; several targets are real.
        test, validation: Rows to set aside, as parts or as numbers of rows; ``validation`` may be
            0.
        split: Column that has ``train``, ``validation`` or ``test`` in each row. If it has no
            validation rows, they are set aside from the training rows.
        group: Column whose rows of one value stay in one split, such as a person; it is no input.
        time: Column of numbers or dates; the latest rows are tested on. It is no input.
        id: Column that identifies rows, by which a teacher's stored answers are found; the number
            of the row where None. It is no input.
        stratify: Whether each split has each class, or each tenth of a real target, in proportion.
        duplicates: Whether to ``drop`` test and validation rows whose inputs are those of a
            training row.
        missing: What a missing input does: ``error`` refuses it, ``drop`` leaves the row out,
            ``impute`` puts the training rows' median or commonest value in its place, and a column
            beside it that says so.
        missing_values: What stands for a missing value: words, numbers, and ``usual`` for the usual
            words, which are all where None.
        categorical: Columns whose numbers, or dates, are names.
        drop: Columns to leave out.
        dates: ``days`` since the first training day, or ``parts`` for the season, the weekday and
            the time of the day as well.
        date_format: Form of dates, such as ``%d/%m/%Y``, or of those of some columns, by name.
        decimal, thousands: Signs in numbers; found out where None. An empty ``thousands`` is none.
        separator: The character between the columns of a text file, a blank for any number of
            blanks; found out where None.
        header: Whether the first line of a text file names the columns; found out where None.
        encoding: Encoding of a text file; found out where None.
        skip: Lines of a text file before the table.
        sheet: Name or position of the sheet of a spreadsheet.
        index: Whether to ``drop`` or ``keep`` a column without a name that counts the rows.
        rename: Texts to put in place of others, in all columns.
        fewest: Rows that a class must have; those of rarer classes are left out.
        seed: Seed of the split.
        target_transform: What students learn of a real target: its ``log`` or ``asinh``, or a
            mapping of these by target (:func:`~.target_transform.transform_targets`).
        memory: Most memory that the numbers of parquet files may take, in GB (10^9 bytes).
        on_disk: Whether the inputs stay in a file in the user's cache folder, of which the system
            reads what is needed; ``auto`` for parquet files that exceed ``memory``.

    Raises:
        DataError: The file or a value in it cannot be used, or a setting does not fit the file.
    """
    # polars takes its time to import, which those who read no tables need not wait for.
    from extracurricular.data.formats.columns import Reading
    from extracurricular.data.formats.delimited import TextForm
    from extracurricular.data.formats.large_tables import gigabytes_of, make_large_table
    from extracurricular.data.formats.remote_files import here
    from extracurricular.data.formats.tables import read_table
    from extracurricular.data.formats.tabular import Choices, make_table

    reading = Reading(
        text=TextForm(separator, header, encoding, skip),
        decimal=decimal,
        thousands=thousands,
        missing_values=tuple(missing_values) if missing_values is not None else ("usual",),
        date_format=date_format,
        # Ids are texts, even if they look like numbers.
        categorical=(*(categorical or ()), *(() if id is None else (id,))),
        drop=tuple(drop or ()),
        rename=rename or {},
        index=index,
        sheet=sheet,
    )
    choices = Choices(
        target=target, task=task, test=test, validation=validation, split=split, group=group,
        time=time, id=id, stratify=stratify, duplicates=duplicates, missing=missing, dates=dates,
        fewest=fewest, seed=seed, target_transform=target_transform,
    )  # fmt: skip
    with here(path) as place:
        if on_disk is True or (on_disk == "auto" and gigabytes_of(place) > memory):
            return make_large_table(name_of(path), place, reading, choices)
        return make_table(name_of(path), read_table(place, reading), choices)


def name_of(path: str) -> str:
    """Return the file's name without its endings; of a pattern, that of its folder."""
    name = Path(path).name
    for ending in Path(path).suffixes[::-1]:
        name = name.removesuffix(ending)
    return Path(path).absolute().parent.name if "*" in name else name


def from_frame(
    frame: Any,
    target: str | int | list[str | int] = -1,
    *,
    name: str = "frame",
    task: Literal["classification", "regression", "multilabel"] | None = None,
    missing_values: list[str | int | float] | None = None,
    categorical: list[str | int] | None = None,
    drop: list[str | int] | None = None,
    date_format: str | Mapping[str, str] | None = None,
    decimal: Literal[".", ","] | None = None,
    thousands: Literal["", ",", ".", " ", "'"] | None = None,
    rename: Mapping[str, str] | None = None,
    **settings: Any,
) -> Data:
    """Make a data set from a data frame.

    Args:
        frame: A data frame of pandas, whose index is passed over, or of polars; a dict of columns,
            or a list of dicts.
        target: Name or position of the target's column, or a list of several; -1 is the last.
        name: The data set's name.
        task: Kind of the target; found out where None.
        missing_values, categorical, drop, date_format, decimal, thousands, rename: See
            :func:`table`.
        settings: ``test``, ``validation``, ``split``, ``group``, ``time``, ``id``,
            ``stratify``, ``duplicates``, ``missing``, ``dates``, ``fewest``, ``seed`` and
            ``target_transform``, as for :func:`table`.

    Raises:
        DataError: The frame or a value in it cannot be used, or a setting does not fit.
    """
    from extracurricular.data.formats.columns import Reading, understood
    from extracurricular.data.formats.tables import raw_frame
    from extracurricular.data.formats.tabular import Choices, make_table

    reading = Reading(
        decimal=decimal,
        thousands=thousands,
        missing_values=tuple(missing_values) if missing_values is not None else ("usual",),
        date_format=date_format,
        categorical=(*(categorical or ()), *([settings["id"]] if "id" in settings else [])),
        drop=tuple(drop or ()),
        rename=rename or {},
    )
    choices = Choices(target=target, task=task, **settings)
    return make_table(name, understood(raw_frame(name, frame, reading), reading), choices)


def is_frame(x: Any) -> bool:
    """Return whether x is a data frame, without an import of what makes them."""
    home = type(x).__module__.partition(".")[0]
    return home in ("pandas", "polars") and type(x).__name__ in ("DataFrame", "LazyFrame")


def _names(y: Any) -> list[str]:
    """Return the names of targets: those of a series or a frame, or made up."""
    if is_frame(y):
        return [str(column) for column in y.columns]
    shape = to_numpy(y).shape
    if len(shape) == 2 and shape[1] > 1:
        return [f"target {k}" for k in range(shape[1])]
    return [str(getattr(y, "name", None) or "target")]


def _each(count: int) -> str:
    return "one value" if count == 1 else f"{count} values"


def from_frames(
    x: Any,
    y: Any,
    given: Mapping[str, Any],
    name: str,
    task: Task | Kind | None,
    *,
    group: Any = None,
    time: Any = None,
    **settings: Any,
) -> Data:
    """Make a data set of a frame of inputs and the targets beside it.

    Args:
        x: A data frame of pandas or polars.
        y: Targets, one for each row, or several columns of them; a series or a frame names them.
        given: For ``test`` and ``validation`` the part to set aside, or a pair like (x, y).
        name: The data set's name.
        task: What is predicted.
        group, time: A value for each row of x (:func:`table`).
        settings: Further settings of :func:`from_frame`.

    Raises:
        DataError: Lengths differ, or a value cannot be used.
    """
    import polars as pl

    from extracurricular.data.frames import to_polars

    pairs = {"train": (x, y)} | {k: v for k, v in given.items() if isinstance(v, tuple)}
    if "validation" in pairs and "test" not in pairs:
        raise DataError(f"data {name!r}: validation is given as a frame, so test must be too")
    targets = _names(y)
    # A blank before them keeps these names apart from those of a person's columns.
    by = {f" {k}": v for k, v in (("group", group), ("time", time)) if v is not None}
    frames = []
    for part, (inputs, labels) in pairs.items():
        frame = to_polars(inputs)
        values = to_numpy(labels)
        columns_of = values[:, None] if values.ndim == 1 else values
        if columns_of.shape != (frame.height, len(targets)):
            raise DataError(
                f"data {name!r}: x has {frame.height} rows, and y the shape {values.shape}; y must "
                f"have {_each(len(targets))} for each row"
            )
        columns = []
        for target, own in zip(targets, columns_of.T, strict=True):
            if target in frame.columns:
                raise DataError(f"data {name!r}: x has the column {target!r}, which is the target")
            columns.append(pl.Series(target, own.tolist() if own.dtype.kind in "UO" else own))
        for key, each in by.items() if part == "train" else ():
            columns.append(pl.Series(key, one_each(each, key.strip(), frame.height, name)))
        if len(pairs) > 1:
            columns.append(pl.Series(" split", [part] * frame.height))
        frames.append(frame.with_columns(columns))
    settings |= {part: 0 if isinstance(v, tuple) else v for part, v in given.items()}
    return from_frame(
        pl.concat(frames, how="diagonal_relaxed"), list(targets), name=name,
        task=task.kind if isinstance(task, Task) else task,
        split=" split" if len(pairs) > 1 else None,
        group=" group" if group is not None else None,
        time=" time" if time is not None else None, **settings,
    )  # fmt: skip
