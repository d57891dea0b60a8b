"""Decode one image file to bytes, and serve orders to decode many as a worker process.

Nothing here needs torch, so that a worker starts in a fraction of a second and takes little memory.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import signal
import sys
import warnings
from dataclasses import asdict, dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from extracurricular.data.images import plain_jpeg
from extracurricular.data.images.packed import is_packed, read_place, read_remote
from extracurricular.data.remote import SourceError
from extracurricular.errors import DataError

Array: TypeAlias = np.ndarray[Any, Any]
Box: TypeAlias = tuple[float, float, float, float]

# No other format is opened, whatever a file's name: Pillow, for one, has PostScript run. Pillow
# always has the usual ones at hand, and imports all the others at once where one is asked for.
_USUAL = ("JPEG", "PNG", "GIF", "BMP", "PPM")
_RARE = (
    "AVIF", "HEIF", "ICO", "JPEG2000", "MPO", "PCX", "QOI", "SGI", "TGA", "TIFF", "WEBP"
)  # fmt: skip
_ORIENTATION = ExifTags.Base.Orientation.value
_SIDEWAYS = (5, 6, 7, 8)
_TRIES = 10
# Marks an answer that is a whole sentence, about the file that an image lies in and not about it.
_SOURCE = "\0"

_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Crop:
    """A random part of an image, as networks for ImageNet are trained on.

    Args:
        scale: Smallest and largest share of the image's area, in (0, 1].
        ratio: Smallest and largest width of the part as a multiple of its height.
        flip: Whether half of the parts are mirrored left to right.
    """

    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip: bool


@dataclass(frozen=True)
class View:
    """The part to take of an image, and the shape to bring it to.

    Args:
        shape: The (C, H, W) wanted, with C of 1 or 3.
        centre: Share of height and width to take of the largest central part with the proportions
            of ``shape``, in (0, 1].
        draft: Whether a JPEG may be decoded at half, a quarter or an eighth of its size, if the
            part taken of it still has at least the pixels of ``shape``.
        crop: A random part to take instead of the central one.
    """

    shape: tuple[int, int, int]
    centre: float = 1.0
    draft: bool = True
    crop: Crop | None = None


def view_settings(view: View) -> dict[str, Any]:
    """Return the size, crop and decoding of pictures as plain values, for ``Data.reading``."""
    channels, height, width = view.shape
    return {
        "size": [height, width],
        "channels": channels,
        "centre": view.centre,
        "draft": view.draft,
    }


class ImageError(DataError):
    """An image cannot be read.

    Args:
        name: Its name.
        why: The end of a sentence that begins with the name.
    """

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"the image {name!r} {why}")
        self.name, self.why = name, why


class SizeError(ValueError):
    """An image has another size than the data's images."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__(f"is {size[0]} × {size[1]} pixels")
        self.size = size
        self.name = ""


@lru_cache(maxsize=1)
def rare_formats() -> tuple[str, ...]:
    """Return the rarer formats that this Pillow reads."""
    Image.init()
    return tuple(name for name in _RARE if name in Image.OPEN)


@lru_cache(maxsize=1)
def endings() -> tuple[str, ...]:
    """Return the endings of image files that this Pillow reads, such as ``.jpg``, sorted."""
    known = {*_USUAL, *rare_formats(), "MPO"}  # MPO is opened as JPEG
    found = (end for end, name in Image.registered_extensions().items() if name in known)
    return tuple(sorted(found))


def some_endings() -> str:
    """Return the usual endings of images, and how many more there are, for a sentence."""
    usual = (".jpg", ".jpeg", ".png", ".webp")
    return f"{', '.join(usual)} or one of {len(set(endings()) - set(usual))} more"


def open_image(file: Path | str | bytes) -> Image.Image:
    """Open an image by its content, if its format is data and not a program.

    Args:
        file: Its path, its content, or its place in an archive (:mod:`.packed`).
    """
    if isinstance(file, str) and is_packed(file):
        file = read_place(file)
    try:
        return _open(file, _USUAL)
    except UnidentifiedImageError:
        return _open(file, rare_formats())


def _open(file: Path | str | bytes, formats: tuple[str, ...]) -> Image.Image:
    return Image.open(BytesIO(file) if isinstance(file, bytes) else file, formats=formats)


def image_bytes(image: Image.Image, shape: tuple[int, ...], resize: bool = False) -> Array:
    """Turn an image into bytes, uint8, [C, H, W].

    The image is turned upright by its EXIF orientation. 16 bits become 8, and transparent parts
    become white. Colours become grey if C is 1, and grey becomes colours if C is 3.

    Args:
        image: The image.
        shape: The (C, H, W) wanted, with C of 1 or 3.
        resize: Whether to bring the image to H × W: the largest central part with these proportions
            is scaled by Pillow's bicubic filter, which averages when it shrinks.

    Raises:
        ValueError: The pixels have no meaning as bytes, or, without ``resize``, the size differs.
    """
    channels, height, width = shape
    if not resize:
        image = ImageOps.exif_transpose(image)
        if image.size != (width, height):
            raise SizeError(image.size)
    return view_bytes(image, View((channels, height, width), draft=False))


def view_bytes(image: Image.Image, view: View, word: int = 0, out: Array | None = None) -> Array:
    """Turn the part of an image that a view takes into bytes, as :func:`image_bytes` does.

    Args:
        image: The image, not yet decoded if ``view.draft`` is to help.
        view: The part to take.
        word: 64 random bits that choose a random part; the result depends on image, view and bits.
        out: The array to write to; a new one if None.

    Returns:
        uint8, [C, H, W]

    Raises:
        ValueError: The pixels have no meaning as bytes.
    """
    _, height, width = view.shape
    jpeg = image.format in ("JPEG", "MPO")
    # A JPEG's draft must be requested before anything is decoded, so before it is upright.
    tagged = jpeg and ("exif" in image.info or "xmp" in image.info)
    turn = image.getexif().get(_ORIENTATION, 1) if tagged else 1
    sideways = turn in _SIDEWAYS
    if not jpeg:
        image = ImageOps.exif_transpose(image)
    size = image.size[::-1] if sideways else image.size
    box, mirrored = _box(size, view, word)
    shrink = _draft(image, box, (width, height)) if jpeg and view.draft else 1
    if turn != 1:
        ImageOps.exif_transpose(image, in_place=True)
    return _taken(image, view, box, mirrored, shrink, out)


def _box(size: tuple[int, int], view: View, word: int) -> tuple[Box, bool]:
    """Return the part of an image that a view takes, and whether it is mirrored."""
    if view.crop is None:
        _, height, width = view.shape
        return central_box(size, (width, height), view.centre), False
    return random_box(size, view.crop, word)


def _taken(
    image: Image.Image, view: View, box: Box, mirrored: bool, shrink: int, out: Array | None
) -> Array:
    """Return a part of an upright image, whose sides are ``shrink`` times as small as ``box``'s."""
    channels, height, width = view.shape
    image = _convert(image, channels)
    left, top, right, bottom = (edge / shrink for edge in box)
    box = (left, top, min(right, image.size[0]), min(bottom, image.size[1]))
    if image.size != (width, height) or box != (0, 0, width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC, box=box)
    if mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return _bytes(image, view, out)


def _bytes(image: Image.Image, view: View, out: Array | None) -> Array:
    """Return the pixels of an image that has the shape of a view, uint8, [C, H, W]."""
    channels, height, width = view.shape
    out = np.empty(view.shape, np.uint8) if out is None else out
    # Each row comes as its reds, its greens and its blues, so that runs of bytes are copied.
    lines = image.tobytes("raw", "L" if channels == 1 else "RGB;L")
    out[...] = np.frombuffer(lines, np.uint8).reshape(height, channels, width).transpose(1, 0, 2)
    return out


def _shrink(box: Box, wanted: tuple[int, int]) -> int:
    """Return how far the sides of a part may shrink and still have the pixels that are wanted."""
    enough = min((box[2] - box[0]) / wanted[0], (box[3] - box[1]) / wanted[1])
    return next((k for k in (8, 4, 2) if k <= enough), 1)


def _draft(image: Image.Image, box: Box, wanted: tuple[int, int]) -> int:
    """Let a JPEG be decoded at the smallest scale that is enough; return how far sides shrink."""
    shrink = _shrink(box, wanted)
    if shrink == 1:
        return 1
    width, height = image.size
    # Pillow takes the smallest scale that gives at least this size.
    if image.draft(None, (width // shrink, height // shrink)) is None:
        return 1
    return shrink


def _convert(image: Image.Image, channels: int) -> Image.Image:
    mode = "L" if channels == 1 else "RGB"
    # Converting to the same mode would copy all pixels.
    if image.mode == mode and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise ValueError("its pixels are reals, and the values of black and white are not known")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(
                f"its pixels are from {values.min()} to {values.max()}; "
                "they must be of 8 or 16 bits"
            )
        # 65535 = 255 · 257; half of 257 rounds to the nearest.
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)


# Parts of an image


def central_box(size: tuple[int, int], wanted: tuple[int, int], centre: float = 1.0) -> Box:
    """Return the central part of an image with given proportions.

    Args:
        size: Width and height of the image.
        wanted: Width and height that have the proportions.
        centre: Share of the sides of the largest such part, in (0, 1].

    Returns:
        Left, top, right and bottom edge, in pixels.
    """
    width, height = size
    ratio = wanted[0] / wanted[1]
    wide, high = (ratio * height, height) if width / height > ratio else (width, width / ratio)
    wide, high = min(wide, width) * centre, min(high, height) * centre
    left, top = (width - wide) * 0.5, (height - high) * 0.5
    return left, top, left + wide, top + high


def random_box(size: tuple[int, int], crop: Crop, word: int) -> tuple[Box, bool]:
    """Return a random part of an image, and whether it is mirrored, as functions of 64 bits.

    The part's share of the area, the logarithm of its ratio, and its place are uniform (Szegedy et
    al. 2015, section 6). As in the usual training on ImageNet, ten parts are tried; if none fits
    into the image, the largest central part with an allowed ratio is taken.

    Args:
        size: Width and height of the image.
        crop: Ranges of area and ratio.
        word: The bits.

    Returns:
        Left, top, right and bottom edge in whole pixels; and whether the part is mirrored.
    """
    width, height = size
    low, high = (math.log(ratio) for ratio in crop.ratio)
    mirrored = crop.flip and bool(_mixed(word, 0) & 1)
    for k in range(_TRIES):
        area = width * height * _between(*crop.scale, _unit(word, 4 * k + 1))
        ratio = math.exp(_between(low, high, _unit(word, 4 * k + 2)))
        wide, tall = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < tall <= height:
            left = math.floor((width - wide + 1) * _unit(word, 4 * k + 3))
            top = math.floor((height - tall + 1) * _unit(word, 4 * k + 4))
            return (left, top, left + wide, top + tall), mirrored
    wide = min(width, max(1, round(height * crop.ratio[1])))
    tall = min(height, max(1, round(width / crop.ratio[0])))
    left, top = (width - wide) // 2, (height - tall) // 2
    return (left, top, left + wide, top + tall), mirrored


def _between(low: float, high: float, part: float) -> float:
    return low + (high - low) * part


def _mixed(word: int, k: int) -> int:
    """Return word k ≥ 0 of the bits that ``rng.bits(…, shape)`` derives from a key."""
    x = (word + (k + 1) * 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def _unit(word: int, k: int) -> float:
    """Return a number in [0, 1), a multiple of 2^-53, so the product with n < 2^53 is below n."""
    return (_mixed(word, k) >> 11) * 2.0**-53


# Files


def decode(file: Path | str | bytes, view: View, word: int = 0, out: Array | None = None) -> Array:
    """Read a file and return the part that a view takes, uint8, [C, H, W] (:func:`view_bytes`).

    Raises:
        Exception: The file is damaged. The decoder chooses the kind; :func:`problem` explains it.
    """
    content = _content(file)
    if isinstance(content, bytes) and (known := plain_jpeg.plain(content)) is not None:
        if view.crop is None and view.centre == 1 and known[:2] == view.shape[:0:-1]:
            image = plain_jpeg.pixels(content, known)
            if image is not None:
                return _bytes(_convert(image, view.shape[0]), view, out)
        box, mirrored = _box(known[:2], view, word)
        if not view.draft or _shrink(box, view.shape[:0:-1]) == 1:
            image = plain_jpeg.pixels(content, known)
            if image is not None:
                return _taken(image, view, box, mirrored, 1, out)
    with open_image(content) as image:
        return view_bytes(image, view, word, out)


def _content(file: Path | str | bytes) -> Path | str | bytes:
    """Return the content of a small file, and otherwise the file."""
    if isinstance(file, bytes):
        return file
    if isinstance(file, str) and is_packed(file):
        return read_place(file)
    with open(file, "rb", buffering=0) as opened:  # noqa: PTH123 - many times as fast as Path
        size = os.fstat(opened.fileno()).st_size
        return opened.read(size) if size <= plain_jpeg.LARGEST else file


def problem(error: Exception) -> str:
    """Return why an image could not be decoded, as a sentence that lacks the image's name."""
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return (
            f"has more than {Image.MAX_IMAGE_PIXELS} pixels, "
            "as files made to fill the memory have; make it smaller or leave it out"
        )
    if isinstance(error, UnidentifiedImageError):
        # Pillow's own text names an object in memory.
        return f"cannot be read: it is none of {', '.join((*_USUAL, *rare_formats()))}"
    if isinstance(error, SourceError):
        return f"{_SOURCE}{error}"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return f"cannot be read: {error or type(error).__name__}"


def check_source(why: str) -> None:
    """Raise an error where the fault is not that of an image, so that no other may replace it.

    Args:
        why: What :func:`problem` returned.

    Raises:
        SourceError: The file that the image lies in cannot be reached, or has changed.
    """
    if why.startswith(_SOURCE):
        raise SourceError(why.removeprefix(_SOURCE))


# A worker reads one order per line of its standard input and writes one answer per line of output.


def order(view: View, first: int, images: list[tuple[str, int]]) -> bytes:
    """Return an order to decode files with their bits to the places from ``first`` on."""
    return json.dumps({"view": asdict(view), "first": first, "images": images}).encode() + b"\n"


@lru_cache(maxsize=16)
def _view(text: str) -> View:
    given = json.loads(text)
    crop = given.pop("crop")
    if crop is not None:
        crop = Crop(tuple(crop["scale"]), tuple(crop["ratio"]), crop["flip"])
    return View(**given | {"shape": tuple(given["shape"]), "crop": crop})


def obey(line: bytes, pixels: Array) -> bytes:
    """Carry out an order.

    Args:
        line: The order.
        pixels: The memory for the images, uint8, flat.

    Returns:
        The answer: the problem of each image that cannot be decoded, by its place in the order.
    """
    given = json.loads(line)
    view = _view(json.dumps(given["view"]))
    size = math.prod(view.shape)
    images, wrong = given["images"], dict[int, str]()
    try:
        far = read_remote([file for file, _ in images])
    except Exception as error:  # a back end of fsspec may raise anything
        return json.dumps(dict.fromkeys(range(len(images)), problem(error))).encode() + b"\n"
    for k, (file, word) in enumerate(images, start=given["first"]):
        row = pixels[k * size : (k + 1) * size].reshape(view.shape)
        try:
            decode(far.get(file, file), view, word, row)
        except Exception as error:  # decoders raise all kinds for a damaged file
            wrong[k - given["first"]] = problem(error)
    return json.dumps(wrong).encode() + b"\n"


def serve(memory: int, size: int) -> None:
    """Carry out orders until the input ends, which it also does when the parent has ended.

    Args:
        memory: Descriptor of the memory that is shared with the parent.
        size: Its size in bytes.
    """
    # Ctrl-C reaches every process of a terminal; the parent decides what follows.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    # Text that a decoder prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    pixels = np.frombuffer(mmap.mmap(memory, size), np.uint8)
    try:
        for line in sys.stdin.buffer:
            if line == b"\n":
                break
            answers.write(obey(line, pixels))
            answers.flush()
    except BrokenPipeError:
        pass
    # Nothing is open that has to be closed properly.
    os._exit(0)
