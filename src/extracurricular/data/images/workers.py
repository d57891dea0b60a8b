"""Worker processes that decode images into memory they share with this one.

They are started by ``sys.executable``, not by :mod:`multiprocessing`: a worker then needs neither
torch nor the ``__main__`` module of the training, inherits no threads and no CUDA state, and ends
by itself when its pipe does, however the parent ended. The shared memory has no name, so none is
left over.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from queue import SimpleQueue
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from extracurricular.data.images.decode import View, order
from extracurricular.data.images.packed import shown
from extracurricular.errors import DataError, telling_temporary

# Decoded images that wait to be collected take at most this much, in bytes.
_MEMORY = 2**28
# Images in an order; the more there are, the less often a worker waits for the next order.
_BLOCK = 32
_MOST_WANTED = 2**16
_PATIENCE = 10.0

_RUN = (
    "import sys; sys.path[:] = sys.argv[3:]; "
    "from extracurricular.data.images.decode import serve; "
    "serve(int(sys.argv[1]), int(sys.argv[2]))"
)


class Picture(NamedTuple):
    """An image to decode, with everything that the result depends on.

    Args:
        file: Place of the image (:mod:`.packed`).
        word: 64 random bits, which choose a random part.
        view: The part to take.
    """

    file: str
    word: int
    view: View

    def __hash__(self) -> int:
        """Return a hash that leaves out the view, as there are few different views."""
        return hash(self[:2])


def cpu_count() -> int:
    """Return the number of CPUs for this process: its share if torchrun started several."""
    known = hasattr(os, "sched_getaffinity")
    count = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    return max(1, count // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


class _Block:
    """An order and its answer."""

    def __init__(self, number: int, slot: int, pictures: Sequence[Picture]) -> None:
        self.number, self.slot = number, slot
        self.left = dict(zip(pictures, range(len(pictures)), strict=True))
        self.first = pictures[0]
        self.images = [(picture.file, picture.word) for picture in pictures]
        self.wrong: dict[int, str] = {}
        self.done = threading.Event()
        self._lock = threading.Lock()
        self._begun = self._dropped = False

    def begin(self) -> bool:
        """Mark the order as begun unless it was dropped; return whether it is begun."""
        with self._lock:
            self._begun = not self._dropped
            return self._begun

    def drop(self) -> None:
        """Drop the order, or wait for its end if it is begun, so that its memory is free."""
        with self._lock:
            self._dropped = True
            begun = self._begun
        if begun:
            self.done.wait()


class _Shared:
    """State that the threads which tend the workers share.

    They know this and not the pool, so that the pool can be freed.
    """

    def __init__(self) -> None:
        self.orders: SimpleQueue[_Block | None] = SimpleQueue()
        self.broken: str | None = None


class Workers:
    """A pool of worker processes, which starts with the first order.

    Pictures can be announced before they are collected; an announced picture that is never
    collected is dropped when its memory is needed.

    Args:
        count: Number of processes, at least 1.
        shape: The (C, H, W) of all pictures.
        memory: Most memory that decoded pictures take, in bytes.
    """

    def __init__(self, count: int, shape: tuple[int, int, int], memory: int = _MEMORY) -> None:
        self.count, self.shape = count, shape
        size = math.prod(shape)
        self.block = max(1, min(_BLOCK, memory // (4 * count * size)))
        self.slots = max(2 * count, memory // (self.block * size))
        # Slots are used in turn: memory that was read a moment ago is slow to write, as it lies in
        # another core's cache.
        self._free = deque(range(self.slots))
        self._blocks: dict[int, _Block] = {}
        self._ordered: dict[Picture, _Block] = {}
        self._wanted: dict[Picture, None] = {}
        self._number = self._collected = -1
        self._shared = _Shared()
        self._reported = False
        self._pixels = torch.empty(0, dtype=torch.uint8)
        self._finalizer: weakref.finalize[Any, Workers] | None = None

    @property
    def broken(self) -> str | None:
        """The reason why the pool is of no use any more; None if it works."""
        return self._shared.broken

    def check(self) -> None:
        """Raise an error, once, if the pool is broken.

        Raises:
            DataError: A worker was killed.
        """
        if self.broken is not None and not self._reported:
            self._fail(self.broken)

    def _fail(self, why: str) -> NoReturn:
        self.close()
        self._reported = True
        raise DataError(why)

    @property
    def processes(self) -> list[int]:
        """The ids of the worker processes."""
        return [process.pid for process in self._processes] if self._finalizer else []

    def announce(self, pictures: Sequence[Picture]) -> None:
        """Note pictures that will be collected, and order as many as there is room for."""
        self._wanted |= dict.fromkeys(p for p in pictures if p not in self._ordered)
        while len(self._wanted) > _MOST_WANTED:
            del self._wanted[next(iter(self._wanted))]
        self._feed()

    def collect(
        self, pictures: Sequence[Picture], put: Callable[[int, Tensor], object]
    ) -> dict[int, str]:
        """Hand out pictures of one view; those that were not announced are decoded now.

        Args:
            pictures: The pictures, of any number.
            put: Function that is called, in any order, with a place and the bytes of the pictures
                from there on, uint8, [N, C, H, W], on the CPU; it must copy them at once.

        Returns:
            The problem of each picture that cannot be decoded, by its place.

        Raises:
            DataError: A worker was killed.
        """
        places: dict[Picture, list[int]] = {}
        for k, picture in enumerate(pictures):
            places.setdefault(picture, []).append(k)
        found = (self._ordered.get(picture) for picture in places)
        needed = deque(dict.fromkeys(block for block in found if block is not None))
        keep = set(needed)
        todo = deque(picture for picture in places if picture not in self._ordered)
        size = max(1, min(self.block, math.ceil(len(todo) / self.count)))
        wrong: dict[int, str] = {}
        while needed or todo:
            while todo and (slot := self._slot(keep)) is not None:
                block = self._order([todo.popleft() for _ in range(min(size, len(todo)))], slot)
                needed.append(block)
                keep.add(block)
            block = needed.popleft()
            block.done.wait()
            if self.broken is not None:
                self._fail(self.broken)
            keep.remove(block)
            self._take(block, places, put, wrong)
        self._feed()
        return wrong

    def close(self) -> None:
        """End the processes."""
        if self._finalizer is not None:
            self._finalizer()

    def _take(
        self,
        block: _Block,
        places: dict[Picture, list[int]],
        put: Callable[[int, Tensor], object],
        wrong: dict[int, str],
    ) -> None:
        start = block.slot * self.block
        pairs: list[tuple[int, int]] = []
        for picture in [picture for picture in block.left if picture in places]:
            offset = block.left.pop(picture)
            del self._ordered[picture]
            for k in places[picture]:
                if offset in block.wrong:
                    wrong[k] = block.wrong[offset]
                else:
                    pairs.append((k, offset))
        for k, offset, count in _runs(pairs):
            put(k, self._pixels[start + offset : start + offset + count])
        self._collected = max(self._collected, block.number)
        if not block.left:
            del self._blocks[block.number]
            self._free.append(block.slot)

    def _slot(self, keep: set[_Block]) -> int | None:
        """Return a free slot of the memory; if there is none, drop the oldest order not kept."""
        if not self._free:
            old = next((block for block in self._blocks.values() if block not in keep), None)
            if old is None:
                return None
            self._drop(old)
        return self._free.popleft()

    def _drop(self, block: _Block) -> None:
        block.drop()
        for picture in block.left:
            del self._ordered[picture]
        del self._blocks[block.number]
        self._free.append(block.slot)

    def _feed(self) -> None:
        """Order announced pictures as long as there is room."""
        while self._wanted and self.broken is None:
            if not self._free:
                oldest = next(iter(self._blocks.values()))
                # An order older than one that was collected will hardly be collected itself.
                if oldest.number >= self._collected:
                    return
                self._drop(oldest)
            first = next(iter(self._wanted))
            alike = (picture for picture in self._wanted if picture.view == first.view)
            self._order(list(islice(alike, self.block)), self._free.popleft())

    def _order(self, pictures: list[Picture], slot: int) -> _Block:
        if self.broken is not None:
            self._fail(self.broken)
        if self._finalizer is None:
            self._start()
        self._number += 1
        block = _Block(self._number, slot, pictures)
        self._blocks[block.number] = block
        for picture in pictures:
            self._ordered[picture] = block
            self._wanted.pop(picture, None)
        self._shared.orders.put(block)
        return block

    def _start(self) -> None:
        size = self.slots * self.block * math.prod(self.shape)
        with _memory(size) as file:
            shared = mmap.mmap(file.fileno(), size)
            self._pixels = torch.frombuffer(shared, dtype=torch.uint8).view(-1, *self.shape)
            self._processes = [_process(file.fileno(), size) for _ in range(self.count)]
        threads = [
            threading.Thread(
                target=_tend,
                args=(process, self._shared, self.block),
                daemon=True,
                name="xcl-decode",
            )
            for process in self._processes
        ]
        for thread in threads:
            thread.start()
        self._finalizer = weakref.finalize(
            self, _end, self._shared, self._processes, threads, os.getpid()
        )


def _runs(pairs: Iterable[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Return runs of pairs that are consecutive in both numbers: the first pair, and the count."""
    runs: list[tuple[int, int, int]] = []
    for k, offset in pairs:
        if runs and (k, offset) == (runs[-1][0] + runs[-1][2], runs[-1][1] + runs[-1][2]):
            runs[-1] = (*runs[-1][:2], runs[-1][2] + 1)
        else:
            runs.append((k, offset, 1))
    return runs


def _process(file: int, size: int) -> subprocess.Popen[bytes]:
    """Start a process that decodes into ``size`` bytes of an open file."""
    command = [sys.executable, "-c", _RUN, str(file), str(size), *sys.path]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, pass_fds=[file])


def _memory(size: int) -> Any:
    """Open a file of ``size`` bytes in memory, which vanishes when nobody has it open any more."""
    if hasattr(os, "memfd_create"):
        file: Any = os.fdopen(os.memfd_create("xcl-decode"), "r+b", buffering=0)
    else:
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
    with telling_temporary("decoded pictures"):
        file.truncate(size)
    return file


def _tend(process: subprocess.Popen[bytes], shared: _Shared, block_size: int) -> None:
    """Hand orders to one worker, one after the other."""
    assert process.stdin is not None
    assert process.stdout is not None
    while (block := shared.orders.get()) is not None:
        if not block.begin():
            continue
        if shared.broken is None:
            try:
                line = order(block.first.view, block.slot * block_size, block.images)
                process.stdin.write(line)
                process.stdin.flush()
                answer = process.stdout.readline()
                block.wrong = {int(k): text for k, text in json.loads(answer).items()}
            except (OSError, ValueError):
                shared.broken = shared.broken or _ended(process, block)
        # This happens after a worker's end too, so that nobody waits for an answer in vain.
        block.done.set()


def _ended(process: subprocess.Popen[bytes], block: _Block) -> str:
    try:
        code = process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        code = 0
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
    hint = ", as the system does when memory is short" if code == -signal.SIGKILL else ""
    others = f" or one of the {len(block.images) - 1} after it" if len(block.images) > 1 else ""
    return (
        f"a worker process that decodes images has ended {how}{hint}; "
        f"its last image was {shown(block.first.file)!r}{others}"
    )


def _end(
    shared: _Shared,
    processes: list[subprocess.Popen[bytes]],
    threads: list[threading.Thread],
    owner: int,
) -> None:
    if os.getpid() != owner:
        return  # this is a fork of the process that owns the workers
    shared.broken = shared.broken or "the worker processes that decode images were ended"
    for _ in threads:
        shared.orders.put(None)
    for process in processes:
        try:
            assert process.stdin is not None
            # An empty line ends a worker even where a fork of this process keeps the pipe open.
            process.stdin.write(b"\n")
            process.stdin.close()
        except (OSError, ValueError):
            pass
    for process in processes:
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(_PATIENCE)
    for process in processes:
        assert process.stdout is not None
        process.stdout.close()


# The key has the process's id, as a fork has none of its parent's threads.
_POOLS: weakref.WeakValueDictionary[tuple[int, int, tuple[int, int, int]], Workers] = (
    weakref.WeakValueDictionary()
)


def workers(count: int, shape: tuple[int, int, int]) -> Workers:
    """Return the pool of ``count`` processes for pictures of a shape, which data sets share."""
    key = (os.getpid(), count, shape)
    pool = _POOLS.get(key)
    if pool is None or pool.broken is not None:
        pool = _POOLS[key] = Workers(count, shape)
    return pool
