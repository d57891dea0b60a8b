"""Say where a comparison has nothing to show, and what would likely help.

Two things are looked at: whether the teacher is better than a student from labels alone, in error
and in NLL; and how well the students master the stored examples (docs/method.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extracurricular.evaluation.metrics import error_of
from extracurricular.evaluation.words import WORDS, error_measure, figure_text

# Where extended draws helped in 38 of 40 trainings, and where in 23 of 53: figures of a study of
# tables, digits and small images (docs/method.md).
MASTERED, NOT_YET = 0.4, 0.2


def advice(summary: Mapping[str, Any], plain: str | None, reference: str | None) -> list[str]:
    """Return sentences for the notes of the verdict.

    Args:
        summary: Content of ``summary.json``.
        plain: The student that learns from labels, if there is one.
        reference: The student that the gap is measured from, if there is one.
    """
    return [*_teacher(summary, plain), *_mastery(summary, reference)]


def _teacher(summary: Mapping[str, Any], plain: str | None) -> list[str]:
    if plain is None:
        return []
    teacher, student = summary["teacher"], summary["students"][plain]
    measured = error_measure(teacher["metrics"])
    name = measured if measured in teacher["metrics"] else "accuracy"
    found = []
    for figure in (name, "nll"):
        mine, theirs = (_mean(one, figure) for one in (teacher, student))
        if mine is None or theirs is None:
            continue
        words = WORDS[figure]
        if mine <= theirs if words.better == "higher" else mine >= theirs:
            found.append(
                f"the teacher has nothing to give in {words.title}: it has "
                f"{figure_text(words, mine)}, and {plain}, which learns from labels alone, "
                f"{figure_text(words, theirs)}."
            )
    return found


def _mastery(summary: Mapping[str, Any], reference: str | None) -> list[str]:
    students = summary["students"]
    known = {name: entry["mastery"] for name, entry in students.items() if entry.get("mastery")}
    found = []
    for name, measured in known.items():
        # Rounded first: a mastery of -0.001 is 0.00, not -0.00.
        m, share = round(measured["mastery"], 2) + 0.0, measured.get("share")
        if share is not None:
            found.append(_share(name, m, measured.get("se"), share))
        elif m >= MASTERED:
            found.append(
                f"{name} masters the stored examples (m = {m:.2f}): extended draws would very "
                "likely help."
            )
        elif m < NOT_YET:
            found.append(
                f"{name} has not mastered the stored examples (m = {m:.2f}): more steps would "
                "help, and extended draws would not be likely to."
            )
    watched = known.get(reference or "")
    if watched is not None and watched["mastery"] < NOT_YET:
        start = error_of(_means(students[reference]))
        for name, entry in students.items():
            if name in known or name == reference or not _extended(summary, name):
                continue
            if error_of(_means(entry)) > start:
                found.append(
                    f"{name} is behind {reference}, and {reference} has not mastered the stored "
                    f"examples (m = {watched['mastery']:.2f}): more steps or fewer extended draws "
                    "would help."
                )
    return found


def _share(name: str, mastery: float, error: float | None, share: float) -> str:
    m = f"m = {mastery:.2f}" + (f" ± {error:.2f}" if error is not None else "")
    if share == 0 and error is not None and mastery >= NOT_YET:
        return (
            f"{name} drew stored examples alone: whether it had mastered them early in its "
            f"training is not certain ({m}). More training examples, or a share of your own "
            "(share: {of: 0.5}), would decide it."
        )
    if share == 0:
        return (
            f"{name} drew stored examples alone: early in its training it had not mastered them "
            f"({m}), so extended draws would not have paid at this budget."
        )
    return (
        f"{name} took {100 * share:.0f} % of its draws from beyond the stored examples, as it "
        f"mastered these early ({m})."
    )


def _extended(summary: Mapping[str, Any], name: str) -> bool:
    """Return whether a student learns from the teacher on other draws than the stored examples."""
    student = summary["recipe"]["students"].get(name, {})
    from_teacher = student.get("learns_from", "teacher") == "teacher"
    return from_teacher and student.get("sampler") not in (["empirical"], "empirical", None)


def _mean(entry: Mapping[str, Any], figure: str) -> float | None:
    found: float | None = entry["metrics"].get(figure, {}).get("mean")
    return found


def _means(entry: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: figure["mean"]
        for name, figure in entry["metrics"].items()
        if figure["mean"] is not None
    }
