"""Data and teachers as people give them, and the sentences that refuse the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import extracurricular as xcl
from extracurricular.data.base import make_data
from extracurricular.errors import DataError, RecipeError, XclError
from extracurricular.predictors.given import PredictorTeacher, read_data, read_teacher
from extracurricular.teachers import NetworkTeacher
from tests.teachers.test_onnx import linear

STUDENT = {"mlp": {"hidden": [4]}}


def classes(count: int = 120) -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, count)
    return (rng.normal(0, 0.5, (count, 4)) + y[:, None]).astype(np.float32), y


def reals(count: int = 120) -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    x = rng.normal(5, 2, (count, 5)).astype(np.float32)
    return x, (3 * x[:, :1] + rng.normal(0, 0.5, (count, 1))).astype(np.float32)


# Data


def test_lists_are_arrays() -> None:
    x, y = classes()
    wanted, _ = read_data((x, y))
    tensors = [torch.from_numpy(row) for row in x]
    for given in ((x.tolist(), y.tolist()), (tensors, list(y)), [x, y], (x, tuple(y.tolist()))):
        found, _ = read_data(given)
        assert found.task == wanted.task
        assert torch.equal(found.train.x, wanted.train.x)  # type: ignore[arg-type]
        assert torch.equal(found.train.y, wanted.train.y)  # type: ignore[arg-type]
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(x), pandas.Series(y, index=range(5, 125))
    found, _ = read_data(table)
    assert torch.equal(found.train.x, wanted.train.x)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"x of item 1 is .* of shape"):
        read_data(([[1.0], [1.0, 2.0]], [0, 1]))
    with pytest.raises(DataError, match="y of item 0 is <U3"):
        read_data(([[1.0], [2.0]], ["cat", 1]))
    named, _ = read_data((x.tolist(), [f"kind {k}" for k in y]))
    assert named.classes == ("kind 0", "kind 1", "kind 2")
    assert torch.equal(named.train.y, wanted.train.y)  # type: ignore[arg-type]
    with pytest.raises(DataError):
        read_data(([], []))


@pytest.mark.parametrize("kind", [np.float32, np.int64, torch.float32])
def test_one_hot_labels_are_read_as_classes(kind: Any) -> None:
    x, y = classes()
    hot: Any = np.eye(3)[y]
    hot = torch.from_numpy(hot).to(kind) if isinstance(kind, torch.dtype) else hot.astype(kind)
    data, _ = read_data((x, hot))
    plain, _ = read_data((x, y))
    assert data.task == plain.task
    assert data.train.y is not None
    assert plain.train.y is not None
    assert torch.equal(data.train.y, plain.train.y)
    assert any("a single 1 in each row" in note for note in data.notes)


def test_labels_from_1_are_named_where_they_do_not_fit() -> None:
    from sklearn.linear_model import LogisticRegression

    x, y = classes()
    data, _ = read_data((x, y + 1))
    fitted = LogisticRegression().fit(x, y)
    proba = lambda v: fitted.predict_proba(v)  # noqa: E731
    for teacher in (nn.Linear(4, 3), proba, xcl.distill(proba, STUDENT, (x, y), steps=1)):
        with pytest.raises(RecipeError, match=r"labels are 1 to 3, but .* so give y - 1"):
            read_teacher(teacher, data)


# Predictors and saved students as teachers


def test_a_student_is_a_teacher(tmp_path: Path) -> None:
    x, y = classes()
    found = xcl.distill({"random_forest": {"trees": 5}}, STUDENT, (x, y), steps=50)
    found.save(tmp_path / "kept")
    found.export(tmp_path / "out" / "student.onnx")
    data = xcl.from_arrays(x, y)
    other = xcl.from_arrays(x + 0, y, seed=3)  # other scales
    wanted = found(data.test.x).probs
    for teacher in (found, xcl.load(tmp_path / "kept"), tmp_path / "kept", str(tmp_path / "out")):
        for given in (data, other):
            asked = read_teacher(teacher, given)
            own = given is data and teacher != str(tmp_path / "out")
            assert isinstance(asked, NetworkTeacher if own else PredictorTeacher)
            said = xcl.predict(asked, given, data.test)
            np.testing.assert_allclose(said.mean, wanted, rtol=1e-3, atol=1e-5)
    again = xcl.distill(found, STUDENT, data, steps=3)
    assert again.task == found.task
    with pytest.raises(RecipeError, match="predicts 3 classes, but the data have 1 real targets"):
        read_teacher(found, xcl.from_arrays(*reals()))
    wide = xcl.from_arrays(np.repeat(x, 2, axis=1), y)
    with pytest.raises(RecipeError, match=r"takes x \(4,\) float32, but the data have x \(8,\)"):
        read_teacher(found, wide)


def test_a_student_of_images_is_a_teacher_of_mixed_ones(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (60, 1, 4, 4)).astype(np.uint8), rng.integers(0, 3, 60)
    found = xcl.distill({"random_forest": {"trees": 5}}, STUDENT, (x, y), steps=5)
    found.export(tmp_path / "student.onnx")
    data = xcl.from_arrays(x, y)
    mixed = xcl.Batch(
        torch.arange(9), data.inputs(0.3 * data.train.x[:9] + 0.7 * data.train.x[9:18])
    )  # type: ignore[index]
    exact = read_teacher(found, data)(mixed)
    rounded = read_teacher(xcl.load(tmp_path / "student.onnx"), data)(mixed)
    np.testing.assert_allclose(rounded.mean, exact.mean, atol=1e-2)


def test_the_units_of_a_students_own_targets_survive() -> None:
    x, y = reals()
    found = xcl.distill({"random_forest": {"trees": 5}}, STUDENT, (x, y), steps=30)
    other = xcl.from_arrays(x, y, seed=9)
    said = xcl.predict(read_teacher(found, other), other, other.test)
    assert isinstance(said, xcl.Gaussian)
    np.testing.assert_allclose(said.mean, found(other.test.x).mean, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(said.std, found(other.test.x).std, rtol=1e-3)


def test_a_run_is_asked_in_its_own_units(digits_run: Path) -> None:
    from extracurricular.data.sets.digits import digits

    data = digits(train=60)
    wanted = xcl.load(digits_run, teacher=True)(data.test.x).probs
    said = xcl.predict(read_teacher(digits_run, data), data, data.test)
    np.testing.assert_allclose(said.mean, wanted, rtol=1e-3, atol=1e-5)


# Remedies


def test_a_remedy_is_named(tmp_path: Path) -> None:
    from sklearn.linear_model import LinearRegression

    x, y = reals()
    data = xcl.from_arrays(x, y)
    a, b = classes()
    sorts = xcl.from_arrays(a, b)
    fitted = LinearRegression().fit(x, y)
    logits = linear(tmp_path / "t.onnx", weight=np.ones((4, 3), np.float32))
    means = linear(tmp_path / "m.onnx", weight=np.ones((5, 1), np.float32))
    cases: list[tuple[Any, Any, str]] = [
        (lambda v: 3 * v[:, :1], data, "xcl.FunctionTeacher(f, data, output='mean', std=…)"),
        (lambda v: 3 * v[:, 0], data, "xcl.FunctionTeacher(f, data, output='mean', std=…)"),
        (lambda v: v[:, :3], sorts, "xcl.FunctionTeacher(f, data, output='logits')"),
        (fitted, data, "xcl.EstimatorTeacher(estimator, data, std=…)"),
        (logits, sorts, "xcl.OnnxTeacher(path, data, output='logits')"),
        (str(means), data, "xcl.OnnxTeacher(path, data, output='mean', std=…)"),
        (
            lambda v: 1 / 0,
            data,
            "about these data: ZeroDivisionError: division by zero (",
        ),
        (lambda v: v.absent, data, "cannot be asked about these data: "),
        (type("Own", (), {"__call__": lambda self, batch: 5})(), data, "gives a int; an object of"),
    ]
    for teacher, given, says in cases:
        with pytest.raises(RecipeError) as caught:
            xcl.distill(teacher, STUDENT, given, steps=1)
        assert str(caught.value).startswith("teacher: ")
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)
    xcl.distill(xcl.EstimatorTeacher(fitted, data, std=0.5), STUDENT, data, steps=1)
    xcl.distill(xcl.OnnxTeacher(logits, sorts, output="logits"), STUDENT, sorts, steps=1)


# Raw exceptions


class Items(Dataset[Any]):
    """Items with two inputs, or with a dict of them."""

    def __init__(self, several: str) -> None:
        self.several = several

    def __len__(self) -> int:
        return 60

    def __getitem__(self, k: int) -> Any:
        a, b = torch.full((4,), float(k)), torch.full((2,), float(-k))
        return ({"a": a, "b": b}, k % 2) if self.several == "dict" else (a, b, k % 2)


class TakesOne(nn.Module):
    def __init__(self, outputs: int = 2) -> None:
        super().__init__()
        self.layer = nn.Linear(4, outputs)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x)
        return found


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"steps": 0}, "steps: is 0; it must be a whole number of at least 1"),
        ({"steps": -3}, "steps: is -3"),
        ({"steps": 2.5}, "steps: is 2.5"),
        ({"steps": "x"}, "steps: is 'x'"),
        ({"steps": True}, "steps: is True"),
        ({"seed": -1}, "seed: is -1; it must be a whole number of at least 0"),
        ({"seed": 1.5}, "seed: is 1.5"),
        ({"seed": None}, "seed: is None"),
        ({"student": nn.Linear(9, 3)}, "(2, 4) in evaluation mode: RuntimeError: mat1"),
        ({"student": nn.Linear(4, 2)}, "student: gives (2, 2), and 3 classes need"),
        ({"student": nn.LSTM(4, 3)}, "student: gives an example another answer if the others"),
        ({"data": Items("dict"), "student": TakesOne()}, "student: the network cannot be called"),
        ({"data": Items("two"), "student": TakesOne()}, "student: the network cannot be called"),
        ({"data": Items("two"), "student": "resnet20"}, "student.resnet20: takes one image"),
        ({"data": Items("dict"), "student": "resnet20"}, "student.resnet20: takes one image"),
        ({"data": None}, "data is None; it must be a Data"),
        ({"student": None}, "student: is None"),
        ({"teacher": None}, "teacher: is None"),
        ({"teacher": []}, "teacher: an ensemble needs at least one member"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(changes: dict[str, Any], says: str) -> None:
    usual = {"teacher": {"random_forest": {"trees": 2}}, "student": STUDENT, "data": classes()}
    given: dict[str, Any] = usual | {"steps": 2} | changes
    with pytest.raises(XclError) as caught:
        xcl.distill(given.pop("teacher"), given.pop("student"), given.pop("data"), **given)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_whole_numbers_of_numpy_are_taken() -> None:
    found = xcl.distill(
        {"random_forest": {"trees": 2}}, STUDENT, classes(), steps=np.int64(2), seed=np.int32(0)
    )  # type: ignore[arg-type]
    assert found.parameters


def test_a_students_own_module_is_left_in_its_mode() -> None:
    data = make_data("same", classes(), classes(20))
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    state = {k: v.clone() for k, v in module.state_dict().items()}
    xcl.distill({"random_forest": {"trees": 2}}, module, data, steps=2)
    assert module.training
    assert all(torch.equal(state[k], v) for k, v in module.state_dict().items())
