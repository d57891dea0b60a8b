"""Predict the rows of a table, or the images of a folder, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from torch import Tensor

from extracurricular.data.formats.blocks import (
    count_rows,
    find_pictures,
    table_blocks,
)
from extracurricular.data.formats.columns import Reading, shorten_names
from extracurricular.data.formats.image_tables import is_table, tabled_images
from extracurricular.errors import DataError, RecipeError
from extracurricular.predictors.predictor import Prediction, Predictor
from extracurricular.predictors.raw_rows import Examples, take_pictures, take_rows

UNLIKE = "unlike_training"
"""The column that says how an example is unlike those of training; empty where it is not."""

# So many rows of a table are read at once, at least.
_ROWS = 8192


@dataclass(frozen=True)
class Block:
    """Examples of a file.

    Args:
        ids: Their names: numbers of rows, names of files, or values of a column.
        examples: The examples.
    """

    ids: pl.Series
    examples: Examples


@dataclass(frozen=True)
class Source:
    """The examples of a file.

    Args:
        blocks: The examples, block by block; each but the last is a multiple of the model's batch.
        count: About how many there are; None if that is not known.
        noun: A word for them.
    """

    blocks: Iterator[Block]
    count: int | None
    noun: str


def open_source(
    predictor: Predictor,
    path: Path,
    *,
    id: str | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Source:
    """Open what a model is to predict.

    Args:
        predictor: The model.
        path: For a table a file or a pattern; for images a folder, a file, a zip, a tar, a pattern,
            a list or a table of their names; or an .npy file of an array [N, ...] of inputs.
        id: Column of a table whose values name the rows; if None, they are counted from 0, and
            images have the names of their files.
        tell: Called with sentences for the user.

    Raises:
        DataError: There is no such file, or the model does not say how it becomes an input.
        RecipeError: ``id`` is of no use.
    """
    path = path.expanduser()
    size = predictor.batch_size
    intake = predictor.intake
    rows = -(-_ROWS // size) * size
    if path.suffix.lower() == ".npy" and len(predictor.inputs) == 1:
        _no_id(id, "arrays")
        array = _array(path)
        return Source(_arrays(predictor, array, size), len(array), "examples")
    if intake.fields is not None:
        if path.is_dir():
            raise DataError(
                f"{str(path)!r} is a folder; the model takes the rows of a table, with the columns "
                f"{shorten_names(list(predictor.columns))}"
            )
        reading = Reading.load(intake.table or {})
        blocks = _rows(predictor, table_blocks(path, reading, rows), path, id, tell)
        return Source(blocks, count_rows(path), "rows")
    forms = list(predictor.inputs.values())
    if len(forms) != 1 or not forms[0].is_image or forms[0].dtype != "uint8":
        raise DataError(
            f"{predictor.name} does not say how a row or a file becomes its input; ask it in "
            "Python, xcl.load(…).predict(arrays), or give an .npy file if it has one input"
        )
    if is_table(path):
        found, ids = tabled_images(path, intake.table or {}, intake.image, id)
    else:
        _no_id(id, "images")
        found = find_pictures(path)
        ids = pl.Series("file", found.names)
    blocks = _pictures(predictor, found.blocks(size), ids)
    return Source(blocks, len(found.names), "images")


def _no_id(id: str | None, what: str) -> None:
    if id is not None:
        raise RecipeError("--id", f"is {id!r}, but {what} have no columns")


def _rows(
    predictor: Predictor,
    frames: Iterator[pl.DataFrame],
    path: Path,
    id: str | None,
    tell: Callable[[str], None],
) -> Iterator[Block]:
    fields = predictor.intake.fields
    assert fields is not None
    done = 0
    for frame in frames:
        if not done:
            _check_columns(predictor, frame.columns, path, id, tell)
        counted = pl.Series("row", np.arange(done, done + frame.height))
        ids = counted if id is None else frame[id]
        done += frame.height
        yield Block(ids, take_rows(fields, frame))
    if not done:
        raise DataError(f"the table {str(path)!r} has no rows")


def _check_columns(
    predictor: Predictor,
    found: list[str],
    path: Path,
    id: str | None,
    tell: Callable[[str], None],
) -> None:
    """Refuse a table that lacks a column, and tell which columns are passed over."""
    wanted = predictor.columns
    absent = [name for name in wanted if name not in found]
    if absent:
        raise DataError(
            f"the table {str(path)!r} lacks the column{'s' if len(absent) > 1 else ''} "
            f"{', '.join(absent)}; it has {shorten_names(found)}"
        )
    if id is not None and id not in found:
        raise RecipeError("--id", f"is {id!r}; the table has the columns {shorten_names(found)}")
    extra = [name for name in found if name not in wanted and name != id]
    if extra:
        noun = "columns" if len(extra) > 1 else "column"
        shown, verb = (
            shorten_names([repr(name) for name in extra]),
            "are" if len(extra) > 1 else "is",
        )
        tell(f"The {noun} {shown} {verb} passed over.")


def _pictures(predictor: Predictor, blocks: Iterator[Any], ids: pl.Series) -> Iterator[Block]:
    [form] = predictor.inputs.values()
    done = 0
    for sources in blocks:
        own = ids[done : done + len(sources)]
        done += len(sources)
        yield Block(own, take_pictures(predictor.intake.view, form.shape, sources))


def _array(path: Path) -> np.ndarray[Any, Any]:
    try:
        found: np.ndarray[Any, Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"the file {str(path)!r} cannot be read as .npy: {error}") from error
    if found.ndim < 2:
        raise DataError(f"the file {str(path)!r} has the shape {found.shape}; it must be [N, ...]")
    return found


def _arrays(predictor: Predictor, array: np.ndarray[Any, Any], size: int) -> Iterator[Block]:
    for start in range(0, len(array), size):
        [x] = predictor.read(np.array(array[start : start + size])).values()
        ids = pl.Series("row", np.arange(start, start + len(x)))
        yield Block(ids, Examples(x, [""] * len(x), np.ones(len(x), dtype=bool)))


# Answers


def predicted(predictor: Predictor, source: Source) -> Iterator[pl.DataFrame]:
    """Yield the predictions of a source as frames, one row for each example, in order.

    For classes the columns are ``class``, ``p_NAME`` for each class and ``entropy`` in nats. For
    several labels they are ``labels``, the names of those that are predicted (from 0.5 on) with
    commas between, ``p_NAME`` for each label and ``entropy``, summed over labels. For a real target
    they are ``NAME_mean``, ``NAME_std`` and the bounds ``NAME_low50``, ``NAME_high50``,
    ``NAME_low90`` and ``NAME_high90``, in its own units. A model of several members has
    ``epistemic`` or ``NAME_epistemic`` (:meth:`.Predictor.epistemic`). ``unlike_training`` has the
    reason why a row is unlike those of training. A row without an input has no prediction. A model
    with conformal sets has ``set``, the names in it with commas between, and one with conformal
    intervals ``NAME_lower`` and ``NAME_upper``.

    Raises:
        DataError: A file cannot be read.
        RecipeError: A column of names is called as one of these.
    """
    [name] = predictor.inputs
    for block in source.blocks:
        made = _columns(predictor, {name: block.examples.x})
        if block.ids.name in {*made, UNLIKE}:
            raise RecipeError("--id", f"is {block.ids.name!r}, which names a prediction")
        frame = pl.DataFrame(made)
        usable = block.examples.usable
        if not usable.all():
            known = pl.Series(usable)
            frame = frame.select(pl.when(known).then(pl.all()))
        odd = pl.Series(UNLIKE, [why or None for why in block.examples.odd], dtype=pl.String)
        yield frame.insert_column(0, block.ids).with_columns(odd)


def _columns(predictor: Predictor, x: dict[str, Tensor]) -> dict[str, Any]:
    answer = Prediction(predictor.answer(x), predictor.names, predictor.conformal)
    apart = predictor.epistemic(x)
    made: dict[str, Any]
    if predictor.task.kind != "regression":
        names = predictor.names or tuple(map(str, range(predictor.task.size)))
        if predictor.task.kind == "multilabel":
            made = {"labels": [", ".join(some) for some in answer.names]}
        else:
            made = {"class": answer.names}
            if predictor.conformal is not None:
                made["set"] = [", ".join(map(str, some)) for some in answer.sets()]
        made |= {f"p_{name}": answer.probs[:, k] for k, name in enumerate(names)}
        made["entropy"] = answer.entropy
        return made if apart is None else made | {"epistemic": apart}
    plain = Prediction(answer.distribution)
    inner, outer = plain.interval(0.5), plain.interval(0.9)
    stated = None if predictor.conformal is None else answer.interval()
    made = {}
    for k, prefix in enumerate(_prefixes(predictor)):
        made[f"{prefix}mean"] = answer.mean[:, k]
        made[f"{prefix}std"] = answer.std[:, k]
        for mass, (low, high) in ((50, inner), (90, outer)):
            made[f"{prefix}low{mass}"], made[f"{prefix}high{mass}"] = low[:, k], high[:, k]
        if stated is not None:
            made[f"{prefix}lower"], made[f"{prefix}upper"] = (bound[:, k] for bound in stated)
        if apart is not None:
            made[f"{prefix}epistemic"] = apart[:, k]
    return {key: np.ascontiguousarray(value) for key, value in made.items()}


def _prefixes(predictor: Predictor) -> list[str]:
    """Return what the columns of each target begin with."""
    size = predictor.task.size
    names = predictor.outputs or tuple(f"y{k}" for k in range(size) if size > 1)
    return [f"{name}_" for name in names] or [""]
