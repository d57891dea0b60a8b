"""First weights, features and simulated 8 bits of a student, in a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from extracurricular.errors import RecipeError
from extracurricular.export.ship import export_run
from extracurricular.files import read_sealed
from extracurricular.recipe.read import parse_recipe
from extracurricular.run.check import check
from extracurricular.run.execute import execute
from extracurricular.run.plan import plan
from extracurricular.run.workspace import Workspace


def recipe(student: dict[str, Any] | None = None, **more: Any) -> Any:
    return parse_recipe(
        {
            "name": "extras", "data": {"digits": {"train": 60}},
            "teacher": {
                "model": {"digits_cnn": {"width": 4, "depth": 1}},
                "training": {"steps": 6, "batch_size": 16}, **more.pop("teacher", {}),
            },
            "defaults": {
                "model": {"digits_cnn": {"width": 2, "depth": 1}},
                "training": {"steps": 12, "batch_size": 16},
            },
            "students": {"plain": {}, "mine": student or {}}, "subject": "mine",
            "device": {"accelerator": "cpu"}, **more,
        }
    )  # fmt: skip


def checked(tmp_path: Path, student: dict[str, Any], **more: Any) -> None:
    given = recipe(student, **more)
    check(plan(given), Workspace(given, tmp_path / "run"))


def test_all_of_it_in_one_run_and_an_export_with_the_trained_ranges(tmp_path: Path) -> None:
    execute(recipe(), tmp_path / "first")
    file = tmp_path / "first/students/plain/seed-0/weights.safetensors"
    told: list[str] = []
    mine = {
        "start": str(file), "features": {"student": "0", "teacher": "0"}, "quantise": "int8",
        "training": {"freeze": ["0.*"], "accumulate": 2, "optimizer": "adam", "lr": 0.001},
        "matching": {"divergence": "dkd", "temperature": 2.0},
    }  # fmt: skip
    execute(recipe(mine), tmp_path / "run")
    folder = tmp_path / "run/students/mine/seed-0"
    record = read_sealed(folder / "stage.json")
    settings = record["settings"]
    assert settings["start"]["sha256"]
    assert settings["quantise"] == "int8"
    assert settings["features"] == {"student": "0", "teacher": "0", "loss": "mse", "weight": 1.0}
    assert settings["training"]["accumulate"] == 2
    assert settings["matching"]["divergence"] == {"dkd": {"alpha": 1.0, "beta": 8.0}}
    weights, first = load_file(folder / "weights.safetensors"), load_file(file)
    assert weights.keys() == first.keys()
    assert torch.equal(weights["0.weight"], first["0.weight"])
    last = list(weights)[-1]
    assert not torch.equal(weights[last], first[last])
    assert set(record["ranges"]) == {"0", "4", "8"}
    # Done again, nothing changes; and it is exported with those ranges.
    before = (folder / "weights.safetensors").stat().st_mtime_ns
    execute(recipe(mine), tmp_path / "run")
    assert (folder / "weights.safetensors").stat().st_mtime_ns == before
    shipped = export_run(tmp_path / "run", int8=True)
    assert any(str(path).endswith("mine.int8.onnx") for path in shipped.files)
    assert told == []


def test_a_student_without_them_has_the_settings_of_before(tmp_path: Path) -> None:
    given = recipe()
    stage = plan(given).students["plain", 0]
    names = {"start", "features", "quantise", "extras"}
    assert not names & set(stage.settings)
    assert not {"accumulate", "freeze"} & set(stage.settings["training"])
    assert not {"label_smoothing"} & set(stage.settings["matching"])


def save(path: Path, **tensors: torch.Tensor) -> str:
    save_file(tensors, path)
    return str(path)


def test_mistakes_are_told_by_their_key(tmp_path: Path) -> None:
    nothing = save(tmp_path / "nothing.safetensors", other=torch.zeros(2))
    features = {"student": "0", "teacher": "0"}
    record = {"teacher": {"record": {"draws": 64}}}
    cases: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        (r"students\.mine\.start: the file .*strict: false skips", {"start": nothing}, {}),
        (r"students\.mine\.start: the file '/nowhere/w\.pt' is missing$",
         {"start": "/nowhere/w.pt"}, {}),
        (r"students\.mine\.features\.student: is 'stem', which is no layer; known: 0, ",
         {"features": features | {"student": "stem"}}, {}),
        (r"students\.mine\.features\.teacher: is '00', which is no layer; did you mean '0'",
         {"features": features | {"teacher": "00"}}, {}),
        (r"students\.mine\.features: matches layers of the teacher, but there is a record",
         {"features": features}, record),
        (r"students\.mine\.features: matches layers of the teacher, but there is none",
         {"features": features, "learns_from": "labels"}, {}),
        (r"students\.mine\.training\.freeze: has 'stem\.\*', which is no weight",
         {"training": {"freeze": ["stem.*"]}}, {}),
        (r"students\.mine\.training\.optimizer: cannot import the optimizer 'mine:Nothing'",
         {"training": {"optimizer": "mine:Nothing", "lr": 0.1}}, {}),
        (r"students\.mine\.matching\.divergence: is 'wat'|unknown divergence 'wat'",
         {"matching": {"divergence": "wat"}}, {}),
        (r"matching\.divergence\.dkd: beta is -1\.0; it must be finite",
         {"matching": {"divergence": {"dkd": {"beta": -1.0}}}}, {}),
        (r"students\.mine\.matching\.divergence: is 'dkd', which compares the wrong classes",
         {"learns_from": "labels", "matching": {"divergence": "dkd"}}, {}),
    ]  # fmt: skip
    for says, student, more in cases:
        with pytest.raises(RecipeError, match=says):
            checked(tmp_path, student, **more)


def test_forests_and_real_targets_are_told_what_they_lack(tmp_path: Path) -> None:
    forest = {
        "name": "n", "data": {"digits": {"train": 60}}, "teacher": {"estimator": "random_forest"},
        "students": {
            "mine": {"model": "mlp", "features": {"student": "1", "teacher": "1"}}
        }, "device": {"accelerator": "cpu"},
    }  # fmt: skip
    given = parse_recipe(forest)
    with pytest.raises(
        RecipeError,
        match=r"students\.mine\.features: matches layers of the teacher, but it is no network \(_C",
    ):
        check(plan(given), Workspace(given, tmp_path / "run"))
