"""The table of an export: a row for the teacher, the student and each file, as text."""

from __future__ import annotations

from dataclasses import dataclass, field

from extracurricular.evaluation.words import ABSENT, Words, count_text, figure_text, small


@dataclass
class Row:
    """A row of the table: the teacher, the student, or a file.

    Args:
        name: Its name.
        parameters: Number of its parameters.
        size: Bytes of its file.
        difference: Largest difference from the student, see
            :func:`~extracurricular.export.verify.differences`.
        metrics: Figures on the split.
        seconds: Time of a call by the number of examples in it.
    """

    name: str
    parameters: int | None = None
    size: int | None = None
    difference: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)


def headings(rows: list[Row]) -> list[str]:
    """Return the headings of :func:`cells`."""
    figures = [words.heading for words in _shown(rows)]
    batches = [f"ms at {count}" for count in _batches(rows)]
    return ["", "parameters", "kB", "difference", *figures, *batches]


def cells(rows: list[Row]) -> list[list[str]]:
    """Return the rows as text, a dash where there is no figure."""
    return [
        [
            row.name,
            count_text(row.parameters),
            ABSENT if row.size is None else f"{row.size / 1000:,.1f}",
            ABSENT if row.difference is None else f"{row.difference:.1e}",
            *(figure_text(words, row.metrics.get(words.name)) for words in _shown(rows)),
            *(_time(row.seconds.get(count)) for count in _batches(rows)),
        ]
        for row in rows
    ]


def _batches(rows: list[Row]) -> list[int]:
    return list(next((row.seconds for row in reversed(rows) if row.seconds), {}))


def _shown(rows: list[Row]) -> list[Words]:
    # A file that is not verified has no figures.
    return small(next((row.metrics for row in reversed(rows) if row.metrics), {}), "exports")


def _time(seconds: float | None) -> str:
    return ABSENT if seconds is None else f"{1e3 * seconds:.3f}"
