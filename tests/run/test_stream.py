"""What is done with a finished run whose images are streamed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import extracurricular as xcl
from extracurricular.assess.assess import Settings, assess
from extracurricular.data.sets import DATA
from extracurricular.recipe.read import parse_recipe
from extracurricular.report.write import write_report
from extracurricular.run.finished import open_run
from tests.conftest import small_recipe


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = {"imagefolder": {"path": str(photos), "size": 12, "stream": True, "workers": 1}}
    recipe = small_recipe(data, {"mlp": {"hidden": [8]}}, seeds=[0])
    recipe["defaults"]["sampler"] = ["resized_crop"]
    recipe["students"] = {"erm": {"learns_from": "labels"}, "kd": {}}
    folder = tmp_path_factory.mktemp("streamed") / "run"
    xcl.execute(parse_recipe(recipe), folder)
    return folder


def test_it_is_loaded_and_shipped_like_any_other(run: Path, tmp_path: Path) -> None:
    own = xcl.load(run, student="kd")
    shipped = xcl.export_run(run, tmp_path / "kd.onnx", student="kd")
    assert shipped.metadata["files"]["kd.onnx"]["difference"] < 1e-4
    assert shipped.metadata["inputs"]["x"]["shape"] == [3, 12, 12]
    again = xcl.load(tmp_path / "kd.onnx")
    assert own.inputs == again.inputs
    x = np.random.default_rng(0).integers(0, 256, (5, 3, 12, 12)).astype(np.uint8)
    np.testing.assert_allclose(own(x).probs, again(x).probs, atol=1e-5)


def test_its_figures_are_those_of_its_summary(run: Path) -> None:
    found = open_run(run)
    data = found.data
    model = xcl.load(run, student="kd")
    settings = Settings(corruptions=("jpeg",), ood=DATA.build({"digits": {"train": 100}}))
    said = assess(model, data, settings)
    kd = found.summary["students"]["kd"]["metrics"]
    assert said["metrics"]["nll"] == pytest.approx(kd["nll"]["mean"], rel=1e-5)
    assert set(said["corruptions"]["by_name"]) == {"jpeg"}
    assert said["notes"] == ["Images of 'digits' were brought from 1×8×8 to 3×12×12."]
    # And the other way round: streamed images that are foreign to another model.
    assert torch.equal(
        model.distribution(data.test.x).parameters, model.distribution(data.test.x[:]).parameters
    )


def test_its_report_is_made(run: Path, tmp_path: Path) -> None:
    write_report(open_run(run), tmp_path / "report.html")
    assert "data:image/png" in (tmp_path / "report.html").read_text()
