"""Opening a finished run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from extracurricular.errors import RecipeError, StorageError
from extracurricular.evaluation import metrics
from extracurricular.files import read_json, write_json
from extracurricular.run.finished import open_run


@pytest.fixture
def copy(digits_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(digits_run, tmp_path / "run"))


def test_its_networks_give_the_figures_of_the_summary(digits_run: Path) -> None:
    found = open_run(digits_run)
    data = found.data
    prediction = found.workspace.predict(found.student("xcl", 1), data, data.test)
    assert data.test.y is not None
    accuracy = metrics.figures(prediction, data.test.y)["accuracy"]
    assert accuracy == found.summary["students"]["xcl"]["metrics"]["accuracy"]["per_seed"][1]
    said = found.workspace.predict(found.teacher(0), data, data.test)
    assert torch.isfinite(said.parameters).all()


def test_a_regression_with_two_inputs(gaze_run: Path) -> None:
    found = open_run(gaze_run)
    assert found.students == ["erm", "kd", "xcl"]
    prediction = found.workspace.predict(found.student("kd", 0), found.data, found.data.test)
    assert prediction.mean.shape == (40, 2)


def test_opening_writes_nothing(digits_run: Path) -> None:
    before = {f: f.stat().st_mtime_ns for f in digits_run.rglob("*")}
    found = open_run(digits_run)
    found.student("xcl", 0)
    found.teacher(0)
    assert {f: f.stat().st_mtime_ns for f in digits_run.rglob("*")} == before


def test_an_unknown_run(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"there is no run '.*nowhere'"):
        open_run(tmp_path / "nowhere")
    with pytest.raises(StorageError, match=r"is no run: it has no recipe\.yaml"):
        open_run(tmp_path)


def test_a_half_finished_run(copy: Path) -> None:
    (copy / "summary.json").unlink()
    with pytest.raises(StorageError, match=r"is not finished.*`xcl run .*recipe\.yaml --out "):
        open_run(copy)


def test_a_run_of_another_schema(copy: Path) -> None:
    (copy / "stage.json").unlink()  # as before there were checksums
    write_json(copy / "summary.json", read_json(copy / "summary.json") | {"schema": 0})
    with pytest.raises(StorageError, match="of schema 0, and this version reads 1"):
        open_run(copy)


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_damaged_summary_is_named(copy: Path, content: str) -> None:
    (copy / "summary.json").write_text(content)
    with pytest.raises(StorageError, match=r"summary\.json' is damaged: .*; `xcl run .* anew"):
        open_run(copy)
    (copy / "stage.json").unlink()  # as before there were checksums
    with pytest.raises(StorageError, match=r"summary\.json' is"):
        open_run(copy)


def test_which_student_is_meant(digits_run: Path) -> None:
    found = open_run(digits_run)
    assert found.chosen_student() == "xcl"
    assert found.chosen_student("kd") == "kd"
    with pytest.raises(RecipeError, match="did you mean 'xcl'"):
        found.chosen_student("xc")
    with pytest.raises(RecipeError, match=r"--seed: is 7; the run has the seeds \[0, 1\]"):
        found.student("xcl", 7)
