"""The marks of a summary: teachers and students that are no better than a constant, or too sure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

KEY = "against_constant"
"""The key of a judgement in the rows of teacher and students."""


def marks_of(
    seeds: Sequence[int], rows: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[dict[str, Any]]:
    """Return a mark for each teacher and student whose judgement has a problem or a note.

    Args:
        seeds: The seeds.
        rows: The rows of the teacher and of each student, one a seed.

    Returns:
        ``{"name", "seed", "problem"}``, or ``"note"`` in place of the problem.
    """
    found = []
    for name, own in rows.items():
        for seed, row in zip(seeds, own, strict=True):
            judged = row.get(KEY) or {}
            for kind in ("problem", "note"):
                if kind in judged:
                    found.append({"name": name, "seed": seed, kind: judged[kind]})
    return found


def mark_sentences(summary: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each teacher and student that has marks, problems first."""
    if not summary.get("marks"):
        return []
    names = ["teacher", *summary["students"]]
    count, sentences = len(summary["seeds"]), []
    for kind in ("problem", "note"):
        for name in names:
            own = [mark for mark in summary["marks"] if mark["name"] == name]
            own = [mark for mark in own if kind in mark]
            if own:
                which = f", in {len(own)} of {count} seeds," if count > 1 else ""
                who = "the teacher" if name == "teacher" else name
                sentences.append(f"{who}{which} is {own[0][kind]}.")
    return sentences
