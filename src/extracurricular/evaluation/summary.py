"""Put the figures of all seeds together: ``summary.json``, and the sentences of the verdict."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from extracurricular.evaluation.advice import advice
from extracurricular.evaluation.labels import over_seeds
from extracurricular.evaluation.marks import mark_sentences
from extracurricular.evaluation.metrics import error_of, gap_closed
from extracurricular.evaluation.words import ABSENT, WORDS, amount_text, error_measure

SCHEMA = 1

# The verdict has a sentence for each of so many students; of more, for the subject and the best.
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
) -> dict[str, Any]:
    """Make the summary.

    Args:
        recipe: The recipe as plain values.
        task: ``classification``, ``regression`` or ``multilabel``.
        seeds: The seeds.
        teacher: For each seed ``{"metrics": {…}, "steps", "seconds", "parameters"}``; the last is
            None for a teacher that is made of no countable numbers. Several real targets have their
            figures by name under ``targets``, several labels under ``labels``.
        students: The same for each student; maybe with ``mastery``, as it was measured last, and
            ``chosen``, the candidate that it became. ``multiply_adds`` of a training may be missing
            or None, where they are unknown.

    Returns:
        The layout of ``summary.json``. ``std`` is the sample standard deviation over seeds (0 for
        one seed); a figure that is not finite is null.
    """
    summary: dict[str, Any] = {
        "schema": SCHEMA,
        "recipe": recipe,
        "task": task,
        "seeds": list(seeds),
        "teacher": _entry(teacher),
        "students": {name: _entry(rows) for name, rows in students.items()},
    }
    reference = Parts.of(summary).reference
    if reference is not None:
        start, end = _errors(students[reference]), _errors(teacher)
        for name, rows in students.items():
            summary["students"][name]["gap_closed"] = gap_closed(start, _errors(rows), end)
    return summary


def _errors(rows: list[dict[str, Any]]) -> list[float]:
    return [error_of(row["metrics"]) for row in rows]


def _over_seeds(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Return each figure's mean and deviation over seeds, and its values."""
    figures = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
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
    return {
        **({"labels": labels} if labels else {}),
        **({"mastery": mastery} if mastery else {}),
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


# What an entry of the summary says


def error_name(entry: Mapping[str, Any]) -> str:
    """Return the title of the error that gaps are measured in."""
    return WORDS[error_measure(entry["metrics"])].title


def mean_error(entry: Mapping[str, Any]) -> float | None:
    """Return the mean over seeds of that error; None where any figure is not finite."""
    means = {name: figure["mean"] for name, figure in entry["metrics"].items()}
    return None if None in means.values() else error_of(means)


def seed_errors(entry: Mapping[str, Any]) -> list[float]:
    """Return that error for each seed; an empty list where one of them is not finite."""
    figures = entry["metrics"]
    measured = error_measure(figures)
    source = measured if measured in figures else "accuracy"
    values = figures[source]["per_seed"]
    return [] if None in values else [error_of({source: value}) for value in values]


def gap_text(entry: Mapping[str, Any]) -> str:
    """Return the part of the gap that a student closes, in percent, or a dash."""
    gap = entry["gap_closed"]
    if gap is None:
        return ABSENT
    # Rounded first: a gap of -0.2 % is 0 %, not -0 %.
    return f"{round(100 * gap['value']) + 0:d} %"


def interval(gap: Mapping[str, Any]) -> str:
    """Return the interval of the part of the gap closed, as text."""
    low, high = gap["ci95"]
    if low is None and high is None:
        return "unbounded"
    start = "-∞" if low is None else f"{100 * low:.0f}"
    return f"{start} to {'∞' if high is None else f'{100 * high:.0f}'} %"


# The verdict


@dataclass(frozen=True)
class Sentence:
    """A sentence of the verdict.

    Args:
        parts: Its words in order, and whether they matter most.
        note: Whether it says what makes the figures less than they seem.
    """

    parts: tuple[tuple[str, bool], ...]
    note: bool = False

    @property
    def text(self) -> str:
        """The plain sentence."""
        return "".join(text for text, _ in self.parts)


def sentences(summary: Mapping[str, Any]) -> list[Sentence]:
    """Return the verdict: what the table shows, and what makes it less than it seems."""
    students, parts = summary["students"], Parts.of(summary)
    judged = judged_students(summary)
    found = []
    if parts.reference is not None:
        for name, chosen in judged:
            if students[name]["gap_closed"] is not None:
                found.append(_gap(name, chosen, students[name], parts.reference))
    if parts.plain is not None:
        for name, _ in judged:
            sentence = _against_plain(name, students[name], parts.plain, students[parts.plain])
            found += [] if sentence is None else [sentence]
    absent = summary.get("teacher", {}).get("absent")
    if absent is not None:
        found.append(Sentence(((f"The teacher has no figures: {absent}.", False),)))
    elif parts.reference is not None and students[parts.reference]["gap_closed"] is None:
        text = f"There is no gap to close: the teacher is not better than {parts.reference}."
        found.append(Sentence(((text, False),)))
    return found + _notes(summary)


def judged_students(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the students that the verdict judges, and how each was chosen, as part of a sentence.

    They are all but the reference and the plain one, the subject first. Of more than a few they are
    the subject and the one of least error.
    """
    students, parts = summary["students"], Parts.of(summary)
    names = [name for name in students if name not in (parts.reference, parts.plain)]
    names.sort(key=lambda name: name != parts.subject)
    if len(names) <= _MOST_TOLD:
        return [(name, "") for name in names]
    # A sentence for each would be read by nobody; the table has them all.
    errors = {name: mean_error(students[name]) for name in names}
    known = {name: error for name, error in errors.items() if error is not None}
    best = min(known, key=lambda name: known[name]) if known else None
    chosen = {name: "" for name in names[:1] if name == parts.subject}
    if best is not None:
        chosen[best] = f", the best of {len(names)} here,"
    return list(chosen.items())


def _gap(name: str, chosen: str, entry: Mapping[str, Any], reference: str) -> Sentence:
    # A figure without its interval invites too much trust.
    return Sentence(
        (
            (name, True),
            (f"{chosen} closes ", False),
            (gap_text(entry), True),
            (f" of the gap that {reference} leaves to the teacher ", False),
            (f"(95 % interval over seeds: {interval(entry['gap_closed'])}).", False),
        )
    )


def _against_plain(
    name: str, entry: Mapping[str, Any], plain: str, other: Mapping[str, Any]
) -> Sentence | None:
    error, theirs = mean_error(entry), mean_error(other)
    if error is None or not theirs:
        return None
    side = "below" if error <= theirs else "above"
    return Sentence(
        (
            (f"The {error_name(entry)} of ", False),
            (name, True),
            (" is ", False),
            (f"{100 * abs(1 - error / theirs):.0f} %", True),
            (f" {side} that of {plain}.", False),
        )
    )


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


def _notes(summary: Mapping[str, Any]) -> list[Sentence]:
    texts = mark_sentences(summary)
    steps = {name: entry["steps"] for name, entry in summary["students"].items()}
    if len(set(steps.values())) > 1:
        each = ", ".join(f"{name} {count:,}" for name, count in steps.items())
        texts.append(f"the students had unequal budgets of steps: {each}.")
    texts += _costs(summary)
    for name, entry in summary["students"].items():
        if entry.get("chosen"):
            texts.append(_choice(summary, name))
    if summary["recipe"]["evaluation"]["split"] != "test":
        texts.append("these are figures on the validation split.")
    parts = Parts.of(summary)
    texts += advice(summary, parts.plain, parts.reference)
    return [Sentence(((text, False),), note=True) for text in texts]
