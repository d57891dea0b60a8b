"""A comparison of runs, as the tables that a person reads in a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from extracurricular.assess.compare import Comparison, Difference, Row
from extracurricular.errors import shorten
from extracurricular.evaluation.summary import COLUMNS, figure_text

# Settings told of one run; a run of another recipe differs in all of them.
_MOST_SETTINGS = 8
_MOST_FINDINGS = 6


def lines(found: Comparison) -> Iterator[RenderableType]:
    """Yield the tables and sentences, to be printed one after another."""
    names = shown_figures(found)
    yield _figures(found, names)
    if any(row.differences for row in found.rows):
        yield _differences(found, names)
    for sentence in findings(found):
        yield escape(sentence)
    for run, settings in found.changed.items():
        yield from _settings(run, settings)
    for note in found.notes:
        yield escape(note)


def shown_figures(found: Comparison) -> list[str]:
    """Return the figures that the tables show, of those that the summaries have."""
    students = [row for row in found.rows if row.student != "teacher"]
    names = [n for n in COLUMNS if any(n in row.entry["metrics"] for row in students)]
    if "angular_error" in names:
        names.remove("rmse")  # it says the same in other units
    return names


def unit_of(name: str) -> str:
    """Return the heading of a figure's differences: of percentages, points."""
    heading, form, _ = COLUMNS[name]
    return heading.replace("%", "points") if form == "percent" else heading


def findings(found: Comparison) -> list[str]:
    """Return a sentence for each difference that is not to be explained by chance, or one of none.

    Only the first few; the tables have them all.
    """
    told = []
    for row in found.rows:
        for name in shown_figures(found):
            good = better(row.differences[name], name) if name in row.differences else None
            if good is not None and row.against is not None:
                side = "better" if good else "worse"
                text = difference_text(row.differences[name], name)
                other = " ".join(row.against)
                told.append(
                    f"{row.run} {row.student} is {side} than {other}: {unit_of(name)} {text}."
                )
    if not told and any(d.low is not None for row in found.rows for d in row.differences.values()):
        return ["No difference is larger than chance explains: every interval holds 0."]
    more = len(told) - _MOST_FINDINGS
    return told[:_MOST_FINDINGS] + ([f"So are {more} more differences."] if more > 0 else [])


def difference_text(difference: Difference, name: str) -> str:
    """Return a difference with its interval; percentages as points."""
    form = COLUMNS[name][1]
    scale, form = (100, ".2f") if form == "percent" else (1, form)

    def signed(value: float) -> str:
        # A true minus; and no sign before a 0.
        text = format(scale * value, f"+{form}").replace("-", "−")
        return text if any(c in "123456789" for c in text) else text[1:]

    text = signed(difference.mean)
    if difference.low is None or difference.high is None:
        return text
    if difference.mean == difference.low == difference.high == 0:
        return "the same"
    # In a narrow terminal the line breaks before the interval, not inside it.
    return f"{text} ({signed(difference.low)}\u00a0to\u00a0{signed(difference.high)})"


def better(difference: Difference, name: str) -> bool | None:
    """Tell whether a difference is for the better; None where it may be chance, or is neither."""
    higher = COLUMNS[name][2]
    if higher is None or not difference.certain:
        return None
    return (difference.mean > 0) == higher


def _figures(found: Comparison, names: list[str]) -> Table:
    result = _table()
    result.add_column("parameters", justify="right")
    for name in names:
        result.add_column(COLUMNS[name][0], justify="right")
    result.add_column("gap closed", justify="right")
    for run, student, row, last in _grouped(found.rows):
        parameters = row.entry["parameters"]
        cells = ["–" if parameters is None else f"{parameters:,}"]
        cells += [figure_text(row.entry["metrics"].get(n), COLUMNS[n][1]) for n in names]
        gap = row.entry["gap_closed"]
        told = "" if gap is None else f"{100 * gap['value']:.0f} %"
        cells.append("reference" if row.student == "kd" else told)
        result.add_row(run, student, *cells, end_section=last)
    return result


def _differences(found: Comparison, names: list[str]) -> Table:
    result = _table(title="Differences, seed by seed", title_justify="left")
    result.add_column("compared to")
    for name in names:
        result.add_column(unit_of(name))
    compared = [row for row in found.rows if row.against is not None]
    for run, student, row, last in _grouped(compared):
        assert row.against is not None
        cells = [escape(" ".join(row.against))]
        for name in names:
            difference = row.differences.get(name)
            text = "" if difference is None else difference_text(difference, name)
            good = None if difference is None else better(difference, name)
            style = {True: "bold green", False: "bold red", None: ""}[good]
            cells.append(f"[{style}]{text}[/{style}]" if style else text)
        result.add_row(run, student, *cells, end_section=last)
    return result


def _table(**given: Any) -> Table:
    result = Table(header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, **given)
    result.add_column("")
    result.add_column("")
    return result


def _grouped(rows: list[Row]) -> Iterator[tuple[str, str, Row, bool]]:
    """Yield rows with the name of a run only where it begins, and whether it ends there."""
    for place, row in enumerate(rows):
        first = place == 0 or rows[place - 1].run != row.run
        last = place + 1 < len(rows) and rows[place + 1].run != row.run
        yield f"[bold]{escape(row.run)}[/bold]" if first else "", escape(row.student), row, last


def _settings(run: str, settings: list[tuple[str, Any, Any]]) -> Iterator[str]:
    if not settings:
        yield f"[bold]{escape(run)}[/bold] has the same settings as the first."
        return
    yield f"[bold]{escape(run)}[/bold] differs from the first in"
    for path, first, this in settings[:_MOST_SETTINGS]:
        yield escape(f"  {path}: {shorten(this)} instead of {shorten(first)}")
    if len(settings) > _MOST_SETTINGS:
        yield f"  and {len(settings) - _MOST_SETTINGS} more settings"
