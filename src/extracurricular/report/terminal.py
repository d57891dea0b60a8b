"""The result of a run as a terminal shows it: the table and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from extracurricular.evaluation.entries import is_imbalanced
from extracurricular.evaluation.summary import Parts, sentences
from extracurricular.evaluation.words import WORDS
from extracurricular.report import cells, classes

# A console for measuring alone, wide enough for any table.
_WIDE = Console(width=1000)
# Targets in the table of each target's figures.
_MOST_TARGETS = 8


def table(summary: Mapping[str, Any], width: int | None = None) -> Table:
    """Return the table of a run: mean ± deviation over seeds, the best student bold.

    Args:
        summary: ``summary.json``.
        width: Columns of the terminal. A narrow one shows fewer columns of the table, never fewer
            digits, and says which are left out. None for any number.
    """
    headings, rows = cells.table(summary)
    kept = list(range(len(headings)))
    found = _table(summary, headings, rows, kept)
    measured = "balanced_accuracy" if is_imbalanced(summary) else ""
    for place in _dispensable(headings, WORDS[measured].heading if measured else ""):
        if width is None or Measurement.get(_WIDE, _WIDE.options, found).maximum <= width:
            break
        kept.remove(place)
        found = _table(summary, headings, rows, kept)
    return found


def _dispensable(headings: list[str], measured: str = "") -> list[int]:
    """Return the columns to leave out for want of width, the first to go first.

    The name and one figure always stay: that with the heading ``measured``, or else the first.
    """
    cost = headings.index(cells.COST)
    first, last = cost + 1, len(headings) - 1
    kept = headings.index(measured) if measured in headings else first
    return [cost, *(k for k in range(last - 1, cost, -1) if k != kept), 1, last]


def _table(
    summary: Mapping[str, Any],
    headings: list[str],
    rows: list[list[cells.Cell]],
    kept: list[int],
) -> Table:
    gone = [heading for place, heading in enumerate(headings) if place not in kept]
    others = [heading for heading in gone if heading != cells.COST]
    notes = [
        cells.table_note(summary),
        cells.cost_note(summary) if gone else None,
        f"for want of width without {', '.join(others)}" if others else None,
    ]
    result = Table(
        caption="\n".join(escape(note) for note in notes if note) or None,
        caption_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for place in kept:
        # A long name takes a second line; a figure never does.
        result.add_column(
            escape(headings[place]),
            justify="right" if place else "left",
            no_wrap=place > 0,
            overflow="fold",
        )
    for number, row in enumerate(rows):
        texts = [row[place] for place in kept]
        shown = [f"[bold]{escape(c.text)}[/bold]" if c.best else escape(c.text) for c in texts]
        result.add_row(*shown, end_section=number == 0)
    return result


def targets_table(summary: Mapping[str, Any]) -> Table | None:
    """Return the table of each target's figures; None where there is one target, or classes.

    Of many targets it has the first ones; ``summary.json`` has all.
    """
    headings, rows = cells.targets_table(summary)
    if not rows:
        return None
    each = 1 + len(summary["students"])
    left = len(rows) // each - _MOST_TARGETS
    result = Table(
        caption=f"{left} more targets are in summary.json" if left > 0 else None,
        caption_justify="left", header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    for place, heading in enumerate(headings):
        result.add_column(heading, justify="right" if place > 1 else "left")
    for place, row in enumerate(rows[: each * _MOST_TARGETS]):
        shown = [f"[bold]{escape(c.text)}[/bold]" if c.best else escape(c.text) for c in row]
        result.add_row(*shown, end_section=(place + 1) % each == 0)
    return result


def classes_table(summary: Mapping[str, Any], width: int | None = None) -> Table | None:
    """Return the table of each class's recall; None where classes are balanced, or there are none.

    Args:
        summary: ``summary.json``.
        width: As for :func:`table`: a narrow terminal shows fewer students.
    """
    headings, rows, note = classes.recall_table(summary)
    if not rows or not is_imbalanced(summary):
        return None
    kept, parts = list(range(len(headings))), Parts.of(summary)
    # The counts of training examples go first, then students, the plain one and the reference
    # last of them, then the teacher; the subject stays.
    last = [parts.plain, parts.reference, "teacher"]
    models = [name for name in reversed(headings[3:]) if name not in (*last, parts.subject)]
    models += [name for name in last if name in headings and name != parts.subject]
    for place in [1, *(headings.index(name, 3) for name in models), None]:
        found = _classes_table(headings, rows, kept, note)
        if width is None or Measurement.get(_WIDE, _WIDE.options, found).maximum <= width:
            break
        if place in kept:
            kept.remove(place)
    return found


def _classes_table(
    headings: list[str], rows: list[list[cells.Cell]], kept: list[int], note: str
) -> Table:
    gone = [heading for place, heading in enumerate(headings) if place not in kept]
    result = Table(
        title="Each class",
        title_justify="left",
        caption=escape(note + (f"; for want of width without {', '.join(gone)}" if gone else "")),
        caption_justify="left", header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    for place in kept:
        result.add_column(
            escape(headings[place]),
            justify="right" if place else "left",
            no_wrap=place > 0,
            overflow="fold",
        )
    for row in rows:
        texts = [row[place] for place in kept]
        shown = [f"[bold]{escape(c.text)}[/bold]" if c.best else escape(c.text) for c in texts]
        result.add_row(*shown)
    return result


def verdict(summary: Mapping[str, Any]) -> list[str]:
    """Return the sentences of the verdict, with marks for the terminal."""
    lines = []
    for sentence in sentences(summary):
        start = "[yellow]Note:[/yellow] " if sentence.note else ""
        texts = (f"[bold]{escape(t)}[/bold]" if bold else escape(t) for t, bold in sentence.parts)
        lines.append(start + "".join(texts))
    return lines
