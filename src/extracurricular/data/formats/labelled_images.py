"""Images that are listed with a class or a number each, made into a data set."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from extracurricular.data.base import Data, make_data
from extracurricular.data.formats.pictures import Pictures, view_of, without_repeats
from extracurricular.data.images.decode import view_settings
from extracurricular.data.images.packed import Store
from extracurricular.data.splits import set_aside, stratified_order
from extracurricular.data.target_transform import transform_targets
from extracurricular.data.transform import Setting
from extracurricular.distributions import Task
from extracurricular.errors import DataError

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Labelled:
    """Images with their labels, not yet opened.

    Args:
        where: The data, for errors.
        name: Name of the data set.
        store: The folder or archives of the images.
        top: What stands before the names in the store.
        classes: Names of the classes; empty where targets are reals of their own.
        names: Name of each image, N of them.
        y: Class of each image, int64, or its real, float64, [N].
        parts: Name of each image's split, [N].
        notes: Notes on what was found.
        reals: Real target of each image, float64, [N]; None where classes are predicted.
    """

    where: str
    name: str
    store: Store
    top: str
    classes: list[str]
    names: list[str]
    y: Array
    parts: Array
    notes: list[str]
    reals: Array | None = None

    def some(self, limit: int, seed: int) -> Labelled:
        """Return at most ``limit`` of the images, with splits and classes in proportion.

        Raises:
            DataError: There are fewer than classes.
        """
        if limit < max(1, len(self.classes)):
            raise DataError(
                f"{self.where}: limit is {limit}; there are {len(self.classes)} classes, and each "
                "needs images"
            )
        if limit >= len(self.names):
            return self
        known = np.unique(self.parts, return_inverse=True)[1]
        kinds = known * len(self.classes) + self.y if self.classes else known
        chosen = np.sort(stratified_order(kinds, seed)[:limit])
        note = f"{limit:,} of {len(self.names):,} images are read (`limit`)."
        return replace(
            self,
            names=[self.names[k] for k in chosen.tolist()],
            y=self.y[chosen],
            parts=self.parts[chosen],
            notes=[*self.notes, note],
            reals=None if self.reals is None else self.reals[chosen],
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
            test, validation, seed: Parts or numbers to set aside, and the seed of the choice.
            group: Group of each image, [N]; None for none.

        Raises:
            DataError: A class has no training images left.
        """
        known = dict.fromkeys(self.parts.tolist())
        rows = {part: np.flatnonzero((self.parts == part) & whole) for part in known}
        sizes = {"test": test, "validation": validation}
        rows = set_aside(self.where, rows, self.y, sizes, seed, group)
        if not self.classes:
            return rows
        present = np.bincount(self.y[rows["train"]], minlength=len(self.classes))
        if present.min() == 0:
            gone = self.classes[int(present.argmin())]
            raise DataError(f"{self.where}: no image of the class {gone!r} is left to train on")
        return rows


@dataclass(frozen=True)
class Settings:
    """How listed images are read (:func:`extracurricular.data.sets.imagefolder.imagefolder`)."""

    size: int | list[int] = 64
    channels: Literal[1, 3] = 3
    test: float = 0.2
    validation: float = 0.1
    seed: int = 0
    damaged: Literal["error", "skip"] = "error"
    memory: float = 4
    cache: bool | str = False
    stream: bool | Literal["auto"] = "auto"
    workers: int | None = None
    centre: float = 1.0
    draft: bool = True
    group: str | None = None
    duplicates: Literal["keep", "drop"] = "keep"
    target_transform: Setting = None


def load_labelled(kind: str, found: Labelled, how: Settings) -> Data:
    """Make a data set of images: decoded into memory, or streamed.

    Args:
        kind: Name of the kind of data set, for the cache.
        found: The images.
        how: The settings.

    Raises:
        DataError: An image cannot be read, the images do not fit into memory, or a setting does not
            fit them.
    """
    view = view_of(found.where, how.size, how.channels, how.centre, how.draft)
    pictures = Pictures(
        kind, found.where, found.name, found.store, [found.top + name for name in found.names],
        view, how.damaged == "skip", how.memory, how.cache, how.stream, how.workers,
    )  # fmt: skip
    by = None if how.group is None else found.groups(how.group)
    images: dict[str, Any]
    if pictures.streams:
        every = np.ones(len(found.names), dtype=bool)
        rows = found.split(every, how.test, how.validation, how.seed, by)
        images, rows, notes = pictures.streamed(rows)
    else:
        x, whole, notes = pictures.decoded()
        rows = found.split(whole, how.test, how.validation, how.seed, by)
        images = {part: x[own] for part, own in rows.items()}
    if how.duplicates == "drop":
        images, rows, told = without_repeats(images, rows)
        notes += told
    y = found.y if found.reals is None else found.reals
    classes = found.classes if found.reals is None else []
    made = make_data(
        found.name,
        train=(images["train"], y[rows["train"]]),
        validation=(images["validation"], y[rows["validation"]]),
        test=(images["test"], y[rows["test"]]),
        task=Task("classification", len(classes)) if classes else None,
        classes=classes,
        notes=[*found.notes, *notes],
        reading={"image": view_settings(view)},
        ids={part: [found.names[k] for k in own.tolist()] for part, own in rows.items()},
    )
    return transform_targets(made, how.target_transform)
