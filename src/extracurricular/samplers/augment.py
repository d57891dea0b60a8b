"""Shift and mirror images."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from extracurricular import rng
from extracurricular.inputs import Batch, images, tree_map
from extracurricular.samplers.base import SAMPLERS, Sampler, Seeded, check_child


def crop_flip(image: Tensor, dy: Tensor, dx: Tensor, flip: Tensor | None, pad: int) -> Tensor:
    """Crop each image from its zero-padded self and mirror some of them.

    Args:
        image: [B, C, H, W].
        dy, dx: Corner of the crop in the padded image, int64, [B], in 0..2·pad.
        flip: Whether each image is mirrored left to right, bool, [B]; None to mirror none.
        pad: Zeros added on each side, in pixels.

    Returns:
        [B, C, H, W]
    """
    count, channels, height, width = image.shape
    padded = F.pad(image, (pad, pad, pad, pad)) if pad else image.contiguous()
    tall, wide = height + 2 * pad, width + 2 * pad
    # A row of the crop is a run of `width` neighbours in memory. Copying whole rows is several
    # times as fast as gathering single pixels.
    plane = torch.arange(count * channels, device=image.device).view(count, channels, 1)
    row = dy.view(-1, 1, 1) + torch.arange(height, device=image.device)
    start = (plane * tall + row) * wide + dx.view(-1, 1, 1)
    flat = padded.flatten()
    runs = flat.as_strided((max(flat.numel() - width + 1, 0), width), (1, 1))
    crops = runs.index_select(0, start.flatten()).view(image.shape)
    return crops if flip is None else torch.where(flip.view(-1, 1, 1, 1), crops.flip(3), crops)


@SAMPLERS.register("augment")
@dataclass(frozen=True)
class Augment(Seeded):
    """Crop every image in the input from its padded self at random, and mirror some.

    Args:
        child: The sampler that draws the examples.
        pad: Pixels of zero padding on each side, at least 0; the crop moves by up to this much.
        flip: Mirror half of the images left to right.
        seed: Seed of the crops.
    """

    child: Sampler
    pad: int = 4
    flip: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        check_child(self.child)
        if self.pad < 0:
            raise ValueError(f"pad is {self.pad}; it must be at least 0")

    def __call__(self, ids: Tensor) -> Batch:
        """Draw examples."""
        batch = self.child(ids)
        if not images(batch.x):
            raise ValueError("augment needs images [B, C, H, W] in the input, and there are none")
        word = rng.bits(self.seed, ids, self.stream("crop"))
        # One word has disjoint bits for all: 21 for each corner (so pad < 2^20), 1 for the mirror.
        span = 2 * self.pad + 1
        dy = (word & 0x1FFFFF) % span
        dx = ((word >> 21) & 0x1FFFFF) % span
        flip = ((word >> 42) & 1).bool() if self.flip else None

        def augmented(leaf: Tensor) -> Tensor:
            return crop_flip(leaf, dy, dx, flip, self.pad) if leaf.ndim == 4 else leaf

        return replace(batch, x=tree_map(augmented, batch.x))
