"""Folders of classes: splits, sizes, damaged images, and what is refused."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from extracurricular.assess.survey import survey
from extracurricular.data.base import Data
from extracurricular.data.formats import pictures as module
from extracurricular.data.images.decode import endings
from extracurricular.data.progress import watched_by
from extracurricular.data.sets import DATA
from extracurricular.data.sets.imagefolder import imagefolder
from extracurricular.distributions import Task
from extracurricular.errors import DataError, RecipeError
from extracurricular.inputs import leaves
from extracurricular.recipe.lookup import find_data

CLASSES = ["ant", "bee", "cow"]


def write(file: Path, number: int, size: tuple[int, int] = (8, 8)) -> None:
    """An image of one colour, which carries its number in red and its class in blue."""
    file.parent.mkdir(parents=True, exist_ok=True)
    label = CLASSES.index(file.parent.name) if file.parent.name in CLASSES else 9
    Image.new("RGB", size, (number, 0, label * 20)).save(file)


def folder(root: Path, count: int = 10, first: int = 0) -> Path:
    for k, name in enumerate(CLASSES):
        for j in range(count):
            write(root / name / f"{j:03d}.png", first + k * count + j)
    return root


def numbers(data: Data, part: str) -> list[int]:
    x = leaves(getattr(data, part).x)[""]
    y = getattr(data, part).y
    assert torch.equal(x[:, 2, 0, 0].long(), y * 20)
    assert bool((x == x[:, :, :1, :1]).all())
    return sorted(x[:, 0, 0, 0].tolist())


def every(data: Data) -> list[int]:
    return sorted(n for part in ("train", "validation", "test") for n in numbers(data, part))


def test_a_folder_of_classes(tmp_path: Path) -> None:
    root = folder(tmp_path / "farm")
    write(root / ".hidden" / "a.png", 200)
    data = DATA.build({"imagefolder": {"path": str(root), "size": 8}})
    assert data.name == "farm"
    assert data.task == Task("classification", 3)
    assert data.classes == tuple(CLASSES)
    assert data.shapes == (3, 8, 8)
    assert leaves(data.train.x)[""].dtype == torch.uint8
    assert data.notes == ("Hidden files or folders are passed over: '.hidden'.",)
    found = [numbers(data, part) for part in ("train", "validation", "test")]
    assert [len(f) for f in found] == [21, 3, 6]
    assert every(data) == list(range(30))
    assert data.test.y is not None
    assert data.test.y.bincount().tolist() == [2, 2, 2]
    assert numbers(imagefolder(str(root), 8, seed=1), "test") != found[2]
    assert len(imagefolder(str(root), 8, test=15, validation=0).train) == 15


def test_a_path_in_the_name(tmp_path: Path) -> None:
    root = folder(tmp_path / "farm.v1")
    wanted = imagefolder(str(root), 8)
    for spec in (
        {f"imagefolder:{root}": {"size": 8}},
        {"imagefolder": {"path": str(root), "size": 8}},
    ):
        assert torch.equal(leaves(DATA.build(spec).train.x)[""], leaves(wanted.train.x)[""])
    assert DATA.build(f"imagefolder:{root}").shapes == (3, 64, 64)
    assert find_data(f"imagefolder:{root}", ["size=8"]).shapes == (3, 8, 8)
    with pytest.raises(RecipeError, match=r"data.imagefolder:.*: unknown key 'path'; known: "):
        DATA.build({f"imagefolder:{root}": {"path": "x"}}, key="data")
    with pytest.raises(RecipeError, match="cannot import the data set 'digits:x'"):
        DATA.build("digits:x")


def test_sizes_and_channels(tmp_path: Path) -> None:
    root = folder(tmp_path)
    write(root / "ant" / "wide.jpg", 7, (40, 20))
    write(root / "bee" / "deep" / "high.png", 7, (9, 90))
    assert imagefolder(str(root), [6, 12]).shapes == (3, 6, 12)
    assert imagefolder(str(root), 16, channels=1).shapes == (1, 16, 16)
    assert imagefolder(str(root)).shapes == (3, 64, 64)
    for size in ([1, 2, 3], 0, [4, -1]):
        with pytest.raises(DataError, match=r"size is .*; it must be a number of pixels, or \[he"):
            imagefolder(str(root), size)
    with pytest.raises(RecipeError, match=r"data.imagefolder.channels: is 2; it should be 1 or 3"):
        DATA.build({"imagefolder": {"path": str(root), "channels": 2}}, key="data")


def test_folders_of_splits(tmp_path: Path) -> None:
    root = tmp_path / "a"
    folder(root / "train", 10)
    folder(root / "val", 2, 100)
    folder(root / "test", 3, 200)
    data = imagefolder(str(root), 8)
    assert numbers(data, "train") == list(range(30))
    assert numbers(data, "validation") == list(range(100, 106))
    assert numbers(data, "test") == list(range(200, 209))
    assert data.notes == ()

    # As ImageNet comes: figures are on val, so nothing may be chosen there.
    root = tmp_path / "b"
    folder(root / "train", 10)
    folder(root / "val", 2, 100)
    data = imagefolder(str(root), 8)
    assert numbers(data, "test") == list(range(100, 106))
    assert (len(data.train), len(data.validation)) == (27, 3)
    assert data.notes[0].startswith("There is no split 'test', so 'val' is the test split")

    root = tmp_path / "c"
    folder(root / "train", 10)
    data = imagefolder(str(root), 8)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [21, 3, 6]


def damage(root: Path) -> list[Path]:
    broken = [root / "ant" / "003.png", root / "bee" / "001.png"]
    broken[0].write_bytes(broken[0].read_bytes()[:40])
    broken[1].write_text("no image")
    return broken


def test_damaged_images_are_fatal_or_named_skipped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK", 7)
    root = folder(tmp_path / "farm")
    damage(root)
    with pytest.raises(DataError, match=r"the image 'ant/003.png' cannot be read"):
        imagefolder(str(root), 8)
    for cache in (False, str(tmp_path / "cache"), str(tmp_path / "cache")):
        data = imagefolder(str(root), 8, damaged="skip", cache=cache)
        assert data.notes == (
            "2 of 30 images cannot be read and are left out: 'ant/003.png', 'bee/001.png'.",
        )
        assert every(data) == [k for k in range(30) if k not in (3, 11)]
    for file in (root / "cow").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match="no image of the class 'cow' is left to train on"):
        imagefolder(str(root), 8, damaged="skip")


def test_the_cache_follows_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, cache = folder(tmp_path / "farm"), str(tmp_path / "cache")
    first = imagefolder(str(root), 8, cache=cache)
    calls: list[int] = []
    decode = module.decode_images

    def spy(*arguments: Any, **settings: Any) -> Any:
        calls.append(1)
        return decode(*arguments, **settings)

    monkeypatch.setattr(module, "decode_images", spy)
    again = imagefolder(str(root), 8, cache=cache)
    assert not calls
    assert torch.equal(leaves(again.train.x)[""], leaves(first.train.x)[""])
    imagefolder(str(root), 9, cache=cache)
    write(root / "ant" / "new.png", 250)
    assert 250 in every(imagefolder(str(root), 8, cache=cache))
    assert len(calls) == 2


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that says it is side × side."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_decompression_bombs_are_not_decoded(tmp_path: Path) -> None:
    root = folder(tmp_path)
    (root / "bee" / "z.png").write_bytes(bomb(40_000))
    with pytest.raises(DataError, match=r"the image 'bee/z.png' has more than \d+ pixels"):
        imagefolder(str(root), 8)
    assert "'bee/z.png'" in imagefolder(str(root), 8, damaged="skip").notes[0]


def test_too_many_images_for_the_memory(tmp_path: Path) -> None:
    root = folder(tmp_path)
    says = r"30 images of 3 × 999 × 999 bytes take 0.1 GB, and memory is 0.01; choose a smaller"
    with pytest.raises(DataError, match=says):
        imagefolder(str(root), 999, memory=0.01, stream=False)


def test_folders_that_are_something_else(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the folder '.*gone' does not exist; path must name"):
        imagefolder(str(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"has 0 sub-folders; it must have one for each"):
        imagefolder(str(tmp_path))
    root = folder(tmp_path / "a")
    (root / "dog").mkdir()
    shutil.rmtree(root / "cow")
    (root / "cow").mkdir()
    shutil.rmtree(root / "bee")
    with pytest.raises(DataError, match=r"the folder '.*a' has 1 sub-folders with images"):
        imagefolder(str(root))
    root = tmp_path / "b"
    folder(root / "train")
    write(root / "test" / "dog" / "a.png", 1)
    with pytest.raises(DataError, match=r"'.*test/dog' is of a class that 'train' does not have"):
        imagefolder(str(root))
    write(root / "more" / "a.png", 1)
    with pytest.raises(DataError, match="has 'train' beside 'more'; only validation"):
        imagefolder(str(root))
    root = tmp_path / "c"
    folder(root / "train")
    (root / "test").mkdir()
    with pytest.raises(DataError, match=r"the folder '.*c/test' has no class folders with images"):
        imagefolder(str(root))
    with pytest.raises(DataError, match=r"validation is 1.5; it must be a part"):
        imagefolder(str(folder(tmp_path / "d")), validation=1.5)
    with pytest.raises(DataError, match=r"test and validation leave none of 30 examples"):
        imagefolder(str(tmp_path / "d"), test=15, validation=15)


def test_folders_that_are_called_by_numbers(tmp_path: Path) -> None:
    for k, name in enumerate(("0.5", "10", "90")):
        for j in range(10):
            write(tmp_path / name / f"{j}.png", 10 * k + j)
    classes = imagefolder(str(tmp_path), 8)
    assert classes.task == Task("classification", 3)
    assert any("`task: regression` reads them as numbers" in note for note in classes.notes)
    reals = imagefolder(str(tmp_path), 8, task="regression")
    assert reals.task == Task("regression", 1)
    assert reals.classes == ()
    x, y = leaves(reals.train.x)[""], reals.train.y
    assert y is not None
    wanted = torch.tensor([0.5, 10, 90])[x[:, 0, 0, 0].long() // 10]
    assert torch.equal(y[:, 0], wanted)
    write(tmp_path / "old" / "a.png", 1)
    with pytest.raises(DataError, match="the folder 'old' is not called by a number"):
        imagefolder(str(tmp_path), 8, task="regression")


def test_jfif_is_jpeg(tmp_path: Path) -> None:
    folder(tmp_path)
    for file in sorted(tmp_path.glob("*/00[0-4].png")):
        file.rename(file.with_suffix(".jfif"))
    assert every(imagefolder(str(tmp_path), 8)) == list(range(30))


def archived(root: Path, kind: str) -> Path:
    """The folder as an archive, with what macOS puts there."""
    (root / ".DS_Store").write_bytes(b"x")
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX" / "._a.png").write_bytes(b"x")
    return Path(shutil.make_archive(str(root), kind, root.parent, root.name))


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_archive_is_read_like_its_folder(kind: str, stream: bool, tmp_path: Path) -> None:
    root = folder(tmp_path / "farm")
    wanted = imagefolder(str(root), 8)
    path = archived(root, kind)
    data = imagefolder(str(path), 8, stream=stream, workers=1)
    assert data.name == "farm"
    assert data.ids == wanted.ids
    assert data.classes == wanted.classes
    for part in ("train", "validation", "test"):
        x, y = getattr(data, part).x[:], getattr(data, part).y
        assert torch.equal(x, leaves(getattr(wanted, part).x)[""])
        assert torch.equal(y, getattr(wanted, part).y)
    [note] = [note for note in data.notes if "Hidden" in note]
    assert ".DS_Store" in note
    assert "__MACOSX" in note
    damage(root)
    shutil.make_archive(str(root), kind, root.parent, root.name)
    data = imagefolder(str(path), 8, damaged="skip", stream=stream, workers=1)
    assert len(set(every_read(data))) == (30 if stream else 28)


def every_read(data: Data) -> list[str]:
    return [str(name) for part in ("train", "validation", "test") for name in data.ids[part]]


def test_what_is_no_image_is_passed_over_and_told(tmp_path: Path) -> None:
    root = folder(tmp_path / "farm")
    (root / "dog").mkdir()
    (root / "ant" / ".DS_Store").write_bytes(b"x")
    (root / "bee" / "Thumbs.db").write_bytes(b"x")
    (root / "bee" / "b.svg").write_bytes(b"<svg/>")
    (root / "readme.txt").write_text("")
    archived(root, "zip")
    wanted = {
        "1 folder has no images and no class of its own: 'dog'.",
        "1 image is passed over, as Pillow cannot read so here: 'bee/b.svg'; convert them to JPEG "
        "or PNG.",
    }
    for path in (root, root.with_suffix(".zip")):
        data = imagefolder(str(path), 8)
        assert data.classes == tuple(CLASSES)
        assert every(data) == list(range(30))
        notes = " ".join(data.notes)
        for name in (".DS_Store", "__MACOSX", "ant/.DS_Store", "bee/Thumbs.db", "readme.txt"):
            assert name in notes
        assert wanted <= set(data.notes) or path.suffix == ".zip"


@pytest.mark.parametrize("ending", [".avif", ".jp2", ".qoi", ".ppm", ".tga", ".webp"])
def test_whatever_pillow_reads_is_read(ending: str, tmp_path: Path) -> None:
    if ending not in endings():
        pytest.skip(f"this Pillow reads no {ending}")
    if Image.registered_extensions()[ending] not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {ending}")
    folder(tmp_path)
    for file in sorted(tmp_path.glob("*/00[0-4].png")):
        with Image.open(file) as image:
            lossless = {".webp": {"lossless": True}, ".avif": {"quality": 100}}
            image.save(file.with_suffix(ending), **lossless.get(ending, {}))
        file.unlink()
    data = imagefolder(str(tmp_path), 8, validation=0)
    assert len(data.train) + len(data.test) == 30
    if ending != ".avif":
        assert every(data) == list(range(30))


def test_programs_are_never_run_as_images(tmp_path: Path) -> None:
    """PostScript is a program, whatever a file is called; Pillow would have it run."""
    assert not {".eps", ".ps", ".pdf", ".wmf", ".emf"} & set(endings())
    root = folder(tmp_path)
    (root / "bee" / "z.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(DataError, match=r"'bee/z.png' cannot be read: it is none of JPEG, PNG, G"):
        imagefolder(str(root), 8)


def test_groups_limits_and_duplicates(tmp_path: Path) -> None:
    root = folder(tmp_path / "farm")
    data = imagefolder(str(root), 8, group=r"/00(\d)", test=0.3)
    people = [{str(n)[-5] for n in data.ids[p]} for p in ("train", "validation", "test")]
    assert len(people[0] | people[1] | people[2]) == sum(map(len, people))
    assert every(data) == list(range(30))
    with pytest.raises(DataError, match="which is no regular expression"):
        imagefolder(str(root), 8, group="(")
    with pytest.raises(DataError, match=r"group is '.*', which 'ant/000.png' does not match"):
        imagefolder(str(root), 8, group=r"x\d")

    data = imagefolder(str(root), 8, limit=15)
    assert len(every(data)) == 15
    assert [len(getattr(data, p)) for p in ("train", "validation", "test")] == [10, 2, 3]
    assert data.test.y is not None
    assert sorted(data.test.y.tolist()) == [0, 1, 2]
    with pytest.raises(DataError, match="limit is 2; there are 3 classes"):
        imagefolder(str(root), 8, limit=2)

    known = imagefolder(str(root), 8)
    for part in ("validation", "test"):
        name = str(known.ids[part][0])
        twin = next(n for n in known.ids["train"] if str(n)[:3] == name[:3])
        shutil.copy(root / str(twin), root / name)
    for stream in (False, True):
        told = survey(imagefolder(str(root), 8, stream=stream, workers=1)).suspicious
        assert any("`duplicates: drop` leaves them out" in sentence for sentence in told)
        data = imagefolder(str(root), 8, duplicates="drop", stream=stream, workers=1)
        assert len(data.test) == len(known.test) - 1 == len(data.ids["test"])
        assert len(data.validation) == len(known.validation) - 1
        assert not any("are in train too" in sentence for sentence in survey(data).suspicious)


def test_names_of_classes_that_deceive_are_told(tmp_path: Path) -> None:
    for name in ("cat", "Cat", "d\u043eg"):
        for j in range(9):
            write(tmp_path / name / f"{j}.png", 10 * len(name) + j)
    told = survey(imagefolder(str(tmp_path), 8)).suspicious
    assert "The classes 'cat' and 'Cat' look alike; they may be one class." in told
    says = "'d\u043eg' has letters of another alphabet, such as '\u043e' (U+043E)"
    assert any(says in sentence for sentence in told)


def test_reading_is_watched_where_somebody_asks(tmp_path: Path) -> None:
    root = folder(tmp_path, count=100)
    seen: list[Any] = []

    @contextmanager
    def watch(title: str, total: int | None, noun: str) -> Iterator[Callable[[int], None]]:
        seen.append((title, total, noun))
        yield seen.append

    before = watched_by(watch)
    try:
        imagefolder(str(root), 8)
        assert seen == [("reading images", 300, "images"), 300]
        imagefolder(str(folder(tmp_path / "few")), 8)  # too few to be watched
        assert len(seen) == 2
    finally:
        watched_by(before)
    imagefolder(str(root), 8)
    assert len(seen) == 2


def test_names_that_are_no_text_are_refused_by_their_bytes(tmp_path: Path) -> None:
    for name in (b"ant", b"be\xe9"):
        folder = tmp_path / "train" / os.fsdecode(name)
        try:
            folder.mkdir(parents=True)
        except OSError:
            pytest.skip("this file system has names of text alone")
        for k in range(4):
            Image.new("RGB", (8, 8), (60 * k, 0, 0)).save(folder / f"{k}.png")
    with pytest.raises(DataError, match=r"has the name b'be\\xe9', which is not UTF-8; rename it"):
        imagefolder(str(tmp_path / "train"), size=8)
