"""Data sets from arrays: NumPy arrays, tensors, an .npz file, a torch Dataset."""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from extracurricular.data.base import Data, check_finite, make_data, map_arrays
from extracurricular.data.formats.npz import read_npz
from extracurricular.data.sets import DATA
from extracurricular.data.sets.table import from_frames, is_frame
from extracurricular.data.splits import repeats, split_rows
from extracurricular.data.target_transform import transform_targets
from extracurricular.data.tasks import one_each, read_labels, to_numpy
from extracurricular.data.transform import Setting
from extracurricular.distributions import Kind, Task
from extracurricular.errors import DataError, shorten
from extracurricular.inputs import Deferred

Array: TypeAlias = np.ndarray[Any, Any]

# Numbers of channels that images have.
_CHANNELS = (1, 3, 4)
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
    task: Task | Kind | None = None,
    group: Any = None,
    time: Any = None,
    stratify: bool = True,
    duplicates: Literal["keep", "drop"] = "keep",
    channels: Literal["first", "last"] | None = None,
    target_transform: Setting = None,
) -> Data:
    """Make a data set from arrays, tensors or a data frame.

    Args:
        x: Inputs [N, ...], or a tuple or dict of such; images as [N, C, H, W] or [N, H, W]. Lists
            become arrays. A data frame is read as :func:`~extracurricular.data.sets.table.table`
            reads a file.
        y: Class indices [N], names of classes [N], or real targets [N] or [N, D]; several labels of
            0 and 1 [N, L], or probabilities of classes [N, C].
        test: The test examples (x, y), or the part of x and y to set aside for them.
        validation: The same for the validation examples; 0 for none.
        seed: Seed of the split.
        name: The data set's name.
        task: What is predicted: ``"classification"``, ``"regression"``, ``"multilabel"`` or a
            :class:`Task`. Without it texts and whole numbers are classes, if the numbers are at
            most 20 or are all of 0 to C - 1; other numbers are real. Several columns of 0 and 1 are
            labels of their own, and classes where each row has a single 1 or sums to 1.
        group: A name or number of each example, [N]; those of one group stay in one split.
        time: A number or date of each example, [N]; the latest examples are tested on.
        stratify: Whether each split has each class, or each tenth of a real target, in proportion.
        duplicates: Whether to ``drop`` test and validation examples whose inputs are those of a
            training example.
        channels: Where the channels of images are; without it they are last if the last dimension
            is 1, 3 or 4 and the second is not.
        target_transform: What students learn of a real target: its ``log`` or ``asinh``, or a
            mapping of these by target (:func:`~.target_transform.transform_targets`).

    Raises:
        DataError: The values cannot be used; the sentence says why.
    """
    given = {"test": test, "validation": validation}
    for part, value in given.items():
        if isinstance(value, int | float) and not 0 <= value < 1:
            raise DataError(f"data {name!r}: {part} is {value}; it must be a part in [0, 1)")
    split = {"group": group, "time": time, "stratify": stratify, "duplicates": duplicates}
    if is_frame(x):
        more = {"seed": seed, "target_transform": target_transform}
        return from_frames(x, y, given, name, task, **more, **split)
    x, moved = _images(map_arrays(lambda part: _as_array(part, "x"), x), channels)
    labels = read_labels(_as_array(y, "y"), name, task)
    count = _count(x, labels.y, name)
    # This check comes before the split, so that errors name the row of the given array.
    for which, values in [*_named(x), ("y", labels.y)]:
        array = np.asarray(values)
        if array.dtype.kind == "f":
            check_finite(torch.from_numpy(array), f"data {name!r}: {which}")
    sizes = [0 if isinstance(v, tuple) else round(v * count) for v in given.values()]
    if sum(sizes) >= count:
        raise DataError(f"data {name!r}: no examples are left to train on ({count} in all)")
    by = {
        setting: one_each(values, setting, count, name)
        for setting, values in (("group", group), ("time", time))
        if values is not None
    }
    chosen = split_rows(
        f"data {name!r}", labels.strata(), [*sizes, count - sum(sizes)], seed, stratify=stratify,
        **by,
    )  # fmt: skip
    pairs, ids = {}, dict[str, list[int]]()
    for part, rows in zip(("test", "validation", "train"), chosen, strict=True):
        own = given.get(part)
        if isinstance(own, tuple):
            outside, _ = _images(map_arrays(lambda v: _as_array(v, "x"), own[0]), channels)
            pairs[part] = outside, labels.coded(_as_array(own[1], "y"))
        else:
            pairs[part] = map_arrays(itemgetter(rows), x), labels.y[rows]
            # Examples that are given apart are known by their place alone.
            ids[part] = rows.tolist()
    notes = [*labels.notes, *moved]
    if duplicates == "drop":
        notes += _without_repeats(pairs, ids, name)
    made = make_data(
        name,
        train=pairs["train"],
        test=pairs["test"],
        validation=pairs["validation"],
        task=labels.task,
        classes=labels.classes,
        notes=notes,
        ids=ids,
    )
    return transform_targets(made, target_transform)


def _images(x: Any, channels: str | None) -> tuple[Any, list[str]]:
    """Move the channels of images to the second dimension, and say so."""
    notes: list[str] = []

    def moved(values: Any) -> Any:
        shape = tuple(values.shape)
        if isinstance(values, Deferred) or len(shape) != 4 or channels == "first":
            return values
        if channels is None and not (shape[3] in _CHANNELS and shape[1] not in _CHANNELS):
            return values
        notes.append(
            f"Images of shape {' × '.join(map(str, shape[1:]))} have their channels last, which "
            "are moved to the front (`channels: first` leaves them)."
        )
        return values.movedim(3, 1) if isinstance(values, Tensor) else np.moveaxis(values, 3, 1)

    found = map_arrays(moved, x)
    return found, list(dict.fromkeys(notes))


def _without_repeats(
    pairs: dict[str, tuple[Any, Any]], ids: dict[str, list[int]], name: str
) -> list[str]:
    """Drop test and validation examples that training has, in place, and say so."""
    if any(isinstance(part, Deferred) for _, part in _named(pairs["train"][0])):
        raise DataError(f"data {name!r}: duplicates are not looked for in streamed images")
    notes = []
    for part in ("validation", "test"):
        x, y = pairs[part]
        again = repeats(map_arrays(to_numpy, pairs["train"][0]), map_arrays(to_numpy, x))
        if again.any():
            rest = np.flatnonzero(~again)
            pairs[part] = map_arrays(itemgetter(rest), x), y[rest]
            if part in ids:
                ids[part] = [ids[part][k] for k in rest.tolist()]
            notes.append(f"{again.sum():,} examples of {part} are in training and are left out.")
    return notes


def _as_array(given: Any, which: str) -> Any:
    """Return an array of a list, a tuple of labels, or a column of a table; others stay."""
    if isinstance(given, Tensor):
        return given.detach()
    if isinstance(given, np.ndarray):
        # torch takes no array that runs backwards.
        return np.ascontiguousarray(given) if given.ndim else given
    if isinstance(given, Deferred):
        return given
    if isinstance(given, list | tuple) and given:
        if which == "y" and all(isinstance(label, str) for label in given):
            return np.array(given)
        return _column(tuple(given), "the data", which)
    return np.array(given)  # a copy, as a table's own memory may be read-only


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
def arrays(
    path: str,
    test: float = 0.2,
    validation: float = 0.1,
    task: Literal["classification", "regression", "multilabel"] | None = None,
    group: str | None = None,
    time: str | None = None,
    stratify: bool = True,
    duplicates: Literal["keep", "drop"] = "keep",
    channels: Literal["first", "last"] | None = None,
    seed: int = 0,
    target_transform: Setting = None,
) -> Data:
    """Read arrays from an .npz file.

    Args:
        path: The file. It holds ``x`` (or ``x_NAME`` for each of several inputs) and ``y``, and may
            hold ``x_test``/``y_test`` and ``x_validation``/``y_validation`` for splits of its own.
        test, validation: Parts to set aside if the file has no such split.
        task, stratify, duplicates, channels, target_transform: See :func:`from_arrays`.
        group, time: Names of further arrays of the file, for :func:`from_arrays`.
        seed: Seed of the split.

    Raises:
        DataError: The file is missing, no .npz file, or its arrays cannot be used.
    """
    file = Path(path)
    if not file.is_file():
        where = "" if file.is_absolute() else f" ({str(file.absolute())!r})"
        raise DataError(f"the file {path!r}{where} does not exist; path must name an .npz file")
    found: dict[str, Any] = read_npz(file)
    by = {}
    for setting, array in (("group", group), ("time", time)):
        if array is not None and array not in found:
            raise DataError(
                f"the file {path!r} holds {sorted(found)}; {setting} is {array!r}, which is none "
                "of them"
            )
        by[setting] = None if array is None else found[array]
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
        task=task,
        stratify=stratify,
        duplicates=duplicates,
        channels=channels,
        target_transform=target_transform,
        **by,
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
