"""Choose steps and candidates so that a training, or a run, ends within a time.

Everything here is a pure function of measured times: nothing is timed, and no clock is read.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

LEAST = 0.05
"""The smallest part of its steps that a training may keep; less would teach nothing."""

ENOUGH = 0.25
"""The part of the steps below which candidates are left out, as long as there are any."""


@dataclass(frozen=True)
class Choice:
    """What fits into a time.

    Args:
        part: Part of the steps that each training keeps, in [:data:`LEAST`, 1].
        without: Candidates that are left out.
        seconds: Time that the rest takes.
    """

    part: float
    without: tuple[str, ...]
    seconds: float


class TooShortError(Exception):
    """Nothing fits into the time.

    Args:
        needed: Seconds that the least would take.
    """

    def __init__(self, needed: float) -> None:
        super().__init__(f"at least {needed:.0f} s are needed")
        self.needed = needed


Span = Callable[[float, tuple[str, ...]], float]
"""The seconds of all trainings with a part of their steps, and without some candidates."""


def choose(span: Span, candidates: Sequence[str], seconds: float) -> Choice:
    """Return the largest part of the steps that fits, with as many candidates as keep enough.

    Candidates are left out one after the other while trainings would keep less than
    :data:`ENOUGH` of their steps.

    Args:
        span: Seconds of the whole; it rises with the part, and falls with each candidate left out.
        candidates: Those that may be left out, the first to go first.
        seconds: The time.

    Raises:
        TooShortError: Not even :data:`LEAST` of the steps without any of them fits.
    """
    found: Choice | None = None
    for count in range(len(candidates) + 1):
        without = tuple(candidates[:count])
        part = largest_part(lambda part, without=without: span(part, without), seconds)  # type: ignore[misc]
        if part is not None:
            found = Choice(part, without, span(part, without))
            if part >= ENOUGH:
                break
    if found is None:
        raise TooShortError(span(LEAST, tuple(candidates)))
    return found


def largest_part(span: Callable[[float], float], seconds: float) -> float | None:
    """Return the largest part of the steps that fits; None where not even the least does.

    Args:
        span: Seconds of the whole with a part of its steps, rising.
        seconds: The time.

    Returns:
        A number of four decimals, so that it can be written down, in [:data:`LEAST`, 1].
    """
    low, high = round(LEAST * 10_000), 10_000
    if span(LEAST) > seconds:
        return None
    if span(1.0) <= seconds:
        return 1.0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if span(middle / 10_000) <= seconds else (low, middle)
    return low / 10_000


def steps_of(steps: int, part: float) -> int:
    """Return the steps that a training keeps, at least 1."""
    return max(1, int(steps * part + 1e-9))


def makespan(
    stages: Iterable[tuple[str, Sequence[str]]], seconds: Mapping[str, float], jobs: int
) -> float:
    """Return the time at which the last stage ends, if each begins as soon as it can.

    Args:
        stages: The name of each stage, and the names of those that it needs, in order.
        seconds: The time of each stage.
        jobs: Stages at once.
    """
    free, ends = [0.0] * max(1, jobs), dict[str, float]()
    for name, needs in stages:
        ready = max((ends.get(need, 0.0) for need in needs), default=0.0)
        ends[name] = max(ready, heapq.heappop(free)) + seconds[name]
        heapq.heappush(free, ends[name])
    return max(ends.values(), default=0.0)


def duration(seconds: float) -> str:
    """Write a time for a sentence: 40 seconds, 12 minutes, 3.5 hours."""
    if seconds < 90:
        whole = max(1, round(seconds))
        return f"{whole} second{'s' if whole > 1 else ''}"
    if seconds < 5400:
        return f"{seconds / 60:.2g} minutes"
    return f"{seconds / 3600:.2g} hours"


def minutes_of(minutes: float) -> str:
    """Write the minutes that a person gave."""
    return f"{minutes:g} minute{'' if minutes == 1 else 's'}"
