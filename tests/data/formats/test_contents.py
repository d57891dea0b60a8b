"""Descriptions, checksums of contents, and sentences on what has changed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from extracurricular.data.base import Data, Split, make_data
from extracurricular.data.fields import Field, Fields
from extracurricular.data.formats import checksums as module
from extracurricular.data.formats.checksums import FILE, checksums
from extracurricular.data.formats.contents import changes, contents, ids_of
from extracurricular.data.formats.description import describe_data, read_description
from extracurricular.data.images.packed import Store
from extracurricular.data.sets.arrays import from_arrays
from extracurricular.data.sets.imagefolder import imagefolder
from extracurricular.inputs import leaves
from tests.conftest import eye_data, image_data, pair_data, photographs, table_data


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value, allow_nan=False))


def changed(known: Data, now: Data) -> list[str]:
    return changes(
        through_json(describe_data(known)),
        through_json(contents(known)),
        now,
        ids=through_json(ids_of(known)),
    )


# Descriptions


@pytest.mark.parametrize("make", [image_data, table_data, eye_data, pair_data])
def test_a_description_has_all_but_the_examples(make: Callable[[], Data]) -> None:
    fields = Fields((Field("a", "number", "cm", low=0.1, high=1 / 3),))
    reading = through_json({"columns": fields.dump()})
    data = replace(make(), fields=fields, reading=reading)
    found = read_description(through_json(describe_data(data)))
    for name in ("name", "task", "classes", "angular", "columns", "outputs", "reading", "fields"):
        assert getattr(found, name) == getattr(data, name), name
    assert found.shapes == data.shapes
    assert found.x_scale.keys() == data.x_scale.keys()
    for key, scale in data.x_scale.items():
        assert torch.equal(found.x_scale[key].shift, scale.shift)
        assert torch.equal(found.x_scale[key].scale, scale.scale)
    assert [v.dtype for v in leaves(found.train.x).values()] == [
        v.dtype for v in leaves(data.train.x).values()
    ]
    assert (len(found.train), found.train.y) == (1, None)
    assert describe_data(found) == describe_data(data)


def test_a_damaged_description_is_told() -> None:
    whole = describe_data(image_data())
    with pytest.raises(ValueError, match=r"task\.kind: is 'x'"):
        read_description(whole | {"task": {"kind": "x", "size": 2}})
    with pytest.raises(ValueError, match="the description of the columns is damaged"):
        read_description(whole | {"reading": {"columns": [{"name": "a"}]}})
    with pytest.raises(ValueError, match="classes has 2 names, but the student predicts 4"):
        read_description(whole | {"classes": ["a", "b"]})


# Contents


def test_contents_depend_on_values_labels_and_order_alone() -> None:
    x, y = np.arange(24.0).reshape(12, 2), np.arange(12) % 3
    known = contents(make_data("a", (x, y), (x[:4], y[:4])))
    assert contents(make_data("b", (x.copy(), y.copy()), (x[:4], y[:4]))) == known
    assert {part: one["count"] for part, one in known.items()} == {
        "train": 12, "validation": 0, "test": 4,
    }  # fmt: skip
    others = [(x + 0.001, y), (x, (y + 1) % 3), (x[::-1].copy(), y[::-1].copy())]
    for one in others:
        found = contents(make_data("a", one, (x[:4], y[:4])))
        assert found["train"]["sha256"] != known["train"]["sha256"]
        assert found["test"] == known["test"]


def test_each_change_is_told() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(80, 2)), rng.integers(0, 3, 80)

    def data(x: Any = x, y: Any = y, test: int = 20, **names: Any) -> Data:
        given = {"classes": ["ant", "bee", "cat"], "columns": ["x0", "x1"]} | names
        return make_data("t", (x, y), (x[:test], y[:test]), **given)

    known = data()
    assert changed(known, data()) == []
    assert changed(known, replace(data(), name="other")) == []
    assert changed(known, data(classes=["ant", "bee", "zebra"])) == [
        "class 'zebra' where there was 'cat'"
    ]
    assert changed(known, data(classes=["bee", "ant", "cat"])) == [
        "the class names are in another order"
    ]
    assert changed(known, data(columns=["x0", "y"])) == ["column 'y' where there was 'x1'"]
    assert changed(known, data(test=25)) == ["25 test rows where there were 20"]
    [clause] = changed(known, data(x=x * np.array([1, 1000])))
    assert clause.startswith("column 'x1' has another scale (deviation ")
    [clause] = changed(known, data(x=x + np.array([9, 0])))
    assert clause.startswith("column 'x0' has another scale (mean ")
    nearly = x.copy()
    nearly[70, 0] += 0.01
    assert changed(known, data(x=nearly)) == ["other train rows, as many as there were"]


def test_changes_of_images_and_targets_are_told() -> None:
    images = image_data()
    assert changed(images, image_data(size=9)) == [
        "inputs of [1, 9, 9] uint8 where they were [1, 8, 8] uint8"
    ]
    assert changed(images, image_data(classes=3)) == ["3 classes where there were 4"]
    assert changed(image_data(40), image_data(60)) == ["60 train images where there were 40"]
    dark = replace(
        images, x_scale={"": replace(images.x_scale[""], shift=images.x_scale[""].shift / 2)}
    )
    [clause] = changed(images, dark)
    assert clause.startswith("the images have another scale (mean ")
    table = table_data(outputs=1)
    assert table.y_scale is not None
    wide = replace(table, y_scale=replace(table.y_scale, scale=table.y_scale.scale * 3))
    [clause] = changed(table, wide)
    assert clause.startswith("target 0 has another scale")
    assert changed(image_data(), table_data()) != []


def test_examples_are_known_by_where_they_came_from() -> None:
    x, y = np.arange(40.0).reshape(20, 2), np.arange(20) % 2
    data = from_arrays(x, y)
    for part, ids in ids_of(data).items():
        split: Split = getattr(data, part)
        assert np.array_equal(np.asarray(split.x), x[ids].astype(np.float32))
    apart = from_arrays(x, y, test=(x[:3], y[:3]))
    assert sorted(apart.ids) == ["train", "validation"]


def test_streamed_images_are_known_by_the_content_of_their_files(tmp_path: Path) -> None:
    root = photographs(tmp_path / "a", each=8, classes=2)

    def data(path: Path) -> Data:
        return imagefolder(str(path), size=8, stream=True, workers=1)

    known = data(root)
    kept = contents(known)
    moved = Path(shutil.copytree(root, tmp_path / "b"))
    (moved / FILE).unlink()
    assert contents(data(moved)) == kept
    one = known.ids["train"][0]
    file = moved / str(one)
    content = bytearray(file.read_bytes())
    stat = file.stat()
    content[-3] ^= 1  # of the same name and size
    file.write_bytes(bytes(content))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    found = contents(data(moved))
    assert found["train"] != kept["train"]
    assert found["test"] == kept["test"]
    assert changed(known, data(moved)) == ["other train images, as many as there were"]


# Checksums of files


def test_checksums_are_made_again_only_where_a_file_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a b", "ä", "c"):
        (tmp_path / name).write_text(name)
    names = ["a b", "ä", "c", "gone", "a b"]
    first = checksums(Store(tmp_path), names)
    assert first[0] == first[4] != first[1]
    assert first[3] == "-" * 32
    asked: list[str] = []
    real = module._checksum
    monkeypatch.setattr(module, "_checksum", lambda at: (asked.append(Path(at).name), real(at))[1])
    assert checksums(Store(tmp_path), names) == first
    assert asked == []
    (tmp_path / "c").write_text("another")
    again = checksums(Store(tmp_path), names)
    assert asked == ["c"]
    assert again[:2] == first[:2]
    assert again[2] != first[2]
    (tmp_path / FILE).write_text("no line\nof these is one\n")
    assert checksums(Store(tmp_path), names) == again


def test_checksums_are_kept_elsewhere_if_the_folder_is_not_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path / "cache")
    root = tmp_path / "data"
    root.mkdir()
    (root / "a").write_text("a")
    (root / FILE).mkdir()  # it cannot be a file then
    first = checksums(Store(root), ["a"])
    assert len(list((tmp_path / "cache").iterdir())) == 1
    monkeypatch.setattr(module, "_checksum", lambda file: pytest.fail("it was read again"))
    assert checksums(Store(root), ["a"]) == first


def test_a_table_of_classes_names_the_column_of_its_classes() -> None:
    x, y = np.arange(24.0).reshape(12, 2), np.arange(12) % 3
    data = make_data("a", (x, y), (x, y), classes=["a", "b", "c"], outputs=["kind"])
    assert read_description(describe_data(data)).outputs == ("kind",)
