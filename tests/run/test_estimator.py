"""Students that are no networks, in a run: fitted, kept as tensors, read, exported, and resumed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import extracurricular as xcl
from extracurricular.distributions import Categorical, Gaussian
from extracurricular.errors import RecipeError, StorageError
from extracurricular.evaluation.summary import sentences
from extracurricular.files import read_json
from extracurricular.models.estimators import BoostedStudent
from extracurricular.recipe.read import parse_recipe
from extracurricular.report.write import write_report
from extracurricular.run.estimator import EstimatorStage, gathered
from extracurricular.run.execute import execute
from extracurricular.run.finished import open_run
from extracurricular.run.plan import plan
from tests.conftest import checked
from tests.run.test_run import TINY, snapshot

NETWORK = {"steps": 60, "batch_size": 32, "lr": 0.05}
BOOSTED = {"estimator": {"gradient_boosting": {"rounds": 20}}, "draws": 400}


def recipe(folder: Path, **students: Any) -> dict[str, Any]:
    """A table of three columns, an ensemble of two networks, and some students."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (160, 3)).round(2)
    y = 100 + 30 * np.sin(x[:, 0]) + 10 * x[:, 1] + rng.normal(0, 1, 160)
    lines = [
        "a,b,c,price",
        *(",".join(f"{v:.3f}" for v in (*r, t)) for r, t in zip(x, y, strict=True)),
    ]
    (folder / "mine.csv").write_text("\n".join(lines) + "\n")
    return {
        "name": "trees",
        "data": {"table": {"path": str(folder / "mine.csv"), "target": "price"}},
        "teacher": {"model": {"mlp": {"hidden": [16]}}, "members": 2, "training": NETWORK},
        "defaults": {
            "model": {"mlp": {"hidden": [4]}},
            "training": NETWORK,
            "sampler": ["empirical", {"noise": {"std": 0.2}}],
        },
        "students": {"kd": {}, **students},
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trees")
    labels = {**BOOSTED, "learns_from": "labels", "sampler": ["empirical"]}
    forest = {"estimator": {"extra_trees": {"trees": 10}}, "draws": 400}
    made = recipe(folder, boosted=BOOSTED, forest=forest, erm=labels)
    execute(parse_recipe(made), folder / "out")
    return folder / "out"


def test_a_student_of_trees_has_the_figures_of_the_others(run: Path) -> None:
    summary = read_json(run / "summary.json")
    students = summary["students"]
    assert set(students["boosted"]["metrics"]) == set(students["kd"]["metrics"])
    constant = summary["students"]["boosted"]["metrics"]["rmse"]["mean"]
    assert constant < 12  # the deviation of the target is 24
    record = read_json(run / "students/boosted/seed-0/stage.json")
    assert record["draws"] == 400
    assert record["steps"] == 0
    assert record["parameters"] == students["boosted"]["parameters"]
    assert students["boosted"]["multiply_adds"] is None


def test_no_estimator_is_kept_but_tensors_and_numbers(run: Path) -> None:
    names = {file.name for file in (run / "students/boosted/seed-0").iterdir()}
    assert names == {"stage.json", "weights.safetensors", "metrics.json", "answers.safetensors"}


def test_the_draws_are_said_and_no_steps(run: Path) -> None:
    told = " ".join(str(one) for one in sentences(read_json(run / "summary.json")))
    assert "boosted is no network: gradient_boosting fitted to 400 draws." in told
    assert "unequal budgets" not in told


def test_the_page_has_it_and_no_curve_of_it(run: Path) -> None:
    write_report(open_run(run))
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "fitted to 400 draws" in page


def test_it_is_loaded_as_it_was_fitted_and_its_file_of_onnx_answers_alike(
    run: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    rows = np.random.default_rng(1).uniform(-2, 2, (40, 3)).astype(np.float32)
    for name in ("boosted", "forest"):
        known = xcl.load(run, student=name)(rows)
        assert known.std.min() > 0
        shipped = xcl.export_run(run, tmp_path / name / "trees.onnx", student=name)
        found = xcl.load(shipped.files[0])
        again = found(rows)
        np.testing.assert_allclose(again.mean, known.mean, rtol=1e-5)
        np.testing.assert_allclose(again.std, known.std, rtol=1e-4)
        # Rows of float64 are rounded to what the trees saw.
        wide = found(rows.astype(np.float64))
        assert np.array_equal(wide.mean, again.mean)
        operators = {node.op_type for node in _graph(shipped.files[0]).node}
        assert "TreeEnsembleRegressor" in operators
        assert "Gather" not in operators


def _graph(file: Path) -> Any:
    import onnx

    return onnx.load(str(file)).graph


def test_a_program_of_torch_export_has_them_too_and_8_bits_are_refused(
    run: Path, tmp_path: Path
) -> None:
    shipped = xcl.export_run(run, tmp_path / "a" / "t.pt2", student="boosted", format="pt2")
    assert shipped.metadata["files"]["t.pt2"]["verified"]
    with pytest.raises(RecipeError, match="--int8: is for networks, but boosted has trees"):
        xcl.export_run(run, tmp_path / "b" / "t.onnx", student="boosted", int8=True)


def test_a_fit_that_was_cut_off_ends_at_the_same_trees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = parse_recipe(recipe(tmp_path, boosted=BOOSTED))
    execute(made, tmp_path / "whole")

    def cut(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(BoostedStudent, "fit", cut)
        with pytest.raises(KeyboardInterrupt):
            execute(made, tmp_path / "cut")
    assert not read_json(tmp_path / "cut/students/boosted/seed-0/stage.json")["done"]
    execute(made, tmp_path / "cut")
    files = [
        tmp_path / name / "students/boosted/seed-0/weights.safetensors" for name in ("whole", "cut")
    ]
    assert files[0].read_bytes() == files[1].read_bytes()
    before = snapshot(tmp_path / "cut" / "students")
    execute(made, tmp_path / "cut")
    assert snapshot(tmp_path / "cut" / "students") == before


def test_more_draws_are_another_student(run: Path) -> None:
    made = recipe(run.parent, boosted={**BOOSTED, "draws": 500})
    with pytest.raises(StorageError, match="draws = 400, but the recipe says 500"):
        execute(parse_recipe(made), run)


def test_a_recorded_teacher_teaches_it(tmp_path: Path) -> None:
    made = recipe(tmp_path, boosted=BOOSTED)
    made["teacher"]["record"] = {"draws": 400}
    summary = execute(parse_recipe(made), tmp_path / "out")
    assert summary["students"]["boosted"]["metrics"]["rmse"]["mean"] < 15


def test_classes_are_learned_too(tmp_path: Path) -> None:
    made = copy.deepcopy(TINY)
    made |= {"seeds": [0], "data": {"digits": {"train": 60, "validation": 20}}}
    made["students"] = {
        "kd": {},
        "forest": {"estimator": {"random_forest": {"trees": 10, "columns": 0.2}}, "draws": 200},
    }
    summary = execute(parse_recipe(made), tmp_path / "out")
    assert summary["students"]["forest"]["metrics"]["accuracy"]["mean"] > 0.4


# Draws


def test_draws_that_are_alike_are_one_row_with_a_weight() -> None:
    x = np.array([[1, 2], [3, 4], [1, 2], [1, 2]], np.float32)
    said = Gaussian(torch.tensor([[0.0], [5], [3], [3]]), torch.zeros(4, 1))
    rows, target, weight = gathered(x, said)
    assert rows.tolist() == [[1, 2], [3, 4]]
    assert weight.tolist() == [3, 1]
    assert isinstance(target, Gaussian)
    # The mixture of 0, 3 and 3: mean 2, and the variance of the means is 2.
    torch.testing.assert_close(target.mean, torch.tensor([[2.0], [5]]))
    torch.testing.assert_close(target.var, torch.tensor([[3.0], [1]]))
    classes = Categorical.from_probs(torch.tensor([[1.0, 0], [0.5, 0.5], [0, 1.0], [1.0, 0]]))
    _, known, _ = gathered(x, classes)
    torch.testing.assert_close(known.mean, torch.tensor([[2 / 3, 1 / 3], [0.5, 0.5]]))


# Mistakes


@pytest.mark.parametrize(
    ("student", "problem"),
    [
        ({"estimator": "extra_trees", "model": "mlp"}, "model is for networks, but estimator"),
        ({"estimator": "extra_trees", "training": {"steps": 3}}, "training is for networks"),
        ({"estimator": "extra_trees", "matching": {"temperature": 2.0}}, "matching is for"),
        ({"model": "mlp", "draws": 100}, "draws is 100, but a network has training.steps"),
        ({"estimator": "extra_trees", "draws": 1}, "draws"),
        ({"cost": {"of": "boosted"}}, "'boosted', which is an estimator and has no steps"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    tmp_path: Path, student: dict[str, Any], problem: str
) -> None:
    with pytest.raises(RecipeError, match=problem):
        parse_recipe(recipe(tmp_path, boosted=BOOSTED, mine=student))


def test_a_student_needs_a_model_or_an_estimator(tmp_path: Path) -> None:
    made = recipe(tmp_path)
    del made["defaults"]["model"]
    with pytest.raises(RecipeError, match=r"students\.kd: has neither model nor estimator"):
        parse_recipe(made)


def ridge() -> Any:
    from sklearn.linear_model import Ridge

    return Ridge()


def broken() -> Any:
    raise RuntimeError("no such luck")


OWN = "tests.run.test_estimator"
MIXED = ["empirical", "mixup"]


@pytest.mark.parametrize(
    ("student", "problem"),
    [
        ({"estimator": "extra_tree"}, "did you mean 'extra_trees'"),
        ({"estimator": {"extra_trees": {"trees": 0}}}, "trees is 0"),
        ({"estimator": {"sklearn": {"estimator": f"{OWN}:ridge"}}}, "is a Ridge, whose trees"),
        ({"estimator": {"sklearn": {"estimator": f"{OWN}:broken"}}}, "no such luck"),
        (
            {"estimator": "extra_trees",
             "sampler": ["empirical", {"uncertain": {"score": "divergence"}}]},
            "draws that depend on the student",
        ),
        (
            {"estimator": "extra_trees", "sampler": [{"share": {"extended": MIXED}}]},
            "share",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_found_before_anything_is_written(
    tmp_path: Path, student: dict[str, Any], problem: str
) -> None:
    made = parse_recipe(recipe(tmp_path, mine=student))
    with pytest.raises(RecipeError, match=problem):
        checked(made, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_plan_has_a_stage_that_trains_nothing(tmp_path: Path) -> None:
    stage = plan(parse_recipe(recipe(tmp_path, boosted=BOOSTED))).students["boosted", 0]
    assert isinstance(stage, EstimatorStage)
    assert (stage.steps, stage.length, stage.leaves) == (1, 400, ())
    assert "training" not in stage.settings
