"""``xcl init``: from a person's data to a recipe that runs, in two commands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from tests.cli.called import xcl
from tests.data.test_warts import rows, saved, text
from tests.teachers.test_onnx import linear

# A few steps of the recipe that was written, all else as it is.
FEW = (
    "budget=tiny",
    "defaults.training.steps=20",
    "defaults.training.warmup=2",
    "keep=8",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table that has warts, and the recipe that was written for it."""
    found = tmp_path_factory.mktemp("mine")
    cells = [[str(k), *row] for k, row in enumerate(rows())]
    saved(
        found / "mine.csv",
        text(cells, head=["id", "width", "weight", "share", "day", "city", "price"]),
    )
    done = xcl("init", "mine.csv", cwd=found)
    assert done.returncode == 0, done.stderr
    (found / "said").write_text(done.stdout)
    return found


def test_it_says_what_it_guessed_and_what_comes_next(folder: Path) -> None:
    said = (folder / "said").read_text()
    assert re.search(r"target: price +The column 'price' .* data\.table\.target", said)
    assert re.search(r"missing: impute +Values are missing of 'width'", said)
    assert re.search(r"drop: \[id\] +id counts the rows", said)
    assert re.search(r"The trainings take [\d.]+ to [\d.]+ (s|min) on this machine", said)
    assert "Next: xcl run recipe.yaml" in said


def test_the_recipe_is_commented_and_its_path_is_relative(folder: Path) -> None:
    made = (folder / "recipe.yaml").read_text()
    values = yaml.safe_load(made)
    assert values["data"]["table"]["path"] == "mine.csv"
    assert values["data"]["table"]["drop"] == ["id"]
    place = made.index("    drop: [id]")
    assert made[:place].rstrip().splitlines()[-1].startswith("    # ")
    assert max(map(len, made.splitlines())) <= 110


def test_the_recipe_is_planned_and_run(folder: Path, tmp_path: Path) -> None:
    recipe = str(folder / "recipe.yaml")
    planned = xcl("run", recipe, "--plan", cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr
    assert "stages remain" in planned.stdout
    done = xcl("run", recipe, *FEW, "--jobs", "1", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert set(summary["students"]) == {"erm", "kd", "xcl"}


def test_a_file_is_not_overwritten(folder: Path) -> None:
    before = (folder / "recipe.yaml").read_bytes()
    done = xcl("init", "mine.csv", cwd=folder)
    assert done.returncode == 2
    assert done.stderr == (
        "error: 'recipe.yaml' is there already; give --force, or another --out\n"
    )
    assert (folder / "recipe.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("nowhere.csv",), "there is no file, folder or data set 'nowhere.csv'"),
        (("digits", "--target", "x"), "--target: is for tables"),
        (("mine.csv", "--target", "prise"), "has no column 'prise', which target names"),
        (("mine.csv", "tset=0.1"), "did you mean 'test'"),
        (("mine.csv", "skip=many"), "data.table.skip"),
        (("mine.csv", "--model", "mlp"), "--model: is for the weights of a --teacher"),
        (("mine.csv", "--teacher", "no.onnx"), "--teacher: is 'no.onnx', which does not exist"),
        (("mine.csv", "--teacher", "answers.npz"), "is 'answers.npz', which does not exist"),
    ],
)
def test_a_mistake_ends_in_one_sentence(
    words: tuple[str, ...], problem: str, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new.yaml"
    done = xcl("init", *words, "--out", str(out), cwd=folder)
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.splitlines()
    assert problem in line
    assert not out.exists()


def test_a_folder_of_images_and_a_teacher_that_is_given(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "photos.yaml"
    words = ("size=8", "channels=1", "--teacher", "{random_forest: {trees: 10}}")
    done = xcl("init", str(photos), *words, "--out", str(out), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    values = yaml.safe_load(out.read_text())
    assert values["data"]["imagefolder"]["path"] == str(photos)
    assert values["teacher"] == {"estimator": {"random_forest": {"trees": 10}}}
    run = str(tmp_path / "run")
    ran = xcl("run", str(out), *FEW, "--jobs", "1", "--out", run, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr


def test_an_onnx_teacher_of_a_table(tmp_path: Path) -> None:
    """How its answers are read is found out, and its path is relative to the recipe."""
    x = np.random.default_rng(0).normal(size=(120, 2)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=x, y=(x[:, 0] > 0).astype(int))
    linear(tmp_path / "t.onnx", weight=np.array([[-9.0, 9.0], [0.0, 0.0]], dtype=np.float32))
    words = ("--teacher", "t.onnx", "--out", "my recipes/first.yaml")
    done = xcl("init", "a.npz", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "are no probabilities" in done.stdout
    assert "Next: xcl run 'my recipes/first.yaml'" in done.stdout
    values = yaml.safe_load((tmp_path / "my recipes" / "first.yaml").read_text())
    assert values["data"]["arrays"]["path"] == "../a.npz"
    assert values["teacher"] == {"onnx": {"path": "../t.onnx", "output": "logits"}}
    ran = xcl("run", "my recipes/first.yaml", "--plan", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr


def test_the_time_of_a_teacher_that_is_trained_is_counted(tmp_path: Path) -> None:
    """With enough rows the teacher is an ensemble of networks, not a forest."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(900, 3))
    lines = [",".join(f"{v:.5f}" for v in (*row, row.sum())) for row in x]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,c,y", *lines]))
    done = xcl("init", "t.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Five networks" in done.stdout
    assert re.search(r"The trainings take [\d.]+ to [\d.]+ (s|min) on this machine", done.stdout)


@pytest.mark.parametrize(
    ("key", "place"), [("teacher", 0), ("teacher/seed-0", 0), ("students.kd", 1)]
)
def test_seconds_are_those_of_the_teacher_or_of_the_students(
    key: str, place: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from extracurricular.cli import init
    from extracurricular.recipe.read import shipped_recipes
    from extracurricular.run import estimate

    one = SimpleNamespace(seconds=(1.0, 2.0), stage=SimpleNamespace(key=key))
    monkeypatch.setattr(estimate, "estimate", lambda *_, **__: [one])
    found = init._seconds(shipped_recipes()["digits"], tmp_path / "r.yaml")
    assert found[place] == (1.0, 2.0)
    assert found[1 - place] == (0.0, 0.0)
