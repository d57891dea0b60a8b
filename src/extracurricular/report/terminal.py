"""The result of a run as a terminal shows it: the table and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from extracurricular.evaluation.summary import sentences
from extracurricular.report import cells

# A console for measuring alone, wide enough for any table.
_WIDE = Console(width=1000)
# Targets in the table of each target's figures.
_MOST_TARGETS = 8


def table(summary: Mapping[str, Any], width: int | None = None) -> Table:
    """Return the table of a run: mean ± deviation over seeds, the best student bold.

    Args:
        summary: ``summary.json``.
        width: Columns of the terminal; in a narrow one, the multiply-adds of the trainings stand
            below the table. None for any number.
    """
    found = _table(summary, cost=True)
    if width is None or Measurement.get(_WIDE, _WIDE.options, found).maximum <= width:
        return found
    return _table(summary, cost=False)


def _table(summary: Mapping[str, Any], cost: bool) -> Table:
    headings, rows = cells.table(summary, cost)
    notes = [cells.table_note(summary), None if cost else cells.cost_note(summary)]
    result = Table(
        caption="\n".join(escape(note) for note in notes if note) or None,
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


def verdict(summary: Mapping[str, Any]) -> list[str]:
    """Return the sentences of the verdict, with marks for the terminal."""
    lines = []
    for sentence in sentences(summary):
        start = "[yellow]Note:[/yellow] " if sentence.note else ""
        texts = (f"[bold]{escape(t)}[/bold]" if bold else escape(t) for t, bold in sentence.parts)
        lines.append(start + "".join(texts))
    return lines
