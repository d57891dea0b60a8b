"""A run as a graph of stages: pure, in order, and priced before anything is done."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from extracurricular.errors import RecipeError
from extracurricular.recipe.read import parse_recipe, read_recipe, shipped_recipes
from extracurricular.report.write import ReportStage
from extracurricular.run.estimate import TIMED, WARM_UP, estimate, whole_seconds
from extracurricular.run.execute import execute
from extracurricular.run.plan import in_order, plan
from extracurricular.run.stages import Stage
from extracurricular.run.workspace import Workspace
from tests.run.test_run import STEPS, TINY, snapshot

GENERATED = {"generators": {"made": {"model": {"kde": {}}, "least_variety": 0}}}


def small(**changes: Any) -> dict[str, Any]:
    return {**TINY, **changes}


def assert_sound(stages: tuple[Stage, ...]) -> None:
    """Each stage stands once, and behind all that it needs."""
    seen: set[str] = set()
    for stage in stages:
        assert stage.path not in seen, stage.path
        assert {needed.path for needed in stage.needs} <= seen, stage.path
        seen.add(stage.path)


@pytest.mark.parametrize("name", list(shipped_recipes()))
def test_the_plan_of_a_shipped_recipe_needs_no_data(name: str) -> None:
    whole = plan(read_recipe(name), [ReportStage()])
    assert_sound(whole.stages)
    assert whole.stages[-1].title == "report"
    count = len(whole.recipe.seeds) * len(whole.recipe.students)
    assert len(whole.students) == count


@settings(max_examples=25, deadline=None)
@given(
    seeds=st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
    members=st.integers(1, 3),
    per_seed=st.booleans(),
    record=st.sampled_from([None, {"draws": 64}]),
    generated=st.booleans(),
)
def test_any_plan_is_in_order(
    seeds: list[int], members: int, per_seed: bool, record: Any, generated: bool
) -> None:
    students: dict[str, Any] = {"a": {"learns_from": "labels"}, "b": {}}
    if generated:
        students["c"] = {"sampler": [{"generated": {"generator": "made"}}]}
    recipe = parse_recipe(
        small(
            seeds=seeds,
            teacher={**TINY["teacher"], "members": members, "per_seed": per_seed, "record": record},
            students=students,
            **(GENERATED if generated else {}),
        )
    )
    whole = plan(recipe)
    assert_sound(whole.stages)
    assert len(whole.preparations) == members * (len(seeds) if per_seed else 1) + generated
    assert whole == plan(recipe)
    # A student alone needs no other student.
    for (name, _), stage in whole.students.items():
        needed = [one for one in in_order([stage]) if one is not stage]
        assert not any(one.path.startswith("students/") for one in needed)
        assert bool(needed) == (name != "a")


def test_stages_may_be_done_in_any_order_that_the_graph_allows(tmp_path: Path) -> None:
    """The same weights, whether the students are trained forwards or backwards."""
    recipe = parse_recipe(small(seeds=[0]))
    execute(recipe, tmp_path / "forwards")
    workspace = Workspace(recipe, tmp_path / "backwards")
    whole = plan(recipe)
    for student in reversed(whole.students.values()):
        for stage in in_order([student]):
            stage.do(workspace)
    for stage in whole.trained:
        ours, theirs = (
            (tmp_path / name / stage.path / "weights.safetensors").read_bytes()
            for name in ("forwards", "backwards")
        )
        assert ours == theirs, stage.path


def test_an_unknown_generator_is_told_by_the_plan() -> None:
    recipe = parse_recipe(small(generators={"made": {"model": "gann"}}))
    with pytest.raises(RecipeError, match="unknown generator 'gann'; did you mean 'gan'"):
        _ = plan(recipe).generators[0]["made"].steps


def test_a_plan_is_priced_and_nothing_is_written(tmp_path: Path) -> None:
    recipe = parse_recipe(small(seeds=[0], teacher={**TINY["teacher"], "record": {"draws": 96}}))
    workspace = Workspace(recipe, tmp_path / "run")
    found = {one.stage.path: one for one in estimate(plan(recipe), workspace)}
    assert not (tmp_path / "run").exists()
    teacher, kd = found["teacher/seed-0/member-0"].price, found["students/kd/seed-0"].price
    assert (teacher.steps, teacher.draws, teacher.questions) == (STEPS, STEPS * 16, 0)
    assert (kd.steps, kd.draws, kd.questions) == (STEPS, STEPS * 16, 0)  # it replays a record
    assert kd.parameters == 64 * 4 + 4 + 4 * 10 + 10
    assert kd.bytes == 4 * kd.parameters
    records = [one for path, one in found.items() if path.startswith("knowledge/")]
    assert [one.price.questions for one in records] == [96, 96]
    assert all(one.price.bytes == 96 * 20 for one in records)  # ten classes in float16
    assert not any(one.done or one.seconds for one in found.values())
    execute(recipe, tmp_path / "run")
    before = snapshot(tmp_path / "run")
    again = estimate(plan(recipe), Workspace(recipe, tmp_path / "run"))
    assert all(one.done for one in again)
    assert snapshot(tmp_path / "run") == before


def test_the_teacher_is_asked_by_students_that_do_not_replay(tmp_path: Path) -> None:
    uncertain = ["empirical", {"uncertain": {"candidates": 3, "plain_share": 0.5}}]
    students = {
        "kd": {},
        "mixed": {"sampler": ["empirical", "mixup"]},
        "unsure": {"sampler": uncertain},
        "erm": {"learns_from": "labels"},
    }
    recipe = parse_recipe(small(seeds=[0], students=students))
    found = {one.stage.key: one for one in estimate(plan(recipe), Workspace(recipe, tmp_path))}
    draws = STEPS * 16
    assert found["students.kd"].price.questions == 100  # its answers are remembered
    assert found["students.mixed"].price.questions == draws
    assert found["students.unsure"].price.questions == 2 * draws  # half one, half three
    assert found["students.erm"].price.questions == 0


def test_each_pair_of_network_and_sampler_is_timed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = parse_recipe(small())
    timed: list[str] = []
    steps: list[int] = []
    module = "extracurricular.run.estimate.train"
    from extracurricular.training import train

    def counted(*given: Any, **named: Any) -> Any:
        assert torch.get_num_threads() == recipe.device.threads == 1
        steps.append(named["settings"].steps)
        return train(*given, **named)

    monkeypatch.setattr(module, counted)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    started = time.perf_counter()
    found = estimate(
        plan(recipe), Workspace(recipe, tmp_path / "run"), timed=True, tell=timed.append
    )
    took = time.perf_counter() - started
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
    # The members of the teacher are one pair, and each student is one, for both seeds.
    assert timed == ["teacher 1/2, seed 0", "erm, seed 0", "kd, seed 0", "xcl, seed 0"]
    assert steps == [WARM_UP, TIMED] * 4
    assert not (tmp_path / "run").exists()
    for one in found:
        if one.seconds is not None:
            low, high = one.seconds
            assert 0 < low < high
    low, high = whole_seconds(found)
    assert 0 < low < high < 100 * took
    # Another seed of the same student takes as long.
    by_path = {one.stage.path: one.seconds for one in found}
    assert by_path["students/kd/seed-0"] == by_path["students/kd/seed-1"]
