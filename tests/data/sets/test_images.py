"""Images whose targets are in a table: where they lie, their splits, and what is refused."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from extracurricular.assess.first_data import find_first
from extracurricular.assess.survey import survey
from extracurricular.data.base import Data
from extracurricular.data.formats.contents import contents
from extracurricular.data.images.stream import Streamed
from extracurricular.data.sets import DATA
from extracurricular.data.sets.images import images
from extracurricular.distributions import Task
from extracurricular.errors import DataError
from extracurricular.inputs import leaves
from extracurricular.samplers.pool import pool

COUNT = 40


def faces(folder: Path, **changes: Any) -> Path:
    """Grey pictures whose value is twice the age in the table beside them."""
    (folder / "img").mkdir(parents=True)
    columns: dict[str, Any] = {
        "person": [f"p{k % 8}" for k in range(COUNT)],
        "file": [f"img/{k:03d}.png" for k in range(COUNT)],
        "part": [("train", "train", "test", "validation")[k % 4] for k in range(COUNT)],
        "day": [f"2024-01-{1 + k % 28:02d}" for k in range(COUNT)],
        "look": [("calm", "cross")[k % 2] for k in range(COUNT)],
        "x": [k / 7 for k in range(COUNT)],
        "age": [k + 0.5 for k in range(COUNT)],
    }
    for k in range(COUNT):
        Image.new("L", (9, 7), 2 * k + 1).save(folder / "img" / f"{k:03d}.png")
    pl.DataFrame(columns | changes).write_csv(folder / "faces.csv")
    return folder / "faces.csv"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return faces(tmp_path_factory.mktemp("data") / "all")


def x_of(data: Data, part: str) -> torch.Tensor:
    return leaves(getattr(data, part).x)[""][:]


def check(data: Data, parts: tuple[str, ...] = ("train", "validation", "test")) -> list[str]:
    """Each image goes with its age and its name; return all names."""
    found = []
    for part in parts:
        ages = getattr(data, part).y[:, -1]
        assert torch.equal(x_of(data, part)[:, 0, 0, 0].float(), 2 * ages)
        names = [f"{int(age):03d}.png" for age in ages]
        assert [Path(str(name)).name for name in data.ids[part]] == names
        found += names
    return found


def test_a_table_of_names_and_numbers(file: Path) -> None:
    data = DATA.build({"images": {"table": str(file), "size": 4, "channels": 1}})
    assert data.name == "faces"
    assert data.task == Task("regression", 1)
    assert data.outputs == ("age",)
    assert data.columns == ()
    assert data.shapes == (1, 4, 4)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [28, 4, 8]
    assert len(set(check(data))) == COUNT
    assert data.reading["image"]["column"] == "file"
    assert any("5 columns are passed over" in note for note in data.notes)
    assert survey(data).suspicious == []


def test_several_numbers_and_classes(file: Path) -> None:
    data = images(str(file), target=["x", "age"], size=4)
    assert data.task == Task("regression", 2)
    assert data.outputs == ("x", "age")
    check(data)
    data = images(str(file), image="file", target="look", size=4)
    assert data.classes == ("calm", "cross")
    assert torch.equal(x_of(data, "test")[:, 0, 0, 0] // 2 % 2, data.test.y)
    with pytest.raises(DataError, match="the target 'look' has texts such as 'calm'"):
        images(str(file), target="look", task="regression")
    with pytest.raises(DataError, match="the target 'file' is the column of names of images"):
        images(str(file), target="file")
    with pytest.raises(DataError, match="has no column 'ages', which target names; it has person"):
        images(str(file), target="ages")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["folder", "stored.zip", "packed.zip", "faces.tar"])
def test_folders_and_archives_streamed_and_in_memory_are_the_same(
    kind: str, stream: bool, file: Path, tmp_path: Path
) -> None:
    wanted = images(str(file), size=4)
    shutil.copy(file, tmp_path / "faces.csv")
    place = tmp_path / kind
    if kind == "folder":
        shutil.copytree(file.parent / "img", place / "img")
    elif kind == "faces.tar":
        with tarfile.open(place, "w") as tar:
            tar.add(file.parent / "img", "./img")
    else:
        way = zipfile.ZIP_STORED if kind == "stored.zip" else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(place, "w", way) as archive:
            for image in sorted((file.parent / "img").iterdir()):
                # As a zip of a folder has them: below the folder's name.
                archive.write(image, f"photos/img/{image.name}")
            archive.writestr("__MACOSX/photos/img/._000.png", b"no image")
    data = images(str(tmp_path / "faces.csv"), root=str(place), size=4, stream=stream, workers=1)
    assert isinstance(data.train.x, Streamed) == stream
    check(data)
    assert data.ids == wanted.ids
    for part in ("train", "validation", "test"):
        assert torch.equal(x_of(data, part), x_of(wanted, part))
    assert torch.equal(data.x_scale[""].shift, wanted.x_scale[""].shift)
    assert torch.equal(data.x_scale[""].scale, wanted.x_scale[""].scale)
    # The checksum is that of the contents, wherever they lie.
    if stream:
        plain = images(str(file), size=4, stream=True, workers=1)
        assert contents(data) == contents(plain)


def test_splits_by_a_column_by_persons_and_by_date(file: Path) -> None:
    data = images(str(file), split="part", size=4)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [20, 10, 10]
    assert all(int(Path(str(name)).stem) % 4 == 2 for name in data.ids["test"])
    check(data)
    data = images(str(file), group="person", size=4)
    persons = [
        {int(Path(str(name)).stem) % 8 for name in data.ids[part]} for part in ("train", "test")
    ]
    assert not persons[0] & persons[1]
    data = images(str(file), time="day", size=4, test=0.25)
    assert min(int(Path(str(name)).stem) % 28 for name in data.ids["test"]) == 18
    data = images(str(file), target="look", size=4)
    assert data.test.y.float().mean() == 0.5  # type: ignore[union-attr]
    data = images(str(file), limit=20, size=4)
    assert len(set(check(data))) == 20
    assert images(str(file), limit=20, size=4).ids == data.ids
    assert images(str(file), limit=20, size=4, seed=1).ids != data.ids
    assert "20 of 40 rows are read (`limit`)." in data.notes


@pytest.mark.parametrize("stream", [False, True])
def test_rows_without_a_target_are_unlabelled(stream: bool, tmp_path: Path) -> None:
    ages = [None if k % 5 == 0 else k + 0.5 for k in range(COUNT)]
    file = faces(tmp_path / "a", age=ages)
    data = images(str(file), size=8, stream=stream, workers=1)
    assert len(check(data)) == COUNT - 8
    assert data.unlabelled is not None
    grey = leaves(data.unlabelled.x)[""][:][:, 0, 0, 0]
    assert sorted(grey.tolist()) == [2 * k + 1 for k in range(0, COUNT, 5)]
    assert any("8 of 40 rows have no target" in note for note in data.notes)
    drawn = pool(data, {})(torch.arange(16)).x
    assert isinstance(drawn, torch.Tensor)
    shown = (drawn * data.x_scale[""].scale + data.x_scale[""].shift)[:, 0, 0, 0].round()
    assert set(shown.int().tolist()) == {2 * k + 1 for k in range(0, COUNT, 5)}


@pytest.mark.parametrize("stream", [False, True])
def test_missing_and_damaged_images(stream: bool, tmp_path: Path) -> None:
    file = faces(tmp_path / "a")
    given: dict[str, Any] = {"size": 4, "stream": stream, "workers": 1}
    (tmp_path / "a" / "img" / "004.png").unlink()
    with pytest.raises(DataError) as caught:
        images(str(file), **given)
    for part in ("line 6", "'img/004.png' is not in the folder", "`root`", "`damaged: skip`"):
        assert part in str(caught.value)
    data = images(str(file), damaged="skip", **given)
    assert len(check(data)) == COUNT - 1
    [note] = [note for note in data.notes if "is not there" in note]
    assert note == "1 of 40 rows is left out, as its image is not there: 'img/004.png'."
    bad = int(Path(str(images(str(file), damaged="skip", size=4).ids["test"][0])).stem)
    (tmp_path / "a" / "img" / f"{bad:03d}.png").write_bytes(b"no image")
    Image.new("L", (9, 7), 9).save(tmp_path / "a" / "img" / "004.png")
    with pytest.raises(DataError) as caught:
        x_of(images(str(file), **given), "test")
    for part in (f"line {bad + 2}", f"{bad:03d}.png' cannot be read", "`damaged: skip`"):
        assert part in str(caught.value)


def test_names_as_people_have_them(tmp_path: Path) -> None:
    numbers = [f"{k:03d}" for k in range(COUNT)]
    file = faces(tmp_path / "a", file=numbers)
    root = str(tmp_path / "a" / "img")
    with pytest.raises(DataError, match="has no column of names of images; set `image`"):
        images(str(file), root=root)
    says = "line 2: there is no image '000', but '000.png'; set `ending: .png`"
    with pytest.raises(DataError, match=says):
        images(str(file), image="file", root=root)
    check(images(str(file), image="file", root=root, ending=".png", size=4))
    check(images(str(file), image=1, root=root, ending=".png", size=4))
    file = faces(tmp_path / "b", file=[f"img\\{k}.png" for k in numbers])
    check(images(str(file), size=4))
    file = faces(tmp_path / "c", file=[f"{tmp_path}/c/img/{k}.png" for k in numbers])
    check(images(str(file), size=4))
    file = faces(tmp_path / "d", file=[None, *(f"img/{k}.png" for k in numbers[1:])])
    with pytest.raises(DataError, match="line 2: the column 'file' has no name of an image"):
        images(str(file), size=4)
    assert len(check(images(str(file), size=4, damaged="skip"))) == COUNT - 1


def test_tables_of_other_kinds(file: Path, tmp_path: Path) -> None:
    rows = pl.read_csv(file)
    rows.write_parquet(tmp_path / "faces.parquet")
    rows.write_csv(tmp_path / "faces.tsv", separator="\t")
    german = rows.with_columns(pl.col("age").cast(pl.String).str.replace(r"\.", ","))
    german.write_csv(tmp_path / "german.csv", separator=";")
    for name in ("faces.parquet", "faces.tsv", "german.csv"):
        check(images(str(tmp_path / name), root=str(file.parent), size=4))


@pytest.mark.parametrize("stream", [False, True])
def test_duplicates_are_told_and_dropped(stream: bool, file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "a"
    shutil.copytree(file.parent, copy)
    known = images(str(copy / "faces.csv"), size=4)
    first, twin = copy / str(known.ids["train"][0]), copy / str(known.ids["test"][0])
    shutil.copy(first, twin)
    given: dict[str, Any] = {"size": 4, "stream": stream, "workers": 1}
    told = survey(images(str(copy / "faces.csv"), **given)).suspicious
    assert any("are in train too" in s and "`duplicates: drop` leaves them out" in s for s in told)
    data = images(str(copy / "faces.csv"), duplicates="drop", **given)
    assert len(data.test) == len(known.test) - 1 == len(data.ids["test"])
    assert str(known.ids["test"][0]) not in data.ids["test"]
    assert "1 images of test repeat images of training and are left out." in data.notes
    assert not any("train too" in s for s in survey(data).suspicious)


def test_decoded_images_are_kept(file: Path, tmp_path: Path) -> None:
    root = tmp_path / "a"
    shutil.copytree(file.parent, root)
    shutil.make_archive(str(root / "faces"), "zip", root, "img")
    for where in (root, root / "faces.zip"):
        given: dict[str, Any] = {"size": 4, "cache": str(tmp_path / "cache"), "root": str(where)}
        first = images(str(root / "faces.csv"), **given)
        entries = sorted((tmp_path / "cache").rglob("*.npy"))
        times = [entry.stat().st_mtime_ns for entry in entries]
        again = images(str(root / "faces.csv"), **given)
        assert torch.equal(x_of(first, "train"), x_of(again, "train"))
        assert [entry.stat().st_mtime_ns for entry in entries] == times


def test_archives_that_cannot_be_read(file: Path, tmp_path: Path) -> None:
    def root(name: str) -> str:
        return str(tmp_path / name)

    with pytest.raises(DataError, match=r"does not exist; it must be a folder, a .zip or a .tar"):
        images(str(file), root=root("none.zip"))
    (tmp_path / "bad.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"the archive '.*bad.zip' cannot be read: File is not"):
        images(str(file), root=root("bad.zip"))
    shutil.make_archive(root("all"), "gztar", file.parent, "img")
    with pytest.raises(DataError, match=r"is packed as a whole.* unpack it to a .tar"):
        images(str(file), root=root("all.tar.gz"))
    (tmp_path / "a.rar").write_bytes(b"")
    with pytest.raises(DataError, match=r"is no folder, and neither a .zip nor a .tar"):
        images(str(file), root=root("a.rar"))
    with zipfile.ZipFile(tmp_path / "odd.zip", "w", zipfile.ZIP_LZMA) as archive:
        for image in (file.parent / "img").iterdir():
            archive.write(image, f"img/{image.name}")
    with pytest.raises(DataError, match=r"img/000.png' cannot be read: its archive packs it in an"):
        images(str(file), root=root("odd.zip"), size=4)
    shutil.make_archive(root("all"), "zip", file.parent, "img")
    content = bytearray((tmp_path / "all.zip").read_bytes())
    start = content.index(b"img/000.png") + 30
    content[start : start + 20] = b"x" * 20
    (tmp_path / "torn.zip").write_bytes(bytes(content))
    with pytest.raises(DataError, match="cannot be read: its archive is damaged"):
        images(str(file), root=root("torn.zip"), size=4)


def test_a_first_recipe_finds_the_images(file: Path, tmp_path: Path) -> None:
    for what in (str(file), str(file.parent)):
        found = find_first(what, {})
        assert found.name == "images"
        values = {setting.name: setting.value for setting in found.settings}
        assert values["table"] == str(file)
        assert (values["image"], values["target"], values["size"]) == ("file", "age", 16)
        assert (values["channels"], values["split"]) == (1, "part")
        check(found.data)
    (tmp_path / "img").mkdir()
    shutil.copytree(file.parent / "img", tmp_path / "photos" / "img")
    shutil.copy(file, tmp_path / "faces.csv")
    found = find_first(str(tmp_path / "faces.csv"), {}, "look")
    values = {setting.name: setting.value for setting in found.settings}
    assert values["root"] == str(tmp_path / "photos")
    assert found.data.classes == ("calm", "cross")
    (tmp_path / "photos" / "img" / "003.png").unlink()
    found = find_first(str(tmp_path / "faces.csv"), {}, "age")
    assert {s.name: s.value for s in found.settings}["damaged"] == "skip"


def test_limits_and_settings_out_of_range(file: Path) -> None:
    for setting, says in (
        ({"limit": 0}, "limit is 0; it must be a number of rows"),
        ({"centre": 0.0}, "centre is 0.0; it must be a part"),
        ({"workers": 0}, "workers is 0"),
        ({"stream": True, "cache": True}, "the images are streamed and not kept"),
        ({"size": 999, "memory": 1e-3, "stream": False}, "images of 3 × 999 × 999 bytes"),
        ({"group": "person", "time": "day"}, "group and time are both set"),
        ({"split": "look"}, "the split 'look' is 'calm'"),
    ):
        with pytest.raises(DataError, match=says):
            images(str(file), **setting)  # type: ignore[arg-type]
    assert np.isclose(images(str(file), size=4, test=4, validation=0).test.y.shape[0], 4)  # type: ignore[union-attr]
