"""Shards of the WebDataset layout: equal to folders, read by their index, refused by a sentence."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import extracurricular as xcl
from extracurricular.assess.assess import Settings, assess
from extracurricular.data.base import Data
from extracurricular.data.formats import shards as module
from extracurricular.data.formats import tar
from extracurricular.data.formats.contents import contents
from extracurricular.data.formats.shard_names import expand
from extracurricular.data.images import plain_jpeg
from extracurricular.data.images.decode import View, decode, view_bytes
from extracurricular.data.sets.imagefolder import imagefolder
from extracurricular.data.sets.webdataset import webdataset
from extracurricular.errors import DataError
from extracurricular.recipe.read import parse_recipe
from extracurricular.run.finished import open_run
from extracurricular.samplers.resized_crop import ResizedCrop
from extracurricular.samplers.stored import Empirical
from tests.conftest import small_recipe
from tests.data.shard_files import CLASSES, both, encoded, labelled, write_shard

IDS = torch.arange(70)


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return both(tmp_path_factory.mktemp("same"))


def streamed(path: Path, **settings: Any) -> Data:
    return webdataset(str(path), size=8, stream=True, workers=1, **settings)


@pytest.mark.parametrize("stream", [False, True])
def test_draws_are_those_of_the_same_images_in_folders(
    same: tuple[Path, Path], stream: bool
) -> None:
    folder, shards = same
    ways = {"size": 8, "stream": stream, "workers": 1 if stream else None}
    a, b = imagefolder(str(folder), **ways), webdataset(str(shards), **ways)  # type: ignore[arg-type]
    assert a.classes == b.classes == CLASSES
    for sampler in (Empirical, ResizedCrop) if stream else (Empirical,):
        one, other = sampler(a)(IDS), sampler(b)(IDS)
        assert torch.equal(one.x, other.x)
        assert one.y is not None
        assert other.y is not None
        assert torch.equal(one.y, other.y)
    # So do the checksums that a run keeps of its data.
    assert contents(a) == contents(b)


def test_a_draw_is_a_function_of_its_id(same: tuple[Path, Path]) -> None:
    data = streamed(same[1])
    whole = Empirical(data)(IDS).x
    assert torch.equal(Empirical(data)(IDS.flip(0)).x, whole.flip(0))
    assert torch.equal(torch.cat([Empirical(data)(IDS[k : k + 1]).x for k in range(9)]), whole[:9])


def test_an_index_is_made_once_and_again_for_another_shard(
    same: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = Path(shutil.copytree(same[1], tmp_path / "s"))
    for old in shards.glob("*.xcl-index"):
        old.unlink()
    read: list[str] = []
    make = module.make_index
    monkeypatch.setattr(
        module, "make_index", lambda s, *a: read.append(Path(s).name) or make(s, *a)
    )
    notes = streamed(shards).notes
    assert notes[0] == "3 indexes were made of 3 shards, which is done once."
    assert sorted(read) == ["s-000.tar", "s-001.tar", "s-002.tar"]
    assert {f.name for f in shards.glob("*.xcl-index")} == {f"{name}.xcl-index" for name in read}
    read.clear()
    streamed(shards)
    assert read == []
    # The index of another shard is none of this one; neither is a damaged one.
    shutil.copy2(shards / "s-001.tar.xcl-index", shards / "s-000.tar.xcl-index")
    damaged = shards / "s-002.tar.xcl-index"
    damaged.write_text(damaged.read_text().replace("cow", "bee"))
    before = Empirical(streamed(shards))(IDS).x
    assert sorted(read) == ["s-000.tar", "s-002.tar"]
    assert torch.equal(before, Empirical(streamed(same[1]))(IDS).x)
    # A shard that was replaced between two runs has a new index.
    read.clear()
    write_shard(shards / "s-000.tar", labelled(["ant", "bee"] * 8))
    assert not torch.equal(Empirical(streamed(shards))(IDS).x, before)
    assert read == ["s-000.tar"]


def test_indexes_of_a_folder_that_cannot_be_written_lie_in_the_cache(
    same: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = Path(shutil.copy(same[1] / "s-000.tar", tmp_path / "x.tar"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write = module.write_sealed

    def refuse(place: Path, content: dict[str, Any]) -> None:
        if place.parent == tmp_path:
            raise module.StorageError("read-only")
        write(place, content)

    monkeypatch.setattr(module, "write_sealed", refuse)
    assert module.indexes([str(shard)])[1] == 1
    assert module.indexes([str(shard)])[1] == 0
    assert [f.name[:6] for f in (tmp_path / "cache" / "extracurricular").iterdir()] == ["shard-"]


def test_a_shard_that_changes_during_a_run_ends_it_even_where_damaged_images_are_skipped(
    same: tuple[Path, Path], tmp_path: Path
) -> None:
    shards = Path(shutil.copytree(same[1], tmp_path / "s"))
    data = streamed(shards, damaged="skip")
    with (shards / "s-001.tar").open("r+b") as file:
        file.write(bytes(range(256)) * 200)
    with pytest.raises(DataError, match=r"s-001.tar' is not what it was when its index was made"):
        Empirical(data)(IDS)


def test_a_damaged_image_is_left_out_like_that_of_a_folder(tmp_path: Path) -> None:
    members = labelled(["a", "b"] * 20)
    members[6] = (members[6][0], b"no image")
    write_shard(tmp_path / "x.tar", members)
    with pytest.raises(DataError, match=r"the image 'x.tar/k003.png' cannot be read"):
        webdataset(str(tmp_path), size=8)
    data = webdataset(str(tmp_path), size=8, damaged="skip")
    assert any("1 of 40 images cannot be read" in note for note in data.notes)


def test_splits_are_shards_of_their_names(tmp_path: Path) -> None:
    for name, labels in (("train-0", "ab" * 6), ("train-1", "ba" * 6), ("val-0", "abab")):
        write_shard(tmp_path / f"{name}.tar", labelled(list(labels)))
    data = webdataset(str(tmp_path), size=8)
    assert "There is no split 'test', so 'val' is the test split" in "".join(data.notes)
    assert len(data.test) == 4
    given = webdataset(
        str(tmp_path / "train-{0..1}.tar"), size=8, validation="val-*.tar", test=0.25
    )
    assert [len(s) for s in (given.train, given.validation, given.test)] == [18, 4, 6]
    with pytest.raises(DataError, match=r"is of train and of test"):
        webdataset(str(tmp_path / "train-*.tar"), size=8, test="train-1.tar")
    (tmp_path / "val-0.tar").rename(tmp_path / "other.tar")
    with pytest.raises(DataError, match=r"other.tar' is of no split, while others"):
        webdataset(str(tmp_path), size=8)


def test_labels_are_texts_numbers_or_fields(tmp_path: Path) -> None:
    def data(labels: list[str], ending: str = "cls", **settings: Any) -> Data:
        shutil.rmtree(tmp_path / "d", ignore_errors=True)
        write_shard(tmp_path / "d" / "x.tar", labelled(labels, ending))
        return webdataset(str(tmp_path / "d"), size=8, **settings)

    assert data(["b", "a"] * 8).classes == ("a", "b")
    assert data(["1", "0", "2"] * 8).classes == ("0", "1", "2")
    named = data(["1", "0", "2"] * 8, classes=["x", "y", "z"])
    assert named.classes == ("x", "y", "z")
    fields = data(['{"cat": {"id": "a"}}', '{"cat": {"id": "b"}}'] * 8, "json", label="json.cat.id")
    assert fields.classes == ("a", "b")
    assert data(['{"label": 1}', '{"label": 0}'] * 8, "json").classes == ("0", "1")
    reals = data([f"{k / 7}" for k in range(24)])
    assert reals.task.kind == "regression"
    ages = data([str(k) for k in range(24)], task="regression")
    assert ages.task.kind == "regression"
    assert ages.train.y is not None
    assert ages.train.y.shape[1] == 1
    (tmp_path / "d" / "classes.txt").write_text("x\ny\n")
    with pytest.raises(DataError, match=r"'x.tar/k002.png' has the label 2; there are 2 classes"):
        webdataset(str(tmp_path / "d"), size=8)


@pytest.mark.parametrize(
    ("labels", "settings", "says"),
    [
        (["a", None, "b"], {}, r"'x.tar/k001.png' has no label, and 1 of 3 have none; set `label`"),
        (["a", "c", "b"], {"classes": ["a", "b"]}, r"k001.png' has the label 'c'; there are 2"),
        (["1", "c", "1"], {}, r"k001.png' has the label 'c'; others have such as 1"),
        (["a", "b"], {"task": "regression"}, r"has the label 'a'; a real target must be a number"),
        (["a", "b"], {"image": "jpg"}, r"no sample of 1 shards has .jpg; set `image`"),
        (["nan", "1"], {}, r"'k000' has the label nan; it must be finite"),
        (["a", "b"], {"classes": "none.txt"}, r"none.txt' cannot be read: No such file"),
        (["a", "b"], {"classes": ["a", "a"]}, r"there must be at least two different ones"),
    ],
)
def test_labels_that_cannot_be_used(
    tmp_path: Path, labels: list[str | None], settings: dict[str, Any], says: str
) -> None:
    write_shard(tmp_path / "x.tar", labelled(labels))
    with pytest.raises(DataError, match=says):
        webdataset(str(tmp_path), size=8, **settings)


def test_shards_that_cannot_be_used(same: tuple[Path, Path], tmp_path: Path) -> None:
    whole = (same[1] / "s-000.tar").read_bytes()
    shard = tmp_path / "x.tar"

    def refused(content: bytes, name: str = "x.tar") -> str:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError) as told:
            webdataset(str(tmp_path), size=8)
        (tmp_path / name).unlink()
        assert not list(tmp_path.iterdir())  # no index of what is no shard
        return str(told.value)

    for cut in (100, 512, 1000, 1024, 1500, len(whole) // 2):
        text = refused(whole[:cut])
        assert "cut off" in text or "is no tar" in text, cut
        assert str(shard) in text
    # Cut behind a file: only the mark of the end is missing.
    end = len(whole.rstrip(b"\0"))
    assert "without the mark of an end" in refused(whole[: end + -end % 512])
    assert "is no tar, whatever its name" in refused(b"not a tar at all" * 100)
    assert "is packed as a whole" in refused(gzip.compress(whole), "x.tar.gz")
    middle = bytearray(whole)
    middle[1024 + 150 : 1024 + 153] = b"\xff\xff\xff"
    shard.write_bytes(bytes(middle).replace(b"ustar", b"uster"))
    with pytest.raises(DataError, match=r"is damaged after|is cut off|is no tar"):
        webdataset(str(tmp_path), size=8)
    shard.unlink()
    with pytest.raises(DataError, match=r"and no shard is called so; it must name shards"):
        webdataset(str(tmp_path))
    write_shard(tmp_path / "x-0.tar", labelled(["a", "b"]))
    with pytest.raises(DataError, match=r"x-1.tar' does not exist, though the others may"):
        webdataset(str(tmp_path / "x-{0..1}.tar"))
    write_shard(tmp_path / "x-0.tar", [*labelled(["a", "b"]), *labelled(["c"])])
    with pytest.raises(DataError, match=r"'k000' do not stand one after the other"):
        webdataset(str(tmp_path), size=8)
    write_shard(tmp_path / "x-0.tar", [("a.png", b""), ("a.png", b"")])
    with pytest.raises(DataError, match=r"'a.png' is there twice"):
        webdataset(str(tmp_path), size=8)


def test_patterns() -> None:
    assert expand("a-{08..10}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar"]
    assert expand("{x,y}-{1..2}") == ["x-1", "x-2", "y-1", "y-2"]
    assert expand("plain") == ["plain"]
    with pytest.raises(DataError, match="must be a range that goes up"):
        expand("{3..1}")


@given(
    st.lists(
        st.tuples(st.text("abé/ü.", min_size=1, max_size=150), st.binary(max_size=1200)), max_size=6
    ),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT]),
    st.integers(1, 4096),
)
def test_tars_are_read_as_python_reads_them(
    files: list[tuple[str, bytes]], form: int, block: int
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            try:
                archive.addfile(entry, io.BytesIO(content))
            except ValueError:
                return  # the old form has no room for the name
    whole = buffer.getvalue()
    found = list(tar.files(tar.Source(whole[k : k + block] for k in range(0, len(whole), block))))
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        wanted = [(m.name, m.offset_data, archive.extractfile(m).read()) for m in archive]  # type: ignore[union-attr]
    assert [(f.name.rstrip("/"), f.offset, f.content) for f in found] == [
        (name.rstrip("/"), *rest) for name, *rest in wanted
    ]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"exif": True}, {"quality": 30}])
def test_a_plain_jpeg_has_the_pixels_of_any_other(mode: str, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (13, 17, 3), dtype=np.uint8)
    given = dict(options)
    if given.pop("exif", False):
        exif = Image.Exif()
        exif[0x0112] = 6
        given["exif"] = exif
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", **given)
    content = buffer.getvalue()
    assert (plain_jpeg.plain(content) is None) == (mode == "CMYK" or "exif" in options)
    for view in (View((3, 13, 17)), View((1, 8, 8)), View((3, 5, 9), centre=0.7)):
        with Image.open(io.BytesIO(content)) as image:
            wanted = view_bytes(image, view)
        np.testing.assert_array_equal(decode(content, view), wanted)
    # A damaged one is read, or refused, as by Pillow.
    with pytest.raises(OSError, match="truncated"):
        decode(content[: len(content) - 30], View((3, 13, 17)))


def test_a_run_on_shards_is_predicted_evaluated_and_looked_at(
    same: tuple[Path, Path], tmp_path: Path
) -> None:
    shards = Path(shutil.copytree(same[1], tmp_path / "shards"))
    settings = {"path": str(shards), "size": 8, "stream": True, "workers": 1}
    recipe = small_recipe({"webdataset": settings}, {"mlp": {"hidden": [8]}}, seeds=[0])
    recipe["students"] = {"kd": {}}
    run = tmp_path / "run"
    xcl.execute(parse_recipe(recipe), run)
    model = xcl.load(run, student="kd")
    assert model.classes == CLASSES
    found = open_run(run)
    known = found.summary["students"]["kd"]["metrics"]["nll"]["mean"]
    said = assess(model, found.data, Settings())
    assert said["metrics"]["nll"] == pytest.approx(known, rel=1e-5)
    image = tmp_path / "new.png"
    image.write_bytes(encoded(np.random.default_rng(3), "png"))
    probs = model.predict(image).probs
    assert probs.shape == (1, 3)
    # Everything but the data is in the run.
    shutil.rmtree(shards)
    again = xcl.load(run, student="kd")
    assert np.array_equal(again.predict(image).probs, probs)
