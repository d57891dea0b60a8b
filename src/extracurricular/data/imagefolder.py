"""Images in folders that are called by their classes, in memory as one tensor."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from extracurricular.data.base import DATA, Data, make_data
from extracurricular.data.cache import Arrays, cached
from extracurricular.data.files import Source, decode_images, image_files
from extracurricular.data.sizes import check_memory, left_out, pair
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
) -> Data:
    """Images in class sub-folders: ``PATH/CLASS/*.jpg``, or ``PATH/train/CLASS/*.jpg`` and so on.

    With a folder ``train`` the splits are those of the folders ``train``, ``validation`` (or
    ``val``) and ``test``. If there is no ``test``, ``val`` is the test split, as in the published
    figures of ImageNet. What is missing is set aside from the training images.

    Args:
        path: The folder.
        size: Height and width, or [height, width]: the largest part in the middle with these
            proportions is scaled to it.
        channels: 3 for colours, 1 for grey.
        test, validation: Images to set aside, as parts or numbers, each class in proportion;
            ``validation`` may be 0.
        seed: Seed of the choice.
        damaged: What happens to an image that cannot be read: ``error`` ends with its name,
            ``skip`` leaves it out and names it in the notes of the data.
        memory: Most that the images may take, in GB (10^9 bytes).
        cache: Whether to keep the decoded images in the user's cache folder, or the folder to keep
            them in.

    Raises:
        DataError: The folder has no classes or images, an image cannot be read, or all together
            would not fit.
    """
    root = Path(path)
    height, width = pair(size)
    folders, notes = _folders(root)
    classes = _classes(folders["train"])
    sources = {part: _sources(root, folder, classes) for part, folder in folders.items()}
    every = [pair for found in sources.values() for pair in found]
    shape = (channels, height, width)
    check_memory(f"data {path!r}", len(every), shape, memory)
    files = [file for _, (_, file) in every if isinstance(file, Path)]
    found = cached(
        "imagefolder",
        files,
        partial(_decode, [source for _, source in every], shape, damaged == "skip"),
        cache=cache,
        settings=[list(shape), damaged],
    )
    lost = [
        source[0] for (_, source), whole in zip(every, found["whole"], strict=True) if not whole
    ]
    if lost:
        notes.append(left_out(lost, len(every)))
    y = np.array([label for label, _ in every], dtype=np.int64)
    part = np.array([name for name, pairs in sources.items() for _ in pairs])
    rows = {name: np.flatnonzero((part == name) & found["whole"]) for name in sources}
    parts = {"test": test, "validation": validation}
    rows = set_aside(f"data {path!r}", rows, y, parts, seed)
    present = np.bincount(y[rows["train"]], minlength=len(classes))
    if present.min() == 0:
        gone = classes[int(present.argmin())]
        raise DataError(f"data {path!r}: no image of the class {gone!r} is left to train on")
    pairs = {name: (found["x"][which], y[which]) for name, which in rows.items()}
    return make_data(
        root.absolute().name,
        train=pairs["train"],
        validation=pairs["validation"],
        test=pairs["test"],
        task=Task("classification", len(classes)),
        classes=classes,
        notes=notes,
    )


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))
    except OSError as error:
        raise DataError(f"the folder {str(folder)!r} cannot be read: {error.strerror}") from error


def _folders(root: Path) -> tuple[dict[str, Path], list[str]]:
    """Return the folder of each split that has one, and what is to be told about that."""
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
            f"the folder {str(root)!r} has {found['train']!r} beside {other[0]!r}; beside it "
            "only validation (or val) and test may be"
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


def _sources(root: Path, folder: Path, classes: list[str]) -> list[tuple[int, Source]]:
    """Return label, name and file of each image of a split."""
    known = {name: k for k, name in enumerate(classes)}
    found: list[tuple[int, Source]] = []
    for inner in _subfolders(folder):
        if inner.name not in known:
            raise DataError(
                f"the folder {str(inner)!r} is of a class that 'train' does not have; "
                f"it has {shorten(classes)}"
            )
        files = image_files(inner)
        if not files:
            raise DataError(f"the folder {str(inner)!r} has no images")
        found += [(known[inner.name], (f.relative_to(root).as_posix(), f)) for f in files]
    if not found:
        raise DataError(f"the folder {str(folder)!r} has no class folders with images")
    return found


def _decode(sources: list[Source], shape: tuple[int, ...], skip: bool) -> Arrays:
    blocks = (sources[k : k + _BLOCK] for k in range(0, len(sources), _BLOCK))
    damaged: list[int] | None = [] if skip else None
    x = decode_images(blocks, len(sources), shape, resize=True, damaged=damaged).numpy()
    whole = np.ones(len(sources), dtype=bool)
    whole[damaged or []] = False
    return {"x": x, "whole": whole}
