"""Apply several random operations of one strength to each image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from extracurricular import rng
from extracurricular.data.base import Data
from extracurricular.inputs import Batch, leaves
from extracurricular.samplers.base import SAMPLERS, Sampler, Seeded, check_child
from extracurricular.samplers.levels import Levels, find_levels
from extracurricular.samplers.operations import OPERATIONS, Chosen, Space, operate, with_leaves

# AutoAugment's greatest strengths (Cubuk et al. 2019), which RandAugment takes: a shift of 150 of
# its 331 pixels.
AUTO = Space(shear=0.3, pixels=0, part=150 / 331, degrees=30.0, factor=0.9, bits=4)
STRONGEST = 30


@SAMPLERS.register("rand_augment")
@dataclass(frozen=True)
class RandAugment(Seeded):
    """Apply several random operations of one strength to each image (Cubuk et al. 2020).

    The operations are those of ``trivial_augment``, drawn with replacement, each in a random
    direction. At full strength they are AutoAugment's: shears of 0.3, shifts of 45 % of the image,
    30 degrees, factors from 0.1 to 1.9, 4 bits. Borders, levels and several images of one example
    are as under ``trivial_augment``.

    Args:
        child: The sampler that draws the examples.
        data: The data set, whose scale says what is black and white.
        count: Operations for each image, at least 1.
        magnitude: Strength in [0, 30]; the paper takes 9 for a ResNet-50 on ImageNet.
        seed: Seed of operations and directions.

    Raises:
        ValueError: A setting is out of its range, or the data have no images.
    """

    child: Sampler
    data: Data
    count: int = 2
    magnitude: float = 9.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings and the data."""
        check_child(self.child)
        if self.count < 1:
            raise ValueError(f"count is {self.count}; it must be at least 1")
        if not 0 <= self.magnitude <= STRONGEST:
            raise ValueError(f"magnitude is {self.magnitude}; it must be between 0 and {STRONGEST}")
        _ = self._levels

    @cached_property
    def _levels(self) -> dict[str, Levels]:
        return find_levels(self.data, "rand_augment")

    def __call__(self, ids: Tensor) -> Batch:
        """Draw examples."""
        batch = self.child(ids)
        changed = leaves(batch.x)
        for k in range(self.count):
            sign = rng.integer(2, self.seed, ids, self.stream(f"sign.{k}")).float() * 2 - 1
            chosen = Chosen(
                rng.integer(len(OPERATIONS), self.seed, ids, self.stream(f"operation.{k}")),
                torch.full_like(sign, self.magnitude / STRONGEST),
                sign,
            )
            for key, levels in self._levels.items():
                changed[key] = operate(changed[key], chosen, levels, AUTO)
        return replace(batch, x=with_leaves(batch.x, changed))
