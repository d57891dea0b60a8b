"""Images whose targets are in a table beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from extracurricular.data.base import SAMPLE, Data, Split, fit_scale, spaced
from extracurricular.data.formats.pictures import Pictures, view_of, without_repeats
from extracurricular.data.images.decode import view_settings
from extracurricular.data.sets import DATA
from extracurricular.data.sets.table import name_of
from extracurricular.data.splits import split_indices
from extracurricular.data.transform import Setting
from extracurricular.errors import DataError

Array: TypeAlias = np.ndarray[Any, Any]

# Stands for the rows of a table among its columns; a blank keeps it apart from a person's names.
_ROW = " row of the table"


@DATA.register("images")
def images(
    table: str,
    image: str | int | None = None,
    target: str | int | list[str | int] = -1,
    root: str | None = None,
    ending: str = "",
    task: Literal["classification", "regression", "multilabel"] | None = None,
    size: int | list[int] = 64,
    channels: Literal[1, 3] = 3,
    test: int | float = 0.2,
    validation: int | float = 0.1,
    split: str | int | None = None,
    group: str | int | None = None,
    time: str | int | None = None,
    stratify: bool = True,
    duplicates: Literal["keep", "drop"] = "keep",
    limit: int | None = None,
    fewest: int = 1,
    seed: int = 0,
    damaged: Literal["error", "skip"] = "error",
    memory: int | float = 4,
    cache: bool | str = False,
    stream: bool | Literal["auto"] = "auto",
    workers: int | None = None,
    centre: int | float = 1.0,
    draft: bool = True,
    missing_values: list[str | int | float] | None = None,
    date_format: str | dict[str, str] | None = None,
    decimal: Literal[".", ","] | None = None,
    thousands: Literal["", ",", ".", " ", "'"] | None = None,
    separator: str | None = None,
    header: bool | None = None,
    encoding: str | None = None,
    skip: int = 0,
    sheet: str | int = 0,
    rename: dict[str, str] | None = None,
    target_transform: Setting = None,
) -> Data:
    """Load images whose file names stand in a table, with a class or numbers to predict of each.

    Images are decoded once into memory, or streamed (:func:`.imagefolder`); both give the same
    pixels and scales. The scale of the pixels is that of at most
    :data:`~extracurricular.data.base.SAMPLE` training images. A row without a target is kept apart
    as an unlabelled example. Other columns are passed over.

    Args:
        table: The table, of any kind that :func:`.table` reads.
        image: Name or position of the column of file names; if None, the first column of texts that
            are called like images.
        target: Name or position of the column to predict, or a list of several; -1 is the last.
        root: The folder, zip or tar that the names are relative to; the table's folder if None.
        ending: A text to add to each name, such as ``.jpg``.
        task: Kind of the target. Without it texts are classes, and so are at most 20 different
            whole numbers; several targets are real.
        size, channels, centre, draft: The part of an image that is shown (:func:`.imagefolder`).
        test, validation, split, group, time, stratify, fewest, seed: The splits (:func:`.table`).
        duplicates: Whether to ``drop`` test and validation images that equal a training image in
            all pixels; streamed images are decoded once for that.
        limit: At most so many rows are read, chosen at random.
        damaged: What an image does that is not there or cannot be read: ``error`` ends with its
            row, ``skip`` leaves the row out.
        memory, cache, stream, workers: How images are read (:func:`.imagefolder`).
        missing_values, date_format, decimal, thousands, separator, header, encoding, skip, sheet,
            rename: How the table is read (:func:`.table`).
        target_transform: What students learn of a real target (:func:`.table`).

    Raises:
        DataError: The table, a value or an image cannot be used, or a setting does not fit.
    """
    # polars takes its time to import, which those who read no tables need not wait for.
    from extracurricular.data.formats import image_tables as tables
    from extracurricular.data.formats.columns import Reading, understood
    from extracurricular.data.formats.delimited import TextForm
    from extracurricular.data.formats.tabular import Choices, make_table

    reading = Reading(
        text=TextForm(separator, header, encoding, skip),
        decimal=decimal,
        thousands=thousands,
        missing_values=tuple(missing_values) if missing_values is not None else ("usual",),
        date_format=date_format,
        rename=rename or {},
        sheet=sheet,
    )
    where = f"data {table!r}"
    view = view_of(where, size, channels, centre, draft)
    raw, columns = tables.read_columns(
        Path(table), reading, image, target, {"split": split, "group": group, "time": time}
    )
    height = raw.frame.height
    notes: list[str] = []
    rows = list(range(height))
    if limit is not None and limit < height:
        if limit < 1:
            raise DataError(f"{where}: limit is {limit}; it must be a number of rows")
        rows = sorted(split_indices(height, [limit], seed)[0].tolist())
        notes.append(f"{limit:,} of {height:,} rows are read (`limit`).")
    home = Path(table).expanduser().parent if root is None else Path(root).expanduser()
    called = tables.file_names(columns.names, reading.missing, ending)
    listed = tables.find_images(raw, called, home, rows, columns.image, damaged == "skip")
    pictures = Pictures(
        "images", where, name_of(table), listed.store, [listed.top + n for n in listed.names], view,
        damaged == "skip", memory, cache, stream, workers, tables.explained(raw, listed),
    )  # fmt: skip
    x, used, lost = None, np.arange(len(listed.rows)), list[str]()
    if not pictures.streams:
        x, whole, lost = pictures.decoded()
        used = np.flatnonzero(whole)
        if not len(used):
            raise DataError(f"{where}: none of the {len(whole):,} images can be read")
    known = understood(tables.some_rows(raw, [listed.rows[k] for k in used]), reading)
    choices = Choices(
        target=columns.targets, task=task, test=test, validation=validation,
        split=columns.special.get("split"), group=columns.special.get("group"),
        time=columns.special.get("time"), stratify=stratify, fewest=fewest, seed=seed,
        target_transform=target_transform,
    )  # fmt: skip
    made = make_table(pictures.name, tables.with_rows(known, _ROW), choices)
    # The one input of that table is the number of a row, which has an image.
    given = {part: used[own] for part, own in tables.rows_of(made).items()}
    found: dict[str, Any]
    if x is None:
        found, left, lost = pictures.streamed(given)
    else:
        found = {part: torch.from_numpy(x[own]) for part, own in given.items()}
        left = given
    if duplicates == "drop":
        found, left, told = without_repeats(found, left)
        lost = [*lost, *told]
    sample = found["train"][spaced(len(found["train"]), SAMPLE)]

    def split_of(part: str) -> Split:
        own: Any = found[part]
        y = getattr(made, part).y
        kept = torch.from_numpy(np.isin(given[part], left[part]))
        return Split(own, y[kept])

    seen = {"column": columns.image, "home": tables.home_of(home, Path(table)), "ending": ending}
    unlabelled: Any = found.get("unlabelled")
    written = reading.dump()
    told = [*notes, *listed.notes, *lost, *(note for note in made.notes if _ROW not in note)]
    return replace(
        made,
        train=split_of("train"),
        validation=split_of("validation"),
        test=split_of("test"),
        x_scale={"": fit_scale(sample)},
        columns=(),
        fields=None,
        unlabelled=None if unlabelled is None else Split(unlabelled),
        notes=tuple(told),
        reading={
            "image": {**view_settings(view), **seen},
            **({"table": written} if written else {}),
        },
        ids={part: [listed.names[k] for k in left[part]] for part in made.ids},
    )
