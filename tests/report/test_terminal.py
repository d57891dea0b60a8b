"""The table and the verdict in a terminal."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from extracurricular.evaluation.summary import Sentence, sentences
from extracurricular.report.terminal import table, verdict
from tests.report.made import made_report


def printed(thing: Any) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(thing)
    return console.export_text()


def test_the_terminal_has_the_same_verdict() -> None:
    entry = {
        "steps": 10,
        "metrics": {"accuracy": {"mean": 0.9, "per_seed": [0.9, 0.9]}},
        "gap_closed": {"value": 0.5, "ci95": [0.25, None]},
    }
    other = {
        "steps": 20,
        "metrics": {"accuracy": {"mean": 0.8, "per_seed": [0.8, 0.8]}},
        "gap_closed": {"value": 0.0, "ci95": [0.0, 0.0]},
    }
    summary = {
        "students": {"kd": other, "[xcl]": entry},
        "recipe": {"evaluation": {"split": "validation"}, "reference": "kd", "subject": "[xcl]"},
    }
    found = sentences(summary)
    assert found[0].text == (
        "[xcl] closes 50 % of the gap that kd leaves to the teacher "
        "(95 % interval over seeds: 25 to ∞ %): its error rate is 10.00 % against 20.00 %."
    )
    assert [s.note for s in found] == [False, True, True]
    lines = verdict(summary)
    assert lines[0].startswith(r"[bold]\[xcl][/bold] closes [bold]50 %[/bold] of")
    assert lines[1].startswith("[yellow]Note:[/yellow] the students had unequal budgets")
    assert Sentence((("a", True), ("b", False))).text == "ab"


def test_names_are_not_read_as_markup() -> None:
    summary = made_report({"[red]a": 1.0, "[b]": 2.0}, {"reference": "[b]"}).summary
    text = printed(table(summary))
    assert "[red]a" in text
    assert "[b]" in text
    assert "mean ± standard deviation over 2 seeds" in text
