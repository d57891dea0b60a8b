"""Images in folders that are called by their classes: in memory as one tensor, or streamed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from extracurricular.data.base import SAMPLE, Data, make_data
from extracurricular.data.formats.cache import Arrays, cached
from extracurricular.data.formats.examples import Source, decode_images, image_names
from extracurricular.data.images.decode import View
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
) -> Data:
    """Images in class sub-folders: ``PATH/CLASS/*.jpg``, or ``PATH/train/CLASS/*.jpg`` and so on.

    With a folder ``train`` the splits are those of the folders ``train``, ``validation`` (or
    ``val``) and ``test``. If there is no ``test``, ``val`` is the test split, as in the published
    figures of ImageNet. What is missing is set aside from the training images.

    Images are decoded once into memory, or streamed: decoded by worker processes as they are
    needed. The two give the same pixels. Streamed, no file is opened here but for the
    :data:`~extracurricular.data.base.SAMPLE` from all over the training images that the scale is
    fitted on, and, with ``damaged: skip``, those of validation and test.

    Args:
        path: The folder.
        size: Height and width, or [height, width]: the largest part in the middle with these
            proportions is scaled to it.
        channels: 3 for colours, 1 for grey.
        test, validation: Images to set aside, as parts or numbers, each class in proportion;
            ``validation`` may be 0.
        seed: Seed of the choice.
        damaged: What happens to an image that cannot be read: ``error`` ends with its name,
            ``skip`` leaves it out and names it in the notes of the data. Of streamed training
            images, another one then stands for it in the draws that would have it.
        memory: Most that the images may take, in GB (10^9 bytes).
        cache: Whether to keep the decoded images in the user's cache folder, or the folder to keep
            them in; not of streamed ones.
        stream: Whether images are streamed; ``auto`` for those that exceed ``memory``.
        workers: Processes that decode streamed images; as many as there are CPUs where None.
        centre: The part of the height and width that is shown of the largest part in the middle,
            in (0, 1]; 0.875 for figures on ImageNet.
        draft: Let JPEGs be decoded at the half, a quarter or an eighth of their size where that
            is enough, which is faster.

    Raises:
        DataError: The folder has no classes or images, an image cannot be read, or all together
            would not fit.
    """
    root, where = Path(path), f"data {path!r}"
    height, width = pair(size)
    if not 0 < centre <= 1:
        raise DataError(f"{where}: centre is {centre}; it must be a part in (0, 1]")
    if workers is not None and workers < 1:
        raise DataError(f"{where}: workers is {workers}; it must be at least 1, or null")
    view = View((channels, height, width), float(centre), draft)
    folders, notes = _folders(root)
    classes = _classes(folders["train"])
    labels: list[int] = []
    names: list[str] = []
    splits: list[str] = []
    for part, folder in folders.items():
        found = _images(root, folder, classes)
        labels += [label for label, _ in found]
        names += [name for _, name in found]
        splits += [part] * len(found)
    y, which = np.array(labels, dtype=np.int64), np.array(splits)
    if stream == "auto":
        stream = gigabytes(len(names), view.shape) > memory
    whole = np.ones(len(names), dtype=bool)
    if not stream:
        check_memory(where, len(names), view.shape, memory)
        x, whole = _decoded(root, names, view, damaged == "skip", cache)
        if not whole.all():
            notes.append(left_out([names[k] for k in np.flatnonzero(~whole)], len(names)))
    elif cache is not False:
        raise DataError(
            f"{where}: cache is {cache!r}, but the images are streamed, of which nothing is kept; "
            "leave it out, or have them in memory (stream: false)"
        )
    rows = {part: np.flatnonzero((which == part) & whole) for part in folders}
    rows = set_aside(where, rows, y, {"test": test, "validation": validation}, seed)
    present = np.bincount(y[rows["train"]], minlength=len(classes))
    if present.min() == 0:
        gone = classes[int(present.argmin())]
        raise DataError(f"{where}: no image of the class {gone!r} is left to train on")
    name = root.absolute().name
    images: dict[str, Any]
    if stream:
        files = Files(name, root, names, view, damaged == "skip", workers)
        images, rows = _streamed(files, rows, notes)
        notes.append(_how(files, len(rows["train"]), len(names)))
    else:
        images = {part: x[own] for part, own in rows.items()}
    return make_data(
        name,
        train=(images["train"], y[rows["train"]]),
        validation=(images["validation"], y[rows["validation"]]),
        test=(images["test"], y[rows["test"]]),
        task=Task("classification", len(classes)),
        classes=classes,
        notes=notes,
    )


def _streamed(
    files: Files, rows: dict[str, Array], notes: list[str]
) -> tuple[dict[str, Streamed], dict[str, Array]]:
    """Return the images of each split, and the rows of those that can be read.

    Training images are not looked at, as others can stand for them in a draw.
    """
    images = {part: Streamed(files, torch.from_numpy(own)) for part, own in rows.items()}
    if not files.skip:
        return images, rows
    rows = dict(rows)
    for part in ("validation", "test"):
        good, lost = images[part].whole()
        if lost:
            notes.append(f"{part}: {left_out(lost, len(good))}")
            rows[part] = rows[part][good.numpy()]
            images[part] = Streamed(files, torch.from_numpy(rows[part]))
    return images, rows


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


def _decoded(
    root: Path, names: list[str], view: View, skip: bool, cache: bool | str
) -> tuple[Array, Array]:
    """Return all images, and which could be read."""
    sources: list[Source] = [(name, root / name) for name in names]
    found = cached(
        "imagefolder",
        [root / name for name in names],
        partial(_decode, sources, view, skip),
        cache=cache,
        settings=[list(view.shape), "skip" if skip else "error", view.centre, view.draft],
    )
    return found["x"], found["whole"]


def _decode(sources: list[Source], view: View, skip: bool) -> Arrays:
    blocks = (sources[k : k + _BLOCK] for k in range(0, len(sources), _BLOCK))
    damaged: list[int] | None = [] if skip else None
    x = decode_images(blocks, len(sources), view.shape, resize=view, damaged=damaged).numpy()
    whole = np.ones(len(sources), dtype=bool)
    whole[damaged or []] = False
    return {"x": x, "whole": whole}
