"""Tables: CSV, parquet and .npz, their categories, targets and splits, and what is refused."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from extracurricular.data.base import Data
from extracurricular.data.sets import DATA
from extracurricular.data.sets.table import table
from extracurricular.distributions import Task
from extracurricular.errors import DataError, RecipeError
from extracurricular.inputs import leaves

COLOURS = ["red", "green", "blue"]


def csv(tmp_path: Path, text: str, name: str = "mine.csv") -> str:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return str(tmp_path / name)


def mixed(tmp_path: Path, rows: int = 30) -> str:
    """A number, a category, a number that is the row, and a target."""
    lines = [f"{k / 2},{COLOURS[k % 3]},{k},{k * 100.5}" for k in range(rows)]
    return csv(tmp_path, "\n".join(["size,colour,row,price", *lines]) + "\n")


def x_of(data: Data, part: str = "train") -> torch.Tensor:
    return leaves(getattr(data, part).x)[""]


def test_numbers_and_categories(tmp_path: Path) -> None:
    data = DATA.build({"table": {"path": mixed(tmp_path)}})
    assert data.name == "mine"
    assert data.task == Task("regression", 1)
    assert data.columns == ("size", "colour=blue", "colour=green", "colour=red", "row")
    assert data.outputs == ("price",)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [21, 3, 6]
    for part in ("train", "validation", "test"):
        x, y = x_of(data, part), getattr(data, part).y
        row = x[:, 4]
        assert torch.equal(x[:, 0], row / 2)
        assert torch.equal(y[:, 0], row * 100.5)  # in its own units
        wanted = [["blue", "green", "red"].index(COLOURS[int(k) % 3]) for k in row]
        assert x[:, 1:4].argmax(1).tolist() == wanted
        assert x[:, 1:4].sum(1).tolist() == [1] * len(x)
    # Scales know the training rows alone.
    assert data.y_scale is not None
    assert data.train.y is not None
    assert torch.allclose(data.y_scale.shift, data.train.y.mean(0))
    assert torch.allclose(data.x_scale[""].shift, x_of(data).mean(0))
    rows = torch.cat([x_of(data, p)[:, 4] for p in ("train", "validation", "test")])
    assert rows.sort().values.tolist() == list(range(30))
    assert not torch.equal(x_of(table(mixed(tmp_path), seed=1)), x_of(data))


def test_the_same_table_in_every_form(tmp_path: Path) -> None:
    wanted = table(mixed(tmp_path))
    columns = {
        "size": np.arange(30) / 2,
        "colour": np.array([COLOURS[k % 3] for k in range(30)]),
        "row": np.arange(30),
        "price": np.arange(30) * 100.5,
    }
    np.savez(tmp_path / "a.npz", **columns)
    pq.write_table(pa.table(columns), tmp_path / "b.parquet")
    as_category = pa.array(columns["colour"]).dictionary_encode()
    as_decimal = pa.array([Decimal(f"{v:.2f}") for v in columns["price"]])
    odd = pa.table(columns | {"colour": as_category, "price": as_decimal})
    pq.write_table(odd, tmp_path / "c.parquet")
    text = Path(mixed(tmp_path)).read_text().replace(",", " ; ")
    csv(tmp_path, "\ufeff" + text.replace("\n", "\r\n\r\n"), "d.csv")
    settings: dict[str, Any] = {"d.csv": {"separator": ";"}}
    for name in ("a.npz", "b.parquet", "c.parquet", "d.csv"):
        data = table(str(tmp_path / name), **settings.get(name, {}))
        assert data.columns == wanted.columns
        assert torch.equal(x_of(data), x_of(wanted)), name
        assert torch.equal(data.test.y, wanted.test.y)  # type: ignore[arg-type]
    np.savez(tmp_path / "e.npz", x=np.zeros((30, 2)), y=np.arange(30) / 7)
    assert table(str(tmp_path / "e.npz")).columns == ("x.0", "x.1")


def test_what_the_target_is(tmp_path: Path) -> None:
    path = mixed(tmp_path)
    classes = table(path, target="colour")
    assert classes.task == Task("classification", 3)
    assert classes.classes == ("blue", "green", "red")
    assert classes.columns == ("size", "row", "price")
    wanted = [["blue", "green", "red"].index(COLOURS[int(k) % 3]) for k in x_of(classes)[:, 1]]
    assert classes.train.y is not None
    assert classes.train.y.tolist() == wanted
    assert table(path, target=1).classes == classes.classes
    several = table(path, target=["price", -2])
    assert several.task == Task("regression", 2)
    assert several.outputs == ("price", "row")
    # Whole numbers of few kinds are classes, of many are not; and either can be said.
    few = csv(tmp_path, "a,b\n" + "".join(f"{k / 3},{10 - k % 8}\n" for k in range(60)), "few.csv")
    assert table(few).task == Task("classification", 8)
    assert table(few).classes == tuple(str(k) for k in range(3, 11))
    assert table(few, task="regression").task == Task("regression", 1)
    many = csv(tmp_path, "a,b\n" + "".join(f"{k / 3},{k % 30}\n" for k in range(90)), "many.csv")
    assert table(many).task == Task("regression", 1)
    assert table(many, task="classification").task == Task("classification", 30)


def test_numbers_that_are_names_and_columns_to_leave_out(tmp_path: Path) -> None:
    text = "code,note,x,y\n" + "".join(
        f"{k % 2 * 10 + 2},a note {k},{k},{k}.5\n" for k in range(20)
    )
    path = csv(tmp_path, text)
    data = table(path, categorical=["code"], drop=["note"])
    assert data.columns == ("code=2", "code=12", "x")
    assert table(path, categorical=[0], drop=[1, "x"]).columns == ("code=2", "code=12")
    plain = csv(tmp_path, text.partition("\n")[2], "plain.csv")
    assert table(plain, header=False, drop=[1]).columns == ("0", "2")
    when = [datetime.date(2020, 1, 1)] * 20
    columns = {"when": when, "x": np.arange(20), "y": np.arange(20) / 3}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert table(str(tmp_path / "a.parquet"), drop=["when"]).columns == ("x",)
    with pytest.raises(DataError, match="column 'when' is neither of numbers nor"):
        table(str(tmp_path / "a.parquet"))


def test_sizes_of_splits(tmp_path: Path) -> None:
    path = mixed(tmp_path)

    def sizes(**settings: Any) -> list[int]:
        data = table(path, **settings)
        return [len(s) for s in (data.train, data.validation, data.test)]

    assert sizes(test=10, validation=0) == [20, 0, 10]
    assert sizes(test=0.5, validation=5) == [10, 5, 15]
    with pytest.raises(DataError, match="leave none of 30 rows to train on"):
        sizes(test=20, validation=10)
    with pytest.raises(DataError, match="the test split has no examples"):
        sizes(test=0)
    with pytest.raises(DataError, match=r"mine.csv': test is 1.5; it must be a part in \[0, 1\)"):
        sizes(test=1.5)


def test_a_column_that_names_the_split(tmp_path: Path) -> None:
    words = ["train", "Val", "TEST", "train", "train"]
    text = "part,x,y\n" + "".join(f"{words[k % 5]},{k},{k}.5\n" for k in range(50))
    data = table(csv(tmp_path, text), split="part")
    assert data.columns == ("x",)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [30, 10, 10]
    assert x_of(data, "test")[:, 0].tolist() == list(range(2, 50, 5))
    none = csv(tmp_path, text.replace("Val", "train"), "b.csv")
    data = table(none, split="part")
    assert [len(s) for s in (data.train, data.validation, data.test)] == [36, 4, 10]
    assert x_of(data, "test")[:, 0].tolist() == list(range(2, 50, 5))
    with pytest.raises(DataError, match="line 3: the split 'part' is 'odd'; it must be train, val"):
        table(csv(tmp_path, text.replace("Val", "odd"), "c.csv"), split="part")
    with pytest.raises(DataError, match="no row is of the test split; 'part' has Val, train"):
        table(csv(tmp_path, text.replace("TEST", "train"), "d.csv"), split="part")


# Refusals


@pytest.mark.parametrize("word", ["", " ", "NA", "nan", "?", "NULL"])
def test_missing_values_are_named_by_line_and_column(tmp_path: Path, word: str) -> None:
    for column, text in (("a", f"a,b\n1,2\n{word},4\n"), ("b", f"a,b\n1,x\n1,{word}\n")):
        with pytest.raises(DataError, match=rf"line 3: the column '{column}' has no value") as e:
            table(csv(tmp_path, text))
        assert "fill it in, leave out the row, or name the column in `drop`" in str(e.value)
        assert "\n" not in str(e.value)


def test_missing_values_in_the_other_forms(tmp_path: Path) -> None:
    file = str(tmp_path / "a.parquet")
    for values in ([1.0, None, 3.0], [1, None, 3], ["a", None, "c"], [1.0, float("nan"), 2.0]):
        pq.write_table(pa.table({"a": values, "y": [1.5, 2.5, 3.5]}), file)
        with pytest.raises(DataError, match=r"a.parquet', row 1: the column 'a' has no value"):
            table(file)
    np.savez(tmp_path / "a.npz", a=np.array([1, np.inf]), y=np.array([1.5, 2.5]))
    with pytest.raises(DataError, match=r"row 1: .* 'a' has inf, which float32 cannot hold"):
        table(str(tmp_path / "a.npz"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("a,b\n", "has no rows"),
        ("a,b\n1,2\n3\n", "line 3: the row has 1 values, but there are 2 columns"),
        ('a,b\n1,2\n"3,4\n', "line 3: unexpected end of data"),
        ("a,b\n1,2\nx,3\n2,1\n", "line 3: the column 'a' has 'x' among numbers; mend it, or name"),
        ("a,b\n1,2\n1_0,3\n", "line 3: the column 'a' has '1_0' among numbers"),
        ("a,b\n1,2\n1e39,3\n", "line 3: the column 'a' has 1e39, which float32 cannot hold"),
        ("a,b\n1,2\n-inf,3\n", "line 3: the column 'a' has -inf, which float32 cannot hold"),
        ("1,2\n3,4\n", "first line has numbers where the names .* set `header: false`"),
        ("a;b\n1;2\n", "has one column, 'a;b'; set `separator: ';'`"),
        ("a,a\n1,2\n", "line 1: 'a' is there twice; each column needs a name of its own"),
        ("a,\n1,2\n", "line 1: column 1 has no name"),
        ("a\n1\n2\n", r"has no columns left to predict \['a'\] from"),
        ("a,b\n1,x\n2,x\n", "the target 'b' is 'x' in every row"),
    ],
)
def test_texts_that_are_wrong(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        table(csv(tmp_path, text))
    assert "mine.csv'" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"target": "cost"}, "no column 'cost', which target names; it has size, colour, row, pr"),
        ({"target": 4}, "no column 4, which target names"),
        ({"drop": ["x"]}, "no column 'x', which drop names"),
        ({"target": []}, r"target is \[\]; it must name one column or several different ones"),
        ({"target": ["row", 2]}, "several different ones"),
        ({"target": ["row", "price"], "task": "classification"}, "classes are in one column"),
        ({"target": "colour", "task": "regression"}, "'colour' has texts such as 'red'; a real"),
        ({"target": ["price", "colour"]}, "'colour' has texts such as 'red'; a real target must"),
        ({"task": "classification"}, "line 3: the target 'price' is 100.5; classes must be texts"),
        ({"separator": ";;"}, "separator is ';;'; it must be one character"),
        ({"split": "colour"}, "line 2: the split 'colour' is 'red'; it must be train"),
    ],
)
def test_settings_that_do_not_go_with_the_table(
    tmp_path: Path, settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(DataError, match=says):
        table(mixed(tmp_path), **settings)


def test_too_many_categories(tmp_path: Path) -> None:
    text = "id,y\n" + "".join(f"person {k},{k}.5\n" for k in range(1001))
    with pytest.raises(DataError, match="'id' has 1001 different texts, and a category has at mo"):
        table(csv(tmp_path, text))


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'.*gone.csv' does not exist; path must name a .csv"):
        table(str(tmp_path / "gone.csv"))
    with pytest.raises(DataError, match=r"path is '.*a.xlsx'; it must name a .csv"):
        table(csv(tmp_path, "x", "a.xlsx"))
    (tmp_path / "a.csv").write_bytes(b"a,b\n\xff\xfe,1\n")
    with pytest.raises(DataError, match=r"a.csv' is no text in UTF-8"):
        table(str(tmp_path / "a.csv"))
    for name in ("a.parquet", "a.npz"):
        (tmp_path / name).write_bytes(b"no such thing")
        with pytest.raises(DataError, match=rf"'.*{name}' cannot be read as"):
            table(str(tmp_path / name))
    np.savez(tmp_path / "b.npz", a=np.zeros(3), b=np.zeros(4))
    with pytest.raises(DataError, match=r"different lengths: {'a': 3, 'b': 4}"):
        table(str(tmp_path / "b.npz"))
    np.savez(tmp_path / "b.npz", a=np.zeros((3, 1, 1)))
    with pytest.raises(DataError, match=r"'a' has shape \(3, 1, 1\); the arrays of a table must"):
        table(str(tmp_path / "b.npz"))
    with pytest.raises(RecipeError, match=r"data.table.task: is 'odd'; it should be 'classifica"):
        DATA.build({"table": {"path": "x.csv", "task": "odd"}}, key="data")


class Explosive:
    """Unpickling this would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (Path.touch, (self.path,))


def test_law_7_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    mark, path = tmp_path / "executed", tmp_path / "a.npz"
    np.savez(path, x=np.array([Explosive(mark)] * 3, dtype=object), y=np.arange(3))
    with pytest.raises(DataError, match=r"cannot be read as \.npz.*allow_pickle"):
        table(str(path))
    assert not mark.exists()
    np.load(path, allow_pickle=True)["x"]
    assert mark.exists(), "the attack would have worked"
