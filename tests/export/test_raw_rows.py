"""Exported graphs that take raw rows, and the code on a model card that asks them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image

import extracurricular as xcl
from extracurricular.data.encode import encode
from extracurricular.data.fields import Field, Fields
from extracurricular.errors import StorageError
from extracurricular.export import export_run
from extracurricular.export.raw_rows import raw_inputs, raw_row, with_raw_rows
from extracurricular.export.verify import session_of
from extracurricular.recipe.read import parse_recipe
from extracurricular.run.execute import execute
from tests.run.test_run import STEPS

REALS = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 3))
WORDS = st.sampled_from(["audi", "vw", "Ünique", "a b", "=", "mean", "x", "3"])


def passing(width: int) -> Any:
    """A graph that gives its input back."""
    made = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["mean"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", width])],
        [helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["N", width])],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@st.composite
def columns(draw: st.DrawFn) -> Fields:
    """Any columns."""
    made = []
    names = draw(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=4, unique=True))
    for name in names:
        kind = draw(st.sampled_from(["number", "date", "category"]))
        fills = draw(st.booleans())
        more: dict[str, Any] = {"indicator": fills and draw(st.booleans())}
        if kind == "category":
            categories = draw(st.lists(WORDS, min_size=1, max_size=4, unique=True))
            more |= {"categories": tuple(categories), "fill": categories[0] if fills else None}
        elif kind == "date":
            more |= {"parts": draw(st.booleans()), "clock": draw(st.booleans())}
            more |= {"fill": 12_345.0 if fills else None, "origin": 10_000.0}
        else:
            more |= {"fill": draw(REALS) if fills else None, "origin": draw(REALS)}
            more |= {"factor": draw(st.sampled_from([1.0, 1e-9, 1e9]))}
        made.append(Field(name, kind, **more))
    absent = draw(st.lists(st.sampled_from([-999.0, 0.1]), max_size=2, unique=True))
    return Fields(tuple(made), (), ("", "na", "n/a"), tuple(absent), (("volkswagen", "vw"),))


def value(draw: st.DrawFn, field: Field, fields: Fields) -> Any:
    if field.fill is not None and draw(st.integers(0, 3)) == 0:
        return None
    if field.kind == "category":
        return draw(st.one_of(WORDS, st.sampled_from([*field.categories, "volkswagen", "other"])))
    if field.kind == "date":
        return draw(st.floats(0, 30_000).map(lambda days: round(days, 4 if field.clock else 0)))
    if field.fill is not None and fields.missing_numbers:
        return draw(st.one_of(REALS, st.sampled_from(fields.missing_numbers)))
    return draw(
        REALS.filter(lambda real: np.float32(real) not in (np.float32(-999), np.float32(0.1)))
    )


def asked(fields: Fields, rows: list[dict[str, Any]]) -> np.ndarray[Any, Any]:
    """The inputs that the graph makes of rows."""
    made = with_raw_rows(passing(len(fields.columns)), fields)
    empty = {"category": "", "number": math.nan, "date": math.nan}
    raw = {
        name: np.array(
            [[empty[field.kind] if row[field.name] is None else row[field.name]] for row in rows],
            object if field.kind == "category" else np.float64,
        )
        for field, name in zip(fields.inputs, raw_inputs(fields).values(), strict=True)
    }
    [found] = session_of(made.SerializeToString()).run(["mean"], raw)
    return np.asarray(found)


def frame(fields: Fields, rows: list[dict[str, Any]]) -> pl.DataFrame:
    """The same rows as a data frame, dates as dates."""
    made = {}
    for field in fields.inputs:
        values = [row[field.name] for row in rows]
        if field.kind == "date":
            micro = [None if v is None else round(v * 86_400e6) for v in values]
            made[field.name] = pl.Series(micro, dtype=pl.Int64).cast(pl.Datetime("us"))
        else:
            kind: Any = pl.String if field.kind == "category" else pl.Float64
            made[field.name] = pl.Series(values, dtype=kind)
    return pl.DataFrame(made)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_graph_encodes_raw_rows_as_training_did(data: st.DataObject) -> None:
    fields = data.draw(columns())
    rows = [
        {field.name: value(data.draw, field, fields) for field in fields.inputs} for _ in range(3)
    ]  # fmt: skip
    wanted = encode(fields, frame(fields, rows))
    found = asked(fields, rows)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=2e-6)
    exact = [k for k, name in enumerate(fields.columns) if "sine of" not in name]
    dates = [k for k in exact if fields.columns[k].endswith(" in days")]
    sure = [k for k in exact if k not in dates]
    np.testing.assert_array_equal(found[:, sure], wanted[:, sure])


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_raw_row_becomes_the_input_that_it_was_made_of(data: st.DataObject) -> None:
    fields = data.draw(columns())
    row = {field.name: value(data.draw, field, fields) for field in fields.inputs}
    x = encode(fields, frame(fields, [row]))
    back = raw_row(fields, x[0])
    given_back = {
        name: None if isinstance(v, float) and math.isnan(v) else v for name, v in back.items()
    }
    np.testing.assert_allclose(asked(fields, [given_back]), x, rtol=2e-6, atol=2e-6)


def test_columns_may_be_called_as_anything_in_the_graph() -> None:
    names = ("x", "mean", "variance", "probs", "Identity", "network/x", "N")
    fields = Fields(tuple(Field(name, "number") for name in names))
    row = {name: float(k) for k, name in enumerate(names)}
    assert asked(fields, [row]).tolist() == [[0, 1, 2, 3, 4, 5, 6]]
    assert raw_inputs(fields)["mean"] == "mean (input)"


# -- a whole way ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on a table with a hole, dates, a price and a category."""
    folder = tmp_path_factory.mktemp("cars")
    rng = np.random.default_rng(0)
    count = 200
    brand = rng.choice(["audi", "vw", ""], count)
    days = rng.integers(0, 3000, count)
    seen = [str(np.datetime64("2015-01-01") + int(day)) for day in days]
    km = rng.integers(0, 200_000, count)
    price = 9000 * (brand == "audi") + 3.0 * days - 0.02 * km + rng.normal(0, 50, count)
    lines = ["brand,seen,km,mean,price"]
    lines += [
        f"{b},{s},{'' if k % 17 == 0 else k},{k % 7},{p:.2f}"
        for b, s, k, p in zip(brand, seen, km, price, strict=True)
    ]
    (folder / "cars.csv").write_text("\n".join(lines) + "\n")
    execute(
        parse_recipe(
            {
                "schema": 1,
                "name": "cars",
                "data": {
                    "table": {
                        "path": str(folder / "cars.csv"), "target": "price", "test": 0.2,
                        "validation": 0, "missing": "impute",
                    }
                },
                "seeds": [0],
                "teacher": {"model": {"mlp": {"hidden": [8]}}, "training": {"steps": STEPS}},
                "defaults": {"model": {"mlp": {"hidden": [4]}}, "training": {"steps": STEPS}},
                "students": {"kd": {}},
            }
        ),
        folder / "run",
    )  # fmt: skip
    return folder / "run"


def test_the_card_of_a_table_asks_about_a_raw_row(
    cars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = export_run(cars, tmp_path / "kd.onnx")
    assert [file.name for file in shipped.files] == [
        *("kd.onnx", "kd.rows.onnx", "metadata.json", "README.md"),
    ]
    says = shipped.metadata["files"]["kd.rows.onnx"]
    assert says["verified"]
    assert says["difference"] < 1e-4
    assert says["rows"]["mean"] == "mean (input)"
    [snippet] = re.findall(r"```python\n(.*?)```", shipped.files[-1].read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(snippet, found)
    predictor = xcl.load(tmp_path)
    row = {key.removesuffix(" (input)"): one for key, one in found["row"].items()}
    row["seen"] = np.datetime64("1970-01-01") + np.timedelta64(int(row["seen"]), "D")
    wanted: Any = predictor.predict(row)
    assert found["mean"] == pytest.approx(wanted.mean, rel=1e-4)
    assert found["variance"] == pytest.approx(wanted.std**2, rel=1e-3)
    with pytest.raises(StorageError, match="takes raw rows in onnxruntime; load the file beside"):
        xcl.load(tmp_path / "kd.rows.onnx")
    kept = json.loads((tmp_path / "metadata.json").read_text())
    assert [one["name"] for one in kept["reading"]["columns"]["inputs"]] == list(says["rows"])
    onnx.checker.check_model(onnx.load(tmp_path / "kd.rows.onnx"))


@pytest.mark.parametrize(("channels", "suffix"), [(3, "png"), (1, "png")])
def test_the_card_of_images_asks_about_a_photograph(
    channels: int, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for kind, shade in (("ant", 60), ("bee", 190)):
            folder = tmp_path / "photos" / split / kind
            folder.mkdir(parents=True)
            for number in range(6):
                pixels = rng.integers(shade - 50, shade + 50, (13 + number, 17, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.{suffix}")
    settings = {"path": str(tmp_path / "photos"), "size": 8, "centre": 0.8, "channels": channels}
    execute(
        parse_recipe(
            {
                "schema": 1,
                "name": "photos",
                "data": {"imagefolder": settings},
                "seeds": [0],
                "teacher": {"model": {"mlp": {"hidden": [8]}}, "training": {"steps": 3}},
                "defaults": {"model": {"mlp": {"hidden": [4]}}, "training": {"steps": 3}},
                "students": {"kd": {}},
            }
        ),
        tmp_path / "run",
    )
    shipped = export_run(tmp_path / "run", tmp_path / "out" / "kd.onnx")
    [snippet] = re.findall(r"```python\n(.*?)```", shipped.files[-1].read_text(), re.DOTALL)
    photograph = Image.fromarray(rng.integers(0, 256, (90, 61, 3), dtype=np.uint8))
    photograph.save(tmp_path / "out" / "photograph.png")
    monkeypatch.chdir(tmp_path / "out")
    found: dict[str, Any] = {}
    exec(snippet.replace("photograph.jpg", "photograph.png"), found)
    wanted: Any = xcl.load(tmp_path / "run").predict(str(tmp_path / "out" / "photograph.png"))
    assert found["probs"] == pytest.approx(np.asarray(wanted.probs), abs=1e-4)


def test_a_table_of_one_column_that_is_called_x_is_loaded(tmp_path: Path) -> None:
    """Its file for raw rows takes the same name, in another type."""
    lines = ["x,y"] + [f"{k * 37 % 101},{2.5 * (k * 37 % 101) + 1}" for k in range(120)]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    execute(
        parse_recipe(
            {
                "schema": 1,
                "name": "line",
                "data": {"table": {"path": str(tmp_path / "t.csv"), "target": "y"}},
                "seeds": [0],
                "teacher": {"model": {"mlp": {"hidden": [4]}}, "training": {"steps": 3}},
                "defaults": {"model": {"mlp": {"hidden": [4]}}, "training": {"steps": 3}},
                "students": {"kd": {}},
            }
        ),
        tmp_path / "run",
    )
    export_run(tmp_path / "run", tmp_path / "out" / "kd.onnx")
    loaded, wanted = xcl.load(tmp_path / "out"), xcl.load(tmp_path / "run")
    rows = pl.DataFrame({"x": [1.0, 50.0]})
    np.testing.assert_allclose(loaded.predict(rows).mean, wanted.predict(rows).mean, rtol=1e-4)
    with pytest.raises(StorageError, match="takes raw rows"):
        xcl.load(tmp_path / "out" / "kd.rows.onnx")
