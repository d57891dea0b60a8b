"""Say where a comparison has nothing to show, and what would likely help.

Two things are looked at: whether the teacher is better than a student from labels alone, in error
and in NLL; and how well the students master the stored examples (docs/method.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extracurricular.evaluation.entries import mean_error, mean_of, measure_of, shown_measure
from extracurricular.evaluation.verdict import with_unit
from extracurricular.evaluation.words import WORDS

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
    measured = shown_measure(measure_of(summary)).name
    name = "accuracy" if measured == "error_rate" else measured
    found = []
    for figure in (name, "nll"):
        mine, theirs = mean_of(teacher, figure), mean_of(student, figure)
        if mine is None or theirs is None:
            continue
        words = WORDS[figure]
        if mine <= theirs if words.better == "higher" else mine >= theirs:
            found.append(
                f"the teacher has nothing to give in {words.title}: it has "
                f"{with_unit(words, mine)}, and {plain}, which learns from labels alone, "
                f"{with_unit(words, theirs)}."
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
    return found + (_remedies(summary, reference, known) if reference is not None else [])


def _remedies(
    summary: Mapping[str, Any], reference: str, known: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Return what would likely help each student of extended draws that is behind the reference.

    Args:
        summary: Content of ``summary.json``.
        reference: The student that the gap is measured from.
        known: The mastery of each student for which it was measured.
    """
    students, measure = summary["students"], measure_of(summary)
    words = shown_measure(measure)
    start = mean_error(students[reference], measure)
    found = []
    for name, entry in students.items():
        error = mean_error(entry, measure)
        if name == reference or not _extended(summary, name) or error is None or start is None:
            continue
        if not _same_network(summary, name, reference):
            continue  # a smaller network is behind for another reason
        texts = [with_unit(words, mean_of(one, words.name)) for one in (entry, students[reference])]
        drew_some = known.get(name, {}).get("share") != 0
        if error > start and texts[0] != texts[1] and drew_some:
            found.append(f"{name} is behind {reference}, and {_why(reference, known)}")
    return found


def _why(reference: str, known: Mapping[str, Mapping[str, Any]]) -> str:
    if reference not in known:
        return (
            f"whether {reference} has mastered the stored examples was not measured; a run with "
            f"mastery: {{held_out: 0.1}} for {reference}, or with share: {{of: auto}}, tells "
            "whether extended draws can pay."
        )
    mastery = known[reference]["mastery"]
    m = f"(m = {round(mastery, 2) + 0.0:.2f})"
    if mastery < NOT_YET:
        return (
            f"{reference} has not mastered the stored examples {m}: more steps or fewer extended "
            "draws would help."
        )
    if mastery < MASTERED:
        return (
            f"{reference} masters the stored examples in part {m}: fewer extended draws, as with "
            "share: {of: auto}, are safer."
        )
    return (
        f"{reference} masters the stored examples {m}, where extended draws mostly help: these are "
        "likely too far from the data, so draws nearer to it, or more steps, would help."
    )


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


def _same_network(summary: Mapping[str, Any], name: str, other: str) -> bool:
    students = summary["recipe"].get("students") or {}
    networks = [students.get(one, {}).get("model") for one in (name, other)]
    return bool(networks[0] == networks[1])


def _extended(summary: Mapping[str, Any], name: str) -> bool:
    """Return whether a student learns from the teacher on other draws than the stored examples."""
    student = (summary["recipe"].get("students") or {}).get(name, {})
    from_teacher = student.get("learns_from", "teacher") == "teacher"
    chain = student.get("sampler")
    [first] = chain if isinstance(chain, list) and len(chain) == 1 else [chain]
    source = next(iter(first)) if isinstance(first, Mapping) and first else first
    return from_teacher and chain is not None and source not in ("empirical", "balanced")
