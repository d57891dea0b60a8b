"""Columns and targets in any unit train alike, and answers are in that unit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import extracurricular as xcl
from extracurricular.data.base import Data, make_data
from extracurricular.data.formats.description import describe_data, read_description
from extracurricular.data.scales import wide
from extracurricular.data.target_transform import transform_targets
from extracurricular.distributions import Gaussian
from extracurricular.evaluation import metrics
from extracurricular.evaluation.predict import own_units
from extracurricular.export.graph import Exported
from extracurricular.generators.columns import training_rows
from extracurricular.models import build_model
from extracurricular.samplers import Context, build_sampler
from extracurricular.teachers.raw import FunctionTeacher

UNITS = [(1e-30, 0.0), (1e30, 0.0), (1.0, 1e9), (1e-3, 1.7e9), (1e-20, 0.0)]
_R = np.random.default_rng(0)
X = _R.normal(size=(60, 3))
Y = (X[:, 0] + X[:, 1] ** 2)[:, None]


def made(unit: float = 1.0, origin: float = 0.0) -> Data:
    x, y = X * unit + origin, Y * unit + origin
    return make_data("t", (x[:40], y[:40]), (x[40:], y[40:]))


@pytest.mark.parametrize(("unit", "origin"), UNITS)
def test_draws_are_standardised_alike_in_any_unit(unit: float, origin: float) -> None:
    ids = torch.arange(32)
    ours, theirs = (
        build_sampler(["empirical"], data, 0, "s", Context())(ids)
        for data in (made(unit, origin), made())
    )
    assert ours.y is not None
    assert theirs.y is not None
    assert (ours.x.dtype, ours.y.dtype) == (torch.float32, torch.float32)  # type: ignore[union-attr]
    # An offset of 1e9 leaves 1e-7 of a deviation in float64.
    torch.testing.assert_close(ours.x, theirs.x, rtol=1e-5, atol=2e-6 if unit == 1 else 1e-3)
    torch.testing.assert_close(ours.y, theirs.y, rtol=1e-5, atol=2e-6 if unit == 1 else 1e-3)


def test_ordinary_units_stay_in_float32() -> None:
    for unit, origin in ((1.0, 0.0), (1e-9, 0.0), (1e9, 0.0), (1.0, 1000.0)):
        data = made(unit, origin)
        assert data.y_scale is not None
        assert data.train.y is not None
        kinds = {data.train.y.dtype, data.y_scale.scale.dtype, data.x_scale[""].scale.dtype}
        assert kinds == {torch.float32}
    assert not wide(torch.zeros(4, 2, dtype=torch.float64))
    assert not wide(torch.full((4, 1), 5.0, dtype=torch.float64))


@pytest.mark.parametrize(("unit", "origin"), UNITS)
def test_figures_follow_the_unit(unit: float, origin: float) -> None:
    raw = torch.tensor(_R.normal(size=(20, 2)), dtype=torch.float32)
    ours, theirs = (
        metrics.figures(own_units(Gaussian.from_output(raw), data), data.test.y)  # type: ignore[arg-type]
        for data in (made(unit, origin), made())
    )
    rel = 1e-3 if unit == 1e-3 else 1e-5
    for name in ("rmse", "mae", "crps", "sharpness90"):
        assert ours[name] / unit == pytest.approx(theirs[name], rel=rel), name
    assert ours["nll"] - math.log(unit) == pytest.approx(theirs["nll"], rel=rel, abs=rel)
    assert ours["coverage90"] == theirs["coverage90"]


@pytest.mark.parametrize(("unit", "origin"), UNITS)
def test_a_description_gives_the_scales_back_to_the_last_bit(unit: float, origin: float) -> None:
    data = made(unit, origin)
    found = read_description(describe_data(data))
    for ours, theirs in ((found.x_scale[""], data.x_scale[""]), (found.y_scale, data.y_scale)):
        assert ours is not None
        assert theirs is not None
        assert torch.equal(ours.shift, theirs.shift)
        assert torch.equal(ours.scale, theirs.scale)


@pytest.mark.parametrize(("unit", "origin"), UNITS)
def test_an_exported_graph_takes_and_gives_float64(unit: float, origin: float) -> None:
    data = made(unit, origin)
    network = build_model({"mlp": {"hidden": [4]}}, inputs=data.shapes, outputs=2)
    graph = Exported(network, data)
    assert graph.example["x"].dtype == torch.float64
    said = graph({"x": data.test.x})  # type: ignore[dict-item]
    right = own_units(Gaussian.from_output(network(data.inputs(data.test.x)).detach()), data)
    assert isinstance(right, Gaussian)
    assert said["mean"].dtype == torch.float64
    torch.testing.assert_close(said["mean"], right.mean, rtol=1e-9, atol=0)
    torch.testing.assert_close(said["variance"].sqrt(), right.std, rtol=1e-5, atol=0)


def test_a_teacher_from_outside_gets_float64_and_is_standardised() -> None:
    data = made(1.0, 1e9)

    def exact(x: Any) -> Any:
        assert x.dtype == np.float64
        own = x - 1e9
        return own[:, 0] + own[:, 1] ** 2 + 1e9, np.full(len(x), 0.5)

    teacher = FunctionTeacher(exact, data)
    batch = build_sampler(["empirical"], data, 0, "s", Context())(torch.arange(16))
    said = teacher(batch)
    assert batch.y is not None
    torch.testing.assert_close(said.mean, batch.y, rtol=0, atol=1e-5)


@pytest.mark.parametrize("unit", [1e-30, 1e30])
@pytest.mark.parametrize("name", ["log", "asinh"])
def test_transformed_targets_in_any_unit(unit: float, name: Any) -> None:
    raw = torch.tensor(_R.normal(size=(20, 2)) * 0.3, dtype=torch.float32)
    found = []
    for size in (unit, 1.0):
        y = np.exp(Y) * size
        data = transform_targets(make_data("t", (X[:40], y[:40]), (X[40:], y[40:])), name)
        said = own_units(Gaussian.from_output(raw), data)
        found.append(metrics.figures(said, data.test.y))  # type: ignore[arg-type]
    ours, theirs = found
    assert ours["rmse"] / unit == pytest.approx(theirs["rmse"], rel=1e-4)
    assert ours["crps"] / unit == pytest.approx(theirs["crps"], rel=1e-4)
    assert ours["nll"] - math.log(unit) == pytest.approx(theirs["nll"], rel=1e-4, abs=1e-3)


def test_a_table_of_times_since_1970_runs_and_is_exported(tmp_path: Path) -> None:
    """Its target is what float32 could not tell apart."""
    rows = [f"{a:.6f},{b:.6f},{1.7e9 + 30 * a + 5 * b:.3f}" for a, b in X[:, :2].tolist() * 2]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,when", *rows]) + "\n")
    training = {"steps": 60}
    recipe = xcl.parse_recipe(
        {
            "name": "t",
            "data": {"table": {"path": str(tmp_path / "t.csv"), "target": "when"}},
            "device": {"accelerator": "cpu"},
            "teacher": {"model": {"mlp": {"hidden": [16]}}, "training": training},
            "students": {"kd": {"model": {"mlp": {"hidden": [16]}}, "training": training}},
        }
    )
    summary = xcl.execute(recipe, tmp_path / "out")
    assert summary["teacher"]["metrics"]["rmse"]["mean"] < 15
    rows_asked = [{"a": 0.5, "b": 0.0}, {"a": -0.5, "b": 1.0}]
    ours = xcl.load(tmp_path / "out")(rows_asked)
    shipped = xcl.export_run(tmp_path / "out")
    theirs = xcl.load(shipped.files[0])(rows_asked)
    np.testing.assert_allclose(ours.mean, theirs.mean, rtol=0, atol=1e-3)
    assert np.abs(ours.mean - 1.7e9).max() < 100


def test_a_generator_of_such_columns_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="gmm makes values in float32, which cannot hold x"):
        training_rows(made(1.0, 1e9), "gmm")
    assert training_rows(made(), "gmm").dtype == torch.float32
