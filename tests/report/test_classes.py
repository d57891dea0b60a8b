"""Tables of classes and confusions: in a terminal, on a page, at any width."""

from __future__ import annotations

import io
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from extracurricular.evaluation.classes import MOST, class_rows, shown_classes
from extracurricular.report.classes import class_tables, recall_table
from extracurricular.report.collect import Report
from extracurricular.report.confusions import own_confusions
from extracurricular.report.page import render, share, signed
from extracurricular.report.terminal import classes_table, table
from tests.chromium import Page, browser
from tests.report.made import made_report

TWELVE = (
    *("sparrow", "blackbird", "great_tit", "blue_tit", "starling", "robin", "magpie", "wren"),
    *("chaffinch", "kingfisher", "goldcrest", "long-tailed_tit"),
)
LONG = tuple(f"a class whose name is rather long, number {k}" for k in range(16))


def birds(names: tuple[str, ...] = TWELVE, **more: Any) -> Report:
    return made_report(names=names, counts={n: 500 // (1 + k) for k, n in enumerate(names)}, **more)


def printed(thing: Any, width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(thing)
    return console.export_text()


def test_recalls_are_those_of_the_summary() -> None:
    summary = birds().summary
    headings, rows, note = recall_table(summary)
    assert headings == ["class", "train", "test", "teacher", "baseline", "plain_kd", "ours"]
    assert [row[0].text for row in rows] == list(TWELVE)
    assert [row[1].text for row in rows][:3] == ["500", "250", "166"]
    assert {row[2].text for row in rows} == {"5"}
    for row in rows:
        own = summary["students"]["ours"]["classes"][row[0].text]["recall"]
        assert row[-1].text.startswith(f"{100 * own['mean']:.2f}"[:2])
        best = [cell for cell in row[4:] if cell.best]
        assert len(best) < 3  # all alike have no best
    assert "mean ± standard deviation over 2 seeds" in note


def test_a_summary_from_before_classes_were_measured_has_no_such_tables() -> None:
    report = birds()
    summary = deepcopy(report.summary)
    for entry in (summary["teacher"], *summary["students"].values()):
        del entry["classes"]
        for figure in ("balanced_accuracy", "macro_f1", "macro_auroc", "macro_auprc"):
            del entry["metrics"][figure]
    del summary["balance"], summary["measure"]
    assert recall_table(summary)[1] == class_tables(summary) == []
    assert classes_table(summary) is None
    page = render(Report(**{**vars(report), "summary": summary}), "x")
    assert "<h2>Each class</h2>" not in page
    assert "balanced accuracy" not in page


def test_a_terminal_shows_classes_where_they_are_imbalanced() -> None:
    assert classes_table(made_report().summary) is None
    even = made_report(counts=dict.fromkeys("abcd", 10)).summary
    assert classes_table(even) is None
    assert "balanced accuracy" not in printed(table(even), 200)
    summary = birds().summary
    assert "balanced accuracy %" in printed(table(summary), 200)
    for width in (120, 60, 40):
        text = printed(classes_table(summary, width), width)
        assert all(name in text for name in TWELVE)
        assert "ours" in text  # the subject stays
        assert max(map(len, text.splitlines())) <= width
    narrow = printed(classes_table(summary, 60), 60)
    assert "for want of width without train, baseline" in " ".join(narrow.split())
    # The figure that the verdict is about stays longest.
    assert "balanced accuracy %" in printed(table(summary, 44), 44)


def test_of_very_many_classes_the_worst_and_the_best_are_shown() -> None:
    figures = {f"c{k:03}": {"f1": {"mean": k / 200, "std": 0, "per_seed": [0]}} for k in range(150)}
    figures["never"] = {}
    names, told = shown_classes(figures)
    assert names == [*(f"c{k:03}" for k in range(5)), *(f"c{k}" for k in range(145, 150))]
    assert told == "the 5 classes of lowest and of highest F1, of 151; the JSON has all"
    assert len(class_rows(figures)[1]) == 10
    few = dict(list(figures.items())[:MOST])
    assert shown_classes(few) == (list(few), None)


def test_the_subjects_confusions_are_shares_of_each_class() -> None:
    report = birds()
    found = own_confusions(report)
    assert found is not None
    assert found.student == "ours"
    assert [sum(row) for row in found.shares] == pytest.approx([100] * 12)
    recalls = [e["recall"]["mean"] for e in report.summary["students"]["ours"]["classes"].values()]
    diagonal = [row[k] / 100 for k, row in enumerate(found.shares)]
    assert diagonal == pytest.approx(recalls)
    many = birds(tuple(map(str, range(17))))
    assert own_confusions(many) is None


def test_cells_of_confusions_are_short() -> None:
    assert [signed(v) for v in (3.0, -0.42, 12.34, -9.96, 0.01)] == ["+3", "−0.4", "+12", "−10", ""]
    assert [share(v) for v in (0, 0.3, 1.2, 99.6)] == ["", "<1", "1", "100"]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


# What of the tables of classes and confusions is wider than its place, or than its cell.
CUT = """(() => {
  document.querySelectorAll('#classes details').forEach(d => d.open = true);
  const wide = e => e.scrollWidth > e.clientWidth + 1;
  const all = s => [...document.querySelectorAll(s)];
  return {
    tables: all('#classes table, #confusions .heat').filter(
      t => t.getBoundingClientRect().right > innerWidth + 0.5).length,
    scrolls: all('#classes .scroll').filter(wide).length,
    cells: all('.heat td').filter(wide).map(e => e.innerText),
    count: all('.heat').length,
    page: document.documentElement.scrollWidth > innerWidth};
})()"""


@pytest.mark.parametrize("width", [390, 600, 1280])
@pytest.mark.parametrize("names", [("a", "b", "c"), TWELVE, LONG])
def test_tables_of_classes_fit_any_screen(
    page: Page, tmp_path: Path, width: int, names: tuple[str, ...]
) -> None:
    file = tmp_path / "page.html"
    file.write_text(render(birds(names), "x"), encoding="utf-8")
    page.open(file, width)
    found = page.ask(CUT)
    assert page.complaints() == []
    assert found == {"tables": 0, "scrolls": 0, "cells": [], "count": 2, "page": False}
