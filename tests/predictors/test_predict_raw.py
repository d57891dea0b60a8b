"""Predictions from raw rows and image files equal those from the inputs that training had."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from PIL import Image

import extracurricular as xcl
from extracurricular.data.base import Data
from extracurricular.data.encode import encode
from extracurricular.data.sets.imagefolder import imagefolder
from extracurricular.data.sets.table import table
from extracurricular.errors import DataError
from extracurricular.predictors.predict_files import UNLIKE, open_source, predicted
from extracurricular.predictors.predictor import Predictor
from extracurricular.predictors.raw_rows import take_rows

ROWS = 120
COLOURS = ["red", "green", "blue"]


def houses(count: int = ROWS, seed: int = 0) -> pl.DataFrame:
    """Rows with numbers in euros, holes, names and dates, and a real target."""
    g = np.random.default_rng(seed)
    age = g.integers(18, 80, count)
    return pl.DataFrame(
        {
            "age": [None if k % 7 == 3 else int(a) for k, a in enumerate(age)],
            "income": [f"{v:,.2f} €" for v in g.uniform(900, 9000, count)],
            "colour": [COLOURS[k % 3] for k in range(count)],
            "day": [f"{1 + k % 28:02d}.{1 + k % 12:02d}.2024" for k in range(count)],
            "price": (g.normal(0, 3, count) + age).round(3),
        }
    )


def learned(data: Data, **settings: Any) -> Predictor:
    teacher = {"random_forest": {"trees": 3}}
    return xcl.distill(teacher, {"mlp": {"hidden": [5]}}, data, steps=3, **settings)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    file = tmp_path_factory.mktemp("houses") / "houses.csv"
    houses().write_csv(file)
    return table(str(file), missing="impute", dates="parts")


@pytest.fixture(scope="module")
def model(data: Data) -> Predictor:
    return learned(data)


def same(found: xcl.Prediction, wanted: xcl.Prediction) -> None:
    np.testing.assert_array_equal(
        found.distribution.parameters.numpy(), wanted.distribution.parameters.numpy()
    )


def test_rows_in_any_form_equal_the_inputs_of_training(
    data: Data, model: Predictor, tmp_path: Path
) -> None:
    rows = houses()[[int(k) for k in data.ids["test"]]]
    assert isinstance(data.test.x, torch.Tensor)
    np.testing.assert_array_equal(encode(model.intake.fields, rows), data.test.x.numpy())  # type: ignore[arg-type]
    wanted = model(data.test.x)
    same(model.predict(rows), wanted)
    same(model.predict(rows.drop("price").to_pandas()), wanted)
    same(model.predict(pd.DataFrame(rows.to_dict(as_series=False))), wanted)
    same(model.predict(rows.to_dict(as_series=False)), wanted)
    same(model.predict(rows.select(reversed(rows.columns)).to_dicts()), wanted)
    rows.write_csv(tmp_path / "rows.csv")
    rows.write_parquet(tmp_path / "rows.parquet")
    same(model.predict(str(tmp_path / "rows.csv")), wanted)
    same(model.predict(tmp_path / "rows.parquet"), wanted)
    one = model.predict(rows.to_dicts()[4])
    np.testing.assert_allclose(one.mean, wanted.mean[4:5], rtol=1e-5)
    # Arrays are taken as before.
    same(model.predict(data.test.x.numpy()), wanted)
    same(model.predict({"x": data.test.x}), wanted)


def test_columns_are_those_of_a_raw_row(data: Data, model: Predictor) -> None:
    assert model.columns == ("age", "income", "colour", "day")
    assert model.input_columns == data.columns
    with pytest.raises(DataError, match="lack the columns income, colour, day"):
        model.predict({"age": [3]})
    with pytest.raises(DataError, match="row 0: the column 'age' has 'old'"):
        model.predict({"age": "old", "income": "3 €", "colour": "red", "day": "01.02.2024"})


def test_saved_and_exported_students_take_rows_too(
    data: Data, model: Predictor, tmp_path: Path
) -> None:
    rows = houses()[[int(k) for k in data.ids["test"]]]
    model.save(tmp_path / "saved")
    saved = xcl.load(tmp_path / "saved")
    same(saved.predict(rows), model.predict(rows))
    assert saved.columns == model.columns
    pytest.importorskip("onnx")
    model.export(tmp_path / "out" / "student.onnx")
    for place in (tmp_path / "out", tmp_path / "out" / "student.onnx"):
        exported = xcl.load(place)
        assert exported.columns == model.columns
        same(exported.predict(rows), exported.predict(data.test.x))
        np.testing.assert_allclose(exported(rows).mean, model(rows).mean, rtol=1e-3)


def test_numbers_with_names_alone_are_taken_by_name() -> None:
    g = np.random.default_rng(1)
    x, y = g.normal(size=(80, 2)).astype(np.float32), g.integers(0, 2, 80)
    data = xcl.make_data("named", (x, y), (x[:20], y[:20]), columns=("b", "a"))
    known = learned(data)
    assert known.columns == ("b", "a")
    rows = pd.DataFrame({"a": x[:, 1], "c": 0, "b": x[:, 0]})
    same(known.predict(rows), known.predict(x))
    # Without names rows are taken by position, as they were.
    unnamed = learned(xcl.make_data("unnamed", (x, y), (x[:20], y[:20])))
    assert unnamed.columns == ()
    same(unnamed.predict(rows[["b", "a"]]), unnamed.predict(x))


def test_no_example_is_refused(model: Predictor, seeing: tuple[Data, Predictor]) -> None:
    for known in (model, seeing[1]):
        with pytest.raises(DataError):
            known.predict([])


def test_a_column_called_x_is_no_array() -> None:
    frame = pl.DataFrame({"x": np.arange(60.0), "y": np.arange(60) % 2})
    known = learned(xcl.from_frame(frame, "y"))
    wanted = known.predict(np.arange(5, dtype=np.float32)[:, None])
    same(known.predict({"x": [0, 1, 2, 3, 4]}), wanted)
    same(known.predict({"x": np.arange(5.0)}), wanted)
    same(known.predict({"x": np.arange(5.0)[:, None]}), wanted)


# Odd rows


def test_odd_rows_are_told_with_the_reason(data: Data) -> None:
    fields = data.fields
    assert fields is not None
    usual = {"age": 30, "income": "3,000.00 €", "colour": "red", "day": "03.04.2024"}
    cases: list[tuple[dict[str, Any], str, bool]] = [
        ({}, "", True),
        ({"age": None}, "", True),  # training had holes there, and learned from them
        ({"age": "300"}, "age is 300, and training had 18 to 78", True),
        ({"age": "abc"}, "age is 'abc', which is no number", False),
        ({"age": "inf"}, "age is inf, and training had 18 to 78", False),
        ({"income": None}, "income has no value", True),
        ({"colour": "violet"}, "colour is 'violet', which training did not have", True),
        ({"day": "03.04.2044"}, "day is 2044-04-03, and training had 2024-01-01 to", True),
        ({"day": "2024-04-03"}, "day is '2024-04-03', which is no date", False),
        ({"age": "-99", "colour": "?"}, "age is -99, and training had 18 to 78; colour has", True),
    ]
    frame = pl.DataFrame(
        [usual | change for change, _, _ in cases], schema=dict.fromkeys(usual, pl.String)
    )
    found = take_rows(fields, frame)
    for (change, why, usable), odd, able in zip(cases, found.odd, found.usable, strict=True):
        assert odd.startswith(why), change
        assert bool(odd) == bool(why), change
        assert able == usable, change
    assert torch.isfinite(found.x).all()
    good = frame.filter(pl.Series(found.usable))
    np.testing.assert_array_equal(found.x.numpy()[found.usable], encode(fields, good))


def test_a_missing_value_that_training_never_had_leaves_no_prediction(tmp_path: Path) -> None:
    frame = houses().drop("age")
    known = learned(xcl.from_frame(frame, "price"))
    file = tmp_path / "rows.csv"
    frame.with_columns(colour=pl.when(pl.arange(0, ROWS) != 5).then("colour")).write_csv(file)
    [answers] = predicted(known, open_source(known, file))
    assert answers.filter(pl.col("price_mean").is_null())["row"].to_list() == [5]
    assert answers[UNLIKE][5] == "colour has no value"
    whole = known.predict(frame).mean[:, 0]
    np.testing.assert_array_equal(
        np.delete(answers["price_mean"].to_numpy(), 5), np.delete(whole, 5)
    )


# Many rows


def test_blocks_change_no_bit(data: Data, model: Predictor, tmp_path: Path) -> None:
    """Files of many forms, cut into blocks, give what one call on all rows gives."""
    frame = houses(20_000, seed=2)
    wanted = model.predict(frame)
    frame.write_csv(tmp_path / "all.csv")
    frame.write_csv(tmp_path / "all.tsv", separator="\t")
    frame.write_parquet(tmp_path / "all.parquet", row_group_size=1000)
    for k in range(3):
        frame[7000 * k : 7000 * (k + 1)].write_csv(tmp_path / f"part-{k}.csv")
    for name in ("all.csv", "all.tsv", "all.parquet", "part-*.csv"):
        source = open_source(model, tmp_path / name)
        blocks = list(predicted(model, source))
        # Memory is that of a block, however many rows there are.
        assert [block.height for block in blocks] == [8192, 8192, 20_000 - 2 * 8192]
        found = pl.concat(blocks)
        assert source.count == found.height == 20_000
        assert found["row"].to_list() == list(range(20_000))
        np.testing.assert_array_equal(found["price_mean"], wanted.mean[:, 0])
        np.testing.assert_array_equal(found["price_std"], wanted.std[:, 0])
        for mass in (50, 90):
            low, high = wanted.interval(mass / 100)
            np.testing.assert_array_equal(found[f"price_low{mass}"], low[:, 0])
            np.testing.assert_array_equal(found[f"price_high{mass}"], high[:, 0])
        assert found[UNLIKE].null_count() == 20_000


def test_files_of_other_columns_are_told(model: Predictor, tmp_path: Path) -> None:
    frame = houses(10)
    frame.write_csv(tmp_path / "part-0.csv")
    frame.drop("day").write_csv(tmp_path / "part-1.csv")
    with pytest.raises(DataError, match="differ in the columns day"):
        list(predicted(model, open_source(model, tmp_path / "part-*.csv")))


def test_the_way_a_table_is_written_is_remembered(tmp_path: Path) -> None:
    lines = [f"{k % 9};{k % 5};{k % 2}" for k in range(80)]
    (tmp_path / "plain.txt").write_text("a remark\n" + "\n".join(lines) + "\n")
    known = learned(table(str(tmp_path / "plain.txt"), skip=1, header=False, separator=";"))
    known.save(tmp_path / "saved")
    loaded = xcl.load(tmp_path / "saved")
    assert loaded.columns == ("0", "1")
    wanted = known.predict(np.array([[k % 9, k % 5] for k in range(80)], np.float32))
    same(loaded.predict(tmp_path / "plain.txt"), wanted)


# Disagreement


def test_members_of_an_ensemble_disagree(data: Data, model: Predictor) -> None:
    rows = houses()
    x = model.read(rows)
    assert model.epistemic(x) is None
    one, two = learned(data), learned(data, seed=1)

    def members(parts: dict[str, torch.Tensor]) -> list[Any]:
        return [one.ask(parts), two.ask(parts)]

    both = Predictor(
        "both", data.task, model.inputs, lambda parts: xcl.mixture(members(parts)),
        outputs=data.outputs, input_columns=data.columns, reading=data.reading, members=members,
    )  # fmt: skip
    apart = both.epistemic(x)
    assert apart is not None
    wanted = np.abs(one(rows).mean - two(rows).mean) / 2
    np.testing.assert_allclose(apart, wanted, rtol=1e-4, atol=1e-6)


# Images


@pytest.fixture(scope="module")
def seeing(photos: Path) -> tuple[Data, Predictor]:
    data = imagefolder(str(photos), size=8, centre=0.75)
    return data, learned(data)


def test_image_files_of_any_size_equal_the_images_of_training(
    seeing: tuple[Data, Predictor], photos: Path, tmp_path: Path
) -> None:
    data, model = seeing
    names = [str(name) for name in data.ids["test"]]
    wanted = model(data.test.x)
    same(model.predict([photos / name for name in names]), wanted)
    same(model.predict([str(photos / name) for name in names]), wanted)
    assert model.classes == data.classes
    (tmp_path / "list.txt").write_text("\n".join(str(photos / name) for name in names))
    same(model.predict(tmp_path / "list.txt"), wanted)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in names:
            archive.write(photos / name, name)
        archive.writestr("__MACOSX/class0/._000.jpg", b"no image")
        archive.writestr("notes.md", b"no image")
    order = np.argsort(names)
    same(model.predict(tmp_path / "all.zip"), model(data.test.x[order]))  # type: ignore[index]
    alone = model.predict(photos / names[0]).probs
    np.testing.assert_allclose(alone, wanted.probs[:1], rtol=1e-5)
    with Image.open(photos / names[0]) as image:
        before = image.size
        np.testing.assert_allclose(model.predict(image).probs, alone, atol=0.05)
        assert image.size == before


def test_a_folder_with_a_damaged_image_is_predicted_but_for_that(
    seeing: tuple[Data, Predictor], photos: Path, tmp_path: Path
) -> None:
    data, model = seeing
    for k, name in enumerate(data.ids["test"][:3]):
        (tmp_path / f"{k}.jpg").write_bytes((photos / str(name)).read_bytes())
    (tmp_path / "1.jpg").write_bytes(b"no image")
    [found] = predicted(model, open_source(model, tmp_path))
    assert found["file"].to_list() == ["0.jpg", "1.jpg", "2.jpg"]
    assert found["class"].is_null().to_list() == [False, True, False]
    assert "the image cannot be read" in found[UNLIKE][1]
    assert found.columns[1:-2] == ["class", *(f"p_{name}" for name in data.classes)]
    with pytest.raises(DataError, match=r"1\.jpg' cannot be read"):
        model.predict(tmp_path)


def test_a_model_of_images_without_a_view_takes_files_of_its_size(tmp_path: Path) -> None:
    from tests.conftest import image_data

    data = image_data()
    model = learned(data)
    assert isinstance(data.test.x, torch.Tensor)
    for k in range(3):
        Image.fromarray(data.test.x[k, 0].numpy()).save(tmp_path / f"{k}.png")
    same(model.predict(tmp_path), model(data.test.x[:3]))
    [found] = predicted(model, open_source(model, tmp_path))
    np.testing.assert_array_equal(found["p_1"], model(data.test.x[:3]).probs[:, 1])
    Image.new("L", (9, 8)).save(tmp_path / "3.png")
    with pytest.raises(DataError, match="9 × 8"):
        model.predict(tmp_path)
