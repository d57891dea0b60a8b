"""Intervals of real answers around their mean."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor


class Intervals:
    """The part of a Gaussian that measures in its own deviations."""

    if TYPE_CHECKING:
        mean: Tensor

        @property
        def std(self) -> Tensor:
            """Standard deviation, [B, D]."""
            ...

        def _real(self, values: Tensor) -> Tensor: ...

    def interval(self, mass: float) -> tuple[Tensor, Tensor]:
        """Return bounds [B, D] of the central interval with ``mass`` (0 to 1) of each output."""
        half = math.sqrt(2) * torch.erfinv(torch.tensor(mass)).item() * self.std
        return self._real(self.mean) - half, self._real(self.mean) + half

    def within(self, deviations: Tensor) -> tuple[Tensor, Tensor]:
        """Return the bounds [B, D] of μ ± q σ, with a number q of ``deviations`` [D] each."""
        half = deviations.to(self.std) * self.std
        return self._real(self.mean) - half, self._real(self.mean) + half

    def deviates(self, y: Tensor) -> Tensor:
        """Return by how many deviations labels [B, D] are off the mean, (y - μ) / σ, float64.

        An error of 0 is 0, even where the deviation is.
        """
        error = y.double() - self.mean.double()
        return (error / self.std.double()).masked_fill(error == 0, 0.0)
