"""The time of a step where several trainings run at once, for step_cost.py."""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from turns import Ended, Work

Mark = tuple[float, int]
"""The time of a line of a training's log, in seconds, and the steps done by then."""


def at_once(
    work: Work,
    count: int,
    together: Callable[..., Any],
    device: torch.device,
    seconds: float,
    timeout: float,
) -> tuple[list[float], float]:
    """Run a training several times at once.

    Args:
        work: The training.
        count: Number of times.
        together: The project's own function, which runs them.
        device: Their device.
        seconds: Time to measure.
        timeout: Most seconds in all.

    Returns:
        Seconds for one step of any of them, in each part of the time that all share; and the
        seconds up to the first line of the last.
    """
    marks: list[list[Mark]] = [[] for _ in range(count)]
    failure: list[BaseException] = []
    stop = threading.Event()

    def enough(now: float) -> bool:
        # Up to its second line a training may still be capturing.
        if not all(len(own) > 1 for own in marks):
            return False
        return now - max(own[1][0] for own in marks) > seconds

    def one(own: list[Mark]) -> None:
        def tick(step: int) -> None:
            # No wait for the device: a line has waited for its own training, and the work of the
            # others shall go on.
            own.append((time.perf_counter(), step))
            if enough(own[-1][0]):
                stop.set()
            if stop.is_set():
                raise Ended

        with contextlib.suppress(Ended):
            work(tick)

    def everything() -> None:
        try:
            together([functools.partial(one, own) for own in marks], device)
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=everything, daemon=True)
    began = time.perf_counter()
    thread.start()
    thread.join(max(timeout, 0.1))
    stop.set()
    thread.join(10)
    if failure:
        raise failure[0]
    return rate(marks), max(own[0][0] for own in marks) - began


def rate(marks: Sequence[Sequence[Mark]], parts: int = 3) -> list[float]:
    """Return the seconds for one step of any training, in each part of the time that all share.

    Args:
        marks: The lines of each training's log.
        parts: Parts of that time.

    Raises:
        RuntimeError: There is no such time.
    """
    usable = [own[1:] for own in marks if len(own) > 2]
    first = max((own[0][0] for own in usable), default=0.0)
    last = min((own[-1][0] for own in usable), default=0.0)
    if len(usable) < len(marks) or last <= first:
        raise RuntimeError("the trainings did not run at once for long enough")

    def done(own: Sequence[Mark], now: float) -> float:
        for (t0, s0), (t1, s1) in itertools.pairwise(own):
            if t0 <= now <= t1:
                return s0 + (s1 - s0) * (now - t0) / max(t1 - t0, 1e-9)
        return float(own[-1][1])

    edges = [first + (last - first) * k / parts for k in range(parts + 1)]
    counts = [sum(done(own, edge) for own in usable) for edge in edges]
    width = (last - first) / parts
    return [width / max(b - a, 1e-9) for a, b in itertools.pairwise(counts)]
