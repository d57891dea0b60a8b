"""The setting ``target_transform``: who has it, what it refuses, and what is learned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from extracurricular.data.base import Data
from extracurricular.data.formats.contents import changes, contents
from extracurricular.data.formats.description import describe_data, read_description
from extracurricular.data.sets import DATA
from extracurricular.data.sets.arrays import from_arrays
from extracurricular.data.sets.table import from_frame
from extracurricular.data.transform import Rule, Transform
from extracurricular.data.transformed import Transformed
from extracurricular.distributions import Gaussian, epistemic
from extracurricular.errors import DataError, RecipeError
from extracurricular.evaluation.predict import own_units, predict
from extracurricular.inputs import Batch, static_shapes
from extracurricular.knowledge.fingerprint import data_fingerprint
from extracurricular.predictors.units import module_teacher
from extracurricular.samplers import Empirical, Mixup
from extracurricular.teachers import HasMembers
from extracurricular.teachers.estimators import sklearn_teacher, training_table
from extracurricular.teachers.named import ENTRIES
from extracurricular.teachers.raw import FunctionTeacher, standardised
from tests.test_law_8 import Obey

COUNT = 200
NOISE = 0.3


def long_tail(count: int = COUNT, seed: int = 0) -> tuple[Any, Any]:
    """Inputs, and a log-normal target, in the thousands."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 2)).astype(np.float32)
    return x, np.exp(7 + x[:, 0] - 0.5 * x[:, 1] ** 2 + NOISE * rng.normal(size=count))


def long_data(transform: Any = "log", count: int = COUNT) -> Data:
    return from_arrays(*long_tail(count), target_transform=transform)


def of_table(folder: Path, setting: Any) -> Data:
    x, y = long_tail()
    frame = pl.DataFrame({"a": x[:, 0], "b": x[:, 1], "price": y})
    frame.write_csv(folder / "t.csv")
    return DATA.build(
        {"table": {"path": str(folder / "t.csv"), "target_transform": setting}}, key="d"
    )


def of_arrays(folder: Path, setting: Any) -> Data:
    x, y = long_tail()
    np.savez(folder / "a.npz", x=x, y=y)
    return DATA.build(
        {"arrays": {"path": str(folder / "a.npz"), "target_transform": setting}}, key="d"
    )


def of_uci(folder: Path, setting: Any) -> Data:
    x, y = long_tail(60)
    np.savetxt(folder / "data.txt", np.column_stack([x, y]))
    rows = {"features": [0, 1], "target": [2], "train_0": range(40), "test_0": range(40, 60)}
    for name, numbers in rows.items():
        np.savetxt(folder / f"index_{name}.txt", list(numbers))
    return DATA.build({"uci": {"path": str(folder), "target_transform": setting}}, key="d")


def of_images(folder: Path, setting: Any) -> Data:
    for name in ("1", "30", "900"):
        (folder / "img" / name).mkdir(parents=True)
        for k in range(12):
            shade = (10 * k, int(name) % 256, 7 * k)
            Image.new("RGB", (8, 8), shade).save(folder / "img" / name / f"{k}.png")
    given = {"path": str(folder / "img"), "size": 8, "task": "regression"}
    return DATA.build({"imagefolder": given | {"target_transform": setting}}, key="d")


def of_hub(folder: Path, setting: Any) -> Data:
    datasets = pytest.importorskip("datasets")
    images = [Image.new("RGB", (8, 8), (k, 2 * k, 3 * k)) for k in range(40)]
    ages = [float(np.exp(k / 9) + 0.5) for k in range(40)]
    made = datasets.Dataset.from_dict({"image": images, "age": ages})
    made = made.cast_column("image", datasets.Image())
    made.save_to_disk(str(folder / "hf"))
    given = {"path": str(folder / "hf"), "label": "age", "target_transform": setting}
    return DATA.build({"hf": given}, key="d")


def of_frame(folder: Path, setting: Any) -> Data:
    x, y = long_tail()
    frame = pl.DataFrame({"a": x[:, 0], "b": x[:, 1]})
    return from_arrays(frame, pl.Series("price", y), target_transform=setting)


SETS = [of_table, of_arrays, of_uci, of_images, of_hub, of_frame]


@pytest.mark.parametrize("made", SETS, ids=lambda made: made.__name__)
@pytest.mark.parametrize("setting", ["log", "asinh"])
def test_every_set_with_real_targets_has_it(made: Any, setting: str, tmp_path: Path) -> None:
    data = made(tmp_path, setting)
    assert data.y_transform is not None
    assert [rule.name for rule in data.y_transform.rules] == [setting]
    assert data.train.y is not None
    learned = data.targets(data.train.y)
    assert float(learned.mean()) == pytest.approx(0, abs=1e-4)
    assert float(learned.std(correction=0)) == pytest.approx(1, abs=1e-4)
    raw = data.train.y.double()
    unit = float(raw.abs().median()) if setting == "asinh" else 1.0
    wanted = raw.log() if setting == "log" else torch.asinh(raw / unit)
    wanted = (wanted - wanted.mean()) / wanted.std(correction=0)
    assert torch.allclose(learned.double(), wanted, atol=1e-4)
    assert any(note.startswith("Students learn ") for note in data.notes)


@pytest.mark.parametrize("made", SETS, ids=lambda made: made.__name__)
def test_without_the_setting_nothing_is_changed(made: Any, tmp_path: Path) -> None:
    data = made(tmp_path, None)
    assert data.y_transform is None
    assert data.train.y is not None
    assert set(describe_data(data)["target"]) == {"shift", "scale"}
    mean = data.train.y.double().mean(0).float()
    assert data.y_scale is not None
    assert torch.equal(data.y_scale.shift, mean)


def test_a_target_without_a_logarithm_is_refused_in_one_sentence() -> None:
    frame = {"a": list(range(60)), "price": [5.5, 0.0, -3.5] * 20}
    with pytest.raises(DataError) as error:
        from_frame(frame, "price", target_transform="log")
    said = str(error.value)
    assert "'price'" in said
    assert "40 rows" in said
    assert "-3.5" in said
    assert "`target_transform: asinh`" in said
    assert from_frame(frame, "price", target_transform="asinh").y_transform is not None


@pytest.mark.parametrize(
    ("frame", "setting", "says"),
    [
        ({"a": range(40), "kind": ["x", "y"] * 20}, "log", "classes"),
        ({"a": range(40), "price": np.arange(40) + 0.5}, {"prize": "log"}, "did you mean 'price'"),
        ({"a": range(40), "price": np.arange(40) + 0.5}, "sqrt", "'log' or 'asinh'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(frame: Any, setting: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        from_frame({k: list(v) for k, v in frame.items()}, target_transform=setting)


def test_a_recipe_with_an_unknown_transform_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="target_transform"):
        of_table(tmp_path, "sqrt")


def test_several_targets_have_their_own() -> None:
    x, y = long_tail()
    frame = {"a": x[:, 0], "price": y, "rooms": x[:, 1], "gain": y - 500}
    setting = {"price": "log", "gain": "asinh"}
    data = from_frame(frame, ["price", "rooms", "gain"], target_transform=setting)
    assert data.y_transform is not None
    assert [rule.name for rule in data.y_transform.rules] == ["log", "none", "asinh"]
    plain = from_frame(frame, ["price", "rooms", "gain"])
    assert plain.train.y is not None
    assert torch.equal(data.targets(plain.train.y)[:, 1], plain.targets(plain.train.y)[:, 1])


@pytest.mark.parametrize("setting", ["log", "asinh"])
def test_a_description_keeps_the_transform(setting: str) -> None:
    data = long_data(setting)
    written = json.loads(json.dumps(describe_data(data)))
    again = read_description(written)
    assert again.y_transform == data.y_transform
    assert describe_data(again) == written
    assert data_fingerprint(data) != data_fingerprint(replace(data, y_transform=None))
    written["target"]["transform"] = []
    with pytest.raises(ValueError, match="transform"):
        read_description(written)
    written["target"]["transform"] = [Rule("log").dump()] * 2
    with pytest.raises(ValueError, match="2 transforms"):
        read_description(written)


def test_another_transform_is_another_data_set() -> None:
    data, other = long_data("log"), long_data("asinh")
    found = changes(describe_data(data), contents(data), other)
    assert found == ["target_transform asinh where there was log"]


def test_law_8_a_draw_of_transformed_targets_never_asks_the_host() -> None:
    for setting in ("log", "asinh"):
        data = long_data(setting)
        sampler = Mixup(Empirical(data))
        ids = torch.arange(64)
        with static_shapes(), Obey():
            batch = sampler(ids)
        assert batch.y is not None
        assert bool(torch.isfinite(batch.y).all())


def test_a_standardised_answer_comes_back_in_units() -> None:
    data = long_data("log")
    assert data.y_transform is not None
    answer = Gaussian(torch.zeros(3, 1), torch.zeros(3, 1))
    found = own_units(answer, data)
    assert isinstance(found, Transformed)
    assert data.train.y is not None
    logs = data.train.y.double().log()
    wanted = torch.exp(logs.mean() + logs.var(correction=0) / 2)
    assert torch.allclose(found.mean.double(), wanted.expand(3, 1), rtol=1e-5)
    again = standardised(found, data)
    assert isinstance(again, Gaussian)
    assert torch.allclose(again.mean, answer.mean, atol=1e-5)
    assert torch.allclose(again.log_var, answer.log_var, atol=1e-5)


@pytest.mark.parametrize("setting", ["log", "asinh"])
def test_a_teacher_in_units_keeps_its_mean_and_deviation(setting: str) -> None:
    data = long_data(setting)

    def ask(x: Any) -> Any:
        mean = np.exp(7 + x[:, :1])
        return mean, 0.4 * mean + 3

    teacher = FunctionTeacher(ask, data)
    found = predict(teacher, data, data.test)
    assert isinstance(found, Transformed)
    mean, std = ask(np.asarray(data.test.x))
    assert np.allclose(found.mean.numpy(), mean, rtol=1e-4)
    assert np.allclose(found.std.numpy(), std, rtol=1e-3)


@pytest.mark.parametrize("setting", ["log", "asinh"])
def test_a_forest_keeps_the_mean_of_its_trees(setting: str) -> None:
    data, plain = long_data(setting), long_data(None)
    entry = ENTRIES.build({"random_forest": {"trees": 20}}, key="teacher")
    found = predict(entry.fit(data, 0), data, data.test)
    before = predict(entry.fit(plain, 0), plain, plain.test)
    assert isinstance(found, Transformed)
    assert torch.allclose(found.mean, before.mean, rtol=1e-4)
    assert data.test.y is not None
    assert float(found.nll(data.test.y).mean()) < float(before.nll(data.test.y).mean())


def test_the_deviation_of_means_alone_is_relative_under_log() -> None:
    data = long_data("log")

    class Means(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.exp(7 + x[:, :1] - 0.5 * x[:, 1:2].square())

    teacher = module_teacher(Means(), data, raw=True)
    found = predict(teacher, data, data.test)
    assert isinstance(found, Transformed)
    ratio = found.std / found.mean
    assert float(ratio.max() / ratio.min()) == pytest.approx(1, abs=1e-3)
    # The noise of the data is NOISE in logarithms.
    assert float(found.inner.std.mean()) == pytest.approx(NOISE, rel=0.25)


def test_the_std_of_an_estimator_of_means_alone_is_that_of_the_transform() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    data = long_data("log")
    x, y = training_table(data)
    teacher = sklearn_teacher(linear.LinearRegression().fit(x, y), data, std=0.2)
    found = predict(teacher, data, data.test)
    assert isinstance(found, Transformed)
    assert torch.allclose(found.inner.std, torch.tensor(0.2), rtol=1e-3)
    assert float(found.mean.min()) > 0  # though a line goes below
    entry = ENTRIES.build({"sklearn": {"estimator": "sklearn.svm:SVR"}}, key="teacher")
    fitted = predict(entry.fit(data, 0), data, data.test)
    assert isinstance(fitted, Transformed)
    assert float(fitted.inner.std.max() - fitted.inner.std.min()) < 1e-3


def test_members_disagree_in_units_of_the_target() -> None:
    data = long_data("asinh")
    entry = ENTRIES.build({"random_forest": {"trees": 5}}, key="teacher")
    teacher = entry.fit(data, 0)
    ids = torch.arange(len(data.test))
    assert isinstance(teacher, HasMembers)
    batch = Batch(ids, data.inputs(data.test.x))
    found = epistemic([own_units(one, data) for one in teacher.members(batch)])
    assert found.shape == (len(data.test), 1)
    assert float(found.sqrt().mean()) > 1  # of targets in the thousands


def test_a_transform_is_one_for_each_target() -> None:
    transform = Transform((Rule("log"), Rule("none")))
    assert transform.of_output(1) == Transform((Rule("none"),))
