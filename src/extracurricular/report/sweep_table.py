"""The table of a sweep, and its sentences: what the terminal and the page both show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from extracurricular.assess.compare import Difference, paired
from extracurricular.evaluation.words import (
    ABSENT,
    BALANCED,
    WORDS,
    Words,
    amount_text,
    figure_text,
    small,
)
from extracurricular.report.comparison_table import better, difference_text
from extracurricular.report.page import duration

_SHOWN = {"error_rate": "accuracy", BALANCED: "balanced_accuracy"}


@dataclass(frozen=True)
class Line:
    """A line of the table.

    Args:
        values: The values of its combination, as texts.
        cells: Its other cells.
        best: Whether it is the best by validation.
        row: The row as ``sweep.json`` has it.
    """

    values: list[str]
    cells: list[str]
    best: bool
    row: Mapping[str, Any]


def main_words(found: Mapping[str, Any]) -> Words:
    """Return the words of the figure that combinations are compared by, as tables show it."""
    measure = found["measure"]
    return WORDS[_SHOWN.get(measure, measure)]


def shown_words(found: Mapping[str, Any]) -> list[Words]:
    """Return the words of the figures that the table shows, the one that decides first."""
    names = {name for row in found["rows"] for name in row["figures"]}
    main = main_words(found)
    others = small(names, "exports", found["measure"] == BALANCED)
    return [main, *(words for words in others if words.name != main.name)]


def headings(found: Mapping[str, Any]) -> list[str]:
    """Return the headings of :func:`lines`."""
    result = [found["names"][key] for key in found["keys"]]
    result += ["student"] if len(found["students"]) > 1 else []
    result += [words.heading for words in shown_words(found)]
    result += ["to the best"] if len(found["seeds"]) > 1 else []
    return [*result, *_differing(found)]


def lines(found: Mapping[str, Any]) -> list[Line]:
    """Return a line for each combination and judged student, the best first."""
    texts = _texts(found)
    shown, several = shown_words(found), len(found["students"]) > 1
    result = []
    for row in found["rows"]:
        values = [texts[key][_mark(row["values"][key])] for key in found["keys"]]
        cells = [row["student"]] if several else []
        cells += [figure_text(words, row["figures"].get(words.name)) for words in shown]
        if len(found["seeds"]) > 1:
            difference = to_the_best(found, row)
            text = "" if difference is None else difference_text(difference, shown[0])
            cells.append(ABSENT if row["stopped"] else text)
        part = f" ({100 * row['part']:g} %)" if row["part"] < 1 else ""
        costs = {"steps": f"{row['steps']:,}{part}", "parameters": amount_text(row["parameters"])}
        cells += [costs[cost] for cost in _differing(found)]
        result.append(Line(values, cells, row["best"], row))
    return result


def to_the_best(found: Mapping[str, Any], row: Mapping[str, Any]) -> Difference | None:
    """Return the difference of a row's figure from that of the best, paired over seeds.

    None for the best itself, and for combinations that stopped before their end.
    """
    best = best_row(found)
    if best is None or row is best or row["stopped"]:
        return None
    name = main_words(found).name
    return paired(*(_by_seed(found, one, name) for one in (row, best)))


def best_row(found: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the row that is best by validation; None where no figure is finite."""
    return next((row for row in found["rows"] if row["best"]), None)


def sentences(found: Mapping[str, Any]) -> list[str]:
    """Return what the table shows, the best combination first."""
    best, words = best_row(found), main_words(found)
    if best is None:
        return ["No combination has finite figures on the validation examples."]
    whose = f"{best['student']} with " if len(found["students"]) > 1 else ""
    told = _figure(words, best["figures"])
    name = found["students"][0] if not whose else best["student"]
    first = f"{whose}{best['label']} is best by validation: {name} has {words.title} {told} there"
    if "test" in best:
        first += f", and {_figure(words, best['test'])} on test examples"
    result = [f"{first}."]
    others = [row for row in found["rows"] if row is not best and not row["stopped"]]
    differences = [d for row in others if (d := to_the_best(found, row)) is not None]
    if len(found["seeds"]) == 1 and others:
        result.append(
            "There is one seed, so nobody knows which differences are chance; seeds=[0,1,2] tells."
        )
    elif differences:
        same = sum(better(one, words) is None for one in differences)
        if same:
            which = "All" if same == len(differences) > 1 else f"{same} of the"
            which = "The other" if len(differences) == 1 else f"{which} {len(differences)} others"
            result.append(
                f"{which} may be as good: over "
                f"{len(found['seeds'])} seeds the 95 % interval of the difference holds 0."
            )
        else:
            result.append("All others are worse by more than chance explains, seed by seed.")
    edge = _edges(found, best)
    if edge:
        result.append(edge)
    stopped = sum(row["stopped"] for row in found["rows"])
    if stopped:
        result.append(
            f"{stopped} combinations stopped before their end; their figures are those of shorter "
            "trainings."
        )
    result.append(once(found))
    return result


def once(found: Mapping[str, Any]) -> str:
    """Return a sentence on what was done once for several runs."""
    every = sum(part["stages"] for part in found["shared"])
    done = sum(part["done"] for part in found["shared"])
    if every == done:
        return f"No two of the {every} stages are equal, so each was done."
    spared = sum(part["seconds"] - part["took"] for part in found["shared"])
    return f"{every} stages are {done} different ones: {duration(spared)} of training was spared."


def sweep_table(found: Mapping[str, Any]) -> Table:
    """Return the table for a terminal."""
    count = len(found["seeds"])
    over = f", mean ± standard deviation over {count} seeds" if count > 1 else ""
    table = Table(
        box=box.SIMPLE_HEAD,
        header_style="bold",
        pad_edge=False,
        caption=f"figures on the validation examples{over}",
        caption_justify="left",
    )
    for place, heading in enumerate(headings(found)):
        values = place < len(found["keys"])
        table.add_column(escape(heading), justify="left" if values else "right", no_wrap=not values)
    before = False
    for line in lines(found):
        stopped = line.row["stopped"]
        if stopped and not before and table.rows:
            table.add_section()
        before = stopped
        style = "bold" if line.best else "dim" if stopped else ""
        table.add_row(*map(escape, [*line.values, *line.cells]), style=style)
    return table


def _differing(found: Mapping[str, Any]) -> list[str]:
    """Return the costs in which combinations differ."""
    costs = ("steps", "parameters")
    return [cost for cost in costs if len({row[cost] for row in found["rows"]}) > 1]


def _figure(words: Words, figures: Mapping[str, Any]) -> str:
    text = figure_text(words, figures.get(words.name))
    unit = words.sign or (words.unit if words.unit == "nats" else "")
    return f"{text}{'' if unit == '°' else ' '}{unit}".rstrip()


def _edges(found: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    """Return a hint that the best value of a key is the least or the largest; empty for none."""
    ends = []
    for key in found["keys"]:
        values = {run["values"][key] for run in found["runs"] if _is_number(run["values"][key])}
        value = best["values"][key]
        if len(values) > 2 and _is_number(value) and value in (min(values), max(values)):
            ends.append(found["names"][key])
    if not ends:
        return ""
    which = "is" if len(ends) == 1 else "are"
    return (
        f"{' and '.join(ends)} {which} at the end of the values that were tried; the best may lie "
        "beyond."
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _by_seed(found: Mapping[str, Any], row: Mapping[str, Any], name: str) -> dict[int, float]:
    values: Sequence[Any] = row["figures"].get(name, {}).get("per_seed", ())
    pairs = zip(found["seeds"], values, strict=False)
    return {seed: value for seed, value in pairs if value is not None}


def _texts(found: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return how each value of each key was written."""
    return {
        key: {_mark(run["values"][key]): run["texts"][key] for run in found["runs"]}
        for key in found["keys"]
    }


def _mark(value: Any) -> str:
    return repr(value)
