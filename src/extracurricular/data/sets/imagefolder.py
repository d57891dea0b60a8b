"""Load images from folders named after their classes, into memory or as a stream."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from extracurricular.data.base import Data
from extracurricular.data.formats.examples import told_passed
from extracurricular.data.formats.labelled_images import Labelled, Settings, load_labelled
from extracurricular.data.formats.pictures import view_of
from extracurricular.data.formats.trees import Tree
from extracurricular.data.images.sizes import quoted
from extracurricular.data.remote import is_url, local_path, shown
from extracurricular.data.sets import DATA
from extracurricular.data.splits import SPLIT_NAMES, name_splits
from extracurricular.data.transform import Setting
from extracurricular.errors import DataError, shorten


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
    path = local_path(path)
    where = f"data {path!r}"
    if is_url(path):
        raise DataError(
            f"data {shown(path)!r}: a folder of images is not read from a URL; make shards of it, "
            "tar files of KEY.jpg and KEY.cls, and read these as `webdataset`"
        )
    view_of(where, size, channels, centre, draft)  # a mistake there is told before files are listed
    found = _find_images(where, Path(path))
    if limit is not None:
        found = found.some(limit, seed)
    how = Settings(
        size, channels, test, validation, seed, damaged, memory, cache, stream, workers, centre,
        draft, group, duplicates, target_transform,
    )  # fmt: skip
    return load_labelled("imagefolder", _with_targets(found, task), how)


def _with_targets(found: Labelled, task: str | None) -> Labelled:
    """Return the images with the numbers that their folders are called, or with classes.

    Raises:
        DataError: A folder's name is no number, but the task is regression.
    """
    where = found.where
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
        return replace(found, reals=np.array(numbers, dtype=np.float64)[found.y])
    if task is None and None not in numbers:
        told = (
            f"The folders are called by numbers, such as {found.classes[0]!r}, which are read as "
            f"{len(numbers)} classes; `task: regression` reads them as numbers."
        )
        return replace(found, notes=[*found.notes, told])
    return found


def _number(name: str) -> float | None:
    try:
        value = float(name)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _find_images(where: str, root: Path) -> Labelled:
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
    name = root.absolute().name
    name = name if tree.store.members is None else name.rpartition(".")[0]
    return Labelled(
        where, name, tree.store, tree.top, classes, names, np.array(labels), np.array(parts), notes
    )


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
