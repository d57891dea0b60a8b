"""What `xcl data` sees, what it calls suspicious, and how that looks."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from extracurricular.assess.survey import survey
from extracurricular.cli.survey_table import lines, number, sheet
from extracurricular.data.base import Data, Split, make_data
from extracurricular.distributions import Task
from extracurricular.errors import DataError
from extracurricular.inputs import leaves
from tests.cli.called import xcl
from tests.conftest import eye_data, image_data, table_data

Array = np.ndarray[Any, Any]


def text(data: Data) -> str:
    console = Console(file=io.StringIO(), width=160)
    for line in lines(data, survey(data)):
        console.print(line)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def clean(count: int = 60) -> tuple[Array, Array]:
    g = np.random.default_rng(5)
    return g.normal(3, 2, (count, 4)).astype(np.float32), np.arange(count) % 3


def made(x: Array, y: Array, **settings: Any) -> Data:
    third = len(x) // 3
    parts = [(x[k * third : (k + 1) * third], y[k * third : (k + 1) * third]) for k in range(3)]
    return make_data("mine", parts[0], parts[2], parts[1], **settings)


def suspicious(data: Data) -> str:
    return "\n".join(survey(data).suspicious)


def test_what_there_is() -> None:
    x, y = clean()
    data = made(x, y, columns=["a", "b", "c", "d"], classes=["ant", "bee", "cow"])
    found = survey(data)
    assert found.sizes == {"train": 20, "validation": 20, "test": 20}
    [(name, shape, dtype, values)] = found.inputs
    assert (name, shape, dtype) == ("", (4,), torch.float32)
    assert [v.name for v in values] == ["a", "b", "c", "d"]
    for k, v in enumerate(values):
        column = x[:20, k]
        wanted = column.min(), column.mean(), column.max(), column.std()
        np.testing.assert_allclose([v.low, v.mean, v.high, v.deviation], wanted, rtol=1e-5)
    assert found.counts == {"train": [7, 7, 6], "validation": [7, 6, 7], "test": [6, 7, 7]}
    assert found.targets == {}
    assert found.suspicious == []
    shown = text(data)
    for word in ("mine", "classification, 3 classes", "33.3 %", "ant", "Nothing suspicious"):
        assert word in shown


def test_images_by_channel() -> None:
    data = image_data(channels=3)
    [(_, shape, dtype, values)] = survey(data).inputs
    assert (shape, dtype) == ((3, 8, 8), torch.uint8)
    x = leaves(data.train.x)[""].double()
    assert [v.name for v in values] == ["red", "green", "blue"]
    for k, v in enumerate(values):
        assert v.mean == pytest.approx(float(x[:, k].mean()))
        assert v.deviation == pytest.approx(float(x[:, k].std(correction=0)))
    assert [name for name, *_ in survey(eye_data()).inputs] == ["eye", "pose"]


def test_targets_in_their_own_units() -> None:
    data = table_data()
    found = survey(data)
    assert data.train.y is not None
    assert found.targets["train"][1].high == pytest.approx(float(data.train.y[:, 1].max()))
    assert set(found.targets) == {"train", "validation", "test"}
    assert "regression, 2 targets" in text(data)
    shown = text(replace(eye_data(), outputs=("pitch", "yaw")))
    assert "2 columns" in shown
    degrees = float(torch.rad2deg(eye_data().train.y[:, 0].max()))  # type: ignore[index]
    assert "pitch °" in shown
    assert f"{degrees:.4g}" in shown


def test_many_classes_are_told_shortly() -> None:
    x, y = np.arange(300, dtype=np.float32)[:, None], np.arange(300) % 50
    shown = text(made(x, y))
    assert "Each class has 2 in train, 2 in validation, 2 in test." in shown
    y[:30] = 0
    shown = text(made(x, y))
    assert "… 38 more" in shown


def test_numbers_are_short() -> None:
    values = (0, 1 / 3, -1234.5, 123456.7, -9.87654e12, 1.5e-7, 0.1)
    wanted = ["0", "0.3333", "-1,234", "123,457", "-9.877e+12", "1.5e-07", "0.1"]
    assert [number(v) for v in values] == wanted


# Suspicious


def test_constant_columns_and_odd_bytes() -> None:
    x, y = clean()
    x[:, 2] = 7
    assert "column 2 (7) is constant in training, so of no use." in suspicious(made(x, y))
    bits = np.random.default_rng(0).integers(0, 2, (60, 1, 8, 8)).astype(np.uint8)
    assert "The bytes of the images are all 0 or 1" in suspicious(made(bits, y))


def test_examples_that_are_there_twice() -> None:
    x, y = clean()
    x[7], x[9] = x[3], x[3]
    x[25] = x[6]
    x[41], x[43] = x[5], x[26]
    y[41] = (y[5] + 1) % 3
    y[7] = y[9] = y[3]
    y[25], y[43] = y[6], y[26]
    assert survey(made(x, y)).suspicious == [
        "2 of 20 examples in train repeat another of train; the first is 7, which equals 3.",
        "1 of 20 examples in test are in train too; the first is 1, which equals 5 there.",
        "1 of 20 examples in validation are in train too; the first is 5, which equals 6 there.",
        "1 of 20 examples in test are in validation too; the first is 3, which equals 6 there.",
        "1 examples have another label than an equal example before them; "
        "one is test 1, which equals train 5.",
    ]


def test_an_example_is_all_of_its_inputs() -> None:
    data = eye_data()
    assert isinstance(data.train.x, dict)
    eye, pose = data.train.x["eye"].clone(), data.train.x["pose"].clone()
    eye[3] = eye[4]
    told = suspicious(replace(data, train=Split({"eye": eye, "pose": pose}, data.train.y)))
    assert "repeat another of train" not in told
    pose[3] = pose[4]
    told = suspicious(replace(data, train=Split({"eye": eye, "pose": pose}, data.train.y)))
    assert "repeat another of train; the first is 4, which equals 3." in told


def test_values_and_labels_that_cannot_be() -> None:
    x, y = clean()
    data = made(x, y)
    bad_x = torch.from_numpy(x[:20].copy())
    bad_x[2, 1], bad_x[3, 1] = float("nan"), float("inf")
    bad_y = torch.tensor(y[:20])
    bad_y[4], bad_y[5] = 9, -1
    told = suspicious(replace(data, train=Split(bad_x, bad_y)))
    assert "2 values of x in train are not finite." in told
    assert "2 labels in train are outside of 0 to 2." in told


def test_classes_and_splits_that_are_odd() -> None:
    x, _ = clean(90)
    y = np.array([0] * 28 + [1, 1] + [0, 2] * 30)
    told = suspicious(made(x, y, task=Task("classification", 3), classes=["ant", "bee", "cow"]))
    assert "These classes have no training examples: cow." in told
    assert "The classes are unequal: ant has 28 training examples, bee has 2;" in told
    x, y = clean()
    assert "There is no validation split" in suspicious(make_data("a", (x, y), (x + 1, y)))
    reals = np.ones(60) * 2.5
    reals[:20] = np.arange(20)
    assert "The target target is 2.5 in all of test." in suspicious(made(x, reals))


def test_values_far_away() -> None:
    x, y = clean()
    x[45, 1] = 1e4
    told = suspicious(made(x, y, columns=["a", "b", "c", "d"]))
    assert "In test, b is once 10000, " in told
    assert "robust deviations from the median of training." in told
    # A value cannot hide behind the deviation that it makes itself, however few rows there are.
    x, y = clean(75)
    x[3, 2] = -999
    assert "In train, c is once -999, " in suspicious(made(x, y, columns=["a", "b", "c", "d"]))
    x[:, 2] = np.exp(np.random.default_rng(0).normal(size=75) * 2)
    assert survey(made(x, y)).suspicious == [], "long tails are no mistakes"


# Sheets


@pytest.mark.parametrize("data", [image_data(), image_data(channels=3), eye_data()])
def test_a_contact_sheet(data: Data) -> None:
    image = Image.open(io.BytesIO(sheet(data)))
    assert image.format == "PNG"
    assert image.width > 300
    few = replace(data, test=data.test[:1])
    assert Image.open(io.BytesIO(sheet(few))).size == image.size


def test_tables_have_no_contact_sheet() -> None:
    with pytest.raises(DataError, match="'table' has no images, so there is no contact sheet"):
        sheet(table_data())


# The command


def test_the_command(tmp_path: Path) -> None:
    done = xcl("data", "digits", "train=50", "--sheet", "contact.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("classification, 10 classes", "1 × 8 × 8", "Look at contact.png"):
        assert word in done.stdout
    assert (tmp_path / "contact.png").read_bytes()[:4] == b"\x89PNG"
    wrong = xcl("data", "table", "path=gone.csv", cwd=tmp_path)
    assert wrong.returncode == 2
    assert wrong.stderr == (
        f"error: the file {str(tmp_path / 'gone.csv')!r} does not exist; path must name a .csv "
        "(.tsv, .txt; also .gz or .zst), .parquet, .xlsx or .npz file, or several by a *\n"
    )
