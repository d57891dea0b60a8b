"""The front of a run, as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from extracurricular.evaluation.front import read
from extracurricular.evaluation.words import WORDS, amount_text


def front_table(told: Mapping[str, Any]) -> Table:
    """Return the table of a front: students from the smallest file on, the best one bold.

    Args:
        told: What :func:`~extracurricular.export.front.report` gives.
    """
    words, limit = WORDS[told["measure"]], told["limit"]
    table = Table(
        box=box.SIMPLE_HEAD,
        header_style="bold",
        pad_edge=False,
        caption=f"errors ({words.label}) are means over seeds; ms for one example on {told['cpu']}",
        caption_justify="left",
    )
    table.add_column("exported student")
    headings = ("validation", told["split"], "ms", "bytes", "multiply-adds", "parameters")
    for heading in headings:
        table.add_column(heading, justify="right")
    for one in sorted((read(point) for point in told["points"]), key=lambda one: one.bytes):
        cells = [words.number(one.validation), words.number(one.error)]
        for cost in ("ms", "bytes", "multiply_adds"):
            cells.append(_cell(getattr(one, cost), limit.get(cost)))
        chosen = (one.student, one.precision) == (told["best"], told["precision"])
        table.add_row(
            escape(one.name), *cells, amount_text(one.parameters), style="bold" if chosen else ""
        )
    return table


def _cell(value: float | None, most: float | None) -> str:
    text = amount_text(value)
    beyond = most is not None and (value is None or value > most)
    return f"[red]{text}[/red]" if beyond else text
