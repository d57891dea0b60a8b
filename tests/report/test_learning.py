"""Mastery and shares on the page: the curves of the logs, and the sentences beside them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extracurricular.recipe.read import parse_recipe
from extracurricular.report.collect import collect
from extracurricular.report.curves import Band
from extracurricular.report.learning import learning, mastery
from extracurricular.report.logs import Curves, share_curve
from extracurricular.report.page import render
from extracurricular.run.execute import execute
from extracurricular.run.finished import Finished, open_run
from extracurricular.training.mastery import HIGH, LOW
from tests.report.made import made_report
from tests.run.test_run import TINY

MIXED = ["empirical", {"mixup": {"alpha": 1.0}}]
STEPS = 192


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    own = copy.deepcopy(TINY)
    own["defaults"]["training"] |= {"steps": STEPS, "checkpoint_every": 500}
    own["students"] = {
        "erm": {"learns_from": "labels", "cost": {"of": "kd"}},
        "kd": {"mastery": {"held_out": 0.1}},
        "follows": {"sampler": [{"share": {"of": "auto", "extended": MIXED}}]},
        "falls": {"sampler": [{"share": {"of": {"finish": {"value": 0.5, "then": 0.0}},
                                         "extended": MIXED}}]},
        "half": {"sampler": [{"share": {"of": 0.5, "extended": MIXED}}]},
        "best": {"choose": {"among": {"plain": {}, "mixed": {"sampler": MIXED}}}},
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("learning") / "run"
    execute(parse_recipe(own), folder)
    return open_run(folder)


def test_the_curves_are_those_of_the_logs(run: Finished) -> None:
    curves = collect(run).curves
    assert set(curves.losses) == set(run.students), "a chosen student has the log of its candidate"
    assert set(curves.mastery) == set(curves.drawn) == {"kd", "follows", "best"}
    assert list(curves.mastery["kd"].x) == list(range(16, STEPS + 1, 16))
    assert curves.mastery["follows"].x[-1] == 48, "the rule ends after 30 %"
    assert curves.mastery["best"].x[-1] == STEPS // 2, "the choice is at half time"
    assert curves.follows == ("follows",)
    assert set(curves.shares) == {"follows", "falls"}, "a constant share is no curve"
    falls = curves.shares["falls"]
    assert falls.x[-1] == STEPS
    assert falls.mean[0] == 0.5
    assert falls.mean[-1] == 0
    first = run.workspace.record("students/follows/seed-0")["mastery"]["share"]
    second = run.workspace.record("students/follows/seed-1")["mastery"]["share"]
    assert curves.shares["follows"].mean[-1] == (first + second) / 2
    assert curves.validation == {}, "two evaluations of a candidate are no curve"
    assert curves.steps["best"] == STEPS


def test_the_page_has_mastery_and_the_choice(run: Finished) -> None:
    report = collect(run)
    [choice] = report.choices
    assert (choice.student, choice.stops, choice.steps) == ("best", [96], (STEPS, 288))
    assert sum(count for _, _, count in choice.rows) == 2
    record = run.workspace.record("students/best/seed-0")["held_out_kl"]["96"]
    other = run.workspace.record("students/best/seed-1")["held_out_kl"]["96"]
    for name, values, _ in choice.rows:
        assert values == [pytest.approx((record[name] + other[name]) / 2)]
    text = render(report, "")
    assert "How best was chosen" in text
    assert "Mastery and draws" in text
    assert "all candidates together 288" in text
    assert "Error against cost of training" in text
    assert "erm took as many multiply-adds as kd" in text


def flat(value: float, end: float = 100.0) -> Band:
    x = np.array([1.0, end])
    y = np.array([value, value])
    return Band(x, y, y, y)


def test_figures_stand_where_there_is_something_to_show() -> None:
    assert list(learning(made_report())) == []
    assert list(mastery(made_report())) == []
    assert "Mastery and draws" not in render(made_report(), "")
    steps = {"plain_kd": 100, "ours": 100}
    watched = Curves(steps, mastery={"plain_kd": flat(0.1)})
    [figure] = mastery(made_report(curves=watched))
    assert figure.legend == [("s1", "plain_kd")]
    assert "For plain_kd: above 0.4" in figure.text
    assert "0.15" not in figure.text
    both = Curves(
        steps,
        mastery={"plain_kd": flat(0.1), "ours": flat(0.5, 30.0)},
        drawn={"ours": flat(0.1)},
        held_out={"ours": flat(0.2)},
        shares={"ours": flat(1.0)},
        follows=("ours",),
    )
    titles = [figure.title for figure in mastery(made_report(curves=both))]
    assert titles == [
        "Mastery of the stored examples",
        "Examples drawn and kept out",
        "Draws beyond the stored examples",
    ]
    text = next(mastery(made_report(curves=both))).text
    assert f"is up to {LOW:g}, ours draws stored examples alone, from {HIGH:g} on (dashed)" in text


def test_a_share_holds_from_the_step_after_its_measurement() -> None:
    lines: list[dict[str, Any]] = [
        {"step": 10, "mastery": {"share": 0.25}},
        {"step": 15},
        {"step": 20, "mastery": {"share": 1.0}},
    ]
    found = share_curve(lines, 100)
    assert found is not None
    assert list(found[0]) == [0, 10, 11, 20, 21, 100]
    assert list(found[1]) == [0, 0, 0.25, 0.25, 1, 1]
    assert share_curve([{"step": 10}], 100) is None


def test_a_run_from_before_has_no_cost(run: Finished, tmp_path: Path) -> None:
    report = collect(run)
    for entry in (report.summary["teacher"], *report.summary["students"].values()):
        entry.pop("multiply_adds")
    text = render(report, "")
    assert "Error against cost of training" not in text
