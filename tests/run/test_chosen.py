"""A student that is chosen among candidates by held-out KL, half of them stopped at a time."""

from __future__ import annotations

import copy
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from extracurricular.errors import RecipeError
from extracurricular.files import read_json, read_lines
from extracurricular.recipe.read import parse_recipe
from extracurricular.run import chosen
from extracurricular.run.chosen import ChosenStage
from extracurricular.run.execute import execute
from extracurricular.run.finished import open_run
from extracurricular.run.halving import Results
from extracurricular.run.plan import plan
from extracurricular.samplers import Empirical, Mixup
from tests.run.test_executors import weights
from tests.run.test_run import TINY, without_seconds

MIXED = ["near", {"mixup": {"alpha": 1.0}}]


def recipe(**choose: Any) -> dict[str, Any]:
    own = copy.deepcopy(TINY)
    among = {"kd": {}, "mixed": {"sampler": MIXED}, "warm": {"matching": {"temperature": 3.0}}}
    own["chains"] = {"near": ["empirical", {"noise": {"std": 0.1}}]}
    own["students"] = {
        "erm": {"learns_from": "labels"},
        "kd": {},
        "best": {"training": {"steps": 128}, "choose": {"among": among, **choose}},
    }
    return own


def stage_of(given: dict[str, Any]) -> ChosenStage:
    found = plan(parse_recipe(given)).students["best", 0]
    assert isinstance(found, ChosenStage)
    return found


def test_rounds_halve_the_candidates_and_steps_are_counted_in_all() -> None:
    one = stage_of(recipe())
    assert one.halving.rounds == [(64, 1)]
    assert one.steps == 3 * 64 + 64
    two = stage_of(recipe(after=[0.25, 0.5]))
    assert two.halving.rounds == [(32, 2), (64, 1)]
    assert two.steps == 3 * 32 + 2 * 32 + 64


def test_candidates_differ_in_what_they_say_and_in_nothing_else() -> None:
    stages = dict(stage_of(recipe()).candidates)
    assert stages["mixed"].sampler == ["empirical", {"noise": {"std": 0.1}}, MIXED[1]]
    assert stages["warm"].matching["temperature"] == 3.0
    assert stages["kd"].sampler == ["empirical"]
    assert all(stage.model == stages["kd"].model for stage in stages.values())
    assert all(stage.training.steps == 128 for stage in stages.values())


def test_the_best_by_held_out_kl_is_trained_to_the_end(tmp_path: Path) -> None:
    summary = execute(parse_recipe(recipe()), tmp_path)
    folder = tmp_path / "students" / "best" / "seed-0"
    record = read_json(folder / "stage.json")
    values = record["held_out_kl"]["64"]
    assert record["chosen"] == min(values, key=values.get)
    assert record["steps"] == summary["students"]["best"]["steps"] == 256
    ends = {name: list(read_lines(folder / name / "log.jsonl"))[-1]["step"] for name in values}
    assert ends == {name: 128 if name == record["chosen"] else 64 for name in values}
    assert not list(folder.rglob("*.ckpt"))
    # No student before the choice drew what it was judged by.
    lines = [json.loads(line) for line in (folder / "kd" / "log.jsonl").read_text().splitlines()]
    assert all("mastery" in line for line in lines if line["step"] <= 64 and line["step"] % 16 == 0)


def test_the_candidate_that_was_chosen_is_that_of_a_training_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that a choice adds is the examples that come back to the draws at its step."""
    order = itertools.cycle([0.3, 0.1, 0.2])
    monkeypatch.setattr(chosen, "mismatch", lambda *_: next(order))
    execute(parse_recipe(recipe()), tmp_path)
    run = open_run(tmp_path)
    stage = run.plan.students["best", 0]
    assert isinstance(stage, ChosenStage)
    assert run.workspace.record(stage.path)["chosen"] == "mixed"
    assert isinstance(stage.draws(run.workspace), Mixup)
    assert isinstance(run.plan.students["kd", 0].draws(run.workspace), Empirical)


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("strikes", [1, 2, 3, 4])
def test_an_interrupted_choice_goes_on_to_the_same_end(
    strikes: int, jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = execute(parse_recipe(recipe(after=[0.25, 0.5])), tmp_path / "whole", jobs=jobs)
    inner, calls = chosen.train_network, [0]

    def train(*arguments: Any, **more: Any) -> Any:
        found = inner(*arguments, **more)
        calls[0] += 1
        if calls[0] == strikes:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(chosen, "train_network", train)
    with pytest.raises(KeyboardInterrupt):
        execute(parse_recipe(recipe(after=[0.25, 0.5])), tmp_path / "part", jobs=1)
    monkeypatch.setattr(chosen, "train_network", inner)
    rest = execute(parse_recipe(recipe(after=[0.25, 0.5])), tmp_path / "part", jobs=jobs)
    assert without_seconds(rest) == without_seconds(whole)
    assert weights(tmp_path / "part") == weights(tmp_path / "whole")


def test_a_choice_that_lost_its_training_has_the_same_log_again(tmp_path: Path) -> None:
    execute(parse_recipe(recipe(after=[0.25, 0.5])), tmp_path)
    folder = tmp_path / "students" / "best" / "seed-0"
    log = folder / read_json(folder / "stage.json")["chosen"] / "log.jsonl"
    before = [without_clock(line) for line in read_lines(log)]
    for name in ("stage.json", "weights.safetensors"):
        (folder / name).unlink()
    execute(parse_recipe(recipe(after=[0.25, 0.5])), tmp_path)
    assert [without_clock(line) for line in read_lines(log)] == before
    assert [line["step"] for line in before if "evaluation" in line] == [32, 64, 128]


def test_checkpoints_of_a_finished_stage_are_removed_by_the_next_run(tmp_path: Path) -> None:
    execute(parse_recipe(recipe()), tmp_path)
    left = [
        tmp_path / "students" / name / f"step-0000000001.{'0' * 32}.ckpt"
        for name in ("best/seed-0/kd", "best/seed-0/mixed", "kd/seed-0")
    ]
    for file in left:
        file.write_bytes(b"left by a process that was killed")
    execute(parse_recipe(recipe()), tmp_path)
    assert not [file for file in left if file.exists()]


def without_clock(line: dict[str, Any]) -> dict[str, Any]:
    return {key: line[key] for key in line if key not in ("seconds", "examples_per_second")}


def test_a_diverged_candidate_is_never_chosen() -> None:
    results = Results(Path("/nonexistent/choice.json"))
    results._kept = {"64": {"a": [float("nan"), 1.0], "b": [5.0, 1.0]}}
    assert results.value(64, "a") == float("inf")
    assert results.value(64, "b") == 5.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"after": [0.5, 0.25]}, "the parts must rise"),
        ({"after": [1.5]}, "less than 1"),
        ({"among": {"kd": {}}}, "needs at least two"),
        ({"among": {"kd": {}, "b c": {}}}, "a name begins with a letter"),
        ({"among": {"kd": {}, "b": {"steps": 3}}}, "unknown key"),
        ({"among": {"kd": {}, "b": {"sampler": ["nowhere"]}}}, "nowhere"),
    ],
)
def test_a_wrong_choice_is_one_clear_sentence(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError) as caught:
        execute(parse_recipe(recipe(**change)), tmp_path)
    assert said in str(caught.value)
    assert "students.best.choose" in str(caught.value)


def test_a_choice_needs_a_teacher_to_ask(tmp_path: Path) -> None:
    own = recipe()
    own["students"]["best"]["learns_from"] = "labels"
    with pytest.raises(RecipeError, match="compares students with a teacher"):
        execute(parse_recipe(own), tmp_path)
    own = recipe()
    own["teacher"]["record"] = {"draws": 64}
    with pytest.raises(RecipeError, match=r"set teacher\.record to null"):
        execute(parse_recipe(own), tmp_path)
