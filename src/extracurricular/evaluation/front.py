"""The front of error against cost, and the best student within the limits of its target.

Nothing here measures: points come from :mod:`extracurricular.export.front`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from extracurricular.evaluation.verdict import with_unit
from extracurricular.evaluation.words import Words

COSTS = {"ms": "ms", "bytes": "bytes", "multiply_adds": "multiply-adds"}
"""The costs of a student on its target, and their units."""


@dataclass(frozen=True)
class Point:
    """A student's exported file, as it was measured.

    Args:
        student: The student.
        precision: ``float32`` or ``int8``.
        parameters: Numbers of the network.
        ms: Median time for one example, in milliseconds.
        bytes: Size of the file.
        multiply_adds: Those for one example; None where they cannot be counted.
        validation: Error on the validation examples, the mean over seeds.
        error: Error on the examples that results are measured on, the mean over seeds.
        loss: NLL on the validation examples in nats, the mean over seeds.
    """

    student: str
    precision: str
    parameters: int
    ms: float
    bytes: int
    multiply_adds: int | None
    validation: float
    error: float
    loss: float

    @property
    def name(self) -> str:
        """The student, with its precision where that is not float32."""
        return self.student + ("" if self.precision == "float32" else f" ({self.precision})")


def over(point: Point, limit: Mapping[str, float]) -> list[str]:
    """Return the costs of a point that are over their limit; those that are unknown count as over.

    Args:
        point: The point.
        limit: The most of each cost, of :data:`COSTS`; those without a limit are left out.
    """
    values = {cost: getattr(point, cost) for cost in limit}
    return [cost for cost, value in values.items() if value is None or value > limit[cost]]


def best(points: Sequence[Point], limit: Mapping[str, float]) -> Point | None:
    """Return the point with the lowest validation error within the limits; None where none is.

    Of equal errors the one with the lower NLL on validation examples is better, and then the one
    with fewer bytes. Test examples take no part.
    """
    inside = [one for one in points if not over(one, limit) and math.isfinite(one.validation)]
    return min(inside, key=lambda one: (one.validation, one.loss, one.bytes), default=None)


def efficient(points: Sequence[Point], cost: str) -> list[Point]:
    """Return the points that none beats in both error and a cost, by rising cost.

    Args:
        points: The points.
        cost: One of :data:`COSTS`.
    """
    known = [one for one in points if getattr(one, cost) is not None]
    found: list[Point] = []
    for one in sorted(known, key=lambda one: (getattr(one, cost), one.error)):
        if not found or one.error < found[-1].error:
            found.append(one)
    return found


def verdict(points: Sequence[Point], limit: Mapping[str, float], words: Words) -> str:
    """Return a sentence that names the best student within the limits.

    Args:
        points: The points.
        limit: As for :func:`over`; empty for no limit.
        words: Those of the error.
    """
    found = best(points, limit)
    told = " and ".join(f"{_number(value)} {COSTS[cost]}" for cost, value in limit.items())
    if found is not None:
        within = f"Within {told}, " if told else "Without a limit, "
        return (
            f"{within}{found.name} is best on validation examples: {words.title} "
            f"{with_unit(words, found.validation)}, {_costs(found)}."
        )
    if not points:
        return "No student could be exported, so none is named."
    near = min(
        points, key=lambda one: max((_excess(one, cost, limit) for cost in limit), default=0)
    )
    return f"No student is within {told}; the nearest is {near.name}, with {_costs(near)}."


def _excess(point: Point, cost: str, limit: Mapping[str, float]) -> float:
    value = getattr(point, cost)
    return math.inf if value is None else float(value / limit[cost])


def _costs(point: Point) -> str:
    values = {cost: getattr(point, cost) for cost in COSTS}
    return ", ".join(f"{_number(v)} {COSTS[cost]}" for cost, v in values.items() if v is not None)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def plain(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Return points as plain values; None for a figure that is not finite."""
    return [
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in pairs.items()}
        for pairs in map(asdict, points)
    ]


def read(found: Mapping[str, Any]) -> Point:
    """Return a point that :func:`plain` made plain."""
    values = dict(found)
    for name in ("validation", "error", "loss"):
        values[name] = math.nan if values[name] is None else values[name]
    return Point(**values)
