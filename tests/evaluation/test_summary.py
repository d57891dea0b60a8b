"""The summary and the verdict: who the students are is for the recipe to say."""

from __future__ import annotations

from typing import Any

import pytest

from extracurricular.evaluation.entries import measure_of
from extracurricular.evaluation.summary import (
    Parts,
    error_name,
    gap_text,
    judged_students,
    mean_error,
    seed_errors,
    sentences,
    summarise,
)
from extracurricular.evaluation.words import WORDS

NOBODY = {"reference": None, "plain": None, "subject": None}


def summary(students: dict[str, list[float]], **roles: str | None) -> dict[str, Any]:
    """A summary in which the students have these error rates, by seed; the teacher has 0.1."""

    def row(error: float) -> dict[str, Any]:
        return {"metrics": {"accuracy": 1 - error}, "steps": 5, "seconds": 1.0, "parameters": 1}

    count = len(next(iter(students.values())))
    return summarise(
        {"evaluation": {"split": "test"}, **NOBODY, **roles},
        "classification",
        list(range(count)),
        [row(0.1)] * count,
        {name: [row(error) for error in errors] for name, errors in students.items()},
    )


def texts(found: dict[str, Any]) -> list[str]:
    return [sentence.text for sentence in sentences(found)]


def test_parts_are_those_that_the_recipe_names() -> None:
    found = summary({"a": [0.5], "b": [0.4]}, reference="a", subject="b")
    assert Parts.of(found) == Parts(reference="a", plain=None, subject="b")
    assert Parts.of(found).named == ["a", "b"]
    # A student that is not there plays no part, and names alone give none.
    assert Parts.of(summary({"kd": [0.5], "erm": [0.4], "xcl": [0.3]}, plain="c")) == Parts()
    assert Parts.of({"recipe": {}, "students": {"kd": {}}}) == Parts()
    alone = Parts(reference="a", plain="a", subject="a")
    assert alone.named == ["a"]


def test_the_gap_is_measured_from_the_reference() -> None:
    found = summary({"first": [0.3], "second": [0.5], "third": [0.2]}, reference="second")
    gaps = {name: entry["gap_closed"] for name, entry in found["students"].items()}
    assert gaps["first"]["value"] == pytest.approx(0.5)
    assert gaps["second"]["value"] == 0
    assert gaps["third"]["value"] == pytest.approx(0.75)
    without = summary({"kd": [0.5], "xcl": [0.2]})
    assert [entry["gap_closed"] for entry in without["students"].values()] == [None, None]
    assert texts(without) == []
    assert gap_text(found["students"]["third"]) == "75 %"
    assert gap_text(without["students"]["xcl"]) == "–"


def test_the_verdict_is_about_the_subject() -> None:
    students = {"baseline": [0.6], "other": [0.4], "plain_kd": [0.5], "ours": [0.2]}
    roles = {"reference": "plain_kd", "plain": "baseline", "subject": "ours"}
    assert texts(summary(students, **roles)) == [
        "ours closes 75 % of the gap that plain_kd leaves to the teacher "
        "(one seed, so no interval): its error rate is 20.00 % against 50.00 %.",
        "other closes 25 % of the gap that plain_kd leaves to the teacher "
        "(one seed, so no interval): its error rate is 40.00 % against 50.00 %.",
        "The error rate of ours is 67 % below that of baseline: 20.00 % against 60.00 %.",
        "The error rate of other is 33 % below that of baseline: 40.00 % against 60.00 %.",
    ]
    no_plain = texts(summary(students, **{**roles, "plain": None}))
    assert [text.split()[0] for text in no_plain] == ["ours", "baseline", "other"]
    no_reference = texts(summary(students, **{**roles, "reference": None}))
    assert all(text.startswith("The error rate of ") for text in no_reference)


def test_a_teacher_that_is_not_better_than_the_reference_leaves_no_gap() -> None:
    found = texts(summary({"weak": [0.05], "mine": [0.2]}, reference="weak", subject="mine"))
    assert found == [
        "There is no gap to close: the teacher is not better than weak.",
        "mine is worse than weak: its error rate is 20.00 % against 5.00 %.",
    ]
    found = texts(summary({"weak": [0.05], "mine": [0.02]}, reference="weak", subject="mine"))
    assert found[1] == "mine is better than weak: its error rate is 2.00 % against 5.00 %."


def test_of_many_students_the_verdict_tells_of_the_subject_alone() -> None:
    """Never of the one that is best on test data."""
    students = {"ref": [0.5], **{f"s{k}": [0.4 - k / 100] for k in range(5)}}
    found = summary(students, reference="ref", subject="s1")
    assert judged_students(found) == ["s1"]
    [only] = texts(found)
    assert only.startswith("s1 closes 27 % of the gap that ref leaves")
    assert judged_students(summary(students, reference="ref", subject="s4")) == ["s4"]
    assert judged_students(summary(students, reference="ref", subject="ref")) == ["ref"]


def test_errors_of_an_entry() -> None:
    entry = summary({"a": [0.25, 0.5]})["students"]["a"]
    assert error_name(entry) == "error rate"
    assert mean_error(entry) == pytest.approx(0.375)
    assert seed_errors(entry) == pytest.approx([0.25, 0.5])
    angles: dict[str, Any] = {"rmse": {"mean": 1.0, "per_seed": [1.0, 1.0]}}
    angles["angular_error"] = {"mean": 3.0, "per_seed": [2.0, 4.0]}
    assert error_name({"metrics": angles}) == "angular error"
    assert mean_error({"metrics": angles}) == 3
    assert seed_errors({"metrics": angles}) == [2, 4]
    angles["angular_error"] = {"mean": None, "per_seed": [2.0, None]}
    assert mean_error({"metrics": angles}) is None
    assert seed_errors({"metrics": angles}) == []


def test_the_measure_is_that_of_balanced_accuracy_where_classes_are_imbalanced() -> None:
    def row(accuracy: float, balanced: float) -> dict[str, Any]:
        figures = {"accuracy": accuracy, "balanced_accuracy": balanced}
        return {"metrics": figures, "steps": 5, "seconds": 1.0, "parameters": 1}

    def made(counts: dict[str, int] | None) -> dict[str, Any]:
        recipe = {"evaluation": {"split": "test"}, **NOBODY, "reference": "a", "subject": "b"}
        rows = {"a": [row(0.95, 0.5)], "b": [row(0.94, 0.7)]}
        return summarise(recipe, "classification", [0], [row(0.97, 0.9)], rows, counts)

    for counts in (None, {"good": 30, "bad": 10}):
        assert made(counts)["measure"] == "error_rate"
        assert not made(counts).get("balance", {}).get("imbalanced")
        assert texts(made(counts))[0].startswith("b is worse than a: its error rate is 6.00 % agai")
    found = made({"good": 31, "bad": 10})
    assert found["measure"] == "balanced_error_rate"
    assert found["balance"] == {"imbalanced": True, "train": {"good": 31, "bad": 10}}
    assert found["students"]["b"]["gap_closed"]["value"] == pytest.approx(0.5)
    verdict = texts(found)
    assert verdict[0] == (
        "b closes 50 % of the gap that a leaves to the teacher (one seed, so no interval): its "
        "balanced accuracy is 70.00 % against 50.00 %."
    )
    [told] = [text for text in verdict if "mean of the recalls" in text]
    assert told.startswith(
        "classes are imbalanced: 31 training examples are of class good and 10 of class bad. So "
    )
    # A class that has no training example at all is none of the task.
    assert made({"good": 1, "bad": 0})["measure"] == "error_rate"
    # Figures that a version before this did not measure.
    old = {**found, "measure": None}
    del old["measure"]
    assert measure_of(old) == "error_rate"


def test_a_figure_that_a_seed_lacks_is_left_out_and_told() -> None:
    def row(figures: dict[str, float], **more: Any) -> dict[str, Any]:
        return {"metrics": figures, "steps": 5, "seconds": 1.0, "parameters": 1, **more}

    why = {"macro_auroc": WORDS["macro_auroc"].needs}
    rows = [row({"accuracy": 0.5, "macro_auroc": 0.7}), row({"accuracy": 0.6}, without=why)]
    recipe = {"evaluation": {"split": "test"}, **NOBODY}
    found = summarise(recipe, "classification", [0, 1], rows, {"a": rows})
    assert set(found["students"]["a"]["metrics"]) == {"accuracy"}
    assert found["students"]["a"]["without"] == why
    assert texts(found) == [
        "there is no macro AUROC: that needs a class or label that some examples of the split have "
        "and others have not."
    ]


def test_calibrations_of_many_students_are_told_for_the_judged_one_alone() -> None:
    names = ["ref", "s1", "s2", "s3", "s4"]
    found = summary({name: [0.3] for name in names}, reference="ref", subject="s2")
    of = {"examples": 9, "temperature": 0.5}
    keys = ("nll", "nll_before", "ece", "ece_before")
    figures = {key: {"mean": 0.2, "std": 0.0} for key in keys}
    for name in names:
        found["students"][name]["calibration"] = {"fitted": [of], "figures": figures}
    told = [text.split()[0] for text in texts(found) if "is calibrated" in text]
    assert told == ["s2"]
    for name in ("s1", "s3"):
        del found["students"][name]["calibration"]
    told = [text.split()[0] for text in texts(found) if "is calibrated" in text]
    assert told == ["ref", "s2", "s4"]
