"""Put the figures of all seeds together: ``summary.json``, and the sentences of the verdict."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from extracurricular.evaluation.advice import advice
from extracurricular.evaluation.calibrated import calibration_sentences
from extracurricular.evaluation.classes import absent_notes, imbalanced
from extracurricular.evaluation.entries import error_name as error_name
from extracurricular.evaluation.entries import gap_text as gap_text
from extracurricular.evaluation.entries import interval as interval
from extracurricular.evaluation.entries import mean_error as mean_error
from extracurricular.evaluation.entries import measure_of
from extracurricular.evaluation.entries import seed_errors as seed_errors
from extracurricular.evaluation.labels import over_seeds
from extracurricular.evaluation.marks import mark_sentences
from extracurricular.evaluation.metrics import error_of, gap_closed
from extracurricular.evaluation.verdict import (
    Sentence,
    against_plain,
    against_reference,
    from_labels,
    of_balance,
)
from extracurricular.evaluation.words import BALANCED, amount_text, error_measure

SCHEMA = 1

# The verdict has a sentence for each of so many students; of more, for the subject alone.
_MOST_TOLD = 3
# Costs that differ by less count as equal.
_SAME = 1.02


@dataclass(frozen=True)
class Parts:
    """The parts that students play in the comparison, as the recipe names them.

    Args:
        reference: The student that the gap is measured from; None where there is none.
        plain: The student without a teacher that errors are compared with; None where there is
            none.
        subject: The student that the verdict is about; None where there is none.
    """

    reference: str | None = None
    plain: str | None = None
    subject: str | None = None

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> Parts:
        """Read the parts from a summary; a student that it does not have plays none."""
        recipe, students = summary["recipe"], summary["students"]

        def named(part: str) -> str | None:
            name = recipe.get(part)
            return name if name in students else None

        return cls(named("reference"), named("plain"), named("subject"))

    @property
    def named(self) -> list[str]:
        """The students that play a part: the plain one, the reference, the subject."""
        names = (self.plain, self.reference, self.subject)
        return list(dict.fromkeys(name for name in names if name is not None))


def summarise(
    recipe: dict[str, Any],
    task: str,
    seeds: list[int],
    teacher: list[dict[str, Any]],
    students: dict[str, list[dict[str, Any]]],
    counts: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Make the summary.

    Args:
        recipe: The recipe as plain values.
        task: ``classification``, ``regression`` or ``multilabel``.
        seeds: The seeds.
        teacher: For each seed ``{"metrics": {…}, "steps", "seconds", "parameters"}``; the last is
            None for a teacher that is made of no countable numbers. Several real targets have their
            figures by name under ``targets``, several labels under ``labels``, classes under
            ``classes``; ``without`` has what could not be computed, and why. ``calibration`` has
            the numbers that were fitted (``fitted``), and ``figures``.
        students: The same for each student; maybe with ``mastery``, as it was measured last, and
            ``chosen``, the candidate that it became. ``multiply_adds`` of a training may be missing
            or None, where they are unknown.
        counts: Number of training examples of each class by name; None for other tasks, or where
            they are unknown.

    Returns:
        The layout of ``summary.json``. ``std`` is the sample standard deviation over seeds (0 for
        one seed); a figure that is not finite is null, and one that cannot be computed is absent,
        with the reason under ``without``. ``measure`` is the error that gaps are measured in, and
        ``balance`` the training examples by class, and whether classes are imbalanced.
    """
    summary: dict[str, Any] = {
        "schema": SCHEMA,
        "recipe": recipe,
        "task": task,
        "seeds": list(seeds),
        "teacher": _entry(teacher),
        "students": {name: _entry(rows) for name, rows in students.items()},
    }
    if counts is not None:
        summary["balance"] = {"imbalanced": imbalanced(counts), "train": dict(counts)}
    every = [rows[0]["metrics"] for rows in (teacher, *students.values())]
    names = {name for figures in every for name in figures}
    balanced = counts is not None and imbalanced(counts) and "balanced_accuracy" in names
    summary["measure"] = measure = BALANCED if balanced else error_measure(names)
    reference = Parts.of(summary).reference
    if reference is not None:
        start, end = _errors(students[reference], measure), _errors(teacher, measure)
        for name, rows in students.items():
            gap = gap_closed(start, _errors(rows, measure), end)
            summary["students"][name]["gap_closed"] = gap
    return summary


def _errors(rows: list[dict[str, Any]], measure: str) -> list[float]:
    return [error_of(row["metrics"], measure) for row in rows]


def _over_seeds(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Return each figure's mean and deviation over seeds, and its values.

    A figure that one of the seeds lacks, as its split has other examples, is left out.
    """
    figures = {}
    for name in rows[0]:
        values = [row[name] for row in rows if name in row]
        if len(values) < len(rows):
            continue
        finite = all(math.isfinite(value) for value in values)
        figures[name] = {
            "mean": statistics.fmean(values) if finite else None,
            "std": (statistics.stdev(values) if len(values) > 1 else 0.0) if finite else None,
            "per_seed": [value if math.isfinite(value) else None for value in values],
        }
    return figures


def _entry(rows: list[dict[str, Any]]) -> dict[str, Any]:
    figures = _over_seeds([row["metrics"] for row in rows])
    targets = {
        name: _over_seeds([row["targets"][name] for row in rows])
        for name in rows[0].get("targets") or ()
    }
    measured = [row["mastery"] for row in rows if row.get("mastery")]
    mastery = {key: statistics.fmean(one[key] for one in measured) for key in (measured or [{}])[0]}
    spent = [row.get("multiply_adds") for row in rows]
    counted = [amount for amount in spent if amount is not None]
    labels = over_seeds([row.get("labels") or {} for row in rows])
    classes = over_seeds([row.get("classes") or {} for row in rows], partly=True)
    calibrated = [row["calibration"] for row in rows if row.get("calibration")]
    without = {k: why for row in rows for k, why in (row.get("without") or {}).items()}
    return {
        **({"labels": labels} if labels else {}),
        **({"classes": classes} if classes else {}),
        **({"without": without} if without else {}),
        **({"mastery": mastery} if mastery else {}),
        **({"calibration": _calibration(calibrated)} if calibrated else {}),
        **({"chosen": [row["chosen"] for row in rows]} if rows[0].get("chosen") else {}),
        "steps": rows[0]["steps"],
        # Multiply-adds of a training; a share that follows mastery may differ between seeds.
        "multiply_adds": round(statistics.fmean(counted)) if None not in spent else None,
        "seconds": round(statistics.fmean(row["seconds"] for row in rows), 3),
        "parameters": rows[0]["parameters"],
        "metrics": figures,
        **({"targets": targets} if targets else {}),
        "gap_closed": None,
    }


def _calibration(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "fitted": [row["fitted"] for row in rows],
        "figures": _over_seeds([row["figures"] for row in rows]),
    }


# The verdict


def sentences(summary: Mapping[str, Any]) -> list[Sentence]:
    """Return the verdict: what the table shows, and what makes it less than it seems."""
    students, parts, measure = summary["students"], Parts.of(summary), measure_of(summary)
    judged = judged_students(summary)
    found: list[Sentence | None] = []
    for other, compare in ((parts.reference, against_reference), (parts.plain, against_plain)):
        if other is not None:
            rest = [name for name in judged if name not in (other, parts.plain)]
            found += [compare(n, students[n], other, students[other], measure) for n in rest]
    if parts.reference is not None:
        found += [from_labels(n, students[n], measure) for n in labelled_students(summary)]
    absent = summary.get("teacher", {}).get("absent")
    if absent is not None:
        found.append(Sentence(((f"The teacher has no figures: {absent}.", False),)))
    elif parts.reference is not None and students[parts.reference]["gap_closed"] is None:
        text = f"There is no gap to close: the teacher is not better than {parts.reference}."
        found.insert(0, Sentence(((text, False),)))
    return [sentence for sentence in found if sentence is not None] + _notes(summary)


def judged_students(summary: Mapping[str, Any]) -> list[str]:
    """Return the students that the verdict judges, the subject first.

    They are the subject, and the others that learn from the teacher and are neither the reference
    nor the plain one, where these are few: a sentence for each of many would be read by nobody, and
    to choose some by their test error would be to select on test data. The table has them all.
    """
    parts = Parts.of(summary)
    apart = {parts.reference, parts.plain, *_from_labels(summary)}
    names = [name for name in summary["students"] if name not in apart]
    subject = [] if parts.subject in (None, parts.plain) else [str(parts.subject)]
    others = [name for name in names if name not in subject]
    return subject + (others if len(subject + others) <= _MOST_TOLD else [])


def labelled_students(summary: Mapping[str, Any]) -> list[str]:
    """Return the students that learn from labels and play no part, where these are few."""
    named = Parts.of(summary).named
    found = [name for name in _from_labels(summary) if name not in named]
    return found if len(found) <= _MOST_TOLD else []


def _from_labels(summary: Mapping[str, Any]) -> list[str]:
    recipe = summary["recipe"].get("students") or {}
    learns = {name: (recipe.get(name) or {}).get("learns_from") for name in summary["students"]}
    return [name for name, source in learns.items() if source == "labels"]


def _costs(summary: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each student whose steps were set by the cost of another."""
    found = []
    for name, student in summary["recipe"].get("students", {}).items():
        if student.get("cost") is not None:
            other, unit = student["cost"]["of"], student["cost"]["unit"]
            own, theirs = (summary["students"][one] for one in (name, other))
            steps = f"{own['steps']:,} steps"
            spent, limit = own.get("multiply_adds"), theirs.get("multiply_adds")
            if unit == "steps" or spent is None or limit is None:
                found.append(f"{name} took as many steps as {other}: {own['steps']:,}.")
            elif spent <= _SAME * limit:
                found.append(
                    f"{name} took as many multiply-adds as {other}: {steps}, {amount_text(spent)}."
                )
            else:
                found.append(
                    f"{name} was given the most multiply-adds that {other} may take: {steps}, "
                    f"{amount_text(spent)}; {other} took {amount_text(limit)}."
                )
    return found


def _choice(summary: Mapping[str, Any], name: str) -> str:
    """Return a sentence on a student that was chosen among candidates."""
    entry = summary["students"][name]
    among = ", ".join(summary["recipe"]["students"][name]["choose"]["among"])
    counts, seeds = Counter(entry["chosen"]), len(entry["chosen"])
    which = " and ".join(f"{one} in {count} of {seeds} seeds" for one, count in counts.items())
    if len(counts) == 1:
        which = entry["chosen"][0] + (" in every seed" if seeds > 1 else "")
    return (
        f"{name} is {which}, chosen among {among} by held-out KL; its {entry['steps']:,} steps are "
        "those of all candidates."
    )


def _told_calibrated(summary: Mapping[str, Any]) -> list[str]:
    """Return the calibrated students that have a sentence: all of few, or those judged of many."""
    found = [name for name, entry in summary["students"].items() if entry.get("calibration")]
    judged = judged_students(summary)
    return found if len(found) <= _MOST_TOLD else [name for name in found if name in judged]


def _notes(summary: Mapping[str, Any]) -> list[Sentence]:
    texts = mark_sentences(summary)
    fitted = fitted_students(summary)
    steps = {n: entry["steps"] for n, entry in summary["students"].items() if n not in fitted}
    if len(set(steps.values())) > 1:
        each = ", ".join(f"{name} {count:,}" for name, count in steps.items())
        texts.append(f"the students had unequal budgets of steps: {each}.")
    texts += [
        f"{name} is no network: {kind} fitted to {draws:,} draws."
        for name, (kind, draws) in fitted.items()
    ]
    texts += _costs(summary)
    for name, entry in summary["students"].items():
        if entry.get("chosen"):
            texts.append(_choice(summary, name))
    if summary["recipe"]["evaluation"]["split"] != "test":
        texts.append("these are figures on the validation split.")
    texts += calibration_sentences(summary, _told_calibrated(summary))
    parts = Parts.of(summary)
    balance = of_balance(summary)
    texts += [] if balance is None else [balance]
    texts += _without(summary)
    texts += advice(summary, parts.plain, parts.reference)
    return [Sentence(((text, False),), note=True) for text in texts]


def fitted_students(summary: Mapping[str, Any]) -> dict[str, tuple[str, int]]:
    """Return the name of the estimator, and its draws, of each student that is no network."""
    sections = summary["recipe"].get("students") or {}
    known = {
        name: (sections.get(name) or {}).get("estimator") for name in summary.get("students", {})
    }
    return {
        name: (spec if isinstance(spec, str) else str(next(iter(spec))), _draws(sections[name]))
        for name, spec in known.items()
        if spec
    }


def _draws(section: Mapping[str, Any]) -> int:
    return int(section.get("draws") or 0)


def _without(summary: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each figure over all examples that could not be computed."""
    why = {k: v for e in summary["students"].values() for k, v in (e.get("without") or {}).items()}
    return absent_notes(why)
