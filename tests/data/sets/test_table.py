"""Tables: CSV, parquet and .npz, their categories, targets and splits, and what is refused."""

from __future__ import annotations

import datetime
import gzip
import subprocess
import sys
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
from extracurricular.samplers import build_sampler

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
    assert table(str(tmp_path / "a.parquet")).columns == ("when in days", "x")
    pq.write_table(pa.table(columns | {"when": [[1, 2]] * 20}), tmp_path / "a.parquet")
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


def test_groups_stay_on_one_side(tmp_path: Path) -> None:
    text = "person,a,y\n" + "".join(f"p{k % 17},{k},{k % 2}\n" for k in range(300))
    with pytest.raises(DataError, match=r"has one column, 'person;a;y'; set `separator: ';'`"):
        table(csv(tmp_path, text.replace(",", ";")), separator=",")
    data = table(csv(tmp_path, text), group="person")
    assert data.columns == ("a",)
    people = [
        {int(row) % 17 for row in x_of(data, part)[:, 0]}
        for part in ("train", "validation", "test")
    ]
    assert not people[0] & people[1]
    assert not people[0] & people[2]
    assert not people[1] & people[2]
    sizes = [len(s) for s in (data.train, data.validation, data.test)]
    assert abs(sizes[2] - 60) <= 18
    assert abs(sizes[1] - 30) <= 18
    assert "The column 'person' makes the group and is no input." in data.notes
    with pytest.raises(DataError, match="line 3: the column 'p', which group names, has no value"):
        table(csv(tmp_path, "p,a,y\nu,1,2.5\n,2,3.5\n"), group="p")
    with pytest.raises(DataError, match="group and time are both set; a split goes by one"):
        table(
            csv(tmp_path, "p,a,b,y\n" + "".join(f"p,{k},1,{k}.5\n" for k in range(9))),
            group=0,
            time=1,
        )


def test_a_split_by_date(tmp_path: Path) -> None:
    days = [f"2024-{1 + k % 12:02d}-{1 + k % 28:02d}" for k in range(200)]
    text = "day,a,y\n" + "".join(f"{day},{k},{k}.5\n" for k, day in enumerate(days))
    data = table(csv(tmp_path, text), time="day")
    assert data.columns == ("a",)
    dates = [
        [days[int(row)] for row in x_of(data, part)[:, 0]]
        for part in ("train", "validation", "test")
    ]
    assert max(dates[0]) < min(dates[1])
    assert max(dates[1]) < min(dates[2])
    assert 30 <= len(dates[2]) <= 40
    assert f"Rows are tested on from day {min(dates[2])} on." in data.notes
    with pytest.raises(DataError, match="time is 'b', which has texts such as 'u'; it must have"):
        table(csv(tmp_path, "a,b,y\n1,u,2.5\n2,v,3.5\n"), time="b", test=1, validation=0)


def test_splits_are_stratified_unless_told_otherwise(tmp_path: Path) -> None:
    text = "a,y\n" + "".join(f"{k},{np.exp(k / 40):.4f}\n" for k in range(400))
    path = csv(tmp_path, text)
    for seed in range(3):
        data = table(path, seed=seed)
        for part, share in (("test", 0.2), ("validation", 0.1)):
            tenths = np.bincount(x_of(data, part)[:, 0].int().numpy() // 40, minlength=10)
            assert np.abs(tenths - 40 * share).max() <= 1
    plain = table(path, stratify=False)
    assert np.ptp(np.bincount(x_of(plain, "test")[:, 0].int().numpy() // 40, minlength=10)) > 2


def test_duplicates_of_training_rows_are_dropped(tmp_path: Path) -> None:
    text = "a,b,y\n" + "".join(f"{k % 40},{k % 3},{k}.5\n" for k in range(240))
    kept, dropped = (table(csv(tmp_path, text), duplicates=how) for how in ("keep", "drop"))  # type: ignore[arg-type]
    train = {tuple(row) for row in x_of(kept).tolist()}
    fresh = [row for row in x_of(kept, "test").tolist() if tuple(row) not in train]
    assert x_of(dropped, "test").tolist() == fresh
    assert len(fresh) < len(kept.test)
    assert torch.equal(x_of(dropped), x_of(kept))
    assert any("of test repeat inputs of training and are left out" in n for n in dropped.notes)


def test_categories_are_those_of_the_training_rows(tmp_path: Path) -> None:
    text = "part,a,y\n" + "".join(f"train,{'uv'[k % 2]},{k}.5\n" for k in range(8))
    data = table(csv(tmp_path, text + "test,w,1.5\ntest,u,2.5\n"), split="part", validation=0)
    assert data.columns == ("a=u", "a=v")
    assert x_of(data, "test").tolist() == [[0, 0], [1, 0]]
    assert any("Some values of 'a' in test are not in training" in note for note in data.notes)


def test_dates_become_days_and_parts(tmp_path: Path) -> None:
    text = "part,when,y\ntrain,2024-03-01 06:00,1.5\ntrain,2024-03-04,2.5\ntest,2024-03-02,3.5\n"
    data = table(csv(tmp_path, text), split="part", validation=0)
    assert data.columns == ("when in days",)
    assert x_of(data).tolist() == [[0.25], [3]]
    parts = table(csv(tmp_path, text), split="part", validation=0, dates="parts")
    assert parts.columns[1:] == tuple(
        f"when, {turn} of the {of}" for of in ("year", "week", "day") for turn in ("sine", "cosine")
    )
    # 2024-03-04 was a Monday, with which a week begins; 6 in the morning is a quarter of a day.
    np.testing.assert_allclose(x_of(parts)[1, 3:5], [0, 1], atol=1e-6)
    np.testing.assert_allclose(x_of(parts)[0, 5:7], [1, 0], atol=1e-6)
    forms = "when,y\n03/04/2024,1.5\n05/06/2024,2.5\n07/08/2024,3.5\n"
    ways = [
        table(csv(tmp_path, forms), date_format=form, test=1, validation=0)
        for form in ("%d/%m/%Y", "%m/%d/%Y")
    ]
    assert [w.fields.inputs[0].date_format for w in ways if w.fields] == ["%d/%m/%Y", "%m/%d/%Y"]
    with pytest.raises(DataError, match=r"line 3: .* '31/02/2024', which is no date of the form"):
        table(csv(tmp_path, "d,y\n01/02/2024,1.5\n31/02/2024,2.5\n"), date_format={"d": "%d/%m/%Y"})


def test_the_kind_of_the_task_is_told_with_the_reason(tmp_path: Path) -> None:
    def note(values: list[str], **settings: Any) -> str:
        lines = [f"{k},{value}\n" for k, value in enumerate(values)]
        data = table(csv(tmp_path, "a,y\n" + "".join(lines)), **settings)
        return " ".join(n for n in data.notes if n.startswith("The target"))

    few = note([str(k % 5) for k in range(40)])
    assert "5 different whole numbers, 0 to 4, which are read as classes; `task: regression`" in few
    many = note([str(k) for k in range(40)])
    assert "40 different whole numbers, 0 to 39, so it is read as numbers; `task: class" in many
    assert "with a fraction" in note([f"{k}.5" for k in range(40)])
    assert "texts, which are read as 2 classes" in note(["ab"[k % 2] for k in range(40)])
    assert note([str(k % 5) for k in range(40)], task="regression") == ""


def test_unnamed_columns_and_an_index_that_is_kept(tmp_path: Path) -> None:
    text = ",b,,y\n" + "".join(f"{k},{k * 2},{k * k},{k}.5\n" for k in range(20))
    data = table(csv(tmp_path, text))
    assert data.columns == ("column 0", "b", "column 2")
    alone = csv(tmp_path, ",b,y\n" + "".join(f"{k},{k * 2},{k}.5\n" for k in range(20)))
    assert table(alone).columns == ("b",)
    assert table(alone, index="keep").columns == ("column 0", "b")
    empty = csv(tmp_path, "a,b,y\n" + "".join(f"{k},,{k}.5\n" for k in range(20)))
    assert table(empty).columns == ("a",)
    assert "The column 'b' is empty and left out." in table(empty).notes


def test_lines_before_the_table(tmp_path: Path) -> None:
    body = "a,b,y\n" + "".join(f"{k},{k * 2},{k}.5\n" for k in range(20))
    path = csv(tmp_path, "# made by a machine\n\n" + body)
    with pytest.raises(
        DataError, match=r"line 3: .*; `skip: N` passes over lines before the table"
    ):
        table(path)
    wanted = table(csv(tmp_path, body, "plain.csv"))
    assert torch.equal(x_of(table(path, skip=2)), x_of(wanted))
    with pytest.raises(DataError, match="line 13: the column 'a' has 'odd' among numbers"):
        table(csv(tmp_path, "# a\n\n" + body.replace("\n9,", "\nodd,")), skip=2)


def test_words_that_are_names_and_numbers_that_begin_with_zero(tmp_path: Path) -> None:
    text = "garage,code,y\n" + "".join(
        f"{'NA' if k % 3 else 'brick'},0{k % 4 + 10},{k}.5\n" for k in range(30)
    )
    with pytest.raises(DataError, match=r"`missing_values: \[\]` has words such as NA be names"):
        table(csv(tmp_path, text))
    data = table(csv(tmp_path, text), missing_values=[])
    assert data.columns == ("garage=NA", "garage=brick", "code")
    assert any(
        "numbers such as '010', whose 0 is left out; `categorical: [code]`" in n for n in data.notes
    )
    names = table(csv(tmp_path, text), missing_values=[], categorical=["code"])
    assert names.columns[2:] == ("code=010", "code=011", "code=012", "code=013")


def test_numbers_that_float32_could_not_tell_apart(tmp_path: Path) -> None:
    start = 1_700_000_000
    text = "t,tiny,y\n" + "".join(f"{start + k},{k % 7}e-20,{k}.5\n" for k in range(50))
    data = table(csv(tmp_path, text))
    assert data.columns == (f"t - {start + 1}", "tiny × 1e+20") or data.columns[0].startswith(
        "t - "
    )
    assert len(x_of(data)[:, 0].unique()) == len(data.train)
    assert float(x_of(data)[:, 1].max()) == 6.0


# Refusals


@pytest.mark.parametrize("word", ["", " ", "NA", "nan", "?", "NULL"])
def test_missing_values_are_named_by_line_and_column(tmp_path: Path, word: str) -> None:
    for column, row in (("a", f"{word},x,4"), ("b", f"1,{word},4")):
        with pytest.raises(DataError, match=rf"line 3: the column '{column}' has no value") as e:
            table(csv(tmp_path, f"a,b,c\n1,x,2\n{row}\n"))
        assert "set `missing: impute` to fill holes in, `missing: drop` to leave" in str(e.value)
        assert "or name the column in `drop`" in str(e.value)
        assert "\n" not in str(e.value)


def test_all_holes_are_told_at_once(tmp_path: Path) -> None:
    text = "a,b,c,y\n" + "".join(
        f"{'' if k % 3 else k},{'NA' if k == 4 else 'x'},{k},{k}.5\n" for k in range(12)
    )
    with pytest.raises(DataError, match=r"of 12 rows a value is missing of 'a' in 8, 'b' in 1;"):
        table(csv(tmp_path, text))
    with pytest.raises(DataError, match="every row lacks a value; set `missing: impute`"):
        table(csv(tmp_path, "a,b,y\n1,,2.5\n,1,3.5\n"), missing="drop")


def test_rows_with_holes_are_dropped_with_a_word(tmp_path: Path) -> None:
    text = "a,y\n" + "".join(f"{'' if k % 5 == 2 else k},{k}.5\n" for k in range(50))
    data = table(csv(tmp_path, text), missing="drop")
    assert sum(len(s) for s in (data.train, data.validation, data.test)) == 40
    assert "10 of 50 rows are left out, as they lack a value of a." in data.notes
    assert data.columns == ("a",)


def test_holes_are_filled_from_the_training_rows_alone(tmp_path: Path) -> None:
    parts = ["train"] * 6 + ["test"] * 3
    values = ["1", "2", "", "9", "4", "1", "", "1000", "5"]
    colours = ["red", "", "blue", "blue", "red", "blue", "", "red", "red"]
    text = "part,a,colour,b,y\n" + "".join(
        f"{p},{v},{c},{'' if k == 7 else k},{k}.5\n"
        for k, (p, v, c) in enumerate(zip(parts, values, colours, strict=True))
    )
    data = table(csv(tmp_path, text), split="part", missing="impute", validation=0)
    assert data.columns == (
        "a", "a is missing", "colour=blue", "colour=red", "colour is missing", "b"
    )  # fmt: skip
    # The median of 1, 2, 9, 4 and 1 is 2; blue is there three times, and red twice. The hole of b
    # is in test alone, so that no column could teach what it means.
    assert x_of(data)[2].tolist() == [2, 1, 1, 0, 0, 2]
    assert x_of(data)[1].tolist() == [2, 0, 1, 0, 1, 1]
    assert x_of(data, "test").tolist() == [
        [2, 1, 1, 0, 1, 6], [1000, 0, 0, 1, 0, 2.5], [5, 0, 0, 1, 0, 8]
    ]  # fmt: skip


def test_rows_without_a_target_are_unlabelled_examples(tmp_path: Path) -> None:
    text = "a,b,y\n" + "".join(
        f"{k},{'u' if k % 2 else 'v'},{'' if k % 10 == 3 else k + 0.5}\n" for k in range(60)
    )
    data = table(csv(tmp_path, text))
    assert sum(len(s) for s in (data.train, data.validation, data.test)) == 54
    assert data.unlabelled is not None
    assert data.unlabelled.y is None
    assert leaves(data.unlabelled.x)[""][:, 0].tolist() == [3, 13, 23, 33, 43, 53]
    assert any("6 of 60 rows have no target and are kept as unlabelled" in n for n in data.notes)
    pool = build_sampler("pool", data, 0)
    drawn = leaves(pool(torch.arange(6)).x)[""]
    wanted = leaves(data.inputs(data.unlabelled.x))[""]
    assert torch.equal(drawn.sort(0).values, wanted.sort(0).values)
    with pytest.raises(RecipeError, match="as the data has no examples without a target"):
        build_sampler("pool", table(mixed(tmp_path)), 0)
    with pytest.raises(DataError, match="the column 'y', which target names, has no values"):
        table(csv(tmp_path, "a,b,y\n1,2.5,\n2,3.5,NA\n"))
    # A separator at the end of each line makes a column that nobody means.
    ends = csv(tmp_path, "a,y,\n" + "".join(f"{k},{k}.5,\n" for k in range(20)))
    assert table(ends).outputs == ("y",)


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
        ("a,b\n1,2\n1e39,3\n", "line 3: the column 'a' has 1e\\+39, which float32 cannot hold"),
        ("a,b\n1,2\n-inf,3\n", "line 3: the column 'a' has -inf, which float32 cannot hold"),
        ("1,2\n3,4\n", "first line has numbers where the names .* set `header: false`"),
        ("1,red\n2,blue\n", "such as '1'; if there are no names, set `header: false`, and if th"),
        ('a,b\n1.5,2\n"1,5",3\n', "has numbers with decimal commas and with decimal points"),
        ("a,b\n$1,2\n€2,3\n", "the column 'a' has numbers in \\$ and in €; bring them to one"),
        ("a;b\n1,234;2\n5,678;3\n", "'1,234', which may be 1.234 or 1234; set `decimal: ','`"),
        ("a,b\n01/02/2024,2.5\n", "dates such as '01/02/2024', which may be %d/%m/%Y or %m/%d/"),
        ("a,a\n1,2\n", "line 1: 'a' is there twice; each column needs a name of its own"),
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
        ({"target": ["row", "price"], "task": "classification"}, "or one column of classes"),
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
    with pytest.raises(DataError, match=r"path is '.*a.json'; it must name a .csv"):
        table(csv(tmp_path, "x", "a.json"))
    with pytest.raises(DataError, match=r"a.xlsx' cannot be read: .*; `sheet` is 0"):
        table(csv(tmp_path, "x", "a.xlsx"))
    (tmp_path / "a.csv").write_bytes(b"a,b\n\xff\xfe,1\n")
    with pytest.raises(DataError, match=r"a.csv' is no text in utf-8: .*; set `encoding`"):
        table(str(tmp_path / "a.csv"), encoding="utf-8")
    with pytest.raises(DataError, match="encoding is 'odd'; it must be a codec's name, such as"):
        table(str(tmp_path / "a.csv"), encoding="odd")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n" * 99)[:-20])
    with pytest.raises(DataError, match=r"a.csv.gz' cannot be read: "):
        table(str(tmp_path / "a.csv.gz"))
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


def test_polars_is_not_imported_for_other_data() -> None:
    code = (
        "import sys\nfrom extracurricular.data.sets import DATA\nDATA.build({'digits': {}})\n"
        "print('polars' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
