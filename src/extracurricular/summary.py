"""Put the figures of all seeds together, as ``summary.json`` and as the table a person reads."""

from __future__ import annotations

import math
import statistics
from typing import Any

from rich.table import Table

from extracurricular.metrics import error_of, gap_closed

SCHEMA = 1

# Name in the summary -> heading, format, better when higher (None: neither).
COLUMNS: dict[str, tuple[str, str, bool | None]] = {
    "accuracy": ("accuracy %", "percent", True),
    "angular_error": ("angular error °", ".2f", False),
    "rmse": ("RMSE", ".4f", False),
    "nll": ("NLL", ".3f", False),
    "brier": ("Brier", ".3f", False),
    "ece": ("ECE %", "percent", False),
    "crps": ("CRPS", ".4f", False),
    "coverage90": ("cover 90 %", "percent", None),
    "kl_to_teacher": ("KL to teacher", ".3f", False),
    "agreement": ("agree %", "percent", True),
}


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
        teacher: For each seed ``{"metrics": {…}, "steps", "seconds", "parameters"}``.
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


def table(summary: dict[str, Any]) -> Table:
    """Return the table that a person reads: mean ± deviation over seeds, the best student bold."""
    names = [name for name in COLUMNS if _has(summary, name)]
    count = len(summary["seeds"])
    result = Table(
        caption=f"mean ± standard deviation over {count} seeds" if count > 1 else None,
        caption_justify="left",
        header_style="bold",
    )
    result.add_column("")
    result.add_column("parameters", justify="right")
    result.add_column("steps", justify="right")
    for name in names:
        result.add_column(COLUMNS[name][0], justify="right")
    result.add_column("gap closed", justify="right")
    best = {name: _best(summary["students"], name) for name in names}
    result.add_row(*_row("teacher", summary["teacher"], names, {}), end_section=True)
    for student, entry in summary["students"].items():
        marked = {name: best[name] == student for name in names}
        result.add_row(*_row(student, entry, names, marked))
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


def _row(title: str, entry: dict[str, Any], names: list[str], marked: dict[str, bool]) -> list[str]:
    cells = [title, f"{entry['parameters']:,}", f"{entry['steps']:,}"]
    for name in names:
        text = _figure(entry["metrics"].get(name), COLUMNS[name][1])
        cells.append(f"[bold]{text}[/bold]" if marked.get(name) else text)
    return [*cells, "reference" if title == "kd" else gap_text(entry["gap_closed"])]


def _figure(figure: dict[str, Any] | None, form: str) -> str:
    if figure is None:
        return ""
    if figure["mean"] is None:
        return "not finite"
    scale, form = (100, ".2f") if form == "percent" else (1, form)
    text = format(figure["mean"] * scale, form)
    if len(figure["per_seed"]) > 1:
        text += f" ± {format(figure['std'] * scale, form)}"
    return text


def gap_text(gap: dict[str, Any] | None) -> str:
    """Return the gap closed as text, with its interval."""
    if gap is None:
        return "–"
    low, high = ("∞" if bound is None else f"{100 * bound:.0f}" for bound in gap["ci95"])
    low = "-∞" if low == "∞" else low
    return f"{100 * gap['value']:.0f} % [{low}, {high}]"


def verdict(summary: dict[str, Any]) -> list[str]:
    """Return sentences on what the table shows, and on what makes it less than it seems."""
    students = summary["students"]
    lines = []
    for name, entry in students.items():
        gap = entry["gap_closed"]
        if gap is not None and name not in ("kd", "erm"):
            # The interval is told again, as a figure without one invites too much trust.
            lines.append(
                f"[bold]{name}[/bold] closes [bold]{100 * gap['value']:.0f} %[/bold] of the gap "
                f"that kd leaves to the teacher (95 % interval over seeds: {_interval(gap)})."
            )
    if "kd" in students and students["kd"]["gap_closed"] is None:
        lines.append("There is no gap to close: the teacher is not better than kd.")
    steps = {name: entry["steps"] for name, entry in students.items()}
    if len(set(steps.values())) > 1:
        told = ", ".join(f"{name} {count:,}" for name, count in steps.items())
        lines.append(f"[yellow]Note:[/yellow] the students had unequal budgets of steps: {told}.")
    if summary["recipe"]["evaluation"]["split"] != "test":
        lines.append("[yellow]Note:[/yellow] these are figures on the validation split.")
    return lines


def _interval(gap: dict[str, Any]) -> str:
    low, high = gap["ci95"]
    if low is None and high is None:
        return "unbounded"
    start = "-∞" if low is None else f"{100 * low:.0f}"
    return f"{start} to {'∞' if high is None else f'{100 * high:.0f}'} %"
