"""Draw examples from a generator, also between classes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from extracurricular import rng
from extracurricular.data.base import Data, Split
from extracurricular.errors import known_names
from extracurricular.generators.base import Generator, conditions
from extracurricular.inputs import (
    Batch,
    Inputs,
    fixed_batches,
    is_deferred,
    join,
    leaves,
    tree_map,
)
from extracurricular.samplers.base import SAMPLERS, Seeded

# Raw values may leave the range of the data by this part of it, which allows for rounding.
_SLACK = 1e-3


@dataclass(frozen=True)
class Generated(Seeded):
    """Draw from a generator, with latent and condition as functions of the draw id.

    The condition is that of a random training example. With ``between`` it is a convex combination
    of two such conditions, λ ~ Beta(between, between). Such draws lie between classes (or between
    real targets), where teachers are unsure. The label is combined in the same way.

    Args:
        data: The data set, for conditions, shapes and scales.
        generator: The generator; see :class:`~extracurricular.generators.Generator`.
        between: Parameter of the Beta distribution of λ, greater than 0: near 0 hardly leaves the
            classes, 1 is uniform between them. None to use one condition for each draw.
        scale: Factor on the normal part of the latent, at least 0: below 1 the draws are more
            typical and less varied (the truncation of Brock, Donahue and Simonyan 2019).
        seed: Seed of latents and conditions.
    """

    data: Data
    generator: Generator
    between: float | None = None
    scale: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.between is not None and not 0 < self.between < math.inf:
            raise ValueError(
                f"between is {self.between}; it must be finite and greater than 0, or null"
            )
        if not 0 <= self.scale < math.inf:
            raise ValueError(f"scale is {self.scale}; it must be finite and at least 0")
        if self.generator.range is not None and not _has_bytes(self.data):
            raise ValueError(
                f"range is {list(self.generator.range)}, but only images of bytes have one; "
                "this generator must give raw values"
            )

    @cached_property
    def _conditions(self) -> Tensor:
        return conditions(self.data, self.data.train)

    @property
    def obstacle(self) -> str | None:
        """The reason why a CUDA graph cannot hold the draws, as a clause; None if it can."""
        found: str | None = getattr(self.generator.function, "obstacle", None)
        return found

    def latent(self, ids: Tensor) -> Tensor:
        """Return latents, float32, [B, Z]: uniform numbers first, then scaled normal ones."""
        uniforms = self.generator.uniforms
        normals = self.generator.latent - uniforms
        return torch.cat(
            [
                rng.uniform(self.seed, ids, self.stream("uniform"), (uniforms,)),
                rng.normal(self.seed, ids, self.stream("normal"), (normals,)) * self.scale,
            ],
            dim=1,
        )

    def condition(self, ids: Tensor) -> Tensor:
        """Return the conditions of these draws, float32, [B, K]."""
        known = self._conditions
        first = known[rng.integer(len(known), self.seed, ids, self.stream("first"))]
        if self.between is None:
            return first
        second = known[rng.integer(len(known), self.seed, ids, self.stream("second"))]
        share = rng.beta(self.between, self.seed, ids, self.stream("share"))
        return torch.lerp(second, first, share[:, None])

    def __call__(self, ids: Tensor) -> Batch:
        """Draw examples."""
        condition = self.condition(ids)
        raw = draw(self.generator, self.data, self.latent(ids), condition)
        task = self.data.task
        y = condition[:, : task.size] if self.generator.conditional else None
        if y is not None and self._indexed and self.between is None:
            y = y.argmax(1)
        return Batch(ids, self.data.inputs(raw), y, task.classes, binary=task.binary)

    @property
    def _indexed(self) -> bool:
        """Whether the labels of the data are class indices, not probabilities or reals."""
        y = self.data.train.y
        return self.data.task.classes is not None and (y is None or y.ndim == 1)


def _has_bytes(data: Data) -> bool:
    return any(leaf.dtype == torch.uint8 for leaf in leaves(data.train.x).values())


@torch.no_grad()
def draw(generator: Generator, data: Data, latent: Tensor, condition: Tensor) -> Inputs:
    """Draw examples in the raw units of the data, and check them.

    Args:
        generator: The generator.
        data: The data set.
        latent, condition: [B, Z] and [B, K].

    Raises:
        ValueError: The generator gave examples of another structure, shape or range. A value out
            of range becomes NaN where checks are put off
            (:func:`extracurricular.inputs.is_deferred`).
    """
    parts: list[Inputs] = []
    for given, true in fixed_batches({"latent": latent, "condition": condition}):
        assert isinstance(given, dict)
        made = generator.function(given["latent"], given["condition"])
        _check_shapes(made, data, len(given["latent"]))
        parts.append(tree_map(lambda v, n=true: v[:n].float(), made))
    return _in_range(join(parts), generator, data)


def _check_shapes(made: Any, data: Data, count: int) -> None:
    wanted: dict[str, Any] = {k: (count, *v.shape[1:]) for k, v in leaves(data.train.x).items()}
    found: dict[str, Any] = {"": type(made).__name__}
    if isinstance(made, Tensor | tuple | dict):
        found = {k: tuple(v.shape) for k, v in leaves(made).items() if isinstance(v, Tensor)}
    if found != wanted or isinstance(made, dict) != isinstance(data.train.x, dict):
        shown = [next(iter(x.values())) if set(x) == {""} else x for x in (found, wanted)]
        raise ValueError(
            f"the generator gave examples of shape {shown[0]}; the data need {shown[1]}"
        )


def _in_range(made: Inputs, generator: Generator, data: Data) -> Inputs:
    """Check values, and turn them into raw units.

    Raises:
        ValueError: A value is not finite, or not in the range that the generator promised.
    """
    deferred = is_deferred()

    def check(leaf: Tensor, low: float, high: float, hint: str) -> Tensor:
        if leaf.numel() == 0:
            return leaf
        slack = _SLACK * (high - low)
        if deferred:
            inside = (leaf >= low - slack) & (leaf <= high + slack)
            return torch.where(inside, leaf, math.nan)
        least, most = (float(v) for v in leaf.aminmax())
        if not (low - slack <= least and most <= high + slack):
            raise ValueError(
                f"the generator gave values from {least:.4g} to {most:.4g}, "
                f"but {hint} {low:.4g} to {high:.4g}"
            )
        return leaf

    def convert(stored: Tensor, leaf: Tensor) -> Tensor:
        if stored.dtype != torch.uint8:
            if not deferred and not bool(torch.isfinite(leaf).all()):
                raise ValueError("the generator gave values that are not finite")
            return leaf
        if generator.range is None:
            return check(leaf, 0, 255, "the images of the data have bytes from")
        low, high = generator.range
        return (check(leaf, low, high, "its range was given as") - low) * (255 / (high - low))

    # The data come first, so that the parts keep their order.
    return tree_map(convert, data.train.x, made)


@SAMPLERS.register("generated")
def generated(
    data: Data,
    generators: Mapping[str, Any],
    generator: str,
    between: float | None = None,
    scale: float = 1.0,
    seed: int = 0,
) -> Generated:
    """Make :class:`Generated` from the settings of a recipe, with one of its ``generators``."""
    found = find_generator(generators, generator)
    if isinstance(found, Split):
        raise ValueError(
            f"generator is {generator!r}, which is a pool of examples; "
            f"its sampler is {{pool: {{generator: {generator}}}}}"
        )
    return Generated(data, found, between=between, scale=scale, seed=seed)


def find_generator(generators: Mapping[str, Any], name: str) -> Any:
    """Return one of a recipe's generators by name.

    Raises:
        ValueError: The recipe has no generator of that name.
    """
    if name not in generators:
        known = known_names(name, generators) if generators else "the recipe has none"
        raise ValueError(f"generator is {name!r}, which is not in 'generators'; {known}")
    return generators[name]
