"""Student's t: a Gaussian with tails as heavy as the data have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from extracurricular.distributions.family import Family, Kind
from extracurricular.distributions.gaussian import MAX_LOG_VAR, Gaussian, bent
from extracurricular.distributions.richer import Richer, limit_of
from extracurricular.distributions.special import (
    digamma_half,
    legendre,
    log_gamma_half,
    spaced,
)

# Nodes of expectations, and the asinh of the farthest, in units of the scale.
_NODES, _FARTHEST = 65, 10.0
# The logarithm of the degrees of freedom above 2 that an output of 0 stands for, and its bounds.
_START, _BEND = 2.0, 5.0
_LOWEST, _HIGHEST = -4.0, 9.0
_STEPS = 48


@dataclass(frozen=True)
class StudentTs(Family):
    """A location, a squared scale and degrees of freedom above 2 for each target."""

    kind: ClassVar[Kind] = "regression"
    name: ClassVar[str] = "student_t"
    noun: ClassVar[str] = "Student's t distributions"
    more: ClassVar[dict[str, tuple[str, str]]] = {"df": ("D", "degrees of freedom")}

    def outputs(self, size: int) -> int:
        """Return 3 D."""
        return 3 * size

    def needs(self, size: int) -> str:
        """Return what the raw outputs are, as the end of a sentence."""
        return f"{size} locations, {size} log squared scales and {size} shapes"

    def read(self, output: Tensor, size: int) -> StudentT:
        """Read a network's output; an output of 0 stands for about 9 degrees of freedom."""
        place, scale, shape = output.float().chunk(3, dim=-1)
        return StudentT.of(place, bent(scale), _START + bent(shape, _BEND))

    def stored(self, parameters: Tensor) -> StudentT:
        """Read locations, log squared scales and log degrees of freedom above 2, [B, 3 D]."""
        place, scale, excess = parameters.chunk(3, dim=-1)
        return StudentT.of(place, scale, excess)

    def named(self, said: StudentT) -> dict[str, Tensor]:
        """Return the degrees of freedom, [N, D]."""
        return {"df": said.df}

    def from_named(self, outputs: dict[str, Tensor], limit: float) -> StudentT:
        """Return the distributions with these means, variances and degrees of freedom."""
        df = outputs["df"]
        excess = (df - 2).log()
        log_scale = outputs["variance"].log() + excess - df.log()
        return StudentT.of(outputs["mean"], log_scale, excess, limit)


@dataclass(frozen=True)
class StudentT(Richer):
    """Student's t for each example and output; make it by :meth:`of`.

    Args:
        mean, log_var: Location, and log variance, [B, D].
        log_scale: Logarithm of the squared scale, [B, D].
        log_excess: Logarithm of the degrees of freedom above 2, [B, D]: the variance is finite.
    """

    log_scale: Tensor
    log_excess: Tensor

    @classmethod
    def of(
        cls, place: Tensor, log_scale: Tensor, log_excess: Tensor, limit: float = MAX_LOG_VAR
    ) -> StudentT:
        """Return the distributions with a location, a squared scale and degrees of freedom."""
        wide = torch.promote_types(log_scale.dtype, torch.float32)
        excess = log_excess.to(wide).clamp(_LOWEST, _HIGHEST)
        log_var = log_scale.to(wide) + torch.log1p(2 * (-excess).exp())
        return StudentT(place, log_var, log_scale, log_excess, limit=limit)

    @property
    def family(self) -> Family:
        """The family."""
        return StudentTs()

    @property
    def parameters(self) -> Tensor:
        """Locations, log squared scales and log degrees of freedom above 2, [B, 3 D]."""
        return torch.cat([self.mean, self.log_scale, self.log_excess], dim=-1)

    @cached_property
    def df(self) -> Tensor:
        """The degrees of freedom, above 2, [B, D]."""
        return 2 + self._real(self.log_excess).clamp(_LOWEST, _HIGHEST).exp()

    @cached_property
    def _log_s2(self) -> Tensor:
        return self._real(self.log_scale).clamp(-self.limit, self.limit)

    def __getitem__(self, index: slice | Tensor) -> StudentT:
        parts = (self.mean[index], self.log_scale[index], self.log_excess[index])
        return StudentT.of(*parts, limit=self.limit)

    def output(self, k: int) -> StudentT:
        """Return the distribution of output k alone, [B, 1]."""
        one = slice(k, k + 1)
        parts = (self.mean[:, one], self.log_scale[:, one], self.log_excess[:, one])
        return StudentT.of(*parts, limit=self.limit)

    def _log_unit(self, square: Tensor, df: Tensor) -> Tensor:
        """Return the log-density of the standard t at values with a square."""
        norm = log_gamma_half(0.5 * df) - 0.5 * (df * math.pi).log()
        return norm - 0.5 * (df + 1) * torch.log1p(square / df)

    def log_density(self, values: Tensor) -> Tensor:
        """Return the log-density of each output at some values [B, D, n]."""
        log_s2 = self._log_s2.unsqueeze(-1)
        square = (values - self._real(self.mean).unsqueeze(-1)).square() * (-log_s2).exp()
        return self._log_unit(square, self.df.unsqueeze(-1)) - 0.5 * log_s2

    def nodes(self) -> tuple[Tensor, Tensor]:
        """Return the nodes of the trapezoidal rule in the asinh of the standardised value."""
        df = self.df.unsqueeze(-1)
        u = spaced(-_FARTHEST, _FARTHEST, _NODES, df.device, df.dtype)
        z = u.sinh()
        weights = (self._log_unit(z.square(), df) + u.cosh().log()).softmax(-1)
        scale = (0.5 * self._log_s2).exp().unsqueeze(-1)
        return self._real(self.mean).unsqueeze(-1) + scale * z, weights

    @cached_property
    def entropies(self) -> Tensor:
        """The differential entropy of each output, in nats, [B, D], in closed form."""
        half = 0.5 * self.df
        slope = digamma_half(half)
        log_beta = 0.5 * math.log(math.pi) - log_gamma_half(half)
        inner = (half + 0.5) * slope + 0.5 * self.df.log() + log_beta
        return inner + 0.5 * self._log_s2

    def scaled(self, scale: Tensor, shift: Tensor) -> StudentT:
        """Return the distribution of ``scale * y + shift``; both broadcast to [B, D]."""
        place = self.mean.to(scale.dtype) * scale + shift
        log_scale = self.log_scale.to(scale.dtype) + 2 * scale.abs().log()
        return StudentT.of(place, log_scale, self.log_excess.to(scale.dtype), limit_of(scale))

    def cdf(self, values: Tensor) -> Tensor:
        """Return the distribution function of each output at some values [B, D, n].

        With tan θ = z / √ν it is an integral of cos θ to the power ν - 1, which is smooth.
        """
        df = self.df.double().unsqueeze(-1)
        scale = (0.5 * self._log_s2.double()).exp().unsqueeze(-1)
        z = (values.double() - self.mean.double().unsqueeze(-1)) / scale
        part, weights = legendre(_STEPS, z.device, z.dtype)
        # Beyond so many widths of the integrand there is nothing more of it.
        reach = torch.minimum(torch.atan(z.abs() / df.sqrt()), 10 * (df - 1).rsqrt())
        theta = reach.unsqueeze(-1) * part
        log_cos = torch.cos(theta).log() * (df - 1).unsqueeze(-1)
        mass = reach * (weights * log_cos.exp()).sum(-1)
        norm = log_gamma_half(0.5 * df).exp() / math.sqrt(math.pi)
        half = (norm * mass).clamp(0, 0.5)
        return (0.5 + torch.where(z < 0, -half, half)).to(self._log_s2.dtype)

    def crps(self, y: Tensor) -> Tensor:
        """Return the continuous ranked probability score, in units of the target, [B, D].

        (Jordan, Krüger and Lerch 2019, "Evaluating probabilistic forecasts with scoringRules",
        appendix A.)
        """
        df, scale = self.df, (0.5 * self._log_s2).exp()
        z = (self._real(y) - self._real(self.mean)) / scale
        density = self._log_unit(z.square(), df).exp()
        level = 2 * self.cdf(self._real(y).unsqueeze(-1)).squeeze(-1) - 1
        # B(1/2, ν - 1/2) / B(1/2, ν / 2)², by differences of lgamma.
        ratio = 2 * log_gamma_half(0.5 * df) - log_gamma_half(df - 0.5) - 0.5 * math.log(math.pi)
        spread = 2 * df.sqrt() / (df - 1) * ratio.exp()
        return scale * (z * level + 2 * density * (df + z.square()) / (df - 1) - spread)

    @staticmethod
    def mixture(members: Sequence[Gaussian]) -> Gaussian:
        """Match the mixture's mean and variance by a Gaussian, as for members that are Gaussian."""
        return Gaussian.mixture(members)
