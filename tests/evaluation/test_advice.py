"""What a verdict says of teachers that have nothing to give, and of draws that would not pay."""

from __future__ import annotations

from typing import Any

import pytest

from extracurricular.evaluation.advice import advice


def entry(accuracy: float, nll: float, **mastery: float) -> dict[str, Any]:
    figures = {"accuracy": accuracy, "nll": nll}
    metrics = {name: {"mean": value} for name, value in figures.items()}
    return {"metrics": metrics, **({"mastery": mastery} if mastery else {})}


MIXED = {"sampler": ["empirical", "mixup"]}


def summary(**students: dict[str, Any]) -> dict[str, Any]:
    teacher = students.pop("teacher", entry(0.95, 0.1))
    recipe = {
        "students": {
            "erm": {"learns_from": "labels", "sampler": ["empirical"]},
            "kd": {"sampler": ["empirical"]},
            "xcl": MIXED,
        }
    }
    return {"teacher": teacher, "students": students, "recipe": recipe}


def said(**students: dict[str, Any]) -> list[str]:
    full = {"erm": entry(0.9, 0.3), "kd": entry(0.92, 0.25)} | students
    return advice(summary(**full), "erm", "kd")


def test_a_sound_comparison_needs_no_advice() -> None:
    assert said(xcl=entry(0.93, 0.2)) == []
    assert advice(summary(xcl=entry(0.93, 0.2)), None, None) == []


@pytest.mark.parametrize(
    ("teacher", "figures"),
    [
        (entry(0.9, 0.2), ["accuracy"]),
        (entry(0.95, 0.4), ["NLL"]),
        (entry(0.8, 0.4), ["accuracy", "NLL"]),
    ],
)
def test_a_teacher_without_anything_to_give_is_told_by_figure(
    teacher: dict[str, Any], figures: list[str]
) -> None:
    found = said(teacher=teacher)
    assert len(found) == len(figures)
    for sentence, figure in zip(found, figures, strict=True):
        assert sentence.startswith(f"the teacher has nothing to give in {figure}: it has ")
        assert "erm, which learns from labels alone," in sentence


def test_a_reference_that_masters_the_stored_examples_calls_for_extended_draws() -> None:
    [sentence] = said(kd=entry(0.92, 0.25, mastery=0.7))
    assert sentence == (
        "kd masters the stored examples (m = 0.70): extended draws would very likely help."
    )
    [sentence] = said(kd=entry(0.92, 0.25, mastery=0.05))
    assert "more steps would help" in sentence
    assert said(kd=entry(0.92, 0.25, mastery=0.3)) == []


def test_a_student_behind_the_reference_is_told_why() -> None:
    watched = entry(0.92, 0.25, mastery=0.05)
    found = said(kd=watched, xcl=entry(0.91, 0.2))
    assert found[-1] == (
        "xcl is behind kd, and kd has not mastered the stored examples (m = 0.05): more steps or "
        "fewer extended draws would help."
    )
    assert len(said(kd=watched, xcl=entry(0.93, 0.2))) == 1
    # As good as the reference, to the digits that are shown, is not behind it.
    assert len(said(kd=watched, xcl=entry(0.91999, 0.2))) == 1


def test_the_remedy_is_the_one_that_the_mastery_suggests() -> None:
    [unknown] = said(xcl=entry(0.91, 0.2))
    assert unknown.startswith(
        "xcl is behind kd, and whether kd has mastered the stored examples wa"
    )
    assert "a run with mastery: {held_out: 0.1} for kd, or with share: {of: auto}, tells" in unknown
    mastered = said(kd=entry(0.92, 0.25, mastery=0.7), xcl=entry(0.91, 0.2))[-1]
    assert "kd masters the stored examples (m = 0.70), where extended draws mostly help" in mastered
    partly = said(kd=entry(0.92, 0.25, mastery=0.3), xcl=entry(0.91, 0.2))[-1]
    assert "in part (m = 0.30): fewer extended draws" in partly
    # It drew stored examples alone, so its draws are not to blame; so for draws of these alone.
    alone = said(xcl=entry(0.91, 0.2, mastery=0.05, share=0.0))
    assert not any("is behind" in sentence for sentence in alone)
    full = {"erm": entry(0.9, 0.3), "kd": entry(0.92, 0.25), "xcl": entry(0.91, 0.2)}
    for chain in (["balanced"], [{"balanced": {"of": 0.5}}], "empirical"):
        found = summary(**full)
        found["recipe"]["students"]["xcl"] = {"sampler": chain}
        assert advice(found, "erm", "kd") == []


def test_a_share_that_followed_is_told() -> None:
    found = said(xcl=entry(0.93, 0.2, mastery=0.4, share=1.0))
    assert found == [
        "xcl took 100 % of its draws from beyond the stored examples, as it mastered these early "
        "(m = 0.40)."
    ]
    [sentence] = said(xcl=entry(0.93, 0.2, mastery=0.1, share=0.0))
    assert sentence.startswith("xcl drew stored examples alone: early in its training")
    [sentence] = said(xcl=entry(0.93, 0.2, mastery=-0.001, share=0.0))
    assert "(m = 0.00)" in sentence


def test_a_mastery_that_is_not_certain_is_told_as_that() -> None:
    found = {"mastery": {"mastery": 0.3, "se": 0.24, "share": 0.0}}
    [sentence] = said(xcl={**entry(0.93, 0.2), **found})
    assert "is not certain (m = 0.30 ± 0.24)" in sentence
