"""The form in which an ONNX file takes an image: its layout and its size.

Data hold images as [B, C, H, W]. A file from elsewhere may take [B, H, W, C], or one row of numbers
for each image, or images of another size. Where the file declares its input, this is read from
there; where it leaves sizes open, the person says it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from extracurricular.errors import known_names, shorten

LAYOUTS = ("nchw", "nhwc", "flat")


@dataclass(frozen=True)
class Taken:
    """How an image [C, H, W] of the data becomes the input of a file.

    Args:
        layout: ``nchw``, ``nhwc``, or ``flat`` for one row of C · H · W numbers, in this order.
        size: Height and width that the file takes; None for those of the data.
    """

    layout: str = "nchw"
    size: tuple[int, int] | None = None

    def resized(self, images: Any, bytes_range: bool) -> Any:
        """Bring images [B, C, H, W] to the size that the file takes.

        They are scaled by a bicubic filter, which averages where it shrinks; of other proportions,
        their largest central part. The result for one image depends on it alone.

        Args:
            images: The images, as floats.
            bytes_range: Whether values are from 0 to 255, and stay there.
        """
        if self.size is None or images.shape[2:] == self.size:
            return images
        return _resized(images, self.size, bytes_range)

    def arranged(self, images: Any) -> Any:
        """Bring images [B, C, H, W] to the layout that the file takes."""
        if self.layout == "nhwc":
            return images.transpose(0, 2, 3, 1)
        return images.reshape(len(images), -1) if self.layout == "flat" else images

    def describe(self, shape: Sequence[int]) -> str | None:
        """Return a sentence where images change their size; None elsewhere."""
        if self.size is None or tuple(shape[1:]) == self.size:
            return None
        before, after = (f"{h} × {w}" for h, w in (tuple(shape[1:]), self.size))
        return f"the teacher takes images of {after}, so those of the data ({before}) are resized"


def _resized(images: Any, size: tuple[int, int], bytes_range: bool) -> Any:
    height, width = images.shape[2:]
    wide = min(width, round(height * size[1] / size[0])) or 1
    high = min(height, round(width * size[0] / size[1])) or 1
    top, left = (height - high) // 2, (width - wide) // 2
    part = torch.from_numpy(
        np.ascontiguousarray(images[:, :, top : top + high, left : left + wide])
    )
    scaled = F.interpolate(part.float(), size, mode="bicubic", antialias=True, align_corners=False)
    return (scaled.clamp(0, 255) if bytes_range else scaled).numpy()


def taken_by(
    given: Mapping[str, Any] | None,
    places: Mapping[str, Any],
    inputs: Mapping[str, Any],
    where: str,
) -> dict[str, Taken]:
    """Return how a file takes each image of the data, by the key of the input.

    Args:
        given: See :func:`taken`.
        places: The file's input for each input of the data.
        inputs: The data's inputs.
        where: The file, for errors.

    Raises:
        ValueError: A setting is wrong, or there are no images that it could be about.
    """
    images = {key: leaf for key, leaf in inputs.items() if leaf.ndim == 4}
    if given is not None and not images:
        raise ValueError("input is set, but the data have no images")
    return {
        key: taken(given, places[key].shape, leaf.shape[1:], where) for key, leaf in images.items()
    }


def taken(
    given: Mapping[str, Any] | None, declared: Sequence[Any], image: Sequence[int], where: str
) -> Taken:
    """Return how a file takes images.

    Args:
        given: The settings ``size`` (a number, or height and width) and ``layout``; what they do
            not say is read from the file.
        declared: The shape that the file declares, with its batch; open sizes are no whole numbers.
        image: Shape of the data's images, (C, H, W).
        where: The file, for errors.

    Raises:
        ValueError: A setting is wrong, or does not go with the file or the data.
    """
    given = dict(given or {})
    unknown = [key for key in given if key not in ("size", "layout")]
    if unknown:
        raise ValueError(f"input has {unknown[0]!r}; {known_names(unknown[0], ('size', 'layout'))}")
    layout, size = given.get("layout"), _size(given.get("size"))
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"input.layout is {layout!r}; it must be one of {', '.join(LAYOUTS)}")
    found = layout or _layout(declared, image)
    whole = {"nchw": declared[2:4], "nhwc": declared[1:3], "flat": ()}[found]
    sides = [n for n in whole if isinstance(n, int)]
    fixed = (sides[0], sides[1]) if len(sides) == 2 else None
    size = fixed if size is None else size
    if fixed is not None and fixed != size:
        assert size is not None
        raise ValueError(f"input.size is {list(size)}, but {where} takes images of {list(fixed)}")
    rank = 2 if found == "flat" else 4
    if layout is not None and declared and len(declared) != rank:
        raise ValueError(
            f"input.layout is {layout!r}, but {where} takes {len(declared)} dimensions, not {rank}"
        )
    return Taken(found, size if size is not None and size != tuple(image[1:]) else None)


def _size(given: Any) -> tuple[int, int] | None:
    if given is None:
        return None
    several = [given, given] if isinstance(given, int) else given
    if (
        not isinstance(several, list | tuple)
        or len(several) != 2
        or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in several)
    ):
        raise ValueError(
            f"input.size is {shorten(given)}; it must be a whole number, or height and width"
        )
    return several[0], several[1]


def _layout(declared: Sequence[Any], image: Sequence[int]) -> str:
    """Return the layout that a declared shape has, by the number of channels."""
    if len(declared) == 2:
        return "flat"
    if len(declared) == 4:
        channels = image[0]
        if declared[1] != channels and declared[3] == channels and isinstance(declared[1], int):
            return "nhwc"
        # Where all that is known is that channels come last.
        if not isinstance(declared[1], int) and declared[3] == channels != image[2]:
            return "nhwc"
    return "nchw"
