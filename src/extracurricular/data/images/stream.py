"""Images that worker processes decode from their files on demand."""

from __future__ import annotations

import hashlib
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NoReturn, TypeAlias

import numpy as np
import torch
from torch import Tensor

from extracurricular.data.base import Affine, Data, Split
from extracurricular.data.images.decode import Crop, View, check_source
from extracurricular.data.images.packed import Extents, Store
from extracurricular.data.images.sizes import quoted
from extracurricular.data.images.workers import Picture, Workers, cpu_count, workers
from extracurricular.data.progress import FEWEST_IMAGES, reading
from extracurricular.errors import DataError
from extracurricular.inputs import Deferred

# Chooses images to replace those at places [K] that cannot be read, at the k-th try.
Others: TypeAlias = Callable[[Tensor, int], Tensor]
# Takes decoded images: the place of the first among those asked for, and their bytes.
Put: TypeAlias = Callable[[int, Tensor], object]

# If so many images in a row cannot be read, the fault is not in single images.
_TRIES = 20
_BLOCK = 1024


class _NotInMemoryError(DataError, AttributeError):
    """Code asked for all the values at once."""


class _Buffers:
    """Memory for network inputs, which is reused once no tensor lies in it any more.

    Fresh pages of memory cost the system as much time as computing the inputs.
    """

    def __init__(self) -> None:
        self._free: deque[Any] = deque(maxlen=4)

    def take(self, shape: tuple[int, ...]) -> Tensor:
        """Return a tensor, float32, with undefined values."""
        for k, array in enumerate(self._free):
            if array.shape == shape:
                base = array
                del self._free[k]
                break
        else:
            base = np.empty(shape, np.float32)
        # The tensor and its views keep the lease alive, but not its base.
        lease = base.view()
        weakref.finalize(lease, self._free.append, base).atexit = False
        return torch.from_numpy(lease)


class Files:
    """The image files of a folder or an archive, and the workers that decode them.

    Args:
        name: Name of the data set.
        store: The folder or archive.
        names: Path of each image within it.
        view: The part to take of an image where no random part is asked for.
        skip: Whether another image replaces one that cannot be read.
        count: Number of worker processes; None for one per CPU.
        explain: Function that makes a sentence of the place of an image among the names, and of
            why it cannot be read.
    """

    def __init__(
        self,
        name: str,
        store: Store,
        names: Sequence[str],
        view: View,
        skip: bool,
        count: int | None = None,
        explain: Callable[[int, str], str] | None = None,
    ) -> None:
        self.name, self.store, self.names = name, store, names
        self.explain = explain or (lambda place, why: f"the image {names[place]!r} {why}")
        self.view, self.skip = view, skip
        self.count = count or cpu_count()
        self._views: dict[Crop | None, View] = {None: view}
        self.buffers = _Buffers()
        self._pool: Workers | None = None
        # An image is announced first and asked for later.
        self._place = lru_cache(maxsize=2**15)(store.place)
        self.forget()

    def forget(self) -> None:
        """Restart the counts of draws and of the damaged images that they met."""
        self.draws = 0
        self.met: set[int] = set()

    @property
    def pool(self) -> Workers:
        """The worker processes, which belong to this process and are in working order.

        Raises:
            DataError: A worker of the pool before was killed, and this was not reported yet.
        """
        if self._pool is not None:
            self._pool.check()
        self._pool = workers(self.count, self.view.shape)
        return self._pool

    def pictures(
        self, places: Sequence[int], crop: Crop | None, words: Sequence[int]
    ) -> list[Picture]:
        """Return the pictures to decode for images, given by their places among the names."""
        # All pictures share one view object, so that comparing their views is fast.
        view = self._views.setdefault(crop, View(self.view.shape, 1.0, self.view.draft, crop))
        where, names = self._place, self.names
        return [
            Picture(where(names[place]), word, view)
            for place, word in zip(places, words, strict=True)
        ]


class Streamed(Deferred):
    """The images of one split, which replace a tensor of bytes [N, C, H, W] and take no memory.

    Indexing decodes: ``images[places]`` and ``images[a:b]`` are tensors of bytes, on the device.
    Code that needs all values at once gets a :class:`~extracurricular.errors.DataError`.

    Args:
        files: The images of all splits.
        rows: Places of this split's images among them, int64, [N].
        device: Device of the decoded tensors; the CPU if None.
    """

    dtype = torch.uint8
    ndim = 4

    def __init__(self, files: Files, rows: Tensor, device: torch.device | None = None) -> None:
        self.files, self.rows = files, rows
        self.device = device or torch.device("cpu")

    @property
    def shape(self) -> torch.Size:
        """The shape [N, C, H, W]."""
        return torch.Size((len(self.rows), *self.files.view.shape))

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: torch.device) -> Streamed:
        """Return the same images, with their decoded tensors on a device."""
        return Streamed(self.files, self.rows, device)

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        return self.read(self._places(index))[0]

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Decode the images at places [K]; ``dim`` is 0."""
        assert dim == 0
        return self[index]

    def _places(self, index: int | slice | Tensor) -> Tensor:
        if isinstance(index, slice):
            return torch.arange(len(self))[index]
        index = torch.as_tensor(index).cpu()
        if index.dtype == torch.bool:
            return index.nonzero().squeeze(1)
        return torch.where(index < 0, index + len(self), index)

    def announce(
        self, index: slice | Tensor, crop: Crop | None = None, words: Tensor | None = None
    ) -> None:
        """Start to decode images that will be asked for soon; this changes no result."""
        places = self._places(index)
        self.files.pool.announce(self._pictures(places, crop, words))

    def read(
        self,
        index: Tensor,
        crop: Crop | None = None,
        words: Tensor | None = None,
        others: Others | None = None,
        scale: Affine | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode images.

        Args:
            index: Their places, int64, of any shape.
            crop: A random part to take of each instead of the part that ``Files.view`` takes.
            words: 64 bits for each image, which choose its random part.
            others: Function that replaces images which cannot be read, if ``Files.skip`` allows
                it. It maps (``bad``, number of the try) to the places of images that replace those
                at ``index[bad]``. If None, the next images of the split replace them.
            scale: The map to network inputs; None to get bytes.

        Returns:
            Bytes, or network inputs in float32, [..., C, H, W], on the device; and the places of
            the images that were taken.

        Raises:
            DataError: An image cannot be read, and the sentence names it; or a worker was killed.
        """
        places = index.flatten().cpu()
        drawn = others is not None
        self.files.draws += len(places) if drawn else 0
        others = others or (lambda bad, k: (places[bad] + k + 1) % len(self))
        taken = places
        found, put = self._target(len(places), scale)
        wrong = self._collect(taken, crop, words, put)
        first = dict(wrong)
        for k in range(_TRIES):
            if not wrong:
                break
            self._fail(taken, wrong)
            if drawn:
                self.files.met.update(self.rows[taken[sorted(wrong)]].tolist())
            bad = torch.tensor(sorted(wrong))
            taken = taken.clone()
            taken[bad] = others(bad, k).cpu()
            again = None if words is None else words.cpu()[bad]
            rows = bad.tolist()
            left = self._collect(taken[bad], crop, again, _at(rows, put))
            wrong = {rows[j]: why for j, why in left.items()}
        if wrong:
            raise DataError(
                f"data {self.files.name!r}: {_TRIES} images one after the other cannot be read, "
                f"such as {self.names(places[[min(first)]])[0]!r}, which {first[min(first)]}"
            )
        found = found.view(*index.shape, *self.files.view.shape).to(self.device, non_blocking=True)
        if scale is not None and found.dtype == torch.uint8:
            found = scale.apply(found)
        return found, taken.view(index.shape).to(index.device)

    def _target(self, count: int, scale: Affine | None) -> tuple[Tensor, Put]:
        """Return a tensor for images, and a function that puts images into it."""
        shape = (count, *self.files.view.shape)
        if scale is None or self.device.type != "cpu":
            # A GPU gets bytes, as they are a quarter of the size of floats.
            pinned = self.device.type == "cuda"
            rows = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
            return rows, lambda k, images: rows[k : k + len(images)].copy_(images)
        inputs, write = self.files.buffers.take(shape), scale.writer()
        return inputs, lambda k, images: write(images, inputs[k : k + len(images)])

    def names(self, index: Tensor) -> list[str]:
        """Return the paths of images within their folder."""
        return [self.files.names[row] for row in self.rows[index.cpu()].tolist()]

    def whole(self) -> tuple[Tensor, list[str]]:
        """Decode every image; return which can be read, bool, [N], and the names of the others."""
        good = torch.ones(len(self), dtype=torch.bool)
        places = torch.arange(len(self))
        with reading("checking images", len(self), "images", len(self) >= FEWEST_IMAGES) as tell:
            for start in range(0, len(self), _BLOCK):
                self.announce(places[start + _BLOCK : start + 2 * _BLOCK])
                block = places[start : start + _BLOCK]
                wrong = self._collect(block, None, None, lambda k, images: None)
                for why in wrong.values():
                    check_source(why)
                good[block[list(wrong)]] = False
                tell(start + len(block))
        return good, self.names(places[~good])

    def identity(self) -> dict[str, Any]:
        """Return plain values that identify these images: their files, and the view.

        Images in shards enter by the checksums of their bytes, which the shards' index has; others
        by names and sizes of files, so that a file which is replaced by another of the same name
        and size is not noticed.
        """
        view = self.files.view
        return {
            "files": _digest(self.files.store, [self.files.names[k] for k in self.rows.tolist()]),
            "shape": list(view.shape),
            "centre": view.centre,
            "draft": view.draft,
        }

    def _pictures(self, places: Tensor, crop: Crop | None, words: Tensor | None) -> list[Picture]:
        rows = self.rows[places].tolist()
        given = [0] * len(rows) if words is None else words.flatten().tolist()
        return self.files.pictures(rows, crop, given)

    def _collect(
        self, places: Tensor, crop: Crop | None, words: Tensor | None, put: Put
    ) -> dict[int, str]:
        return self.files.pool.collect(self._pictures(places, crop, words), put)

    def _fail(self, places: Tensor, wrong: dict[int, str]) -> None:
        for why in wrong.values():
            check_source(why)
        if not self.files.skip:
            first = min(wrong)
            row = int(self.rows[places[first]])
            raise DataError(self.files.explain(row, wrong[first]))

    def _refuse(self) -> NoReturn:
        raise DataError(self._sentence())

    def _sentence(self) -> str:
        return (
            f"the images of data {self.files.name!r} are streamed from their files, so they cannot "
            "be taken all at once; if they fit into memory, stream: false keeps them there"
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise _NotInMemoryError(self._sentence())

    def __array__(self, *_: Any, **__: Any) -> Any:
        self._refuse()

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = [*args, *(kwargs or {}).values()]
        flat = [part for arg in given for part in (arg if isinstance(arg, list | tuple) else [arg])]
        next(part for part in flat if isinstance(part, Streamed))._refuse()


def _digest(store: Store, names: Sequence[str]) -> str:
    """Return what tells these images from others, by the checksums of their bytes if known."""
    digest, members = hashlib.sha256(), store.members
    for name in names:
        checksum = members.checksum(name) if isinstance(members, Extents) else None
        line = f"{name}\0{store.size(name)}\n" if checksum is None else checksum
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _at(rows: list[int], put: Put) -> Put:
    def put_each(k: int, images: Tensor) -> None:
        for j in range(len(images)):
            put(rows[k + j], images[j : j + 1])

    return put_each


def streamed(x: object) -> Streamed | None:
    """Return the inputs if they are streamed, and None otherwise."""
    return x if isinstance(x, Streamed) else None


def announce_split(split: Split, index: slice | Tensor) -> None:
    """Start to decode examples of a split that will be asked for soon, if they are streamed."""
    images = streamed(split.x)
    if images is not None:
        images.announce(index)


def left_out_of_draws(data: Data) -> list[str]:
    """Return a sentence about the damaged images that others replaced since the last call, if any.

    The counts start again with each call.
    """
    images = streamed(data.train.x)
    if images is None:
        return []
    files = images.files
    names, draws = [files.names[row] for row in sorted(files.met)], files.draws
    files.forget()
    if not names:
        return []
    noun = "images were" if len(names) > 1 else "image was"
    return [f"{len(names):,} damaged {noun} left out of {draws:,} draws: {quoted(names)}."]
