"""What the verdict says of worse, equal and contradictory figures."""

from __future__ import annotations

from typing import Any

import pytest

from extracurricular.evaluation.summary import sentences, summarise


def summary(
    students: dict[str, list[dict[str, float]]],
    teacher: dict[str, float],
    task: str = "regression",
    counts: dict[str, int] | None = None,
    labels: tuple[str, ...] = (),
    **roles: str | None,
) -> dict[str, Any]:
    """A summary of students with these figures, by seed."""
    count = len(next(iter(students.values())))

    def rows(figures: list[dict[str, float]]) -> list[dict[str, Any]]:
        more = {"steps": 5, "seconds": 1.0, "parameters": 1}
        return [{"metrics": own, **more} for own in figures]

    learns = {n: {"learns_from": "labels" if n in labels else "teacher"} for n in students}
    nobody = dict.fromkeys(("reference", "plain", "subject"))
    return summarise(
        {"evaluation": {"split": "test"}, "students": learns, **nobody, **roles},
        task,
        list(range(count)),
        rows([teacher] * count),
        {name: rows(figures) for name, figures in students.items()},
        counts,
    )


def texts(found: dict[str, Any]) -> list[str]:
    return [sentence.text for sentence in sentences(found) if not sentence.note]


ROLES = {"reference": "kd", "subject": "xcl"}


def rates(*errors: float) -> list[dict[str, float]]:
    return [{"accuracy": 1 - error} for error in errors]


def test_a_negative_gap_is_told_as_worse_with_both_figures() -> None:
    students = {"kd": rates(0.08, 0.082), "xcl": rates(0.11, 0.114)}
    [told] = texts(summary(students, {"accuracy": 0.95}, "classification", **ROLES))
    assert told == (
        "xcl is worse than kd: its error rate is 11.20 % against 8.10 % (worse in 2 of 2 seeds)."
    )
    mixed = {"kd": rates(0.08, 0.09), "xcl": rates(0.07, 0.12)}
    [told] = texts(summary(mixed, {"accuracy": 0.95}, "classification", **ROLES))
    assert told.endswith("(worse in 1 of 2 seeds).")


@pytest.mark.parametrize("own", [0.081, 0.08100001])
def test_figures_that_read_the_same_are_told_as_equal(own: float) -> None:
    students = {"erm": rates(0.081), "kd": rates(0.081), "xcl": rates(own)}
    found = summary(students, {"accuracy": 0.95}, "classification", plain="erm", **ROLES)
    assert texts(found) == [
        "xcl is as good as kd: the error rate of both is 8.10 %.",
        "xcl is as good as erm: the error rate of both is 8.10 %.",
    ]
    assert not any(" 0 %" in text for text in texts(found))


def test_a_difference_of_less_than_one_percent_is_no_0_percent() -> None:
    students = {"erm": rates(0.0812), "kd": rates(0.0812), "xcl": rates(0.0811)}
    found = summary(students, {"accuracy": 0.99}, "classification", plain="erm", **ROLES)
    gap, plain = texts(found)
    assert gap.startswith("xcl closes less than 1 % of the gap")
    assert plain == (
        "The error rate of xcl is less than 1 % below that of erm: 8.11 % against 8.12 %."
    )
    perfect = summary(
        {"erm": rates(0.0), "xcl": rates(0.1)}, {"accuracy": 1.0}, "classification",
        plain="erm", subject="xcl",
    )  # fmt: skip
    assert texts(perfect) == ["The error rate of xcl is above that of erm: 10.00 % against 0.00 %."]


def real(rmse: float, nll: float) -> list[dict[str, float]]:
    return [{"rmse": rmse, "nll": nll}]


def test_of_real_targets_both_the_error_and_the_nll_are_told() -> None:
    """The energy table: the error of the mean is worse and the NLL better."""
    students = {"kd": real(0.45, 1.32), "xcl": real(0.50, 0.85)}
    [told] = texts(summary(students, {"rmse": 0.4, "nll": 0.8}, **ROLES))
    assert told.startswith("xcl is worse than kd: its RMSE is 0.5")
    assert "against 0.45" in told
    assert " Its NLL is better, though: 0.85" in told
    assert "nats against 1.32" in told
    both = {"kd": real(0.5, 1.32), "xcl": real(0.45, 0.85)}
    [told] = texts(summary(both, {"rmse": 0.4, "nll": 0.8}, **ROLES))
    assert told.startswith("xcl closes 50 % of the gap")
    assert "Its NLL is better, too" in told
    turned = {"kd": real(0.5, 0.85), "xcl": real(0.45, 1.32)}
    [told] = texts(summary(turned, {"rmse": 0.4, "nll": 0.8}, **ROLES))
    assert "Its NLL is worse, though" in told
    equal = {"kd": real(0.5, 0.85), "xcl": real(0.5, 0.85)}
    [told] = texts(summary(equal, {"rmse": 0.4, "nll": 0.8}, **ROLES))
    assert "as good as" in told
    assert "The NLL of both is 0.85" in told


def test_students_that_learn_from_labels_stand_apart() -> None:
    students = {"erm": rates(0.2), "kd": rates(0.1), "xcl": rates(0.09), "smooth": rates(0.05)}
    found = summary(
        students, {"accuracy": 0.95}, "classification", labels=("erm", "smooth"),
        plain="erm", **ROLES,
    )  # fmt: skip
    told = texts(found)
    assert [text.split()[0] for text in told] == ["xcl", "The", "smooth"]
    assert told[2] == "smooth learns from labels, without the teacher: its error rate is 5.00 %."


def test_a_recipe_of_a_reference_and_a_plain_student_is_about_the_reference() -> None:
    students = {"erm": rates(0.2), "kd": rates(0.1)}
    roles = {"reference": "kd", "plain": "erm", "subject": "kd"}
    found = summary(students, {"accuracy": 0.95}, "classification", labels=("erm",), **roles)
    assert texts(found) == [
        "The error rate of kd is 50 % below that of erm: 10.00 % against 20.00 %."
    ]


def test_the_points_between_balanced_accuracies_are_those_of_the_figures_shown() -> None:
    def both(balanced: float) -> list[dict[str, float]]:
        return [{"accuracy": 0.9, "balanced_accuracy": balanced}]

    students = {"erm": both(0.456149), "xcl": both(0.431651)}
    found = summary(
        students, both(0.6)[0], "classification", {"a": 9, "b": 1}, plain="erm", subject="xcl"
    )
    # 45.61 - 43.17 as they are read, though the difference is 2.4498.
    assert texts(found) == [
        "The balanced accuracy of xcl is 2.44 points below that of erm: 43.17 % against 45.61 %."
    ]


def test_a_figure_that_is_not_finite_is_compared_with_none() -> None:
    students = {"kd": real(0.5, 1.0), "xcl": real(float("nan"), 1.0)}
    assert texts(summary(students, {"rmse": 0.4, "nll": 0.8}, **ROLES)) == []
