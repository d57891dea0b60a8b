"""The interface of generators, which map a latent and a condition to an example.

A :class:`Generator` is ready to draw from. A :class:`Fit` is the way to one, which a recipe names:
it has the settings, fits them to data, and makes the generator from the result. The result of a fit
is only a dict of tensors, so that a file of it is only data.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from extracurricular.data.base import Data, Split
from extracurricular.errors import DataError
from extracurricular.inputs import Inputs, leaves, soft_labels, tree_map
from extracurricular.registry import Registry


@dataclass(frozen=True)
class Generator:
    """A model of p(x) that is ready to draw from.

    Args:
        function: ``(latent [B, latent], condition [B, K]) -> examples`` in the structure of
            the data's input, each a pure function of its own latent and condition. A torch module
            will do, in evaluation mode. :func:`conditions` defines the condition.
        latent: Count of the numbers in a latent.
        uniforms: Count of the first of them that are uniform in (0, 1), for choices among
            alternatives; the others are standard normal, times the sampler's ``scale``.
        conditional: Whether ``function`` uses its condition, so that the label is known.
        range: The function's values for the smallest and the largest raw value (black and white),
            such as (-1, 1) for a network that ends in tanh. None where the function gives raw
            values (0 to 255 for images of bytes).
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


@dataclass(frozen=True)
class FitContext:
    """The circumstances of one fit.

    Args:
        data: The data set, on ``device``. Only its training split may be looked at.
        seed: Seed of everything random; the same seed gives the same result.
        folder: Folder for checkpoints, so that an interrupted fit goes on; None to keep none.
        device: Device to compute on.
        on_progress: Called now and then with (steps done, loss).
    """

    data: Data
    seed: int
    folder: Path | None
    device: torch.device
    on_progress: Callable[[int, float], None] | None = None

    def tell(self, steps: int, loss: float) -> None:
        """Report progress, if anyone listens."""
        if self.on_progress is not None:
            self.on_progress(steps, loss)


class Fit(ABC):
    """The way to a generator, or to a pool: settings that can be fitted to data.

    An entry of ``GENERATORS`` is a dataclass of settings with this base, or any class with the same
    public methods.
    """

    @property
    def steps(self) -> int:
        """Steps that fitting takes, for the progress bar; 1 where it is a single act."""
        return 1

    @abstractmethod
    def preview(self, data: Data) -> Generator | Split:
        """Return an unfitted stand-in for the result of :meth:`load`, to check a recipe by.

        Structure, latent and labels are right; the values mean nothing.

        Raises:
            ValueError: A setting does not go with the data; the sentence names it.
        """

    def fit(
        self,
        data: Data,
        *,
        seed: int,
        folder: Path | None,
        device: torch.device,
        on_progress: Callable[[int, float], None] | None = None,
    ) -> dict[str, Tensor]:
        """Fit to the training split, and leave torch's random state as it was.

        Args:
            data, seed, folder, device, on_progress: See :class:`FitContext`.

        Returns:
            All that :meth:`load` needs, as tensors by name.

        Raises:
            ValueError: A setting does not go with the data; the sentence names it.
        """
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            return self._fit(FitContext(data, seed, folder, device, on_progress))

    @abstractmethod
    def _fit(self, context: FitContext) -> dict[str, Tensor]:
        """Fit; see :meth:`fit`."""

    @abstractmethod
    def load(self, state: dict[str, Tensor], data: Data) -> Generator | Split:
        """Make the generator from the result of :meth:`fit`, on the device of ``data``.

        A pool is a split in the raw units of the data, for the sampler ``pool``.
        """


GENERATORS: Registry[Fit] = Registry(
    "generator", "extracurricular.generators", lambda value: hasattr(value, "preview")
)


def stand_in(data: Data, latent: int, *, uniforms: int = 0, conditional: bool = False) -> Generator:
    """Return a generator that repeats a training example, for :meth:`Fit.preview`."""

    def function(latent: Tensor, condition: Tensor) -> Inputs:
        place = latent.new_zeros(len(latent), dtype=torch.int64)
        return tree_map(lambda leaf: leaf[place].float(), data.train.x)

    return Generator(function, latent, uniforms=uniforms, conditional=conditional)


def conditions(data: Data, split: Split) -> Tensor:
    """Return the conditions of stored examples, float32, [N, K].

    For classification a condition is the one-hot label, or the soft one, K = C. For regression it
    is the D standardised targets, and for several labels of 0 and 1 these, K = L. Where the input
    has vectors beside an image (a gaze with the pose of the head), the standardised vectors follow,
    in the order of the input. Convex combinations of conditions are conditions too.

    Raises:
        DataError: The split has no labels.
    """
    if split.y is None:
        raise DataError(f"data {data.name!r}: a generator needs the labels of the examples")
    if data.task.kind == "classification":
        parts = [soft_labels(split.y, data.task.size)]
    else:
        parts = [data.targets(split.y)]
    stored = leaves(split.x)
    if any(leaf.ndim == 4 for leaf in stored.values()):
        vectors = {name: leaf for name, leaf in stored.items() if leaf.ndim != 4}
        parts += [data.x_scale[name].apply(leaf).flatten(1) for name, leaf in vectors.items()]
    return torch.cat(parts, dim=1)


def condition_size(data: Data) -> int:
    """Return the number K of values in a condition."""
    return conditions(data, data.train[:1]).shape[1]
