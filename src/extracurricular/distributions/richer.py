"""Distributions of real vectors that know more than a mean and a variance.

Each is a :class:`~extracurricular.distributions.Gaussian` to whoever asks for mean, deviation or a
figure made of these, which are exact. Densities, intervals, entropy and divergences are its own.
Divergences between families have few closed forms, so they are expectations by quadrature with
fixed nodes: deterministic, differentiable, and 0 for equal distributions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from extracurricular.distributions.gaussian import OWN_LOG_VAR, WIDE_LOG_VAR, Gaussian, _summed
from extracurricular.distributions.special import (
    LOG_2PI,
    hermite,
    normal_cdf,
    normal_density,
    normal_quantile,
)

if TYPE_CHECKING:
    from extracurricular.distributions.family import Family

# Nodes of the expectation under a Gaussian, and halvings of a search for a quantile.
NODES = 64
HALVINGS = 50


class Richer(Gaussian):
    """A distribution of real vectors with independent outputs and a shape of its own.

    Subclasses are dataclasses with the fields of :class:`Gaussian`, of which mean and log variance
    are exact, and their own.
    """

    richer = True

    @property
    def family(self) -> Family:
        """The family."""
        raise NotImplementedError

    @property
    def parameters(self) -> Tensor:
        """The numbers that define the distributions, as the family stores them, [B, P]."""
        raise NotImplementedError

    def like(self, parameters: Tensor) -> Richer:
        """Return distributions of this family with other :attr:`parameters`."""
        found: Richer = self.family.stored(parameters)
        return replace(found, limit=self.limit)

    def log_density(self, values: Tensor) -> Tensor:
        """Return the log-density of each output at some values [B, D, n], [B, D, n]."""
        raise NotImplementedError

    def nodes(self) -> tuple[Tensor, Tensor]:
        """Return values and weights, which broadcast to [B, D, n], of expectations under it."""
        raise NotImplementedError

    def cdf(self, values: Tensor) -> Tensor:
        """Return the distribution function of each output at some values [B, D, n]."""
        raise NotImplementedError

    def scaled(self, scale: Tensor, shift: Tensor) -> Richer:
        """Return the distribution of ``scale * y + shift``; both broadcast to [B, D]."""
        raise NotImplementedError

    def output(self, k: int) -> Richer:
        """Return the distribution of output k alone, [B, 1]."""
        raise NotImplementedError

    def crps(self, y: Tensor) -> Tensor:
        """Return the continuous ranked probability score, in units of the target, [B, D]."""
        raise NotImplementedError

    # -- what follows ---------------------------------------------------------------------------

    def nll(self, y: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the negative log-density of real vectors [B, D], in nats, [B]."""
        return -_summed(self.log_density(self._real(y).unsqueeze(-1)).squeeze(-1), weight)

    def entropy(self) -> Tensor:
        """Return the differential entropy, in nats, summed over outputs, [B]."""
        return self.entropies.sum(-1)

    @cached_property
    def entropies(self) -> Tensor:
        """The differential entropy of each output, in nats, [B, D]."""
        values, weights = self.nodes()
        return -(weights * self.log_density(values)).sum(-1)

    def kl(self, other: Gaussian, weight: Tensor | None = None) -> Tensor:
        """Return KL(self ‖ other), in nats, summed over outputs, each times its weight, [B].

        Of a Gaussian it has a closed form but for the entropy; of others it is a quadrature.
        """
        if other.richer:
            return other.kl_from(self, weight)
        error = (self._real(self.mean) - other._real(other.mean)).square() + self.var
        cross = 0.5 * (LOG_2PI + other._log_var + error * (-other._log_var).exp())
        return _summed(cross - self.entropies, weight)

    def kl_from(self, teacher: Gaussian, weight: Tensor | None = None) -> Tensor:
        """Return KL(teacher ‖ self), in nats, summed over outputs, each times its weight, [B].

        It is the mean of log q_T - log q_S over the teacher's nodes: those of Gauss and Hermite for
        a Gaussian. A label is one node, of which this is the negative log-density.
        """
        values, weights = nodes_of(teacher)
        values = self._real(values)
        terms = weights * (log_density_of(teacher, values) - self.log_density(values))
        return _summed(terms.sum(-1), weight)

    def js(self, other: Gaussian) -> Tensor:
        """Return the Jensen-Shannon divergence to ``other``, in nats, at most D log 2, [B].

        The middle is the mixture itself, output by output; the expectations are quadratures.
        """
        total: Tensor | None = None
        for one in (self, other):
            values, weights = nodes_of(one)
            mine, theirs = self.log_density(values), log_density_of(other, values)
            middle = torch.logaddexp(mine, theirs) - math.log(2)
            part = 0.5 * (weights * ((mine if one is self else theirs) - middle)).sum(-1)
            total = part if total is None else total + part
        assert total is not None
        return total.sum(-1).clamp_min(0)

    def energy(self, other: Gaussian) -> Tensor:
        """Return the energy distance to ``other``, [B]; see :meth:`energy_from`."""
        return other.energy_from(self) if other.richer else Gaussian.energy(self._moments, other)

    def energy_from(self, teacher: Gaussian) -> Tensor:
        """Return the energy distance from a teacher, [B].

        From labels it is twice the continuous ranked probability score. Else it is that of the
        Gaussians with the same means and variances, which is our substitute.
        """
        between = Gaussian.energy(moments_of(teacher), self._moments)
        score = 2 * self.crps(self._real(teacher.mean)).sum(-1)
        return torch.where(torch.isneginf(teacher.log_var).all(-1), score, between)

    @property
    def _moments(self) -> Gaussian:
        return Gaussian(self.mean, self.log_var, limit=self.limit)

    def tempered(self, temperature: float | Tensor) -> Richer:
        """Return the distribution stretched about its mean by √T, so that the variance is T times.

        For a Gaussian that is the density to the power 1/T; for others it is our substitute.
        """
        if not isinstance(temperature, Tensor) and temperature == 1.0:
            return self
        t = torch.as_tensor(temperature, dtype=self._log_var.dtype, device=self.mean.device)
        factor = t.sqrt()
        stretched = self.scaled(factor, self._real(self.mean) * (1 - factor))
        return replace(stretched, limit=self.limit)

    def quantiles(self, levels: Tensor, halvings: int = HALVINGS) -> Tensor:
        """Return quantiles [B, D, n] at levels [n] in (0, 1), without a gradient."""
        mean, std = self._real(self.mean).unsqueeze(-1), self.std.unsqueeze(-1)
        return searched(self.cdf, mean, std, levels, halvings)

    def interval(self, mass: float) -> tuple[Tensor, Tensor]:
        """Return bounds [B, D] of the central interval with ``mass`` (0 to 1) of each output."""
        sides = [0.5 - 0.5 * mass, 0.5 + 0.5 * mass]
        levels = torch.tensor(sides, dtype=self._log_var.dtype, device=self.mean.device)
        low, high = self.quantiles(levels).unbind(-1)
        return low, high

    def pinball(self, at: Tensor, levels: Tensor) -> Tensor:
        """Return the expected pinball loss of values [B, D, n] at levels [n]; a quadrature."""
        values, weights = self.nodes()
        miss = values.unsqueeze(-2) - at.unsqueeze(-1)
        loss = torch.maximum(levels.unsqueeze(-1) * miss, (levels.unsqueeze(-1) - 1) * miss)
        return (weights.unsqueeze(-2) * loss).sum(-1)


@torch.no_grad()
def searched(
    cdf: Callable[[Tensor], Tensor], mean: Tensor, std: Tensor, levels: Tensor, halvings: int
) -> Tensor:
    """Return the values at which a distribution function has some levels, by halving a bracket.

    Args:
        cdf: Maps values [B, D, n] to levels; rising.
        mean, std: Moments of the distribution, [B, D, 1].
        levels: In (0, 1), [n].
        halvings: How often the bracket is halved.
    """
    # No more than q of any distribution is beyond 1 / √q deviations (Chebyshev's inequality).
    reach = torch.minimum(levels, 1 - levels).rsqrt() + 1e-3
    low, high = mean - reach * std, mean + reach * std
    for _ in range(halvings):
        middle = 0.5 * (low + high)
        below = cdf(middle) < levels
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return 0.5 * (low + high)


def moments_of(given: Gaussian) -> Gaussian:
    """Return the Gaussian with the same means and variances."""
    return given._moments if isinstance(given, Richer) else given


def nodes_of(given: Gaussian) -> tuple[Tensor, Tensor]:
    """Return values and weights, which broadcast to [B, D, n], of expectations under it."""
    if isinstance(given, Richer):
        return given.nodes()
    mean = given._real(given.mean)
    z, weights = hermite(NODES, mean.device, mean.dtype)
    return mean.unsqueeze(-1) + given._deviation.unsqueeze(-1) * z, weights


def log_density_of(given: Gaussian, values: Tensor) -> Tensor:
    """Return the log-density of each output at values [B, D, n]; 0 for labels, by convention."""
    if isinstance(given, Richer):
        return given.log_density(values)
    log_var = given._log_var.unsqueeze(-1)
    error = (values - given._real(given.mean).unsqueeze(-1)).square()
    density = -0.5 * (LOG_2PI + log_var + error * (-log_var).exp())
    return density.masked_fill(given._is_point.unsqueeze(-1), 0.0)


def cdf_of(given: Gaussian, values: Tensor) -> Tensor:
    """Return the distribution function of each output at values [B, D, n]; a step for labels."""
    if isinstance(given, Richer):
        return given.cdf(values)
    std = given._deviation.unsqueeze(-1).clamp_min(torch.finfo(given._log_var.dtype).tiny)
    return normal_cdf(((values - given._real(given.mean).unsqueeze(-1)) / std).clamp(-1e4, 1e4))


def entropies_of(given: Gaussian) -> Tensor:
    """Return the differential entropy of each output, [B, D]; 0 for labels, by convention."""
    if isinstance(given, Richer):
        return given.entropies
    return (0.5 * (1 + LOG_2PI + given._log_var)).masked_fill(given._is_point, 0.0)


def quantiles_of(given: Gaussian, levels: Tensor, halvings: int = HALVINGS) -> Tensor:
    """Return quantiles [B, D, n] at levels [n]; all are the value itself for labels."""
    if isinstance(given, Richer):
        return given.quantiles(levels, halvings)
    z = normal_quantile(levels)
    return given._real(given.mean).unsqueeze(-1) + given._deviation.unsqueeze(-1) * z


def pinball_of(given: Gaussian, at: Tensor, levels: Tensor) -> Tensor:
    """Return the expected pinball loss E ρ(Y - q) of values q, [B, D, n], at levels [n].

    ρ(u) is u times (level - 1 where u is negative, else level). Under a Gaussian it is
    (q - μ)(Φ(z) - level) + σ φ(z), with z = (q - μ) / σ; under others it is a quadrature.
    """
    if isinstance(given, Richer):
        return given.pinball(at, levels)
    miss = at - given._real(given.mean).unsqueeze(-1)
    std = given._deviation.unsqueeze(-1)
    # A label has no deviation, and a loss that is ρ itself.
    z = miss / std.clamp_min(torch.finfo(std.dtype).tiny)
    z = z.clamp(-1e4, 1e4)
    return miss * (normal_cdf(z) - levels) + std * normal_density(z)


def limit_of(scale: Tensor) -> float:
    """Return the bound of log variances in a person's own units."""
    return WIDE_LOG_VAR if scale.dtype == torch.float64 else OWN_LOG_VAR


def of_layout(parts: list[Any]) -> Tensor:
    """Join tensors [B, …] to parameters [B, P], one after the other."""
    return torch.cat([part.flatten(1) for part in parts], dim=1)
