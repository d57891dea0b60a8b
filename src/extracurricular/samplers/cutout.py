"""Blank a square of each image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from extracurricular import rng
from extracurricular.inputs import Batch, images, tree_map
from extracurricular.samplers.base import SAMPLERS, Sampler, Seeded, check_child


def cutout_images(image: Tensor, centre: Tensor, part: float) -> Tensor:
    """Set a square of each image to 0 (DeVries and Taylor 2017, section 3).

    Args:
        image: [B, C, H, W]
        centre: Centre (row, column) of the square as a part of the height and width, in [0, 1),
            [B, 2]. The border of the image cuts the square.
        part: Side of the square as a part of the shorter side of the image.

    Returns:
        [B, C, H, W]
    """
    height, width = image.shape[-2:]
    side = round(part * min(height, width))

    def inside(size: int, place: Tensor) -> Tensor:
        first = (place * size).floor() - side // 2
        pixels = torch.arange(size, device=image.device)
        return (pixels >= first[:, None]) & (pixels < first[:, None] + side)

    rows, columns = inside(height, centre[:, 0]), inside(width, centre[:, 1])
    blank = rows[:, None, :, None] & columns[:, None, None, :]
    return image.masked_fill(blank, 0.0)


@SAMPLERS.register("cutout")
@dataclass(frozen=True)
class Cutout(Seeded):
    """Blank a square of every image, whose centre is any pixel (DeVries and Taylor 2017).

    The blank is 0 for the network, the mean of the training pixels. Several images of one example
    lose the same relative place. Labels stay.

    Args:
        child: The sampler that draws the examples.
        part: Side of the square as a part of the shorter side of the image, in [0, 1]. The paper
            takes 16 of 32 pixels for CIFAR-10, 8 for CIFAR-100 and 20 for SVHN.
        seed: Seed of the places.
    """

    child: Sampler
    part: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        check_child(self.child)
        if not 0 <= self.part <= 1:
            raise ValueError(f"part is {self.part}; it must be between 0 and 1")

    def __call__(self, ids: Tensor) -> Batch:
        """Draw examples."""
        batch = self.child(ids)
        if not images(batch.x):
            raise ValueError("cutout needs images [B, C, H, W] in the input, and there are none")
        centre = rng.uniform(self.seed, ids, self.stream("centre"), (2,))

        def cut(leaf: Tensor) -> Tensor:
            return cutout_images(leaf, centre, self.part) if leaf.ndim == 4 else leaf

        return replace(batch, x=tree_map(cut, batch.x))
