"""The section on error against the cost of exported students, with the limits of their target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from extracurricular.evaluation.front import Point, efficient, over, read
from extracurricular.evaluation.words import WORDS, Words, amount_text
from extracurricular.report.collect import Report
from extracurricular.report.figures import Axis, Guides, Line, chart, short_count
from extracurricular.report.sections import Figure

_ROLES = {"float32": "s1", "int8": "s0"}
# The dot of the best student has a ring: a larger dot behind it.
_RING, _DOT = 130.0, 46.0


@dataclass(frozen=True)
class Cell:
    """A cell of the table: its text, and whether it is the best student's, or over a limit."""

    text: str
    best: bool = False
    over: bool = False


def table(report: Report) -> tuple[list[str], list[list[Cell]], str]:
    """Return headings, rows and a note of the table of exported students, the smallest first."""
    if report.front is None:
        return [], [], ""
    front, words = report.front, WORDS[report.front["measure"]]
    split = report.summary["recipe"]["evaluation"]["split"]
    headings = ["", "validation", split, "ms", "bytes", "multiply-adds", "parameters"]
    rows = []
    for one in sorted(_points(report), key=lambda one: one.bytes):
        chosen = _is_best(report, one)
        beyond = over(one, front["limit"])
        costs = {cost: getattr(one, cost) for cost in ("ms", "bytes", "multiply_adds")}
        rows.append(
            [
                Cell(one.name, chosen),
                Cell(words.number(one.validation), chosen),
                Cell(words.number(one.error), chosen),
                *(Cell(amount_text(v), chosen, cost in beyond) for cost, v in costs.items()),
                Cell(amount_text(one.parameters), chosen),
            ]
        )
    count = len(report.summary["seeds"])
    seeds = f"{count} seeds" if count > 1 else "one seed"
    note = (
        "The student that is best on validation examples within the limits is bold"
        + ("; costs over a limit are struck through" if front["limit"] else "")
        + f". Errors ({words.label}) are means over {seeds}. Times are medians for one example "
        f"of the ONNX file on one thread of {front['cpu']}; bytes are those of the file without "
        "its metadata."
    )
    return headings, rows, note


def figures(report: Report) -> Iterator[Figure]:
    """Yield error against time, bytes and multiply-adds of the exported students."""
    if report.front is None or not report.front["points"]:
        return
    words = WORDS[report.front["measure"]]
    for cost, title, axis in (
        ("ms", "Error against time", Axis("milliseconds for one example", log=True)),
        ("bytes", "Error against bytes", Axis("bytes of the file", log=True, form=short_count)),
        ("multiply_adds", "Error against multiply-adds",
         Axis("multiply-adds for one example", log=True, form=short_count)),
    ):  # fmt: skip
        found = [one for one in _points(report) if getattr(one, cost) is not None]
        if found:
            yield _figure(report, found, cost, title, axis, words)


def _figure(
    report: Report, points: list[Point], cost: str, title: str, axis: Axis, words: Words
) -> Figure:
    assert report.front is not None
    limit = report.front["limit"].get(cost)
    lines, told = [], []
    for precision, role in _ROLES.items():
        some = [one for one in points if one.precision == precision]
        if not some:
            continue
        lines.append(_line(role, efficient(some, cost), cost, words, "line"))
        ringed = [one for one in some if _is_best(report, one)]
        if ringed:
            lines.append(_line("ink", ringed, cost, words, "dots", _RING))
        lines.append(_line(role, some, cost, words, "dots", _DOT))
        told += [
            f"{one.name} {words.number(one.error)} at {getattr(one, cost):,.3g}" for one in some
        ]
    values = [float(getattr(one, cost)) for one in points] + ([limit] if limit else [])
    limits = (min(values) / 1.5, max(values) * 1.5)
    text = "Lower and further left is better. A line joins the students that none beats in both."
    if limit:
        text += f" The dashed line is the limit, {limit:,g}; what is right of it is too costly."
    if report.front["best"] is not None:
        text += " The ring is around the best on validation examples within the limits."
    return Figure(
        title,
        chart(
            f"front-{cost.replace('_', '-')}",
            f"{title}: {'; '.join(told)}.",
            lines,
            Axis(axis.label, True, limits, axis.form),
            Axis(words.label),
            Guides(x=(limit,) if limit else ()),
        ),
        [(role, precision) for precision, role in _ROLES.items()
         if any(one.precision == precision for one in points)],
        text,
    )  # fmt: skip


def _line(
    role: str, points: list[Point], cost: str, words: Words, style: str, size: float = 0.0
) -> Line:
    x = np.array([float(getattr(one, cost)) for one in points])
    y = np.array([words.scale * one.error for one in points])
    return Line(role, x, y, style=style, size=np.full(len(points), size) if size else None)


def _points(report: Report) -> list[Point]:
    assert report.front is not None
    return [read(one) for one in report.front["points"]]


def _is_best(report: Report, point: Point) -> bool:
    assert report.front is not None
    return (point.student, point.precision) == (report.front["best"], report.front["precision"])
