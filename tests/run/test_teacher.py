"""Runs whose teacher is no torch module: fitted, asked, recorded, and found again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from extracurricular.data.sets import DATA
from extracurricular.errors import RecipeError, StorageError
from extracurricular.files import read_json, read_sealed, write_sealed
from extracurricular.recipe.read import parse_recipe
from extracurricular.report.terminal import table
from extracurricular.run.execute import execute
from extracurricular.teachers import named
from tests.teachers.test_onnx import linear

OWN = """
import numpy as np

def say(x):
    return 3 * x[:, :1], np.full((len(x), 1), 0.5)
"""


@pytest.fixture(autouse=True)
def _own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run_teachers.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "run_teachers", raising=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 5)).astype(np.float32)
    y = (3 * x[:, :1] + rng.normal(0, 0.5, (80, 1))).astype(np.float32)
    np.savez(tmp_path / "table.npz", x=x, y=y)
    return tmp_path / "table.npz"


def recipe(file: Path, teacher: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "name": "outside",
        "data": {"arrays": {"path": str(file)}},
        "seeds": [0, 1],
        "teacher": teacher,
        "defaults": {
            "model": {"mlp": {"hidden": [4]}},
            "training": {"steps": 8, "batch_size": 16},
        },
        "students": {"erm": {"learns_from": "labels"}, "kd": {}},
        **changes,
    }


FOREST = {"estimator": {"random_forest": {"trees": 5}}}


def run(folder: Path, plain: dict[str, Any]) -> dict[str, Any]:
    return execute(parse_recipe(plain), folder)


def files(folder: Path) -> dict[str, int]:
    found = [f for f in folder.rglob("*") if f.is_file() and f.name != ".lock"]
    return {str(f.relative_to(folder)): f.stat().st_mtime_ns for f in found}


def test_a_run_with_a_forest(tmp_path: Path, file: Path) -> None:
    folder, plain = tmp_path / "run", recipe(file, FOREST)
    summary = run(folder, plain)
    assert summary["teacher"]["metrics"]["rmse"]["mean"] > 0
    assert summary["teacher"]["parameters"] > 10
    assert summary["students"]["kd"]["metrics"]["kl_to_teacher"]["mean"] > 0
    stage = read_json(folder / "teacher/shared/outside/stage.json")
    assert stage["done"]
    assert len(stage["identity"]) == 32
    assert not list((folder / "teacher").rglob("weights.safetensors"))
    # What is written can be read again, and asks for the same; what was decided stands in it.
    again = parse_recipe(yaml.safe_load((folder / "recipe.yaml").read_text())).dump()
    wanted = parse_recipe(plain).dump()
    for name in (*again["students"], "teacher"):
        section = again["students"].get(name, again["teacher"])["training"]
        asked = wanted["students"].get(name, wanted["teacher"])["training"]
        for key in ("optimizer", "lr", "weight_decay"):
            assert asked[key] in (None, section[key])
            section[key] = asked[key]
    assert again == wanted
    before = files(folder)
    assert run(folder, plain) == summary
    assert files(folder) == before


def test_each_seed_can_have_a_teacher_of_its_own(tmp_path: Path, file: Path) -> None:
    run(tmp_path / "run", recipe(file, {**FOREST, "per_seed": True}))
    stages = [
        read_json(tmp_path / f"run/teacher/seed-{seed}/outside/stage.json") for seed in (0, 1)
    ]
    assert stages[0]["identity"] != stages[1]["identity"]


def test_a_teacher_that_answers_otherwise_is_refused(tmp_path: Path, file: Path) -> None:
    folder, plain = tmp_path / "run", recipe(file, FOREST)
    run(folder, plain)
    path = folder / "teacher/shared/outside/stage.json"
    write_sealed(path, {**read_sealed(path), "identity": "0" * 32})
    with pytest.raises(StorageError, match=r"teacher/shared/outside of .* does not answer as it"):
        run(folder, plain)


def test_other_settings_are_refused(tmp_path: Path, file: Path) -> None:
    folder = tmp_path / "run"
    run(folder, recipe(file, FOREST))
    before = files(folder)
    with pytest.raises(StorageError, match=r"made with teacher.random_forest.trees = 5"):
        run(folder, recipe(file, {"estimator": {"random_forest": {"trees": 6}}}))
    assert files(folder) == before


def test_members_serve_the_scores_of_samplers(tmp_path: Path, file: Path) -> None:
    unsure = ["empirical", {"uncertain": {"score": "epistemic_variance", "candidates": 2}}]
    summary = run(
        tmp_path / "run", recipe(file, FOREST, seeds=[0], students={"kd": {"sampler": unsure}})
    )
    assert summary["students"]["kd"]["metrics"]["rmse"]["mean"] > 0
    one = {"estimator": {"gaussian_process": {}}}
    with pytest.raises(RecipeError, match=r"students.kd.sampler"):
        run(tmp_path / "none", recipe(file, one, students={"kd": {"sampler": unsure}}))
    assert not (tmp_path / "none").exists()


def test_it_can_be_recorded(tmp_path: Path, file: Path) -> None:
    folder, plain = tmp_path / "run", recipe(file, {**FOREST, "record": {"draws": 64}})
    summary = run(folder, plain)
    assert summary["students"]["kd"]["metrics"]["rmse"]["mean"] > 0
    [manifest] = (folder / "knowledge").glob("*/manifest.json")
    assert len(json.loads(manifest.read_text())["origin"]["teacher"]) == 32
    assert run(folder, plain) == summary


def test_functions_and_onnx_files(tmp_path: Path, file: Path) -> None:
    say = {"function": {"function": "run_teachers:say"}}
    summary = run(tmp_path / "f", recipe(file, say))
    test = DATA.build({"arrays": {"path": str(file)}}, key="data").test
    assert test.y is not None
    assert isinstance(test.x, torch.Tensor)
    error = (3 * test.x[:, :1] - test.y).square().mean().sqrt()
    assert summary["teacher"]["metrics"]["rmse"]["mean"] == pytest.approx(float(error), rel=1e-5)
    assert summary["teacher"]["parameters"] is None
    shown = [str(cell) for column in table(summary).columns for cell in column.cells]
    assert "–" in shown

    weight = np.zeros((5, 2), np.float32)
    weight[0, 0] = 3
    path = linear(tmp_path / "t.onnx", weight=weight)
    spec = {"onnx": {"path": str(path), "output": "mean_log_var"}}
    known = run(tmp_path / "o", recipe(file, spec))
    found = known["teacher"]["metrics"]["rmse"]["mean"]
    assert found == pytest.approx(summary["teacher"]["metrics"]["rmse"]["mean"], rel=1e-4)
    assert known["teacher"]["parameters"] == 10
    # Another content under the same name is another teacher.
    linear(path, weight=weight * 2)
    with pytest.raises(StorageError, match=r"teacher/shared/outside made with files.0 ="):
        run(tmp_path / "o", recipe(file, spec))


@pytest.mark.parametrize(
    ("teacher", "says"),
    [
        ({}, "teacher: has neither model nor estimator, onnx, function or answers"),
        ({**FOREST, "model": "mlp"}, "model is for networks, but estimator is set"),
        ({**FOREST, "members": 2}, "members is for networks, but estimator is set"),
        ({**FOREST, "mc_dropout": 2}, "mc_dropout is for networks"),
        ({**FOREST, "training": {"steps": 5}}, "training is for networks"),
        ({"estimator": "forest"}, "teacher.estimator: unknown teacher 'forest'"),
        ({"estimator": ["random_forest"]}, "teacher.estimator: is "),
        (
            {"estimator": {"random_forest": {"trees": "x"}}},
            "teacher.estimator.random_forest.trees: is",
        ),
        ({"onnx": {"path": "no.onnx"}}, r"teacher.onnx.*no.onnx' cannot be read"),
        (
            {"function": {"function": "run_teachers:absent"}},
            r"teacher.function.function: cannot import the function 'run_teachers:absent'",
        ),
        (
            {"function": {"function": "run_teachers:say", "output": "probs"}},
            "teacher.function: output is 'probs'; regression needs one of",
        ),
        (
            {"function": {"function": "run_teachers:say", "output": "mean"}},
            "teacher.function: output is 'mean', which has no variance",
        ),
    ],
    ids=str,
)
def test_mistakes_are_found_before_anything_is_written(
    tmp_path: Path, file: Path, teacher: dict[str, Any], says: str
) -> None:
    with pytest.raises(RecipeError, match=says):
        run(tmp_path / "run", recipe(file, teacher))
    assert not (tmp_path / "run").exists()


def test_the_check_fits_on_a_few_examples_alone(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    kept = named.RandomForest.fit

    def fit(self: Any, data: Any, seed: int) -> Any:
        seen.append(len(data.train))
        return kept(self, data, seed)

    monkeypatch.setattr(named.RandomForest, "fit", fit)
    monkeypatch.setitem(named._FEW, "regression", 10)
    run(tmp_path / "run", recipe(file, FOREST, seeds=[0]))
    assert seen == [10, 56]
