"""``xcl.distill`` fits trees as a recipe does, and files keep them without code."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import extracurricular as xcl
from extracurricular.data.sets.arrays import from_arrays
from extracurricular.data.sets.digits import digits
from extracurricular.distillation import distill
from extracurricular.errors import RecipeError, StorageError, XclError
from extracurricular.files import load_weights, read_json, save_weights
from extracurricular.models.estimators import BoostedStudent
from extracurricular.predictors.load import from_run
from extracurricular.recipe.read import parse_recipe
from extracurricular.recipe.single import recipe_for, trees_sampler
from extracurricular.run.estimator import asked_about
from extracurricular.run.execute import execute
from extracurricular.run.finished import open_run
from extracurricular.teachers import LabelTeacher
from tests.test_distillation_calibrated import assert_alike, classes, reals, spec_of

TEACHER = {"random_forest": {"trees": 5}}
BOOSTED = {"estimator": {"gradient_boosting": {"rounds": 8}}, "draws": 300}
FOREST = {"estimator": {"extra_trees": {"trees": 4}}, "draws": 300}

OWN = """
from sklearn.tree import DecisionTreeRegressor

def build():
    return DecisionTreeRegressor(max_depth=3)
"""


@pytest.mark.parametrize(
    ("made", "student", "calibrate"),
    [
        (reals, BOOSTED, ["variance", "conformal"]),
        (classes, FOREST, None),
        (classes, BOOSTED, "conformal"),
    ],
)
def test_they_are_the_trees_of_a_recipe_to_the_last_bit(
    tmp_path: Path, made: Any, student: dict[str, Any], calibrate: Any
) -> None:
    x, y = made()
    spec, data = spec_of(tmp_path, x, y), from_arrays(x, y)
    recipe = recipe_for({"estimator": TEACHER}, student, spec, data, name="same")
    if calibrate is not None:
        recipe["students"]["student"]["calibrate"] = calibrate
    execute(parse_recipe(recipe), tmp_path / "run")
    found = distill(TEACHER, student, (x, y), calibrate=calibrate)
    weights = load_weights(tmp_path / "run/students/student/seed-0/weights.safetensors")
    ours = found.keeper.module.state_dict()  # type: ignore[union-attr]
    assert set(ours) == set(weights)
    assert all(torch.equal(ours[name], value) for name, value in weights.items())
    assert_alike(found, from_run(open_run(tmp_path / "run")), x)


def test_a_sampler_is_that_of_a_recipe_and_a_seed_counts(tmp_path: Path) -> None:
    x, y = reals()
    spec, data = spec_of(tmp_path, x, y), from_arrays(x, y)
    mixed = {"share": {"of": 0.2, "extended": ["empirical", "mixup"]}}
    for number, chain in enumerate((["empirical"], [mixed])):
        recipe = recipe_for({"estimator": TEACHER}, BOOSTED, spec, data, name="same")
        recipe["students"]["student"]["sampler"] = chain
        execute(parse_recipe(recipe), tmp_path / f"run{number}")
        found = distill(TEACHER, BOOSTED, (x, y), sampler=chain)
        assert_alike(found, from_run(open_run(tmp_path / f"run{number}")), x)
        other = distill(TEACHER, BOOSTED, (x, y), sampler=chain, seed=3)
        assert not np.array_equal(other(x).mean, found(x).mean)
    built = xcl.build_sampler(["empirical"], data, 0)
    assert distill(TEACHER, BOOSTED, (x, y), sampler=built).parameters > 0  # type: ignore[operator]


def test_a_share_of_draws_is_that_share_and_not_half() -> None:
    x, y = reals()
    data = from_arrays(x, y)
    chain = [{"share": {"of": 0.2, "plain": ["empirical"], "extended": ["empirical", "mixup"]}}]
    sampler = xcl.build_sampler(chain, data, 0)
    rows, _, counts = asked_about(sampler, LabelTeacher(), 2000, data.device)
    stored = {row.tobytes() for row in data.inputs(data.train.x).numpy()}
    mixed = sum(n for row, n in zip(rows, counts, strict=True) if row.tobytes() not in stored)
    assert mixed / 2000 == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("student", [FOREST, {"mlp": {"hidden": [4]}}])
def test_stored_answers_teach_as_in_a_recipe_without_rows_that_lack_one(
    tmp_path: Path, student: dict[str, Any]
) -> None:
    x, y = classes()
    spec, data = spec_of(tmp_path, x, y), from_arrays(x, y)
    p = np.random.default_rng(0).dirichlet([1, 1, 1], 180)
    np.savez(tmp_path / "answers.npz", probabilities=p)
    answers = {"answers": {"path": str(tmp_path / "answers.npz"), "missing": "drop"}}
    recipe = recipe_for(answers, student, spec, data, name="same", steps=4)
    recipe["students"]["student"]["sampler"] = ["empirical"]
    execute(parse_recipe(recipe), tmp_path / "run")
    stored = xcl.Answers(np.arange(180), probabilities=p, missing="drop")
    steps = {} if student is FOREST else {"steps": 4}
    found = distill(stored, student, (x, y), sampler=["empirical"], **steps)
    assert_alike(found, from_run(open_run(tmp_path / "run")), x)
    if student is FOREST:
        with pytest.raises(RecipeError, match="sampler: 'mixup' needs answers on new examples"):
            distill(stored, student, (x, y), sampler=["empirical", "mixup"])


def test_the_default_draws_are_stored_and_swapped_rows_or_mixed_images() -> None:
    rows, images = from_arrays(*reals()), digits(train=40, validation=10)
    for data, name in ((rows, "swap"), (images, "mixup")):
        [chain] = trees_sampler(data)
        assert [part["weight"] for part in chain["blend"].values()] == [0.5, 0.5]
        chains = [part["sampler"] for part in chain["blend"].values()]
        assert chains == [["empirical"], ["empirical", name]]
    found = distill(TEACHER, FOREST, images)
    assert found.predict(images.test.x[:5]).probs.shape == (5, 10)
    assert found.score(images.test.x, images.test.y) > 0.3


def test_they_are_saved_loaded_and_exported(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    x, y = reals()
    found = distill(TEACHER, BOOSTED, (x, y), calibrate="conformal")
    files = found.save(tmp_path / "s")
    assert {file.name for file in files} == {"predictor.json", "weights.safetensors"}
    again = xcl.load(tmp_path / "s")
    assert_alike(again, found, x)
    assert again.parameters == found.parameters
    with pytest.raises(RecipeError, match="model: is of no use here"):
        xcl.load(tmp_path / "s", model="mlp")
    shipped = found.export(tmp_path / "out" / "trees.onnx")
    assert shipped.metadata["files"]["trees.onnx"]["verified"]
    assert "A model of trees with" in (tmp_path / "out" / "README.md").read_text()
    loaded = xcl.load(tmp_path / "out" / "trees.onnx")
    np.testing.assert_allclose(loaded(x).mean, found(x).mean, rtol=1e-5)
    np.testing.assert_allclose(loaded(x).interval(), found(x).interval(), rtol=1e-4)
    with pytest.raises(RecipeError, match="--int8: is for networks"):
        found.export(tmp_path / "small" / "trees.onnx", int8=True)
    # They teach as any student does.
    pupil = distill(str(tmp_path / "s"), {"mlp": {"hidden": [4]}}, (x, y), steps=2)
    assert_alike(pupil, distill(found, {"mlp": {"hidden": [4]}}, (x, y), steps=2), x)


def test_a_folder_is_finished_once_and_calibrated_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = classes()
    folder = tmp_path / "s"

    def cut(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(BoostedStudent, "fit", cut)
        with pytest.raises(KeyboardInterrupt):
            distill(TEACHER, BOOSTED, (x, y), out=folder)
    assert not (folder / "predictor.json").exists()
    first = distill(TEACHER, BOOSTED, (x, y), out=folder)
    assert_alike(first, distill(TEACHER, BOOSTED, (x, y)), x)
    monkeypatch.setattr(BoostedStudent, "fit", cut)
    for calibrate in ("temperature", "conformal", None):
        found = distill(TEACHER, BOOSTED, (x, y), out=folder, calibrate=calibrate)
        assert_alike(xcl.load(folder), found, x)
    assert_alike(found, first, x)
    others = ({**BOOSTED, "draws": 301}, FOREST, {"mlp": {"hidden": [4]}})
    for other in others:
        with pytest.raises(StorageError, match=r"holds a student made with student"):
            distill(TEACHER, other, (x, y), out=folder)


def test_trees_of_ones_own_are_fitted_and_loaded_without_their_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_trees.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    x, y = reals()
    student = {"estimator": {"sklearn": {"estimator": "own_trees:build"}}, "draws": 200}
    found = distill(TEACHER, student, (x, y))
    found.save(tmp_path / "s")
    assert "own_trees" not in (tmp_path / "s" / "predictor.json").read_text()
    monkeypatch.delitem(sys.modules, "own_trees")
    assert_alike(xcl.load(tmp_path / "s"), found, x)
    assert "own_trees" not in sys.modules
    (tmp_path / "own_trees.py").write_text("def build():\n    return 7\n")
    monkeypatch.delitem(sys.modules, "own_trees", raising=False)
    with pytest.raises(
        RecipeError, match=r"student.estimator.sklearn: estimator is .* gives a int"
    ):
        distill(TEACHER, student, (x, y))


# What is read


def change(folder: Path, state: dict[str, Any], **spec: Any) -> None:
    """Change trees in a folder that nothing vouches for."""
    weights = load_weights(folder / "weights.safetensors")
    known = read_json(folder / "predictor.json")
    known.pop("checksum")
    for name, (place, value) in state.items():
        weights[name][place] = value
    known["trees"] |= spec
    known["sha256"] = save_weights(folder / "weights.safetensors", weights)
    (folder / "predictor.json").write_text(json.dumps(known))


@pytest.mark.parametrize(
    ("state", "spec", "says"),
    [
        ({"below": (0, torch.tensor([0, 0]))}, {}, "a split leads back"),
        ({"below": (0, torch.tensor([1, 1]))}, {}, "a split stands in two places"),
        ({"below": (0, torch.tensor([10**6, 1]))}, {}, "'below' leads nowhere"),
        ({"roots": (0, -(10**6))}, {}, "'roots' leads nowhere"),
        ({"feature": (0, 5)}, {}, "'feature' leads nowhere"),
        ({"feature": (0, -1)}, {}, "'feature' leads nowhere"),
        ({}, {"depth": 1}, "its depth is another"),
        ({}, {"blocks": []}, "its trees are others"),
        ({}, {"splits": 3}, "its sizes are others"),
        ({}, {"splits": "x"}, "its sizes are no numbers"),
    ],
)
def test_trees_that_lead_out_of_themselves_are_refused(
    tmp_path: Path, state: dict[str, Any], spec: dict[str, Any], says: str
) -> None:
    distill(TEACHER, BOOSTED, reals()).save(tmp_path / "s")
    change(tmp_path / "s", state, **spec)
    with pytest.raises(StorageError) as caught:
        xcl.load(tmp_path / "s")
    assert says in str(caught.value)
    assert "the weights are no trees" in str(caught.value)
    assert "\n" not in str(caught.value)


# Mistakes


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"steps": 3}, "steps: is for networks, but student is an estimator"),
        ({"minutes": 3}, "minutes: is for networks"),
        ({"training": {"lr": 1e-3}}, "training: is for networks"),
        ({"choose": ["kd", "all"]}, "choose: is for networks"),
        ({"matching": {"temperature": 2.0}}, "matching: is for networks"),
        ({"distribution": "student_t"}, "distribution: is for networks"),
        (
            {"sampler": [{"share": {"extended": ["empirical", "mixup"]}}]},
            "sampler: has a share of 'auto', which follows the student's mastery",
        ),
        (
            {"sampler": ["empirical", {"uncertain": {"score": "student_loss"}}]},
            "sampler",
        ),
        ({"sampler": ["empirical", "mixap"]}, "unknown sampler 'mixap'"),
        ({"student": {**BOOSTED, "draws": 1}}, "student.draws: is 1; it should be greater"),
        ({"student": {**BOOSTED, "drows": 9}}, "student.drows: unknown key 'drows'; did you mean"),
        ({"student": {**BOOSTED, "sampler": []}}, "student.sampler: is no key of a student here"),
        ({"student": {"estimator": "wood"}}, "student.estimator: unknown estimator 'wood'"),
        (
            {"student": {"estimator": {"extra_trees": {"tree": 9}}}},
            "student.estimator.extra_trees.tree: unknown key",
        ),
        (
            {"student": "gradient_boosting"},
            "student: is 'gradient_boosting', which is no network; trees are given as",
        ),
        ({"calibrate": "temperature"}, "calibrate: is temperature, which is for classes"),
    ],
)
def test_mistakes_are_one_sentence(changes: dict[str, Any], says: str) -> None:
    given: dict[str, Any] = {"student": FOREST, **changes}
    with pytest.raises(XclError) as caught:
        distill(TEACHER, given.pop("student"), reals(), **given)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
