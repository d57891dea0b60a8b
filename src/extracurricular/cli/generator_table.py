"""The figures of generators, as a table for the terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

# The title of each row, the figure's name, and its format.
_ROWS = (
    ("Fréchet distance to training examples", "frechet", "{:.3g}"),
    ("  of held-out real examples (the floor)", "floor", "{:.3g}"),
    ("variety, relative to real examples", "variety", "{:.0%}"),
    ("  of the least varied class", "least_variety", "{:.0%}"),
    ("coverage of the real examples", "coverage", "{:.0%}"),
    ("  by held-out real examples", "ceiling", "{:.0%}"),
    ("teacher's error against the condition", "label_error", "{:.3g}"),
    ("  on held-out real examples", "real_error", "{:.3g}"),
)


def generator_table(found: dict[str, dict[str, Any]]) -> Table:
    """Return the figures of generators, by the path of each, as a table."""
    result = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    result.add_column("")
    for path in found:
        result.add_column(path.removeprefix("generators/"), justify="right")
    for text, name, form in _ROWS:
        values = [figures[name] for figures in found.values()]
        if any(value is not None for value in values):
            cells = ("" if v is None else form.format(v).replace("%", " %") for v in values)
            result.add_row(text, *cells)
    return result
