"""Put the figures of all seeds together, as ``summary.json`` and as the table a person reads."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from extracurricular.evaluation.metrics import error_of, gap_closed

SCHEMA = 1

# What the table shows: name in the summary -> heading, format, better when higher (None: neither).
# summary.json has more; a table wider than a terminal is read by nobody.
COLUMNS: dict[str, tuple[str, str, bool | None]] = {
    "accuracy": ("accuracy %", "percent", True),
    "angular_error": ("angular error °", ".2f", False),
    "rmse": ("RMSE", ".4f", False),
    "nll": ("NLL", ".3f", False),
    "ece": ("ECE %", "percent", False),
    "coverage90": ("cover 90 %", "percent", None),
    "kl_to_teacher": ("KL to teacher", ".3f", False),
}


# Students whose gap is told in a sentence each; of more, only the best.
_MOST_TOLD = 3


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
        task: ``classification`` or ``regression``.
        seeds: The seeds.
        teacher: For each seed ``{"metrics": {…}, "steps", "seconds", "parameters"}``; the last is
            None for one that is made of no numbers anybody could count.
        students: The same for each student.

    Returns:
        The layout of ``summary.json``. ``std`` is the sample standard deviation over seeds (0 for
        one seed); a figure that is not finite is null.
    """
    entries = {name: _entry(rows) for name, rows in students.items()}
    if "kd" in students:
        kd, best = _errors(students["kd"]), _errors(teacher)
        for name, rows in students.items():
            entries[name]["gap_closed"] = gap_closed(kd, _errors(rows), best)
    return {
        "schema": SCHEMA,
        "recipe": recipe,
        "task": task,
        "seeds": list(seeds),
        "teacher": _entry(teacher),
        "students": entries,
    }


def _errors(rows: list[dict[str, Any]]) -> list[float]:
    return [error_of(row["metrics"]) for row in rows]


def _entry(rows: list[dict[str, Any]]) -> dict[str, Any]:
    figures = {}
    for name in rows[0]["metrics"]:
        values = [row["metrics"][name] for row in rows]
        finite = all(math.isfinite(value) for value in values)
        figures[name] = {
            "mean": statistics.fmean(values) if finite else None,
            "std": (statistics.stdev(values) if len(values) > 1 else 0.0) if finite else None,
            "per_seed": [value if math.isfinite(value) else None for value in values],
        }
    return {
        "steps": rows[0]["steps"],
        "seconds": round(statistics.fmean(row["seconds"] for row in rows), 3),
        "parameters": rows[0]["parameters"],
        "metrics": figures,
        "gap_closed": None,
    }


@dataclass(frozen=True)
class Cell:
    """A cell of the table: its text, and whether it is the best of its column."""

    text: str
    best: bool = False


def cells(summary: dict[str, Any]) -> tuple[list[str], list[list[Cell]]]:
    """Return the table that a person reads: its headings, and a row for teacher and students."""
    names = [name for name in COLUMNS if _has(summary, name)]
    if "angular_error" in names:
        names.remove("rmse")  # it says the same in other units
    headings = ["", "parameters", *(COLUMNS[name][0] for name in names), "gap closed"]
    best = {name: _best(summary["students"], name) for name in names}
    rows = [_row("teacher", summary["teacher"], names, {})]
    for student, entry in summary["students"].items():
        marked = {name: best[name] == student for name in names}
        rows.append(_row(student, entry, names, marked))
    return headings, rows


def table_note(summary: dict[str, Any]) -> str | None:
    """Return what the table's signs mean; nothing of a single seed."""
    count = len(summary["seeds"])
    return f"mean ± standard deviation over {count} seeds" if count > 1 else None


def table(summary: dict[str, Any]) -> Table:
    """Return the table that a person reads: mean ± deviation over seeds, the best student bold."""
    headings, rows = cells(summary)
    result = Table(
        caption=table_note(summary),
        caption_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for place, heading in enumerate(headings):
        result.add_column(heading, justify="right" if place else "left")
    for place, row in enumerate(rows):
        shown = [f"[bold]{escape(c.text)}[/bold]" if c.best else escape(c.text) for c in row]
        result.add_row(*shown, end_section=place == 0)
    return result


def _has(summary: dict[str, Any], name: str) -> bool:
    return any(name in entry["metrics"] for entry in summary["students"].values())


def _best(students: dict[str, Any], name: str) -> str | None:
    higher = COLUMNS[name][2]
    means = {k: e["metrics"][name]["mean"] for k, e in students.items() if name in e["metrics"]}
    means = {k: v for k, v in means.items() if v is not None}
    if higher is None or len(means) < 2:
        return None
    return (max if higher else min)(means, key=lambda k: means[k])


def _row(
    title: str, entry: dict[str, Any], names: list[str], marked: dict[str, bool]
) -> list[Cell]:
    parameters = entry["parameters"]
    row = [Cell(title), Cell("–" if parameters is None else f"{parameters:,}")]
    for name in names:
        text = figure_text(entry["metrics"].get(name), COLUMNS[name][1])
        row.append(Cell(text, marked.get(name, False)))
    gap = "–" if entry["gap_closed"] is None else f"{100 * entry['gap_closed']['value']:.0f} %"
    return [*row, Cell("reference" if title == "kd" else gap)]


def figure_text(figure: dict[str, Any] | None, form: str) -> str:
    """Return a figure as mean ± deviation over seeds, in the form of its column."""
    if figure is None:
        return ""
    if figure["mean"] is None:
        return "not finite"
    scale, form = (100, ".2f") if form == "percent" else (1, form)
    text = format(figure["mean"] * scale, form)
    # A teacher that all seeds share is one teacher: it has no deviation.
    if len(set(figure["per_seed"])) > 1:
        text += f" ± {format(figure['std'] * scale, form)}"
    return text


@dataclass(frozen=True)
class Sentence:
    """A sentence of the verdict.

    Args:
        parts: Its words in order; those that matter most are marked True.
        note: Whether it says what makes the figures less than they seem.
    """

    parts: tuple[tuple[str, bool], ...]
    note: bool = False

    @property
    def text(self) -> str:
        """The plain sentence."""
        return "".join(text for text, _ in self.parts)


def verdict(summary: dict[str, Any]) -> list[str]:
    """Return the sentences of the verdict with marks for the terminal."""
    lines = []
    for sentence in sentences(summary):
        words = (
            f"[bold]{escape(t)}[/bold]" if strong else escape(t) for t, strong in sentence.parts
        )
        lines.append(("[yellow]Note:[/yellow] " if sentence.note else "") + "".join(words))
    return lines


def sentences(summary: dict[str, Any]) -> list[Sentence]:
    """Return what the table shows, and what makes it less than it seems."""
    students = summary["students"]
    found = []
    names, chosen = told_students(summary)
    for name in names:
        gap = students[name]["gap_closed"]
        if gap is not None:
            # A figure without its interval invites too much trust.
            found.append(
                Sentence(
                    (
                        (name, True),
                        (f"{chosen} closes ", False),
                        (f"{100 * gap['value']:.0f} %", True),
                        (" of the gap that kd leaves to the teacher ", False),
                        (f"(95 % interval over seeds: {interval(gap)}).", False),
                    )
                )
            )
    if "erm" in students:
        plain = mean_error(students["erm"])
        for name in names:
            error = mean_error(students[name])
            if plain and error is not None:
                change = f"{100 * abs(1 - error / plain):.0f} %"
                side = "below" if error <= plain else "above"
                what = error_name(students[name])
                found.append(
                    Sentence(
                        (
                            (f"The {what} of ", False),
                            (name, True),
                            (" is ", False),
                            (change, True),
                            (f" {side} that of erm.", False),
                        )
                    )
                )
    if "kd" in students and students["kd"]["gap_closed"] is None:
        text = "There is no gap to close: the teacher is not better than kd."
        found.append(Sentence(((text, False),)))
    steps = {name: entry["steps"] for name, entry in students.items()}
    if len(set(steps.values())) > 1:
        told = ", ".join(f"{name} {count:,}" for name, count in steps.items())
        found.append(_note(f"the students had unequal budgets of steps: {told}."))
    if summary["recipe"]["evaluation"]["split"] != "test":
        found.append(_note("these are figures on the validation split."))
    return found


def _note(text: str) -> Sentence:
    return Sentence(((text, False),), note=True)


def told_students(summary: dict[str, Any]) -> tuple[list[str], str]:
    """Return the students that the verdict tells of, and how their choice is told.

    They are all but kd and erm; of more than a few, the one with the least error.
    """
    students = summary["students"]
    extended = [name for name in students if name not in ("kd", "erm")]
    # The one that the package is for has the first sentence.
    extended.sort(key=lambda name: name != "xcl")
    if len(extended) <= _MOST_TOLD:
        return extended, ""
    # A sentence for each would be read by nobody; the table has them all.
    errors = {name: mean_error(students[name]) for name in extended}
    known = {name: error for name, error in errors.items() if error is not None}
    best = [min(known, key=lambda name: known[name])] if known else []
    return best, f", the best of {len(extended)} here,"


def error_name(entry: dict[str, Any]) -> str:
    """Return what the error is called that gaps are measured in."""
    names = {"angular_error": "angular error", "rmse": "RMSE"}
    return next((text for name, text in names.items() if name in entry["metrics"]), "error rate")


def mean_error(entry: dict[str, Any]) -> float | None:
    """Return the mean over seeds of that error; None where a figure is not finite."""
    means = {name: figure["mean"] for name, figure in entry["metrics"].items()}
    return None if None in means.values() else error_of(means)


def interval(gap: dict[str, Any]) -> str:
    """Return the interval of the part of the gap closed, as text."""
    low, high = gap["ci95"]
    if low is None and high is None:
        return "unbounded"
    start = "-∞" if low is None else f"{100 * low:.0f}"
    return f"{start} to {'∞' if high is None else f'{100 * high:.0f}'} %"
