"""One table of words: every figure has an entry, and an entry shows everywhere."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from extracurricular.assess.compare import compare
from extracurricular.cli import evaluate as command
from extracurricular.distributions import Bernoulli, Categorical, Gaussian
from extracurricular.evaluation import metrics, words
from extracurricular.evaluation.classes import EACH
from extracurricular.evaluation.summary import summarise
from extracurricular.evaluation.words import (
    ABSENT,
    NOT_FINITE,
    WORDS,
    Words,
    error_measure,
    figure_text,
    known,
    markdown,
    register,
    renewed,
    small,
)
from extracurricular.export import card
from extracurricular.export.rows import Row, cells, headings
from extracurricular.report import terminal
from extracurricular.report.comparison import render_comparison
from extracurricular.report.comparison_table import lines
from extracurricular.report.page import render
from tests.report.made import made_report

DOCS = Path(__file__).parents[2] / "docs" / "evaluate.md"


@pytest.fixture
def zeal(monkeypatch: pytest.MonkeyPatch) -> Words:
    """A made-up figure, registered as anybody would."""
    monkeypatch.setattr(words, "WORDS", dict(WORDS))
    return register(
        Words(
            "zeal",
            "ZEAL",
            "how keen the student is",
            "classes",
            "higher",
            form=".5f",
            unit="nats",
            remark="it was made up",
            small="all",
        )
    )


def printed(lines: Any) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    for line in lines:
        console.print(line)
    return console.export_text()


def test_every_figure_has_words() -> None:
    classes, reals = Categorical(torch.randn(9, 3)), Gaussian(torch.randn(9, 2), torch.zeros(9, 2))
    found = set(metrics.figures(classes, torch.arange(9) % 3, teacher=classes))
    labels = Bernoulli(torch.randn(9, 3))
    found |= set(metrics.figures(labels, torch.eye(3).repeat(3, 1), teacher=labels))
    found |= set(metrics.figures(reals, torch.zeros(9, 2), teacher=reals, angular=True))
    # What `xcl evaluate` adds; see assess/evaluate.py.
    found |= {"coverage50", "coverage95", "js_to_teacher", "auroc", "fpr95", "error_rate"}
    # What gaps are measured in where classes are imbalanced, and what each class has.
    found |= {"balanced_error_rate", *EACH}
    assert found == set(WORDS)
    for name, entry in WORDS.items():
        assert entry.name == name
        assert entry.title
        assert entry.about
        assert entry.range
        assert not entry.about.endswith(".")
        assert not entry.remark.endswith(".")
        assert "|" not in entry.about + entry.remark  # it stands in a table of Markdown


def test_the_docs_have_the_table_as_it_is() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert renewed(text) == text, "run python docs/tables.py"
    with pytest.raises(ValueError, match="has no marks"):
        renewed("# A page")


def test_a_figure_that_is_registered_once_shows_everywhere(
    zeal: Words, capsys: pytest.CaptureFixture[str]
) -> None:
    report = made_report(more={"zeal": 0.123456})
    # The terminal's table.
    assert "ZEAL" in printed([terminal.table(report.summary)])
    assert "0.12346" in printed([terminal.table(report.summary)])
    # The page: the small table, the full one, and the explanation.
    page = render(report, "x")
    assert page.count("0.12346") == 2 * (1 + len(report.summary["students"]))
    assert "<li>ZEAL: how keen the student is, in nats; higher is better. It was made up.</li>" in (
        page.replace("\N{NO-BREAK SPACE}", " ")
    )
    # xcl compare: tables, and the page.
    other = replace(report, summary=made_report(more={"zeal": 0.2}).summary)
    found = compare({"a": report.summary, "b": other.summary})
    shown = printed(lines(found))
    assert "ZEAL" in shown
    assert "+0.07654" in shown
    assert "difference in ZEAL" in render_comparison(found)
    # The model card and the table of an export.
    rows = [Row("teacher"), Row("s"), Row("s.onnx", metrics={"accuracy": 0.5, "zeal": 0.123456})]
    assert "ZEAL" in headings(rows)
    assert "0.12346" in cells(rows)[2]
    said = {"task": "classification", "files": {"s.onnx": {"split": "test", "examples": 5}}}
    subject = SimpleNamespace(
        examples=5, split_name="test", measured=None, imbalanced=False, classes={}
    )
    text = card._figures(subject, said, rows)  # type: ignore[arg-type]
    assert re.search(r"\| ZEAL .*\| s\.onnx \|.*\| 0\.12346 ", text, re.DOTALL)
    # xcl evaluate.
    figure = {"mean": 0.123456, "std": 0.0, "per_seed": [0.123456]}
    command._show(evaluated({"zeal": figure}))
    assert re.search(r"ZEAL +0\.12346 +nats", capsys.readouterr().out)
    # The docs.
    assert "| ZEAL, `zeal` | classes | how keen the student is |" in markdown()


def evaluated(figures: dict[str, Any]) -> dict[str, Any]:
    """What `xcl evaluate` finds."""
    none = dict.fromkeys(("parameters", "fidelity", "corruptions", "ood", "against"))
    model = {"model": "m", "data": "d", "split": "test", "examples": 5, "seeds": None, "notes": []}
    return {**none, **model, "metrics": figures}


def test_a_name_is_registered_once(zeal: Words) -> None:
    with pytest.raises(ValueError, match="the figure 'zeal' is registered already"):
        register(zeal)


def test_headings_of_narrow_tables() -> None:
    assert [entry.heading for entry in small(WORDS.keys() - {"angular_error"})] == [
        "accuracy %",
        "balanced accuracy %",
        "Hamming loss %",
        "macro F1",
        "RMSE",
        "NLL",
        "ECE %",
        "cover 90 %",
        "KL to teacher",
    ]
    assert [entry.heading for entry in small(WORDS, "exports")] == [
        "accuracy %",
        "Hamming loss %",
        "angular error °",
        "NLL",
    ]
    assert WORDS["accuracy"].change == "accuracy points"
    assert WORDS["coverage90"].change == "cover 90 points"
    assert WORDS["angular_error"].label == "angular error, °"
    assert WORDS["coverage90"].label == "coverage of 90 %"
    assert WORDS["rmse"].beside == "in units of the target"
    assert WORDS["fpr95"].beside == "% where 95 % of the foreign ones are found"


def test_a_narrow_table_shows_one_of_two_figures_that_say_the_same() -> None:
    names = ["rmse", "nll", "angular_error", "mae", "unheard of"]
    assert [entry.name for entry in small(names)] == ["angular_error", "nll"]
    assert [entry.name for entry in small(["nll", "rmse"])] == ["rmse", "nll"]
    assert [entry.name for entry in known(names)] == ["angular_error", "rmse", "mae", "nll"]


def test_figures_of_rare_classes_take_room_where_classes_are_imbalanced() -> None:
    names = ["accuracy", "balanced_accuracy", "macro_f1", "nll"]
    assert [entry.name for entry in small(names)] == ["accuracy", "nll"]
    assert [entry.name for entry in small(names, imbalanced=True)] == names
    assert [entry.name for entry in small(["hamming", "macro_f1"])] == ["hamming", "macro_f1"]


def test_the_error_that_gaps_are_measured_in() -> None:
    assert error_measure({"angular_error": 4.0, "rmse": 2.0}) == "angular_error"
    assert error_measure({"rmse", "nll"}) == "rmse"
    assert error_measure(["accuracy"]) == "error_rate"


def seeds(*values: float) -> dict[str, Any]:
    """A figure of several seeds, as summary.json has it."""
    row = {"steps": 1, "seconds": 1.0, "parameters": 1}
    rows = [{**row, "metrics": {"rmse": value}} for value in values]
    recipe = {"reference": None, "plain": None, "subject": None}
    summary = summarise(recipe, "regression", list(range(len(values))), rows, {})
    figure: dict[str, Any] = summary["teacher"]["metrics"]["rmse"]
    return figure


@pytest.mark.parametrize(
    ("name", "figure", "text"),
    [
        ("accuracy", seeds(0.9, 0.8), "85.00 ± 7.07"),
        ("accuracy", seeds(0.9), "90.00"),
        ("accuracy", seeds(0.9, 0.9), "90.00"),  # a teacher that all seeds share
        ("accuracy", 0.9123, "91.23"),
        ("nll", seeds(-1.5, -1.4), "-1.450 ± 0.071"),
        ("nll", seeds(1.0, math.inf), NOT_FINITE),
        ("nll", math.inf, NOT_FINITE),
        ("nll", None, ABSENT),
        ("rmse", seeds(0.125, 0.135), "0.1300 ± 0.0071"),
        ("rmse", seeds(2.9, 3.0), "2.950 ± 0.071"),
        ("rmse", seeds(49_000.4, 50_000.4), "49500 ± 707"),
        ("rmse", 3e-7, "3e-07"),
        ("rmse", 213751177.17, "2.138e+08"),
        ("rmse", seeds(2.0e8, 2.2e8), "2.1e+08 ± 1.41e+07"),
        ("rmse", seeds(1.234e-21, 1.244e-21), "1.239e-21 ± 7e-24"),
        ("rmse", 999_999.4, "999999"),
        ("rmse", 0.0, "0.000"),
    ],
)
def test_how_a_figure_is_written(name: str, figure: Any, text: str) -> None:
    assert figure_text(WORDS[name], figure) == text


def test_the_deviation_can_be_left_out() -> None:
    assert figure_text(WORDS["accuracy"], seeds(0.9, 0.8), spread=False) == "85.00"


def test_how_a_difference_is_written() -> None:
    assert WORDS["accuracy"].signed(-0.0123) == "−1.23"
    assert WORDS["nll"].signed(0.0001) == "0.000"
    assert WORDS["rmse"].signed(0.0123) == "+0.0123"
    assert WORDS["rmse"].signed(-0.00123, like=0.0456) == "−0.0012"
