"""A recipe that is cut to a time: every training keeps the same part, and it is written down.

Times are given; one test times a small recipe, and asks only that it is enough.
"""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import extracurricular as xcl
from extracurricular import distillation
from extracurricular.errors import RecipeError, StorageError
from extracurricular.recipe.read import parse_recipe, read_recipe
from extracurricular.recipe.schema import Recipe, WithinSection
from extracurricular.run import within as module
from extracurricular.run import within_lessons
from extracurricular.run.execute import execute
from extracurricular.run.plan import plan
from extracurricular.run.within import candidates, cut, span_of, within


def recipe(**changes: Any) -> Recipe:
    among = {name: {"sampler": ["empirical", {"noise": {"std": std}}]}
             for name, std in (("a", 0.1), ("b", 0.2), ("c", 0.3))}  # fmt: skip
    return parse_recipe(
        {
            "name": "timed",
            "data": {"digits": {"train": 200}},
            "seeds": [0, 1],
            "teacher": {"model": {"mlp": {"hidden": [8]}}, "training": {"steps": 400}},
            "defaults": {
                "model": {"mlp": {"hidden": [4]}},
                "training": {"steps": 1000, "warmup": 100, "lr": 0.01, "optimizer": "adamw"},
            },
            "students": {
                "kd": {},
                "mine": {"sizes": [{"mlp": {"hidden": [2]}}, {"mlp": {"hidden": [6]}}]},
                "best": {"choose": {"among": among}},
                "equal": {"cost": {"of": "best", "unit": "steps"}},
            },
        }
        | changes
    )


@pytest.fixture(autouse=True)
def _no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time passes while times are given."""
    stopped = SimpleNamespace(perf_counter=lambda: 0.0)
    for one in (module, within_lessons, distillation):
        monkeypatch.setattr(one, "time", stopped)


@pytest.fixture
def given_times(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Times of a step that tests set: a millisecond for each training."""
    each = [0.001]

    def timed(planned: Any, *_: Any) -> tuple[dict[str, float], list[str]]:
        return {one.path: each[0] * getattr(one, "training", one).steps
                for one in planned.trained}, []  # fmt: skip

    monkeypatch.setattr(module, "_timed", timed)
    monkeypatch.setattr(module, "_ONCE", 0.0)
    monkeypatch.setattr(module, "_EXPORT", 0.0)
    return each


def section(**settings: Any) -> WithinSection:
    return WithinSection(**{"minutes": 5.0, "part": 0.25} | settings)


def test_all_trainings_keep_the_same_part() -> None:
    found = cut(recipe(), section())
    assert found.teacher.training.steps == 100
    for name in ("kd", "mine", "mine-mlp-2", "best"):
        assert found.students[name].training.steps == 250
        assert found.students[name].training.warmup == 25
    assert found.within == section()
    # It is a recipe like any other, and is not cut again.
    assert parse_recipe(found.dump()) == found


def test_a_record_keeps_the_same_part_of_its_draws() -> None:
    record = {"model": {"mlp": {}}, "record": {"draws": 8000}}
    students = {"kd": {}}
    assert cut(recipe(teacher=record, students=students), section()).teacher.record.draws == 2000  # type: ignore[union-attr]


@pytest.mark.parametrize("teacher", [{"estimator": "random_forest"}, {"onnx": "t.onnx"}])
def test_a_teacher_that_is_not_trained_stays(teacher: dict[str, Any]) -> None:
    whole = recipe(teacher=teacher)
    assert cut(whole, section()).teacher == whole.teacher


def test_trees_keep_their_draws() -> None:
    whole = recipe(students={"kd": {}, "trees": {"estimator": "random_forest"}})
    found = cut(whole, section())
    assert found.students["trees"] == whole.students["trees"]
    assert parse_recipe(found.dump()) == found


def test_sizes_and_candidates_may_be_left_out_but_no_role() -> None:
    assert candidates(recipe()) == (
        "students.mine-mlp-6",
        "students.mine-mlp-2",
        "students.best.choose.among.c",
    )
    found = cut(recipe(), section(without=list(candidates(recipe()))))
    assert list(found.students) == ["kd", "mine", "best", "equal"]
    assert found.front == ["mine"]
    assert list(found.students["best"].choose.among) == ["a", "b"]  # type: ignore[union-attr]
    assert parse_recipe(found.dump()) == found


def test_the_time_of_a_run_is_that_of_its_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ONCE", 3.0)
    monkeypatch.setattr(module, "_EXPORT", 2.0)
    whole = recipe(seeds=[0])
    seconds = dict.fromkeys((one.path for one in plan(whole).trained), 10.0)
    span = span_of(whole, seconds, 1)
    # Teacher, kd, three sizes, equal: one each. Three candidates: 1.5 times and a half for each
    # that stops; and the exports of three sizes.
    chosen = plan(whole).students["best", 0]
    times = chosen.steps / chosen.training.steps
    assert times == pytest.approx(2.0, abs=0.1)
    assert span(1.0, ()) == pytest.approx(10 * (6 + times) + 3 + 6)
    assert span(0.5, ()) == pytest.approx(5 * (6 + times) + 3 + 6)
    assert span(1.0, ("students.mine-mlp-6",)) == pytest.approx(10 * (5 + times) + 3 + 4)
    # With more jobs the students follow the teacher side by side, each slower than alone.
    assert span_of(whole, seconds, 9)(1.0, ()) == pytest.approx(1.5 * 10 * (1 + times) + 9)


def test_what_was_chosen_is_said_and_kept(given_times: list[float], tmp_path: Path) -> None:
    small = recipe(
        seeds=[0],
        data={"digits": {"train": 60}},
        students={"kd": {"training": {"steps": 100, "lr": 0.01}}},
    )
    given_times[0] = 0.2
    found, said = within(small, tmp_path / "run", minutes=1, jobs=1)
    # A tenth is kept in reserve: 54 of 60 seconds, for 500 steps of 0.2.
    assert found.within is not None
    assert found.within.part == 0.54
    assert said == (
        "Within 1 minute each training has 54 % of its steps (teacher 216, kd 54): "
        "about 54 seconds."
    )

    execute(found, tmp_path / "run")
    kept = read_recipe(str(tmp_path / "run" / "recipe.yaml"))
    assert kept.within == found.within
    # Whatever a step takes now, the run goes on with the steps that it has.
    given_times[0] = 5.0
    again, said = within(small, tmp_path / "run", minutes=1, jobs=1)
    assert again == found
    assert said.endswith("as was chosen when the run began.")
    execute(again, tmp_path / "run")
    assert within(kept, tmp_path / "run", minutes=1)[0] == kept
    with pytest.raises(RecipeError, match="is 2, but this recipe was cut to 1 minute; give that"):
        within(kept, tmp_path / "run", minutes=2)
    # Another time is another run.
    with pytest.raises(RecipeError, match=r"is 2, but the run in '.*' was cut to 1 minute; give"):
        within(small, tmp_path / "run", minutes=2)
    with pytest.raises(StorageError, match=r"made with training\.steps"):
        execute(cut(small, section(minutes=2, part=0.2)), tmp_path / "run")


def test_too_little_time_is_told_with_what_it_takes(
    given_times: list[float], tmp_path: Path
) -> None:
    given_times[0] = 1.0
    with pytest.raises(RecipeError) as error:
        within(recipe(), tmp_path / "run", minutes=0.5, jobs=1)
    assert str(error.value).startswith(
        "--minutes: is 0.5, but with 5 % of its steps the run takes about "
    )
    assert not (tmp_path / "run").exists()
    with pytest.raises(RecipeError, match="is -1; it must be above 0"):
        within(recipe(), tmp_path / "run", minutes=-1)


def test_a_small_run_fits_into_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = recipe(
        seeds=[0],
        data={"digits": {"train": 60}},
        students={"kd": {}},
        teacher={"model": {"mlp": {"hidden": [8]}}, "training": {"steps": 9},
                 "record": {"draws": 64}},
    )  # fmt: skip
    monkeypatch.setattr(module, "time", time)
    found, said = within(small, tmp_path / "run", minutes=60)
    assert found.within is not None
    assert found.within.part == 1
    assert said.startswith("Within 60 minutes all trainings have all of their steps: about ")


# -- xcl.distill -----------------------------------------------------------------------------------


def distilled(said: list[str], **settings: Any) -> Any:
    data = xcl.make_data("d", *3 * [(([[0.0, 1], [1, 0], [0, 0], [1, 1]] * 10), [0, 1, 0, 1] * 10)])
    return xcl.distill(
        {"random_forest": {"trees": 3}}, {"mlp": {"hidden": [3]}}, data, tell=said.append,
        **{"sampler": ["empirical"], "steps": 200, "training": {"batch_size": 8}} | settings,
    )  # fmt: skip


def test_distill_takes_the_steps_that_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said: list[str] = []
    monkeypatch.setattr(within_lessons, "_ONCE", 0.0)
    monkeypatch.setattr(within_lessons, "_seconds", lambda *_: 60.0)
    first = distilled(said, minutes=100, out=tmp_path / "s")
    # A tenth is kept in reserve.
    assert said[-1] == "Within 100 minutes: 90 of 200 steps, about 1.5 hours."
    steps = 90
    monkeypatch.setattr(within_lessons, "_seconds", lambda *_: 1e9)
    again = distilled(said, minutes=100, out=tmp_path / "s")
    assert said[-1] == f"Within 100 minutes: {steps} of 200 steps, as was chosen when it began."
    x = [[0.0, 1.0]]
    assert first.predict(x).probs.tolist() == again.predict(x).probs.tolist()
    # It is the student of so many steps.
    alone = distilled(said, steps=steps)
    assert alone.predict(x).probs.tolist() == first.predict(x).probs.tolist()


def test_distill_leaves_out_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(within_lessons, "_ONCE", 0.0)
    monkeypatch.setattr(within_lessons, "_seconds", lambda *_: 60.0)
    # In 72 minutes, three candidates of 200 steps would keep 72 of 400, and two keep 72 of 300.
    sampler = ["empirical", "mixup"]
    found = distilled(said, minutes=80, sampler=sampler, choose=["kd", "half", "all"])
    assert "without all, about" in said[-1]
    assert set(found.choice["held_out_kl"].popitem()[1]) == {"kd", "half"}


@pytest.mark.parametrize("minutes", [0, -1, "ten", True, float("nan")])
def test_distill_tells_a_wrong_time(minutes: Any) -> None:
    with pytest.raises(RecipeError, match=r"minutes: is .*; it must be a number above 0"):
        distilled([], minutes=minutes)


def test_distill_tells_too_short_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(within_lessons, "_seconds", lambda *_: 60.0)
    with pytest.raises(RecipeError, match="minutes: is 1, but with 5 % of its steps the training"):
        distilled([], minutes=1)
