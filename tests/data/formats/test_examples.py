"""Examples without labels from folders of images, arrays and parquet files, and refusals."""

from __future__ import annotations

import io
import os
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from torch import Tensor

from extracurricular.data.base import Data, make_data
from extracurricular.data.formats.examples import image_files, read_pool
from extracurricular.data.images.decode import image_bytes
from extracurricular.errors import DataError
from extracurricular.inputs import leaves
from tests.conftest import eye_data, image_data, pair_data, table_data

Array = np.ndarray[Any, Any]
GREY, COLOUR = (1, 8, 8), (3, 8, 8)


def pixels(count: int, channels: int = 1, height: int = 8, width: int = 8) -> Array:
    g = np.random.default_rng(9)
    return g.integers(0, 256, (count, channels, height, width)).astype(np.uint8)


def picture(values: Array) -> Image.Image:
    """An image of bytes [C, H, W]."""
    return Image.fromarray(values[0] if len(values) == 1 else np.moveaxis(values, 0, -1))


def write(path: Path, values: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(values).save(path)


def read(path: Path, data: Data, resize: bool = False) -> Array:
    split = read_pool(path, data.train.x, resize)
    assert split.y is None
    assert isinstance(split.x, Tensor)
    return split.x.numpy()


# Folders of images


def test_a_folder_in_the_order_of_its_paths(tmp_path: Path) -> None:
    x = pixels(6)
    for name, values in zip(
        ("b.png", "a/2.PNG", "a/10.bmp", "c/deep/x.tif", "a b/y.gif", "z.tiff"), x, strict=True
    ):
        write(tmp_path / name, values)
    for hidden in (".d.png", ".hidden/e.png", "a/.f.png"):
        write(tmp_path / hidden, x[0])
    (tmp_path / "notes.txt").write_text("no image")
    names = [file.relative_to(tmp_path).as_posix() for file in image_files(tmp_path)]
    assert names == ["a b/y.gif", "a/10.bmp", "a/2.PNG", "b.png", "c/deep/x.tif", "z.tiff"]
    assert np.array_equal(read(tmp_path, image_data()), x[[4, 2, 1, 0, 3, 5]])


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_exact_pixels_of_lossless_formats(tmp_path: Path, suffix: str, channels: int) -> None:
    x = pixels(3, channels)
    for k, values in enumerate(x):
        settings = {"lossless": True} if suffix == "webp" else {}
        picture(values).save(tmp_path / f"{k}.{suffix}", **settings)
    assert np.array_equal(read(tmp_path, image_data(channels=channels)), x)


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "webp", "gif"])
def test_close_pixels_of_the_others(tmp_path: Path, suffix: str) -> None:
    ramp = np.linspace(40, 200, 8).astype(np.uint8)
    x = np.broadcast_to(ramp, (1, 3, 8, 8))
    picture(x[0]).save(tmp_path / f"a.{suffix}")
    got = read(tmp_path, image_data(channels=3))
    assert np.abs(got.astype(int) - x.astype(int)).max() <= 8


def test_many_images_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extracurricular.data.formats.examples._BLOCK", 7)
    x = pixels(50)
    for k, values in enumerate(x):
        write(tmp_path / f"{k:02d}.png", values)
    assert np.array_equal(read(tmp_path, image_data()), x)


def test_the_first_picture_of_an_animation(tmp_path: Path) -> None:
    x = pixels(2)
    picture(x[0]).save(tmp_path / "a.gif", save_all=True, append_images=[picture(x[1])])
    assert np.array_equal(read(tmp_path, image_data()), x[:1])


def test_grey_and_colour_become_each_other(tmp_path: Path) -> None:
    grey, colour = pixels(1), pixels(1, 3)
    write(tmp_path / "a.png", grey[0])
    write(tmp_path / "b.png", colour[0])
    both = read(tmp_path, image_data(channels=3))
    assert np.array_equal(both[0], np.repeat(grey[0], 3, axis=0))
    assert np.array_equal(both[1], colour[0])
    one = read(tmp_path, image_data())
    luma = (colour[0] * np.array([0.299, 0.587, 0.114])[:, None, None]).sum(0)
    assert np.array_equal(one[0], grey[0])
    assert np.abs(one[1, 0] - luma).max() <= 1


def test_sixteen_bits_become_eight() -> None:
    values = (np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8)
    wanted = np.round(values / 257).astype(np.uint8)
    for image in (Image.fromarray(values), Image.fromarray(values.astype(np.int32))):
        assert np.array_equal(image_bytes(image, GREY)[0], wanted)
        assert np.array_equal(image_bytes(image, COLOUR)[2], wanted)
    full = Image.fromarray(np.full((8, 8), 65535, np.uint16))
    assert image_bytes(full, GREY).min() == 255
    with pytest.raises(ValueError, match="pixels are from 0 to 70000; they must be of 8 or 16"):
        image_bytes(
            Image.fromarray(np.arange(64, dtype=np.int32).reshape(8, 8) * 70000 // 63), GREY
        )
    with pytest.raises(ValueError, match="pixels are reals"):
        image_bytes(Image.new("F", (8, 8)), GREY)


def test_sixteen_bits_in_a_file(tmp_path: Path) -> None:
    values = (np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "a.png")
    Image.fromarray(values).save(tmp_path / "b.tif")
    wanted = np.round(values / 257).astype(np.uint8)
    assert all(np.array_equal(got[0], wanted) for got in read(tmp_path, image_data()))


def test_palettes_and_bits() -> None:
    colours = Image.new("P", (8, 8), 1)
    colours.putpalette([0, 0, 0, 200, 100, 50])
    assert image_bytes(colours, COLOUR)[:, 0, 0].tolist() == [200, 100, 50]
    assert image_bytes(Image.new("1", (8, 8), 1), GREY).min() == 255
    assert image_bytes(Image.new("CMYK", (8, 8)), COLOUR).min() == 255


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_transparent_parts_become_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 4, 8))
    if mode == "RGB":
        image = Image.new("RGB", (8, 8))
        image.paste((9, 9, 9), (0, 0, 4, 8))
        image.info["transparency"] = (9, 9, 9)
    elif mode != "RGBA":
        image = image.convert("LA") if mode == "LA" else image.quantize(4)
    image.save(tmp_path / "a.png", **image.info)
    got = read(tmp_path, image_data(channels=3))[0]
    assert got[:, :, :4].min() == 255
    assert got[:, :, 4:].max() == 0


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    values = np.zeros((1, 6, 8), np.uint8)
    values[:, :, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    for name, settings in (("a.png", {}), ("b.jpg", {"quality": 100})):
        picture(values).save(tmp_path / name, exif=exif, **settings)
    x = np.zeros((4, 1, 8, 6), np.uint8)
    data = make_data("tall", (x, np.arange(4) % 2), (x, np.arange(4) % 2))
    for got in read(tmp_path, data):
        assert np.abs(got.astype(int) - np.rot90(values[0], -1).astype(int)).max() <= 2


def test_resizing_keeps_proportions_and_the_middle(tmp_path: Path) -> None:
    wide = np.zeros((1, 8, 24), np.uint8)
    wide[:, :, 8:16] = pixels(1)[0]
    write(tmp_path / "a.png", wide)
    write(tmp_path / "b.png", np.full((1, 31, 17), 90, np.uint8))
    write(tmp_path / "c.png", pixels(1)[0])
    got = read(tmp_path, image_data(), resize=True)
    assert np.array_equal(got[0], pixels(1)[0])
    assert set(np.unique(got[1])) == {90}
    assert np.array_equal(got[2], pixels(1)[0])
    # Making smaller averages: a fine chequerboard becomes grey, not black or white.
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    small = image_bytes(Image.fromarray(board), GREY, resize=True)
    assert np.abs(small.astype(int) - 127).max() <= 2


def test_images_of_another_size_are_named(tmp_path: Path) -> None:
    data = image_data()
    write(tmp_path / "b/wide.png", pixels(1, width=12)[0])
    says = r"'b/wide.png' is 12 × 8 pixels, the data's are 8 × 8 .*`resize: true` brings all"
    with pytest.raises(DataError, match=says):
        read(tmp_path, data)
    write(tmp_path / "c.png", pixels(1)[0])
    with pytest.raises(DataError, match=r"'b/wide.png' is 12 × 8 .*, and 'c.png' is 8 × 8;"):
        read(tmp_path, data)
    write(tmp_path / "a.png", pixels(1)[0])
    with pytest.raises(DataError, match=r"'b/wide.png' is 12 × 8 pixels, but 'a.png' is 8 × 8"):
        read(tmp_path, data)
    assert read(tmp_path, data, resize=True).shape == (3, 1, 8, 8)


def test_damaged_images_are_named(tmp_path: Path) -> None:
    for suffix in ("png", "jpg", "gif", "bmp", "tif", "webp"):
        folder = tmp_path / suffix
        write(folder / f"a.{suffix}", pixels(1, 3)[0])
        write(folder / f"b.{suffix}", pixels(1, 3)[0])
        whole = (folder / f"b.{suffix}").read_bytes()
        for content in (whole[: len(whole) * 2 // 3], b"", b"no image at all"):
            (folder / f"b.{suffix}").write_bytes(content)
            with pytest.raises(DataError, match=f"the image 'b.{suffix}' cannot be read"):
                read(folder, image_data(channels=3))


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that says it is side × side."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 40_000])
@pytest.mark.parametrize("resize", [False, True])
def test_decompression_bombs_are_refused(tmp_path: Path, side: int, resize: bool) -> None:
    write(tmp_path / "a.png", pixels(1)[0])
    (tmp_path / "b.png").write_bytes(bomb(side))
    with pytest.raises(DataError, match=r"the image 'b.png' has more than \d+ pixels"):
        read(tmp_path, image_data(), resize)


def test_a_file_is_what_it_holds_and_not_what_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostScript that calls itself a PNG would be run by another program."""
    mark = tmp_path / "executed"
    tool = tmp_path / "bin" / "gs"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\ntouch '{mark}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with pytest.raises(DataError, match=r"the image 'a.png' cannot be read"):
        read(folder, image_data())
    assert not mark.exists()
    # Whereas an honest image under another's name is read.
    picture(pixels(1)[0]).save(folder / "a.png", format="BMP")
    assert np.array_equal(read(folder, image_data()), pixels(1))


def test_links_in_a_circle_do_no_harm(tmp_path: Path) -> None:
    folder, beyond = tmp_path / "images", tmp_path / "beyond"
    write(folder / "a/x.png", pixels(2)[0])
    write(beyond / "y.png", pixels(2)[1])
    (folder / "a/up").symlink_to(folder, target_is_directory=True)
    (folder / "a/self").symlink_to("self")
    (folder / "b").symlink_to(beyond, target_is_directory=True)
    (beyond / "back").symlink_to(folder, target_is_directory=True)
    assert np.array_equal(read(folder, image_data()), pixels(2))
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"'gone.png' cannot be read: .*No such file"):
        read(folder, image_data())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    write(tmp_path / "a.png", pixels(1)[0])
    os.mkfifo(tmp_path / "b.png")
    assert len(read(tmp_path, image_data())) == 1


def test_paths_that_are_nothing_to_read(tmp_path: Path) -> None:
    data = image_data()
    with pytest.raises(DataError, match=r"path '.*gone' does not exist; it must name a folder of"):
        read(tmp_path / "gone", data)
    with pytest.raises(DataError, match=r"the folder '.*' has no images \(\.jpg"):
        read(tmp_path, data)
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(DataError, match=r"path is '.*a.csv'; it must name a folder of images, or"):
        read(tmp_path / "a.csv", data)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (eye_data(), "the data has the inputs eye, pose; an .npz file can hold an array for each"),
        (table_data(), r"1 or 3 channels, but the data's examples have shape \(5,\)"),
        (image_data(channels=2), r"1 or 3 channels, but the data's examples have shape \(2, 8, 8"),
    ],
)
def test_images_are_for_data_of_images(tmp_path: Path, data: Data, says: str) -> None:
    write(tmp_path / "a.png", pixels(1)[0])
    with pytest.raises(DataError, match=says):
        read(tmp_path, data)


def test_images_of_bytes_are_not_taken_for_reals(tmp_path: Path) -> None:
    write(tmp_path / "a.png", pixels(1)[0])
    x = pixels(9).astype(np.float32) / 255
    data = make_data("reals", (x, np.arange(9) % 2), (x, np.arange(9) % 2))
    with pytest.raises(DataError, match=r"the data's are reals; give the pool as an .npy file"):
        read(tmp_path, data)
    np.save(tmp_path / "a.npy", x.astype(np.float64))
    assert np.array_equal(read(tmp_path / "a.npy", data), x)


# Arrays


@pytest.mark.parametrize("dtype", ["u1", "i2", "<u4", ">i8", "i8"])
def test_an_array_of_bytes(tmp_path: Path, dtype: str) -> None:
    x = pixels(7)
    np.save(tmp_path / "x.npy", x.astype(dtype))
    got = read(tmp_path / "x.npy", image_data())
    assert got.dtype == np.uint8
    assert np.array_equal(got, x)
    np.save(tmp_path / "x.npy", np.asfortranarray(x[:, 0].astype(dtype)))
    assert np.array_equal(read(tmp_path / "x.npy", image_data()), x)


@pytest.mark.parametrize("dtype", ["f2", "<f4", ">f4", "f8", "g", "i4", "u1", "?"])
def test_an_array_of_numbers(tmp_path: Path, dtype: str) -> None:
    x = np.arange(35).reshape(7, 5).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    got = read(tmp_path / "x.npy", table_data())
    assert got.dtype == np.float32
    assert np.array_equal(got, x.astype(np.float32))


def test_arrays_by_name(tmp_path: Path) -> None:
    data = eye_data()
    eye, pose = (v[:6].numpy() for v in leaves(data.train.x).values())
    np.savez(tmp_path / "a.npz", x_pose=pose, x_eye=eye[:, 0], y=np.zeros(3), other=eye)
    split = read_pool(tmp_path / "a.npz", data.train.x)
    assert isinstance(split.x, dict)
    assert list(split.x) == ["eye", "pose"]
    assert np.array_equal(split.x["eye"], eye)
    assert np.array_equal(split.x["pose"], pose)
    np.savez_compressed(tmp_path / "b.npz", x_0=eye, x_1=pose)
    both = read_pool(tmp_path / "b.npz", pair_data().train.x)
    assert isinstance(both.x, tuple)
    assert np.array_equal(both.x[1], pose)
    np.savez(tmp_path / "c.npz", x=pixels(3), y=np.arange(3))
    assert np.array_equal(read(tmp_path / "c.npz", image_data()), pixels(3))
    for path, like, says in (
        ("b.npz", data, r"holds \['x_0', 'x_1'\]; for this data it needs x_eye, x_pose"),
        ("c.npz", data, r"holds \['x'\]; for this data it needs x_eye, x_pose"),
        ("a.npz", image_data(), r"holds \['x_eye', 'x_pose'\]; for this data it needs x$"),
    ):
        with pytest.raises(DataError, match=says):
            read_pool(tmp_path / path, like.train.x)
    np.savez(tmp_path / "d.npz", x_eye=eye, x_pose=pose[:4])
    with pytest.raises(DataError, match=r"different numbers of examples: .*'x_pose': 4"):
        read_pool(tmp_path / "d.npz", data.train.x)


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (pixels(3) / np.float32(255), "values of type float32; the images of the data are bytes"),
        (pixels(3) > 9, "values of type bool; the images of the data are bytes 0 to 255"),
        (pixels(3).astype(int) - 300, "has the value -300; the images"),
        (np.full((3, 8, 8), 256), "has the value 256; the images"),
        (pixels(3).astype(complex), "values of type complex128; they must be numbers"),
        (pixels(3).astype(str), "they must be numbers"),
        (pixels(0), "holds no examples"),
        (np.float32(3), "holds no examples"),
        (pixels(3, 1, 9, 8), r"shape \(1, 9, 8\), the data's are \(1, 8, 8\); `resize: true`"),
        (pixels(3, 3), r"shape \(3, 8, 8\), the data's are \(1, 8, 8\)$"),
        (np.zeros((3, 5)), "values of type float64"),
        (np.zeros((3, 5), int), r"shape \(5,\), the data's are \(1, 8, 8\)$"),
        (pixels(3).transpose(0, 2, 3, 1), r"order \[N, H, W, C\]; it must be \[N, C, H, W\]"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit(tmp_path: Path, x: Array, says: str) -> None:
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(DataError, match=rf"the file '.*x.npy': x .*{says}"):
        read(tmp_path / "x.npy", image_data())


def test_values_that_are_not_finite_are_named_by_their_place(tmp_path: Path) -> None:
    for value in (np.nan, np.inf, 1e300):
        x = np.zeros((7, 5))
        x[4, 2] = value
        np.save(tmp_path / "x.npy", x)
        with pytest.raises(DataError, match=r"x\.npy': x\[4, 2\] is (nan|inf); every value must"):
            read(tmp_path / "x.npy", table_data())


def test_arrays_of_images_are_resized(tmp_path: Path) -> None:
    for channels in (1, 3):
        x = np.broadcast_to(
            np.arange(4, dtype=np.uint8)[:, None, None, None], (4, channels, 20, 16)
        )
        np.save(tmp_path / "x.npy", x)
        got = read(tmp_path / "x.npy", image_data(channels=channels), resize=True)
        assert got.shape == (4, channels, 8, 8)
        assert np.array_equal(got, np.broadcast_to(x[:, :, :1, :1], got.shape))
    np.save(tmp_path / "x.npy", x.transpose(0, 2, 3, 1))
    with pytest.raises(DataError, match="has the order"):
        read(tmp_path / "x.npy", image_data(channels=3), resize=True)


def test_damaged_arrays_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", pixels(50))
    np.savez_compressed(tmp_path / "x.npz", x=pixels(50))
    for kind in ("npy", "npz"):
        path = tmp_path / f"x.{kind}"
        whole = path.read_bytes()
        for content in (whole[:-300], whole[:20], b"", b"some text"):
            path.write_bytes(content)
            with pytest.raises(DataError, match=rf"'.*x.{kind}' cannot be read as \.{kind}"):
                read(path, image_data())


class Explosive:
    """Unpickling this would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (Path.touch, (self.path,))


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    x = np.array([Explosive(mark)] * 3, dtype=object)
    np.save(tmp_path / "x.npy", x, allow_pickle=True)
    np.savez(tmp_path / "x.npz", x=x)
    for path in (tmp_path / "x.npy", tmp_path / "x.npz"):
        with pytest.raises(DataError, match=r"cannot be read as .*allow_pickle"):
            read(path, image_data())
        assert not mark.exists()
        # It would have gone off.
        np.load(path, allow_pickle=True)["x" if path.suffix == ".npz" else ...]
        assert mark.exists()
        mark.unlink()
    (tmp_path / "raw.npy").write_bytes(x.dumps())
    with pytest.raises(DataError, match="cannot be read as"):
        read(tmp_path / "raw.npy", image_data())
    assert not mark.exists()


# Parquet


def encoded(values: Array) -> bytes:
    buffer = io.BytesIO()
    picture(values).save(buffer, format="PNG")
    return buffer.getvalue()


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path / "x.parquet", row_group_size=3)
    return path / "x.parquet"


def test_images_in_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extracurricular.data.formats.examples._BLOCK", 4)
    x = pixels(10, 3)
    raw = [encoded(v) for v in x]
    names = [f"{k}.png" for k in range(10)]
    struct_of = pa.array([{"bytes": b, "path": n} for b, n in zip(raw, names, strict=True)])
    data = image_data(channels=3)
    y, other = list(range(10)), [encoded(v) for v in x[::-1]]
    assert np.array_equal(read(parquet(tmp_path, y=y, image=struct_of, z=other), data), x)
    assert np.array_equal(read(parquet(tmp_path, n=names, image=raw, z=other), data), x)
    large = pa.array(raw, pa.large_binary())
    assert np.array_equal(read(parquet(tmp_path, y=y, image=large), data), x)
    small = read(parquet(tmp_path, image=raw), image_data(size=4, channels=3), resize=True)
    assert small.shape == (10, 3, 4, 4)


def test_images_in_parquet_that_do_not_fit(tmp_path: Path) -> None:
    data, raw = image_data(), [encoded(v) for v in pixels(5)]
    with pytest.raises(DataError, match=r"the image 'x.parquet, row 3' cannot be read"):
        read(parquet(tmp_path, image=[*raw[:3], b"none"]), data)
    big = encoded(pixels(1, width=9)[0])
    with pytest.raises(DataError, match=r"'x.parquet, row 4' is 9 × 8 .* but 'x.parquet, row 0'"):
        read(parquet(tmp_path, image=[*raw[:4], big]), data)
    path = pa.array([{"bytes": raw[0], "path": None}, {"bytes": None, "path": "a.png"}])
    with pytest.raises(DataError, match=r"'x.parquet, row 1' has no bytes; a path alone"):
        read(parquet(tmp_path, image=path), data)
    with pytest.raises(DataError, match=r"'x.parquet, row 1' has no bytes"):
        read(parquet(tmp_path, image=pa.array([{"bytes": raw[0]}, None])), data)
    with pytest.raises(DataError, match=r"has the columns a, b; none of them holds images"):
        read(parquet(tmp_path, a=[1], b=["x"]), data)
    with pytest.raises(DataError, match="has no rows"):
        read(parquet(tmp_path, image=pa.array([], pa.binary())), data)
    with pytest.raises(DataError, match="the data has the inputs eye, pose"):
        read_pool(parquet(tmp_path, image=raw), eye_data().train.x)
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"'.*x.parquet' cannot be read as parquet"):
        read(tmp_path / "x.parquet", data)


def test_tables_in_parquet(tmp_path: Path) -> None:
    columns = {
        "b": np.arange(6) / 2, "a": np.arange(6), "name": list("abcdef"),
        "c": np.float32([1, 2, 3, 4, 5, 6]), "d": np.arange(6) > 2, "e": np.uint8([1] * 6),
    }  # fmt: skip
    wanted = np.stack([columns[k] for k in "bacde"], axis=1).astype(np.float32)
    got = read(parquet(tmp_path, **columns), table_data())
    assert got.dtype == np.float32
    assert np.array_equal(got, wanted)
    del columns["d"]
    with pytest.raises(DataError, match=r"has 4 columns of numbers \(b, a, c, e\), the data has 5"):
        read(parquet(tmp_path, **columns), table_data())
    columns["d"] = pa.array([1, 2, None, 4, 5, 6])
    with pytest.raises(DataError, match=r"x\[2, 4\] is nan"):
        read(parquet(tmp_path, **columns), table_data())


def test_without_pyarrow_a_sentence_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = parquet(tmp_path, image=[encoded(pixels(1)[0])])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"needs pyarrow, .*pip install -e '.\[parquet\]'"):
        read(path, image_data())
