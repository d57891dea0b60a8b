"""``xcl distill``: a run without a recipe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import yaml

import extracurricular as xcl_package
from extracurricular.data.sets.digits import digits
from extracurricular.files import load_weights, save_weights
from extracurricular.models import build_model
from tests.cli.test_cli import xcl

DATA = "{digits: {train: 100, validation: 50}}"
STUDENT = "{mlp: {hidden: [6]}}"


def test_it_does_what_the_call_in_python_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = digits(train=100, validation=50)
    teacher = build_model({"mlp": {"hidden": [16]}}, inputs=data.shapes, outputs=10)
    save_weights(tmp_path / "teacher.safetensors", teacher.state_dict())
    given = ["--teacher", str(tmp_path / "teacher.safetensors"), "--model", "{mlp: {hidden: [16]}}"]
    out = str(tmp_path / "run")
    rest = ["--data", DATA, "--student", STUDENT, "--steps", "12", "--out", out]
    done = xcl("distill", *given, *rest)
    assert done.returncode == 0, done.stderr
    assert "student" in done.stdout
    assert (tmp_path / "run" / "report.html").is_file()
    weights = load_weights(tmp_path / "run/students/student/seed-0/weights.safetensors")
    found = xcl_package.distill(teacher, {"mlp": {"hidden": [6]}}, data, steps=12)
    for name, value in found.keeper.module.state_dict().items():  # type: ignore[union-attr]
        assert torch.equal(weights[name], value), name
    # The folder is a run like any other.
    x = data.test.x[:9]
    np.testing.assert_allclose(xcl_package.load(out)(x).probs, found(x).probs, atol=1e-6)
    again = xcl("distill", *given, *rest)
    assert "Everything was done already" in again.stdout
    recipe = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert recipe["subject"] == "student"
    assert recipe["reference"] is None


def test_an_estimator_and_overrides(tmp_path: Path) -> None:
    done = xcl(
        "distill", "--teacher", "{random_forest: {trees: 5}}", "--data", DATA, "--student", STUDENT,
        "--out", str(tmp_path / "run"), "students.student.training.steps=3",
        "students.student.matching.temperature=2.0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    recipe = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert recipe["teacher"]["estimator"] == {"random_forest": {"trees": 5}}
    assert recipe["students"]["student"]["training"]["steps"] == 3
    assert recipe["students"]["student"]["matching"] == {"temperature": 2.0}


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "run")]
    usual = {"--teacher": "random_forest", "--data": DATA, "--student": STUDENT}
    for changes, says in (
        ({"--teacher": "t.safetensors"}, "--model: is needed"),
        ({"--model": "mlp"}, "--model: is for weights"),
        ({"--teacher": "{random_forest: {tree: 5}}"}, "teacher.estimator.random_forest.tree"),
        ({"--teacher": "absent.onnx"}, "absent.onnx"),
        ({"--data": "digitz"}, "there is no data set, and no recipe, 'digitz'"),
        ({"--data": "{digits"}, "is not valid YAML"),
        ({"--student": "resnot20"}, "students.student.model: unknown model 'resnot20'"),
    ):
        given = [part for pair in (usual | changes).items() for part in pair]
        done = xcl("distill", *given, *out)
        assert done.returncode == 2, changes
        assert says in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "run").exists()
