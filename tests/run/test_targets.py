"""Runs of transformed and of several targets, from the data to a file that is shipped."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import polars as pl
import pytest
import torch
import yaml

import extracurricular as xcl
from extracurricular.assess.compare import compare, plain
from extracurricular.assess.survey import survey
from extracurricular.cli import main
from extracurricular.data.sets.table import table
from extracurricular.data.transformed import Transformed
from extracurricular.files import read_json
from extracurricular.recipe.read import parse_recipe
from extracurricular.report.write import ReportStage, write_report
from extracurricular.run.execute import execute
from extracurricular.run.finished import open_run

MODEL = {"mlp": {"hidden": [12]}}
TRAINING = {"steps": 250, "batch_size": 64, "optimizer": "adamw", "lr": 0.01}


def xcl_command(*words: str) -> None:
    """Run the command with these words."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["xcl", *words])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code


def written(file: Path, rows: int = 500, several: bool = False) -> Path:
    """A table with a log-normal target, and maybe one that is normal in other units."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(rows, 3))
    mean = 5 + x[:, 0] - 0.6 * x[:, 1] ** 2
    frame = pl.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2]})
    frame = frame.with_columns(price=np.exp(mean + 0.4 * rng.normal(size=rows)))
    if several:
        frame = frame.with_columns(
            share=0.01 * (x[:, 2] + 0.2 * rng.normal(size=rows)), gain=frame["price"] - 100
        )
    frame.write_csv(file)
    return file


def recipe_of(data: dict[str, Any], **changes: Any) -> xcl.Recipe:
    students = {"erm": {"learns_from": "labels"}, "kd": {}}
    return parse_recipe(
        {
            "name": "targets",
            "data": {"table": data},
            "device": {"accelerator": "cpu"},
            "teacher": {"model": MODEL, "members": 2, "training": TRAINING},
            "defaults": {"model": MODEL, "training": TRAINING},
            "students": students,
        }
        | changes
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs that are the same but for the transform; their data are moved away afterwards."""
    root = tmp_path_factory.mktemp("targets")
    file = written(root / "prices.csv")
    runs = {}
    for setting in (None, "log", "asinh"):
        runs[str(setting)] = root / f"run-{setting}"
        given = {"path": str(file), "target": "price", "target_transform": setting}
        execute(recipe_of(given), runs[str(setting)], last=[ReportStage()])
    shutil.copy(file, root / "kept.csv")
    runs["rows"] = root / "kept.csv"
    file.unlink()
    return runs


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("several")
    file = written(root / "t.csv", several=True)
    transform = {"price": "log", "gain": "asinh"}
    given = {"path": str(file), "target": ["price", "share", "gain"], "target_transform": transform}
    training = TRAINING | {"steps": 60}
    teacher = {"model": MODEL, "members": 2, "training": training}
    defaults = {"model": MODEL, "training": training}
    recipe = recipe_of(given, teacher=teacher, defaults=defaults)
    execute(recipe, root / "run", last=[ReportStage()])
    return root / "run"


@pytest.mark.parametrize("student", ["erm", "kd"])
def test_a_log_normal_target_is_learned_better_as_its_log(made: Any, student: str) -> None:
    nll = {}
    for setting in ("None", "log", "asinh"):
        entry = read_json(made[setting] / "summary.json")["students"][student]
        nll[setting] = entry["metrics"]["nll"]["mean"]
    assert nll["log"] < nll["None"] - 0.2
    assert nll["asinh"] < nll["None"]


@pytest.mark.parametrize("setting", ["log", "asinh"])
def test_figures_are_those_of_the_predictions_in_units(made: Any, setting: str) -> None:
    rows = pl.read_csv(made["rows"])
    found = table(str(made["rows"]), "price")
    predictor = xcl.load(made[setting], student="kd")
    answer = predictor.distribution(found.test.x)
    assert isinstance(answer, Transformed)
    figures = xcl.figures(answer, found.test.y)
    summary = read_json(made[setting] / "summary.json")["students"]["kd"]["metrics"]
    for name in ("rmse", "mae", "nll", "crps", "coverage90"):
        assert figures[name] == pytest.approx(summary[name]["mean"], rel=1e-5), name
    assert found.test.y is not None
    error = answer.mean - found.test.y
    assert figures["rmse"] == pytest.approx(float(error.square().mean().sqrt()), rel=1e-6)
    assert figures["coverage90"] > 0.7
    assert len(rows) == 500


@pytest.mark.parametrize("setting", ["log", "asinh"])
def test_a_run_a_saved_student_and_a_file_predict_alike(
    made: Any, setting: str, tmp_path: Path
) -> None:
    run = shutil.copytree(made[setting], tmp_path / "copy")
    rows = pl.read_csv(made["rows"]).drop("price").head(50)
    first = xcl.load(made[setting], student="kd").predict(rows)
    again = xcl.load(run, student="kd").predict(rows)
    assert np.array_equal(first.mean, again.mean)
    assert np.array_equal(first.interval(0.5)[1], again.interval(0.5)[1])
    shipped = xcl.export_run(run, tmp_path / "out" / "model.onnx", student="kd")
    loaded = xcl.load(tmp_path / "out" / "model.onnx").predict(rows)
    for one, other in zip(
        (first.mean, first.std, *first.interval(0.9), first.entropy),
        (loaded.mean, loaded.std, *loaded.interval(0.9), loaded.entropy),
        strict=True,
    ):
        assert np.allclose(one, other, rtol=2e-4)
    assert first.mean.min() > 0 or setting == "asinh"
    [rule] = shipped.metadata["target_transform"]
    assert rule["name"] == setting
    assert "inverse" in rule
    file = shipped.metadata["files"]["model.onnx"]
    assert file["metrics"]["nll"] == pytest.approx(
        read_json(run / "summary.json")["students"]["kd"]["metrics"]["nll"]["mean"], rel=0.2
    )
    # The card's snippet finds the interval from mean and variance alone.
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    code = card.partition("```python\n")[2].partition("```")[0]
    code = code.replace('"model.rows.onnx"', repr(str(tmp_path / "out" / "model.rows.onnx")))
    code, found = re.subn(r"raw = \{.*?\n\}", "raw = rows", code, flags=re.DOTALL)
    assert found == 1
    known: dict[str, Any] = {"rows": {name: rows[[name]].to_numpy() for name in rows.columns}}
    exec(code, known)
    for name, bound in zip(("low", "high"), first.interval(0.9), strict=True):
        assert (np.abs(known[name] - bound) < 2e-3 * first.std).all()
    assert onnxruntime is known["onnxruntime"]


def test_a_distilled_student_is_saved_with_its_transform(made: Any, tmp_path: Path) -> None:
    data = table(str(made["rows"]), "price", target_transform="log")
    teacher = xcl.load(made["log"], student="kd")
    student = xcl.distill(teacher, MODEL, data, steps=120)
    answer = student.distribution(data.test.x)
    assert isinstance(answer, Transformed)
    student.save(tmp_path / "saved")
    again = xcl.load(tmp_path / "saved").distribution(data.test.x)
    assert torch.equal(answer.mean, again.mean)
    assert torch.equal(answer.parameters, again.parameters)
    # A student of the plain target learns from the same teacher, by mean and deviation.
    raw = table(str(made["rows"]), "price")
    other = xcl.distill(teacher, MODEL, raw, steps=120)
    assert not isinstance(other.distribution(raw.test.x), Transformed)


@pytest.mark.parametrize("setting", ["log", "asinh"])
def test_predictions_of_a_table_are_in_units(made: Any, setting: str, tmp_path: Path) -> None:
    out = tmp_path / "p.parquet"
    xcl_command("predict", str(made[setting]), str(made["rows"]), "--out", str(out))
    found = pl.read_parquet(out)
    low, high = found["price_low90"].to_numpy(), found["price_high90"].to_numpy()
    inner = found["price_low50"].to_numpy(), found["price_high50"].to_numpy()
    assert ((low < inner[0]) & (inner[0] < inner[1]) & (inner[1] < high)).all()
    y = pl.read_csv(made["rows"])["price"].to_numpy()
    assert 0.75 < ((y >= low) & (y <= high)).mean() < 1
    # Long tails go up: the mean lies above the middle of what is likely.
    assert (found["price_mean"].to_numpy() > inner[0]).all()


def test_the_page_says_what_was_learned(made: Any, tmp_path: Path) -> None:
    for setting in ("log", "asinh"):
        run = open_run(made[setting])
        write_report(run, tmp_path / "page.html")
        text = (tmp_path / "page.html").read_text(encoding="utf-8")
        assert f"target_transform: {setting}" in text
        assert f"Students learn {setting}" in text
    write_report(open_run(made["None"]), tmp_path / "page.html")
    assert "Students learn" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_evaluation_on_other_rows_is_in_units(
    made: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = ["evaluate", str(made["log"]), "table", f"path={made['rows']}", "target=price"]
    xcl_command(*shown, "--student", "kd", "--json")
    found = json.loads(capsys.readouterr().out)
    wanted = read_json(made["log"] / "summary.json")["students"]["kd"]["metrics"]
    for name in ("rmse", "nll", "crps"):
        assert found["metrics"][name]["mean"] == pytest.approx(wanted[name]["mean"], rel=1e-5)
    assert found["fidelity"]["kl_to_teacher"]["mean"] == pytest.approx(
        wanted["kl_to_teacher"]["mean"], rel=1e-4
    )
    assert "targets" not in found


def test_each_target_has_its_figures(several: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = read_json(several / "summary.json")
    names = ["price", "share", "gain"]
    for entry in (summary["teacher"], *summary["students"].values()):
        assert list(entry["targets"]) == names
        whole = {name: figure["mean"] for name, figure in entry["metrics"].items()}
        each = [{k: f["mean"] for k, f in entry["targets"][name].items()} for name in names]
        # The errors over all are over raw units, and the densities add up.
        squares = [one["rmse"] ** 2 for one in each]
        assert whole["rmse"] == pytest.approx((sum(squares) / 3) ** 0.5, rel=1e-5)
        assert whole["nll"] == pytest.approx(sum(one["nll"] for one in each), rel=1e-4)
        for name in ("mae", "crps", "coverage90"):
            assert whole[name] == pytest.approx(sum(one[name] for one in each) / 3, rel=1e-4)
    kd = summary["students"]["kd"]
    total = sum(kd["targets"][name]["kl_to_teacher"]["mean"] for name in names)
    assert total == pytest.approx(kd["metrics"]["kl_to_teacher"]["mean"], rel=1e-4)
    assert kd["targets"]["share"]["rmse"]["mean"] < 0.1 < kd["targets"]["price"]["rmse"]["mean"]
    page = (several / "report.html").read_text(encoding="utf-8")
    assert "Each target" in page
    shown = plain(compare({"a": summary}))["rows"]
    assert all(list(row["targets"]) == names for row in shown)
    xcl_command("evaluate", str(several))
    said = capsys.readouterr().out
    assert "Each target" in said
    assert all(name in said for name in names)
    xcl_command("evaluate", str(several), "--student", "kd", "--json")
    found = json.loads(capsys.readouterr().out)
    for name in names:
        given, wanted = found["targets"][name]["rmse"], kd["targets"][name]["rmse"]
        assert given["mean"] == pytest.approx(wanted["mean"], rel=1e-5)


def test_the_setting_that_the_survey_names_works_as_written(tmp_path: Path) -> None:
    for shift, name in ((0.0, "log"), (-20.0, "asinh")):
        file = written(tmp_path / f"{name}.csv")
        frame = pl.read_csv(file).with_columns(pl.col("price") + shift)
        frame.write_csv(file)
        [said] = [s for s in survey(table(str(file))).suspicious if "price is skewed" in s]
        setting = yaml.safe_load(said.split("`")[1])
        assert setting == {"target_transform": name}
        training = TRAINING | {"steps": 10}
        recipe = recipe_of(
            {"path": str(file), **setting},
            teacher={"model": MODEL, "training": training},
            defaults={"model": MODEL, "training": training},
        )
        summary = execute(recipe, tmp_path / f"run-{name}")
        assert summary["students"]["kd"]["metrics"]["nll"]["mean"] is not None
        after = survey(table(str(file), **setting)).suspicious
        assert not any("skewed" in sentence for sentence in after)


def test_a_first_recipe_has_the_transform_and_says_why(tmp_path: Path) -> None:
    file, out = written(tmp_path / "p.csv", rows=120), tmp_path / "first.yaml"
    xcl_command("init", str(file), "--out", str(out))
    text = out.read_text(encoding="utf-8")
    assert yaml.safe_load(text)["data"]["table"]["target_transform"] == "log"
    comments = " ".join(line.strip(" #") for line in text.splitlines() if "#" in line)
    assert "The target price is skewed" in comments
    # A network that learned the plain target can teach it alone.
    raw = table(str(file), "price")
    student = xcl.distill({"random_forest": {"trees": 5}}, MODEL, raw, steps=20)
    student.save(tmp_path / "saved")
    given = ["init", str(file), "--teacher", str(tmp_path / "saved"), "--force"]
    xcl_command(*given, "--out", str(out))
    again = yaml.safe_load(out.read_text(encoding="utf-8"))
    assert "target_transform" not in again["data"]["table"]
