"""The table of figures as text: its headings, and the cells of teacher and students.

The terminal and the page show these cells for one run, and ``xcl compare`` for several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from extracurricular.evaluation.entries import gap_text, is_imbalanced
from extracurricular.evaluation.summary import Parts
from extracurricular.evaluation.targets import SHOWN, targets_of
from extracurricular.evaluation.words import (
    Words,
    amount_text,
    count_text,
    figure_text,
    known,
    small,
)

COST = "training multiply-adds"
"""Heading of the multiply-adds of a training, of which 1 G is 10⁹."""


@dataclass(frozen=True)
class Cell:
    """A cell of the table: its text, and whether it is the best of its column."""

    text: str
    best: bool = False


def headings(shown: Sequence[Words], cost: bool = True) -> list[str]:
    """Return the headings of :func:`row`."""
    return [
        "parameters",
        *([COST] if cost else []),
        *(words.heading for words in shown),
        "gap closed",
    ]


def row(
    entry: Mapping[str, Any], shown: Sequence[Words], reference: bool, cost: bool = True
) -> list[str]:
    """Return the cells of a student or the teacher.

    Args:
        entry: What the summary says of it.
        shown: The figures that the table shows.
        reference: Whether it is the student that the gap is measured from.
        cost: Whether the multiply-adds of its training are among them.
    """
    figures = entry["metrics"]
    return [
        count_text(entry["parameters"]),
        *([amount_text(entry.get("multiply_adds"))] if cost else []),
        *(figure_text(words, figures.get(words.name)) for words in shown),
        "reference" if reference else gap_text(entry),
    ]


def table(summary: Mapping[str, Any], cost: bool = True) -> tuple[list[str], list[list[Cell]]]:
    """Return the table of a run: its headings, and a row for teacher and students.

    Args:
        summary: ``summary.json``.
        cost: Whether it has the multiply-adds of each training.
    """
    students, parts = summary["students"], Parts.of(summary)
    names = {name for entry in students.values() for name in entry["metrics"]}
    shown = small(names, imbalanced=is_imbalanced(summary))
    none: set[str] = set()
    best = [*([none] * (2 if cost else 1)), *(_best(students, words) for words in shown), none]
    rows = [[Cell("teacher"), *map(Cell, row(summary["teacher"], shown, False, cost))]]
    for name, entry in students.items():
        texts = row(entry, shown, name == parts.reference, cost)
        marked = [Cell(text, name in first) for text, first in zip(texts, best, strict=True)]
        rows.append([Cell(name), *marked])
    return ["", *headings(shown, cost)], rows


def targets_table(summary: Mapping[str, Any]) -> tuple[list[str], list[list[Cell]]]:
    """Return the table of each target's figures; without rows where there is one target.

    A row is a target and the teacher or a student; the name of the target stands in its first row.
    """
    students = summary["students"]
    entries = {"teacher": summary["teacher"], **students}
    shown, rows = known(SHOWN), []
    for target in targets_of(summary["teacher"]):
        own = {k: {"metrics": targets_of(e).get(target, {})} for k, e in entries.items()}
        judged = {name: own[name] for name in students}
        best = [_best(judged, words) for words in shown]
        for place, (name, entry) in enumerate(own.items()):
            texts = [figure_text(words, entry["metrics"].get(words.name)) for words in shown]
            marked = [Cell(text, name in first) for text, first in zip(texts, best, strict=True)]
            rows.append([Cell("" if place else target), Cell(name), *marked])
    return ["target", "", *(words.heading for words in shown)], rows


def table_note(summary: Mapping[str, Any]) -> str | None:
    """Return the meaning of the table's signs; None for a single seed, which needs none."""
    count = len(summary["seeds"])
    return f"mean ± standard deviation over {count} seeds" if count > 1 else None


def cost_note(summary: Mapping[str, Any]) -> str | None:
    """Return the multiply-adds of the trainings, for a table that has no room for them.

    None where none were counted.
    """
    entries = {"teacher": summary["teacher"], **summary["students"]}
    if all(entry.get("multiply_adds") is None for entry in entries.values()):
        return None
    texts = (f"{name} {amount_text(e.get('multiply_adds'))}" for name, e in entries.items())
    return f"{COST}: {', '.join(texts)}"


def best_of(figures: Mapping[str, Any], words: Words) -> set[str]:
    """Return the best students of a column: none where there is nothing to compare.

    Students whose figures are equal are all best, unless that is everybody.

    Args:
        figures: The figure of each student as the summary has it; None where it has none.
        words: The words for the figure.
    """
    means = {k: v["mean"] for k, v in figures.items() if v is not None and v["mean"] is not None}
    if words.better == "neither" or len(set(means.values())) < 2:
        return set()
    best = (max if words.better == "higher" else min)(means.values())
    return {name for name, mean in means.items() if mean == best}


def _best(students: Mapping[str, Any], words: Words) -> set[str]:
    return best_of({k: e["metrics"].get(words.name) for k, e in students.items()}, words)
