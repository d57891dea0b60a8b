"""Students that see the same draws are trained side by side, with the numbers of separate ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from extracurricular.errors import TrainingError
from extracurricular.recipe.read import parse_recipe
from extracurricular.run import cohorts
from extracurricular.run.cohorts import next_group
from extracurricular.run.execute import execute
from extracurricular.run.network import NetworkStage, drawn_with
from extracurricular.run.plan import plan
from extracurricular.teachers import EnsembleTeacher
from tests.run.test_executors import weights
from tests.run.test_run import TINY, without_seconds

MIXED = ["empirical", {"mixup": {"alpha": 1.0}}]
RECIPE: dict[str, Any] = {
    **TINY,
    "seeds": [0, 1],
    "students": {
        "erm": {"learns_from": "labels", "sampler": MIXED},
        "kd": {},
        "warm": {"sampler": MIXED, "matching": {"temperature": 2.0}},
        "small": {"sampler": MIXED, "model": {"mlp": {"hidden": [3]}}},
        "long": {"sampler": MIXED, "training": {"steps": 37}},
        "alone": {"sampler": ["empirical", {"mixup": {"alpha": 0.5}}]},
        "choosy": {"sampler": [*MIXED, {"uncertain": {"score": "divergence"}}]},
        "hot": {
            "sampler": [*MIXED, {"uncertain": {"score": "divergence"}}],
            "matching": {"temperature": 4.0},
        },
    },
}


def students(recipe: Any) -> dict[str, NetworkStage]:
    stages = plan(recipe).trained
    return {s.path: s for s in stages if isinstance(s, NetworkStage) and s.teacher is not None}


def test_a_cohort_has_the_same_draws_and_the_same_teacher() -> None:
    found = students(parse_recipe(RECIPE))
    groups: dict[str, list[str]] = {}
    for path, stage in found.items():
        groups.setdefault(drawn_with(stage) or path, []).append(path)
    names = [sorted(found[path].title.split(",")[0] for path in group) for group in groups.values()]
    assert sorted(names) == sorted(
        2 * [["erm"], ["kd"], ["long", "small", "warm"], ["alone"], ["choosy", "hot"]]
    )


def apart(ready: Any, most: int = 1) -> Any:
    return [ready[0]]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_cohort_changes_no_bit(
    jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = execute(parse_recipe(RECIPE), tmp_path / "together", jobs=jobs)
    monkeypatch.setattr(cohorts, "next_group", apart)
    separate = execute(parse_recipe(RECIPE), tmp_path / "separate", jobs=1)
    assert without_seconds(together) == without_seconds(separate)
    assert weights(tmp_path / "together") == weights(tmp_path / "separate")


@pytest.mark.parametrize("most", [1, 3])
def test_independent_trainings_at_once_change_no_bit(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cohorts, "most_together", lambda workspace: most)
    execute(parse_recipe(RECIPE), tmp_path / "some", jobs=1)
    monkeypatch.setattr(cohorts, "next_group", apart)
    execute(parse_recipe(RECIPE), tmp_path / "one", jobs=1)
    assert weights(tmp_path / "some") == weights(tmp_path / "one")


def test_a_cohort_asks_its_teacher_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    inner = EnsembleTeacher.__call__

    def counting(self: EnsembleTeacher, batch: Any) -> Any:
        # The check before asks about two examples for each network.
        asked.append(len(batch) if len(batch) > 2 else 0)
        return inner(self, batch)

    monkeypatch.setattr(EnsembleTeacher, "__call__", counting)

    def questions(folder: str, names: list[str]) -> int:
        asked.clear()
        chosen = {name: RECIPE["students"][name] for name in names}
        recipe = {**RECIPE, "seeds": [0], "students": chosen, "reference": None, "plain": None}
        execute(parse_recipe(recipe), tmp_path / folder, jobs=1)
        return sum(asked)

    none = questions("none", ["erm"])
    one = questions("one", ["erm", "warm"])
    assert one > none
    assert questions("two", ["erm", "warm", "small"]) == one


def test_a_failure_in_a_cohort_leaves_what_can_be_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others stop, and the same command ends with the numbers of an undisturbed run."""
    whole = execute(parse_recipe(RECIPE), tmp_path / "whole", jobs=1)
    inner = NetworkStage.do

    def do(self: NetworkStage, workspace: Any) -> None:
        if "small" in self.path:
            raise TrainingError("lightning struck")
        inner(self, workspace)

    monkeypatch.setattr(NetworkStage, "do", do)
    with pytest.raises(TrainingError, match="lightning struck"):
        execute(parse_recipe(RECIPE), tmp_path / "part", jobs=1)
    monkeypatch.setattr(NetworkStage, "do", inner)
    rest = execute(parse_recipe(RECIPE), tmp_path / "part", jobs=1)
    assert without_seconds(rest) == without_seconds(whole)
    assert weights(tmp_path / "part") == weights(tmp_path / "whole")


def test_what_is_no_training_is_done_alone() -> None:
    stages = plan(parse_recipe(RECIPE)).trained
    for place in range(len(stages)):
        group = next_group(stages[place:], most=1)
        assert group[0] is stages[place]
        assert all(isinstance(stage, NetworkStage) for stage in group) or len(group) == 1
