"""Decode the plain kind of JPEG with less work around it: small images cost little to decode.

Pillow's reader of headers, in Python, takes half of the time of a JPEG of 64×64 pixels. A JPEG of
grey or three components, without Exif, Adobe or other marks that change what is shown, needs its
size alone from there. Pillow's own decoder then gives the same pixels. All other files, damaged
ones among them, are none of this kind, and are read as usual. Nothing here needs torch.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

from PIL import Image

# Larger contents are mostly decoded at a part of their size, or take so long that this is nothing.
LARGEST = 2**18
_MOST_PIXELS = 2**20
# Baseline, extended and progressive; tables, restarts; JFIF, colour profiles and comments.
_FRAMES = (0xC0, 0xC1, 0xC2)
_HARMLESS = (0xC4, 0xDB, 0xDD, 0xE0, 0xFE)
_SCAN, _PROFILE = 0xDA, 0xE2
_MODES = {1: "L", 3: "RGB"}
_decoder: Any = getattr(getattr(Image, "core", None), "jpeg_decoder", None)
_local = threading.local()


class Plain(NamedTuple):
    """What is known of a plain JPEG: its size in pixels and Pillow's mode for it."""

    width: int
    height: int
    mode: str


def plain(content: bytes) -> Plain | None:
    """Return the size of a plain JPEG; None for anything else."""
    if _decoder is None or content[:3] != b"\xff\xd8\xff" or len(content) > LARGEST:
        return None
    found, place, end = None, 2, len(content) - 10
    while place < end and content[place] == 0xFF:
        mark = content[place + 1]
        if mark == _SCAN:
            return found
        if mark in _FRAMES:
            if found is not None or content[place + 4] != 8:
                return None
            height = content[place + 5] << 8 | content[place + 6]
            width = content[place + 7] << 8 | content[place + 8]
            mode = _MODES.get(content[place + 9])
            if mode is None or not 0 < width * height <= _MOST_PIXELS:
                return None
            found = Plain(width, height, mode)
        elif mark not in _HARMLESS and not (
            mark == _PROFILE and content[place + 4 : place + 16] == b"ICC_PROFILE\0"
        ):
            return None
        place += 2 + (content[place + 2] << 8 | content[place + 3])
    return None


def pixels(content: bytes, known: Plain) -> Image.Image | None:
    """Return the image of a plain JPEG; None if it is damaged.

    The image is the same object again in the next call of this thread, so it is to be used at once.
    """
    width, height, mode = known
    images: dict[Plain, Image.Image] = _local.__dict__.setdefault("images", {})
    image = images.get(known)
    if image is None:
        if len(images) >= 8:
            images.clear()
        image = images[known] = Image.new(mode, (width, height))
    decoder = _decoder(mode, mode, "")
    decoder.setimage(image.im, (0, 0, width, height))
    left, error = decoder.decode(content)
    # It is -1 once all rows are there; otherwise it waits for more bytes.
    return image if left == -1 and error == 0 else None
