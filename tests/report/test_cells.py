"""The table of figures as text, for whatever shows it."""

from __future__ import annotations

from extracurricular.report import cells
from tests.report.made import made_report


def test_the_gap_column_names_the_reference() -> None:
    headings, rows = cells.table(made_report().summary)
    assert headings[:4] == ["", "parameters", cells.COST, "accuracy %"]
    assert headings[-1] == "gap closed"
    gaps = {row[0].text: row[-1].text for row in rows}
    assert list(gaps) == ["teacher", "baseline", "plain_kd", "ours"]
    assert gaps["teacher"] == "–"
    assert gaps["plain_kd"] == "reference"
    assert all(gaps[name].endswith(" %") for name in ("baseline", "ours"))
    # The usual names alone mean nothing.
    nobody = made_report({"erm": 1.0, "kd": 2.0}, {"reference": None, "plain": None}).summary
    assert [row[-1].text for row in cells.table(nobody)[1]] == ["–", "–", "–"]


def test_the_best_student_of_a_column_is_marked_where_one_way_is_better() -> None:
    report = made_report(more={"coverage90": 0.9})
    headings, rows = cells.table(report.summary)
    best = {h: [row[0].text for row in rows if row[k].best] for k, h in enumerate(headings)}
    assert best["accuracy %"] == ["ours"]
    assert best["KL to teacher"] == ["ours"]
    assert best["cover 90 %"] == best["parameters"] == best["gap closed"] == best[""] == []
    alone = made_report({"one": 1.0}, {"reference": None}).summary
    assert not any(cell.best for row in cells.table(alone)[1] for cell in row)


def test_the_cost_of_training_is_a_column_or_a_line_below() -> None:
    summary = made_report().summary
    for number, entry in enumerate([summary["teacher"], *summary["students"].values()]):
        entry["multiply_adds"] = [None, 1.5e3, 999.9e6, 61_234_567_890][number]
    headings, rows = cells.table(summary)
    assert headings[2] == cells.COST
    assert [row[2].text for row in rows] == ["–", "1.5 k", "1 G", "61.2 G"]
    narrow, some = cells.table(summary, cost=False)
    assert narrow == [h for h in headings if h != cells.COST]
    assert [len(row) for row in some] == [len(narrow)] * 4
    assert cells.cost_note(summary) == (
        "training multiply-adds: teacher –, baseline 1.5 k, plain_kd 1 G, ours 61.2 G"
    )
    for entry in (summary["teacher"], *summary["students"].values()):
        del entry["multiply_adds"]
    assert cells.cost_note(summary) is None
    assert {row[2].text for row in cells.table(summary)[1]} == {"–"}
