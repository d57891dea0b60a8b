"""CIFAR-10 and CIFAR-100, from the archives of their authors or from parquet files.

These forms are read (Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html):

* the binary version: a record is one byte for each label (for CIFAR-100 the coarse one first) and
  3,072 bytes of an image [3, 32, 32];
* the Python version: pickled dicts, read by :mod:`extracurricular.data.formats.pickles`;
* parquet with the columns of the copies on the Hugging Face Hub: ``img`` {bytes, path}, and
  ``label``, or ``fine_label`` and ``coarse_label``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from extracurricular.data.base import Data, make_data
from extracurricular.data.formats import parquet
from extracurricular.data.formats.archive import folders, is_archive, read_members
from extracurricular.data.formats.cache import Arrays, cached
from extracurricular.data.formats.examples import decode_images
from extracurricular.data.formats.pickles import read_dict
from extracurricular.data.sets import DATA, cifar_names
from extracurricular.data.splits import part_size, stratified_parts
from extracurricular.distributions import Task
from extracurricular.errors import DataError

Array: TypeAlias = np.ndarray[Any, Any]

_SHAPE = (3, 32, 32)
_PIXELS = 3072
_BLOCK = 1024


@dataclass(frozen=True)
class _Set:
    """The differences between the two sets; labels have the order of the binary version."""

    title: str
    train: tuple[str, ...]  # files of the Python version; the binary one adds .bin
    test: tuple[str, ...]
    pickled: tuple[str, ...]  # keys of labels in them
    columns: tuple[str, ...]  # columns of labels in parquet
    texts: tuple[str, ...]  # files of class names beside the binary version
    meta: tuple[str, tuple[str, ...]]  # file of class names of the Python version, and its keys
    names: tuple[tuple[str, ...], ...]


_CIFAR10 = _Set(
    title="CIFAR-10",
    train=tuple(f"data_batch_{k}" for k in range(1, 6)),
    test=("test_batch",),
    pickled=("labels",),
    columns=("label",),
    texts=("batches.meta.txt",),
    meta=("batches.meta", ("label_names",)),
    names=(cifar_names.CIFAR10,),
)
_CIFAR100 = _Set(
    title="CIFAR-100",
    train=("train",),
    test=("test",),
    pickled=("coarse_labels", "fine_labels"),
    columns=("coarse_label", "fine_label"),
    texts=("coarse_label_names.txt", "fine_label_names.txt"),
    meta=("meta", ("coarse_label_names", "fine_label_names")),
    names=(cifar_names.COARSE, cifar_names.FINE),
)


@DATA.register("cifar10")
def cifar10(
    path: str,
    train: int | None = None,
    validation: int | float = 5000,
    seed: int = 0,
    cache: bool | str = True,
) -> Data:
    """Read CIFAR-10: 32×32 colour images of 10 classes, 50,000 to train and 10,000 to test on.

    Args:
        path: Folder of the files, or folder around it, or the .tar.gz archive: the binary version,
            the Python version, or parquet files ``train*`` and ``test*``.
        train: Training examples to keep; null for all that are not set aside.
        validation: Training examples to set aside, as a number or a part; 0 for none. They and
            ``train`` have each class in proportion.
        seed: Seed of both choices.
        cache: Whether to keep the decoded images in the user's cache folder, or the folder to
            keep them in.

    Raises:
        DataError: A file is missing or damaged, or a setting does not fit the data.
    """
    return _data("cifar10", _CIFAR10, 0, path, train, validation, seed, cache)


@DATA.register("cifar100")
def cifar100(
    path: str,
    coarse: bool = False,
    train: int | None = None,
    validation: int | float = 5000,
    seed: int = 0,
    cache: bool | str = True,
) -> Data:
    """Read CIFAR-100: 32×32 colour images of 100 classes, 50,000 to train and 10,000 to test on.

    Args:
        path, train, validation, seed, cache: As for :func:`cifar10`.
        coarse: Whether to predict the 20 superclasses instead of the 100 classes.

    Raises:
        DataError: A file is missing or damaged, or a setting does not fit the data.
    """
    label, name = (0, "cifar100-coarse") if coarse else (1, "cifar100")
    return _data(name, _CIFAR100, label, path, train, validation, seed, cache)


def _data(
    name: str,
    kind: _Set,
    label: int,
    path: str,
    train: int | None,
    validation: float,
    seed: int,
    cache: bool | str,
) -> Data:
    files, decode = _find(kind, Path(path))
    found = cached(kind.title.replace("-", "").lower(), files, decode, cache=cache)
    x, y = found["train_x"], found["train_y"][:, label].astype(np.int64)
    where = f"data {path!r}"
    aside = part_size(validation, len(y), "validation", where)
    left = len(y) - aside
    if train is not None and not 1 <= train <= left:
        raise DataError(
            f"{where}: train is {train}; it must be 1 to {left}, as {aside} of {len(y)} training "
            "examples are set aside for validation"
        )
    parts = stratified_parts(y, [aside, left if train is None else train], seed)
    return make_data(
        name,
        train=(x[parts[1]], y[parts[1]]),
        validation=(x[parts[0]], y[parts[0]]),
        test=(found["test_x"], found["test_y"][:, label].astype(np.int64)),
        task=Task("classification", len(found[f"names_{label}"])),
        classes=[str(word) for word in found[f"names_{label}"]],
    )


# Finding the files


def _find(kind: _Set, path: Path) -> tuple[list[Path], Callable[[], Arrays]]:
    """Return the files of a data set, and the function that decodes them."""
    if is_archive(path) and path.is_file():
        return [path], lambda: _published(kind, path, read_members(path, _wanted(kind)))
    if not path.is_dir():
        raise DataError(f"path {str(path)!r} does not exist; it must name {_forms(kind)}")
    for folder in folders(path):
        inside = {f.name: f for f in sorted(folder.iterdir()) if f.is_file()}
        published = [inside[name] for name in _wanted(kind) if name in inside]
        if published:
            return published, partial(_published_files, kind, folder, published)
        tables = {
            part: [f for n, f in inside.items() if n.startswith(part) and n.endswith(".parquet")]
            for part in ("train", "test")
        }
        if any(tables.values()):
            return [*tables["train"], *tables["test"]], partial(_tables, kind, folder, tables)
    raise DataError(f"the folder {str(path)!r} has no {kind.title}; it must be {_forms(kind)}")


def _wanted(kind: _Set) -> list[str]:
    names = [*kind.train, *kind.test]
    return [*(f"{n}.bin" for n in names), *names, *kind.texts, kind.meta[0]]


def _forms(kind: _Set) -> str:
    return (
        f"a folder, or a .tar.gz file, of {kind.title} in the binary version "
        f"({kind.train[0]}.bin, …) or the Python version ({kind.train[0]}, …), "
        "or a folder of train*.parquet and test*.parquet"
    )


# Decoding them


def _published_files(kind: _Set, folder: Path, files: list[Path]) -> Arrays:
    return _published(kind, folder, {file.name: file.read_bytes() for file in files})


def _published(kind: _Set, source: Path, files: dict[str, bytes]) -> Arrays:
    """Decode the binary or the Python version, given the contents of its files by name."""
    binary = any(f"{name}.bin" in files for name in (*kind.train, *kind.test))
    suffix, version = (".bin", "binary") if binary else ("", "Python")
    arrays: Arrays = {}
    for part, names in (("train", kind.train), ("test", kind.test)):
        read = []
        for name in (f"{n}{suffix}" for n in names):
            if name not in files:
                raise DataError(
                    f"{str(source)!r} has no file {name!r}, "
                    f"which the {version} version of {kind.title} has"
                )
            where = f"the file {name!r} in {str(source)!r}"
            decode = _records if binary else _pickled
            read.append(_checked(kind, where, *decode(kind, where, files[name])))
        arrays[f"{part}_x"] = np.concatenate([x for x, _ in read])
        arrays[f"{part}_y"] = np.concatenate([y for _, y in read])
    return arrays | (_text_names if binary else _pickled_names)(kind, source, files)


def _records(kind: _Set, where: str, content: bytes) -> tuple[Array, Array]:
    labels = len(kind.columns)
    size = labels + _PIXELS
    if not content or len(content) % size:
        raise DataError(f"{where} has {len(content)} bytes; it must have records of {size} bytes")
    rows = np.frombuffer(content, np.uint8).reshape(-1, size)
    return rows[:, labels:].reshape(-1, *_SHAPE), rows[:, :labels]


def _pickled(kind: _Set, where: str, content: bytes) -> tuple[Array, Array]:
    found = read_dict(content, where)
    for key in ("data", *kind.pickled):
        if key not in found:
            raise DataError(
                f"{where} has no {key!r}; it has {', '.join(sorted(found)) or 'nothing'}"
            )
    x = found["data"]
    if not isinstance(x, np.ndarray) or x.dtype != np.uint8:
        of = x.dtype if isinstance(x, np.ndarray) else type(x).__name__
        raise DataError(f"{where}: 'data' is of type {of}; it must be an array of uint8")
    if x.ndim != 2 or x.shape[1] != _PIXELS or not len(x):
        raise DataError(f"{where}: 'data' has shape {x.shape}; it must be [N, {_PIXELS}]")
    labels = [_whole(where, key, found[key], len(x)) for key in kind.pickled]
    return x.reshape(-1, *_SHAPE), np.stack(labels, axis=1)


def _whole(where: str, key: str, values: Any, count: int) -> Array:
    right = isinstance(values, list | np.ndarray) and len(values) == count
    try:
        array = np.asarray(values) if right else np.zeros(0)
    except ValueError:  # lists of lists of different lengths
        array = np.zeros(0)
    if array.shape != (count,) or array.dtype.kind not in "iu":
        raise DataError(f"{where}: {key!r} must be {count} whole numbers, one for each image")
    return array.astype(np.int64)


def _tables(kind: _Set, folder: Path, tables: dict[str, list[Path]]) -> Arrays:
    """Decode parquet files."""
    arrays: Arrays = {}
    for part, files in tables.items():
        if not files:
            raise DataError(f"the folder {str(folder)!r} has no {part}*.parquet")
        read = []
        for path in files:
            with parquet.opened(path) as file:
                labels = [parquet.integers(path, file, column) for column in kind.columns]
                blocks = parquet.images(path, file, parquet.image_column(path, file), _BLOCK)
                count = file.metadata.num_rows
                x = decode_images(blocks, count, _SHAPE, resize=False, remedy="").numpy()
            where = f"the file {str(path)!r}"
            read.append(_checked(kind, where, x, np.stack(labels, axis=1)))
        arrays[f"{part}_x"] = np.concatenate([x for x, _ in read])
        arrays[f"{part}_y"] = np.concatenate([y for _, y in read])
    return arrays | _known_names(kind)


def _checked(kind: _Set, where: str, x: Array, y: Array) -> tuple[Array, Array]:
    for column, (labels, names) in enumerate(zip(y.T, kind.names, strict=True)):
        wrong = np.flatnonzero((labels < 0) | (labels >= len(names)))
        if len(wrong):
            raise DataError(
                f"{where}, image {wrong[0]}: {kind.columns[column]} is {labels[wrong[0]]}; "
                f"it must be 0 to {len(names) - 1}"
            )
    return x, y.astype(np.uint8)


# Names of classes


def _known_names(kind: _Set) -> Arrays:
    return {f"names_{k}": np.array(names) for k, names in enumerate(kind.names)}


def _text_names(kind: _Set, source: Path, files: dict[str, bytes]) -> Arrays:
    arrays = _known_names(kind)
    for k, file in enumerate(kind.texts):
        if file in files:
            words = files[file].decode("utf-8", errors="replace").split()
            arrays[f"names_{k}"] = _as_names(
                kind, f"the file {file!r} in {str(source)!r}", k, words
            )
    return arrays


def _pickled_names(kind: _Set, source: Path, files: dict[str, bytes]) -> Arrays:
    arrays, (file, keys) = _known_names(kind), kind.meta
    if file in files:
        where = f"the file {file!r} in {str(source)!r}"
        found = read_dict(files[file], where)
        for k, key in enumerate(keys):
            given = found.get(key)
            words = [
                word.decode("utf-8", errors="replace") if isinstance(word, bytes) else str(word)
                for word in (given if isinstance(given, list) else [])
            ]
            arrays[f"names_{k}"] = _as_names(kind, f"{where}: {key}", k, words)
    return arrays


def _as_names(kind: _Set, where: str, label: int, words: Sequence[str]) -> Array:
    count = len(kind.names[label])
    if len(words) != count:
        raise DataError(f"{where} has {len(words)} names of classes; it must have {count}")
    return np.array(words)
