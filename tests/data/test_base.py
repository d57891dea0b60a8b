"""Data: three splits, scales fitted on the training split alone, and refusals that help."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from extracurricular.data.base import Data, Split, make_data
from extracurricular.data.splits import split_indices
from extracurricular.distributions import Task
from extracurricular.errors import DataError
from extracurricular.inputs import leaves
from tests.conftest import eye_data, image_data, pair_data, table_data

PARTS = ("train", "validation", "test")


def numbers(count: int = 50, columns: int = 3, seed: int = 0) -> np.ndarray[Any, Any]:
    g = np.random.default_rng(seed)
    return g.normal(2, 3, (count, columns)).astype(np.float32)


def splits(data: Data) -> list[Split]:
    return [getattr(data, part) for part in PARTS]


# make_data


def test_shapes_and_types() -> None:
    x, y = numbers(), np.arange(50) % 4
    data = make_data("some", (x, y), (x[:9], y[:9]), (x[:7], y[:7]), classes=list("abcd"))
    assert data.name == "some"
    assert data.task == Task("classification", 4)
    assert data.classes == ("a", "b", "c", "d")
    assert data.y_scale is None
    assert [len(s) for s in splits(data)] == [50, 7, 9]
    assert data.shapes == (3,)
    for split in splits(data):
        assert isinstance(split.x, Tensor)
        assert split.y is not None
        assert (split.x.dtype, split.y.dtype) == (torch.float32, torch.int64)
    assert np.array_equal(data.train.x, x)  # type: ignore[arg-type]
    assert torch.equal(data.targets(data.train.y), data.train.y)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_real_labels_are_regression(dtype: type) -> None:
    x, y = numbers(), numbers(50, 2, 1).astype(dtype)
    data = make_data("some", (x, y), (x[:9], y[:9]))
    assert data.task == Task("regression", 2)
    assert data.train.y is not None
    assert data.train.y.dtype == torch.float32
    assert len(data.validation) == 0
    assert data.y_scale is not None
    single = make_data("some", (x, y[:, 0]), (x[:9], y[:9, 0]))
    assert single.task == Task("regression", 1)
    assert single.train.y is not None
    assert single.train.y.shape == (50, 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, bool])
def test_integer_labels_of_any_type_are_classes(dtype: type) -> None:
    x, y = numbers(), (np.arange(50) % 2).astype(dtype)
    data = make_data("some", (x, y), (x[:9], y[:9]))
    assert data.task == Task("classification", 2)
    assert data.train.y is not None
    assert data.train.y.dtype == torch.int64


def test_images_stay_bytes_and_get_a_channel() -> None:
    x = np.random.default_rng(0).integers(0, 256, (20, 6, 7)).astype(np.uint8)
    y = np.arange(20) % 2
    data = make_data("images", (x, y), (x, y))
    assert isinstance(data.train.x, Tensor)
    assert data.train.x.dtype == torch.uint8
    assert data.shapes == (1, 6, 7)
    got = data.inputs(data.train.x)
    assert isinstance(got, Tensor)
    assert got.dtype == torch.float32
    ints = make_data("ints", (x.astype(np.int64), y), (x, y))
    assert leaves(ints.train.x)[""].dtype == torch.float32


def test_numpy_and_torch_give_the_same() -> None:
    x, y = numbers(), numbers(50, 2, 1)
    a = make_data("a", (x, y), (x, y))
    b = make_data("a", (torch.from_numpy(x), torch.from_numpy(y)), (x, y))
    fortran = make_data("a", (np.asfortranarray(x), y), (x, y))
    for other in (b, fortran):
        assert torch.equal(leaves(other.train.x)[""], leaves(a.train.x)[""])
        assert torch.equal(other.x_scale[""].shift, a.x_scale[""].shift)
        assert other.task == a.task


# Scales


@pytest.mark.parametrize("data", [image_data(channels=3), table_data(), eye_data(), pair_data()])
def test_inputs_have_mean_0_and_deviation_1_in_every_channel(data: Data) -> None:
    got = data.inputs(data.train.x)
    assert type(got) is type(data.train.x)
    assert leaves(got).keys() == leaves(data.train.x).keys()
    for name, values in leaves(got).items():
        assert values.dtype == torch.float32
        assert values.shape == leaves(data.train.x)[name].shape
        dims = (0, 2, 3) if values.ndim == 4 else (0,)
        assert data.x_scale[name].shift.numel() == values.shape[1]
        mean, std = values.double().mean(dims), values.double().std(dims, correction=0)
        torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-5, rtol=0)
        torch.testing.assert_close(std, torch.ones_like(std), atol=1e-5, rtol=0)
    if data.y_scale is not None:
        assert data.train.y is not None
        y = data.targets(data.train.y).double()
        assert float(y.mean(0).abs().max()) < 1e-5
        assert float((y.std(0, correction=0) - 1).abs().max()) < 1e-5
        back = data.targets(data.train.y) * data.y_scale.scale + data.y_scale.shift
        torch.testing.assert_close(back, data.train.y)


def test_structures_of_inputs_are_kept() -> None:
    assert eye_data().shapes == {"eye": (1, 12, 20), "pose": (2,)}
    assert pair_data().shapes == ((1, 12, 20), (2,))
    assert set(eye_data().x_scale) == {"eye", "pose"}
    assert set(pair_data().x_scale) == {"0", "1"}
    assert eye_data().angular
    part = eye_data().train[torch.tensor([3, 1])]
    assert isinstance(part.x, dict)
    assert torch.equal(part.x["pose"], eye_data().train.x["pose"][[3, 1]])  # type: ignore[index]
    assert len(part) == 2


def test_scales_know_the_training_split_alone() -> None:
    x, y = numbers(), numbers(50, 2, 1)
    a = make_data("a", (x, y), (x[:9], y[:9]), (x[:5], y[:5]))
    b = make_data("a", (x, y), (x[:9] * 1000, y[:9] - 77), (x[:5] + 1e6, y[:5] * 1e4))
    for first, second in ((a.x_scale[""], b.x_scale[""]), (a.y_scale, b.y_scale)):
        assert first is not None
        assert second is not None
        assert torch.equal(first.shift, second.shift)
        assert torch.equal(first.scale, second.scale)
    np.testing.assert_allclose(a.x_scale[""].shift, x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(a.x_scale[""].scale, x.std(0), rtol=1e-5)


@pytest.mark.parametrize("constant", [0.0, 1.0, 0.1, -1e-6, 12345.678, 1e20])
def test_a_constant_column_is_harmless(constant: float) -> None:
    x, y = numbers(), numbers(50, 2, 1)
    x[:, 1] = constant
    y[:, 0] = constant
    data = make_data("a", (x, y), (x, y))
    got = leaves(data.inputs(data.train.x))[""]
    assert bool(torch.isfinite(got).all())
    assert float(got[:, 1].abs().max()) < 1e-5
    assert float(got[:, 0].std()) == pytest.approx(1, rel=0.05)
    targets = data.targets(data.train.y)  # type: ignore[arg-type]
    assert float(targets[:, 0].abs().max()) < 1e-5


def test_a_single_training_example_is_harmless() -> None:
    x, y = numbers(), numbers(50, 2, 1)
    data = make_data("a", (x[:1], y[:1]), (x, y))
    assert bool(torch.isfinite(leaves(data.inputs(data.test.x))[""]).all())


@pytest.mark.parametrize(("offset", "spread"), [(2000.0, 5.0), (16_000_000.0, 60.0)])
def test_columns_far_from_0_are_standardised(offset: float, spread: float) -> None:
    """Years, or times in seconds."""
    g = np.random.default_rng(0)
    x = (offset + np.round(g.normal(0, spread, (300, 1)))).astype(np.float32)
    data = make_data("a", (x, x), (x, x))
    exact = (x.astype(np.float64) - x.astype(np.float64).mean()) / x.astype(np.float64).std()
    got = leaves(data.inputs(data.train.x))[""].double().numpy()
    assert float(np.abs(got - exact).max()) < 0.01


# Refusals


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused_by_index(bad: float) -> None:
    x, y = numbers(), numbers(50, 2, 1)
    broken = x.copy()
    broken[17, 2] = bad
    with pytest.raises(DataError, match=rf"train split: x\[17, 2\] is {bad}; .* must be finite"):
        make_data("a", (broken, y), (x, y))
    with pytest.raises(DataError, match=rf"test split: x\[17, 2\] is {bad}"):
        make_data("a", (x, y), (torch.from_numpy(broken), y))
    wrong = y.copy()
    wrong[3, 1] = bad
    with pytest.raises(DataError, match=rf"validation split: y\[3, 1\] is {bad}"):
        make_data("a", (x, y), (x, y), (x, wrong))
    with pytest.raises(DataError, match=rf"x\[17, 2\] is {bad}"):
        make_data("a", ({"first": x, "second": broken}, y), ({"first": x, "second": x}, y))


def test_lengths_must_be_equal() -> None:
    x, y = numbers(), np.arange(50) % 3
    with pytest.raises(DataError, match="train split: x has 49 examples but y has 50 labels"):
        make_data("a", (x[:49], y), (x, y))
    with pytest.raises(DataError, match=r"test split: x\['b'\] has 49 examples but y has 50"):
        make_data("a", ({"a": x, "b": x}, y), ({"a": x, "b": x[:49]}, y))


def test_labels_must_be_in_range() -> None:
    x, y = numbers(), np.arange(50) % 3
    with pytest.raises(DataError, match=r"'a', test split: label 3 is outside of 0\.\.2"):
        make_data("a", (x, y), (x, y + 1))
    with pytest.raises(DataError, match=r"train split: label -1 is outside of 0\.\."):
        make_data("a", (x, y - 1), (x, y))
    with pytest.raises(DataError, match=r"train split: label 2 is outside of 0\.\.1"):
        make_data("a", (x, y), (x, y), task=Task("classification", 2))
    with pytest.raises(DataError, match="2 class names for 3 classes"):
        make_data("a", (x, y), (x, y), classes=["no", "yes"])
    assert make_data("a", (x, y), (x, y), task=Task("classification", 9)).task.size == 9


def test_labels_must_fit_the_task() -> None:
    x, y, reals = numbers(), np.arange(50) % 3, numbers(50, 2, 1)
    with pytest.raises(DataError, match=r"must be \[N, 2\] reals"):
        make_data("a", (x, reals), (x, reals[:, :1]))
    with pytest.raises(DataError, match=r"must be \[N, 1\] reals"):
        make_data("a", (x, y), (x, y), task=Task("regression", 1))
    with pytest.raises(DataError, match="y must be integer class indices"):
        make_data("a", (x, reals), (x, reals), task=Task("classification", 3))
    with pytest.raises(DataError, match="y must be integer class indices"):
        make_data("a", (x, y[:, None]), (x, y[:, None]))


def test_splits_must_not_be_empty_or_differ_in_shape() -> None:
    x, y = numbers(), np.arange(50) % 3
    for part, given in (("train", ((x[:0], y[:0]), (x, y))), ("test", ((x, y), (x[:0], y[:0])))):
        with pytest.raises(DataError, match=f"the {part} split has no examples"):
            make_data("a", *given)
    with pytest.raises(DataError, match=r"test split: examples have shape .*2.* train split .*3"):
        make_data("a", (x, y), (x[:, :2], y))
    with pytest.raises(DataError, match="examples have shape"):
        make_data("a", ({"p": x}, y), ({"q": x}, y))


def test_what_is_not_numbers_is_refused() -> None:
    x, y = numbers(), np.arange(50) % 3
    with pytest.raises(DataError, match=r"y has values of type <U\d+; they must be numbers"):
        make_data("a", (x, y.astype(str)), (x, y))
    with pytest.raises(DataError, match="x has values of type object"):
        make_data("a", (x.astype(object), y), (x, y))
    with pytest.raises(DataError, match="x has values of type complex64"):
        make_data("a", (x.astype(np.complex64), y), (x, y))


# Splits


def test_split_indices() -> None:
    parts = split_indices(20, [5, 3, 12], 0)
    assert [len(p) for p in parts] == [5, 3, 12]
    assert sorted(np.concatenate(parts)) == list(range(20))
    assert [len(p) for p in split_indices(20, [5, 3], 0)] == [5, 3]
    with pytest.raises(ValueError, match="need 21 examples, but there are 20"):
        split_indices(20, [10, 11], 0)


def test_moving_to_a_device_keeps_everything() -> None:
    data = eye_data()
    moved = data.to(torch.device("cpu"))
    assert moved.task == data.task
    assert moved.angular
    for a, b in zip(splits(data), splits(moved), strict=True):
        assert all(torch.equal(leaves(a.x)[k], leaves(b.x)[k]) for k in leaves(a.x))
    unlabelled = Split(torch.zeros(3, 2)).to(torch.device("cpu"))
    assert unlabelled.y is None
    assert unlabelled[:2].y is None
