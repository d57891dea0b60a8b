"""What an entry of a summary says: the error that gaps are measured in, and the gap closed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extracurricular.evaluation.metrics import error_of
from extracurricular.evaluation.words import ABSENT, BALANCED, WORDS, Words, error_measure

# The figure that is shown for an error that is 1 less it.
_SHOWN = {"error_rate": "accuracy", BALANCED: "balanced_accuracy"}


def measure_of(summary: Mapping[str, Any]) -> str:
    """Return the name of the error that the gaps of a summary are measured in.

    Summaries from before there was a choice do not say it; theirs is the usual one of their task.
    """
    entries = [summary.get("teacher") or {}, *summary["students"].values()]
    names = {name for entry in entries for name in entry.get("metrics", {})}
    return str(summary.get("measure") or error_measure(names))


def is_imbalanced(summary: Mapping[str, Any]) -> bool:
    """Return whether the classes of the training examples are imbalanced, as far as is known."""
    return bool((summary.get("balance") or {}).get("imbalanced"))


def error_name(entry: Mapping[str, Any], measure: str = "") -> str:
    """Return the title of the error that gaps are measured in.

    Args:
        entry: A teacher or student of a summary.
        measure: Name of the error; the usual one of the entry's figures where empty.
    """
    return WORDS[measure or error_measure(entry["metrics"])].title


def mean_error(entry: Mapping[str, Any], measure: str = "") -> float | None:
    """Return the mean over seeds of that error; None where any figure is not finite."""
    means = {name: figure["mean"] for name, figure in entry["metrics"].items()}
    return None if None in means.values() else error_of(means, measure)


def seed_errors(entry: Mapping[str, Any], measure: str = "") -> list[float]:
    """Return that error for each seed; an empty list where one of them is not finite."""
    figures = entry["metrics"]
    name = measure or error_measure(figures)
    source = name if name in figures else _SHOWN[name]
    values = figures[source]["per_seed"]
    return [] if None in values else [error_of({source: value}, name) for value in values]


def shown_measure(measure: str) -> Words:
    """Return the words of the figure that the verdict tells for an error.

    It is the balanced accuracy where classes are imbalanced, and else the error itself.
    """
    return WORDS["balanced_accuracy" if measure == BALANCED else measure]


def mean_of(entry: Mapping[str, Any], name: str) -> float | None:
    """Return the mean of a figure over seeds; None where there is none, or one is not finite."""
    figures = entry["metrics"]
    if name in figures:
        found: float | None = figures[name]["mean"]
        return found
    other = mean_of(entry, _SHOWN[name]) if name in _SHOWN else None
    return None if other is None else 1 - other


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
