"""Turn raw rows and image files into a model's input, as its training did, and tell odd ones.

All that is needed is the description of the data (``Data.reading``), which a run, a saved student
and an exported file carry.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from extracurricular.data.fields import Field, Fields
from extracurricular.data.images.decode import View, decode, image_bytes, problem, view_bytes
from extracurricular.errors import DataError, shorten

if TYPE_CHECKING:
    import polars as pl

    from extracurricular.data.formats.examples import Source

Array: TypeAlias = np.ndarray[Any, Any]

# Libraries whose objects may be data frames; polars itself is imported only for those.
_FRAMES = ("pandas", "polars", "pyarrow")
_BLOCK = 1024


@dataclass(frozen=True)
class Intake:
    """How the one input of a model is made of raw examples.

    Args:
        fields: The columns of a table; None for other data.
        view: The part of a picture that is taken, and its size; None for other data.
        table: How files of the table are written (:meth:`.columns.Reading.load`).
        image: The description of pictures, as ``Data.reading`` has it; the name of the column of
            their files among it, if they are those of a table.
    """

    fields: Fields | None = None
    view: View | None = None
    table: Mapping[str, Any] | None = None
    image: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Examples:
    """Raw examples as a model takes them.

    Args:
        x: The inputs, [N, ...]; zeros where there is no input.
        odd: How each example is unlike the training data, in words; empty where it is not.
        usable: Whether each has an input at all, bool, [N].
    """

    x: Tensor
    odd: list[str]
    usable: Array


def intake_of(
    reading: Mapping[str, Any], columns: Sequence[str], shape: tuple[int, ...], dtype: str
) -> Intake:
    """Return how an input is made of raw examples, as far as the description of the data says.

    Args:
        reading: As for :class:`~extracurricular.data.Data`.
        columns: Names of the columns of the input, if known.
        shape: Shape of one example's input.
        dtype: Its type, ``uint8`` or ``float32``.

    Raises:
        DataError: The description is damaged.
    """
    if "columns" in reading:
        fields = Fields.load(reading["columns"])
        if len(fields.columns) == shape[0]:
            return Intake(fields, table=reading.get("table", {}))
        raise DataError(f"the description has {len(fields.columns)} columns, the model {shape[0]}")
    if len(shape) == 1 and dtype != "uint8" and len(columns) == shape[0]:
        # Columns without a description are numbers, whose range is not known.
        plain = [Field(name, "number", low=-np.inf, high=np.inf) for name in columns]
        return Intake(Fields(tuple(plain)), table={})
    if "image" in reading and len(shape) == 3:
        given = reading["image"]
        try:
            view = View(_chw(shape), float(given["centre"]), bool(given["draft"]))
            return Intake(view=view, table=reading.get("table", {}), image=given)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"the description of the images is damaged: {error!r}") from error
    return Intake()


def _chw(shape: tuple[int, ...]) -> tuple[int, int, int]:
    channels, height, width = shape
    return channels, height, width


# Python objects


def from_raw(intake: Intake, x: Any) -> Any:
    """Return the input that raw rows, pictures or files make; anything else as it is.

    Args:
        intake: How the input is made.
        x: A data frame of pandas or polars, a dict of columns, one row as a dict, or a list of
            these; pictures of PIL; names of image files; the path of a table, or of a folder, a zip
            or a tar of images. Rows of a model of pictures have their files in the column that the
            table of its training had them in.

    Raises:
        DataError: A column is missing, or a value or file cannot be used.
    """
    if _is_path(x) or (isinstance(x, list | tuple) and x and all(map(_is_path, x))):
        return _files(intake, x)
    if intake.fields is not None and _is_rows(x, intake.fields.names):
        from extracurricular.data.encode import encode

        return torch.from_numpy(encode(intake.fields, x))
    if intake.view is not None:
        column = intake.image.get("column")
        if column is not None and _is_rows(x, (column,)):
            return _files(intake, _named_in(x, column, str(intake.image.get("ending", ""))))
        some = [x] if _is_picture(x) else x
        if isinstance(some, list | tuple) and some and all(map(_is_picture, some)):
            return torch.from_numpy(np.stack([_seen(one, intake.view) for one in some]))
    return x


def _is_path(x: Any) -> bool:
    return isinstance(x, str | Path)


def _is_picture(x: Any) -> bool:
    return isinstance(x, Image.Image)


def _is_rows(x: Any, columns: Collection[str]) -> bool:
    if type(x).__module__.partition(".")[0] in _FRAMES:
        return hasattr(x, "columns")
    if isinstance(x, Mapping):
        # The arrays of a model with one input may be given as {"x": [N, D]}.
        return set(x) != {"x"} or ("x" in columns and np.ndim(x["x"]) < 2)
    return isinstance(x, list | tuple) and bool(x) and all(isinstance(one, Mapping) for one in x)


def _named_in(x: Any, column: str, ending: str) -> list[str]:
    """Return the files that rows name."""
    from extracurricular.data.formats.image_tables import file_names
    from extracurricular.data.frames import to_polars

    frame = to_polars(x)
    if column not in frame.columns:
        raise DataError(
            f"the rows lack the column {column!r} of names of images; they have "
            f"{', '.join(frame.columns[:12])}"
        )
    names = file_names(frame[column], (), ending)
    if None in names:
        raise DataError(f"row {names.index(None)}: the column {column!r} has no name of an image")
    return [name for name in names if name is not None]


def _seen(image: Image.Image, view: View) -> Array:
    # A copy, as a picture would be turned in place; that of a large JPEG is decoded in full.
    return view_bytes(image.copy(), view)


def _files(intake: Intake, x: Any) -> Any:
    """Return the input that files make."""
    if intake.fields is not None:
        if not _is_path(x):
            raise DataError("x is a list of files; the model takes rows, or the path of one table")
        from extracurricular.data.encode import encode
        from extracurricular.data.formats.blocks import table_blocks
        from extracurricular.data.formats.columns import Reading

        reading = Reading.load(intake.table or {})
        blocks = table_blocks(Path(x), reading, _BLOCK)
        made = [torch.from_numpy(encode(intake.fields, block)) for block in blocks]
        if not made:
            raise DataError(f"the table {str(x)!r} has no rows")
        return torch.cat(made)
    from extracurricular.data.formats.blocks import find_pictures
    from extracurricular.data.images.decode import open_image

    if _is_path(x):
        from extracurricular.data.formats.image_tables import is_table, tabled_images

        path = Path(x).expanduser()
        found = (
            tabled_images(path, intake.table or {}, intake.image)[0]
            if is_table(path)
            else find_pictures(path)
        )
        sources = [one for some in found.blocks(_BLOCK) for one in some]
    else:
        sources = [(str(name), Path(name).expanduser()) for name in x]
    if intake.view is not None:
        return torch.stack([_opened(source, intake.view) for source in sources])
    # Whoever reads pictures next says which size the model takes.
    try:
        return [open_image(file) for _, file in sources]
    except Exception as error:  # decoders raise all kinds for a damaged file
        raise DataError(f"an image {problem(error)}") from error


def _opened(source: Source, view: View) -> Tensor:
    name, file = source
    try:
        return torch.from_numpy(decode(file, view))
    except Exception as error:  # decoders raise all kinds for a damaged file
        raise DataError(f"the image {name!r} {problem(error)}") from error


# Many examples, of which some may be odd


def take_rows(fields: Fields, frame: pl.DataFrame) -> Examples:
    """Return the inputs of rows, and how rows are unlike those of training.

    A row with a value that training could not have read has no input.

    Raises:
        DataError: A column is missing.
    """
    from extracurricular.data.encode import encode_columns, read, unlike_values

    columns = read(fields, frame, strict=False)
    odd: list[list[str]] = [[] for _ in range(frame.height)]
    usable = np.ones(frame.height, dtype=bool)
    for field in fields.inputs:
        values = columns[field.name]
        for row in np.flatnonzero(unlike_values(field, values)):
            odd[row].append(_words(field, values[int(row)], frame[field.name][int(row)]))
        if field.fill is None and values.null_count():
            usable &= values.is_not_null().to_numpy()
            columns[field.name] = values.fill_null(_stand_in(field))
    x = encode_columns(fields, columns)
    finite = np.isfinite(x).all(1)
    x[~(finite & usable)] = 0
    for row in np.flatnonzero(~finite & usable):
        odd[row] = odd[row] or ["a value is not finite"]
    return Examples(torch.from_numpy(x), ["; ".join(some) for some in odd], finite & usable)


def _stand_in(field: Field) -> Any:
    """Return a value for the input of a row that has none, which nobody sees."""
    return field.categories[0] if field.kind == "category" else field.origin


def _words(field: Field, value: Any, raw: Any) -> str:
    """Return how a value is unlike those of training."""
    if value is None:
        return f"{field.name} has no value"
    if field.kind == "category":
        return f"{field.name} is {shorten(value)}, which training did not have"
    if np.isnan(value):
        return f"{field.name} is {shorten(raw)}, which is no {field.kind}"
    shown = [_shown(field, one) for one in (value, field.low, field.high)]
    return f"{field.name} is {shown[0]}, and training had {shown[1]} to {shown[2]}"


def _shown(field: Field, value: float) -> str:
    if field.kind == "date" and np.isfinite(value):
        return str(np.datetime64("1970-01-01") + np.timedelta64(int(np.floor(value)), "D"))
    return f"{value:.6g}"


def take_pictures(
    view: View | None, shape: tuple[int, ...], sources: Collection[Source]
) -> Examples:
    """Return the inputs of image files; one that cannot be read has none, and says why.

    Args:
        view: The part to take of each; None for images that have the model's size.
        shape: The model's (C, H, W).
        sources: The images.
    """
    from concurrent.futures import ThreadPoolExecutor

    x = np.zeros((len(sources), *shape), np.uint8)

    def take(k: int, source: Source) -> str:
        try:
            if view is None:
                x[k] = _whole(source, shape)
            else:
                decode(source[1], view, out=x[k])
        except Exception as error:  # decoders raise all kinds for a damaged file
            x[k] = 0
            return f"the image {problem(error)}"
        return ""

    # Pillow lets threads run side by side.
    with ThreadPoolExecutor() as threads:
        odd = list(threads.map(take, range(len(sources)), sources))
    return Examples(torch.from_numpy(x), odd, np.array([not why for why in odd]))


def _whole(source: Source, shape: tuple[int, ...]) -> Array:
    from extracurricular.data.images.decode import open_image

    with open_image(source[1]) as image:
        return image_bytes(image, shape)
