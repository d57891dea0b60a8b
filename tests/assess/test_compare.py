"""Runs side by side."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy.stats import ttest_rel

from extracurricular.assess.compare import Comparison, Difference, compare, labels, paired, plain
from extracurricular.errors import RecipeError, XclError
from extracurricular.evaluation.summary import summarise
from extracurricular.evaluation.words import WORDS
from extracurricular.files import read_json
from extracurricular.recipe.read import parse_recipe
from extracurricular.report.comparison import render_comparison
from extracurricular.report.comparison_table import better, difference_text, findings, lines
from tests.chromium import browser
from tests.cli.called import xcl
from tests.conftest import small_recipe
from tests.report.test_page import SEEN

RECIPE = small_recipe({"digits": {"train": 100}}, {"mlp": {"hidden": [4]}})


def summary(
    accuracies: dict[str, list[float]], seeds: list[int] | None = None, **changes: Any
) -> dict[str, Any]:
    """A summary in which the students have these accuracies, by seed."""
    count = len(next(iter(accuracies.values())))
    recipe = parse_recipe({**RECIPE, "seeds": seeds or list(range(count)), **changes}).dump()

    def row(accuracy: float) -> dict[str, Any]:
        figures = {"accuracy": accuracy, "nll": 1 - accuracy}
        return {"metrics": figures, "steps": 1, "seconds": 1.0, "parameters": 10}

    return summarise(
        recipe,
        "classification",
        recipe["seeds"],
        [row(0.99)] * count,
        {name: [row(a) for a in values] for name, values in accuracies.items()},
    )


def printed(found: Comparison) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    for line in lines(found):
        console.print(line)
    return console.export_text()


reals = st.floats(-100, 100, allow_nan=False)


@given(st.lists(st.tuples(reals, reals), min_size=2, max_size=12))
def test_a_difference_is_a_paired_t_test(pairs: list[tuple[float, float]]) -> None:
    a, b = (dict(enumerate(values)) for values in zip(*pairs, strict=True))
    gaps = np.subtract(*np.array(pairs).T)
    found = paired(a, b)
    assert found is not None
    assert found.mean == pytest.approx(gaps.mean(), abs=1e-9)
    if gaps.std() < 1e-6:
        return
    interval = ttest_rel(*np.array(pairs).T).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.certain == (ttest_rel(*np.array(pairs).T).pvalue < 0.05)


def test_seeds_are_paired_by_their_number() -> None:
    assert paired({0: 1.0, 7: 5.0}, {7: 3.0, 9: 0.0}) == Difference(2.0, None, None, 1)
    assert paired({0: 1.0}, {1: 1.0}) is None
    shuffled = paired({2: 3.0, 0: 1.0, 1: 2.0}, {0: 0.0, 1: 1.0, 2: 2.0})
    assert shuffled == Difference(1.0, 1.0, 1.0, 3)
    assert not Difference(1.0, None, None, 1).certain


def test_what_is_compared_to_what() -> None:
    first = summary({"erm": [0.5, 0.6], "kd": [0.7, 0.8], "xcl": [0.9, 0.9]})
    second = summary({"kd": [0.7, 0.9], "xcl": [0.8, 0.9], "new": [0.1, 0.2]})
    found = compare({"a": first, "b": second})
    against = {(row.run, row.student): row.against for row in found.rows}
    assert against == {
        ("a", "teacher"): None,
        ("a", "erm"): ("a", "kd"),
        ("a", "kd"): None,
        ("a", "xcl"): ("a", "kd"),
        ("b", "teacher"): None,
        ("b", "kd"): ("a", "kd"),
        ("b", "xcl"): ("a", "xcl"),
        ("b", "new"): ("a", "kd"),
    }
    difference = next(r for r in found.rows if (r.run, r.student) == ("b", "xcl")).differences
    assert difference["accuracy"].mean == pytest.approx(-0.05)
    assert difference["nll"].mean == pytest.approx(0.05)
    all_to_one = compare({"a": first, "b": second}, "erm")
    assert {row.against for row in all_to_one.rows} == {None, ("a", "erm")}


def test_the_home_student_is_the_reference_of_the_first_run_whatever_its_name() -> None:
    students: dict[str, Any] = {name: {} for name in ("baseline", "plain_kd", "ours")}
    first = summary(
        {"baseline": [0.5, 0.6], "plain_kd": [0.7, 0.8], "ours": [0.9, 0.9]},
        students=students,
        reference="plain_kd",
        plain="baseline",
        subject="ours",
    )
    second = summary({"kd": [0.7, 0.9], "xcl": [0.8, 0.9]})
    found = compare({"a": first, "b": second})
    assert {(row.run, row.student): row.against for row in found.rows} == {
        ("a", "teacher"): None,
        ("a", "baseline"): ("a", "plain_kd"),
        ("a", "plain_kd"): None,
        ("a", "ours"): ("a", "plain_kd"),
        ("b", "teacher"): None,
        ("b", "kd"): ("a", "plain_kd"),
        ("b", "xcl"): ("a", "plain_kd"),
    }
    references = [(row.run, row.student) for row in found.rows if row.reference]
    assert references == [("a", "plain_kd"), ("b", "kd")]  # each run has its own
    page = render_comparison(found)
    assert page.count("<td>reference</td>") == 2
    none = summary({"ours": [0.5, 0.6], "theirs": [0.7, 0.8]}, students={"ours": {}, "theirs": {}})
    assert {row.against for row in compare({"a": none}).rows} == {None, ("a", "ours")}


def test_what_cannot_be_compared() -> None:
    first = summary({"kd": [0.7, 0.8]})
    with pytest.raises(RecipeError, match="--reference: is 'kdd', but a has no such student; did"):
        compare({"a": first}, "kdd")
    with pytest.raises(XclError, match="a is a classification and b a regression"):
        compare({"a": first, "b": {**first, "task": "regression"}})
    validation = summary({"kd": [0.7, 0.8]}, evaluation={"split": "validation"})
    with pytest.raises(XclError, match="a was measured on the test split and b on the validation"):
        compare({"a": first, "b": validation})
    other = summary({"kd": [0.7, 0.8]}, data={"digits": {"train": 50}})
    found = compare({"a": first, "b": other})
    assert "b has other data than a, so its students are not compared with those." in found.notes
    assert all(not row.differences for row in found.rows if row.run == "b")


def test_a_student_is_compared_with_what_it_can_be_compared_with() -> None:
    first = summary({"kd": [0.7, 0.8], "xcl": [0.9, 0.9]})
    own = {"kd": {}, "new": {}}
    second = summary({"kd": [0.7, 0.9], "new": [0.8, 0.9]}, students=own, reference="kd")

    def other(second: dict[str, Any], student: str) -> tuple[str, str] | None:
        rows = compare({"a": first, "b": second}).rows
        return next(r.against for r in rows if (r.run, r.student) == ("b", student))

    # A name of its own: the first run's reference, which had the same teacher and steps.
    assert other(second, "new") == ("a", "kd")
    longer = json.loads(json.dumps(second))
    for entry in longer["students"].values():
        entry["steps"] = 2
    assert other(longer, "new") == ("b", "kd")
    assert other(longer, "kd") == ("a", "kd")
    notes = compare({"a": first, "b": longer}).notes
    assert "b kd took 2 steps, and a kd 1: their difference is that of the budgets too." in notes
    assert not any("b new" in note for note in notes)

    taught = json.loads(json.dumps(second))
    taught["teacher"]["metrics"]["nll"]["mean"] += 0.1
    for run in (first, taught):
        for entry in run["students"].values():
            entry["metrics"]["kl_to_teacher"] = entry["metrics"]["nll"]
    found = compare({"a": first, "b": taught})
    row = next(r for r in found.rows if (r.run, r.student) == ("b", "kd"))
    assert set(row.differences) == {"accuracy", "nll"}
    assert other(taught, "new") == ("b", "kd")
    new = next(r for r in found.rows if (r.run, r.student) == ("b", "new"))
    assert set(new.differences) == {"accuracy", "nll", "kl_to_teacher"}
    assert any(note.startswith("b has another teacher than a: differences") for note in found.notes)
    alone = {**taught, "students": {"new": taught["students"]["new"]}}
    assert other(alone, "new") is None


def test_runs_from_before_a_figure_have_the_same_teacher_if_their_common_figures_agree() -> None:
    first = summary({"kd": [0.7, 0.8]})
    old = json.loads(json.dumps(first))
    first["teacher"]["metrics"]["balanced_accuracy"] = first["teacher"]["metrics"]["accuracy"]
    assert not any("another teacher" in note for note in compare({"a": first, "b": old}).notes)


def test_settings_that_differ_are_told_but_not_names() -> None:
    first = summary({"kd": [0.7, 0.8]})
    second = summary({"kd": [0.7, 0.8]}, name="b", teacher={"model": "mlp", "members": 3})
    changed = compare({"a": first, "b": second}).changed["b"]
    assert ("teacher.members", 2, 3) in changed
    assert all(path != "name" for path, _, _ in changed)


def test_few_seeds_and_many_comparisons_are_told() -> None:
    students = {n: [0.1 + k / 50, 0.2 - k / 70] for k, n in enumerate(("kd", "a", "b", "c", "d"))}
    found = compare({"a": summary(students)})
    notes = " ".join(found.notes)
    assert "means over 2 seeds" in notes
    assert "2 seeds are few" in notes
    # As many intervals as the table shows: of accuracy and NLL, for four students.
    assert "Of the 8 intervals, one in twenty leaves out 0 by chance alone." in notes
    table = printed(found)
    assert table.count("\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}") == 8
    # Figures without a difference have no interval.
    same = compare({"a": summary({name: [0.1, 0.2] for name in students})})
    assert "intervals, one in twenty" not in " ".join(same.notes)
    one = compare({"a": summary({"kd": [0.1], "xcl": [0.2]})})
    assert one.notes == ["There is one seed in common, so no interval is given."]


def test_which_differences_are_for_the_better() -> None:
    gain, loss = Difference(0.1, 0.05, 0.15, 3), Difference(-0.1, -0.15, -0.05, 3)
    chance = Difference(0.1, -0.05, 0.25, 3)
    assert better(gain, WORDS["accuracy"]) is True
    assert better(gain, WORDS["nll"]) is False
    assert better(loss, WORDS["nll"]) is True
    assert better(chance, WORDS["accuracy"]) is None
    assert better(gain, WORDS["coverage90"]) is None
    assert difference_text(gain, WORDS["accuracy"]) == "+10.00 (+5.00\u00a0to\u00a0+15.00)"
    assert difference_text(loss, WORDS["nll"]) == "−0.100 (−0.150\u00a0to\u00a0−0.050)"
    assert difference_text(Difference(0.0, 0.0, 0.0, 3), WORDS["nll"]) == "the same"
    assert difference_text(Difference(-1e-9, None, None, 1), WORDS["nll"]) == "0.000"


def test_runs_are_called_by_their_folders(tmp_path: Path) -> None:
    a, b, c = tmp_path / "x" / "run", tmp_path / "y" / "run", tmp_path / "z"
    assert labels([a, c]) == ["run", "z"]
    assert labels([a, b, c]) == [str(a), str(b), "z"]


def test_names_are_not_read_as_markup() -> None:
    text = printed(compare({"[red]a": summary({"[bold]kd": [0.7, 0.8], "b": [0.1, 0.2]})}))
    assert "[red]a" in text
    assert "[bold]kd" in text


def test_the_command(digits_run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(digits_run, tmp_path / "other")
    done = xcl("compare", str(digits_run), str(other))
    assert done.returncode == 0, done.stderr
    assert "Differences, seed by seed" in done.stdout
    assert "has the same settings as the first" in done.stdout
    as_json = xcl(
        "compare", str(digits_run), str(other), "--json", "--out", "page.html", cwd=tmp_path
    )
    assert "<h1>run, other</h1>" in (tmp_path / "page.html").read_text()
    found = json.loads(as_json.stdout)
    kd = read_json(digits_run / "summary.json")["students"]["kd"]["metrics"]
    row = next(r for r in found["rows"] if (r["run"], r["student"]) == ("other", "kd"))
    assert row["metrics"] == kd
    assert row["differences"]["nll"] == {"mean": 0.0, "ci95": [0.0, 0.0], "seeds": 2}
    assert found == plain(compare({n: read_json(f / "summary.json") for n, f in
                                   (("run", digits_run), ("other", other))}))  # fmt: skip


def test_mistakes_end_in_one_sentence(digits_run: Path, tmp_path: Path) -> None:
    done = xcl("compare", str(digits_run), str(tmp_path / "nowhere"))
    assert done.returncode == 2
    assert "there is no run" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_found_is_told_first() -> None:
    first = summary({"kd": [0.70, 0.80, 0.75]})
    second = summary({"kd": [0.80, 0.91, 0.85]})
    [accuracy, nll] = findings(compare({"a": first, "b": second}))
    assert accuracy.startswith("b kd is better than a kd: accuracy points +10.33 (+")
    assert nll.startswith("b kd is better than a kd: NLL −0.103 (−")
    same = findings(compare({"a": first, "b": first}))
    assert same == [
        "No difference is larger than chance explains: every interval of accuracy, NLL holds 0."
    ]
    assert findings(compare({"a": summary({"kd": [0.5], "xcl": [0.6]})})) == []


EVIL = "<script>alert(1)</script>"


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_in_a_browser(tmp_path: Path, width: int) -> None:
    first = summary({"kd": [0.7, 0.8], "xcl": [0.9, 0.9]})
    second = summary({"kd": [0.7, 0.9], "xcl": [0.2, 0.3]}, teacher={"model": EVIL, "members": 3})
    file = tmp_path / "compare.html"
    page_text = render_comparison(compare({"a": first, EVIL: second}))
    assert EVIL not in page_text
    file.write_text(page_text, encoding="utf-8")
    with browser(tmp_path / "chromium") as page:
        page.open(file, width)
        found = page.ask(SEEN)
        assert page.complaints() == []
        assert page.requests() == [file.as_uri()]
        assert page.ask("document.scripts.length") == 0
    assert "is worse than a xcl" in found["verdict"]
    assert len(found["sizes"]) == 2
    assert all(wide > 100 and high > 50 for wide, high in found["sizes"])
    assert found["out"] == []
    assert found["wide"] <= found["own"]
