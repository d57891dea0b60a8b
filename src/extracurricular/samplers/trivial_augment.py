"""Apply one random operation of random strength to each image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from extracurricular import rng
from extracurricular.data.base import Data
from extracurricular.inputs import Batch, leaves
from extracurricular.samplers.base import SAMPLERS, Sampler, Seeded, check_child
from extracurricular.samplers.levels import Levels, find_levels
from extracurricular.samplers.operations import OPERATIONS, Chosen, Space, operate, with_leaves

# The space "wide" of Müller and Hutter 2021.
WIDE = Space(shear=0.99, pixels=32, part=0.0, degrees=135.0, factor=0.99, bits=2)
# Strengths are 0 to 30 of 30.
STRENGTHS = 31


@SAMPLERS.register("trivial_augment")
@dataclass(frozen=True)
class TrivialAugment(Seeded):
    """Apply one random operation of random strength to each image (Müller and Hutter 2021).

    Fourteen operations are equally likely: identity, shears and shifts along both sides, rotation,
    brightness, contrast, colour, sharpness, posterize, solarize, autocontrast and equalize. The
    strength is one of 31 up to the paper's "wide" space: shears of 0.99, shifts of 32 pixels (at
    most the whole image), 135 degrees, factors from 0.01 to 1.99, 2 bits.

    Places are interpolated (the paper takes the nearest pixel), and what comes from beyond the
    border is the mean of the training pixels. Images that are no bytes have their least training
    value as black and their greatest as white. Several images of one example change alike. Digits
    and signs may turn into others: labels stay, so look at the draws.

    Args:
        child: The sampler that draws the examples.
        data: The data set, whose scale says what is black and white.
        seed: Seed of operations and strengths.

    Raises:
        ValueError: The data have no images.
    """

    child: Sampler
    data: Data
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the data."""
        check_child(self.child)
        _ = self._levels

    @cached_property
    def _levels(self) -> dict[str, Levels]:
        return find_levels(self.data, "trivial_augment")

    def __call__(self, ids: Tensor) -> Batch:
        """Draw examples."""
        batch = self.child(ids)
        strength = rng.integer(STRENGTHS, self.seed, ids, self.stream("strength"))
        chosen = Chosen(
            rng.integer(len(OPERATIONS), self.seed, ids, self.stream("operation")),
            strength.float() / (STRENGTHS - 1),
            rng.integer(2, self.seed, ids, self.stream("sign")).float() * 2 - 1,
        )
        changed = leaves(batch.x)
        for key, levels in self._levels.items():
            changed[key] = operate(changed[key], chosen, levels, WIDE)
        return replace(batch, x=with_leaves(batch.x, changed))
