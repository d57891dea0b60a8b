"""UCI folders: published splits, read liberally in form and strictly in meaning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from extracurricular.data.base import Data
from extracurricular.data.sets import DATA
from extracurricular.data.sets.uci import uci
from extracurricular.distributions import Task
from extracurricular.errors import DataError
from extracurricular.inputs import leaves

ROWS = 40


def made(tmp_path: Path, **files: str) -> str:
    """A folder of 40 rows: two features that carry the row's number, and a target between them."""
    folder = tmp_path / "made up"
    folder.mkdir()
    content = {
        "data": "".join(f"{k}.0 \t{k + 0.5}\t {k * 100} \n" for k in range(ROWS)),
        "index_features": "0\n2\n",
        "index_target": "1\n",
    }
    for split in range(3):
        test = range(split * 10, split * 10 + 10)
        content[f"index_test_{split}"] = "".join(f"{k}\n" for k in test)
        content[f"index_train_{split}"] = "".join(
            f"{k:.18e}\n" for k in reversed(range(ROWS)) if k not in test
        )
    for name, text in (content | files).items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return str(folder)


def numbers(data: Data, part: str) -> list[int]:
    """Rows of the file that are in a split."""
    return [int(v) for v in leaves(getattr(data, part).x)[""][:, 0]]


def test_a_published_split_is_kept_and_validation_comes_from_its_training_rows(
    tmp_path: Path,
) -> None:
    path = made(tmp_path)
    for split in range(3):
        data = uci(path, split)
        test = list(range(split * 10, split * 10 + 10))
        assert numbers(data, "test") == test
        assert len(data.validation) == 6
        assert len(data.train) == 24
        others = numbers(data, "train") + numbers(data, "validation")
        assert sorted(others) == [k for k in range(ROWS) if k not in test]
        for part in ("train", "validation", "test"):
            found = getattr(data, part)
            assert found.x[:, 1].tolist() == [k * 100 for k in numbers(data, part)]
            assert found.y[:, 0].tolist() == [k + 0.5 for k in numbers(data, part)]


def test_what_it_is(tmp_path: Path) -> None:
    data = DATA.build({"uci": {"path": made(tmp_path), "split": 1}})
    assert data.name == "made up"
    assert data.task == Task("regression", 1)
    assert data.shapes == (2,)
    x, y = leaves(data.train.x)[""], data.train.y
    assert y is not None
    assert (x.dtype, y.dtype) == (torch.float32, torch.float32)
    # Scales know the training part alone.
    assert torch.allclose(data.x_scale[""].shift, x.mean(0))
    assert data.y_scale is not None
    assert torch.allclose(data.y_scale.shift, y.mean(0))


def test_validation_is_a_matter_of_the_seed_and_test_is_not(tmp_path: Path) -> None:
    path = made(tmp_path)
    a, b, c = uci(path, seed=0), uci(path, seed=0), uci(path, seed=1)
    assert numbers(a, "validation") == numbers(b, "validation")
    assert numbers(a, "train") == numbers(b, "train")
    assert set(numbers(a, "validation")) != set(numbers(c, "validation"))
    assert numbers(a, "test") == numbers(c, "test")
    none = uci(path, validation=0)
    assert (len(none.train), len(none.validation)) == (30, 0)
    assert len(uci(path, validation=0.5).validation) == 15


def test_forms_of_numbers_are_taken_as_they_come(tmp_path: Path) -> None:
    path = made(
        tmp_path,
        data="\ufeff 1 2\t3\r\n\n  -1e-2   .5 4.  \r\n5 6 7\n\n",
        index_features="0.0 2.000e+00",
        index_target="\n1.\n",
        index_train_0="2e0\n",
        index_test_0=" 0  1 ",
    )
    data = uci(path)
    assert leaves(data.train.x)[""].tolist() == [[5, 7]]
    assert data.test.y is not None
    assert data.test.y.tolist() == [[2], [0.5]]
    np.testing.assert_allclose(leaves(data.test.x)[""].numpy(), [[1, 3], [-0.01, 4]], rtol=1e-6)


def test_several_targets(tmp_path: Path) -> None:
    data = uci(made(tmp_path, index_features="2", index_target="1\n0"))
    assert data.task == Task("regression", 2)
    assert data.test.y is not None
    assert data.test.y[3].tolist() == [3.5, 3]


def test_missing_folders_and_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the folder '.*gone' does not exist; path must name a"):
        uci(str(tmp_path / "gone"))
    path = made(tmp_path)
    with pytest.raises(DataError, match=r"the folder '.*data.txt' does not exist"):
        uci(str(Path(path) / "data.txt"))
    names = ("index_test_2", "index_target", "index_features", "data")
    for name in names:
        (Path(path) / f"{name}.txt").unlink()
        with pytest.raises(DataError, match=rf"the file '.*{name}\.txt' is missing"):
            uci(path, split=2)


def test_splits_that_are_not_there_are_answered_with_those_that_are(tmp_path: Path) -> None:
    path = made(tmp_path)
    for split in (3, -1):
        with pytest.raises(DataError, match=rf"made up': split is {split}; it has splits 0 to 2$"):
            uci(path, split)
    for part in ("train", "test"):
        (Path(path) / f"index_{part}_1.txt").unlink()
    with pytest.raises(DataError, match=r"split is 1; it has splits 0, 2$"):
        uci(path, 1)
    for part in ("train", "test"):
        (Path(path) / f"index_{part}_2.txt").unlink()
    with pytest.raises(DataError, match=r"split is 2; it has split 0$"):
        uci(path, 2)
    for part in ("train", "test"):
        (Path(path) / f"index_{part}_0.txt").unlink()
    with pytest.raises(DataError, match=r"made up' has no splits; it must have index_train_0.txt"):
        uci(path, 0)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"data": "1 2 3\n4 5\n"}, r"data.txt', line 2: the row has 2 numbers, the first one 3"),
        ({"data": "1 2 3\n\n4 5 x\n"}, r"data.txt', line 3: 'x' is not a number"),
        ({"data": "1 2 nan\n"}, r"line 1: 'nan' is not a number"),
        ({"data": "1 2 1e39\n"}, r"line 1: '1e39' is not a number that float32 can hold"),
        ({"data": "1 2 1_0\n"}, r"line 1: '1_0' is not a number"),
        ({"data": "1,2,3\n"}, r"line 1: '1,2,3' is not a number"),
        ({"data": " \n\n"}, r"data.txt' holds no numbers"),
        ({"index_train_0": ""}, r"index_train_0.txt' holds no numbers"),
        ({"index_target": "3"}, r"index_target.txt', line 1: 3 is no column .* columns 0 to 2"),
        ({"index_train_0": "39\n40"}, r"line 2: 40 is no row of the data, which have rows 0 to 39"),
        ({"index_test_0": "-1"}, r"index_test_0.txt', line 1: -1 is no row"),
        ({"index_test_0": "1.5"}, r"line 1: 1.5 is not a whole number, as a row must be"),
        ({"index_test_0": "1\n2\n1"}, r"index_test_0.txt', line 3: 1 is there twice"),
        ({"index_test_0": "5 12"}, r"row 12 is in both index_train_0.txt and index_test_0.txt"),
        ({"index_features": "0 1"}, r"column 1 is in both index_features.txt and index_target.txt"),
    ],
)
def test_files_that_cannot_be_meant_are_refused(
    tmp_path: Path, files: dict[str, str], says: str
) -> None:
    with pytest.raises(DataError, match=says) as caught:
        uci(made(tmp_path, **files))
    assert "made up" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("validation", [1, 1.5, -0.1, float("nan")])
def test_a_validation_part_must_be_a_part(tmp_path: Path, validation: float) -> None:
    says = rf"made up': validation is {validation}; it must be a part in \[0, 1\)"
    with pytest.raises(DataError, match=says):
        uci(made(tmp_path), validation=validation)


def test_validation_must_leave_something_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"0.99; of 30 training rows it must leave some"):
        uci(made(tmp_path), validation=0.99)
