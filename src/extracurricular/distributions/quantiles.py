"""Quantiles: a distribution of any shape, by the values that it stays below so often."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from extracurricular.distributions.family import Family, Kind
from extracurricular.distributions.gaussian import MAX_LOG_VAR, Gaussian, _summed
from extracurricular.distributions.richer import (
    Richer,
    cdf_of,
    entropies_of,
    limit_of,
    pinball_of,
    quantiles_of,
)
from extracurricular.distributions.special import laguerre, legendre, spaced

# The smallest distance of two quantiles, in units of the target's deviation, and the distance of
# the outermost that an output of 0 stands for.
_LEAST, _REACH = 1e-4, 3.5
_INNER, _OUTER = 4, 12
# Halvings that find a teacher's quantile: its loss is least there, so it depends on it little.
_FEW = 16


@dataclass(frozen=True)
class Quantiles(Family):
    """The quantiles at levels (k - 1/2) / K, in order, for each target.

    Args:
        levels: Number of quantiles, K.
    """

    kind: ClassVar[Kind] = "regression"
    name: ClassVar[str] = "quantiles"
    noun: ClassVar[str] = "quantiles"
    matching: ClassVar[dict[str, Any]] = {"divergence": "energy"}
    more: ClassVar[dict[str, tuple[str, str]]] = {
        "quantiles": ("D, levels", "quantile k at the level (k - 1/2) / levels, k from 1")
    }
    levels: int = 9

    def __post_init__(self) -> None:
        """Check the settings."""
        if not 3 <= self.levels <= 199:
            raise ValueError(f"levels is {self.levels}; it must be from 3 to 199")

    def outputs(self, size: int) -> int:
        """Return K D."""
        return self.levels * size

    def needs(self, size: int) -> str:
        """Return what the raw outputs are, as the end of a sentence."""
        return f"{self.levels * size} numbers, {self.levels} quantiles of each target"

    def read(self, output: Tensor, size: int) -> Quantiled:
        """Read a network's output: the middle quantile, then what the distances are made of."""
        raw = output.float().reshape(output.shape[0], size, self.levels)
        usual = _REACH / (self.levels - 1) / math.log(2)
        gaps = F.softplus(raw[..., 1:]) * usual + _LEAST
        steps = F.pad(gaps.cumsum(-1), (1, 0))
        middle = steps[..., self.levels // 2 : self.levels // 2 + 1]
        return Quantiled.of(raw[..., :1] + steps - middle)

    def stored(self, parameters: Tensor) -> Quantiled:
        """Read quantiles, [D, K] an example, [B, K D]."""
        return Quantiled.of(
            parameters.reshape(len(parameters), parameters.shape[-1] // self.levels, self.levels)
        )

    def named(self, said: Quantiled) -> dict[str, Tensor]:
        """Return the quantiles, [N, D, K]."""
        return {"quantiles": said.at}

    def from_named(self, outputs: dict[str, Tensor], limit: float) -> Quantiled:
        """Return the distributions with these quantiles."""
        return Quantiled.of(outputs["quantiles"], limit)


@dataclass(frozen=True)
class Quantiled(Richer):
    """A distribution given by K quantiles for each example and output; make it by :meth:`of`.

    Between two neighbours the density is constant. Beyond the outermost, with 1 / (2 K) of the mass
    on either side, it falls exponentially from the density inside (our choice), so that the density
    of every label is finite, and so are mean and variance.

    Args:
        mean, log_var: Those of that distribution, [B, D].
        at: The quantiles, rising, [B, D, K].
    """

    at: Tensor

    @classmethod
    def of(cls, at: Tensor, limit: float = MAX_LOG_VAR) -> Quantiled:
        """Return the distributions with some quantiles, [B, D, K]."""
        q = at.to(torch.promote_types(at.dtype, torch.float32))
        count = q.shape[-1]
        low, high = q[..., :-1], q[..., 1:]
        ends = torch.stack([q[..., 1] - q[..., 0], q[..., -1] - q[..., -2]], dim=-1) / 2
        left, right = ends.unbind(-1)
        inner = 0.5 * (low + high).sum(-1)
        outer = 0.5 * (q[..., 0] - left + q[..., -1] + right)
        mean = (inner + outer) / count
        # About the mean, of which the digits of large values would cancel.
        a, b = low - mean.unsqueeze(-1), high - mean.unsqueeze(-1)
        square = ((a.square() + a * b + b.square()) / 3).sum(-1)
        far = (q[..., 0] - left - mean).square() + left.square()
        far = far + (q[..., -1] + right - mean).square() + right.square()
        return cls(mean, ((square + 0.5 * far) / count).log(), at, limit=limit)

    @property
    def family(self) -> Family:
        """The family."""
        return Quantiles(self.at.shape[-1])

    @property
    def parameters(self) -> Tensor:
        """The quantiles, [B, K D]."""
        return self.at.flatten(1)

    @cached_property
    def _q(self) -> Tensor:
        return self._real(self.at)

    @cached_property
    def _gaps(self) -> Tensor:
        # Quantiles that float32 cannot tell apart have a density all the same.
        least = self._q.detach().abs().amax(-1, keepdim=True) * 1e-7 + 1e-30
        return torch.maximum(self._q.diff(dim=-1), least)

    @property
    def _tails(self) -> tuple[Tensor, Tensor]:
        """The mean distances beyond the first and the last quantile, [B, D]."""
        return 0.5 * self._gaps[..., 0], 0.5 * self._gaps[..., -1]

    @cached_property
    def levels(self) -> Tensor:
        """The levels of the quantiles, [K]."""
        count = self.at.shape[-1]
        edge = 0.5 / count
        return spaced(edge, 1 - edge, count, self._q.device, self._q.dtype)

    def __getitem__(self, index: slice | Tensor) -> Quantiled:
        return Quantiled.of(self.at[index], self.limit)

    def output(self, k: int) -> Quantiled:
        """Return the distribution of output k alone, [B, 1]."""
        return Quantiled.of(self.at[:, k : k + 1], self.limit)

    def log_density(self, values: Tensor) -> Tensor:
        """Return the log-density of each output at some values [B, D, n]."""
        count = self.at.shape[-1]
        place = (values.unsqueeze(-1) >= self._q.unsqueeze(-2)).sum(-1)
        inside = -(count * self._gaps).log()
        # The density of a tail begins with that of its neighbour.
        flat = inside.gather(-1, (place - 1).clamp(0, count - 2))
        left, right = self._tails
        below = (self._q[..., :1] - values).clamp_min(0) / left.unsqueeze(-1)
        above = (values - self._q[..., -1:]).clamp_min(0) / right.unsqueeze(-1)
        return flat - below - above

    def nodes(self) -> tuple[Tensor, Tensor]:
        """Return the nodes of Gauss in each part of the distribution."""
        device, dtype, count = self._q.device, self._q.dtype, self.at.shape[-1]
        part, weights = legendre(_INNER, device, dtype)
        inner = (self._q[..., :-1].unsqueeze(-1) + self._gaps.unsqueeze(-1) * part).flatten(-2)
        beyond, masses = laguerre(_OUTER, device, dtype)
        left, right = (tail.unsqueeze(-1) for tail in self._tails)
        values = [self._q[..., :1] - left * beyond, inner, self._q[..., -1:] + right * beyond]
        within = weights.repeat(count - 1)
        return torch.cat(values, dim=-1), torch.cat([0.5 * masses, within, 0.5 * masses]) / count

    @cached_property
    def entropies(self) -> Tensor:
        """The differential entropy of each output, in nats, [B, D], in closed form."""
        count = self.at.shape[-1]
        logs = self._gaps.log()
        # A tail of scale λ adds log λ + 1, and half a part of the mass.
        tails = 0.5 * (logs[..., 0] + logs[..., -1]) + 1
        return math.log(count) + (logs.sum(-1) + tails) / count

    def scaled(self, scale: Tensor, shift: Tensor) -> Quantiled:
        """Return the distribution of ``scale * y + shift``, scale above 0; both as [B, D]."""
        at = self.at.to(scale.dtype) * scale.unsqueeze(-1) + shift.unsqueeze(-1)
        return Quantiled.of(at, limit_of(scale))

    def cdf(self, values: Tensor) -> Tensor:
        """Return the distribution function of each output at some values [B, D, n]."""
        value, count = self._real(values), self.at.shape[-1]
        low, gaps = self._q[..., :-1].unsqueeze(-2), self._gaps.unsqueeze(-2)
        parts = ((value.unsqueeze(-1) - low) / gaps).clamp(0, 1).sum(-1)
        left, right = (tail.unsqueeze(-1) for tail in self._tails)
        below = torch.exp((value - self._q[..., :1]).clamp_max(0) / left)
        above = -torch.expm1((self._q[..., -1:] - value).clamp_max(0) / right)
        return (parts + 0.5 * (below + above)) / count

    def crps(self, y: Tensor) -> Tensor:
        """Return the continuous ranked probability score, in units of the target, [B, D].

        It is E|X - y| - E|X - X'| / 2, each in closed form, part by part.
        """
        value, count = self._real(y).unsqueeze(-1), self.at.shape[-1]
        low, high = self._q[..., :-1], self._q[..., 1:]
        near = torch.minimum(torch.maximum(value, low), high)
        halves = (near - low).square() + (high - near).square()
        inner = (halves / (2 * self._gaps) + (value - near).abs()).sum(-1)
        left, right = self._tails
        tails = _beyond(self._q[..., 0] - value.squeeze(-1), left)
        tails = tails + _beyond(value.squeeze(-1) - self._q[..., -1], right)
        # E|X - X'| is twice the integral of F (1 - F).
        edges = self.levels
        a, b = edges[:-1], edges[1:]
        own = (self._gaps * ((a + b) / 2 - (a * a + a * b + b * b) / 3)).sum(-1)
        mass = 0.5 / count
        own = own + (left + right) * (mass - 0.5 * mass * mass)
        return (inner + 0.5 * tails) / count - own

    def kl_from(self, teacher: Gaussian, weight: Tensor | None = None) -> Tensor:
        """Return KL(teacher ‖ self), in nats, summed over outputs, each times its weight, [B].

        The density has steps, so the mean of its logarithm is a sum over the parts: the mass of the
        teacher in each, and its mean distance beyond the outermost quantiles.
        """
        if isinstance(teacher, Quantiled):
            return super().kl_from(teacher, weight)
        count = self.at.shape[-1]
        inside = -(count * self._gaps).log()
        inner = cdf_of(teacher, self._q)
        parts = torch.cat([inner[..., 1:-1], torch.ones_like(inner[..., :1])], dim=-1)
        masses = torch.diff(parts, dim=-1, prepend=torch.zeros_like(inner[..., :1]))
        ends = torch.stack([self._q[..., 0], self._q[..., -1]], dim=-1)
        sides = spaced(0.0, 1.0, 2, ends.device, ends.dtype)
        # The pinball loss at the level 0 is (q - y)⁺, and at the level 1 it is (y - q)⁺.
        beyond = pinball_of(teacher, ends, sides) / torch.stack(self._tails, dim=-1)
        terms = -entropies_of(teacher) - (masses * inside).sum(-1) + beyond.sum(-1)
        return _summed(terms, weight)

    def energy_from(self, teacher: Gaussian) -> Tensor:
        """Return the energy distance from a teacher by the levels' rule: the pinball loss, [B].

        The energy distance is 4 times the mean over all levels of the expected pinball loss in
        excess of the teacher's own quantile; here it is the mean over these K levels. It is 0 for
        the teacher's quantiles alone, and has a closed form for a Gaussian
        (:func:`~.richer.pinball_of`). From labels it is 4 times the pinball loss.
        """
        with torch.no_grad():
            best = pinball_of(teacher, quantiles_of(teacher, self.levels, _FEW), self.levels)
        excess = pinball_of(teacher, self._q, self.levels) - best
        return 4 * excess.mean(-1).sum(-1)

    @staticmethod
    def mixture(members: Sequence[Gaussian]) -> Gaussian:
        """Match the mixture's mean and variance by a Gaussian, as for members that are Gaussian."""
        return Gaussian.mixture(members)


def _beyond(past: Tensor, tail: Tensor) -> Tensor:
    """Return E|X - y| of an exponential tail, for y so far past where it begins."""
    inside = past.clamp_min(0)
    return inside - tail + 2 * tail * torch.exp(-inside / tail) + (-past).clamp_min(0)
