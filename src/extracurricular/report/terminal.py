"""The result of a run as a terminal shows it: the table and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from extracurricular.evaluation.summary import sentences
from extracurricular.report import cells


def table(summary: Mapping[str, Any]) -> Table:
    """Return the table of a run: mean ± deviation over seeds, the best student bold."""
    headings, rows = cells.table(summary)
    result = Table(
        caption=cells.table_note(summary),
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


def verdict(summary: Mapping[str, Any]) -> list[str]:
    """Return the sentences of the verdict, with marks for the terminal."""
    lines = []
    for sentence in sentences(summary):
        start = "[yellow]Note:[/yellow] " if sentence.note else ""
        texts = (f"[bold]{escape(t)}[/bold]" if bold else escape(t) for t, bold in sentence.parts)
        lines.append(start + "".join(texts))
    return lines
