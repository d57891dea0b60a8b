"""``xcl distill``: a run without a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import yaml

import extracurricular as xcl_package
from extracurricular.data.sets.digits import digits
from extracurricular.files import load_weights, save_weights
from extracurricular.models import build_model
from tests.cli.called import xcl
from tests.teachers.test_onnx import linear

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
    found = xcl_package.distill(teacher, {"mlp": {"hidden": [6]}}, data, steps=12, raw=False)
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


def test_trees_and_a_calibration_are_those_of_the_call_in_python(tmp_path: Path) -> None:
    trees, out = "{estimator: {extra_trees: {trees: 3}}, draws: 200}", str(tmp_path / "run")
    usual = ["--teacher", "{random_forest: {trees: 2}}", "--data", DATA, "--student", trees]
    done = xcl("distill", *usual, "--calibrate", "temperature, conformal", "--out", out)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "extra_trees fitted to 200 draws" in said
    assert "student is calibrated on 50 validation examples" in said
    data = digits(train=100, validation=50)
    found = xcl_package.distill(
        {"random_forest": {"trees": 2}}, yaml.safe_load(trees), data,
        calibrate=["temperature", "conformal"],
    )  # fmt: skip
    x, ran = data.test.x[:50], xcl_package.load(out)
    np.testing.assert_array_equal(ran(x).probs, found(x).probs)
    assert ran(x).sets() == found(x).sets()
    stage = tmp_path / "run/students/student/seed-0/stage.json"
    before = stage.read_bytes()
    again = xcl("distill", *usual, "--calibrate", "{conformal: 0.8}", "--out", out)
    assert again.returncode == 0, again.stderr
    assert stage.read_bytes() == before
    assert xcl_package.load(out).conformal.coverage == 0.8  # type: ignore[union-attr]


def test_a_choice_stands_beside_kd_of_the_same_total_steps(tmp_path: Path) -> None:
    usual = ["--teacher", "{random_forest: {trees: 2}}", "--data", DATA, "--student", STUDENT]
    usual += ["--steps", "40"]
    done = xcl("distill", *usual, "--choose", "kd,all", "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "chosen among kd, all by held-out KL" in said
    assert "its 56 steps are those of all candidates" in said
    assert "kd took as many steps as student" in said
    students = json.loads((tmp_path / "run" / "summary.json").read_text())["students"]
    assert {name: entry["steps"] for name, entry in students.items()} == {"student": 56, "kd": 56}
    choice = "{soft: {matching: {temperature: 2.0}}, kd: null}"
    alone = ["--choose", choice, "--alone", "--out", str(tmp_path / "alone")]
    done = xcl("distill", *usual, *alone)
    assert done.returncode == 0, done.stderr
    recipe = yaml.safe_load((tmp_path / "alone" / "recipe.yaml").read_text())
    assert list(recipe["students"]) == ["student"]
    assert list(recipe["students"]["student"]["choose"]["among"]) == ["soft", "kd"]


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "run")]
    usual = {"--teacher": "random_forest", "--data": DATA, "--student": STUDENT}
    for changes, says in (
        ({"--teacher": "t.safetensors"}, "--model: is needed"),
        ({"--model": "mlp"}, "--model: is for weights"),
        ({"--teacher": "{random_forest: {tree: 5}}"}, "teacher.estimator.random_forest.tree"),
        ({"--teacher": "absent.onnx"}, "absent.onnx"),
        ({"--choose": "kd,hlaf"}, "--choose: names the candidate 'hlaf'; did you mean 'half'"),
        ({"--choose": "{kd"}, "--choose: '{kd' is not valid YAML"),
        ({"--alone": ""}, "--alone: is for --choose"),
        ({"--data": "digitz"}, "there is no data set, and no recipe, 'digitz'"),
        ({"--data": "{digits"}, "is not valid YAML"),
        ({"--calibrate": "variance"}, "--calibrate: is variance, which is for real targets"),
        ({"--calibrate": "temp"}, "--calibrate: is 'temp'; did you mean 'temperature'"),
        ({"--student": "extra_trees"}, "--student: is 'extra_trees', which is no network"),
        ({"--student": "{estimator: extra_trees}", "--steps": "9"}, "--steps: is for networks"),
        ({"--student": "resnot20"}, "students.student.model: unknown model 'resnot20'"),
    ):
        given = [part for pair in (usual | changes).items() for part in pair if part]
        done = xcl("distill", *given, *out)
        assert done.returncode == 2, changes
        assert says in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "run").exists()


def test_a_folder_of_another_recipe_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "run"
    usual = ["--data", DATA, "--student", STUDENT, "--steps", "2", "--out", str(out)]
    done = xcl("distill", "--teacher", "{random_forest: {trees: 2}}", *usual)
    assert done.returncode == 0, done.stderr
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    other = xcl("distill", "--teacher", "{random_forest: {trees: 3}}", *usual)
    assert other.returncode == 2
    assert "holds a run of another recipe (its students are student)" in other.stderr
    recipe = out / "recipe.yaml"
    values = yaml.safe_load(recipe.read_text())
    values["students"]["small"] = values["students"].pop("student")
    recipe.write_text(yaml.safe_dump(values | {"subject": "small"}))
    other = xcl("distill", "--teacher", "{random_forest: {trees: 2}}", *usual)
    assert other.returncode == 2
    assert "(its students are small); choose another --out" in other.stderr
    assert len(other.stderr.splitlines()) == 1
    del before[recipe]
    assert all(file.read_bytes() == content for file, content in before.items())


def test_a_saved_student_is_kept_and_evaluated(tmp_path: Path) -> None:
    data = digits(train=100, validation=50)
    teacher = {"random_forest": {"trees": 2}}
    student = xcl_package.distill(teacher, {"mlp": {"hidden": [6]}}, data, steps=2)
    student.save(tmp_path / "kept")
    student.export(tmp_path / "out" / "student.onnx")
    done = xcl(
        "distill", "--teacher", "random_forest", "--data", DATA, "--student", STUDENT,
        "--out", str(tmp_path / "kept"),
    )  # fmt: skip
    assert done.returncode == 2
    assert "holds a saved student; choose another --out" in done.stderr
    for name in ("kept", "out"):
        done = xcl("evaluate", str(tmp_path / name), DATA, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["examples"] == len(data.test)


def test_a_file_of_logits_names_the_override(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    file = linear(tmp_path / "t.onnx", weight=weight)
    x, y = np.random.default_rng(0).normal(size=(90, 4)).astype(np.float32), np.arange(90) % 3
    np.savez(tmp_path / "table.npz", x=x, y=y)
    usual = [
        "distill", "--teacher", str(file), "--data", f"arrays:{tmp_path / 'table.npz'}",
        "--student", STUDENT, "--steps", "2", "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    done = xcl(*usual)
    assert done.returncode == 2
    assert "; on the command line teacher.onnx.output=logits" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    done = xcl(*usual, "teacher.onnx.output=logits")
    assert done.returncode == 0, done.stderr
