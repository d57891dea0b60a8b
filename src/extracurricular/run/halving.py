"""Successive halving: train candidates in part, stop the worse half, and go on with the others.

Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter
optimization", AISTATS. Nothing here knows what a candidate is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from extracurricular.files import read_sealed, sha256, write_sealed
from extracurricular.training.mastery import stride

_OF = "of"


@dataclass(frozen=True)
class Halving:
    """The rounds of a choice.

    Args:
        names: The candidates.
        steps: Steps of a whole training.
        after: The parts of the training after which the worse half stops, rising, in (0, 1).
    """

    names: tuple[str, ...]
    steps: int
    after: tuple[float, ...]

    @property
    def rounds(self) -> list[tuple[int, int]]:
        """The step at which each round ends, and how many candidates go on from there."""
        every, count, found = stride(self.steps), len(self.names), []
        for place, part in enumerate(self.after):
            # A step at which held-out examples may come back to the draws.
            stop = max(every, round(part * self.steps / every) * every)
            last = place == len(self.after) - 1
            count = 1 if last else math.ceil(count / 2)
            found.append((min(stop, self.steps - 1), count))
        return found

    @property
    def until(self) -> int:
        """The step at which the best one is chosen."""
        return self.rounds[-1][0]

    @property
    def total(self) -> int:
        """Steps of all candidates together."""
        total, begun_at, count = 0, 0, len(self.names)
        for stop, kept in self.rounds:
            total += count * (stop - begun_at)
            begun_at, count = stop, kept
        return total + self.steps - begun_at

    def done(self, order: Sequence[str]) -> dict[str, int]:
        """Return the steps of each candidate where they are in this order, the best first."""
        alive = list(order)
        found: dict[str, int] = {}
        for stop, kept in self.rounds:
            found |= dict.fromkeys(alive, stop)
            alive = alive[:kept]
        return found | dict.fromkeys(alive, self.steps)

    def choose(
        self, judge: Callable[[str, int, int], tuple[float, float]], results: Results
    ) -> tuple[str, int]:
        """Return the best candidate, and the steps done before its last stretch begins.

        Args:
            judge: Trains the candidate of a name up to a step, and returns its held-out KL in nats
                and its seconds. The third argument is the number of steps of all candidates so far,
                less those of this one.
            results: What was measured so far; a choice that was interrupted goes on.
        """
        alive, spent, reached = list(self.names), 0, 0
        for stop, kept in self.rounds:
            for name in alive:
                if results.find(stop, name) is None:
                    results.keep(stop, name, judge(name, stop, spent - reached))
                spent += stop - reached
            # The order of equals is that of the recipe.
            alive = sorted(alive, key=lambda name: results.value(stop, name))[:kept]
            reached = stop
        [best] = alive
        return best, spent - reached


class Results:
    """The held-out KL of candidates at the end of each round, kept in a file.

    Args:
        file: The file; what it holds is taken over, so that a choice is made once.
        bound: All that the results depend on, as a text: what the file holds of anything else is
            left out. Empty for a file that is only looked at.

    Raises:
        StorageError: The file is damaged.
    """

    def __init__(self, file: Path, bound: str = "") -> None:
        self.file, self.of = file, bound and sha256(bound.encode())[:32]
        found = read_sealed(file) if file.is_file() else {}
        of = found.pop(_OF, self.of)
        self._kept: dict[str, dict[str, list[float]]] = found if self.of in ("", of) else {}

    def keep(self, stop: int, name: str, result: tuple[float, float]) -> None:
        """Keep the KL of a candidate at a step, and the seconds of its training up to there."""
        self._kept.setdefault(str(stop), {})[name] = list(result)
        write_sealed(self.file, {**self._kept, **({_OF: self.of} if self.of else {})})

    def find(self, stop: int, name: str) -> list[float] | None:
        """Return KL and seconds of a candidate at a step; None where it was not measured."""
        return self._kept.get(str(stop), {}).get(name)

    def value(self, stop: int, name: str) -> float:
        """Return the KL of a candidate at a step."""
        found = self.find(stop, name)
        return math.inf if found is None or math.isnan(found[0]) else found[0]

    def steps(self) -> dict[str, int]:
        """Return the last step at which each candidate was judged."""
        found: dict[str, int] = {}
        for stop, part in self._kept.items():
            for name in part:
                found[name] = max(found.get(name, 0), int(stop))
        return found

    def seconds(self, best: str) -> float:
        """Return the seconds of the candidates that were stopped: all but the best."""
        longest: dict[str, float] = {}
        for part in self._kept.values():
            for name, (_, seconds) in part.items():
                longest[name] = max(longest.get(name, 0.0), seconds)
        return sum(seconds for name, seconds in longest.items() if name != best)

    def plain(self) -> dict[str, dict[str, float]]:
        """Return the KL of each candidate by step and name."""
        return {
            stop: {name: round(found[0], 6) for name, found in part.items()}
            for stop, part in self._kept.items()
        }

    def told(self, names: Sequence[str], stop: int) -> str:
        """Return the KL of the candidates that were judged at a step, as a part of a sentence."""
        values = {name: self.find(stop, name) for name in names}
        parts = [f"{name} {found[0]:.4g}" for name, found in values.items() if found is not None]
        return f"at step {stop:,}: {', '.join(parts)} nats"
