"""Several runs side by side: their figures, and the paired differences over seeds.

Two students of one seed saw the same data, started from the same weights if their networks are the
same, and were measured on the same examples. So the difference is taken seed by seed, which leaves
out the luck that they share, and its interval is that of a paired t-test.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from extracurricular.errors import RecipeError, XclError, known_names
from extracurricular.evaluation.entries import is_imbalanced
from extracurricular.evaluation.summary import Parts
from extracurricular.evaluation.words import WORDS, Words, small
from extracurricular.recipe.difference import differences

# Settings that explain no difference between results.
_LABELS = ("name", "about", "log", "device.accelerator")
# Figures by name of a target, label or class, which the JSON has too.
_APART = ("targets", "labels", "classes")


@dataclass(frozen=True)
class Difference:
    """The difference of a figure between two students, over the seeds that both have.

    Args:
        mean: Mean over the seeds of the first student's figure less the second's.
        low, high: 95 % interval; None from a single seed.
        seeds: Number of seeds.
    """

    mean: float
    low: float | None
    high: float | None
    seeds: int

    @property
    def certain(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low is not None and self.high is not None and self.low * self.high > 0


@dataclass(frozen=True)
class Row:
    """One student of one run.

    Args:
        run: The run's name here.
        student: The student's name, or ``teacher``.
        reference: Whether the gap of its run is measured from it.
        entry: Its entry of the summary.
        against: The student it is compared to, (run, student); None for none.
        differences: Differences by figure; empty where it is compared to none.
    """

    run: str
    student: str
    reference: bool
    entry: dict[str, Any]
    against: tuple[str, str] | None
    differences: dict[str, Difference]


@dataclass(frozen=True)
class Comparison:
    """The result of :func:`compare`.

    Args:
        task: ``classification``, ``regression`` or ``multilabel``.
        rows: Teachers and students of all runs, in order.
        changed: For each run but the first, the settings that differ: path, first, this.
        notes: Sentences to read before the differences.
        imbalanced: Whether the classes of some run are imbalanced.
    """

    task: str
    rows: list[Row]
    changed: dict[str, list[tuple[str, Any, Any]]]
    notes: list[str]
    imbalanced: bool = False


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> Difference | None:
    """Return the mean of ``a - b`` over seeds, with its 95 % interval of a paired t-test.

    Args:
        a, b: Figures by seed.

    Returns:
        The difference; None where no seed has both figures. The interval is
        mean ± t(0.975; n - 1) · s / √n with the sample standard deviation s of the n differences
        (Student 1908).
    """
    seeds = [seed for seed in a if seed in b]
    if not seeds:
        return None
    gaps = [a[seed] - b[seed] for seed in seeds]
    mean = statistics.fmean(gaps)
    if len(gaps) < 2:
        return Difference(mean, None, None, len(gaps))
    from scipy.stats import t

    half = float(t.ppf(0.975, len(gaps) - 1)) * statistics.stdev(gaps) / math.sqrt(len(gaps))
    return Difference(mean, mean - half, mean + half, len(gaps))


def labels(folders: Sequence[Path]) -> list[str]:
    """Return names for runs: that of the folder, or its path where two folders have one name."""
    names = [folder.resolve().name for folder in folders]
    return [
        name if names.count(name) == 1 else str(folder)
        for name, folder in zip(names, folders, strict=True)
    ]


def compare(runs: Mapping[str, Mapping[str, Any]], against: str | None = None) -> Comparison:
    """Put runs side by side.

    Args:
        runs: The content of ``summary.json`` by the run's name; the others are compared to the
            first.
        against: Student of the first run that every other student is compared to. Where None, each
            is compared to the student of the same name in the first run; a student of the first
            run itself to its reference, or to its first student where it has no reference. So is
            one of another run whose name the first lacks, if both have the same data, teacher and
            number of steps; else it is compared to the reference of its own run.

    Raises:
        XclError: The runs are of different tasks, or measured on different splits.
        RecipeError: The first run has no student ``against``.
    """
    first_name, first = next(iter(runs.items()))
    _check(runs)
    known = first["students"]
    if against is not None and against not in known:
        problem = f"is {against!r}, but {first_name} has no such student"
        raise RecipeError("--reference", f"{problem}; {known_names(against, known)}")
    same_data = {name: _is_same_data(first, run) for name, run in runs.items()}
    same_teacher = {name: _is_same_teacher(first, run) for name, run in runs.items()}
    rows = []
    for name, run in runs.items():
        rows.append(Row(name, "teacher", False, run["teacher"], None, {}))
        reference = Parts.of(run).reference
        for student, entry in run["students"].items():
            alike = same_data[name] and same_teacher[name]
            other = _other(runs, name, student, against, alike)
            if other is not None and same_data[other[0]] != same_data[name]:
                other = None
            found = {}
            if other is not None:
                figures = runs[other[0]]["students"][other[1]]
                fair = same_teacher[name] == same_teacher[other[0]]
                found = _differences((run, entry), (runs[other[0]], figures), fair)
            rows.append(Row(name, student, student == reference, entry, other, found))
    changed = {
        name: _settings(first["recipe"], run["recipe"])
        for name, run in runs.items()
        if name != first_name
    }
    found_all = Comparison(
        first["task"], rows, changed, [], imbalanced=any(map(is_imbalanced, runs.values()))
    )
    return replace(found_all, notes=_notes(runs, found_all, same_data, same_teacher))


def _other(
    runs: Mapping[str, Mapping[str, Any]],
    run: str,
    student: str,
    against: str | None,
    alike: bool,
) -> tuple[str, str] | None:
    """Return the student that another is compared to, (run, student); None for none.

    Args:
        runs: The summaries by name, the first one first.
        run, student: The student.
        against: The student of the first run that all are compared to, if one is named.
        alike: Whether its run has the data and the teacher of the first.
    """
    first = next(iter(runs))
    known = runs[first]["students"]
    home = against or Parts.of(runs[first]).reference or next(iter(known))
    if against is None and run != first and student not in known:
        # A student of its own name has nothing but the budget in common with one of another.
        if not alike or runs[run]["students"][student]["steps"] != known[home]["steps"]:
            reference = Parts.of(runs[run]).reference
            return None if reference in (None, student) else (run, str(reference))
        return first, home
    other = student if against is None and run != first else home
    return None if (run, student) == (first, other) else (first, other)


def _differences(
    own: tuple[Mapping[str, Any], Mapping[str, Any]],
    other: tuple[Mapping[str, Any], Mapping[str, Any]],
    same_teacher: bool,
) -> dict[str, Difference]:
    """Return the differences of two students, each given as its run and its entry.

    Figures that are measured against the teacher can be compared only if it is the same.
    """
    found = {
        figure: paired(_by_seed(*own, figure), _by_seed(*other, figure))
        for figure in own[1]["metrics"]
        if figure in other[1]["metrics"]
        and (same_teacher or figure not in WORDS or WORDS[figure].group != "teacher")
    }
    return {figure: value for figure, value in found.items() if value is not None}


def shown_figures(found: Comparison) -> list[Words]:
    """Return the figures of the tables, among those that the summaries have."""
    students = [row for row in found.rows if row.student != "teacher"]
    names = {name for row in students for name in row.entry["metrics"]}
    return small(names, imbalanced=found.imbalanced)


def _is_same_teacher(first: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether the teachers of two runs have the same figures, as far as both have them."""
    a, b = first["teacher"]["metrics"], other["teacher"]["metrics"]
    return all(a[name] == b[name] for name in a if name in b)


def _is_same_data(first: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two runs have the same data: by content, or by name where that is not kept."""
    if "data" in first and "data" in other:
        return bool(first["data"] == other["data"])
    pair = (run["recipe"]["data"] for run in (first, other))
    return not list(differences(*pair))


def plain(found: Comparison) -> dict[str, Any]:
    """Return a comparison as plain values, for JSON."""
    return {
        "task": found.task,
        "rows": [
            {
                "run": row.run,
                "student": row.student,
                "parameters": row.entry["parameters"],
                "metrics": row.entry["metrics"],
                **{key: row.entry[key] for key in _APART if key in row.entry},
                "against": None if row.against is None else list(row.against),
                "differences": {
                    name: {"mean": d.mean, "ci95": [d.low, d.high], "seeds": d.seeds}
                    for name, d in row.differences.items()
                },
            }
            for row in found.rows
        ],
        "changed": {
            name: [{"setting": path, "first": a, "this": b} for path, a, b in settings]
            for name, settings in found.changed.items()
        },
        "notes": found.notes,
    }


def _check(runs: Mapping[str, Mapping[str, Any]]) -> None:
    first_name, first = next(iter(runs.items()))
    for name, run in runs.items():
        if run["task"] != first["task"]:
            raise XclError(
                f"{first_name} is a {first['task']} and {name} a {run['task']}; "
                "only runs of one task can be compared"
            )
        split, wanted = (r["recipe"]["evaluation"]["split"] for r in (run, first))
        if split != wanted:
            raise XclError(
                f"{first_name} was measured on the {wanted} split and {name} on the {split} split; "
                "run both with the same evaluation.split"
            )


def _by_seed(run: Mapping[str, Any], entry: Mapping[str, Any], figure: str) -> dict[int, float]:
    values = entry["metrics"][figure]["per_seed"]
    pairs = zip(run["seeds"], values, strict=True)
    return {seed: value for seed, value in pairs if value is not None}


def _settings(first: Any, other: Any) -> list[tuple[str, Any, Any]]:
    found = differences(first, other)
    return [(p, a, b) for p, a, b in found if not p.startswith(_LABELS)]


def _notes(
    runs: Mapping[str, Mapping[str, Any]],
    found: Comparison,
    same_data: Mapping[str, bool],
    same_teacher: Mapping[str, bool],
) -> list[str]:
    first_name = next(iter(runs))
    notes = [
        f"{name} has other data than {first_name}, so its students are not compared with those."
        for name, same in same_data.items()
        if not same
    ]
    for name in runs:
        if same_data[name] and not same_teacher[name]:
            notes.append(
                f"{name} has another teacher than {first_name}: differences are due to that too, "
                "the gap is measured from another mark, and what is measured against the teacher "
                "is not compared."
            )
    compared = [row for row in found.rows if row.differences]
    notes += _budgets(runs, compared)
    shown = [words.name for words in shown_figures(found)]
    told = [row.differences[name] for row in compared for name in shown if name in row.differences]
    counts = {d.seeds for d in told}
    if counts == {1}:
        notes.append("There is one seed in common, so no interval is given.")
    elif counts:
        least = min(counts)
        notes.append(
            f"Differences are means over {_counted(counts)} seeds with 95 % intervals of a paired "
            "t-test; they cover the luck of a seed, not that of the data"
            + (f", and {least} seeds are few." if least < 5 else ".")
        )
    intervals = sum(d.low is not None and d.low != d.high for d in told)
    if intervals > 3:
        notes.append(f"Of the {intervals} intervals, one in twenty leaves out 0 by chance alone.")
    return notes


def _budgets(runs: Mapping[str, Mapping[str, Any]], compared: Sequence[Row]) -> list[str]:
    """Return a sentence for each pair of students with different numbers of steps."""
    notes = []
    for row in compared:
        assert row.against is not None
        run, student = row.against
        own, theirs = row.entry["steps"], runs[run]["students"][student]["steps"]
        if own != theirs and own and theirs:  # an estimator has no steps
            notes.append(
                f"{row.run} {row.student} took {own:,} steps, and {run} {student} {theirs:,}: "
                "their difference is that of the budgets too."
            )
    return notes


def _counted(counts: set[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"
