"""A comparison of runs as a terminal shows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from extracurricular.assess.compare import Comparison, Difference, Row, shown_figures
from extracurricular.errors import shorten
from extracurricular.evaluation.words import ABSENT, Words
from extracurricular.report import cells

# Settings shown for one run; a run of another recipe differs in all of them.
_MOST_SETTINGS = 8
_MOST_FINDINGS = 6


def lines(found: Comparison) -> Iterator[RenderableType]:
    """Yield the tables and sentences, to be printed one after another."""
    shown = shown_figures(found)
    yield _figures(found, shown)
    if any(row.differences for row in found.rows):
        yield _differences(found, shown)
    for sentence in findings(found):
        yield escape(sentence)
    for run, settings in found.changed.items():
        yield from _settings(run, settings)
    for note in found.notes:
        yield escape(note)


def findings(found: Comparison) -> list[str]:
    """Return a sentence for each difference that chance does not explain, or one if there is none.

    They are the first few; the tables have them all.
    """
    sentences = []
    judged = [words for words in shown_figures(found) if words.better != "neither"]
    for row in found.rows:
        for words in judged:
            difference = row.differences.get(words.name)
            good = None if difference is None else better(difference, words)
            if difference is not None and good is not None and row.against is not None:
                side, other = "better" if good else "worse", " ".join(row.against)
                text = difference_text(difference, words)
                sentences.append(
                    f"{row.run} {row.student} is {side} than {other}: {words.change} {text}."
                )
    told = [row.differences.get(words.name) for row in found.rows for words in judged]
    if not sentences and any(d is not None and d.low is not None for d in told):
        names = ", ".join(words.title for words in judged)
        return [f"No difference is larger than chance explains: every interval of {names} holds 0."]
    more = len(sentences) - _MOST_FINDINGS
    return sentences[:_MOST_FINDINGS] + ([f"So are {more} more differences."] if more > 0 else [])


def difference_text(difference: Difference, words: Words) -> str:
    """Return a difference with its interval; percentages as points."""
    mean, low, high = difference.mean, difference.low, difference.high
    if low is None or high is None:
        return words.signed(mean)
    if mean == low == high == 0:
        return "the same"
    widest = max(abs(mean), abs(low), abs(high))
    mean_text, *ends = (words.signed(value, like=widest) for value in (mean, low, high))
    # In a narrow terminal the line breaks before the interval, not inside it.
    return f"{mean_text} ({ends[0]}\u00a0to\u00a0{ends[1]})"


def better(difference: Difference, words: Words) -> bool | None:
    """Return whether a difference is for the better; None where that is open.

    It is open where chance may explain the difference, and where neither direction is better.
    """
    if words.better == "neither" or not difference.certain:
        return None
    return (difference.mean > 0) == (words.better == "higher")


def _figures(found: Comparison, shown: list[Words]) -> Table:
    result = _table()
    # A terminal has no room for the multiply-adds too; the page has them.
    for heading in cells.headings(shown, cost=False):
        result.add_column(heading, justify="right")
    for run, student, row, last in _grouped(found.rows):
        texts = cells.row(row.entry, shown, row.reference, cost=False)
        result.add_row(run, student, *map(escape, texts), end_section=last)
    return result


def _differences(found: Comparison, shown: list[Words]) -> Table:
    result = _table(title="Differences, seed by seed", title_justify="left")
    result.add_column("compared to")
    for words in shown:
        result.add_column(words.change)
    compared = [row for row in found.rows if row.against is not None]
    for run, student, row, last in _grouped(compared):
        assert row.against is not None
        texts = [escape(" ".join(row.against))]
        for words in shown:
            difference = row.differences.get(words.name)
            text = ABSENT if difference is None else difference_text(difference, words)
            good = None if difference is None else better(difference, words)
            style = {True: "bold green", False: "bold red", None: ""}[good]
            texts.append(f"[{style}]{text}[/{style}]" if style else text)
        result.add_row(run, student, *texts, end_section=last)
    return result


def _table(**given: Any) -> Table:
    result = Table(header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, **given)
    result.add_column("")
    result.add_column("")
    return result


def _grouped(rows: list[Row]) -> Iterator[tuple[str, str, Row, bool]]:
    """Yield rows, each with its run's name if the run begins there, and whether the run ends."""
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
