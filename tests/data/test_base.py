"""Data: three splits, scales fitted on the training split alone, and refusals that help."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import TensorDataset

from extracurricular.data.base import Data, Split, make_data, split_indices
from extracurricular.data.sets import DATA
from extracurricular.data.sets.arrays import arrays, from_arrays, from_dataset
from extracurricular.data.sets.digits import digits
from extracurricular.distributions import Task
from extracurricular.errors import DataError, XclError
from extracurricular.inputs import leaves
from tests.conftest import eye_data, image_data, pair_data, table_data

PARTS = ("train", "validation", "test")


def numbers(count: int = 50, columns: int = 3, seed: int = 0) -> np.ndarray[Any, Any]:
    g = np.random.default_rng(seed)
    return g.normal(2, 3, (count, columns)).astype(np.float32)


def numbered(count: int = 100) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Examples that carry their own number, and a label that follows from it."""
    x = np.arange(count, dtype=np.float32)[:, None]
    return x, x[:, 0] * 2 + 1


def splits(data: Data) -> list[Split]:
    return [getattr(data, part) for part in PARTS]


def saved(path: Path, **given: Any) -> str:
    np.savez(path / "some data.npz", **given)
    return str(path / "some data.npz")


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


def test_a_value_that_is_not_finite_is_named_by_its_row_in_what_was_given() -> None:
    x, y = numbers(), numbers(50, 2, 1)
    x[41, 2] = math.nan
    with pytest.raises(DataError, match=r"data 'arrays': x\[41, 2\] is nan; .* must be finite"):
        from_arrays(x, y)
    with pytest.raises(DataError, match=r"x\['b'\]\[41, 2\] is nan"):
        from_arrays({"a": numbers(), "b": torch.from_numpy(x)}, y)
    y[7] = math.inf
    with pytest.raises(DataError, match=r"y\[7, 0\] is inf"):
        from_arrays(numbers(), y)


def test_lengths_must_be_equal() -> None:
    x, y = numbers(), np.arange(50) % 3
    with pytest.raises(DataError, match="train split: x has 49 examples but y has 50 labels"):
        make_data("a", (x[:49], y), (x, y))
    with pytest.raises(DataError, match=r"test split: x\['b'\] has 49 examples but y has 50"):
        make_data("a", ({"a": x, "b": x}, y), ({"a": x, "b": x[:49]}, y))


@pytest.mark.parametrize("other", [40, 60])
def test_lengths_must_be_equal_before_splitting_too(other: int) -> None:
    x, y = numbers(other), np.arange(50) % 3
    with pytest.raises(DataError, match=f"{other} examples but y has 50 labels"):
        from_arrays(x, y)
    with pytest.raises(DataError, match=f"{other} examples but y has 50 labels"):
        from_arrays({"good": numbers(50), "bad": x}, y)


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


# from_arrays and from_dataset


def test_splits_are_disjoint_complete_and_belong_to_their_labels() -> None:
    x, y = numbered()
    data = from_arrays(x, y, test=0.3, validation=0.2)
    assert [len(s) for s in splits(data)] == [50, 20, 30]
    seen = torch.cat([leaves(s.x)[""][:, 0] for s in splits(data)])
    assert seen.sort().values.tolist() == list(range(100))
    for split in splits(data):
        assert split.y is not None
        torch.testing.assert_close(split.y, leaves(split.x)[""] * 2 + 1)
    assert seen[:50].tolist() != list(range(50))


def test_splits_repeat_by_seed() -> None:
    def order(seed: int) -> list[float]:
        return leaves(from_arrays(*numbered(), seed=seed).train.x)[""][:, 0].tolist()

    assert order(0) == order(0)
    assert order(0) != order(1)
    # The seed means the same for every kind of input.
    x, y = numbered()
    as_dict = from_arrays({"a": x}, torch.from_numpy(y))
    assert leaves(as_dict.train.x)["a"][:, 0].tolist() == order(0)


def test_default_parts_and_given_parts() -> None:
    x, y = numbered()
    assert [len(s) for s in splits(from_arrays(x, y))] == [70, 10, 20]
    data = from_arrays(x, y, test=(x[:5] + 1000, y[:5]), validation=0)
    assert [len(s) for s in splits(data)] == [100, 0, 5]
    assert float(leaves(data.test.x)[""].min()) == 1000
    data = from_arrays(x, y, test=0.5, validation=(x[:3], y[:3]))
    assert [len(s) for s in splits(data)] == [50, 3, 50]
    small = from_arrays(x, y, task=Task("regression", 1), name="mine")
    assert small.name == "mine"


@pytest.mark.parametrize("part", ["test", "validation"])
@pytest.mark.parametrize("value", [-0.1, 1.0, 2, math.nan])
def test_parts_must_be_parts(part: str, value: float) -> None:
    with pytest.raises(DataError, match=f"{part} is {value}; it must be a part in"):
        from_arrays(*numbered(), **{part: value})


def test_something_must_be_left_to_train_and_test_on() -> None:
    with pytest.raises(DataError, match=r"no examples are left to train on \(100 in all\)"):
        from_arrays(*numbered(), test=0.6, validation=0.4)
    with pytest.raises(DataError, match="test split has no examples"):
        from_arrays(*numbered(), test=0)
    with pytest.raises(DataError, match="no examples"):
        from_arrays(numbers(0), np.zeros(0, np.int64))


def test_a_tensor_dataset() -> None:
    x, y = (torch.from_numpy(v) for v in numbered())
    data = from_dataset(TensorDataset(x, y), seed=3, name="mine")
    assert data.name == "mine"
    assert torch.equal(leaves(data.train.x)[""], leaves(from_arrays(x, y, seed=3).train.x)[""])
    image = torch.arange(100 * 4, dtype=torch.uint8).view(100, 1, 2, 2)
    several = from_dataset(TensorDataset(image, x, y))
    assert several.shapes == ((1, 2, 2), (1,))
    assert several.train.y is not None
    torch.testing.assert_close(several.train.y, leaves(several.train.x)["1"] * 2 + 1)
    with pytest.raises(DataError, match=r"has 1 tensor\(s\); it needs inputs and labels"):
        from_dataset(TensorDataset(x))


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


# .npz files


def test_an_npz_file(tmp_path: Path) -> None:
    x, y = numbered()
    data = arrays(saved(tmp_path, x=x, y=y))
    assert data.name == "some data"
    assert [len(s) for s in splits(data)] == [70, 10, 20]
    assert torch.equal(leaves(data.train.x)[""], leaves(from_arrays(x, y).train.x)[""])
    by_name = DATA.build({"arrays": {"path": str(tmp_path / "some data.npz"), "seed": 1}})
    assert not torch.equal(leaves(by_name.train.x)[""], leaves(data.train.x)[""])


def test_an_npz_file_with_splits_of_its_own(tmp_path: Path) -> None:
    x, y = numbered()
    both = arrays(
        saved(
            tmp_path, x=x, y=y, x_test=x[:5] + 500, y_test=y[:5],
            x_validation=x[:3] + 900, y_validation=y[:3],
        )
    )  # fmt: skip
    assert [len(s) for s in splits(both)] == [100, 3, 5]
    assert float(leaves(both.test.x)[""].min()) == 500
    assert float(leaves(both.validation.x)[""].min()) == 900
    one = arrays(saved(tmp_path, x=x, y=y, x_test=x[:5] + 500, y_test=y[:5]))
    assert [len(s) for s in splits(one)] == [90, 10, 5]


def test_an_npz_file_with_several_inputs(tmp_path: Path) -> None:
    x, y = numbered()
    eye = np.zeros((100, 4, 4), np.uint8)
    data = arrays(
        saved(
            tmp_path, x_eye=eye, x_head_pose=x, y=y,
            x_eye_test=eye[:6], x_head_pose_test=x[:6], y_test=y[:6],
        )
    )  # fmt: skip
    assert data.shapes == {"eye": (1, 4, 4), "head_pose": (1,)}
    assert [len(s) for s in splits(data)] == [90, 10, 6]
    torch.testing.assert_close(data.test.y, leaves(data.test.x)["head_pose"] * 2 + 1)


def test_half_a_split_in_a_file_is_not_passed_over(tmp_path: Path) -> None:
    """A file with x_test but no y_test must not be tested on training examples instead."""
    x, y = numbered()
    for half in ({"x_test": x[:5]}, {"y_test": y[:5]}, {"x_validation": x[:5]}):
        (name,) = half
        with pytest.raises(DataError, match=name):
            arrays(saved(tmp_path, x=x, y=y, **half))


def test_files_without_x_or_y_are_refused(tmp_path: Path) -> None:
    x, y = numbered()
    with pytest.raises(DataError, match=r"holds \['x'\]; it needs the arrays x and y"):
        arrays(saved(tmp_path, x=x))
    with pytest.raises(DataError, match=r"holds \['data', 'y'\]; it needs the arrays x and y"):
        arrays(saved(tmp_path, data=x, y=y))
    with pytest.raises(DataError):
        arrays(saved(tmp_path, x=x, y=np.float32(3)))


def test_files_that_are_no_npz_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the file '.*gone.npz' does not exist"):
        arrays(str(tmp_path / "gone.npz"))
    with pytest.raises(DataError, match="does not exist"):
        arrays(str(tmp_path))
    text = tmp_path / "text.npz"
    text.write_text("hello, this is no archive")
    with pytest.raises(DataError, match=r"'.*text.npz' cannot be read as \.npz"):
        arrays(str(text))
    cut = Path(saved(tmp_path, x=numbers(500), y=np.zeros(500)))
    cut.write_bytes(cut.read_bytes()[:1500])
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        arrays(str(cut))


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.npz"
    empty.touch()
    with pytest.raises(DataError, match=r"'.*empty.npz' cannot be read as \.npz"):
        arrays(str(empty))


def test_a_single_array_in_a_file_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", numbers())
    with pytest.raises(DataError, match=r"'.*one.npy' cannot be read as \.npz"):
        arrays(str(tmp_path / "one.npy"))


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "packed.npz"
    np.savez_compressed(path, x=numbers(500), y=np.zeros(500))
    whole = path.read_bytes()
    for place in (60, 200, 900):
        broken = bytearray(whole)
        broken[place : place + 40] = bytes(255 - b for b in broken[place : place + 40])
        path.write_bytes(broken)
        with pytest.raises(DataError, match=r"cannot be read as \.npz"):
            arrays(str(path))


class Explosive:
    """Unpickling this would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (Path.touch, (self.path,))


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    x = np.array([Explosive(mark)] * 3, dtype=object)
    path = saved(tmp_path, x=x, y=np.arange(3))
    with pytest.raises(DataError, match=r"cannot be read as \.npz.*allow_pickle"):
        arrays(path)
    assert not mark.exists()


def test_problems_inside_a_file_are_named(tmp_path: Path) -> None:
    x, y = numbered()
    x[:, 0] = math.nan
    with pytest.raises(DataError, match=r"x\[0, 0\] is nan"):
        arrays(saved(tmp_path, x=x, y=y))
    assert issubclass(DataError, XclError)


# Digits


def test_digits() -> None:
    data = digits()
    assert data.name == "digits"
    assert data.task == Task("classification", 10)
    assert data.classes == tuple("0123456789")
    assert [len(s) for s in splits(data)] == [600, 300, 897]
    assert data.shapes == (1, 8, 8)
    x = torch.cat([leaves(s.x)[""] for s in splits(data)])
    assert x.dtype == torch.uint8
    assert (int(x.min()), int(x.max())) == (0, 255)
    for split in splits(data):
        assert split.y is not None
        assert sorted(split.y.unique().tolist()) == list(range(10))


def test_the_splits_of_the_digits_are_disjoint_and_have_the_right_labels() -> None:
    loaded = load_digits()
    known = {
        image.tobytes(): label
        for image, label in zip(
            (loaded.images * 15.9375).astype(np.uint8), loaded.target, strict=True
        )
    }
    assert len(known) == 1797  # all images differ, so they tell the splits apart
    seen = set()
    for split in splits(digits()):
        assert split.y is not None
        for image, label in zip(leaves(split.x)[""].numpy(), split.y.tolist(), strict=True):
            assert known[image.tobytes()] == label
            seen.add(image.tobytes())
    assert len(seen) == 1797


def test_digits_repeat_by_seed_and_take_sizes() -> None:
    a, b, c = digits(seed=0), digits(seed=0), digits(seed=1)
    assert torch.equal(leaves(a.train.x)[""], leaves(b.train.x)[""])
    assert not torch.equal(leaves(a.train.x)[""], leaves(c.train.x)[""])
    assert [len(s) for s in splits(digits(100, 0))] == [100, 0, 1697]


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ((9, 300), "train is 9; it must be at least 10"),
        ((-5, 300), "train is -5"),
        ((600, -1), "validation is -1; it must be at least 0"),
        ((1500, 297), "train and validation are 1500 and 297; of 1797 digits they must leave"),
        ((5000, 0), "must leave some to test on"),
    ],
)
def test_digits_refuse_sizes_that_do_not_fit(sizes: tuple[int, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        digits(*sizes)
