"""A number that changes over a training, such as a temperature or the weight of a sampler."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from extracurricular.errors import shorten

_KINDS = ("linear", "cosine", "finish")


@dataclass(frozen=True)
class Course:
    """A number as a function of the part of a training that is done.

    Args:
        kind: ``linear`` or ``cosine``, from ``first`` to ``last``; or ``finish``, which is
            ``first`` up to the part ``at``, and ``last`` from there on.
        first, last: The values at the beginning and at the end.
        at: Part of the training, in [0, 1], for ``finish``.
    """

    kind: str
    first: float
    last: float
    at: float = 0.8

    def value(self, done: float) -> float:
        """Return the number when a part ``done`` of the training is done, in [0, 1]."""
        if self.kind == "finish":
            return self.first if done < self.at else self.last
        part = done if self.kind == "linear" else 0.5 - 0.5 * math.cos(math.pi * done)
        # Both ends are met exactly.
        return self.first * (1 - part) + self.last * part

    def values(self, steps: int) -> list[float]:
        """Return the number at each step of a training."""
        return [self.value(step / max(1, steps - 1)) for step in range(steps)]

    def plain(self) -> dict[str, Any]:
        """Return the course as a recipe writes it."""
        if self.kind == "finish":
            return {"finish": {"value": self.first, "then": self.last, "at": self.at}}
        return {self.kind: [self.first, self.last]}

    def __str__(self) -> str:
        return str(self.plain())


def ends(value: float | Course) -> tuple[float, ...]:
    """Return the values at the beginning and the end; all others lie between these."""
    return (value.first, value.last) if isinstance(value, Course) else (value,)


def plain_course(value: float | Course) -> Any:
    """Return a number, or a course as a recipe writes it."""
    return value.plain() if isinstance(value, Course) else value


def read_course(spec: Any, low: float = -math.inf, high: float = math.inf) -> float | Course:
    """Read a number, ``{linear: [a, b]}``, ``{cosine: [a, b]}`` or ``{finish: {…}}``.

    ``{finish: {value: a, then: b, at: 0.8}}`` is a up to four fifths of the training, and b after.

    Args:
        spec: The number, or the mapping.
        low, high: The bounds of the values.

    Raises:
        ValueError: The spec is none of these, or a value is out of bounds.
    """
    if _is_number(spec):
        _within([spec], low, high)
        number: float = spec
        return number
    if not isinstance(spec, Mapping) or len(spec) != 1 or next(iter(spec)) not in _KINDS:
        raise ValueError(
            f"is {shorten(spec)}; it must be a number, {{linear: [FIRST, LAST]}}, "
            "{cosine: [FIRST, LAST]} or {finish: {value: FIRST, then: LAST, at: 0.8}}"
        )
    [(kind, given)] = spec.items()
    if kind == "finish":
        known = {"value", "then", "at"}
        if not isinstance(given, Mapping) or not {"value", "then"} <= set(given) <= known:
            raise ValueError(
                f"has finish: {shorten(given)}; it must be {{value: FIRST, then: LAST, at: 0.8}}"
            )
        [at] = _within([given.get("at", 0.8)], 0, 1)
        first, last = _within([given["value"], given["then"]], low, high)
        return Course(kind, first, last, at)
    if not isinstance(given, list | tuple) or len(given) != 2:
        raise ValueError(f"has {kind}: {shorten(given)}; it must be [FIRST, LAST]")
    first, last = _within(list(given), low, high)
    return Course(kind, first, last)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _within(values: list[Any], low: float, high: float) -> list[float]:
    for value in values:
        if not _is_number(value) or not low <= value <= high or not math.isfinite(value):
            bounds = f" from {low:g} to {high:g}" if math.isfinite(high) else ""
            raise ValueError(f"has {shorten(value)}; it must be a number{bounds}")
    return [float(value) for value in values]
