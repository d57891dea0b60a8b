"""Calibrated teachers and students of a run: records, resumption, predictors, files and exports."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

import extracurricular as xcl
from extracurricular.cli import app
from extracurricular.distributions import Categorical, Gaussian
from extracurricular.errors import RecipeError, StorageError, XclError
from extracurricular.evaluation.calibrate import calibrate
from extracurricular.files import read_json, read_sealed, write_sealed
from extracurricular.knowledge.fingerprint import teacher_fingerprint
from extracurricular.recipe.read import parse_recipe
from extracurricular.run.execute import execute
from extracurricular.run.finished import open_run
from extracurricular.run.plan import plan
from extracurricular.run.workspace import Workspace
from extracurricular.teachers.calibrated import Calibrated, calibrated

STAGE = "calibration/students/xcl/seed-0"


def table(folder: Path, count: int = 300) -> Path:
    """Write a table with one target above 0 and one of either sign, noisier where x is large."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 3))
    noise = rng.normal(size=(count, 2)) * np.exp(x[:, :1] / 2)
    a, b = np.exp(0.3 * x[:, 1] + 0.2 * noise[:, 0]), 5 + 10 * x[:, 2] + noise[:, 1]
    file = folder / "t.csv"
    pl.DataFrame({"lower": x[:, 0], "q": x[:, 1], "r": x[:, 2], "a": a, "b": b}).write_csv(file)
    return file


def reals(file: Path, **changes: Any) -> dict[str, Any]:
    training = {"steps": 30, "optimizer": "adamw", "lr": 0.01}
    settings = {"path": str(file), "target": ["a", "b"], "target_transform": {"a": "log"}}
    return {
        "name": "reals",
        "data": {"table": settings | {"validation": 60}},
        "teacher": {"model": {"mlp": {"hidden": [8]}}, "members": 2, "training": training},
        "defaults": {"model": {"mlp": {"hidden": [4]}}, "training": training},
        "students": {"kd": {}, "xcl": {"calibrate": ["variance", "conformal"]}},
        **changes,
    }


def digits(own: Any = "temperature", **changes: Any) -> dict[str, Any]:
    training = {"steps": 40, "optimizer": "adamw", "lr": 0.01}
    return {
        "name": "classes",
        "data": "digits",
        "teacher": {"model": {"mlp": {"hidden": [16]}}, "training": training} | changes,
        "defaults": {"model": {"mlp": {"hidden": [8]}}, "training": training},
        "students": {"xcl": {"calibrate": own}},
        "keep": 2000,
    }


def run(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    return execute(parse_recipe(values), folder, jobs=1)


@pytest.fixture(scope="module")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reals")
    run(reals(table(folder)), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def class_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classes")
    run(digits(["temperature", {"conformal": {"coverage": 0.8}}]), folder / "run")
    return folder / "run"


def test_the_record_has_what_was_fitted_to_the_validation_examples(real_run: Path) -> None:
    found = open_run(real_run)
    data, stage = found.data, found.stage("xcl", 0)
    said = found.workspace.predict(stage.as_teacher(found.workspace), data, data.validation)
    assert data.validation.y is not None
    wanted = calibrate(said, data.validation.y, variance=True, coverage=0.9)
    assert found.calibration("xcl", 0) == wanted
    assert found.calibration("kd", 0) is None
    assert found.calibration(None, 0) is None
    assert isinstance(found.student("xcl", 0), Calibrated)
    entry = found.summary["students"]["xcl"]["calibration"]
    assert entry["fitted"] == [wanted.dump()]
    assert 0 < entry["figures"]["coverage"]["mean"] <= 1
    assert "calibration" not in found.summary["students"]["kd"]


def test_its_figures_are_those_of_calibrated_answers(real_run: Path) -> None:
    found = open_run(real_run)
    data, known = found.data, found.calibration("xcl", 0)
    assert known is not None
    plain = found.stage("xcl", 0).as_teacher(found.workspace)
    before = found.workspace.predict(plain, data, data.test)
    assert data.test.y is not None
    nll = float(known(before).nll(data.test.y).mean())
    assert found.summary["students"]["xcl"]["metrics"]["nll"]["mean"] == pytest.approx(nll)
    figures = found.summary["students"]["xcl"]["calibration"]["figures"]
    assert figures["nll_before"]["mean"] == pytest.approx(float(before.nll(data.test.y).mean()))


def test_a_finished_run_is_left_alone_and_another_method_fits_anew_without_training(
    tmp_path: Path,
) -> None:
    folder, file = tmp_path / "run", table(tmp_path)
    run(reals(file), folder)
    student = folder / "students/xcl/seed-0/stage.json"
    first, times = read_json(folder / STAGE / "stage.json"), student.stat().st_mtime_ns
    run(reals(file), folder)
    assert read_json(folder / STAGE / "stage.json") == first
    changed = reals(file, students={"kd": {}, "xcl": {"calibrate": {"conformal": 0.8}}})
    summary = run(changed, folder)
    assert student.stat().st_mtime_ns == times
    assert "variance" not in read_json(folder / STAGE / "stage.json")["calibration"]
    [fitted] = summary["students"]["xcl"]["calibration"]["fitted"]
    assert fitted["conformal"]["coverage"] == 0.8
    (folder / STAGE / "stage.json").unlink()
    assert run(changed, folder) == summary


def test_a_calibration_of_other_weights_is_fitted_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(digits(), folder)
    file = folder / STAGE / "stage.json"
    record = read_sealed(file)
    other = dict.fromkeys(record["of"], "0" * 64)
    write_sealed(file, record | {"of": other, "calibration": {"temperature": 9.0}})
    run(digits(), folder)
    assert read_sealed(file)["calibration"] == record["calibration"]


def test_a_changed_calibration_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(digits(), folder)
    file = folder / STAGE / "stage.json"
    text = file.read_text()
    file.write_text(re.sub(r'"temperature": [\d.]+', '"temperature": 1.0', text))
    with pytest.raises(StorageError, match=r"stage\.json"):
        xcl.load(folder)
    file.write_text(text)
    write_sealed(file, read_sealed(file) | {"calibration": {"temperature": -1.0}})
    with pytest.raises(StorageError, match="has no calibration that could be read"):
        xcl.load(folder)


def test_a_student_without_the_key_has_the_settings_it_had(tmp_path: Path) -> None:
    values = digits()
    values["students"] = {"xcl": {}}
    plain = plan(parse_recipe(values))
    assert not plain.calibrations
    assert "calibrate" not in json.dumps(plain.students["xcl", 0].settings)
    assert [stage.path for stage in plan(parse_recipe(digits())).calibrations.values()] == [STAGE]
    with_it = plan(parse_recipe(digits())).students["xcl", 0]
    assert with_it.settings == plain.students["xcl", 0].settings


def test_a_calibrated_teacher_is_another_teacher(tmp_path: Path) -> None:
    plain, hot = parse_recipe(digits(None)), parse_recipe(digits(None, calibrate="temperature"))
    sets = parse_recipe(digits(None, calibrate="conformal"))
    settings = [plan(one).students["xcl", 0].settings for one in (plain, hot, sets)]
    assert settings[0] != settings[1]
    assert settings[0] == settings[2]  # sets change no answer
    execute(hot, tmp_path / "run", jobs=1)
    workspace = Workspace(hot, tmp_path / "run")
    source = plan(hot).teachers[0]
    teacher = workspace.made(source)
    assert isinstance(teacher, Calibrated)
    known = read_sealed(tmp_path / "run/calibration/teacher/shared/stage.json")["calibration"]
    assert known["temperature"] == teacher.calibration.temperature
    data = workspace.data_of(0)
    said = workspace.predict(teacher, data, data.test)
    before = workspace.predict(teacher.teacher, data, data.test)
    assert torch.allclose(said.mean, before.tempered(known["temperature"]).mean, atol=1e-6)
    assert teacher_fingerprint(teacher) != teacher_fingerprint(teacher.teacher)
    summary = read_json(tmp_path / "run/summary.json")
    assert summary["teacher"]["calibration"]["fitted"] == [known]


def test_a_recorded_teacher_is_recorded_calibrated(tmp_path: Path) -> None:
    record = {"draws": 64, "codec": "float32"}
    values = digits(None, calibrate="temperature", record=record)
    run(values, tmp_path / "run")
    recipe = parse_recipe(values)
    workspace, made = Workspace(recipe, tmp_path / "run"), plan(recipe)
    stage = made.students["xcl", 0]
    assert stage.record is not None
    replay, recorded = stage.record.replay(workspace, 0)
    batch = replay(torch.arange(8))
    asked = workspace.made(made.teachers[0])(batch)
    assert torch.allclose(recorded(batch).mean, asked.mean, atol=1e-5)


def test_an_ensemble_keeps_its_disagreement() -> None:
    from extracurricular.distributions import Calibration
    from extracurricular.teachers import HasMembers

    class Two:
        def members(self, batch: Any) -> list[Any]:
            return [batch, batch]

        def __call__(self, batch: Any) -> Any:
            return batch

    said: Any = Categorical(torch.tensor([[0.0, 1.0]]))
    found = calibrated(Two(), Calibration(temperature=2.0))
    assert isinstance(found, HasMembers)
    assert torch.equal(found.members(said)[0].mean, said.mean)
    assert torch.equal(found(said).mean, said.tempered(2.0).mean)
    assert calibrated(Two(), Calibration()).__class__ is Two


@pytest.mark.parametrize(
    ("calibrate", "problem"),
    [
        ("variance", "calibrate is variance, which is for real targets; these are classes; take "),
        ({"conformal": 0.9999}, "is 0.9999, which needs at least 9,999 validation examples, and"),
        ("platt", "calibrate is 'platt'; known: conformal, temperature, variance"),
        (["temperature", "temperature"], "calibrate has temperature twice"),
        ([], "calibrate names no method; set it to null for none"),
    ],
)
def test_a_mistake_is_told_by_key_before_anything_is_written(
    tmp_path: Path, calibrate: Any, problem: str
) -> None:
    with pytest.raises(RecipeError) as found:
        run(digits(calibrate), tmp_path / "run")
    text = str(found.value)
    assert re.sub(r"^(students\.xcl\.calibrate)\S*: ", r"\1 ", text).startswith("students.xcl.cal")
    assert problem.removeprefix("calibrate ") in text
    assert not (tmp_path / "run").exists()


def test_data_without_validation_examples_are_refused(tmp_path: Path) -> None:
    values = reals(table(tmp_path))
    values["data"]["table"]["validation"] = 0
    with pytest.raises(RecipeError, match=r"students\.xcl\.calibrate: is set, and is fitted on va"):
        run(values, tmp_path / "run")


def test_a_predictor_gives_the_stated_intervals(real_run: Path) -> None:
    predictor = xcl.load(real_run)
    rows = pl.read_csv(real_run.parent / "t.csv")
    said = predictor.predict(rows)
    known = open_run(real_run).calibration("xcl", 0)
    assert known is not None
    assert known.conformal is not None
    assert isinstance(said.distribution, Gaussian)
    low, high = known.conformal.bounds(said.distribution)
    assert np.array_equal(said.interval(0.9)[0], low.numpy())
    assert np.array_equal(said.interval()[1], high.numpy())
    with pytest.raises(ValueError, match=r"calibrated to a coverage of 0\.9, and 0\.5 is asked"):
        said.interval(0.5)
    assert np.array_equal(said[:3].interval()[0], low[:3].numpy())
    with pytest.raises(AttributeError, match="gives classes"):
        said.sets()
    plain = xcl.load(real_run, student="kd").predict(rows)
    assert plain.interval(0.5)[0].shape == (300, 2)


def test_a_predictor_gives_the_stated_sets(class_run: Path) -> None:
    predictor = xcl.load(class_run)
    images = open_run(class_run).data.test.x
    assert isinstance(images, torch.Tensor)
    said = predictor.predict(images[:50])
    inside, names = said.in_set(0.8), said.sets()
    assert predictor.conformal is not None
    assert np.array_equal(inside, said.probs >= predictor.conformal.least)
    assert [len(one) for one in names] == inside.sum(1).tolist()
    assert names[0] == tuple(str(k) for k in np.flatnonzero(inside[0]))
    with pytest.raises(ValueError, match=r"a coverage of 0\.8, and 0\.9 is asked for"):
        said.sets(0.9)


def test_the_files_of_predictions_have_bounds_and_sets(
    real_run: Path, class_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "p.csv"
    made = CliRunner().invoke(
        app, ["predict", str(real_run), str(real_run.parent / "t.csv"), "--out", str(out)]
    )
    assert made.exit_code == 0, made.output
    frame = pl.read_csv(out)
    assert (frame["b_lower"] < frame["b_mean"]).all()
    assert (frame["a_upper"] > frame["a_lower"]).all()
    images = open_run(class_run).data.test.x
    assert isinstance(images, torch.Tensor)
    np.save(tmp_path / "x.npy", images[:20].numpy())
    arguments = ["predict", str(class_run), str(tmp_path / "x.npy"), "--out", str(out)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    sets = pl.read_csv(out, schema_overrides={"set": pl.String})["set"].fill_null("").to_list()
    wanted = xcl.load(class_run).predict(images[:20]).sets()
    assert sets == [", ".join(one) for one in wanted]


@pytest.mark.parametrize("which", ["real_run", "class_run"])
def test_an_exported_file_gives_the_same_intervals_or_sets(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder: Path = request.getfixturevalue(which)
    shipped = xcl.export_run(folder, tmp_path / "xcl.onnx")
    found = open_run(folder)
    data = found.data
    metadata = shipped.metadata
    known = found.calibration("xcl", 0)
    assert known is not None
    assert metadata["calibration"] == known.dump()
    entry = metadata["files"]["xcl.onnx"]
    assert entry["verified"]
    summary = found.summary["students"]["xcl"]["calibration"]["figures"]
    assert entry["coverage"] == pytest.approx(summary["coverage"]["mean"], abs=1e-6)
    own, file = xcl.load(folder), xcl.load(tmp_path / "xcl.onnx")
    x = data.test.x
    assert isinstance(x, torch.Tensor)
    one, other = own.predict(x), file.predict(x)
    if which == "real_run":
        rows = metadata["files"]["xcl.rows.onnx"]
        assert rows["rows"]["lower"] == "lower (input)"
        assert rows["coverage"] == entry["coverage"]
        for mine, theirs in zip(one.interval(0.9), other.interval(0.9), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=2e-4, atol=1e-4)
    else:
        assert np.array_equal(one.in_set(), other.in_set())
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "xcl.onnx"))
    raw = dict(zip([one.name for one in session.get_inputs()], [x.numpy()], strict=True))
    outputs = {one.name: k for k, one in enumerate(session.get_outputs())}
    answers = session.run(None, raw)
    if which == "real_run":
        np.testing.assert_allclose(
            answers[outputs["lower"]], one.interval()[0], rtol=2e-4, atol=1e-4
        )
    else:
        assert np.array_equal(answers[outputs["in_set"]], one.in_set())
    text = (tmp_path / "README.md").read_text()
    assert "The student is calibrated on" in text


def test_evaluate_and_the_page_tell_the_coverage(class_run: Path) -> None:
    found = CliRunner().invoke(app, ["evaluate", str(class_run)], env={"COLUMNS": "200"})
    assert found.exit_code == 0, found.output
    assert "Calibrated sets of 80 % hold" in found.output
    result = xcl.evaluate(class_run)["conformal"]
    figures = open_run(class_run).summary["students"]["xcl"]["calibration"]["figures"]
    assert result["coverage"]["mean"] == figures["coverage"]["mean"]
    made = CliRunner().invoke(app, ["report", str(class_run)])
    assert made.exit_code == 0, made.output
    page = (class_run / "report.html").read_text(encoding="utf-8")
    assert "Calibrated on validation examples" in page
    assert "80 % sets, p ≥" in page


def stored(folder: Path, missing: int = 0) -> dict[str, Any]:
    """Write a table and a teacher's answers, and return the recipe of a student of them."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 2))
    p = 1 / (1 + np.exp(-x[:, 0]))
    kind = np.where(rng.random(150) < p, "dog", "cat")
    names = [f"c{k}" for k in range(150)]
    pl.DataFrame({"id": names, "u": x[:, 0], "v": x[:, 1], "kind": kind}).write_csv(
        folder / "t.csv"
    )
    # The teacher is three times as sure as it should be.
    sure = 1 / (1 + np.exp(-3 * x[:, 0]))
    answers = pl.DataFrame({"id": names, "p_cat": 1 - sure, "p_dog": sure})
    answers[: 150 - missing].write_csv(folder / "answers.csv")
    given = {"path": str(folder / "answers.csv"), "id": "id", "probabilities": ["p_cat", "p_dog"]}
    table = {"path": str(folder / "t.csv"), "target": "kind", "id": "id", "validation": 50}
    return {
        "name": "stored",
        "data": {"table": table},
        "teacher": {"answers": given, "calibrate": "temperature"},
        "students": {
            "kd": {
                "model": {"mlp": {"hidden": [4]}},
                "training": {"steps": 20, "optimizer": "adamw", "lr": 0.01},
            }
        },
    }


def test_stored_answers_are_calibrated_before_they_are_matched(tmp_path: Path) -> None:
    summary = run(stored(tmp_path), tmp_path / "run")
    [fitted] = summary["teacher"]["calibration"]["fitted"]
    assert 1.5 < fitted["temperature"] < 6
    figures = summary["teacher"]["calibration"]["figures"]
    assert summary["teacher"]["metrics"]["nll"]["mean"] == figures["nll"]["mean"]


def test_stored_answers_without_some_of_validation_are_refused(tmp_path: Path) -> None:
    values = stored(tmp_path, missing=60)
    values["teacher"]["answers"]["missing"] = "drop"
    with pytest.raises(XclError, match=r"teacher\.calibrate: asks the teacher about all valida"):
        run(values, tmp_path / "run")


def test_a_fitted_teacher_is_calibrated_in_jobs_too(tmp_path: Path) -> None:
    values = digits(None) | {
        "teacher": {"estimator": {"random_forest": {"trees": 20}}, "calibrate": "temperature"}
    }
    summary = execute(parse_recipe(values), tmp_path / "run", jobs=2)
    [fitted] = summary["teacher"]["calibration"]["fitted"]
    assert fitted["temperature"] != 1
    loaded = xcl.load(tmp_path / "run", teacher=True)
    assert loaded.parameters is not None
