"""What is compared: a row for teacher, student and each file; as cells that a person reads."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from extracurricular.evaluation.summary import COLUMNS

_FIGURES = ("accuracy", "angular_error", "rmse", "nll")


@dataclass
class Row:
    """One of the things compared.

    Args:
        name: What it is called.
        parameters: Numbers that it is made of.
        size: Bytes of its file.
        difference: Largest difference from the student, see
            :func:`~extracurricular.export.verify.differences`.
        metrics: Figures on the split.
        seconds: Time of a call by the number of examples in it.
    """

    name: str
    parameters: int | None = None
    size: int | None = None
    difference: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)


def headings(rows: list[Row]) -> list[str]:
    """Return the headings of :func:`cells`."""
    batches = [f"ms at {count}" for count in rows[-1].seconds]
    return ["", "parameters", "kB", "difference", *map(_heading, _figures(rows)), *batches]


def cells(rows: list[Row]) -> list[list[str]]:
    """Return the rows as text, a dash where there is nothing to tell."""
    return [
        [
            row.name,
            "–" if row.parameters is None else f"{row.parameters:,}",
            "–" if row.size is None else f"{row.size / 1000:,.1f}",
            "–" if row.difference is None else f"{row.difference:.1e}",
            *(_figure(row.metrics.get(name), name) for name in _figures(rows)),
            *(_time(row.seconds.get(count)) for count in rows[-1].seconds),
        ]
        for row in rows
    ]


def _figures(rows: list[Row]) -> list[str]:
    known = rows[-1].metrics
    # RMSE says what the angular error says, in other units.
    left_out = "rmse" if "angular_error" in known else ""
    return [name for name in _FIGURES if name in known and name != left_out]


def _heading(name: str) -> str:
    return COLUMNS[name][0]


def _figure(value: float | None, name: str) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    form = COLUMNS[name][1]
    return f"{100 * value:.2f}" if form == "percent" else format(value, form)


def _time(seconds: float | None) -> str:
    return "–" if seconds is None else f"{1e3 * seconds:.3f}"
