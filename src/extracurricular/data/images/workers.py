"""Processes that decode images into memory they share with this one.

They are started by ``sys.executable``, not by :mod:`multiprocessing`: a worker then needs neither
torch nor the ``__main__`` of whoever trains, takes over no threads and no CUDA, and ends by itself
when its pipe does, however the parent ended. The shared memory has no name, so none is left over.
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
from collections.abc import Callable, Sequence
from itertools import islice
from queue import SimpleQueue
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from extracurricular.data.images.decode import View, order
from extracurricular.errors import DataError

# Decoded images that wait to be collected take at most this much, in bytes.
_MEMORY = 2**28
# Images in an order: the more, the less often a worker waits for the next one.
_BLOCK = 32
_MOST_WANTED = 2**16
_PATIENCE = 10.0

_RUN = (
    "import sys; sys.path[:] = sys.argv[3:]; "
    "from extracurricular.data.images.decode import serve; "
    "serve(int(sys.argv[1]), int(sys.argv[2]))"
)


class Picture(NamedTuple):
    """What is decoded, and all that the result depends on.

    Args:
        file: Path of the image.
        word: 64 random bits, for a random part.
        view: What is taken of it.
    """

    file: str
    word: int
    view: View

    def __hash__(self) -> int:
        """Hash without the view, of which there are few."""
        return hash(self[:2])


def cpu_count() -> int:
    """Number of CPUs that this process may use; of several that torchrun started, its share."""
    known = hasattr(os, "sched_getaffinity")
    count = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    return max(1, count // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


class _Block:
    """An order, and what came of it."""

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
        """Begin, unless nobody wants it any more."""
        with self._lock:
            self._begun = not self._dropped
            return self._begun

    def drop(self) -> None:
        """Have it not begun, or wait for its end, so that its place in the memory is free."""
        with self._lock:
            self._dropped = True
            begun = self._begun
        if begun:
            self.done.wait()


class _Shared:
    """What the threads that tend the workers know; not the pool, so that the pool can be freed."""

    def __init__(self) -> None:
        self.orders: SimpleQueue[_Block | None] = SimpleQueue()
        self.broken: str | None = None


class Workers:
    """A pool of worker processes, begun with the first order.

    Pictures can be announced before they are collected; what is announced and never collected is
    dropped when its place is needed.

    Args:
        count: Number of processes, at least 1.
        shape: The (C, H, W) of all pictures.
        memory: Most that decoded pictures take, in bytes.
    """

    def __init__(self, count: int, shape: tuple[int, int, int], memory: int = _MEMORY) -> None:
        self.count, self.shape = count, shape
        size = math.prod(shape)
        self.block = max(1, min(_BLOCK, memory // (4 * count * size)))
        self.slots = max(2 * count, memory // (self.block * size))
        # In turn: memory that was read a moment ago is dear to write, as it lies in another cache.
        self._free = deque(range(self.slots))
        self._blocks: dict[int, _Block] = {}
        self._ordered: dict[Picture, _Block] = {}
        self._wanted: dict[Picture, None] = {}
        self._number = self._collected = -1
        self._shared = _Shared()
        self._told = False
        self._pixels = torch.empty(0, dtype=torch.uint8)
        self._finalizer: weakref.finalize[Any, Workers] | None = None

    @property
    def broken(self) -> str | None:
        """Why it is of no use any more, if so."""
        return self._shared.broken

    def check(self) -> None:
        """Tell, once, that it is broken.

        Raises:
            DataError: A worker was killed.
        """
        if self.broken is not None and not self._told:
            self._fail(self.broken)

    def _fail(self, why: str) -> NoReturn:
        self.close()
        self._told = True
        raise DataError(why)

    @property
    def processes(self) -> list[int]:
        """Ids of the worker processes."""
        return [process.pid for process in self._processes] if self._finalizer else []

    def announce(self, pictures: Sequence[Picture]) -> None:
        """Learn that these pictures will be collected, and begin with them as there is room."""
        self._wanted |= dict.fromkeys(p for p in pictures if p not in self._ordered)
        while len(self._wanted) > _MOST_WANTED:
            del self._wanted[next(iter(self._wanted))]
        self._feed()

    def collect(
        self, pictures: Sequence[Picture], put: Callable[[int, Tensor], object]
    ) -> dict[int, str]:
        """Give pictures of one view, decoded now where they were not announced.

        Args:
            pictures: The pictures, of any number.
            put: Called with a place and the bytes of the pictures from there on, uint8,
                [N, C, H, W], on the CPU, which are to be copied at once; in any order.

        Returns:
            What is wrong with those that cannot be decoded, by their place.

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
        # Runs of neighbours here and there: first place, first picture, number.
        runs: list[list[int]] = []
        for picture in [picture for picture in block.left if picture in places]:
            offset = block.left.pop(picture)
            del self._ordered[picture]
            for k in places[picture]:
                if offset in block.wrong:
                    wrong[k] = block.wrong[offset]
                elif runs and runs[-1][0] + runs[-1][2] == k and sum(runs[-1][1:]) == offset:
                    runs[-1][2] += 1
                else:
                    runs.append([k, offset, 1])
        for k, offset, count in runs:
            put(k, self._pixels[start + offset : start + offset + count])
        self._collected = max(self._collected, block.number)
        if not block.left:
            del self._blocks[block.number]
            self._free.append(block.slot)

    def _slot(self, keep: set[_Block]) -> int | None:
        """Return a place in the memory; where none is free, that of the oldest other order."""
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
        """Order what was announced, as there is room."""
        while self._wanted and self.broken is None:
            if not self._free:
                oldest = next(iter(self._blocks.values()))
                # What is older than what was collected will hardly be collected itself.
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
            command = [sys.executable, "-c", _RUN, str(file.fileno()), str(size), *sys.path]
            self._processes = [
                subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    pass_fds=[file.fileno()],
                )
                for _ in range(self.count)
            ]
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


def _memory(size: int) -> Any:
    """Open a file of ``size`` bytes in memory, which goes when nobody has it open any more."""
    if hasattr(os, "memfd_create"):
        file: Any = os.fdopen(os.memfd_create("xcl-decode"), "r+b", buffering=0)
    else:
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
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
        # After an end, so that nobody waits for what will not come.
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
        f"its last image was {block.first.file!r}{others}"
    )


def _end(
    shared: _Shared,
    processes: list[subprocess.Popen[bytes]],
    threads: list[threading.Thread],
    owner: int,
) -> None:
    if os.getpid() != owner:
        return  # in a fork of the process whose workers these are
    shared.broken = shared.broken or "the worker processes that decode images were ended"
    for _ in threads:
        shared.orders.put(None)
    for process in processes:
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
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


# By process, as a fork has none of its parent's threads.
_POOLS: weakref.WeakValueDictionary[tuple[int, int, tuple[int, int, int]], Workers] = (
    weakref.WeakValueDictionary()
)


def workers(count: int, shape: tuple[int, int, int]) -> Workers:
    """Return the pool of so many processes for pictures of this shape; data sets share it."""
    key = (os.getpid(), count, shape)
    pool = _POOLS.get(key)
    if pool is None or pool.broken is not None:
        pool = _POOLS[key] = Workers(count, shape)
    return pool
