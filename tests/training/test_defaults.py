"""The optimiser and the rate of a training that leaves them open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

import extracurricular as xcl
from extracurricular.distributions import Task
from extracurricular.errors import StorageError
from extracurricular.files import read_json, write_json
from extracurricular.training import Training
from extracurricular.training.defaults import decided, is_open

DENSE, CONVOLUTIONAL = nn.Linear(2, 2), nn.Sequential(nn.Conv2d(3, 4, 3))
REAL, CLASSES, LABELS = Task("regression", 1), Task("classification", 3), Task("multilabel", 3)


@pytest.mark.parametrize(
    ("given", "task", "network", "wanted"),
    [
        ({}, REAL, DENSE, ("adamw", 0.01, 1.0)),
        ({}, REAL, CONVOLUTIONAL, ("adamw", 0.001, 1.0)),
        ({}, CLASSES, DENSE, ("adamw", 0.01, 0.1)),
        ({}, LABELS, DENSE, ("adamw", 0.01, 0.1)),
        ({}, CLASSES, CONVOLUTIONAL, ("sgd", 0.1, 5e-4)),
        ({"weight_decay": 0.3}, REAL, DENSE, ("adamw", 0.01, 0.3)),
        ({"optimizer": "sgd"}, REAL, DENSE, ("sgd", 0.1, 5e-4)),
        # A rate alone is that of SGD, and its decay what it was before there was a choice.
        ({"lr": 0.05}, REAL, DENSE, ("sgd", 0.05, 5e-4)),
        ({"optimizer": "adamw", "lr": 0.003}, REAL, DENSE, ("adamw", 0.003, 5e-4)),
    ],
)
def test_task_and_network_decide(
    given: dict[str, Any], task: Task, network: nn.Module, wanted: tuple[str, float, float]
) -> None:
    found = decided(Training(**given), task, network)
    assert (found.optimizer, found.lr, found.weight_decay) == wanted
    assert not is_open(found)
    assert decided(found, task, network) is found


def recipe(folder: Path, **training: Any) -> Any:
    rows = "\n".join(f"{k % 7},{k % 5},{k % 7 - 0.5 * (k % 5)}" for k in range(60))
    (folder / "t.csv").write_text(f"a,b,y\n{rows}\n")
    section = {"model": {"mlp": {"hidden": [4]}}, "training": {"steps": 8, **training}}
    return xcl.parse_recipe(
        {
            "name": "t",
            "data": {"table": {"path": str(folder / "t.csv"), "task": "regression"}},
            "device": {"accelerator": "cpu"},
            "teacher": section,
            "students": {"kd": section},
        }
    )


def test_what_was_decided_is_written_and_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    xcl.execute(recipe(tmp_path), out)
    stages = [out / "teacher/shared/member-0/stage.json", out / "students/kd/seed-0/stage.json"]
    for stage in stages:
        training = read_json(stage)["settings"]["training"]
        assert (training["optimizer"], training["lr"]) == ("adamw", 0.01)
    assert "optimizer: adamw" in (out / "recipe.yaml").read_text()
    before = [stage.read_bytes() for stage in stages]
    xcl.execute(recipe(tmp_path), out)
    xcl.execute(xcl.read_recipe(str(out / "recipe.yaml")), out)
    assert [stage.read_bytes() for stage in stages] == before


def test_a_folder_from_before_goes_on_as_it_was_begun(tmp_path: Path) -> None:
    """Its recipe left the optimiser out, which was SGD then for every task."""
    out = tmp_path / "out"
    xcl.execute(recipe(tmp_path, optimizer="sgd", lr=0.1), out)
    student = out / "students/kd/seed-0/stage.json"
    before = student.read_bytes()
    summary = xcl.execute(recipe(tmp_path), out)
    assert student.read_bytes() == before
    assert summary["recipe"]["teacher"]["training"]["optimizer"] == "sgd"
    with pytest.raises(StorageError, match=r"training.lr = 0.1, but the recipe says 0.2"):
        xcl.execute(recipe(tmp_path, lr=0.2), out)


def test_a_rate_in_a_damaged_stage_decides_nothing(tmp_path: Path) -> None:
    stage = tmp_path / "out/students/kd/seed-0/stage.json"
    stage.parent.mkdir(parents=True)
    write_json(stage, {"settings": {"training": {"optimizer": "sgd"}}})
    with pytest.raises(StorageError):
        xcl.execute(recipe(tmp_path), tmp_path / "out")
