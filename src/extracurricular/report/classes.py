"""The figures of each class as tables, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extracurricular.evaluation.classes import class_rows, class_text, shown_classes
from extracurricular.evaluation.summary import Parts
from extracurricular.evaluation.words import ABSENT, WORDS
from extracurricular.report.cells import Cell, best_of

# Students beside the teacher in the table of recalls; of more, those that play a part.
_MOST_STUDENTS = 4


def recall_table(summary: Mapping[str, Any]) -> tuple[list[str], list[list[Cell]], str]:
    """Return headings, rows and a note of the table of each class's recall, in percent.

    It has no rows where the summary has no classes, as one from before they were measured.
    """
    entries = _entries(summary)
    first = next(iter(entries.values()), {})
    counts = (summary.get("balance") or {}).get("train") or {}
    words, rows = WORDS["recall"], []
    parts = Parts.of(summary)
    judge = entries.get(parts.subject or "") or first
    names, which = shown_classes(judge.get("classes") or {})
    for name in names:
        own = {key: (entry.get("classes") or {}).get(name, {}) for key, entry in entries.items()}
        recalls = {key: figures.get("recall") for key, figures in own.items()}
        best = best_of({key: found for key, found in recalls.items() if key != "teacher"}, words)
        support = next(iter(own.values())).get("support")
        trained = f"{counts[name]:,}" if name in counts else ABSENT
        texts = [Cell(class_text(words, found), key in best) for key, found in recalls.items()]
        rows.append([Cell(name), Cell(trained), Cell(class_text(_SUPPORT, support)), *texts])
    split = summary["recipe"].get("evaluation", {}).get("split", "test")
    told = f"recall, in percent: the share of a class's {split} examples that are right"
    if len(summary["seeds"]) > 1:
        told += f", mean ± standard deviation over {len(summary['seeds'])} seeds"
    headings = ["class", "train", split, *entries]
    told += f"; train and {split}: numbers of examples"
    return headings, rows, told + (f"; {which}" if which else "")


_SUPPORT = WORDS["support"]


def class_tables(summary: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return a title, headings and rows of the figures of each class, for teacher and students."""
    entries = {"teacher": summary["teacher"], **summary["students"]}
    return [
        (name, *class_rows(entry["classes"]))
        for name, entry in entries.items()
        if entry.get("classes")
    ]


def _entries(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    students = summary["students"]
    names = list(students) if len(students) <= _MOST_STUDENTS else Parts.of(summary).named
    entries = {"teacher": summary["teacher"], **{name: students[name] for name in names}}
    return {name: entry for name, entry in entries.items() if entry.get("classes")}
