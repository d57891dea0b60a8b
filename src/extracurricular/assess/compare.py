"""Several runs side by side: their figures, and the paired differences over seeds.

Two students of one seed saw the same data, started from the same weights if their networks are the
same, and were measured on the same examples. So the difference is taken seed by seed, which leaves
out the luck that they share, and its interval is that of a paired t-test.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extracurricular.errors import RecipeError, XclError, known_names
from extracurricular.evaluation.summary import Parts
from extracurricular.recipe.difference import differences

# Settings that explain no difference between results.
_LABELS = ("name", "about", "log", "device.accelerator")


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
        task: ``classification`` or ``regression``.
        rows: Teachers and students of all runs, in order.
        changed: For each run but the first, the settings that differ: path, first, this.
        notes: Sentences to read before the differences.
    """

    task: str
    rows: list[Row]
    changed: dict[str, list[tuple[str, Any, Any]]]
    notes: list[str]


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
            run itself, and one whose name it lacks, to its reference, or to its first student
            where it has no reference.

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
    home = against or Parts.of(first).reference or next(iter(known))
    same_data = {name: _is_same_data(first, run) for name, run in runs.items()}
    rows = []
    for name, run in runs.items():
        rows.append(Row(name, "teacher", False, run["teacher"], None, {}))
        reference = Parts.of(run).reference
        for student, entry in run["students"].items():
            measured_from = student == reference
            other = student if against is None and name != first_name and student in known else home
            itself = name == first_name and student == other
            if itself or not same_data[name]:
                rows.append(Row(name, student, measured_from, entry, None, {}))
                continue
            found = {
                figure: paired(_by_seed(run, entry, figure), _by_seed(first, known[other], figure))
                for figure in entry["metrics"]
                if figure in known[other]["metrics"]
            }
            kept = {figure: value for figure, value in found.items() if value is not None}
            rows.append(Row(name, student, measured_from, entry, (first_name, other), kept))
    changed = {
        name: _settings(first["recipe"], run["recipe"])
        for name, run in runs.items()
        if name != first_name
    }
    return Comparison(first["task"], rows, changed, _notes(runs, rows, same_data))


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
                **({"targets": row.entry["targets"]} if "targets" in row.entry else {}),
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
    runs: Mapping[str, Mapping[str, Any]], rows: list[Row], same_data: Mapping[str, bool]
) -> list[str]:
    first_name, first = next(iter(runs.items()))
    notes = [
        f"{name} has other data than {first_name}, so no differences are given."
        for name, same in same_data.items()
        if not same
    ]
    for name, run in runs.items():
        if same_data[name] and run["teacher"]["metrics"] != first["teacher"]["metrics"]:
            notes.append(
                f"{name} has another teacher than {first_name}: "
                "the gap and the divergence from the teacher are measured from another mark."
            )
    compared = [row for row in rows if row.differences]
    counts = {d.seeds for row in compared for d in row.differences.values()}
    if counts == {1}:
        notes.append("There is one seed in common, so no interval is given.")
    elif counts:
        least = min(counts)
        notes.append(
            f"Differences are means over {_counted(counts)} seeds with 95 % intervals of a paired "
            "t-test; they cover the luck of a seed, not that of the data"
            + (f", and {least} seeds are few." if least < 5 else ".")
        )
    if len(compared) > 3:
        notes.append(f"Of {len(compared)} comparisons, one in twenty leaves out 0 by chance alone.")
    return notes


def _counted(counts: set[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"
