"""A run stands alone: it is looked at, loaded and shipped where its data are not."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import extracurricular as xcl
from extracurricular.assess.compare import compare, plain
from extracurricular.data.formats.description import read_description
from extracurricular.data.sets import DATA
from extracurricular.errors import DataError, RecipeError, StorageError, TrustError
from extracurricular.export import ship
from extracurricular.files import write_json
from extracurricular.predictors.predictor import Predictor
from extracurricular.recipe.read import parse_recipe, read_recipe
from extracurricular.report.write import ReportStage, write_report
from extracurricular.run.execute import execute
from extracurricular.run.finished import open_run
from extracurricular.run.kept import read_kept
from tests.conftest import photographs

TRAINING = {"steps": 6, "batch_size": 16, "optimizer": "adamw", "lr": 0.01}
KINDS = ("table", "imagefolder", "images", "arrays", "digits")


def table_file(file: Path, rows: int = 120, unit: float = 1.0, target: str = "y") -> Path:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 2))
    lines = [
        f"{a * unit:.4f},{('red', 'green')[k % 2]},{b:.4f},{2 * a + b:.4f}\n"
        for k, (a, b) in enumerate(x)
    ]
    file.write_text(f"width,colour,depth,{target}\n" + "".join(lines))
    return file


def made(kind: str, folder: Path) -> dict[str, Any]:
    """Make data in a folder, and return their spec."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "table":
        return {"table": {"path": str(table_file(folder / "t.csv"))}}
    if kind == "imagefolder":
        path = photographs(folder / "img", each=12, classes=3)
        return {"imagefolder": {"path": str(path), "size": 8}}
    if kind == "images":
        path = photographs(folder / "img", each=12, classes=3)
        names = sorted(file.relative_to(folder) for file in path.glob("*/*.jpg"))
        lines = [f"{name},{k / 3:.3f},{k % 5}.5" for k, name in enumerate(names)]
        (folder / "t.csv").write_text("file,x,y\n" + "\n".join(lines))
        return {"images": {"table": str(folder / "t.csv"), "target": ["x", "y"], "size": 8}}
    if kind == "arrays":
        rng = np.random.default_rng(0)
        x = rng.normal(size=(90, 4)).astype(np.float32)
        np.savez(folder / "a.npz", x=x, y=(x[:, 0] > 0).astype(int))
        return {"arrays": {"path": str(folder / "a.npz")}}
    return {"digits": {"train": 60, "validation": 40}}


def recipe_of(data: dict[str, Any], **changes: Any) -> xcl.Recipe:
    model = {"mlp": {"hidden": [6]}}
    return parse_recipe(
        {
            "name": "alone",
            "data": data,
            "device": {"accelerator": "cpu"},
            "teacher": {"model": model, "members": 2, "training": TRAINING},
            "defaults": {"model": model, "training": TRAINING},
            "students": {"kd": {}, "mixed": {"sampler": ["empirical", "mixup"]}},
        }
        | changes
    )


@dataclass(frozen=True)
class Made:
    """A run, a copy of it without its data, and what the run gave while they were there."""

    run: Path
    copy: Path
    data: dict[str, Any]
    page: bytes
    answers: dict[str, Any]
    shipped: ship.Shipped


def ask(predictor: Predictor, seed: int = 1) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    x = {
        name: rng.integers(0, 256, (5, *form.shape)).astype(np.uint8)
        if form.dtype == "uint8"
        else rng.normal(size=(5, *form.shape)).astype(np.float32)
        for name, form in predictor.inputs.items()
    }
    found: np.ndarray[Any, Any] = predictor(x).distribution.parameters.numpy()
    return found


def answers(run: Path) -> dict[str, Any]:
    return {
        "kd": ask(xcl.load(run, student="kd")),
        "mixed": ask(xcl.load(run, student="mixed")),
        "teacher": ask(xcl.load(run, teacher=True)),
    }


@pytest.fixture(scope="module", params=KINDS)
def alone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp(request.param)
    data = made(request.param, folder / "data")
    run = folder / "here" / "run"
    execute(recipe_of(data), run, last=[ReportStage()])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ship, "_SECONDS", 0.0)
        shipped = ship.export_run(run, folder / "first" / "kd.onnx", int8=True)
    found = answers(run)
    copy = Path(shutil.copytree(run, folder / "there" / "run"))
    shutil.rmtree(folder / "data")
    page = (run / "report.html").read_bytes()
    return Made(run, copy, data, page, found, shipped)


@pytest.fixture
def _no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("data were read")

    monkeypatch.setattr(DATA, "build", refuse)
    monkeypatch.setattr(ship, "_SECONDS", 0.0)


@pytest.mark.usefixtures("_no_data")
def test_a_run_is_loaded_without_its_data(alone: Made) -> None:
    found = answers(alone.copy)
    for name, value in alone.answers.items():
        assert np.array_equal(found[name], value), name


@pytest.mark.usefixtures("_no_data")
def test_the_page_is_the_same_without_the_data(alone: Made, tmp_path: Path) -> None:
    assert write_report(open_run(alone.copy), tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == alone.page
    assert b"They cannot be drawn again" not in alone.page


@pytest.mark.usefixtures("_no_data")
def test_runs_are_compared_without_their_data(alone: Made) -> None:
    runs = {"a": open_run(alone.run).summary, "b": open_run(alone.copy).summary}
    found = plain(compare(runs))
    assert found["changed"] == {"b": []}
    differences = [row["differences"] for row in found["rows"] if row["run"] == "b"]
    assert all(d["mean"] == 0 for one in differences for d in one.values())
    assert any(differences)


@pytest.mark.usefixtures("_no_data")
def test_an_export_is_the_same_without_the_data(alone: Made, tmp_path: Path) -> None:
    again = ship.export_run(alone.copy, tmp_path / "kd.onnx", int8=True)
    assert again.metadata == alone.shipped.metadata
    for one, other in zip(again.files[:3], alone.shipped.files[:3], strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
    assert all(file["verified"] for file in again.metadata["files"].values())
    card = again.files[3].read_text()
    assert str(Path(str(alone.run)).parent.parent) not in card + json.dumps(again.metadata)


def test_without_the_data_evaluate_says_what_to_give(alone: Made) -> None:
    if "digits" in alone.data:
        assert xcl.evaluate(alone.copy)["examples"] == 1697
        return
    with pytest.raises(StorageError, match=r"cannot be read where they were: .*; give their place"):
        xcl.evaluate(alone.copy)


def test_data_at_another_place_are_the_runs_own(alone: Made, tmp_path: Path) -> None:
    if "digits" in alone.data:
        return
    [(_, settings)] = made(next(iter(alone.data)), tmp_path / "moved").items()
    found = xcl.evaluate(
        alone.copy, f"path={settings.get('path') or settings['table']}", student="kd"
    )
    summary = json.loads((alone.copy / "summary.json").read_text())["students"]["kd"]["metrics"]
    assert found["metrics"]["nll"]["mean"] == pytest.approx(summary["nll"]["mean"], rel=1e-5)
    with pytest.raises(RecipeError, match="seed: cannot be another for the data of a run"):
        xcl.evaluate(alone.copy, "seed=4")


def test_what_is_kept(alone: Made) -> None:
    kept = read_kept(alone.copy)
    assert kept is not None
    [one] = kept.sets
    counts = {part: split["count"] for part, split in one["splits"].items()}
    [spec] = [alone.data]
    examples = kept.examples(spec)
    assert examples is not None
    assert len(examples.test) == min(256, counts["test"])
    assert len(examples.train) == min(256, counts["train"])
    assert examples.test.y is not None
    # Every float32 of a scale is kept to the last bit, as a float64.
    scale = one["description"]["inputs"][0]["scale"]
    assert torch.equal(torch.tensor(scale, dtype=torch.float64).float(), examples.x_scale[""].scale)
    if "imagefolder" in alone.data:
        assert one["description"]["reading"]["image"] == {
            "size": [8, 8], "channels": 3, "centre": 1.0, "draft": True,
        }  # fmt: skip
    if "table" in alone.data:
        assert one["description"]["columns"] == ["width", "colour=green", "colour=red", "depth"]
        # From the description alone, a raw row becomes the input that training saw.
        fields = read_description(one["description"]).fields
        assert fields is not None
        assert fields.names == ("width", "colour", "depth")
        assert list(fields.columns) == one["description"]["columns"]


# What changed


def refusal(action: Callable[[], Any]) -> str:
    with pytest.raises(StorageError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def table_run(tmp_path: Path) -> tuple[Path, Path]:
    """A run on a table, and the file."""
    file = table_file(tmp_path / "t.csv")
    execute(recipe_of({"table": {"path": str(file)}}), tmp_path / "run")
    return tmp_path / "run", file


def test_changed_data_are_refused_by_run_and_evaluate(table_run: tuple[Path, Path]) -> None:
    run, file = table_run
    recipe = read_recipe(str(run / "recipe.yaml"))
    before = (run / "summary.json").read_bytes()
    more = recipe_of(dict(recipe.data), students={"other": {}, "kd": {}})
    for settings, said in (
        ({"rows": 160}, "32 test rows where there were 24"),
        ({"unit": 50.0}, "column 'width' has another scale (deviation "),
        ({"target": "z"}, "target 'z' where there was 'y'"),
    ):
        table_file(file, **settings)  # type: ignore[arg-type]
        for one in (recipe, more):
            text = refusal(lambda one=one: execute(one, run))  # type: ignore[misc]
            assert said in text
            assert "choose another --out: a run never goes on with other data" in text
        text = refusal(lambda: xcl.evaluate(run))
        assert said in text
        assert "--data-changed accept" in text
    assert (run / "summary.json").read_bytes() == before
    assert not (run / "students" / "other").exists()
    with pytest.raises(RecipeError, match="--data-changed: is 'perhaps'; it must be refuse or"):
        xcl.evaluate(run, changed="perhaps")  # type: ignore[arg-type]


def test_changed_data_are_evaluated_on_demand_in_the_units_of_the_run(
    table_run: tuple[Path, Path],
) -> None:
    run, file = table_run
    was = xcl.evaluate(run)
    table_file(file, rows=160)
    now = xcl.evaluate(run, changed="accept")
    assert (was["examples"], now["examples"]) == (24, 32)
    # The same rows as other data: the student's scales are its own, not those of the new file.
    given = xcl.evaluate(run, {"table": {"path": str(file)}})
    assert now["metrics"] == given["metrics"]


def test_one_other_value_is_enough(table_run: tuple[Path, Path]) -> None:
    run, file = table_run
    lines = file.read_text().splitlines(keepends=True)
    lines[7] = (
        lines[7].replace("red", "green") if "red" in lines[7] else lines[7].replace("green", "red")
    )
    file.write_text("".join(lines))
    assert " rows, as many as there were" in refusal(lambda: xcl.evaluate(run))


def test_a_run_of_which_no_stage_was_begun_takes_the_data_as_they_are(tmp_path: Path) -> None:
    file = table_file(tmp_path / "t.csv")
    recipe = recipe_of({"table": {"path": str(file)}})
    execute(recipe, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "teacher")
    shutil.rmtree(tmp_path / "run" / "students")
    table_file(file, rows=160)
    execute(recipe, tmp_path / "run")
    assert xcl.evaluate(tmp_path / "run")["examples"] == 32


def test_classes_are_found_by_name(tmp_path: Path) -> None:
    data = made("imagefolder", tmp_path / "data")
    run, images = tmp_path / "run", tmp_path / "data" / "img"
    execute(recipe_of(data), run)
    was = xcl.evaluate(run)
    (images / "class0").rename(images / "zebra")
    assert "class 'zebra' where there was 'class0'" in refusal(lambda: xcl.evaluate(run))
    with pytest.raises(DataError, match="have the class 'zebra', which the model does not know"):
        xcl.evaluate(run, changed="accept")
    (images / "zebra").rename(images / "class0")
    assert xcl.evaluate(run) == was
    shutil.copytree(images / "class1", images / "aaa")
    assert "class 'aaa' is new" in refusal(lambda: xcl.evaluate(run))
    shutil.rmtree(images / "aaa")
    (images / "class0" / "000.jpg").unlink()
    assert "('class0/000.jpg' is gone)" in refusal(lambda: xcl.evaluate(run))
    assert xcl.load(run).classes == ("class0", "class1", "class2")


# keep


def test_with_keep_0_no_example_is_kept_and_exports_say_that_they_are_not_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ship, "_SECONDS", 0.0)
    run = tmp_path / "run"
    recipe = recipe_of(made("arrays", tmp_path / "data"), keep=0)
    execute(recipe, run, last=[ReportStage()])
    assert not (run / "examples.safetensors").exists()
    assert "none are kept" in (run / "report.html").read_text()
    found = ship.export_run(run, student="kd")
    says = found.metadata["files"]["kd.onnx"]
    assert (says["verified"], says["difference"], says["examples"]) == (False, None, 0)
    assert "**The file is not verified**" in found.files[-1].read_text()
    summary = json.loads((run / "summary.json").read_text())["students"]["kd"]["metrics"]
    assert found.metadata["metrics"]["accuracy"] == summary["accuracy"]["per_seed"][0]
    with pytest.raises(RecipeError, match="--int8: needs examples to calibrate on"):
        ship.export_run(run, tmp_path / "kd.onnx", int8=True)
    before = xcl.load(run, teacher=True)
    # Afterwards it may keep some all the same.
    execute(parse_recipe({**recipe.dump(), "keep": 7}), run)
    kept = read_kept(run)
    assert kept is not None
    assert len(kept.examples(recipe.data).test) == 7  # type: ignore[union-attr]
    assert np.array_equal(ask(before), ask(xcl.load(run, teacher=True)))


def test_a_teacher_that_is_no_network_needs_the_data_and_its_students_do_not(
    tmp_path: Path,
) -> None:
    data, run = made("table", tmp_path / "data"), tmp_path / "run"
    recipe = recipe_of(data, teacher={"estimator": {"random_forest": {"trees": 3}}})
    execute(recipe, run)
    wanted = ask(xcl.load(run))
    shutil.rmtree(tmp_path / "data")
    assert np.array_equal(ask(xcl.load(run)), wanted)
    write_report(open_run(run))
    assert not (run / "latency.json").exists()
    with pytest.raises(RecipeError, match="does not exist"):
        xcl.load(run, teacher=True)


# Runs of a version that kept nothing of the data


def forget(run: Path) -> None:
    """Leave what such a version wrote."""
    kept = ("data.json", "ids.json.gz", "examples.safetensors", "draws.json", "stage.json")
    for name in kept:
        (run / name).unlink()
    for file in run.rglob("answers.safetensors"):
        file.unlink()
    for name in ("recipe.yaml", "summary.json"):
        text = (run / name).read_text()
        values = yaml.safe_load(text)
        recipe = values.get("recipe", values)
        recipe.pop("keep")
        recipe["data"]["table"]["path"] = "t.csv"
        if name == "summary.json":
            values.pop("data")
            write_json(run / name, values)
        else:
            (run / name).write_text(yaml.safe_dump(values, sort_keys=False))


def test_a_run_of_the_version_before_is_read_with_its_data_or_refused(
    table_run: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, file = table_run
    wanted = ask(xcl.load(run))
    write_report(open_run(run))
    page = (run / "report.html").read_bytes()
    forget(run)
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(ask(xcl.load(run)), wanted)
    write_report(open_run(run), tmp_path / "page.html")
    assert len((tmp_path / "page.html").read_bytes()) == pytest.approx(len(page), rel=0.05)
    moved = file.rename(tmp_path / "elsewhere.csv")
    with pytest.raises(RecipeError, match=str(file)):
        xcl.load(run)
    table_file(file, rows=160)
    assert "training examples are not those that it learned from" in refusal(lambda: xcl.load(run))
    moved.rename(file)
    execute(read_recipe(str(run / "recipe.yaml")), run)
    assert read_kept(run) is not None
    file.unlink()
    assert np.array_equal(ask(xcl.load(run)), wanted)


# Nothing that is looked at is executed


def test_data_that_are_code_are_made_by_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_of_test_alone.py").write_text(
        "from pathlib import Path\nfrom tests.conftest import table_data\n\n"
        f"def data():\n    Path({str(tmp_path / 'EXECUTED')!r}).touch()\n    return table_data()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    run = tmp_path / "run"
    execute(recipe_of({"mine_of_test_alone:data": {}}), run, last=[ReportStage()])
    (tmp_path / "EXECUTED").unlink()
    monkeypatch.delitem(sys.modules, "mine_of_test_alone")
    xcl.load(run)
    write_report(open_run(run))
    with pytest.raises(TrustError, match="names code of somebody's own: 'mine_of_test_alone:data'"):
        xcl.evaluate(run)
    assert not (tmp_path / "EXECUTED").exists()
    assert xcl.evaluate(run, trust=True)["examples"] == 20
    assert xcl.evaluate(run, {"mine_of_test_alone:data": {}})["examples"] == 20
