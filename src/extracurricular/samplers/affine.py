"""Turn, shear, shift and scale images."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from extracurricular import rng
from extracurricular.inputs import Batch, images, tree_map
from extracurricular.samplers.base import SAMPLERS, Sampler, Seeded, check_child


@dataclass(frozen=True)
class Placed:
    """The changes of B images about their middles, each [B].

    Args:
        turn: Angle in radians, counter-clockwise.
        shear_x, shear_y: Tangents of the slants along the width and the height; their product is
            not 1.
        right, down: Shifts as parts of the width and the height.
        scale: Factor of the size, above 0.
    """

    turn: Tensor
    shear_x: Tensor
    shear_y: Tensor
    right: Tensor
    down: Tensor
    scale: Tensor

    def __getitem__(self, index: Tensor) -> Placed:
        parts = (self.turn, self.shear_x, self.shear_y, self.right, self.down, self.scale)
        return Placed(*(part[index] for part in parts))


def affine_images(image: Tensor, place: Placed) -> Tensor:
    """Scale, shear, turn and then shift images, with bilinear interpolation.

    Args:
        image: [B, C, H, W]; 0 stands for what lies beyond its border.
        place: The changes of each image.

    Returns:
        [B, C, H, W]
    """
    height, width = image.shape[-2:]
    # Pixels from the middle, of each pixel of the result.
    x = torch.arange(width, device=image.device) - (width - 1) / 2
    y = torch.arange(height, device=image.device) - (height - 1) / 2
    x = x.view(1, 1, -1) - (place.right * width).view(-1, 1, 1)
    y = y.view(1, -1, 1) - (place.down * height).view(-1, 1, 1)
    cos, sin = place.turn.cos().view(-1, 1, 1), place.turn.sin().view(-1, 1, 1)
    # Rows run downwards, so this turns back clockwise.
    x, y = cos * x - sin * y, sin * x + cos * y
    a, b = place.shear_x.view(-1, 1, 1), place.shear_y.view(-1, 1, 1)
    over = ((1 - a * b) * place.scale.view(-1, 1, 1)).reciprocal()
    x, y = (x - a * y) * over, (y - b * x) * over
    grid = torch.stack([x * (2 / width), y * (2 / height)], dim=-1)
    return F.grid_sample(image, grid, padding_mode="zeros", align_corners=False)


@SAMPLERS.register("affine")
@dataclass(frozen=True)
class Affine(Seeded):
    """Turn, shear, shift and scale every image in the input at random.

    Each change is uniform in its range and differs from image to image; several images of one
    example change alike. The mean of the training pixels, which is 0 for a network, fills what
    comes from beyond the border.

    Args:
        child: The sampler that draws the examples.
        degrees: Greatest angle to either side, at least 0.
        shear: Greatest slant to either side, along the width and along the height, as a tangent in
            [0, 1).
        translate: Greatest shift to either side, as a part of the width and of the height, in
            [0, 1].
        scale: Least and greatest factor of the size, above 0.
        seed: Seed of the changes.
    """

    child: Sampler
    degrees: float = 15.0
    shear: float = 0.0
    translate: float = 0.1
    scale: tuple[float, float] = (0.9, 1.1)
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        check_child(self.child)
        if not 0 <= self.degrees < math.inf:
            raise ValueError(f"degrees is {self.degrees}; it must be at least 0")
        if not 0 <= self.shear < 1:
            raise ValueError(f"shear is {self.shear}; it must be at least 0 and below 1")
        if not 0 <= self.translate <= 1:
            raise ValueError(f"translate is {self.translate}; it must be between 0 and 1")
        if not 0 < self.scale[0] <= self.scale[1] < math.inf:
            raise ValueError(
                f"scale is {list(self.scale)}; it must be two numbers above 0, the smaller first"
            )

    def __call__(self, ids: Tensor) -> Batch:
        """Draw examples."""
        batch = self.child(ids)
        if not images(batch.x):
            raise ValueError("affine needs images [B, C, H, W] in the input, and there are none")
        number = rng.uniform(self.seed, ids, self.stream("place"), (6,))
        either = (2 * number - 1).unbind(1)
        low, high = self.scale
        place = Placed(
            either[0] * math.radians(self.degrees),
            either[1] * self.shear,
            either[2] * self.shear,
            either[3] * self.translate,
            either[4] * self.translate,
            low + (high - low) * number[:, 5],
        )

        def moved(leaf: Tensor) -> Tensor:
            return affine_images(leaf, place) if leaf.ndim == 4 else leaf

        return replace(batch, x=tree_map(moved, batch.x))
