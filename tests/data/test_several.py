"""Several target columns: labels of 0 and 1, probabilities, or numbers; never taken silently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from extracurricular.data.base import Data, lacking, make_data
from extracurricular.data.sets.arrays import arrays, from_arrays
from extracurricular.data.sets.imagefolder import imagefolder
from extracurricular.data.sets.table import from_frame, table
from extracurricular.data.several import meaning_of, strata_of
from extracurricular.data.tasks import kind_of
from extracurricular.distributions import Task
from extracurricular.errors import DataError

NAMES = ["cat", "dog", "emu"]
ROWS = 120


def values(kind: str) -> np.ndarray[Any, Any]:
    """Targets of a kind, float64, [N, 3]."""
    rng = np.random.default_rng(0)
    if kind == "labels":
        return (rng.uniform(size=(ROWS, 3)) < 0.5).astype(float)
    if kind == "one-hot":
        return np.eye(3)[rng.integers(0, 3, ROWS)]
    if kind == "probabilities":
        # Their sums miss 1 by up to 2e-4.
        return rng.dirichlet([1, 1, 1], ROWS).round(4)
    return rng.normal(size=(ROWS, 3))


def inputs() -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).normal(size=(ROWS, 2)).astype(np.float32)


def frame(kind: str) -> pl.DataFrame:
    x, y = inputs(), values(kind)
    return pl.DataFrame({"a": x[:, 0], "b": x[:, 1], **{n: y[:, k] for k, n in enumerate(NAMES)}})


def told(data: Data) -> str:
    return " ".join(data.notes)


READ = {
    "labels": (Task("multilabel", 3), "There are 3 targets of 0 and 1, which are read as labels of "
               "their own; `task: regression` reads them as numbers."),
    "one-hot": (Task("classification", 3), "have a single 1 in each row, and 0 elsewhere, so they "
                "are read as"),
    "probabilities": (Task("classification", 3), "are within 0 and 1 and sum to 1 in each row, so "
                      "they are read as the probabilities of"),
    "numbers": (Task("regression", 3), ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(READ))
def test_what_several_columns_are_is_decided_and_told(kind: str, tmp_path: Path) -> None:
    task, note = READ[kind]
    assert meaning_of(values(kind)) == kind
    assert kind_of("y", values(kind))[0] == task.kind
    frame(kind).write_csv(tmp_path / "t.csv")
    np.savez(tmp_path / "a.npz", x=inputs(), y=values(kind))
    y = values(kind)
    whole = (inputs()[:90], y[:90]), (inputs()[90:], y[90:])
    found = {
        "table": table(str(tmp_path / "t.csv"), target=list(NAMES)),
        "polars": from_frame(frame(kind), list(NAMES)),
        "pandas": from_frame(frame(kind).to_pandas(), list(NAMES)),
        "arrays": arrays(str(tmp_path / "a.npz")),
        "tensors": from_arrays(torch.from_numpy(inputs()), torch.from_numpy(y)),
        "lists": from_arrays(inputs().tolist(), y.tolist()),
        "make_data": make_data("m", *whole),
    }
    for name, data in found.items():
        assert data.task == task, name
        assert note in told(data), name
        assert (data.y_scale is not None) == (kind == "numbers"), name
        assert data.train.y is not None
        if kind == "probabilities":
            torch.testing.assert_close(data.train.y.sum(1), torch.ones(len(data.train)))
    for name in ("table", "polars", "pandas"):
        names = found[name].outputs if kind in ("labels", "numbers") else found[name].classes
        assert list(names) == NAMES, name


def test_whole_numbers_and_booleans_are_labels_too() -> None:
    y = values("labels")
    for given in (y.astype(int), y.astype(bool), y.astype(np.uint8)):
        data = from_arrays(inputs(), given)
        assert data.task == Task("multilabel", 3)
        assert data.train.y is not None
        assert data.train.y.dtype == torch.float32
    flags = pd.DataFrame({"a": inputs()[:, 0], "p": y[:, 0] > 0, "q": y[:, 1] > 0})
    assert from_frame(flags, ["p", "q"]).task == Task("multilabel", 2)
    texts = frame("labels").with_columns(pl.Series("cat", np.where(y[:, 0] > 0, "True", "false")))
    data = from_frame(texts, list(NAMES))
    assert data.task == Task("multilabel", 3)
    assert data.train.y is not None
    np.testing.assert_array_equal(data.train.y.numpy(), y[list(data.ids["train"])])


def test_the_task_overrides_what_the_columns_look_like(tmp_path: Path) -> None:
    frame("one-hot").write_csv(tmp_path / "t.csv")
    path = str(tmp_path / "t.csv")
    for task in ("multilabel", "regression"):
        assert table(path, target=list(NAMES), task=task).task == Task(task, 3)  # type: ignore[arg-type]
        assert from_arrays(inputs(), values("labels"), task=task).task == Task(task, 3)  # type: ignore[arg-type]
        assert not any("read as" in n for n in table(path, target=list(NAMES), task=task).notes)  # type: ignore[arg-type]
    assert from_arrays(inputs(), values("one-hot"), task="multilabel").train.y is not None
    assert from_arrays(inputs(), values("probabilities"), task="regression").y_scale is not None
    one = from_arrays(inputs(), values("labels")[:, 0].astype(int), task="multilabel")
    assert one.task == Task("multilabel", 1)
    frame("labels").drop("cat", "dog").write_csv(path)
    assert table(path, task="multilabel").task == Task("multilabel", 1)
    # A number for each column, as before.
    assert from_arrays(inputs(), values("probabilities"), task=Task("regression", 3)).task.size == 3


def test_rows_with_a_single_1_are_the_classes_that_they_name() -> None:
    y = values("one-hot")
    data = from_frame(frame("one-hot"), list(NAMES))
    assert data.train.y is not None
    np.testing.assert_array_equal(data.train.y.numpy(), y.argmax(1)[list(data.ids["train"])])
    plain = from_arrays(inputs(), y.argmax(1))
    same = from_arrays(inputs(), y)
    assert same.train.y is not None
    assert plain.train.y is not None
    assert torch.equal(same.train.y, plain.train.y)
    apart = from_arrays(inputs(), y, test=(inputs()[:5], y[:5]))
    assert apart.test.y is not None
    assert apart.test.y.tolist() == y[:5].argmax(1).tolist()


@pytest.mark.parametrize(
    ("kind", "task", "change", "says"),
    [
        ("numbers", "multilabel", {}, "the target 'cat' is .*; labels are 0 or 1"),
        ("numbers", "classification", {}, "must be probabilities that sum to 1, or one column"),
        ("labels", "classification", {}, "must be probabilities that sum to 1, or one column"),
        ("labels", None, {"dog": None}, "line 5: the target 'dog' has no value, but others of the"),
        ("probabilities", None, {"dog": None}, "a row must have all of its labels or none"),
        ("labels", "multilabel", {"categorical": ["dog"]}, "the target 'dog' has texts such as"),
        ("probabilities", None, {"fewest": 3}, "fewest is 3, but the targets are probabilities"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(
    kind: str, task: Any, change: dict[str, Any], says: str, tmp_path: Path
) -> None:
    change = dict(change)
    settings = {k: change.pop(k) for k in ("fewest", "categorical") if k in change}
    rows = frame(kind)
    for name, value in change.items():
        texts = [str(v) for v in rows[name]]
        texts[3] = value  # type: ignore[call-overload]
        rows = rows.with_columns(pl.Series(name, texts))
    rows.write_csv(tmp_path / "t.csv")
    with pytest.raises(DataError, match=says):
        table(str(tmp_path / "t.csv"), target=list(NAMES), task=task, **settings)


def test_arrays_that_are_no_labels_are_refused() -> None:
    x = inputs()
    with pytest.raises(DataError, match=r"the target y\[0, 0\] is .*; labels are 0 or 1"):
        from_arrays(x, values("numbers"), task="multilabel")
    with pytest.raises(DataError, match="must be probabilities that sum to 1"):
        from_arrays(x, values("labels"), task="classification")
    with pytest.raises(DataError, match="labels are 0 or 1"):
        from_arrays(x, values("labels"), test=(x[:5], values("numbers")[:5]))
    with pytest.raises(DataError, match="it must be 'classification', 'regression' or 'multilab"):
        from_arrays(x, values("labels"), task="labels")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="all examples have the same labels"):
        from_arrays(x, np.tile([1, 0, 1], (ROWS, 1)))
    with pytest.raises(DataError, match=r"must be \[N, 2\] labels of 0 and 1"):
        from_arrays(x, values("labels"), task=Task("multilabel", 2))
    with pytest.raises(DataError, match=r"test split: y has shape \(5, 2\); it must be"):
        make_data("m", (x, values("labels")), (x[:5], values("labels")[:5, :2]))
    holes = values("labels")
    holes[4, 1] = np.nan
    with pytest.raises(DataError, match=r"y\[4, 1\] is nan"):
        from_arrays(x, holes)


def test_folders_of_images_have_one_class(photos: Path) -> None:
    with pytest.raises(DataError, match="the folder of an image gives it one class; give arrays"):
        imagefolder(str(photos), size=8, task="multilabel")


def test_a_row_without_any_label_is_an_unlabelled_example(tmp_path: Path) -> None:
    rows = frame("labels").with_columns(
        [
            pl.Series(n, [None if k == 7 else v for k, v in enumerate(frame("labels")[n])])
            for n in NAMES
        ]
    )
    data = from_frame(rows, list(NAMES))
    assert data.task == Task("multilabel", 3)
    assert data.unlabelled is not None
    assert len(data.unlabelled) == 1


def test_splits_have_the_combinations_of_labels_in_proportion() -> None:
    rng = np.random.default_rng(2)
    y = (rng.uniform(size=(400, 2)) < [0.1, 0.5]).astype(float)
    data = from_arrays(rng.normal(size=(400, 2)), y, test=0.25, validation=0.25)
    for split in (data.train, data.validation, data.test):
        assert split.y is not None
        np.testing.assert_allclose(split.y.numpy().mean(0), y.mean(0), atol=0.015)
    # Rare combinations are one stratum, so that none of them is always in the middle of the order.
    rare = np.eye(12)[np.arange(24) % 12]
    assert len(set(strata_of(rare, binary=True))) == 1
    assert strata_of(np.array([[0.2, 0.8], [0.9, 0.1]]), binary=False).tolist() == [1, 0]


def test_a_label_with_one_value_in_a_split_is_told() -> None:
    x, y = inputs(), values("labels")
    lone = y[:20].copy()
    lone[:, 1] = 0
    data = make_data("m", (x, y), (x[:20], lone), outputs=NAMES)
    [sentence] = lacking(data)
    assert sentence == (
        "This label has one value in all test examples, so no AUROC there: dog (0)."
    )
    assert sentence in data.notes


def test_a_frame_and_several_targets_beside_it() -> None:
    rows = frame("labels")
    x, y = rows.select("a", "b"), rows.select(NAMES)
    data = from_arrays(x, y)
    assert data.task == Task("multilabel", 3)
    assert list(data.outputs) == NAMES
    apart = from_arrays(x.to_pandas(), y.to_numpy(), test=(x[:9], y.to_numpy()[:9]))
    assert apart.task == Task("multilabel", 3)
    assert len(apart.test) == 9
    with pytest.raises(DataError, match="y must have 3 values for each row"):
        from_arrays(x, y[:5])
