"""Print the figures of a run as the Markdown table that the documentation has.

For each student the mean over seeds with its 95 % interval (Student's t), the difference from
``kd`` seed by seed with its interval, and the part of the gap closed with its bootstrap interval.

    python benchmarks/ablation_table.py RUN [METRIC ...]
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from scipy.stats import t as student_t

# Metric -> (heading, factor, digits).
SHOWN = {
    "accuracy": ("accuracy %", 100, 2),
    "angular_error": ("angular error °", 1, 2),
    "rmse": ("RMSE", 1, 3),
    "nll": ("NLL", 1, 3),
    "kl_to_teacher": ("KL to teacher", 1, 3),
}


def interval(values: list[float]) -> tuple[float, float]:
    """Return mean and half the width of its 95 % interval."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, float("nan")
    error = statistics.stdev(values) / len(values) ** 0.5
    return mean, float(student_t.ppf(0.975, len(values) - 1)) * error


def cell(values: list[float | None], factor: float, digits: int, sign: str = "") -> str:
    known = [factor * v for v in values if v is not None]
    if len(known) < len(values):
        return "not finite"
    mean, half = interval(known)
    text = f"{mean:{sign}.{digits}f}"
    return text if len(set(known)) == 1 else f"{text} ± {half:.{digits}f}"


def rows(summary: dict[str, Any], metrics: list[str]) -> list[list[str]]:
    students = summary["students"]
    lines = [["", *(SHOWN[m][0] for m in metrics), f"{SHOWN[metrics[0]][0]} − kd", "gap closed"]]
    kd = students["kd"]["metrics"][metrics[0]]["per_seed"]
    for name, entry in [("teacher", summary["teacher"]), *students.items()]:
        cells = [f"`{name}`" if name != "teacher" else name]
        for metric in metrics:
            _, factor, digits = SHOWN[metric]
            found = entry["metrics"].get(metric)
            cells.append("" if found is None else cell(found["per_seed"], factor, digits))
        own = entry["metrics"][metrics[0]]["per_seed"]
        _, factor, digits = SHOWN[metrics[0]]
        differences = [a - b for a, b in zip(own, kd, strict=True)]
        told = "" if name in ("teacher", "kd") else cell(differences, factor, digits, "+")
        gap = entry.get("gap_closed")
        closed = ""
        if gap is not None and name not in ("teacher", "kd"):
            low, high = (("∞" if v is None else f"{100 * v:.0f}") for v in gap["ci95"])
            told_too = "unbounded" if "∞" in (low, high) else f"{low} to {high}"
            closed = f"{100 * gap['value']:.0f} % ({told_too})"
        lines.append([*cells, told, closed])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("metrics", nargs="*")
    arguments = parser.parse_args()
    summary = json.loads((arguments.run / "summary.json").read_text())
    known = summary["students"]["kd"]["metrics"]
    metrics = arguments.metrics or [m for m in SHOWN if m in known]
    if "angular_error" in metrics and not arguments.metrics:
        metrics.remove("rmse")  # the same in other units
    lines = rows(summary, metrics)
    lines.insert(1, ["---"] * len(lines[0]))
    for line in lines:
        print("| " + " | ".join(line) + " |")


if __name__ == "__main__":
    main()
