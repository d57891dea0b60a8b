"""The description of columns: fitted on training rows, kept as JSON, and true to one row alone."""

from __future__ import annotations

import datetime
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from extracurricular.data.base import Data
from extracurricular.data.encode import encode, fit_field, labels, unlike
from extracurricular.data.fields import Field, Fields
from extracurricular.data.formats.columns import Reading
from extracurricular.data.formats.tables import read_raw
from extracurricular.data.sets.table import from_frame, table
from extracurricular.data.texts import NumberForm
from extracurricular.errors import DataError
from extracurricular.inputs import leaves
from tests.data import test_warts as warts


def made(folder: Path, text: str | None = None, **settings: Any) -> tuple[Data, Fields, str]:
    path = warts.saved(folder / "clean.csv", text or warts.text(warts.rows()))
    data = table(path, missing="impute", **settings)
    assert data.fields is not None
    return data, data.fields, path


def whole(data: Data) -> np.ndarray[Any, Any]:
    """All inputs, in no order."""
    parts = [data.train, data.validation, data.test]
    parts += [] if data.unlabelled is None else [data.unlabelled]
    return np.concatenate([leaves(part.x)[""].numpy() for part in parts])


def same_rows(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    order = [np.lexsort(v.T) for v in (one, other)]
    return bool(np.array_equal(one[order[0]], other[order[1]]))


@pytest.mark.parametrize("dates", ["days", "parts"])
def test_raw_rows_of_the_file_become_the_inputs_of_training(tmp_path: Path, dates: Any) -> None:
    data, fields, path = made(tmp_path, dates=dates)
    assert fields.columns == data.columns
    raw = read_raw(Path(path), Reading(), fields.texts).frame
    assert same_rows(encode(fields, raw), whole(data))


def test_a_row_does_not_depend_on_the_rows_beside_it(tmp_path: Path) -> None:
    _, fields, path = made(tmp_path)
    raw = read_raw(Path(path), Reading(), fields.texts).frame
    together = encode(fields, raw)
    for k in range(0, len(together), 7):
        assert np.array_equal(encode(fields, raw[k : k + 1])[0], together[k])
        assert np.array_equal(encode(fields, raw.row(k, named=True))[0], together[k])
    shuffled = np.random.default_rng(0).permutation(len(together))
    assert np.array_equal(encode(fields, raw[shuffled]), together[shuffled])


def test_rows_in_every_form(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    _, fields, _ = made(tmp_path)
    row = {"width": 1.25, "weight": 1000.5, "share": 3, "day": "2024-02-03", "city": "Köln"}
    wanted = encode(fields, row)
    other = row | {"day": datetime.date(2024, 2, 3), "extra": "passed over"}
    for rows in (
        other,
        [row],
        {k: [v] for k, v in row.items()},
        pl.DataFrame([row]),
        pandas.DataFrame([other]),
        row | {"width": "1.25", "share": np.float32(3), "weight": "1000.5"},
        row | {"day": datetime.datetime(2024, 2, 3)},
        dict(reversed(row.items())),
    ):
        assert np.array_equal(encode(fields, rows), wanted), rows
    missing = encode(fields, row | {"width": None})
    assert np.array_equal(missing, encode(fields, row | {"width": "n/a"}))
    assert np.array_equal(missing, encode(fields, row | {"width": math.nan}))
    assert missing[0, fields.columns.index("width is missing")] == 1
    unknown = encode(fields, row | {"city": "Rome"})[0]
    assert not unknown[[k for k, c in enumerate(fields.columns) if c.startswith("city=")]].any()


def test_a_description_survives_json_to_the_last_bit(tmp_path: Path) -> None:
    cells = warts.mapped(lambda c: warts.grouped(c, ".", ",") + " €", 1, 5)
    _, fields, _ = made(tmp_path, warts.text(cells), rename={"Köln": "Cologne"})
    again = Fields.load(json.loads(json.dumps(fields.dump())))
    assert again == fields
    assert fields.inputs[1].units == "€"
    odd = Field("a", "number", fill=0.1 + 0.2, origin=math.pi * 1e9, low=5e-324, high=1.7e308)
    assert Fields.load(json.loads(json.dumps(Fields((odd,)).dump()))).inputs == (odd,)
    for damage in ({}, {"inputs": [{"name": "a"}]}, {"inputs": [{"name": "a", "kind": "x"}]}):
        with pytest.raises(DataError, match="the description of the columns is damaged"):
            Fields.load(damage)
    with pytest.raises(DataError, match="unknown key 'more'"):
        Fields.load({"inputs": [{"name": "a", "kind": "number", "more": 1}]})


def test_units_and_commas_of_training_are_known_for_one_row(tmp_path: Path) -> None:
    cells = warts.mapped(lambda c: warts.grouped(c, ".", ",") + " €", 1, 5)
    _, fields, _ = made(tmp_path, warts.text(cells))
    row = {"width": 1, "weight": "1.234,00 €", "share": 3, "day": "2024-02-03", "city": "Köln"}
    # Alone, 1.234 could be a little more than one.
    assert np.array_equal(encode(fields, row), encode(fields, row | {"weight": 1234.0}))
    assert np.array_equal(encode(fields, row | {"weight": "1.234"}), encode(fields, row))


def test_rows_that_cannot_be_read(tmp_path: Path) -> None:
    path = warts.saved(
        tmp_path / "a.csv", "a,when,k,y\n" + "1,2024-01-02,u,2.5\n2,2024-01-03,v,3.5\n" * 9
    )
    fields = table(path).fields
    assert fields is not None
    row = {"a": 1, "when": "2024-01-02", "k": "u"}
    for change, says in (
        ({"a": "one"}, "row 0: the column 'a' has 'one'; it must have numbers"),
        ({"when": "soon"}, "the column 'when' has 'soon'; it must have dates of the form %Y-%m-%d"),
        ({"a": None}, "row 0: the column 'a' has no value, and training had none to learn from"),
        ({"k": ""}, "row 0: the column 'k' has no value"),
        ({"a": datetime.date(2024, 1, 2)}, "the column 'a' has Date; it must have numbers"),
    ):
        with pytest.raises(DataError, match=says):
            encode(fields, row | change)
    with pytest.raises(
        DataError, match="the rows lack the columns when, k; they must have a, when,"
    ):
        encode(fields, {"a": 1})
    with pytest.raises(
        DataError, match="they must be a data frame of pandas or polars, a dict, or"
    ):
        encode(fields, 3)


def test_targets_of_raw_rows(tmp_path: Path) -> None:
    data, fields, _ = made(tmp_path, target="city")
    rows = {"city": ["São Paulo", "Köln"]}
    assert labels(fields, rows).tolist() == [data.classes.index(c) for c in rows["city"]]
    with pytest.raises(DataError, match="row 0: the target 'city' is 'Rome'; it must be one of Kö"):
        labels(fields, {"city": ["Rome"]})
    fields = made(tmp_path, target=["price", "share"])[1]
    assert labels(fields, {"price": ["2.5", "3"], "share": [1, 2]}).tolist() == [[2.5, 1], [3, 2]]
    with pytest.raises(DataError, match="row 1: the target 'price' is missing"):
        labels(fields, {"price": ["2.5", ""], "share": [1, 2]})


def test_what_is_unlike_training_is_told_by_column(tmp_path: Path) -> None:
    _, fields, path = made(tmp_path)
    raw = read_raw(Path(path), Reading(), fields.texts).frame
    assert unlike(fields, raw) == {}
    row = {"width": None, "weight": 1e9, "share": None, "day": "1999-02-03", "city": "Rome"}
    found = unlike(fields, [row, raw.row(0, named=True)])
    # Training had holes in width, so that a hole there is nothing new.
    assert {k: v.tolist() for k, v in found.items()} == {
        name: [True, False] for name in ("weight", "share", "day", "city")
    }


def test_a_field_knows_the_training_values() -> None:
    values = pl.Series("a", [3.0, None, 1.0, 10.0, 2.0])
    field = fit_field("a", values, "number", impute=True)
    assert (field.fill, field.indicator, field.low, field.high) == (2.5, True, 1, 10)
    assert fit_field("a", values, "number").fill is None
    texts = pl.Series("k", ["b", "a", None, "b", "a"])
    # Of values that are there equally often, the first is taken.
    assert fit_field("k", texts, "text", impute=True).fill == "a"
    assert fit_field("k", pl.Series("k", ["10", "9"]), "text").categories == ("9", "10")
    with pytest.raises(DataError, match="the column 'a' has no value in the training rows; name"):
        fit_field("a", pl.Series("a", [None], dtype=pl.Float64), "number")
    form = NumberForm(",", ".", "€")
    assert fit_field("a", values, "number", form).units == "€"


def test_frames_keep_the_order_of_their_columns_and_their_types() -> None:
    g = np.random.default_rng(0)
    frame = pl.DataFrame(
        {"z": g.normal(size=50), "flag": g.integers(0, 2, 50) == 1, "a": g.integers(0, 9, 50)}
    ).with_columns(y=pl.col("z") * 2)
    data = from_frame(frame, name="mine", test=0.4, seed=3)
    assert data.name == "mine"
    assert data.columns == ("z", "flag", "a")
    assert len(data.test) == 20
    assert set(leaves(data.train.x)[""][:, 1].tolist()) == {0.0, 1.0}
    assert data.train.y is not None
    assert torch.allclose(data.train.y[:, 0], leaves(data.train.x)[""][:, 0] * 2)
    with pytest.raises(DataError, match="the frame 'mine' has no column 'x', which target names"):
        from_frame(frame, "x", name="mine")
