"""Change the brightness, contrast and saturation of images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from extracurricular import rng
from extracurricular.data.base import Data
from extracurricular.inputs import Batch, leaves
from extracurricular.samplers.base import SAMPLERS, Sampler, Seeded, check_child
from extracurricular.samplers.levels import Levels, blended, find_levels, grey, mean_grey
from extracurricular.samplers.operations import with_leaves


def colour_levels(levels: Tensor, bright: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    """Change brightness, then contrast, then saturation of levels in [0, 255].

    Args:
        levels: [B, C, H, W]
        bright: Factors of the levels, [B].
        contrast: Factors of their differences from the image's mean grey, [B].
        saturation: Factors of their differences from each pixel's grey, [B]; of no effect on one
            channel.

    Returns:
        [B, C, H, W]; after each change, levels are kept in [0, 255].
    """
    levels = blended(levels, torch.zeros_like(levels), bright)
    levels = blended(levels, mean_grey(levels), contrast)
    return blended(levels, grey(levels), saturation) if levels.shape[1] > 1 else levels


@SAMPLERS.register("colour")
@dataclass(frozen=True)
class Colour(Seeded):
    """Change brightness, contrast and saturation of every image at random.

    Each is multiplied by a factor that is uniform from 1 - setting to 1 + setting. Black and white
    are 0 and 255 of bytes, and the least and greatest training value of other images.

    Args:
        child: The sampler that draws the examples.
        data: The data set, whose scale says what is black and white.
        brightness, contrast, saturation: Greatest change of each, in [0, 1].
        seed: Seed of the factors.

    Raises:
        ValueError: A setting is out of its range, or the data have no images.
    """

    child: Sampler
    data: Data
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings and the data."""
        check_child(self.child)
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be between 0 and 1")
        _ = self._levels

    @cached_property
    def _levels(self) -> dict[str, Levels]:
        return find_levels(self.data, "colour")

    def __call__(self, ids: Tensor) -> Batch:
        """Draw examples."""
        batch = self.child(ids)
        either = 2 * rng.uniform(self.seed, ids, self.stream("factors"), (3,)) - 1
        most = (self.brightness, self.contrast, self.saturation)
        factors = [1 + limit * part for limit, part in zip(most, either.unbind(1), strict=True)]
        changed = leaves(batch.x)
        for key, levels in self._levels.items():
            changed[key] = levels.undo(colour_levels(levels.of(changed[key]), *factors))
        return replace(batch, x=with_leaves(batch.x, changed))
