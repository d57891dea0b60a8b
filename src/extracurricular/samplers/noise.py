"""Add Gaussian noise to inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from extracurricular import rng
from extracurricular.inputs import Batch, leaves
from extracurricular.samplers.base import SAMPLERS, Sampler, Seeded, check_child


@SAMPLERS.register("noise")
@dataclass(frozen=True)
class Noise(Seeded):
    """Add Gaussian noise to the inputs, in units of the standardised input.

    Args:
        child: The sampler that draws the examples.
        std: Standard deviation, at least 0; or one for each input tensor by name (or position, for
            a tuple). Tensors that it does not name get no noise.
        relative: Draw the deviation of each example uniformly from [0, std], instead of using std.
        seed: Seed of the noise.
    """

    child: Sampler
    std: float | dict[str, float] = 0.1
    relative: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        check_child(self.child)
        for std in self.std.values() if isinstance(self.std, Mapping) else [self.std]:
            if not std >= 0:
                raise ValueError(f"std is {std}; it must be at least 0")

    def __call__(self, ids: Tensor) -> Batch:
        """Draw examples."""
        batch = self.child(ids)
        tensors = leaves(batch.x)
        stds = self.std if isinstance(self.std, Mapping) else dict.fromkeys(tensors, self.std)
        unknown = sorted(set(stds) - set(tensors))
        if unknown:
            raise ValueError(f"std names the input {unknown[0]!r}; known: {sorted(tensors)}")
        share = rng.uniform(self.seed, ids, self.stream("share")) if self.relative else None
        noisy = {}
        for name, leaf in tensors.items():
            std = stds.get(name, 0.0)
            if std > 0:
                stream = self.stream(f"noise.{name}")
                noise = rng.normal(self.seed, ids, stream, tuple(leaf.shape[1:]))
                if share is not None:
                    noise = noise * share.view(-1, *[1] * (leaf.ndim - 1))
                leaf = torch.add(leaf, noise, alpha=std)
            noisy[name] = leaf
        if isinstance(batch.x, Tensor):
            return replace(batch, x=noisy[""])
        return replace(batch, x=noisy if isinstance(batch.x, dict) else tuple(noisy.values()))
