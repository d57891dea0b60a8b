"""The ranking of draws as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from extracurricular.assess.draws import GROUP, Ranking

_ABSENT = "–"


def lines(ranking: Ranking) -> Iterator[RenderableType]:
    """Yield the table, and what there is to say about it."""
    yield _table(ranking)
    what = "mean prediction" if ranking.data.task.kind == "regression" else "mean probability"
    yield (
        f"{ranking.count:,} draws of each. The spread is that of the teacher's {what} over groups "
        f"of {GROUP} draws, lowest first (Wang et al. 2022)."
    )
    if ranking.held_out:
        yield f"The distance is from {ranking.held_out:,} validation examples."
    else:
        yield "There is no distance, since the data have no validation examples."
    for name, reason in ranking.skipped.items():
        yield f"{escape(name)} is left out: {reason}."
    yield (
        "The order by spread foretold long trainings on digits, but neither short ones nor those "
        "on tables (docs/method.md)."
    )


def _table(ranking: Ranking) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    table.add_column("")
    table.add_column("sampler")
    table.add_column("students")
    for heading in ("spread", "entropy", "distance", "ms a draw", "ms an answer", "questions"):
        table.add_column(heading, justify="right")
    for place, one in enumerate(ranking.ranked, 1):
        found = one.figures
        table.add_row(
            str(place),
            escape(one.candidate.name),
            escape(", ".join(one.candidate.students)),
            f"{found.spread:.4f}",
            f"{found.entropy:.3f}",
            _ABSENT if found.frechet is None else f"{found.frechet:.3g}",
            f"{found.draw_ms:.3f}",
            f"{found.answer_ms:.3f}",
            f"{found.questions:.2g}",
        )
    return table
