"""What the package datasets loads, from local files; and torch datasets of any kind."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from extracurricular.data.base import Data
from extracurricular.data.sets import DATA
from extracurricular.data.sets.arrays import from_dataset
from extracurricular.data.sets.hub import hf
from extracurricular.distributions import Task
from extracurricular.errors import DataError
from extracurricular.inputs import leaves

Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def pixels(count: int, seed: int = 0, channels: int = 3) -> Array:
    g = np.random.default_rng(seed)
    return g.integers(0, 256, (count, channels, 8, 8)).astype(np.uint8)


def picture(values: Array) -> Image.Image:
    return Image.fromarray(values[0] if len(values) == 1 else values.transpose(1, 2, 0))


def png(values: Array) -> bytes:
    buffer = io.BytesIO()
    picture(values).save(buffer, "PNG")
    return buffer.getvalue()


def loaded(count: int = 20, **columns: Any) -> Any:
    import datasets

    given: dict[str, Any] = {
        "picture": [{"bytes": png(v), "path": None} for v in pixels(count)],
        "kind": [k % 3 for k in range(count)],
    }
    features = {
        "picture": datasets.Image(),
        "kind": datasets.ClassLabel(names=["ant", "bee", "cow"]),
    }
    given |= columns
    made = datasets.Dataset.from_dict(given)
    return made.cast(datasets.Features({**made.features, **features}))


def saved(tmp_path: Path, **splits: Any) -> str:
    import datasets

    datasets.disable_progress_bars()
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "mine"))
    return str(tmp_path / "mine")


def images(data: Data, part: str) -> torch.Tensor:
    return leaves(getattr(data, part).x)[""]


def test_a_saved_set_with_its_splits(tmp_path: Path) -> None:
    path = saved(tmp_path, train=loaded(), validation=loaded(6), test=loaded(9))
    data = DATA.build({"hf": {"path": path}})
    assert data.name == "mine"
    assert data.task == Task("classification", 3)
    assert data.classes == ("ant", "bee", "cow")
    assert [len(s) for s in (data.train, data.validation, data.test)] == [20, 6, 9]
    for part, count in (("train", 20), ("validation", 6), ("test", 9)):
        assert np.array_equal(images(data, part), pixels(count))
        assert getattr(data, part).y.tolist() == [k % 3 for k in range(count)]
    assert data.notes == ("Images are read from the column 'picture', labels from 'kind'.",)
    assert hf(path, image="picture", label="kind").notes == ()
    small = hf(path, size=[4, 6], channels=1)
    assert small.shapes == (1, 4, 6)


def test_splits_that_are_missing(tmp_path: Path) -> None:
    lone = hf(saved(tmp_path / "a", train=loaded(30)))
    assert [len(s) for s in (lone.train, lone.validation, lone.test)] == [21, 3, 6]
    val = hf(saved(tmp_path / "b", train=loaded(), validation=loaded(6)))
    assert [len(s) for s in (val.train, val.validation, val.test)] == [18, 2, 6]
    assert "'validation' is the test split" in val.notes[0]
    other = hf(saved(tmp_path / "c", whole=loaded()))
    assert len(other.train) == 14
    with pytest.raises(DataError, match="has the splits a, b; one must be called train"):
        hf(saved(tmp_path / "d", a=loaded(), b=loaded()))


def test_a_parquet_file_and_columns_by_name(tmp_path: Path) -> None:
    path = str(tmp_path / "x.parquet")
    raw, y = [png(v) for v in pixels(20)], [k % 4 for k in range(20)]
    pq.write_table(pa.table({"img": raw, "other": y, "label": y}), path)
    data = hf(path, test=4, validation=0)
    assert data.name == "x.parquet"
    assert data.task == Task("classification", 4)
    assert len(data.train) == 16
    words = ["ant" if k % 2 else "bee" for k in range(20)]
    pq.write_table(pa.table({"a": raw, "b": words}), path)
    with pytest.raises(DataError, match="has the columns a, b; set `image` to the one that has"):
        hf(path)
    assert hf(path, image="a", label="b").classes == ("ant", "bee")
    pq.write_table(pa.table({"image": raw, "label": [k / 7 for k in range(20)]}), path)
    reals = hf(path)
    assert reals.task == Task("regression", 1)
    assert reals.outputs == ("label",)


def test_a_folder_of_images(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        for k, values in enumerate(pixels(6)):
            (tmp_path / "farm" / name).mkdir(parents=True, exist_ok=True)
            picture(values).save(tmp_path / "farm" / name / f"{k}.png")
    data = hf(str(tmp_path / "farm"))
    assert data.classes == ("ant", "bee")
    assert data.shapes == (3, 8, 8)


def test_images_that_cannot_be_used(tmp_path: Path) -> None:
    good = [{"bytes": png(v), "path": None} for v in pixels(20)]
    broken = [*good[:7], {"bytes": b"no image", "path": None}, *good[8:]]
    path = saved(tmp_path / "a", train=loaded(picture=broken))
    with pytest.raises(DataError, match=r"'train, row 7' cannot be read"):
        hf(path)
    data = hf(path, damaged="skip")
    assert "1 of 20 images cannot be read and are left out: 'row 7'." in data.notes
    assert sum(len(s) for s in (data.train, data.validation, data.test)) == 19
    wide = [*good[:7], {"bytes": png(np.zeros((3, 8, 9), np.uint8)), "path": None}, *good[8:]]
    path = saved(tmp_path / "b", train=loaded(picture=wide))
    with pytest.raises(DataError, match=r"row 7' is 9 × 8 pixels.*; `size` brings all to one size"):
        hf(path)
    assert hf(path, size=8).shapes == (3, 8, 8)
    with pytest.raises(DataError, match=r"take 0.0 GB, and memory is 1e-06"):
        hf(path, size=8, memory=1e-6, stream=False)
    none = [{"bytes": None, "path": None}, *good[1:]]
    file = str(tmp_path / "x.parquet")
    pq.write_table(pa.table({"image": pa.array(none), "label": [k % 2 for k in range(20)]}), file)
    with pytest.raises(DataError, match=r"train, row 0: .* is no image"):
        hf(file)


def test_labels_that_cannot_be_used(tmp_path: Path) -> None:
    path = saved(tmp_path / "a", train=loaded(), test=loaded(kind=[-1] * 20))
    with pytest.raises(DataError, match=r"split 'test', row 0: kind is -1; it must be 0 to 2"):
        hf(path)
    with pytest.raises(DataError, match=r"split 'train' has no column 'x'; it has picture, kind"):
        hf(path, label="x")
    path = str(tmp_path / "x.parquet")
    raw = [png(v) for v in pixels(4)]
    for values, says in (
        ([1.0, 2.0, None, 4.0], "row 2: label is None; each example must have one"),
        (["a", "b", None, "c"], "row 2: label is None; each example must have one"),
        ([0, 1, -3, 1], "row 2: label is -3; it must be 0 to 1"),
    ):
        pq.write_table(pa.table({"image": raw, "label": values}), path)
        with pytest.raises(DataError, match=says):
            hf(path)


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"path '.*gone' does not exist; it must name a folder, a"):
        hf(str(tmp_path / "gone"))
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataError, match=r"a.txt'; a file must be .parquet or .arrow"):
        hf(str(tmp_path / "a.txt"))
    (tmp_path / "a.parquet").write_bytes(b"no such thing")
    with pytest.raises(DataError, match=r"datasets cannot load '.*a.parquet': ") as caught:
        hf(str(tmp_path / "a.parquet"))
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="datasets cannot load 'nobody-at-all/nothing-there': "):
        hf("nobody-at-all/nothing-there")


def test_law_7_a_script_that_comes_with_data_is_not_run(tmp_path: Path) -> None:
    mark, folder = tmp_path / "executed", tmp_path / "evil"
    folder.mkdir()
    code = f"import pathlib; pathlib.Path({str(mark)!r}).touch()\n"
    (folder / "evil.py").write_text(code)
    with pytest.raises(DataError, match=r"datasets cannot load '.*evil'"):
        hf(str(folder))
    assert not mark.exists()
    exec(code)
    assert mark.exists(), "the attack would have worked"


def test_without_the_package_or_with_an_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets, "__version__", "3.6.0")
    with pytest.raises(DataError, match=r"version 3.6.0, which runs code .* 4 or later is needed"):
        hf("some/set")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"needs datasets, .*pip install -e '.\[datasets\]'"):
        hf("some/set")


# Torch datasets


class Mine(Dataset[Any]):
    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def test_any_dataset_with_integer_indexing() -> None:
    x, y = pixels(30), np.arange(30) % 3
    wanted = from_dataset(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)))
    forms: list[Any] = [
        [(picture(v), int(k)) for v, k in zip(x, y, strict=True)],
        [(torch.from_numpy(v), torch.tensor(k)) for v, k in zip(x, y, strict=True)],
        [[v, k] for v, k in zip(x, y, strict=True)],
    ]
    for items in forms:
        data = from_dataset(Mine(*items))
        assert torch.equal(images(data, "train"), images(wanted, "train"))
        assert torch.equal(data.train.y, wanted.train.y)  # type: ignore[arg-type]
    grey = from_dataset(Mine(*[(picture(v), 1.5 * k) for k, v in enumerate(pixels(20, 1, 1))]))
    assert (grey.shapes, grey.task) == ((1, 8, 8), Task("regression", 1))
    several = from_dataset(Mine(*[(v, np.float32([k, 1]), k % 2) for k, v in enumerate(x)]))
    assert several.shapes == ((3, 8, 8), (2,))
    named = from_dataset(
        Mine(*[({"eye": v, "pose": [0.5, k]}, [0.1, k / 9]) for k, v in enumerate(x)])
    )
    assert named.shapes == {"eye": (3, 8, 8), "pose": (2,)}
    assert named.task == Task("regression", 2)
    other = Mine(*[(v, 0) for v in x[:5]])
    data = from_dataset(Mine(*forms[2]), test=other, validation=Mine(*forms[2][:4]))
    assert [len(s) for s in (data.train, data.validation, data.test)] == [30, 4, 5]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([])


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        (Stream(), "the dataset is a Stream, which has no integer indexing"),
        (Mine(), "the dataset has no examples"),
        (Mine(3), r"item 0 is 3; each must be \(x, y\)"),
        (Mine(([1.0], 0), ([1.0],)), r"item 1 is \(\[1.0\],\); each must be"),
        (Mine(([1.0], 0), ([1.0, 2.0], 1)), r"x of item 1 is float64 of shape \(2,\); all must be"),
        (Mine((["a"], 0)), "x of item 0 is <U1"),
        (Mine(({"a": 1.0}, 0), ({"b": 1.0}, 0)), "x of item 1 has other keys than that of item 0"),
        (Mine(([1.0], None)), "y of item 0 is object"),
    ],
)
def test_datasets_that_cannot_be_used(dataset: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        from_dataset(dataset)


def test_whole_numbers_are_classes_or_numbers_and_never_silent(tmp_path: Path) -> None:
    def of(labels: list[int], **settings: Any) -> Data:
        raw = [png(v) for v in pixels(len(labels))]
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.parquet"
        pq.write_table(pa.table({"image": raw, "age": labels}), path)
        return hf(str(path), label="age", **settings)

    ages = [1 + 7 * k % 89 for k in range(60)]
    data = of(ages)
    assert data.task == Task("regression", 1)
    assert any("so it is read as numbers; `task: classification`" in note for note in data.notes)
    assert of(ages, task="classification").task.size == 90
    few = of([k % 4 for k in range(60)])
    assert few.task == Task("classification", 4)
    assert any("`task: regression` reads them as numbers" in note for note in few.notes)
    assert of([k % 4 for k in range(60)], task="regression").task == Task("regression", 1)
    years = of([1990 + k % 4 for k in range(60)])
    assert years.classes == ("1990", "1991", "1992", "1993")


def test_lists_of_0_and_1_are_labels_and_those_that_sum_to_1_are_soft(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tags = rng.integers(0, 2, (20, 3))
    tags[:2] = [[0, 0, 0], [1, 1, 1]]
    soft = rng.dirichlet([1, 1, 1], 20)
    hot = np.eye(3)[np.arange(20) % 3]
    made = loaded(tags=tags.tolist(), soft=soft.tolist(), hot=hot.tolist())
    path = saved(tmp_path, train=made)
    labels = hf(path, label="tags")
    assert labels.task == Task("multilabel", 3)
    assert sum("labels of their own" in note for note in labels.notes) == 1
    found = hf(path, label="soft")
    assert found.task == Task("classification", 3)
    assert sum("the probabilities of 3 classes" in note for note in found.notes) == 1
    assert found.train.y is not None
    torch.testing.assert_close(found.train.y.sum(1), torch.ones(len(found.train)))
    classes = hf(path, label="hot")
    assert classes.task == Task("classification", 3)
    assert classes.train.y is not None
    assert classes.train.y.ndim == 1
    assert hf(path, label="hot", task="multilabel").task == Task("multilabel", 3)
    assert hf(path, label="soft", task="regression").task == Task("regression", 3)
    with pytest.raises(DataError, match="must be probabilities that sum to 1"):
        hf(path, label="tags", task="classification")
    with pytest.raises(DataError, match="the column 'kind' has one value in each example"):
        hf(path, label="kind", task="multilabel")


def test_a_torch_dataset_may_give_several_labels() -> None:
    x, y = torch.randn(40, 2), (torch.arange(120).view(40, 3) % 7 < 3).long()
    assert from_dataset(TensorDataset(x, y)).task == Task("multilabel", 3)
    assert from_dataset(TensorDataset(x, y.float()), task="regression").task.size == 3
