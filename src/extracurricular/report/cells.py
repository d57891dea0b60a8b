"""The table of figures as text: its headings, and the cells of teacher and students.

The terminal and the page show these cells for one run, and ``xcl compare`` for several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from extracurricular.evaluation.summary import Parts, gap_text
from extracurricular.evaluation.words import Words, count_text, figure_text, small


@dataclass(frozen=True)
class Cell:
    """A cell of the table: its text, and whether it is the best of its column."""

    text: str
    best: bool = False


def headings(shown: Sequence[Words]) -> list[str]:
    """Return the headings of :func:`row`."""
    return ["parameters", *(words.heading for words in shown), "gap closed"]


def row(entry: Mapping[str, Any], shown: Sequence[Words], reference: bool) -> list[str]:
    """Return the cells of a student or the teacher.

    Args:
        entry: What the summary says of it.
        shown: The figures that the table shows.
        reference: Whether it is the student that the gap is measured from.
    """
    figures = entry["metrics"]
    return [
        count_text(entry["parameters"]),
        *(figure_text(words, figures.get(words.name)) for words in shown),
        "reference" if reference else gap_text(entry),
    ]


def table(summary: Mapping[str, Any]) -> tuple[list[str], list[list[Cell]]]:
    """Return the table of a run: its headings, and a row for teacher and students."""
    students, parts = summary["students"], Parts.of(summary)
    shown = small({name for entry in students.values() for name in entry["metrics"]})
    best = [None, *(_best(students, words) for words in shown), None]
    rows = [[Cell("teacher"), *map(Cell, row(summary["teacher"], shown, reference=False))]]
    for name, entry in students.items():
        texts = row(entry, shown, reference=name == parts.reference)
        marked = [Cell(text, first == name) for text, first in zip(texts, best, strict=True)]
        rows.append([Cell(name), *marked])
    return ["", *headings(shown)], rows


def table_note(summary: Mapping[str, Any]) -> str | None:
    """Return the meaning of the table's signs; None for a single seed, which needs none."""
    count = len(summary["seeds"])
    return f"mean ± standard deviation over {count} seeds" if count > 1 else None


def _best(students: Mapping[str, Any], words: Words) -> str | None:
    """Return the best student of a column; None where there is nothing to compare."""
    found = {k: e["metrics"].get(words.name, {"mean": None})["mean"] for k, e in students.items()}
    means = {name: mean for name, mean in found.items() if mean is not None}
    if words.better == "neither" or len(means) < 2:
        return None
    return (max if words.better == "higher" else min)(means, key=lambda name: means[name])
