"""``xcl.distill(…, calibrate=…)`` calibrates as a recipe does, and files keep it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import extracurricular as xcl
from extracurricular.data.sets.arrays import from_arrays
from extracurricular.distillation import distill
from extracurricular.errors import RecipeError, StorageError, XclError
from extracurricular.files import load_weights, read_json
from extracurricular.predictors.load import from_run
from extracurricular.recipe.read import parse_recipe
from extracurricular.recipe.single import read_calibrate, recipe_for
from extracurricular.run.execute import execute
from extracurricular.run.finished import open_run
from extracurricular.teachers.calibrated import Calibrated

STEPS = 12
STUDENT = {"mlp": {"hidden": [6]}}
TEACHER = {"random_forest": {"trees": 5}}
BOTH = ["variance", {"conformal": {"coverage": 0.8}}]


def reals() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = rng.normal(1, 2, (200, 5)).astype(np.float32)
    y = np.concatenate([3 * x[:, :1], 50 + x[:, 1:2]], 1) + rng.normal(0, 0.5, (200, 2))
    return x, y.astype(np.float32)


def classes() -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, 200)
    return (rng.normal(0, 0.9, (200, 4)) + y[:, None]).astype(np.float32), y


def spec_of(folder: Path, x: Any, y: Any) -> dict[str, Any]:
    np.savez(folder / "table.npz", x=x, y=y)
    return {"arrays": {"path": str(folder / "table.npz")}}


def assert_alike(found: xcl.Predictor, other: xcl.Predictor, x: Any) -> None:
    """Both answer alike to the last bit, intervals and sets included."""
    ours, theirs = found(x), other(x)
    assert found.conformal == other.conformal
    if found.task.kind == "regression":
        np.testing.assert_array_equal(ours.mean, theirs.mean)
        np.testing.assert_array_equal(ours.std, theirs.std)
        np.testing.assert_array_equal(ours.interval(), theirs.interval())
        return
    np.testing.assert_array_equal(ours.probs, theirs.probs)
    if found.conformal is not None:
        np.testing.assert_array_equal(ours.in_set(), theirs.in_set())


@pytest.mark.parametrize(
    ("made", "given"),
    [(reals, BOTH), (classes, ["temperature", "conformal"]), (classes, "temperature")],
)
def test_it_is_the_calibration_of_a_recipe_to_the_last_bit(
    tmp_path: Path, made: Any, given: Any
) -> None:
    x, y = made()
    spec, data = spec_of(tmp_path, x, y), from_arrays(x, y)
    section = read_calibrate(given)
    recipe = recipe_for(
        {"estimator": TEACHER}, STUDENT, spec, data, name="same", steps=STEPS, calibrate=section
    )
    assert recipe["students"]["student"]["calibrate"] == section.model_dump(mode="json")  # type: ignore[union-attr]
    execute(parse_recipe(recipe), tmp_path / "run")
    found = distill(TEACHER, STUDENT, (x, y), steps=STEPS, calibrate=given)
    run = open_run(tmp_path / "run")
    assert found.keeper.calibration == run.calibration("student", 0)  # type: ignore[union-attr]
    assert_alike(found, from_run(run), x)
    # No weight is another for it.
    weights = load_weights(tmp_path / "run/students/student/seed-0/weights.safetensors")
    plain = distill(TEACHER, STUDENT, (x, y), steps=STEPS)
    for student in (found, plain):
        for name, value in student.keeper.module.state_dict().items():  # type: ignore[union-attr]
            assert bool((value == weights[name]).all())
    assert not np.array_equal(found(x).entropy, plain(x).entropy)


def test_a_saved_student_keeps_it_and_so_does_its_file_of_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    for made, given in ((reals, BOTH), (classes, {"temperature": True, "conformal": 0.8})):
        x, y = made()
        found = distill(TEACHER, STUDENT, (x, y), steps=STEPS, calibrate=given)
        folder = tmp_path / made.__name__
        found.save(folder)
        assert_alike(xcl.load(folder), found, x)
        shipped = found.export(folder / "out" / "student.onnx")
        assert shipped.metadata["files"]["student.onnx"]["coverage"] > 0.5
        card = (folder / "out" / "README.md").read_text()
        assert "The student is calibrated on 20 validation examples" in card
        loaded = xcl.load(folder / "out" / "student.onnx")
        assert loaded.conformal == found.conformal
        if found.task.kind == "regression":
            np.testing.assert_allclose(loaded(x).std, found(x).std, rtol=1e-4)
        else:
            np.testing.assert_allclose(loaded(x).probs, found(x).probs, atol=1e-5)


def test_another_calibration_in_a_folder_trains_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = reals()
    folder = tmp_path / "s"
    first = distill(TEACHER, STUDENT, (x, y), steps=STEPS, calibrate=BOTH, out=folder)
    assert_alike(xcl.load(folder), first, x)
    kept = {name: (folder / name).read_bytes() for name in ("predictor.json", "distill.json")}

    def again(*_: Any, **__: Any) -> None:
        raise AssertionError("it was trained again")

    monkeypatch.setattr("extracurricular.run.contest.train", again)
    same = distill(TEACHER, STUDENT, (x, y), steps=STEPS, calibrate=BOTH, out=folder)
    assert_alike(same, first, x)
    for given in ("conformal", None, BOTH):
        found = distill(TEACHER, STUDENT, (x, y), steps=STEPS, calibrate=given, out=folder)
        assert_alike(xcl.load(folder), found, x)
        assert (found.conformal is None) == (given is None)
        assert ("calibration" in read_json(folder / "predictor.json")) == (given is not None)
    assert kept == {name: (folder / name).read_bytes() for name in kept}
    with pytest.raises(StorageError, match=r"training.steps = 12, and now it is 13"):
        distill(TEACHER, STUDENT, (x, y), steps=13, calibrate=BOTH, out=folder)


def test_a_student_without_one_has_the_files_of_before(tmp_path: Path) -> None:
    x, y = classes()
    found = distill(TEACHER, STUDENT, (x, y), steps=STEPS)
    found.save(tmp_path / "s")
    known = read_json(tmp_path / "s" / "predictor.json")
    assert "calibration" not in known
    assert "trees" not in known
    calibrated = distill(TEACHER, STUDENT, (x, y), steps=STEPS, calibrate="temperature")
    with pytest.raises(StorageError, match="holds another saved student"):
        calibrated.save(tmp_path / "s")
    calibrated.save(tmp_path / "s", replace=True)
    assert_alike(xcl.load(tmp_path / "s"), calibrated, x)


def test_a_calibrated_student_teaches_calibrated() -> None:
    x, y = classes()
    data = from_arrays(x, y)
    found = distill(TEACHER, STUDENT, data, steps=STEPS, calibrate="temperature")
    asked = found.ask.teacher  # type: ignore[attr-defined]
    assert isinstance(asked, Calibrated)
    pupil = distill(found, STUDENT, data, steps=STEPS)
    spelt = distill(asked, STUDENT, data, steps=STEPS)
    plain = distill(distill(TEACHER, STUDENT, data, steps=STEPS), STUDENT, data, steps=STEPS)
    assert_alike(pupil, spelt, x)
    assert not np.array_equal(pupil(x).probs, plain(x).probs)


@pytest.mark.parametrize(
    ("made", "changes", "says"),
    [
        (reals, {"calibrate": "temperature"}, "calibrate: is temperature, which is for classes"),
        (classes, {"calibrate": "variance"}, "these are classes; take temperature"),
        (classes, {"calibrate": "temp"}, "calibrate: is 'temp'; did you mean 'temperature'"),
        (classes, {"calibrate": 3}, "calibrate: is 3; it should be temperature | variance"),
        (classes, {"calibrate": []}, "calibrate: names no method"),
        (reals, {"calibrate": {"conformal": {"cover": 0.9}}}, "did you mean 'coverage'"),
        (reals, {"calibrate": {"conformal": 1.5}}, "calibrate.conformal.coverage: is 1.5"),
        (
            reals,
            {"calibrate": ("variance", {"conformal": 0.99})},
            "calibrate.conformal.coverage: is 0.99, which needs at least 99 validation examples, "
            "and the data have 20; set a coverage of at most 0.952",
        ),
        (
            reals,
            {"calibrate": "variance", "distribution": "student_t"},
            "calibrate: is variance, which is for Gaussians; other distributions take conformal",
        ),
    ],
)
def test_a_wrong_calibration_is_one_sentence_before_any_training(
    made: Any, changes: dict[str, Any], says: str
) -> None:
    def never(step: int, loss: float) -> None:
        raise AssertionError("it was trained")

    with pytest.raises(XclError) as caught:
        distill(TEACHER, STUDENT, made(), steps=2, on_progress=never, **changes)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_data_without_validation_examples_are_refused() -> None:
    x, y = classes()
    data = xcl.make_data("d", (x[:150], y[:150]), (x[150:], y[150:]))
    with pytest.raises(RecipeError, match="fitted on validation examples, but the data have none"):
        distill(TEACHER, STUDENT, data, steps=2, calibrate="temperature")


@pytest.mark.parametrize(
    "changes",
    [
        {"variance": [1.0]},
        {"variance": [1.0, "x"]},
        {"temperature": 2.0, "variance": None},
        {"conformal": {"coverage": 0.9, "deviations": [1.0, 2.0, 3.0]}},
        {"conformal": {"coverage": 0.9, "least": 0.5}},
        {"conformal": {"coverage": 2}},
        {"conformal": 7},
    ],
)
def test_a_calibration_of_other_answers_is_refused_when_read(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    x, y = reals()
    distill(TEACHER, STUDENT, (x, y), steps=2, calibrate=BOTH).save(tmp_path / "s")
    file = tmp_path / "s" / "predictor.json"
    known = json.loads(file.read_text())
    known.pop("checksum")
    known["calibration"] |= changes
    file.write_text(json.dumps(known))
    with pytest.raises(StorageError, match="has a damaged predictor"):
        xcl.load(tmp_path / "s")
