"""Contact sheets: images side by side, for a person to look at."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

_PAPER = (250, 250, 248)
_INK = (40, 40, 44)
_FAINT = (130, 130, 136)
_GAP = 3
_MARGIN = 16
# A small image is enlarged to about this height, by whole factors, so pixels stay pixels.
_CELL = 56


@dataclass(frozen=True)
class Block:
    """Images side by side under one heading: rows down, columns across.

    Args:
        heading: Name of the block.
        images: uint8, [rows, columns, C, H, W]; if C is not 1 or 3, the first channel is shown.
    """

    heading: str
    images: Tensor


def contact_sheet(
    title: str, blocks: Sequence[Block], rows: Sequence[str], note: str = ""
) -> Image:
    """Draw blocks with the same rows side by side.

    Args:
        title: Title of the sheet.
        blocks: The blocks, at least one.
        rows: Name of each row.
        note: Small print below.
    """
    from PIL import Image, ImageDraw

    height, width = blocks[0].images.shape[-2:]
    factor = max(1, round(_CELL / height))
    high, wide = height * factor, width * factor
    big, small = _font(18), _font(13)
    names = 8 + max((int(small.getlength(name)) for name in rows), default=0)
    spans = [b.images.shape[1] * (wide + _GAP) - _GAP for b in blocks]
    across = 2 * _MARGIN + names + sum(spans) + _MARGIN * (len(blocks) - 1)
    lines = _wrapped(note, small, across - 2 * _MARGIN)
    across = max(across, 2 * _MARGIN + int(big.getlength(title)))
    top = _MARGIN + 28 + 20
    below = top + len(rows) * (high + _GAP)
    sheet = Image.new("RGB", (across, below + 18 * len(lines) + _MARGIN), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, _MARGIN), title, font=big, fill=_INK)
    for place, name in enumerate(rows):
        middle = top + place * (high + _GAP) + high // 2
        pen.text((_MARGIN, middle), name, font=small, fill=_INK, anchor="lm")
    left = _MARGIN + names
    for block, span in zip(blocks, spans, strict=True):
        pen.text((left, top - 20), block.heading, font=small, fill=_FAINT)
        for row, images in enumerate(block.images):
            for column, image in enumerate(images):
                cell = _picture(image).resize((wide, high), Image.Resampling.NEAREST)
                sheet.paste(cell, (left + column * (wide + _GAP), top + row * (high + _GAP)))
        left += span + _MARGIN
    for place, line in enumerate(lines):
        pen.text((_MARGIN, below + 8 + 18 * place), line, font=small, fill=_FAINT)
    return sheet


def to_bytes(images: Tensor, low: float = 0, high: float = 255) -> Tensor:
    """Map raw images in [low, high] to uint8, rounded."""
    scaled = (images.float() - low) * (255 / (high - low))
    return scaled.round().clamp(0, 255).to(torch.uint8).cpu()


def _picture(image: Tensor) -> Image:
    from PIL import Image

    if len(image) == 3:
        return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    return Image.fromarray(image[0].contiguous().numpy()).convert("RGB")


def _font(size: int) -> Any:
    """Return DejaVu Sans, which has most scripts, if matplotlib brought it; else Pillow's font."""
    from PIL import ImageFont

    found = importlib.util.find_spec("matplotlib")
    if found is not None and found.origin is not None:
        path = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            return ImageFont.truetype(str(path), size)
    return ImageFont.load_default(size)


def _wrapped(text: str, font: Any, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
