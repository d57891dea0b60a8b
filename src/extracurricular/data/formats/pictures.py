"""Read the images of a data set: decoded once into memory, or streamed from their files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from extracurricular.data.base import SAMPLE
from extracurricular.data.formats.cache import Arrays, cached
from extracurricular.data.formats.examples import Source, decode_images
from extracurricular.data.images.decode import ImageError, View
from extracurricular.data.images.packed import Extents, Store, read_remote
from extracurricular.data.images.sizes import check_memory, gigabytes, left_out, pair
from extracurricular.data.images.stream import Files, Streamed
from extracurricular.data.progress import FEWEST_IMAGES, reading
from extracurricular.errors import DataError

Array: TypeAlias = np.ndarray[Any, Any]

_BLOCK = 1024


def view_of(
    where: str, size: int | list[int], channels: Literal[1, 3], centre: float, draft: bool
) -> View:
    """Return the part to take of each image, from the settings of a data set.

    Raises:
        DataError: A setting is out of range.
    """
    height, width = pair(size)
    if not 0 < centre <= 1:
        raise DataError(f"{where}: centre is {centre}; it must be a part in (0, 1]")
    return View((channels, height, width), float(centre), draft)


@dataclass(frozen=True)
class Pictures:
    """The images of a data set, not yet opened.

    Args:
        kind: Name of the kind of data set, for the cache.
        where: The data, for errors.
        name: Name of the data set.
        store: The folder or archive of the images.
        names: Name of each image in it, N of them.
        view: The part to take of each.
        skip: Whether images that cannot be read are left out.
        memory: Most memory that the images may take, in GB.
        cache: Whether to keep decoded images, or the folder to keep them in.
        stream: Whether they are streamed; ``auto`` if they exceed ``memory``.
        workers: Processes that decode streamed images; one for each CPU where None.
        explain: Function that makes a sentence of the place of an image among the names, and of
            why it cannot be read; None for a sentence that names the file.
    """

    kind: str
    where: str
    name: str
    store: Store
    names: list[str]
    view: View
    skip: bool
    memory: float
    cache: bool | str
    stream: bool | Literal["auto"]
    workers: int | None
    explain: Callable[[int, str], str] | None = None

    @cached_property
    def streams(self) -> bool:
        """Whether the images are streamed.

        Raises:
            DataError: They cannot be kept in a cache then, or the number of workers is none.
        """
        if self.workers is not None and self.workers < 1:
            raise DataError(
                f"{self.where}: workers is {self.workers}; it must be at least 1, or null"
            )
        streams = self.stream
        if streams == "auto":
            streams = gigabytes(len(self.names), self.view.shape) > self.memory
        if streams and self.cache is not False:
            raise DataError(
                f"{self.where}: cache is {self.cache!r}, but the images are streamed and not kept; "
                "leave it out, or have them in memory (stream: false)"
            )
        return streams

    def decoded(self) -> tuple[Array, Array, list[str]]:
        """Return all images, [N, C, H, W], whether each could be read, bool, [N], and notes.

        Raises:
            DataError: They do not fit into memory, or one cannot be read.
        """
        check_memory(self.where, len(self.names), self.view.shape, self.memory)
        shape, centre, draft = self.view.shape, self.view.centre, self.view.draft
        packed = self.store.members
        members: dict[str, Any] = {} if packed is None else {"names": self.names}
        if isinstance(packed, Extents):
            members["contents"] = [packed.checksum(name) for name in self.names]
        kept = cached(
            self.kind,
            self.store.files(self.names),
            self._decode,
            cache=self.cache,
            settings=[list(shape), "skip" if self.skip else "error", centre, draft, *members],
        )
        whole = kept["whole"]
        lost = [self.names[k] for k in np.flatnonzero(~whole)]
        return kept["x"], whole, [left_out(lost, len(self.names))] if lost else []

    def _decode(self) -> Arrays:
        sources: list[Source] = [(name, self.store.place(name)) for name in self.names]
        blocks = (_near(sources[k : k + _BLOCK]) for k in range(0, len(sources), _BLOCK))
        damaged: list[int] | None = [] if self.skip else None
        try:
            x = decode_images(
                blocks, len(sources), self.view.shape, resize=self.view, damaged=damaged
            ).numpy()
        except ImageError as error:
            if self.explain is None:
                raise
            text = self.explain(self.names.index(error.name), error.why)
            raise DataError(text) from error
        whole = np.ones(len(sources), dtype=bool)
        whole[damaged or []] = False
        return {"x": x, "whole": whole}

    def streamed(
        self, rows: Mapping[str, Array]
    ) -> tuple[dict[str, Streamed], dict[str, Array], list[str]]:
        """Return the images of each split, the rows of those that can be read, and notes.

        Training images are not opened, as other images can replace them in a draw.

        Args:
            rows: Places of the images of each split among the names.
        """
        files = Files(
            self.name, self.store, self.names, self.view, self.skip, self.workers, self.explain
        )
        images = {part: Streamed(files, torch.from_numpy(own)) for part, own in rows.items()}
        rows, notes = dict(rows), []
        for part in ("validation", "test") if files.skip else ():
            good, lost = images[part].whole()
            if lost:
                notes.append(f"{part}: {left_out(lost, len(good))}")
                rows[part] = rows[part][good.numpy()]
                images[part] = Streamed(files, torch.from_numpy(rows[part]))
        notes.append(_how(files, len(rows["train"]), len(self.names)))
        return images, rows, notes


def _near(sources: list[Source]) -> list[Source]:
    """Return images of a block, with the contents of those that lie behind URLs, read at once."""
    far = read_remote([place for _, place in sources if isinstance(place, str)])
    return [(name, far.get(str(place), place)) for name, place in sources] if far else sources


def _how(files: Files, train: int, count: int) -> str:
    needed = gigabytes(count, files.view.shape)
    noun = "process" if files.count == 1 else "processes"
    return (
        f"Images are decoded as they are needed, by {files.count} {noun}, as all of them would "
        f"take {needed:.3g} GB; the scale is that of {min(train, SAMPLE):,} training images."
    )


# Equal images


def without_repeats(
    images: Mapping[str, Any], rows: Mapping[str, Array]
) -> tuple[dict[str, Any], dict[str, Array], list[str]]:
    """Leave out the test and validation images that equal a training image in all pixels.

    Args:
        images: Images of each split, [N, C, H, W]; streamed ones are decoded once.
        rows: Their places, by split.

    Returns:
        The images and places that are left, and sentences about the others.
    """
    images, rows, notes = dict(images), dict(rows), []
    known = set(_digests(images["train"]))
    for part in ("validation", "test"):
        again = np.array([one in known for one in _digests(images[part])], dtype=bool)
        if again.any():
            images[part] = _at(images[part], np.flatnonzero(~again))
            rows[part] = rows[part][~again]
            notes.append(
                f"{again.sum():,} images of {part} repeat images of training and are left out."
            )
    return images, rows, notes


def _digests(images: Any) -> Sequence[bytes]:
    found = []
    with reading("comparing images", len(images), "images", len(images) >= FEWEST_IMAGES) as tell:
        for start in range(0, len(images), _BLOCK):
            if isinstance(images, Streamed):
                images.announce(slice(start + _BLOCK, start + 2 * _BLOCK))
            some = images[start : start + _BLOCK]
            found += [
                hashlib.blake2b(np.ascontiguousarray(one).tobytes(), digest_size=16).digest()
                for one in some
            ]
            tell(len(found))
    return found


def _at(images: Any, places: Array) -> Any:
    """Return the images at some places."""
    if isinstance(images, Streamed):
        return Streamed(images.files, images.rows[torch.from_numpy(places)], images.device)
    return images[places]
