"""Images in shards of the WebDataset layout: tar files of samples, on disks or behind URLs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from extracurricular.data.base import Data
from extracurricular.data.formats.labelled_images import Labelled, Settings, load_labelled
from extracurricular.data.formats.pictures import view_of
from extracurricular.data.formats.shard_names import find_shards, folder_of, parts_of
from extracurricular.data.formats.shards import Index, Label, indexes
from extracurricular.data.images.packed import Extents, Store
from extracurricular.data.remote import download, is_url, local_path, shown
from extracurricular.data.sets import DATA
from extracurricular.data.splits import name_splits
from extracurricular.data.tasks import kind_of
from extracurricular.data.transform import Setting
from extracurricular.errors import DataError, shorten

Array: TypeAlias = np.ndarray[Any, Any]

_NAMES = ("classes.txt", "classnames.txt")


@DATA.register("webdataset")
def webdataset(
    path: str,
    validation: int | float | str = 0.1,
    test: int | float | str = 0.2,
    classes: str | list[str] | None = None,
    image: str | None = None,
    label: str | None = None,
    size: int | list[int] = 64,
    channels: Literal[1, 3] = 3,
    seed: int = 0,
    damaged: Literal["error", "skip"] = "error",
    memory: int | float = 4,
    cache: bool | str = False,
    stream: bool | Literal["auto"] = "auto",
    workers: int | None = None,
    centre: int | float = 1.0,
    draft: bool = True,
    task: Literal["classification", "regression"] | None = None,
    group: str | None = None,
    duplicates: Literal["keep", "drop"] = "keep",
    limit: int | None = None,
    target_transform: Setting = None,
) -> Data:
    """Load images from shards: tar files of ``KEY.jpg`` with ``KEY.cls`` or ``KEY.json``.

    An index of each shard is made once, so that any image is read alone. The examples are in the
    order of the shards, and of the samples in each. Images that a folder of classes has in the same
    order give the same splits and draws, to the last bit.

    Args:
        path: The shards: a folder of them, or names such as ``train-{000..099}.tar`` or
            ``train-*.tar``; or a URL of such. Words in the names of a folder's shards tell the
            split, unless ``validation`` or ``test`` names shards.
        validation, test: Shards of the split, relative to the folder of ``path``; or a part or
            number of images to set aside. ``validation`` may be 0.
        classes: Names of the classes, in order, or a text file beside the shards with one in each
            line; ``classes.txt`` or ``classnames.txt`` where None, if there is one, else the labels
            themselves.
        image: Ending of the images, such as ``png``; the first of a sample that is called like an
            image where None.
        label: Ending of the files of labels, or ``json.FIELD``; ``cls`` where None, else the field
            ``label``, ``class``, ``cls`` or ``target`` of ``json``.
        size, channels, centre, draft: The part of an image that is shown (:func:`.imagefolder`).
        seed: Seed of the choice of images that are set aside.
        damaged: What an image does that cannot be read: ``error`` ends with its name, ``skip``
            leaves it out. A shard that cannot be read, or is not that of its index, always ends.
        memory, cache, stream, workers: How images are read (:func:`.imagefolder`).
        duplicates: Whether to ``drop`` test and validation images that equal a training image in
            all pixels; streamed images are decoded once for that.
        task: Kind of the labels. Texts are classes, and so are whole numbers of at most 20 kinds,
            all of 0 to C - 1, or where classes are named; other numbers are real.
        group: Regular expression that is searched in ``SHARD/KEY.jpg``; images where it finds the
            same stay in one split.
        limit: At most so many images are read, chosen at random, each class in proportion.
        target_transform: What students learn of a real target (:func:`.table`).

    Raises:
        DataError: A shard is missing, cut off, packed or no tar; a sample has no label or an
            unknown one; a URL cannot be reached; or a setting does not fit.
    """
    where = f"data {shown(path)!r}"
    view_of(where, size, channels, centre, draft)
    shards, notes = _shards(path, {"validation": validation, "test": test})
    every = [shard for own in shards.values() for shard in own]
    known, made = indexes(every, image, label)
    notes += _told(known, made)
    store, names, labels = _store(where, path, every, known, image)
    parts = np.repeat(list(shards), [len(own) for own in shards.values()])
    parts = np.repeat(parts, [len(index.names) for index in known])
    home = folder_of(path)
    given, told = _class_names(home, classes)
    notes += told
    name = Path(home).name
    found = Labelled(where, name, store, "", [], names, np.zeros(len(names)), parts, notes)
    found = _with_labels(found, labels, given, task)
    if limit is not None:
        found = found.some(limit, seed)
    how = Settings(
        size, channels, 0 if isinstance(test, str) else test,
        0 if isinstance(validation, str) else validation, seed, damaged, memory, cache, stream,
        workers, centre, draft, group, duplicates, target_transform,
    )  # fmt: skip
    return load_labelled("webdataset", found, how)


def _shards(path: str, others: Mapping[str, float | str]) -> tuple[dict[str, list[str]], list[str]]:
    """Return the shards of each split that has any, and notes on the choice."""
    home = folder_of(path)
    found = find_shards(path)
    given = {part: one for part, one in others.items() if isinstance(one, str)}
    notes: list[str] = []
    if given or not found[0].startswith(f"{home}/") or home.rstrip("/") != _plain(path):
        shards = {"train": found}
    else:
        by_word = parts_of(found, home)
        which, notes = name_splits(by_word)
        if "train" not in which:
            raise DataError(f"{shown(path)!r} has no shard of the split train")
        shards = {part: by_word[word] for part, word in which.items()}
    shards |= {part: find_shards(one, part, home) for part, one in given.items()}
    order = [part for part in ("train", "validation", "test") if part in shards]
    named: dict[str, str] = {}
    for part in order:
        for shard in shards[part]:
            if named.setdefault(shard, part) != part:
                raise DataError(f"the shard {shown(shard)!r} is of {named[shard]} and of {part}")
    return {part: shards[part] for part in order}, notes


def _plain(path: str) -> str:
    path = local_path(path)
    return path.rstrip("/") if is_url(path) else str(Path(path).expanduser())


def _told(known: Sequence[Index], made: int) -> list[str]:
    notes = []
    if made:
        word = "index was" if made == 1 else "indexes were"
        notes.append(f"{made:,} {word} made of {len(known):,} shards, which is done once.")
    without = sum(index.without for index in known)
    if without:
        word = "sample has" if without == 1 else "samples have"
        notes.append(f"{without:,} {word} no image and no part in this (`image`).")
    return notes


def _store(
    where: str, path: str, shards: Sequence[str], known: Sequence[Index], image: str | None
) -> tuple[Store, list[str], list[Label]]:
    """Return where the images lie, with the name and the label of each."""
    bases = Counter(index.shard for index in known)
    titles = [
        index.shard if bases[index.shard] == 1 else shown(shard)
        for shard, index in zip(shards, known, strict=True)
    ]
    names = [f"{t}/{n}" for t, index in zip(titles, known, strict=True) for n in index.names]
    if not names:
        wanted = f".{image}" if image is not None else "an image"
        raise DataError(f"{where}: no sample of {len(shards):,} shards has {wanted}; set `image`")
    labels = [one for index in known for one in index.labels]
    if None in labels:
        raise DataError(
            f"{where}: the sample {names[labels.index(None)]!r} has no label, and "
            f"{labels.count(None):,} of {len(labels):,} have none; set `label` to the ending of "
            "the files that have it, or to json.FIELD"
        )
    members = Extents(
        list(shards),
        names,
        [k for k, index in enumerate(known) for _ in index.names],
        [v for index in known for v in index.offsets],
        [v for index in known for v in index.sizes],
        [v for index in known for v in index.crcs],
        [v for index in known for v in index.checksums],
    )
    return Store(Path(folder_of(path)), members), names, labels


def _class_names(home: str, classes: str | list[str] | None) -> tuple[list[str], list[str]]:
    """Return the names of the classes, none if there are none, and notes on where they are from."""
    if isinstance(classes, list):
        names, source = classes, "classes"
    else:
        source, text = _text(home, classes)
        names = [line.strip() for line in text.splitlines() if line.strip()]
    if source and (len(names) < 2 or len(set(names)) < len(names)):
        raise DataError(
            f"{source} has {len(names)} names of classes; there must be at least two different ones"
        )
    found = classes is None and bool(source)
    return names, [f"The names of the classes are those of {source}."] if found else []


def _text(home: str, classes: str | None) -> tuple[str, str]:
    """Return the file of class names and its text; empty texts where there is none."""
    if is_url(home) or (classes is not None and is_url(classes)):
        if classes is None:
            return "", ""  # to look for it would be a request that mostly fails
        place = classes if is_url(classes) else f"{home}/{classes}"
        content = download(place)
        named = shown(place)
    else:
        files = [Path(home) / Path(name).expanduser() for name in [classes or ""] if name]
        files = files or [file for name in _NAMES if (file := Path(home) / name).is_file()]
        if not files:
            return "", ""
        named = str(files[0])
        try:
            content = files[0].read_bytes()
        except OSError as error:
            raise DataError(
                f"the file of classes {named!r} cannot be read: {error.strerror}"
            ) from error
    try:
        return f"the file {named!r}", content.decode()
    except UnicodeDecodeError:
        raise DataError(f"the file of classes {named!r} is no text in UTF-8") from None


# Labels


def _with_labels(
    found: Labelled, labels: list[Label], given: list[str], task: str | None
) -> Labelled:
    """Return the images with their classes or real targets.

    Raises:
        DataError: A label is unknown, or of another kind than the others.
    """

    def refuse(row: int, says: str) -> DataError:
        name = found.names[row]
        return DataError(
            f"{found.where}: the sample {name!r} has the label {shorten(labels[row])}; {says}"
        )

    texts = [isinstance(one, str) for one in labels]
    whole = not any(texts) and not any(isinstance(one, float) for one in labels)
    if task == "regression" or (task is None and not given and not any(texts) and not whole):
        if any(texts):
            raise refuse(texts.index(True), "a real target must be a number")
        reals = np.array(labels, dtype=np.float64)
        return replace(found, y=reals, reals=reals)
    if given:
        places = {name: k for k, name in enumerate(given)}
        y = np.empty(len(labels), dtype=np.int64)
        for row, one in enumerate(labels):
            place = places.get(one, -1) if isinstance(one, str) else one
            if not isinstance(place, int) or not 0 <= place < len(given):
                known = shorten(given, 200)
                raise refuse(row, f"there are {len(given)} classes, 0 to {len(given) - 1}: {known}")
            y[row] = place
        return replace(found, classes=given, y=y)
    if not whole and not all(texts):
        odd = texts.index(not texts[0])
        raise refuse(odd, f"others have such as {shorten(labels[0])}; all must be of one kind")
    train = found.parts == "train"
    y, classes, why = _kinds(np.array(labels), task)
    if classes is None:
        return replace(found, y=y, reals=y, notes=[*found.notes, *why])
    strange = np.flatnonzero(~np.isin(y, np.unique(y[train])))
    if len(strange):
        raise refuse(int(strange[0]), "no training sample has it")
    return replace(found, classes=classes, y=y, notes=[*found.notes, *why])


def _kinds(values: Array, task: str | None) -> tuple[Array, list[str] | None, list[str]]:
    """Return classes as numbers with their names, or reals without, and notes on the choice."""
    if values.dtype.kind == "U":
        kinds, y = np.unique(values, return_inverse=True)
        return y, [str(one) for one in kinds], []
    why: list[str] = []
    if task is None:
        kind, said = kind_of("label", values, indices=True)
        if kind is None:
            kind, said = kind_of("label", values)
        why = [said] if said else []
        if kind == "regression":
            return values.astype(np.float64), None, why
    kinds, y = np.unique(values, return_inverse=True)
    count = int(kinds[-1]) + 1
    if kinds[0] < 0 or count >= 2 * len(kinds):
        # Each number is the name of a class.
        return y, [str(one) for one in kinds], why
    return values.astype(np.int64), [str(k) for k in range(count)], why
