"""The cost of a run, as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from extracurricular.run.estimate import Estimate, whole_seconds


def plan_lines(found: list[Estimate]) -> Iterator[RenderableType]:
    """Yield the table of stages, and a sentence on the whole."""
    timed = any(one.seconds is not None for one in found)
    yield _table(found, timed)
    waiting = [one for one in found if not one.done]
    if not waiting:
        yield "Everything is done."
        return
    steps = sum(one.price.steps for one in waiting)
    asked = sum(one.price.questions for one in waiting)
    size = sum(one.price.bytes for one in waiting)
    yield (
        f"{len(waiting)} of {len(found)} stages remain: {steps:,} steps, {asked:,} questions to "
        f"the teacher, {_bytes(size)} to write."
    )
    if timed:
        low, high = whole_seconds(found)
        yield f"The trainings take {span(low, high)} on this machine, one after the other."


def _table(found: list[Estimate], timed: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    table.add_column("")
    table.add_column("stage")
    for heading in ("steps", "draws", "questions", "to write", "parameters"):
        table.add_column(heading, justify="right")
    if timed:
        table.add_column("time", justify="right")
    for one in found:
        price = one.price
        numbers = (price.steps, price.draws, price.questions)
        cells = [f"{number:,}" if number else "" for number in numbers]
        cells.append(_bytes(price.bytes) if price.bytes else "")
        cells.append("" if price.parameters is None else f"{price.parameters:,}")
        if timed:
            cells.append("" if one.seconds is None else span(*one.seconds))
        mark = "[green]✓[/green]" if one.done else ""
        style = "dim" if one.done else ""
        table.add_row(mark, escape(one.stage.title), *cells, style=style)
    return table


def _bytes(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} B"


def span(low: float, high: float) -> str:
    """Return a range of times in the unit that suits it: s, min or h."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if high >= 2 * size:
            return f"{low / size:.1f} to {high / size:.1f} {unit}"
    return f"{low:.0f} to {high:.0f} s" if high >= 10 else f"{low:.1f} to {high:.1f} s"
