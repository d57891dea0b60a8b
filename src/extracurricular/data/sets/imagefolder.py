"""Load images from folders named after their classes, into memory or as a stream."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from extracurricular.data.base import SAMPLE, Data, make_data
from extracurricular.data.formats.cache import Arrays, cached
from extracurricular.data.formats.examples import Source, decode_images, image_names
from extracurricular.data.images.decode import View, view_settings
from extracurricular.data.images.sizes import check_memory, gigabytes, left_out, pair
from extracurricular.data.images.stream import Files, Streamed
from extracurricular.data.sets import DATA
from extracurricular.data.splits import SPLIT_NAMES, name_splits, set_aside
from extracurricular.distributions import Task
from extracurricular.errors import DataError, shorten

Array: TypeAlias = np.ndarray[Any, Any]

_BLOCK = 1024


@DATA.register("imagefolder")
def imagefolder(
    path: str,
    size: int | list[int] = 64,
    channels: Literal[1, 3] = 3,
    test: int | float = 0.2,
    validation: int | float = 0.1,
    seed: int = 0,
    damaged: Literal["error", "skip"] = "error",
    memory: int | float = 4,
    cache: bool | str = False,
    stream: bool | Literal["auto"] = "auto",
    workers: int | None = None,
    centre: int | float = 1.0,
    draft: bool = True,
    task: Literal["classification", "regression", "multilabel"] | None = None,
) -> Data:
    """Load images in class sub-folders: ``PATH/CLASS/*.jpg``, or ``PATH/train/CLASS/*.jpg`` etc.

    If there is a folder ``train``, the splits are the folders ``train``, ``validation`` (or
    ``val``) and ``test``. Without ``test``, ``val`` is the test split, as in the published figures
    of ImageNet. Missing splits are set aside from the training images.

    Images are decoded once into memory, or streamed: worker processes decode them as they are
    needed. Both give the same pixels. A streamed data set opens only the
    :data:`~extracurricular.data.base.SAMPLE` training images that the scale is fitted on and, with
    ``damaged: skip``, the images of validation and test.

    Args:
        path: The folder.
        size: Height and width, or [height, width]: the largest part in the middle with these
            proportions is scaled to it.
        channels: 3 for colours, 1 for grey.
        test, validation: Images to set aside, as parts or numbers, each class in proportion;
            ``validation`` may be 0.
        seed: Seed of the choice.
        damaged: Treatment of an image that cannot be read: ``error`` ends with its name, ``skip``
            leaves it out and names it in the notes of the data. In draws of streamed training
            images, another image replaces it.
        memory: Most memory that the images may take, in GB (10^9 bytes).
        cache: Whether to keep the decoded images in the user's cache folder, or the folder to keep
            them in. Streamed images are not kept.
        stream: Whether images are streamed; ``auto`` streams those that exceed ``memory``.
        workers: Processes that decode streamed images; one for each CPU where None.
        centre: The part of the height and width that is shown of the largest part in the middle,
            in (0, 1]; 0.875 for figures on ImageNet.
        draft: Decode JPEGs at a half, a quarter or an eighth of their size where that is enough,
            which is faster.
        task: ``regression`` for folders whose names are numbers, which are then the targets;
            classes otherwise. Several labels of one image (``multilabel``) are refused.

    Raises:
        DataError: The folder has no classes or images, an image cannot be read, or the images do
            not fit into memory.
    """
    where = f"data {path!r}"
    height, width = pair(size)
    if not 0 < centre <= 1:
        raise DataError(f"{where}: centre is {centre}; it must be a part in (0, 1]")
    if workers is not None and workers < 1:
        raise DataError(f"{where}: workers is {workers}; it must be at least 1, or null")
    view = View((channels, height, width), float(centre), draft)
    found = _find_images(where, Path(path), view, damaged == "skip")
    if stream == "auto":
        stream = gigabytes(len(found.names), view.shape) > memory
    images: dict[str, Any]
    if stream:
        if cache is not False:
            raise DataError(
                f"{where}: cache is {cache!r}, but the images are streamed and not kept; leave it "
                "out, or have them in memory (stream: false)"
            )
        rows = found.split(np.ones(len(found.names), dtype=bool), test, validation, seed)
        images, rows, notes = _streamed(found, rows, workers)
    else:
        check_memory(where, len(found.names), view.shape, memory)
        x, whole, notes = _decoded(found, cache)
        rows = found.split(whole, test, validation, seed)
        images = {part: x[own] for part, own in rows.items()}
    y, why = _targets(where, found, task)
    classes = [] if y.dtype.kind == "f" else found.classes
    return make_data(
        found.name,
        train=(images["train"], y[rows["train"]]),
        validation=(images["validation"], y[rows["validation"]]),
        test=(images["test"], y[rows["test"]]),
        task=Task("classification", len(classes)) if classes else None,
        classes=classes,
        notes=[*found.notes, *why, *notes],
        reading={"image": view_settings(view)},
        ids={part: [found.names[k] for k in own.tolist()] for part, own in rows.items()},
    )


def _targets(where: str, found: _Found, task: str | None) -> tuple[Array, list[str]]:
    """Return class indices, or the numbers that the folders are called, and a note on the choice.

    Raises:
        DataError: A folder's name is no number, but the task is regression.
    """
    if task == "multilabel":
        raise DataError(
            f"{where}: task is 'multilabel', but the folder of an image gives it one class; give "
            "arrays of images and labels in Python, xcl.from_arrays(x, y, task='multilabel')"
        )
    numbers = [_number(name) for name in found.classes]
    if task == "regression":
        if None in numbers:
            name = found.classes[numbers.index(None)]
            raise DataError(
                f"{where}: task is 'regression', but the folder {name!r} is not called by a number"
            )
        return np.array(numbers, dtype=np.float64)[found.y], []
    if task is None and None not in numbers:
        return found.y, [
            f"The folders are called by numbers, such as {found.classes[0]!r}, which are read as "
            f"{len(numbers)} classes; `task: regression` reads them as numbers."
        ]
    return found.y, []


def _number(name: str) -> float | None:
    try:
        value = float(name)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


@dataclass(frozen=True)
class _Found:
    """The images of a folder, not yet opened.

    Args:
        where: The data, for errors.
        root: The folder.
        view: The part of each image, and its size.
        skip: Whether images that cannot be read are left out.
        classes: Names of the classes.
        names: Path of each image within the folder, N of them.
        y: Class of each image, int64, [N].
        parts: Name of each image's split, [N].
        notes: Notes on the choice of splits.
    """

    where: str
    root: Path
    view: View
    skip: bool
    classes: list[str]
    names: list[str]
    y: Array
    parts: Array
    notes: list[str]

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.root.absolute().name

    def split(self, whole: Array, test: float, validation: float, seed: int) -> dict[str, Array]:
        """Return the rows of each split, with missing splits set aside.

        Args:
            whole: Whether each image can be read, bool, [N].
            test, validation, seed: See :func:`imagefolder`.

        Raises:
            DataError: A class has no training images left.
        """
        known = dict.fromkeys(self.parts.tolist())
        rows = {part: np.flatnonzero((self.parts == part) & whole) for part in known}
        rows = set_aside(self.where, rows, self.y, {"test": test, "validation": validation}, seed)
        present = np.bincount(self.y[rows["train"]], minlength=len(self.classes))
        if present.min() == 0:
            gone = self.classes[int(present.argmin())]
            raise DataError(f"{self.where}: no image of the class {gone!r} is left to train on")
        return rows


def _find_images(where: str, root: Path, view: View, skip: bool) -> _Found:
    """List the images of a folder, without opening them."""
    folders, notes = _folders(root)
    classes = _classes(folders["train"])
    found = [
        (part, label, name)
        for part, folder in folders.items()
        for label, name in _images(root, folder, classes)
    ]
    parts, labels, names = zip(*found, strict=True)
    y = np.array(labels, dtype=np.int64)
    return _Found(where, root, view, skip, classes, list(names), y, np.array(parts), notes)


def _streamed(
    found: _Found, rows: dict[str, Array], workers: int | None
) -> tuple[dict[str, Streamed], dict[str, Array], list[str]]:
    """Return the images of each split, the rows of those that can be read, and notes.

    Training images are not opened, as other images can replace them in a draw.
    """
    files = Files(found.name, found.root, found.names, found.view, found.skip, workers)
    images = {part: Streamed(files, torch.from_numpy(own)) for part, own in rows.items()}
    rows, notes = dict(rows), []
    for part in ("validation", "test") if files.skip else ():
        good, lost = images[part].whole()
        if lost:
            notes.append(f"{part}: {left_out(lost, len(good))}")
            rows[part] = rows[part][good.numpy()]
            images[part] = Streamed(files, torch.from_numpy(rows[part]))
    notes.append(_how(files, len(rows["train"]), len(found.names)))
    return images, rows, notes


def _how(files: Files, train: int, count: int) -> str:
    needed = gigabytes(count, files.view.shape)
    noun = "process" if files.count == 1 else "processes"
    return (
        f"Images are decoded as they are needed, by {files.count} {noun}, as all of them would "
        f"take {needed:.3g} GB; the scale is that of {min(train, SAMPLE):,} training images."
    )


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))
    except OSError as error:
        raise DataError(f"the folder {str(folder)!r} cannot be read: {error.strerror}") from error


def _folders(root: Path) -> tuple[dict[str, Path], list[str]]:
    """Return the folder of each split that has one, and notes on the choice."""
    if not root.is_dir():
        raise DataError(
            f"the folder {str(root)!r} does not exist; path must name a folder of class folders"
        )
    inside = {folder.name: folder for folder in _subfolders(root)}
    found, notes = name_splits(inside)
    if "train" not in found:
        return {"train": root}, []
    known = [name for names in SPLIT_NAMES.values() for name in names]
    other = [name for name in inside if name.lower() not in known]
    if other:
        raise DataError(
            f"the folder {str(root)!r} has {found['train']!r} beside {other[0]!r}; only validation "
            "(or val) and test may be beside it"
        )
    return {part: inside[name] for part, name in found.items()}, notes


def _classes(train: Path) -> list[str]:
    names = [folder.name for folder in _subfolders(train)]
    if len(names) < 2:
        raise DataError(
            f"the folder {str(train)!r} has {len(names)} sub-folders; "
            "it must have one for each of at least two classes"
        )
    return names


def _images(root: Path, folder: Path, classes: list[str]) -> list[tuple[int, str]]:
    """Return label and name of each image of a split."""
    known = {name: k for k, name in enumerate(classes)}
    found: list[tuple[int, str]] = []
    for inner in _subfolders(folder):
        if inner.name not in known:
            raise DataError(
                f"the folder {str(inner)!r} is of a class that 'train' does not have; "
                f"it has {shorten(classes)}"
            )
        names = image_names(inner)
        if not names:
            raise DataError(f"the folder {str(inner)!r} has no images")
        prefix = inner.relative_to(root).as_posix()
        found += [(known[inner.name], f"{prefix}/{name}") for name in names]
    if not found:
        raise DataError(f"the folder {str(folder)!r} has no class folders with images")
    return found


def _decoded(found: _Found, cache: bool | str) -> tuple[Array, Array, list[str]]:
    """Return all images, whether each could be read, bool, [N], and notes."""
    sources: list[Source] = [(name, found.root / name) for name in found.names]
    view = found.view
    kept = cached(
        "imagefolder",
        [found.root / name for name in found.names],
        partial(_decode, sources, view, found.skip),
        cache=cache,
        settings=[list(view.shape), "skip" if found.skip else "error", view.centre, view.draft],
    )
    whole = kept["whole"]
    lost = [found.names[k] for k in np.flatnonzero(~whole)]
    notes = [left_out(lost, len(found.names))] if lost else []
    return kept["x"], whole, notes


def _decode(sources: list[Source], view: View, skip: bool) -> Arrays:
    blocks = (sources[k : k + _BLOCK] for k in range(0, len(sources), _BLOCK))
    damaged: list[int] | None = [] if skip else None
    x = decode_images(blocks, len(sources), view.shape, resize=view, damaged=damaged).numpy()
    whole = np.ones(len(sources), dtype=bool)
    whole[damaged or []] = False
    return {"x": x, "whole": whole}
