"""The page of a sweep: the table, a plot for each setting that was varied, what was done once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from extracurricular.evaluation.words import Words
from extracurricular.files import write_if_changed
from extracurricular.report.figures import Axis, Line, chart, shortened
from extracurricular.report.page import environment
from extracurricular.report.sections import Figure
from extracurricular.report.sweep_table import (
    headings,
    lines,
    main_words,
    once,
    sentences,
)
from extracurricular.report.write import sealed
from extracurricular.run.sweep import FILE as FILE

PAGE = "sweep.html"
_ROLES = ("s1", "s0", "s2", "s3", "s4", "s5")
# A logarithmic axis pays from this ratio of the values on.
_WIDE = 8.0


def write_sweep(found: Mapping[str, Any], folder: Path) -> Path:
    """Write the page of a sweep into its folder, unless it is there; return its file.

    Args:
        found: What ``sweep.json`` holds.
        folder: The folder of the sweep.
    """
    file = folder / PAGE
    write_if_changed(file, sealed(render_sweep(found, folder)))
    return file


def render_sweep(found: Mapping[str, Any], folder: Path) -> str:
    """Return the page as HTML."""
    from markupsafe import Markup

    pictures = [{**vars(one), "svg": Markup(one.svg)} for one in plots(found)]
    shown = lines(found)
    return (
        environment()
        .get_template("sweep.html.j2")
        .render(
            fingerprint="",
            found=found,
            title=" × ".join(found["names"][key] for key in found["keys"]),
            verdict=sentences(found)[:-1],
            once=once(found),
            headings=headings(found),
            rows=[(line, _link(folder, line.row["run"])) for line in shown],
            pictures=pictures,
            seeds=len(found["seeds"]),
        )
    )


def _link(folder: Path, run: str) -> str | None:
    """Return the address of a run's page, relative to that of the sweep; None where it has none."""
    page = f"{run}/report.html"
    return quote(page) if (folder / page).is_file() else None


def plots(found: Mapping[str, Any]) -> list[Figure]:
    """Return the figure that decides against each setting that has several values.

    With halving they show the first rung, on which all combinations had as many steps.
    """
    rungs = found.get("rungs") or []
    rows = [row for row in rungs if row["part"] == rungs[0]["part"]] or found["rows"]
    part = rows[0]["part"]
    words = main_words(found)
    rows = [row for row in rows if (row["figures"].get(words.name) or {}).get("mean") is not None]
    result = []
    for place, key in enumerate(found["keys"]):
        values = _values(found, key)
        if len(values) > 1 and rows:
            result.append(_plot(found, rows, key, values, words, part, place))
    return result


def _plot(
    found: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    key: str,
    values: list[tuple[Any, str]],
    words: Words,
    part: float,
    place: int,
) -> Figure:
    name = found["names"][key]
    numbers = [value for value, _ in values if _is_number(value)]
    numeric = len(numbers) == len(values)
    order = [value for value, _ in values]
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: _place(found, row)):
        groups.setdefault(_others(found, row, key), []).append(row)
    many = len(groups) > len(_ROLES)
    drawn, told, legend = [], [], []
    for number, (label, some) in enumerate(groups.items()):
        role = "other" if many else _ROLES[number]
        some = sorted(some, key=lambda row: order.index(row["values"][key]))
        x = [row["values"][key] if numeric else order.index(row["values"][key]) for row in some]
        figures = [row["figures"][words.name] for row in some]
        mean = words.scale * np.array([float(one["mean"]) for one in figures])
        spread = words.scale * np.array([float(one["std"] or 0.0) for one in figures])
        drawn.append(
            Line(role, np.array(x, dtype=float), mean, mean - spread, mean + spread, style="both")
        )
        if label and not many:
            legend.append((role, shortened(label, 40)))
        told += [
            f"{row['label']} {one['mean']:.4g}" for row, one in zip(some, figures, strict=True)
        ]
    return Figure(
        f"{words.title[0].upper()}{words.title[1:]} against {name}",
        chart(
            f"sweep-{place}",
            f"{words.title} on validation examples against {name}: {'; '.join(told)}.",
            drawn,
            _axis(name, values, numbers if numeric else None),
            Axis(words.label),
        ),
        legend,
        _caption(found, words, part, many),
    )


def _axis(name: str, values: list[tuple[Any, str]], numbers: list[Any] | None) -> Axis:
    if numbers is None:
        texts = [shortened(text, 12) for _, text in values]
        edge = len(values) - 0.6
        return Axis(
            name,
            limits=(-0.4, edge),
            ticks=range(len(values)),
            form=lambda value: texts[round(value)],
        )
    low, high = min(numbers), max(numbers)
    log = low > 0 and high / low >= _WIDE
    room = (high / low) ** 0.06 if log else 0.06 * (high - low)
    limits = (low / room, high * room) if log else (low - room, high + room)
    few = numbers if len(numbers) <= 6 else None
    return Axis(name, log=log, limits=limits, ticks=few, form=(lambda v: f"{v:g}") if few else None)


def _caption(found: Mapping[str, Any], words: Words, part: float, many: bool) -> str:
    better = {"higher": "Higher is better.", "lower": "Lower is better.", "neither": ""}
    text = f"On validation examples. {better[words.better]}"
    if len(found["seeds"]) > 1:
        text += f" Bars are standard deviations over {len(found['seeds'])} seeds."
    if part < 1:
        text += f" All combinations, with {100 * part:g} % of their steps."
    if many:
        text += " A line joins combinations that agree in everything else."
    return text


def _others(found: Mapping[str, Any], row: Mapping[str, Any], key: str) -> str:
    """Return what a combination has besides a key, and whose it is, as text."""
    parts = [row["student"]] if len(found["students"]) > 1 else []
    for other in found["keys"]:
        if other != key:
            [text] = [
                text for value, text in _values(found, other) if value == row["values"][other]
            ]
            parts.append(f"{found['names'][other]}={text}")
    return ", ".join(parts)


def _place(found: Mapping[str, Any], row: Mapping[str, Any]) -> list[int]:
    """Return the places of a row's values among those of each key."""
    return [
        [value for value, _ in _values(found, key)].index(row["values"][key])
        for key in found["keys"]
    ]


def _values(found: Mapping[str, Any], key: str) -> list[tuple[Any, str]]:
    """Return the values of a key with their texts, numbers in order."""
    known = {
        repr(run["values"][key]): (run["values"][key], run["texts"][key]) for run in found["runs"]
    }
    values = list(known.values())
    if all(_is_number(value) for value, _ in values):
        return sorted(values)
    return values


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
