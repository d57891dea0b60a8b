"""The page of several runs side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from extracurricular.assess.compare import Comparison, Row
from extracurricular.errors import shorten
from extracurricular.evaluation.summary import COLUMNS, figure_text
from extracurricular.report import figures
from extracurricular.report.comparison_table import (
    better,
    difference_text,
    findings,
    shown_figures,
    unit_of,
)
from extracurricular.report.page import environment

# Colours of the runs, in their order; more runs than these begin again.
_ROLES = ("s1", "s0", "s2", "s3", "s4", "s5")
_MOST_SETTINGS = 20


@dataclass(frozen=True)
class Compared:
    """A cell of the table of differences.

    Args:
        mean: The difference.
        interval: Its interval, in brackets; empty where there is none.
        side: ``better``, ``worse``, or empty where it may be chance.
    """

    mean: str
    interval: str
    side: str


def render_comparison(found: Comparison) -> str:
    """Return the page of a comparison as HTML."""
    names = shown_figures(found)
    compared = [row for row in found.rows if row.differences]
    return (
        environment()
        .get_template("compare.html.j2")
        .render(
            fingerprint="",
            runs=list(dict.fromkeys(row.run for row in found.rows)),
            headings=[COLUMNS[name][0] for name in names],
            rows=[(row, _cells(row, names)) for row in found.rows],
            units=[unit_of(name) for name in names],
            differences=[(row, [_difference(row, name) for name in names]) for row in compared],
            pictures=_pictures(compared, names),
            changed={run: _settings(settings) for run, settings in found.changed.items()},
            findings=findings(found),
            notes=found.notes,
        )
    )


def _cells(row: Row, names: list[str]) -> list[str]:
    parameters, gap = row.entry["parameters"], row.entry["gap_closed"]
    told = "–" if gap is None else f"{100 * gap['value']:.0f}\N{NO-BREAK SPACE}%"
    return [
        "–" if parameters is None else f"{parameters:,}",
        *(figure_text(row.entry["metrics"].get(name), COLUMNS[name][1]) or "–" for name in names),
        "reference" if row.student == "kd" else told,
    ]


def _difference(row: Row, name: str) -> Compared:
    difference = row.differences.get(name)
    if difference is None:
        return Compared("–", "", "")
    side = {True: "better", False: "worse", None: ""}[better(difference, name)]
    mean, bracket, interval = difference_text(difference, name).partition(" (")
    return Compared(mean, f"({interval}" if bracket else "", side)


def _pictures(compared: list[Row], names: list[str]) -> list[dict[str, Any]]:
    """Draw the differences of each figure with their intervals, one student below the other."""
    from markupsafe import Markup

    runs = list(dict.fromkeys(row.run for row in compared))
    drawn = []
    for name in names:
        scale = 100 if COLUMNS[name][1] == "percent" else 1
        rows = []
        for row in compared:
            difference = row.differences.get(name)
            if difference is not None:
                low, high = difference.low, difference.high
                rows.append(
                    figures.Row(
                        f"{row.run} {row.student}",
                        _ROLES[runs.index(row.run) % len(_ROLES)],
                        scale * difference.mean,
                        scale * (difference.mean if low is None else low),
                        scale * (difference.mean if high is None else high),
                    )
                )
        if not rows:
            continue
        unit, higher = unit_of(name), COLUMNS[name][2]
        svg = figures.dots(
            f"difference-{name}",
            f"Differences of {unit} with their intervals",
            rows,
            figures.Axis(f"difference in {unit}"),
            figures.Guides(x=[0.0]),
        )
        side = {True: "Right of 0 is better.", False: "Left of 0 is better.", None: ""}[higher]
        text = f"Differences of the means over seeds, with 95 % intervals. {side}"
        drawn.append({"title": unit, "legend": (), "svg": Markup(svg), "text": text.strip()})
    return drawn


def _settings(settings: list[tuple[str, Any, Any]]) -> list[tuple[str, str, str]]:
    shown = [(path, shorten(this), shorten(first)) for path, first, this in settings]
    more = len(shown) - _MOST_SETTINGS
    return shown[:_MOST_SETTINGS] + ([(f"and {more} more", "", "")] if more > 0 else [])
