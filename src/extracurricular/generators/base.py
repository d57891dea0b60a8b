"""What a generator is: a function of a latent and a condition that gives an example.

Two things, kept apart. A :class:`Generator` is ready to draw from. A :class:`Fit` is the way to
one, as a recipe names it: its settings, how it is fitted to data, and how what was fitted is read
back. What was fitted is a dict of tensors and no more, so that a file of it is only data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from extracurricular.data.base import Data, Split
from extracurricular.errors import DataError
from extracurricular.inputs import Inputs, leaves, tree_map
from extracurricular.registry import Registry


@dataclass(frozen=True)
class Generator:
    """A model of p(x) that is ready to draw from.

    Args:
        function: ``(latent [B, latent], condition [B, K]) -> examples`` in the structure of
            the data's input, each a pure function of its own latent and condition. A torch module
            is one; it must be in evaluation mode. The condition is what :func:`conditions` gives.
        latent: Numbers in a latent.
        uniforms: The first so many of them are uniform in (0, 1), for choices among alternatives;
            the others are standard normal, times the sampler's ``scale``.
        conditional: Whether ``function`` looks at its condition, so that the label is known.
        range: Values that mean the smallest and the largest raw value (black and white), such as
            (-1, 1) for a network that ends in tanh. None: the function gives raw values, bytes of
            0 to 255 for images of bytes.
    """

    function: Callable[[Tensor, Tensor], Inputs]
    latent: int
    uniforms: int = 0
    conditional: bool = True
    range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.latent < 1:
            raise ValueError(f"latent is {self.latent}; it must be at least 1")
        if not 0 <= self.uniforms <= self.latent:
            raise ValueError(f"uniforms is {self.uniforms}; it must be from 0 to {self.latent}")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"range is {self.range}; its first number must be the smaller")


@runtime_checkable
class Fit(Protocol):
    """How a recipe comes to a generator. An entry of ``GENERATORS`` is a dataclass of settings."""

    @property
    def steps(self) -> int:
        """Steps that fitting takes, for the progress bar; 1 where it is a single act."""
        ...

    def preview(self, data: Data) -> Generator | Split:
        """Return what :meth:`load` would give, before anything is fitted, to check a recipe by.

        Structure, latent and labels are right; the values mean nothing.

        Raises:
            ValueError: The settings do not go with the data; told with the setting's name.
        """
        ...

    def fit(
        self,
        data: Data,
        *,
        seed: int,
        folder: Path | None,
        device: torch.device,
        on_progress: Callable[[int, float], None] | None = None,
    ) -> dict[str, Tensor]:
        """Fit to the training split.

        Args:
            data: The data set, on ``device``. Only its training split may be looked at.
            seed: Seed of everything random; the same seed gives the same result.
            folder: Where checkpoints may go, so that an interrupted fit goes on; None for nowhere.
            device: Where to compute.
            on_progress: Called now and then with (steps done, loss).

        Returns:
            All that :meth:`load` needs, as tensors by name.

        Raises:
            ValueError: As :meth:`preview`.
        """
        ...

    def load(self, state: dict[str, Tensor], data: Data) -> Generator | Split:
        """Make of what was fitted a generator on the device of ``data``; or a pool of examples.

        A pool is a split in the raw units of the data, for the sampler ``pool``.
        """
        ...


GENERATORS: Registry[Fit] = Registry("generator", "extracurricular.generators")


def stand_in(data: Data, latent: int, *, uniforms: int = 0, conditional: bool = False) -> Generator:
    """Return a generator that repeats a training example, for :meth:`Fit.preview`."""

    def function(latent: Tensor, condition: Tensor) -> Inputs:
        place = latent.new_zeros(len(latent), dtype=torch.int64)
        return tree_map(lambda leaf: leaf[place].float(), data.train.x)

    return Generator(function, latent, uniforms=uniforms, conditional=conditional)


def conditions(data: Data, split: Split) -> Tensor:
    """Conditions of stored examples, float32, [N, K].

    Classification: the one-hot label, K = C. Regression: the D standardised targets, and, where
    the input is an image with vectors beside it (a gaze with the pose of the head), behind them
    those vectors, standardised, in the order of the input. Convex combinations of conditions are
    conditions too.

    Raises:
        DataError: The split has no labels.
    """
    if split.y is None:
        raise DataError(f"data {data.name!r}: a generator needs the labels of the examples")
    if data.task.kind == "classification":
        parts = [F.one_hot(split.y, data.task.size).float()]
    else:
        parts = [data.targets(split.y)]
    stored = leaves(split.x)
    if any(leaf.ndim == 4 for leaf in stored.values()):
        vectors = {name: leaf for name, leaf in stored.items() if leaf.ndim != 4}
        parts += [data.x_scale[name].apply(leaf).flatten(1) for name, leaf in vectors.items()]
    return torch.cat(parts, dim=1)


def condition_size(data: Data) -> int:
    """Number K of values in a condition."""
    return conditions(data, data.train[:1]).shape[1]
