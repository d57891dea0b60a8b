"""Data sets from arrays: splits that belong to their labels, .npz files, refusals that help."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from extracurricular.data.sets import DATA
from extracurricular.data.sets.arrays import arrays, from_arrays, from_dataset
from extracurricular.distributions import Task
from extracurricular.errors import DataError, XclError
from extracurricular.inputs import leaves
from tests.data.test_base import numbers, splits


def numbered(count: int = 100) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Examples that carry their own number, and a label that follows from it."""
    x = np.arange(count, dtype=np.float32)[:, None]
    return x, x[:, 0] * 2 + 1


def saved(path: Path, **given: Any) -> str:
    np.savez(path / "some data.npz", **given)
    return str(path / "some data.npz")


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


@pytest.mark.parametrize("other", [40, 60])
def test_lengths_must_be_equal_before_splitting_too(other: int) -> None:
    x, y = numbers(other), np.arange(50) % 3
    with pytest.raises(DataError, match=f"{other} examples but y has 50 labels"):
        from_arrays(x, y)
    with pytest.raises(DataError, match=f"{other} examples but y has 50 labels"):
        from_arrays({"good": numbers(50), "bad": x}, y)


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


# Tasks, splits and images


def test_the_task_can_be_set_and_is_told_otherwise(tmp_path: Path) -> None:
    x = numbers(200)
    ages = np.arange(200) % 90 + 1
    with pytest.raises(
        DataError, match="'y' has 90 different whole numbers, 1 to 90, which may be"
    ):
        from_arrays(x, ages)
    data = from_arrays(x, ages, task="regression")
    assert data.task == Task("regression", 1)
    assert data.train.y is not None
    assert data.train.y.dtype == torch.float32
    assert from_arrays(x, ages, task="classification").task == Task("classification", 91)
    whole = from_arrays(x, np.arange(200) % 100)
    assert whole.task == Task("classification", 100)
    assert any("`task: regression` reads them as numbers" in note for note in whole.notes)
    assert from_arrays(x, (ages % 5).astype(float), task="classification").task.size == 5
    both = from_arrays(x, np.stack([ages, ages], 1), task="regression")
    assert both.task == Task("regression", 2)
    path = saved(tmp_path, x=x, y=ages)
    assert arrays(path, task="regression").task == Task("regression", 1)
    with pytest.raises(DataError, match=r"y\[3\] is 0.5; classes must be whole numbers or texts"):
        from_arrays(x, np.where(np.arange(200) == 3, 0.5, 1.0), task="classification")
    with pytest.raises(DataError, match="task is 'odd'; it must be 'classification', 'regressi"):
        from_arrays(x, ages, task="odd")  # type: ignore[arg-type]


def test_names_of_classes_are_labels() -> None:
    x, names = numbers(60), np.array(["dog", "cat", "emu"])[np.arange(60) % 3]
    for labels in (names, names.tolist(), names.astype(object)):
        data = from_arrays(x, labels)
        assert data.classes == ("cat", "dog", "emu")
        assert data.train.y is not None
        assert sorted(set(data.train.y.tolist())) == [0, 1, 2]
    given = from_arrays(x, names, test=(x[:4], names[:4]))
    assert given.test.y is not None
    assert given.test.y.tolist() == [1, 0, 2, 1]
    with pytest.raises(DataError, match="the label 'fox' is none of cat, dog, emu"):
        from_arrays(x, names, test=(x[:4], ["fox"] * 4))
    with pytest.raises(DataError, match="y has texts such as 'dog'"):
        from_arrays(x, names, task="regression")


def test_arrays_as_people_have_them() -> None:
    x, y = numbers(60), np.arange(60) % 2
    wanted = from_arrays(x, y)
    for given in (x.tolist(), torch.from_numpy(x).requires_grad_(), x[::-1][::-1]):
        assert torch.equal(leaves(from_arrays(given, y).train.x)[""], leaves(wanted.train.x)[""])
    backwards = from_arrays(x[::-1], y[::-1])
    assert len(backwards.train) == 42
    assert not leaves(backwards.train.x)[""].requires_grad


def test_data_frames_beside_their_targets() -> None:
    pandas = pytest.importorskip("pandas")
    x = numbers(60)
    frame = pandas.DataFrame(x, columns=list("abcde")[: x.shape[1]], index=range(100, 160))
    target = pandas.Series(np.arange(60) % 2, index=range(100, 160), name="kind")
    data = from_arrays(frame, target, name="mine")
    assert data.columns == tuple(frame.columns)
    assert data.outputs == ("kind",)
    assert data.fields is not None
    texts = frame.assign(colour=["red", "blue"] * 30)
    other = from_arrays(
        texts, np.arange(60) * 1.5, test=(texts[:5], np.arange(5.0)), group=np.arange(60) // 2
    )
    assert other.columns[-2:] == ("colour=blue", "colour=red")
    assert len(other.test) == 5
    assert other.test.y is not None
    assert other.test.y[:, 0].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(DataError, match="x has 60 rows, and y the shape"):
        from_arrays(frame, target[:50])


def test_groups_times_and_repeats_of_arrays(tmp_path: Path) -> None:
    x, y = numbered()
    group = np.arange(100) // 5
    data = from_arrays(x, y, group=group)
    owners = [set((leaves(s.x)[""][:, 0] // 5).int().tolist()) for s in splits(data)]
    assert sum(map(len, owners)) == 20
    by_time = from_arrays(x, y, time=torch.arange(100).flip(0))
    assert leaves(by_time.test.x)[""][:, 0].tolist() == list(range(20))
    path = saved(tmp_path, x=x, y=y, person=group)
    again = arrays(path, group="person")
    assert torch.equal(leaves(again.train.x)[""], leaves(data.train.x)[""])
    with pytest.raises(DataError, match="group is 'people', which is none of them"):
        arrays(path, group="people")
    with pytest.raises(DataError, match=r"group has shape \(99,\); it must have a value for each"):
        from_arrays(x, y, group=group[:99])
    twice = np.concatenate([x[:50], x[:50]])
    kept, dropped = (
        from_arrays({"a": twice, "b": twice}, y, duplicates=how) for how in ("keep", "drop")
    )
    assert len(dropped.test) < len(kept.test)
    train = set(leaves(dropped.train.x)["a"][:, 0].tolist())
    assert not train & set(leaves(dropped.test.x)["a"][:, 0].tolist())


def test_classes_keep_their_share_in_every_split() -> None:
    y = np.array([0] * 125 + [1] * 75)
    for seed in range(4):
        data = from_arrays(numbers(200), y, seed=seed)
        for split in splits(data):
            assert split.y is not None
            assert abs(float((split.y == 1).sum()) - len(split) * 75 / 200) <= 1


def test_channels_that_come_last_are_moved() -> None:
    x = np.random.default_rng(0).integers(0, 256, (40, 8, 6, 3), dtype=np.uint8)
    y = np.arange(40) % 2
    data = from_arrays(x, y, stratify=False)
    assert data.shapes == (3, 8, 6)
    assert any("8 × 6 × 3 have their channels last" in note for note in data.notes)
    same = from_arrays(np.moveaxis(x, 3, 1), y, stratify=False)
    assert torch.equal(leaves(same.train.x)[""], leaves(data.train.x)[""])
    assert same.notes == data.notes[:1]
    assert from_arrays(x, y, channels="first").shapes == (8, 6, 3)
    assert from_arrays(x[..., :2], y).shapes == (8, 6, 2)
    assert from_arrays(x[..., :2], y, channels="last").shapes == (2, 8, 6)
    assert from_arrays(torch.from_numpy(x), y).shapes == (3, 8, 6)


def test_examples_of_one_class_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="all examples are of the class '0'; there must be at leas"):
        arrays(saved(tmp_path, x=numbers(50), y=np.zeros(50, int)))
    with pytest.raises(DataError, match="all examples are of the class 'cat'"):
        from_arrays(numbers(50), ["cat"] * 50)


def test_an_archive_that_says_that_it_is_larger_than_it_is_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "data.npz"
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 3)}"
    header = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", header + bytes(12))
    with pytest.raises(DataError, match=r"'x.npy' says that it has the shape \(1000000000000, 3\)"):
        arrays(str(file))
