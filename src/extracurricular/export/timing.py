"""Time calls on this machine, side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import torch

K = TypeVar("K", bound=Hashable)
_ROUNDS = 5


@torch.inference_mode()
def side_by_side(calls: Mapping[K, Callable[[], object]], seconds: float = 0.5) -> dict[K, float]:
    """Return the median time of each call, in seconds.

    The calls take turns, so that other work of the machine slows all of them alike.

    Args:
        calls: The functions to time, by any key.
        seconds: Time to spend on each, after two calls to warm up; at least five calls are timed.
    """
    times: dict[K, list[float]] = {name: [] for name in calls}
    for _ in range(_ROUNDS):
        for name, call in calls.items():
            for _ in range(2):
                call()
            end = time.perf_counter() + seconds / _ROUNDS
            while True:
                started = time.perf_counter()
                call()
                stopped = time.perf_counter()
                times[name].append(stopped - started)
                if stopped > end:
                    break
    return {name: statistics.median(found) for name, found in times.items()}
