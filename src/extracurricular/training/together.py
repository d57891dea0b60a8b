"""Several trainings at once in one process, one of them at a time.

Each training has a thread of its own, and on a GPU a stream of its own, so that the device works on
several at once. The threads take turns: at each chunk of draws a training hands on to the next. So
only one runs Python at any time, and each does the very work that it would do alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import TypeVar

import torch

T = TypeVar("T")


class _Stopped(BaseException):
    """Another training failed, or somebody interrupted all."""


class _Turns:
    """The order in which threads run.

    Args:
        count: Number of threads.
    """

    def __init__(self, count: int) -> None:
        self._change = threading.Condition()
        self._waiting = list(range(count))
        self._stopped = False

    @contextmanager
    def part(self, number: int) -> Iterator[None]:
        """Take part as thread ``number``: wait for a turn, and leave at the end of the block."""
        try:
            self._wait(number)
            yield
        finally:
            with self._change:
                self._waiting.remove(number)
                self._change.notify_all()

    def pass_on(self, number: int) -> None:
        """Let all others have a turn."""
        with self._change:
            self._waiting.remove(number)
            self._waiting.append(number)
            self._change.notify_all()
        self._wait(number)

    def _wait(self, number: int) -> None:
        with self._change:
            self._change.wait_for(lambda: self._waiting[0] == number)
        if self._stopped:
            raise _Stopped

    def stop(self) -> None:
        """Let each thread end at its next turn."""
        self._stopped = True


_turn: ContextVar[tuple[_Turns, int] | None] = ContextVar("turn", default=None)


def pass_on() -> None:
    """Let the trainings that run at once with this one have a turn."""
    mine = _turn.get()
    if mine is not None:
        turns, number = mine
        turns.pass_on(number)


def together(
    tasks: Sequence[Callable[[], T]],
    device: torch.device | None = None,
    lanes: Sequence[str] | None = None,
) -> list[T]:
    """Do tasks that train, at once, and return their results in order.

    The numbers are those of one after the other. If a task fails, the others end at their next
    chunk of draws; their trainings go on from their checkpoints when they are started again.

    Args:
        tasks: Callables, each of which calls :func:`~extracurricular.training.train`.
        device: Where it is a CUDA device, each task launches on a stream of its own.
        lanes: A name for each task; tasks of the same name share a stream, as those of a cohort
            must, since they read the same buffers.

    Raises:
        BaseException: The error of the first task that failed.
    """
    if len(tasks) == 1:
        return [tasks[0]()]
    turns = _Turns(len(tasks))
    results: dict[int, T] = {}
    errors: list[BaseException] = []
    threads_of_each = torch.get_num_threads()
    names = list(lanes) if lanes is not None else [str(number) for number in range(len(tasks))]
    streams = {name: _stream(device) for name in names}

    def work(number: int, task: Callable[[], T]) -> None:
        _turn.set((turns, number))
        torch.set_num_threads(threads_of_each)  # a thread has as many as cores, if not told
        try:
            with turns.part(number), _on(streams.get(names[number])):
                results[number] = task()
        except _Stopped:
            pass
        except BaseException as error:
            errors.append(error)
            turns.stop()

    # Every training restores torch's generators to what they were when it began, but not in the
    # order in which they began.
    with torch.random.fork_rng(devices=_cuda(device)):
        workers = [
            threading.Thread(target=copy_context().run, args=(work, number, task), daemon=True)
            for number, task in enumerate(tasks)
        ]
        for worker in workers:
            worker.start()
        try:
            for worker in workers:
                worker.join()
        except BaseException:
            turns.stop()
            for worker in workers:
                worker.join()
            raise
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(tasks))]


def _cuda(device: torch.device | None) -> list[torch.device]:
    return [device] if device is not None and device.type == "cuda" else []


def _stream(device: torch.device | None) -> torch.cuda.Stream | None:
    """Return a stream that goes on from the current one; None where there are no streams."""
    if device is None or device.type != "cuda":
        return None
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    return stream


@contextmanager
def _on(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Launch on a stream while a block runs, and wait for its work at the end."""
    if stream is None:
        yield
        return
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        stream.synchronize()
