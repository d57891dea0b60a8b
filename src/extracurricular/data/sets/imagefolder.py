"""Load images from folders named after their classes, into memory or as a stream."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from extracurricular.data.base import Data, make_data
from extracurricular.data.formats.examples import told_passed
from extracurricular.data.formats.pictures import Pictures, view_of, without_repeats
from extracurricular.data.formats.trees import Tree
from extracurricular.data.images.decode import view_settings
from extracurricular.data.images.sizes import quoted
from extracurricular.data.sets import DATA
from extracurricular.data.splits import (
    SPLIT_NAMES,
    name_splits,
    set_aside,
    stratified_order,
)
from extracurricular.data.target_transform import transform_targets
from extracurricular.data.transform import Setting
from extracurricular.distributions import Task
from extracurricular.errors import DataError, shorten

Array: TypeAlias = np.ndarray[Any, Any]


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
    group: str | None = None,
    duplicates: Literal["keep", "drop"] = "keep",
    limit: int | None = None,
    target_transform: Setting = None,
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
        path: The folder, or a zip or tar that has it.
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
        group: Regular expression that is searched in the path of an image; images where it finds
            the same stay in one split. Its first bracket counts, if it has one.
        duplicates: Whether to ``drop`` test and validation images that equal a training image in
            all pixels; streamed images are decoded once for that.
        limit: At most so many images are read, chosen at random, each class in proportion.
        target_transform: What students learn of a real target: its ``log`` or ``asinh``, or a
            mapping of these by target (:func:`~.target_transform.transform_targets`).

    Raises:
        DataError: The folder has no classes or images, an image cannot be read, or the images do
            not fit into memory.
    """
    where = f"data {path!r}"
    view = view_of(where, size, channels, centre, draft)
    found = _find_images(where, Path(path))
    if limit is not None:
        found = found.some(limit, seed)
    pictures = Pictures(
        "imagefolder", where, found.name, found.tree.store,
        [found.tree.top + name for name in found.names], view, damaged == "skip", memory, cache,
        stream, workers,
    )  # fmt: skip
    by = None if group is None else found.groups(group)
    images: dict[str, Any]
    if pictures.streams:
        every = np.ones(len(found.names), dtype=bool)
        images, rows, notes = pictures.streamed(found.split(every, test, validation, seed, by))
    else:
        x, whole, notes = pictures.decoded()
        rows = found.split(whole, test, validation, seed, by)
        images = {part: x[own] for part, own in rows.items()}
    if duplicates == "drop":
        images, rows, told = without_repeats(images, rows)
        notes += told
    y, why = _targets(where, found, task)
    classes = [] if y.dtype.kind == "f" else found.classes
    made = make_data(
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
    return transform_targets(made, target_transform)


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
        tree: The folder.
        classes: Names of the classes.
        names: Path of each image within the folder, N of them.
        y: Class of each image, int64, [N].
        parts: Name of each image's split, [N].
        notes: Notes on what was found.
    """

    where: str
    tree: Tree
    classes: list[str]
    names: list[str]
    y: Array
    parts: Array
    notes: list[str]

    @property
    def name(self) -> str:
        """Name of the data set."""
        name = self.tree.root.absolute().name
        return name if self.tree.store.members is None else name.rpartition(".")[0]

    def some(self, limit: int, seed: int) -> _Found:
        """Return at most ``limit`` of the images, with splits and classes in proportion.

        Raises:
            DataError: There are fewer than classes.
        """
        if limit < len(self.classes):
            raise DataError(
                f"{self.where}: limit is {limit}; there are {len(self.classes)} classes, and each "
                "needs images"
            )
        if limit >= len(self.names):
            return self
        known = np.unique(self.parts, return_inverse=True)[1]
        chosen = np.sort(stratified_order(known * len(self.classes) + self.y, seed)[:limit])
        note = f"{limit:,} of {len(self.names):,} images are read (`limit`)."
        return replace(
            self,
            names=[self.names[k] for k in chosen.tolist()],
            y=self.y[chosen],
            parts=self.parts[chosen],
            notes=[*self.notes, note],
        )

    def groups(self, pattern: str) -> Array:
        """Return the group of each image: what a regular expression finds in its path, [N].

        Raises:
            DataError: It is no regular expression, or finds nothing in a path.
        """
        try:
            seek = re.compile(pattern)
        except re.error as error:
            raise DataError(
                f"{self.where}: group is {pattern!r}, which is no regular expression: {error}"
            ) from error
        matches = [seek.search(name) for name in self.names]
        if None in matches:
            name = self.names[matches.index(None)]
            raise DataError(f"{self.where}: group is {pattern!r}, which {name!r} does not match")
        return np.array([m[1 if seek.groups else 0] or "" for m in matches if m is not None])

    def split(
        self, whole: Array, test: float, validation: float, seed: int, group: Array | None
    ) -> dict[str, Array]:
        """Return the rows of each split, with missing splits set aside.

        Args:
            whole: Whether each image can be read, bool, [N].
            test, validation, seed: See :func:`imagefolder`.
            group: Group of each image, [N]; None for none.

        Raises:
            DataError: A class has no training images left.
        """
        known = dict.fromkeys(self.parts.tolist())
        rows = {part: np.flatnonzero((self.parts == part) & whole) for part in known}
        sizes = {"test": test, "validation": validation}
        rows = set_aside(self.where, rows, self.y, sizes, seed, group)
        present = np.bincount(self.y[rows["train"]], minlength=len(self.classes))
        if present.min() == 0:
            gone = self.classes[int(present.argmin())]
            raise DataError(f"{self.where}: no image of the class {gone!r} is left to train on")
        return rows


def _find_images(where: str, root: Path) -> _Found:
    """List the images of a folder, without opening them."""
    if not root.exists():
        raise DataError(
            f"the folder {str(root)!r} does not exist; path must name a folder of class folders"
        )
    tree = Tree(root)
    folders, notes = _folders(tree)
    empty: list[str] = []
    inside = {part: _images(tree, folder, empty) for part, folder in folders.items()}
    classes = list(inside["train"])
    if len(classes) < 2:
        with_images = " with images" if empty else ""
        raise DataError(
            f"{tree.where(folders['train'])} has {len(classes)} sub-folders{with_images}; "
            "it must have one for each of at least two classes"
        )
    names, labels, parts = [], [], []
    for part, by_class in inside.items():
        for name, images in by_class.items():
            if name not in classes:
                raise DataError(
                    f"{tree.where(folders[part] + name)} is of a class that 'train' does not have; "
                    f"it has {shorten(classes)}"
                )
            names += images
            labels += [classes.index(name)] * len(images)
            parts += [part] * len(images)
    if empty:
        word = "folder has" if len(empty) == 1 else "folders have"
        notes.append(f"{len(empty)} {word} no images and no class of its own: {quoted(empty)}.")
    notes += told_passed(list(tree.passed))
    return _Found(where, tree, classes, names, np.array(labels), np.array(parts), notes)


def _folders(tree: Tree) -> tuple[dict[str, str], list[str]]:
    """Return the folder of each split that has one, with a ``/``, and notes on the choice."""
    inside = tree.folders()
    found, notes = name_splits(inside)
    if "train" not in found:
        return {"train": ""}, []
    known = [name for names in SPLIT_NAMES.values() for name in names]
    other = [name for name in inside if name.lower() not in known]
    if other:
        raise DataError(
            f"{tree.where()} has {found['train']!r} beside {other[0]!r}; only validation "
            "(or val) and test may be beside it"
        )
    return {part: f"{name}/" for part, name in found.items()}, notes


def _images(tree: Tree, folder: str, empty: list[str]) -> dict[str, list[str]]:
    """Return the paths of the images of each class of a split; note folders without any."""
    found: dict[str, list[str]] = {}
    for name in tree.folders(folder):
        images = tree.images(f"{folder}{name}/")
        if images:
            found[name] = [f"{folder}{name}/{image}" for image in images]
        else:
            empty.append(f"{folder}{name}")
    if not found and folder:
        raise DataError(f"{tree.where(folder)} has no class folders with images")
    return found
