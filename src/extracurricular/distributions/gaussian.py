"""A distribution over real vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from extracurricular.distributions.family import Shaped
from extracurricular.distributions.intervals import Intervals

_LOG_2PI = math.log(2 * math.pi)
# Outside of these bounds a variance or its inverse, times a squared error, overflows float32.
MAX_LOG_VAR = 40.0
# In a person's own units, such as bytes or farads, all deviations may be large or small alike, and
# errors with them. Outside of these bounds a variance itself nears the ends of float32.
OWN_LOG_VAR = 80.0
# In units of 1e±139 too; whatever has this bound is computed in float64.
WIDE_LOG_VAR = 640.0
# A network's own log variance is as it says within these bounds, and bent beyond them: a deviation
# of less than a thousandth of the target's no data can support.
SOFT_LOG_VAR = 14.0
_BEND = 0.25
# The normal distribution has no mass that float32 could hold beyond as many deviations.
_FAR = 20.0


def bent(log_var: Tensor, bound: float = SOFT_LOG_VAR) -> Tensor:
    """Return the log variance that a network's output stands for, of the same type.

    It is the output itself within ± ``bound``. Beyond, at a distance t from there, it is
    ±(bound + log(1 + 4 t) / 4): it rises with the output everywhere, by 22 at t = 10³⁷, and its
    slope is 1 / (1 + 4 t), so a gradient leads back from wherever a step has thrown it. Our choice.
    """
    wide = log_var.float()
    beyond = wide.abs() - bound
    # Below 0 the logarithm would be none, and its gradient with it, though it is not taken.
    far = bound + _BEND * torch.log1p(beyond.clamp_min(0.0) / _BEND)
    return torch.where(beyond > 0, far * wide.sign(), wide).to(log_var.dtype)


@dataclass(frozen=True)
class Gaussian(Shaped, Intervals):
    """A diagonal Gaussian, with a mean and a variance for each example and output.

    Args:
        mean: [B, D], any floating type, in the units of the label.
        log_var: Natural logarithm of the variance, [B, D]. It is clamped to ±40 (a deviation from
            2e-9 to 5e8), so that nothing overflows; ``-inf`` marks a point mass, a known label.
        limit: The bound that it is clamped to; 80 (a deviation from 4e-18 to 2e17) in the units of
            the user (:meth:`scaled`). With 640, for units that float32 cannot hold, all is computed
            in float64.

    The entropy of a point mass is minus infinity. If a point mass is the teacher, that entropy does
    not depend on the student, so it is left out: ``point(y).kl(student)`` is ``student.nll(y)``.
    """

    mean: Tensor
    log_var: Tensor
    limit: float = field(default=MAX_LOG_VAR, kw_only=True)

    @classmethod
    def point(cls, y: Tensor) -> Gaussian:
        """Return the distribution of known labels [B, D], with all mass at ``y``."""
        return cls(y, torch.full_like(y, -math.inf))

    @classmethod
    def from_output(cls, output: Tensor) -> Gaussian:
        """Read a network's output [B, 2 D] as D means, then D log variances."""
        mean, log_var = output.chunk(2, dim=-1)
        return cls(mean, log_var)

    def _real(self, values: Tensor) -> Tensor:
        """Return values in the type that is computed in."""
        return values.double() if self.limit > OWN_LOG_VAR else values.float()

    @cached_property
    def _log_var(self) -> Tensor:
        return self._real(self.log_var).clamp(-self.limit, self.limit)

    @cached_property
    def _is_point(self) -> Tensor:
        return torch.isneginf(self.log_var)

    @property
    def _own_log_var(self) -> Tensor:
        """The clamped log variance, float32, [B, D]; ``-inf`` for point masses."""
        return self._log_var.masked_fill(self._is_point, -math.inf)

    @property
    def var(self) -> Tensor:
        """Variance, float32, [B, D]; 0 for a point mass."""
        return self._log_var.exp().masked_fill(self._is_point, 0.0)

    @property
    def std(self) -> Tensor:
        """Standard deviation, float32, [B, D]."""
        return self.var.sqrt()

    @property
    def _deviation(self) -> Tensor:
        """The standard deviation, with a gradient that stays finite at a point mass."""
        return (0.5 * self._log_var).exp().masked_fill(self._is_point, 0.0)

    def var_to(self, power: float) -> Tensor:
        """Return the variance to a power, without a gradient: a weight for each output, [B, D]."""
        return (power * self._log_var.detach()).exp()

    @property
    def parameters(self) -> Tensor:
        """Means, then log variances, [B, 2 D]."""
        return torch.cat([self.mean, self.log_var], dim=-1)

    @property
    def temperature_power(self) -> int:
        """The power of T that keeps gradients comparable across temperatures.

        Tempering multiplies the variance by T, so the gradient with respect to the mean shrinks as
        1/T, and the one with respect to the log variance not at all. Our choice is the power 1.
        """
        return 1

    def like(self, parameters: Tensor) -> Gaussian:
        """Return a distribution of this kind with other :attr:`parameters` [B, 2 D]."""
        return replace(Gaussian.from_output(parameters), limit=self.limit)

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, index: slice | Tensor) -> Gaussian:
        return Gaussian(self.mean[index], self.log_var[index], limit=self.limit)

    def nll(self, y: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the negative log-density of real vectors [B, D], in nats, [B].

        It is summed over outputs, each times its ``weight`` [B, D] where one is given.
        """
        error = (self._real(y) - self._real(self.mean)).square()
        return 0.5 * _summed(_LOG_2PI + self._log_var + error * (-self._log_var).exp(), weight)

    def entropy(self) -> Tensor:
        """Return the differential entropy, in nats, [B].

        It is summed over outputs; point masses count as 0 by convention.
        """
        return (0.5 * (1 + _LOG_2PI + self._log_var)).masked_fill(self._is_point, 0.0).sum(-1)

    def kl(self, other: Gaussian, weight: Tensor | None = None) -> Tensor:
        """Return KL(self ‖ other), in nats, [B].

        It is summed over outputs, each times its ``weight`` [B, D] where one is given; the class
        describes point masses.
        """
        if other.richer:
            return other.kl_from(self, weight)
        difference = self._log_var - other._log_var
        error = (self._real(self.mean) - other._real(other.mean)).square() * (-other._log_var).exp()
        # expm1 keeps the digits where the two variances are nearly equal: e^d - 1 - d.
        density = torch.expm1(difference) - difference + error
        cross = _LOG_2PI + other._log_var + error
        return 0.5 * _summed(torch.where(self._is_point, cross, density), weight)

    def js(self, other: Gaussian) -> Tensor:
        """Return the Jensen-Shannon divergence to ``other``, in nats, [B].

        A mixture of two Gaussians has no closed form here, so the middle is the Gaussian with the
        mixture's mean and variance (our choice). This is an upper bound of the exact divergence:
        the mixture itself is the distribution that minimises the mean of the two KL terms.
        """
        if other.richer:
            return other.js(self)
        middle = Gaussian.mixture([self, other])
        mean_log_var = 0.5 * (self._log_var + other._log_var)
        return 0.5 * (middle._log_var - mean_log_var).sum(-1)

    def wasserstein(self, other: Gaussian) -> Tensor:
        """Return the squared 2-Wasserstein distance, in squared units of the label, [B].

        For one output it is (μ - μ')² + (σ - σ')² (Dowson and Landau 1982, "The Fréchet distance
        between multivariate normal distributions"); outputs add up. A point mass has σ = 0.
        """
        means = (self._real(self.mean) - other._real(other.mean)).square()
        return (means + (self._deviation - other._deviation).square()).sum(-1)

    def energy(self, other: Gaussian) -> Tensor:
        """Return the energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'|, [B].

        It has the units of the label. It is that of Székely and Rizzo 2013, "Energy statistics",
        for one output; outputs add up.
        With δ = μ - μ', s² = σ² + σ'² and u = δ / s, X - Y is normal, so that E|X - Y| is
        δ erf(u / √2) + s √(2/π) exp(-u² / 2), and E|X - X'| is 2 σ / √π. From a label, a point
        mass, the distance is twice the continuous ranked probability score (Gneiting and Raftery
        2007, section 4.2; Gneiting et al. 2005 have its closed form).
        """
        return other.energy_from(self) if other.richer else _energy(self, other)

    def tempered(self, temperature: float | Tensor) -> Gaussian:
        """Return the density to the power 1/T, normalised: the variance is multiplied by T."""
        if isinstance(temperature, Tensor):
            return Gaussian(self.mean, self._own_log_var + temperature.log(), limit=self.limit)
        if temperature == 1.0:
            return self
        return Gaussian(self.mean, self._own_log_var + math.log(temperature), limit=self.limit)

    def scaled(self, scale: Tensor, shift: Tensor) -> Gaussian:
        """Return the distribution of ``scale * y + shift``; both broadcast to [B, D].

        It is computed in float64 where scale and shift are, for units that float32 cannot hold.
        """
        limit = WIDE_LOG_VAR if scale.dtype == torch.float64 else OWN_LOG_VAR
        mean = self.mean.to(scale.dtype) * scale + shift
        return Gaussian(mean, self._own_log_var + 2 * scale.abs().log(), limit=limit)

    @staticmethod
    def mixture(members: Sequence[Gaussian]) -> Gaussian:
        """Match the mixture's moments: its variance is mean of variances plus variance of means.

        Deep ensembles do the same (Lakshminarayanan, Pritzel and Blundell 2017, section 2.4).
        """
        means = torch.stack([m._real(m.mean) for m in members])
        aleatoric = torch.stack([m._log_var for m in members]).logsumexp(0) - math.log(len(members))
        spread = (means - means.mean(0)).square().mean(0)
        log_var = torch.logaddexp(aleatoric, spread.clamp_min(torch.finfo(spread.dtype).tiny).log())
        return Gaussian(means.mean(0), log_var, limit=max(m.limit for m in members))

    @staticmethod
    def epistemic(members: Sequence[Gaussian]) -> Tensor:
        """Return the variance of the members' means, in squared units of the label, [B, D]."""
        means = torch.stack([m._real(m.mean) for m in members])
        return (means - means.mean(0)).square().mean(0)


def _summed(terms: Tensor, weight: Tensor | None) -> Tensor:
    """Sum over the last dimension, each term times its weight where one is given."""
    return (terms if weight is None else terms * weight).sum(-1)


def _energy(p: Gaussian, q: Gaussian) -> Tensor:
    """Return the energy distance of two Gaussians (:meth:`Gaussian.energy`), [B]."""
    difference = p._real(p.mean) - q._real(q.mean)
    # The floor is the least variance there is; it counts where both are point masses.
    scale = (p.var + q.var).clamp_min(math.exp(-max(p.limit, q.limit))).sqrt()
    # Beyond this bound erf is 1 and the exponential 0.
    u = (difference / scale).clamp(-_FAR, _FAR)
    shift = difference * torch.erf(u * math.sqrt(0.5))
    shift = shift + scale * math.sqrt(2 / math.pi) * torch.expm1(-0.5 * u.square())
    # √2 s - σ - σ', of which every digit would cancel where the deviations are equal.
    mine, theirs = p._deviation, q._deviation
    spread = (mine - theirs).square() / (math.sqrt(2) * scale + (mine + theirs))
    return 2 * (shift + spread / math.sqrt(math.pi)).sum(-1)
