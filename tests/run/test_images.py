"""Runs on images whose targets are in a table: streamed and in memory, moved, shipped, asked."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from typer.testing import CliRunner

import extracurricular as xcl
from extracurricular.cli import app
from extracurricular.errors import DataError
from extracurricular.predictors.predict_files import open_source, predicted
from extracurricular.recipe.read import parse_recipe
from extracurricular.run.finished import open_run

COUNT = 2000


def faces(folder: Path, count: int = COUNT, side: int = 16) -> Path:
    """Pictures of a bar whose length is the number in the table beside them."""
    rng = np.random.default_rng(0)
    (folder / "img").mkdir(parents=True)
    age = rng.uniform(5, 95, count).round(2)
    grid = np.arange(side) + 0.5
    for k, years in enumerate(age):
        bar = np.clip(years / 100 * side - grid + 0.5, 0, 1)
        noisy = 60 + 120 * bar[None, :] + rng.normal(0, 8, (side, side))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / "img" / f"{k:04d}.png")
    names = [f"img/{k:04d}.png" for k in range(count)]
    table = pl.DataFrame({"file": names, "remark": ["made"] * count, "age": age})
    table.write_csv(folder / "faces.csv")
    return folder / "faces.csv"


def recipe_of(file: Path, **settings: Any) -> dict[str, Any]:
    model = {"mlp": {"hidden": [16]}}
    training = {"steps": 60, "batch_size": 64, "optimizer": "adamw", "lr": 0.01}
    given = {"table": str(file), "target": "age", "size": 16, "channels": 1, **settings}
    return {
        "name": "ages",
        "data": {"images": given},
        "device": {"accelerator": "cpu"},
        "teacher": {"model": model, "members": 2, "training": training},
        "defaults": {"model": model, "training": training},
        "students": {
            "erm": {"learns_from": "labels"},
            "kd": {},
            "mixed": {"sampler": ["empirical", "mixup"]},
        },
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The table, and a run in memory."""
    folder = tmp_path_factory.mktemp("faces")
    file = faces(folder / "data")
    xcl.execute(parse_recipe(recipe_of(file, stream=False)), folder / "run")
    return file, folder / "run"


def figures(run: Path) -> Any:
    return open_run(run).summary["students"]


def test_streamed_and_in_memory_give_equal_numbers(made: tuple[Path, Path], tmp_path: Path) -> None:
    file, run = made
    recipe = parse_recipe(recipe_of(file, stream=True, workers=1))
    xcl.execute(recipe, tmp_path / "run")
    known, found = figures(run), figures(tmp_path / "run")
    for student in ("erm", "kd", "mixed"):
        assert found[student]["metrics"] == known[student]["metrics"]
    # A constant has an error of 26 years.
    assert known["kd"]["metrics"]["rmse"]["mean"] < 8


@pytest.fixture
def moved(made: tuple[Path, Path], tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """The folder of the data, which are not where they were, and a copy of the run."""
    data = made[0].parent.rename(made[0].parent.with_name("elsewhere"))
    yield data, Path(shutil.copytree(made[1], tmp_path / "run"))
    data.rename(made[0].parent)


def test_a_run_stands_alone_and_predicts_files_of_any_kind(
    moved: tuple[Path, Path], tmp_path: Path
) -> None:
    data, copy = moved
    model = xcl.load(copy, student="kd")
    assert model.outputs == ("age",)
    wanted = model.predict(data / "faces.csv").mean
    rows = pl.read_csv(data / "faces.csv")
    assert float(np.abs(wanted[:, 0] - rows["age"].to_numpy()).mean()) < 8
    names = rows["file"].to_list()

    def same(found: Any, count: int) -> None:
        files = [data / name for name in names[:count]]
        np.testing.assert_array_equal(found.mean, model.predict(files).mean)

    np.testing.assert_array_equal(model.predict(data / "img").mean, wanted)
    for kind in ("zip", "tar"):
        packed = shutil.make_archive(str(tmp_path / "all"), kind, data, "img")
        np.testing.assert_array_equal(model.predict(packed).mean, wanted)
    here = rows.with_columns(file=pl.lit(f"{data}/") + pl.col("file"))
    same(model.predict(here[:5]), 5)
    same(model.predict(here[:5].to_dicts()), 5)
    same(model.predict({"file": here["file"][0]}), 1)
    with pytest.raises(DataError, match="the rows lack the column 'file' of names of images"):
        model.predict(here[:5].select("age"))

    out = tmp_path / "answers.csv"
    shutil.copytree(data / "img", tmp_path / "img")
    gone = rows[:1].with_columns(file=pl.lit("img/none.png"))
    pl.concat([rows[:3], gone]).write_csv(tmp_path / "new.csv")
    done = CliRunner().invoke(
        app,
        ["predict", str(copy), str(tmp_path / "new.csv"), "--student", "kd", "--out", str(out)],
    )
    assert done.exit_code == 0, done.output
    answers = pl.read_csv(out)
    assert answers["file"].to_list() == [*names[:3], "img/none.png"]
    np.testing.assert_allclose(answers["age_mean"][:3], wanted[:3, 0], rtol=1e-5)
    assert answers["age_mean"][3] is None
    assert "cannot be read: No such file" in answers["unlike_training"][3]

    [named] = predicted(model, open_source(model, tmp_path / "new.csv", id="remark"))
    assert named.columns[0] == "remark"
    np.testing.assert_allclose(named["age_mean"][:3], wanted[:3, 0], rtol=1e-5)
    with pytest.raises(DataError, match="has no column 'no', which --id names"):
        open_source(model, tmp_path / "new.csv", id="no")

    shipped = xcl.export_run(copy, tmp_path / "kd.onnx", student="kd")
    assert shipped.metadata["files"]["kd.onnx"]["difference"] < 1e-4
    assert shipped.metadata["reading"]["image"]["column"] == "file"
    again = xcl.load(tmp_path / "kd.onnx")
    np.testing.assert_allclose(again.predict(data / "faces.csv").mean, wanted, rtol=1e-4)


def test_data_may_move_and_may_not_change(made: tuple[Path, Path], tmp_path: Path) -> None:
    file, run = made
    data = Path(shutil.copytree(file.parent, tmp_path / "moved"))
    asked = ["evaluate", str(run), f"table={data / 'faces.csv'}", "--student", "kd"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    lines = (data / "faces.csv").read_text().splitlines()
    (data / "faces.csv").write_text("\n".join(lines[:-100]))
    done = CliRunner().invoke(app, asked)
    assert done.exit_code != 0
    assert "test images where there were 400" in str(done.exception)
