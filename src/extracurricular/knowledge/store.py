"""Rows of bytes by draw id, in shards: written by several processes, read from memory maps.

:mod:`extracurricular.knowledge.manifest` describes the files in the folder.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from extracurricular.errors import StorageError
from extracurricular.files import read_json, write_atomic, write_json
from extracurricular.knowledge.fingerprint import canonical
from extracurricular.knowledge.manifest import (
    Manifest,
    Origin,
    Price,
    Shard,
    check_origin,
    hasher,
    prefix,
    read_manifest,
    shard_name,
)

# Processes lock the ids that they record; the locks on manifest and price lie far above any id.
_MANIFEST_LOCK = 1 << 61
_PRICE_LOCK = _MANIFEST_LOCK + 1


class Store:
    """A record to read: rows by draw id, from memory maps.

    Args:
        folder: The record.
        manifest: Its manifest.
        shards: The rows of each shard, uint8, [rows, bytes], in order and without a gap.
    """

    def __init__(self, folder: Path, manifest: Manifest, shards: Sequence[Tensor]) -> None:
        self.folder = folder
        self.manifest = manifest
        self._shards = list(shards)
        self._ends = torch.tensor([len(s) for s in shards], dtype=torch.int64).cumsum(0)

    @classmethod
    def open(cls, folder: Path, manifest: Manifest | None = None) -> Store:
        """Open a record; every shard is read once, to compare its checksum.

        Raises:
            StorageError: The manifest or a shard is missing or damaged; the sentence names it.
        """
        manifest = manifest or read_manifest(folder)
        used = [s for s in map(Shard.parse, manifest.shards) if s and s.last <= manifest.draws]
        return cls(folder, manifest, [_map_shard(folder, manifest, shard) for shard in used])

    def __len__(self) -> int:
        return self.manifest.draws

    def rows(self, ids: Tensor) -> Tensor:
        """Return the rows of draws ``ids``, uint8, [B, bytes_per_draw].

        Args:
            ids: Draw ids, int64, [B], on the CPU.

        Raises:
            StorageError: A draw is not in the record.
        """
        if not len(ids):
            return torch.empty(0, self.manifest.bytes_per_draw, dtype=torch.uint8)
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= len(self):
            wrong = low if low < 0 else high
            raise StorageError(
                f"draw {wrong} is not in the record {str(self.folder)!r}, which holds draws 0 to "
                f"{len(self) - 1}; record more, or go through these again with Replay"
            )
        if high - low + 1 == len(ids) and bool((ids[1:] - ids[:-1] == 1).all()):
            return self._slice(low, high + 1)
        place = torch.bucketize(ids, self._ends, right=True)
        order = place.argsort(stable=True)
        rows = torch.empty(len(ids), self.manifest.bytes_per_draw, dtype=torch.uint8)
        numbers, counts = torch.unique_consecutive(place[order], return_counts=True)
        parts = torch.split(order, counts.tolist())
        for number, where in zip(numbers.tolist(), parts, strict=True):
            shard = self._shards[number]
            rows[where] = shard.index_select(0, ids[where] - self._start(number))
        return rows

    def _start(self, number: int) -> int:
        return int(self._ends[number]) - len(self._shards[number])

    def _slice(self, low: int, high: int) -> Tensor:
        number, parts = int(torch.bucketize(low, self._ends, right=True)), []
        while low < high:
            start, end = self._start(number), int(self._ends[number])
            parts.append(self._shards[number][low - start : min(high, end) - start])
            low, number = end, number + 1
        return torch.cat(parts)


class Recording:
    """A record to write, by one process or several at once.

    Args:
        folder: The record, new or begun before.
        origin: All that the content depends on.
        dtype: Type of the stored numbers.
        bytes_per_draw: Length of a row.
        version: Format of the rows; a record of an earlier one that goes on becomes one of this.

    Each process locks the ids that it works on, so that none is recorded twice. The system drops
    the locks of a process that ends, however it ends. (Windows has no such locks, so there only one
    process at a time may record.) A recording is a context; a process may enter one at a time.
    """

    def __init__(
        self,
        folder: Path,
        origin: Origin,
        dtype: str,
        bytes_per_draw: int,
        version: Literal[1, 2] = 1,
    ) -> None:
        self.folder = folder
        self.origin = origin
        self.empty = Manifest(
            format=version, origin=origin, dtype=dtype, bytes_per_draw=bytes_per_draw
        )
        self._locks: io.BufferedWriter | None = None

    def __enter__(self) -> Recording:
        """Lock the folder, and check the record that it holds.

        Raises:
            StorageError: The folder cannot be written to, holds another record, or is damaged.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._locks = (self.folder / ".lock").open("ab")
        except OSError as error:
            raise StorageError(
                f"cannot write to {str(self.folder)!r}: {error.strerror or error}"
            ) from error
        try:
            with self._locked(_MANIFEST_LOCK):
                manifest = self.manifest()
                check_origin(self.folder, _fields(manifest), _fields(self.empty))
                # Only present shards are checked: those that are gone will be recorded anew.
                for shard in self._present():
                    _map_shard(self.folder, self.empty, shard)
                self._write(manifest.price)
        except BaseException:
            self._locks.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._locks is not None
        self._locks.close()

    def manifest(self) -> Manifest:
        """Return the manifest on the disk, or an empty one where there is none."""
        known = (self.folder / "manifest.json").exists()
        return read_manifest(self.folder) if known else self.empty

    def missing(self, first: int, last: int) -> list[tuple[int, int]]:
        """Return the ranges of draws within [first, last) that no shard holds."""
        gaps, at = [], first
        for shard in self._present():
            if shard.last > at and shard.first < last:
                if shard.first > at:
                    gaps.append((at, shard.first))
                at = shard.last
        return gaps if at >= last else [*gaps, (at, last)]

    @contextmanager
    def claim(self, first: int, last: int, *, wait: bool) -> Iterator[bool]:
        """Keep other processes from recording draws [first, last) while a block runs.

        Args:
            first, last: The range.
            wait: Whether to wait until no other process holds the range.

        Yields:
            Whether the range is ours; always true with ``wait``.
        """
        with self._locked(first, last - first, wait=wait) as ours:
            if ours:
                # An interrupted process left these parts of shards in this range.
                for file in self.folder.glob(".draws-*.part"):
                    shard = re.match(r"\.draws-([0-9]{12})-", file.name)
                    if shard and first <= int(shard[1]) < last:
                        file.unlink(missing_ok=True)
            yield ours

    def add(self, first: int, rows: Tensor) -> None:
        """Write the rows of draws ``first`` onwards as a shard, then the manifest.

        Raises:
            StorageError: They cannot be written; the draws recorded before stay usable.
        """
        buffer = io.BytesIO()
        np.save(buffer, rows.cpu().numpy(), allow_pickle=False)
        content = buffer.getvalue()
        name = shard_name(self.origin, first, first + len(rows), content)
        try:
            write_atomic(self.folder / name, content)
            with self._locked(_MANIFEST_LOCK):
                self._write(self.manifest().price)
        except StorageError as error:
            raise StorageError(
                f"{error}; the draws recorded so far are safe, and the same command goes on "
                "from there"
            ) from error

    @contextmanager
    def pricing(self) -> Iterator[Manifest]:
        """Let one process at a time measure the price of all that is recorded."""
        with self._locked(_PRICE_LOCK):
            with self._locked(_MANIFEST_LOCK):
                # A process may have ended between its last shard and the manifest.
                self._write(self.manifest().price)
            yield self.manifest()

    def set_price(self, price: Price) -> None:
        """Put the measured price into the manifest."""
        with self._locked(_MANIFEST_LOCK):
            self._write(price)

    def _present(self) -> list[Shard]:
        found = map(Shard.parse, os.listdir(self.folder))  # noqa: PTH208 - names alone are wanted
        return sorted((s for s in found if s), key=lambda s: (s.first, s.last, s.name))

    def _write(self, price: Price | None) -> None:
        """Put all present shards into the manifest, which must be locked."""
        for file in self.folder.glob(".manifest.json.*.part"):
            file.unlink(missing_ok=True)  # an interrupted process left it
        names, end = [], 0
        for shard in self._present():
            if shard.first >= end:
                names.append(shard.name)
                end = shard.last
        manifest = self.empty.model_copy(
            update={"shards": names, "draws": prefix(names), "price": price}
        )
        value = manifest.model_dump(mode="json")
        path = self.folder / "manifest.json"
        value["sha256"] = hashlib.sha256(canonical(value)).hexdigest()
        if not path.exists() or read_json(path) != value:
            write_json(path, value)

    @contextmanager
    def _locked(self, start: int, length: int = 1, *, wait: bool = True) -> Iterator[bool]:
        """Lock part of the lock file, and yield whether it is ours; ``wait`` ensures that."""
        try:
            import fcntl
        except ImportError:
            yield True
            return
        assert self._locks is not None
        try:
            fcntl.lockf(self._locks, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), length, start)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise StorageError(
                    f"cannot lock files in {str(self.folder)!r}: {error.strerror or error}"
                ) from error
            yield False
            return
        try:
            yield True
        finally:
            fcntl.lockf(self._locks, fcntl.LOCK_UN, length, start)


def _fields(manifest: Manifest) -> dict[str, Any]:
    """Return the fields that must be equal for two records to be one, most telling first."""
    value = manifest.model_dump(mode="json")
    return {**value["origin"], "dtype": value["dtype"], "bytes_per_draw": value["bytes_per_draw"]}


def _map_shard(folder: Path, manifest: Manifest, shard: Shard) -> Tensor:
    """Check a shard against the checksum in its name, and map it into memory."""
    path = folder / shard.name
    name = str(path)
    if path.resolve().parent != folder.resolve():
        raise StorageError(f"the shard {name!r} is a link out of its folder")
    digest = hasher(manifest.origin, shard.first, shard.last)
    rows, width = shard.last - shard.first, manifest.bytes_per_draw
    try:
        with path.open("rb") as file:
            # The header is read first, but interpreted only once the checksum is known.
            start = file.read(4096)
            digest.update(start)
            while block := file.read(1 << 20):
                digest.update(block)
            size = file.tell()
    except FileNotFoundError:
        raise StorageError(
            f"the shard {name!r} is missing; record again, which makes its draws anew"
        ) from None
    except OSError as error:
        raise StorageError(f"cannot read the shard {name!r}: {error.strerror or error}") from error
    if shard.name != f"draws-{shard.first:012d}-{shard.last:012d}.{digest.hexdigest()[:32]}.npy":
        raise StorageError(
            f"the shard {name!r} is damaged, cut short, or of another record: its checksum "
            "differs; delete it and record again, which makes its draws anew"
        )
    offset = _data_offset(start, (rows, width))
    if offset is None or size != offset + rows * width:
        raise StorageError(f"the shard {name!r} does not hold bytes of shape [{rows}, {width}]")
    # Unlike numpy's memory map, this does not keep a file open for each shard.
    whole = torch.from_file(name, shared=False, size=size, dtype=torch.uint8)
    return whole[offset:].view(rows, width)


def _data_offset(start: bytes, shape: tuple[int, int]) -> int | None:
    """Return where the numbers of an .npy file begin; None unless they are bytes of this shape."""
    file = io.BytesIO(start)
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            return None
        found, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    except ValueError:
        return None
    return file.tell() if found == shape and not fortran and dtype == np.uint8 else None
