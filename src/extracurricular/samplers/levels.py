"""Brightness in levels of 0 to 255, black to white, of images that a network gets standardised."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from extracurricular.data.base import Data
from extracurricular.inputs import leaves

# ITU-R BT.601, as in the "L" of Pillow: the parts of red, green and blue.
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Levels:
    """The map ``input · gain + offset`` from a network's input to levels; tensors are [C, 1, 1]."""

    gain: Tensor
    offset: Tensor

    def of(self, image: Tensor) -> Tensor:
        """Return the levels of inputs [B, C, H, W]; those of bytes are these within 1e-4."""
        return image * self.gain + self.offset

    def undo(self, levels: Tensor) -> Tensor:
        """Return the inputs of levels."""
        return (levels - self.offset) / self.gain


def find_levels(data: Data, name: str) -> dict[str, Levels]:
    """Return the levels of each image tensor of the input, by its name.

    Bytes are levels as they are. Of other images, the least value of the training images is 0 and
    the greatest is 255.

    Raises:
        ValueError: There are no images, which the sampler ``name`` needs.
    """
    found = {}
    for key, leaf in leaves(data.train.x).items():
        # These two attributes are enough, and streamed images have no values to look at.
        if leaf.ndim != 4:
            continue
        scale = data.x_scale[key]
        shift, spread = (part.float().reshape(-1, 1, 1) for part in (scale.shift, scale.scale))
        low, factor = torch.zeros_like(shift[:1]), torch.ones_like(shift[:1])
        if leaf.dtype != torch.uint8:
            low, high = leaf.amin().reshape(1, 1, 1), leaf.amax().reshape(1, 1, 1)
            factor = 255 / (high - low).clamp_min(torch.finfo(high.dtype).tiny)
        found[key] = Levels(spread * factor, (shift - low) * factor)
    if not found:
        raise ValueError(
            f"{name} needs images [B, C, H, W] in the input, and data {data.name!r} have none"
        )
    return found


def grey(levels: Tensor) -> Tensor:
    """Return the brightness of levels [B, C, H, W], [B, 1, H, W].

    Three channels are red, green and blue; any other number counts alike.
    """
    channels = levels.unbind(1)
    parts = _LUMA if len(channels) == 3 else (1 / len(channels),) * len(channels)
    # A sum written out has the same bits in any batch, which a reduction need not have.
    total = channels[0] * parts[0]
    for channel, part in zip(channels[1:], parts[1:], strict=True):
        total = total + channel * part
    return total.unsqueeze(1)


def mean_grey(levels: Tensor) -> Tensor:
    """Return the mean brightness of each image, [B, 1, 1, 1], to a part of 256 of a level."""
    # Whole numbers have the same sum in any order.
    total = (grey(levels) * 256).round().long().sum((1, 2, 3), keepdim=True)
    return total.float() / (256 * levels.shape[2] * levels.shape[3])


def blended(levels: Tensor, base: Tensor, factor: Tensor) -> Tensor:
    """Move levels away from a base by a factor [B], 1 for none, and keep them in [0, 255]."""
    return (base + factor.view(-1, 1, 1, 1) * (levels - base)).clamp(0, 255)
