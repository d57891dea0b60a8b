"""The page of several runs side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from extracurricular.assess.compare import Comparison, Difference, Row, shown_figures
from extracurricular.errors import shorten
from extracurricular.evaluation.words import ABSENT, Words
from extracurricular.report import cells, figures
from extracurricular.report.comparison_table import (
    better,
    difference_text,
    findings,
)
from extracurricular.report.page import environment

# Colours of the runs, in their order; with more runs than these, colours come again.
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
    shown = shown_figures(found)
    compared = [row for row in found.rows if row.differences]
    return (
        environment()
        .get_template("compare.html.j2")
        .render(
            fingerprint="",
            runs=list(dict.fromkeys(row.run for row in found.rows)),
            headings=cells.headings(shown),
            rows=[(row, cells.row(row.entry, shown, row.reference)) for row in found.rows],
            units=[words.change for words in shown],
            differences=[(row, [_difference(row, words) for words in shown]) for row in compared],
            pictures=_pictures(compared, shown),
            changed={run: _settings(settings) for run, settings in found.changed.items()},
            findings=findings(found),
            notes=found.notes,
        )
    )


def _difference(row: Row, words: Words) -> Compared:
    difference = row.differences.get(words.name)
    if difference is None:
        return Compared(ABSENT, "", "")
    side = {True: "better", False: "worse", None: ""}[better(difference, words)]
    mean, bracket, interval = difference_text(difference, words).partition(" (")
    return Compared(mean, f"({interval}" if bracket else "", side)


def _pictures(compared: list[Row], shown: list[Words]) -> list[dict[str, Any]]:
    """Draw the differences of each figure with their intervals, one student below the other."""
    from markupsafe import Markup

    runs = list(dict.fromkeys(row.run for row in compared))
    colours = {run: _ROLES[place % len(_ROLES)] for place, run in enumerate(runs)}
    drawn = []
    for words in shown:
        rows = [
            _picture_row(row, row.differences[words.name], colours[row.run], words.scale)
            for row in compared
            if words.name in row.differences
        ]
        if not rows:
            continue
        svg = figures.dots(
            f"difference-{words.name}",
            f"Differences of {words.change} with their intervals",
            rows,
            figures.Axis(f"difference in {words.change}"),
            figures.Guides(x=[0.0]),
        )
        side = {"higher": "Right of 0 is better.", "lower": "Left of 0 is better.", "neither": ""}
        text = f"Differences of the means over seeds, with 95 % intervals. {side[words.better]}"
        drawn.append(
            {"title": words.change, "legend": (), "svg": Markup(svg), "text": text.strip()}
        )
    return drawn


def _picture_row(row: Row, difference: Difference, colour: str, scale: int) -> figures.Row:
    mean = difference.mean
    low = mean if difference.low is None else difference.low
    high = mean if difference.high is None else difference.high
    return figures.Row(f"{row.run} {row.student}", colour, scale * mean, scale * low, scale * high)


def _settings(settings: list[tuple[str, Any, Any]]) -> list[tuple[str, str, str]]:
    shown = [(path, shorten(this), shorten(first)) for path, first, this in settings]
    more = len(shown) - _MOST_SETTINGS
    return shown[:_MOST_SETTINGS] + ([(f"and {more} more", "", "")] if more > 0 else [])
