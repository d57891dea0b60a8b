"""Data sets from arrays: NumPy arrays, tensors, an .npz file, a torch Dataset."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from extracurricular.data.base import (
    Data,
    check_finite,
    make_data,
    map_arrays,
    split_indices,
)
from extracurricular.data.sets import DATA
from extracurricular.distributions import Task
from extracurricular.errors import DataError, shorten
from extracurricular.inputs import Deferred

# numpy and zipfile raise these for files that are empty, cut short, encrypted, or no archive.
_UNREADABLE = (
    ValueError,
    TypeError,
    OSError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)

# Examples that a loader without indexing may give; more are most likely an endless stream.
_MOST_STREAMED = 2_000_000


def from_arrays(
    x: Any,
    y: Any,
    *,
    test: float | tuple[Any, Any] = 0.2,
    validation: float | tuple[Any, Any] = 0.1,
    seed: int = 0,
    name: str = "arrays",
    task: Task | None = None,
) -> Data:
    """Make a data set from arrays or tensors.

    Args:
        x: Inputs [N, ...], or a tuple or dict of such; images as [N, C, H, W] or [N, H, W]. Lists
            become arrays.
        y: Integer class indices [N], or real targets [N] or [N, D].
        test: The test examples (x, y), or the part of x and y to set aside for them.
        validation: The same for the validation examples; 0 for none.
        seed: Seed of the split.
        name: The data set's name.
        task: What is predicted; read from y if None.

    Raises:
        DataError: The values cannot be used; the sentence says why.
    """
    x = map_arrays(lambda part: _as_array(part, "x"), x)
    y = _as_array(y, "y")
    if task is None:
        _refuse_one_hot(y, name)
    count = _count(x, y, name)
    # This check comes before the split, so that errors name the row of the given array.
    for which, values in [*_named(x), ("y", y)]:
        array = np.asarray(values)
        if array.dtype.kind == "f":
            check_finite(torch.from_numpy(array), f"data {name!r}: {which}")
    given = {"test": test, "validation": validation}
    for part, value in given.items():
        if isinstance(value, int | float) and not 0 <= value < 1:
            raise DataError(f"data {name!r}: {part} is {value}; it must be a part in [0, 1)")
    sizes = [0 if isinstance(v, tuple) else round(v * count) for v in given.values()]
    if sum(sizes) >= count:
        raise DataError(f"data {name!r}: no examples are left to train on ({count} in all)")
    parts = split_indices(count, [*sizes, count - sum(sizes)], seed)

    def part_of(which: Any) -> tuple[Any, Any]:
        return map_arrays(lambda v: v[which], x), y[which]

    rows = dict(zip(("test", "validation", "train"), (one.tolist() for one in parts), strict=True))
    return make_data(
        name,
        train=part_of(parts[2]),
        test=test if isinstance(test, tuple) else part_of(parts[0]),
        validation=validation if isinstance(validation, tuple) else part_of(parts[1]),
        task=task,
        # Examples that are given apart are known by their place alone.
        ids={part: own for part, own in rows.items() if not isinstance(given.get(part), tuple)},
    )


def _as_array(given: Any, which: str) -> Any:
    """Return an array of a list, a tuple of labels, or a column of a table; others stay."""
    if isinstance(given, Tensor | Deferred | np.ndarray):
        return given
    if isinstance(given, list | tuple) and given:
        return _column(tuple(given), "the data", which)
    return np.array(given)  # a copy, as a table's own memory may be read-only


def _refuse_one_hot(y: Any, name: str) -> None:
    """Refuse labels with a 1 in the column of the class, and 0 elsewhere."""
    array = np.asarray(y.cpu() if isinstance(y, Tensor) else y)
    if array.ndim != 2 or array.shape[1] < 2 or array.dtype.kind not in "fiub":
        return
    if bool(((array == 0) | (array == 1)).all() and (array.sum(1) == 1).all()):
        raise DataError(
            f"data {name!r}: y is one-hot; it must be class indices [N], as y.argmax(1) gives them"
        )


def from_dataset(dataset: Dataset[Any], **settings: Any) -> Data:
    """Make a data set from a torch ``Dataset`` with integer indexing, read once into memory.

    Args:
        dataset: The dataset. Its items are (x, y), or (x1, x2, ..., y) for inputs that are a tuple;
            x may be a dict. Images may be PIL images. If the dataset augments, each example is
            augmented once and then fixed; leave augmentation to the samplers.
        settings: As for :func:`from_arrays`; ``test`` and ``validation`` may be datasets too.

    Raises:
        DataError: The dataset has no length or integer indexing, or its items differ in form.
    """
    for part in ("test", "validation"):
        if isinstance(settings.get(part), Dataset):
            settings[part] = _stacked(settings[part], f"the {part} dataset")
    return from_arrays(*_stacked(dataset, "the dataset"), **settings)


def from_loader(loader: DataLoader[Any], **settings: Any) -> Data:
    """Make a data set from a torch ``DataLoader``, read once into memory.

    Its ``dataset`` is read by index, so that draws stay functions of their ids, whatever order the
    loader has. One without integer indexing is read batch by batch, once.

    Args:
        loader: Its items, or those of its data set, are as for :func:`from_dataset`.
        settings: As for :func:`from_arrays`.

    Raises:
        DataError: An endless or too large stream, or items of different forms.
    """
    dataset = loader.dataset
    if hasattr(dataset, "__getitem__") and not isinstance(dataset, IterableDataset):
        return from_dataset(dataset, **settings)
    items: list[tuple[Any, ...]] = []
    for batch in loader:
        if not isinstance(batch, tuple | list) or len(batch) < 2:
            raise DataError(f"the loader gives {shorten(batch)}; each batch must be (x, y)")
        items += _unbatched(batch)
        if len(items) > _MOST_STREAMED:
            raise DataError(
                f"the loader's {type(dataset).__name__} has no integer indexing, and gave more "
                f"than {_MOST_STREAMED:,} examples; give a data set that can be indexed"
            )
    return from_arrays(*_columns_of(items, "the loader"), **settings)


def _unbatched(batch: Any) -> list[tuple[Any, ...]]:
    """Return the examples of a batch (x, …, y), whose parts have the examples first."""

    def pick(part: Any, k: int) -> Any:
        return {key: value[k] for key, value in part.items()} if isinstance(part, dict) else part[k]

    return [tuple(pick(part, k) for part in batch) for k in range(len(batch[-1]))]


def _stacked(dataset: Dataset[Any], where: str) -> tuple[Any, Any]:
    """Return all examples of a dataset as arrays (x, y)."""
    if isinstance(dataset, TensorDataset):
        tensors: tuple[Tensor, ...] = dataset.tensors
        if len(tensors) < 2:
            raise DataError(
                f"the TensorDataset has {len(tensors)} tensor(s); it needs inputs and labels"
            )
        return tensors[0] if len(tensors) == 2 else tensors[:-1], tensors[-1]
    if not hasattr(dataset, "__len__") or isinstance(dataset, IterableDataset):
        raise DataError(f"{where} is a {type(dataset).__name__}, which has no integer indexing")
    return _columns_of([dataset[k] for k in range(len(dataset))], where)


def _columns_of(items: list[Any], where: str) -> tuple[Any, Any]:
    """Return items (x, …, y) as arrays (x, y)."""
    if not items:
        raise DataError(f"{where} has no examples")
    for k, item in enumerate(items):
        if not isinstance(item, tuple | list) or len(item) < 2 or len(item) != len(items[0]):
            raise DataError(f"{where}: item {k} is {shorten(item)}; each must be (x, y)")
    *parts, labels = zip(*items, strict=True)
    inputs = [_column(part, where, "x") for part in parts]
    y = _column(labels, where, "y")
    return inputs[0] if len(inputs) == 1 else tuple(inputs), y


def _column(values: tuple[Any, ...], where: str, which: str) -> Any:
    """Stack one part of all items."""
    if isinstance(values[0], dict):
        for k, value in enumerate(values):
            if not isinstance(value, dict) or value.keys() != values[0].keys():
                raise DataError(f"{where}: {which} of item {k} has other keys than that of item 0")
        return {
            key: _column(tuple(v[key] for v in values), where, f"{which}[{key!r}]")
            for key in values[0]
        }
    arrays = [_item(value) for value in values]
    for k, array in enumerate(arrays):
        if array.shape != arrays[0].shape or array.dtype.kind not in "fiub":
            raise DataError(
                f"{where}: {which} of item {k} is {array.dtype} of shape {array.shape}; all must "
                f"be numbers of shape {arrays[0].shape}, like that of item 0"
            )
    return np.stack(arrays)


def _item(value: Any) -> np.ndarray[Any, Any]:
    if isinstance(value, Image.Image):
        pixels = np.asarray(value if value.mode in ("L", "RGB") else value.convert("RGB"))
        return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy()
    return np.asarray(value)


@DATA.register("arrays")
def arrays(path: str, test: float = 0.2, validation: float = 0.1, seed: int = 0) -> Data:
    """Read arrays from an .npz file.

    Args:
        path: The file. It holds ``x`` (or ``x_NAME`` for each of several inputs) and ``y``, and may
            hold ``x_test``/``y_test`` and ``x_validation``/``y_validation`` for splits of its own.
        test, validation: Parts to set aside if the file has no such split.
        seed: Seed of the split.

    Raises:
        DataError: The file is missing, no .npz file, or its arrays cannot be used.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"the file {path!r} does not exist; path must name an .npz file")
    try:
        # The file is opened here, as numpy leaks its own handle if the archive is damaged.
        with file.open("rb") as handle, np.load(handle, allow_pickle=False) as stored:
            found = {name: stored[name] for name in stored.files}
    except _UNREADABLE as error:
        raise DataError(f"the file {path!r} cannot be read as .npz: {error}") from error
    splits = {part: _take(found, f"_{part}") for part in ("test", "validation")}
    whole = _take(found, "")
    if whole is None:
        raise DataError(f"the file {path!r} holds {sorted(found)}; it needs the arrays x and y")
    return from_arrays(
        *whole,
        test=splits["test"] or test,
        validation=splits["validation"] or validation,
        seed=seed,
        name=file.stem,
    )


def _take(found: dict[str, Any], suffix: str) -> tuple[Any, Any] | None:
    """Take (x, y) of one split from the arrays of a file."""
    y = found.get(f"y{suffix}")
    if y is None:
        lone = [name for name in found if suffix and name[0] == "x" and name.endswith(suffix)]
        if lone:
            raise DataError(f"the file holds {lone[0]!r}, but no 'y{suffix}' to go with it")
        return None
    if f"x{suffix}" in found:
        return found[f"x{suffix}"], y
    reserved = ("_test", "_validation")
    several = {
        name.removesuffix(suffix).removeprefix("x_"): array
        for name, array in found.items()
        if name.startswith("x_")
        and (name.endswith(suffix) if suffix else not name.endswith(reserved))
    }
    if suffix and not several:
        raise DataError(f"the file holds 'y{suffix}', but no 'x{suffix}' to go with it")
    return (several, y) if several else None


def _count(x: Any, y: Any, name: str) -> int:
    """Return the number of examples, the same in every array."""
    if not np.shape(y):
        raise DataError(f"data {name!r}: y is a single value; it must hold a label per example")
    count = len(y)
    for which, part in _named(x):
        if not np.shape(part):
            raise DataError(f"data {name!r}: {which} is a single value; it must hold examples")
        if len(part) != count:
            raise DataError(
                f"data {name!r}: {which} has {len(part)} examples but y has {count} labels"
            )
    return count


def _named(x: Any) -> list[tuple[str, Any]]:
    """Return each array of an input with its name for errors."""
    if isinstance(x, dict | tuple):
        items = x.items() if isinstance(x, dict) else enumerate(x)
        return [(f"x[{key!r}]", part) for key, part in items]
    return [("x", x)]
