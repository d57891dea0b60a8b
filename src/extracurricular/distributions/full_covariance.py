"""A Gaussian over several targets whose errors are correlated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from extracurricular.distributions.family import Family, Kind
from extracurricular.distributions.gaussian import Gaussian, bent
from extracurricular.distributions.gaussian_mixture import GaussianMixture
from extracurricular.distributions.richer import Richer, limit_of, log_density_of, nodes_of
from extracurricular.distributions.special import LOG_2PI, normal_cdf, normal_density

# Beyond this a number below the diagonal is bent: a correlation of 0.9998.
_BEND = 50.0


@dataclass(frozen=True)
class FullGaussians(Family):
    """A mean and a variance for each target, and their correlations."""

    kind: ClassVar[Kind] = "regression"
    name: ClassVar[str] = "full"
    noun: ClassVar[str] = "Gaussians with a full covariance"
    more: ClassVar[dict[str, tuple[str, str]]] = {"correlation": ("D, D", "correlations")}

    def check(self, size: int) -> None:
        """Refuse a single target, which has no correlations."""
        if size < 2:
            raise ValueError("is for several targets, and the data have one; leave it out")

    def outputs(self, size: int) -> int:
        """Return 2 D + D (D - 1) / 2."""
        return 2 * size + size * (size - 1) // 2

    def needs(self, size: int) -> str:
        """Return what the raw outputs are, as the end of a sentence."""
        pairs = size * (size - 1) // 2
        return f"{size} means, {size} log variances and {pairs} numbers below the diagonal"

    def read(self, output: Tensor, size: int) -> FullGaussian:
        """Read a network's output."""
        mean, log_var, lower = self._parts(output.float(), size)
        return FullGaussian(mean, bent(log_var), bent(lower, _BEND))

    def stored(self, parameters: Tensor) -> FullGaussian:
        """Read means, log variances and what is below the diagonal, row by row."""
        size = round((math.sqrt(9 + 8 * parameters.shape[-1]) - 3) / 2)
        return FullGaussian(*self._parts(parameters, size))

    def _parts(self, flat: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
        return flat[..., :size], flat[..., size : 2 * size], flat[..., 2 * size :]

    def named(self, said: FullGaussian) -> dict[str, Tensor]:
        """Return the correlations, [N, D, D]."""
        return {"correlation": said.correlation}

    def from_named(self, outputs: dict[str, Tensor], limit: float) -> FullGaussian:
        """Return the distributions with these means, variances and correlations."""
        variance = outputs["variance"]
        lower = _lower_of(outputs["correlation"].double()).to(variance.dtype)
        return FullGaussian(outputs["mean"], variance.log(), lower, limit=limit)


@dataclass(frozen=True)
class FullGaussian(Richer):
    """A Gaussian with a full covariance over D outputs for each example.

    The covariance is diag(σ) C Cᵀ diag(σ), where C is a lower triangle whose rows have length 1:
    row i is that of the numbers below the diagonal, then 1, divided by its length. So C Cᵀ is the
    matrix of correlations, whatever the numbers are, and each output alone is the Gaussian of its
    mean and variance.

    Args:
        mean, log_var: Of each output alone, [B, D].
        lower: The numbers below the diagonal, row by row, [B, D (D - 1) / 2].
    """

    lower: Tensor

    @property
    def family(self) -> Family:
        """The family."""
        return FullGaussians()

    @property
    def parameters(self) -> Tensor:
        """Means, log variances and the numbers below the diagonal, [B, P]."""
        return torch.cat([self.mean, self.log_var, self.lower], dim=-1)

    @cached_property
    def factor(self) -> Tensor:
        """The factor C of the correlations, [B, D, D]."""
        rows, start, size = [], 0, self.mean.shape[-1]
        lower = self._real(self.lower)
        for i in range(size):
            row = F.pad(lower[..., start : start + i], (0, 1), value=1.0)
            # The length is at least 1; it is written out, as ONNX has it so.
            rows.append(F.pad(row / row.square().sum(-1, keepdim=True).sqrt(), (0, size - 1 - i)))
            start += i
        return torch.stack(rows, dim=-2)

    @property
    def correlation(self) -> Tensor:
        """The correlations, [B, D, D]."""
        found: Tensor = self.factor @ self.factor.mT
        return found

    def __getitem__(self, index: slice | Tensor) -> FullGaussian:
        parts = (self.mean[index], self.log_var[index], self.lower[index])
        return FullGaussian(*parts, limit=self.limit)

    def output(self, k: int) -> Gaussian:  # type: ignore[override]
        """Return the distribution of output k alone, [B, 1], which is a plain Gaussian."""
        one = slice(k, k + 1)
        return Gaussian(self.mean[:, one], self.log_var[:, one], limit=self.limit)

    @cached_property
    def _log_det(self) -> Tensor:
        """Half the log determinant of the covariance, [B]."""
        diagonal = self.factor.diagonal(dim1=-2, dim2=-1)
        return (diagonal.log() + 0.5 * self._log_var).sum(-1)

    def _whitened(self, values: Tensor) -> Tensor:
        """Return deviations [B, D, n] as those of independent standard normals."""
        scaled = values * (-0.5 * self._log_var).exp().unsqueeze(-1)
        found: Tensor = torch.linalg.solve_triangular(self.factor, scaled, upper=False)
        return found

    def nll(self, y: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the negative log-density of real vectors [B, D], in nats, [B].

        Outputs are not independent, so a weight of each counts as their mean (our choice).
        """
        z = self._whitened((self._real(y) - self._real(self.mean)).unsqueeze(-1)).squeeze(-1)
        each = 0.5 * (z.square().sum(-1) + z.shape[-1] * LOG_2PI) + self._log_det
        return each if weight is None else each * weight.mean(-1)

    def entropy(self) -> Tensor:
        """Return the differential entropy, in nats, [B]."""
        return 0.5 * self.mean.shape[-1] * (1 + LOG_2PI) + self._log_det

    def kl(self, other: Gaussian, weight: Tensor | None = None) -> Tensor:
        """Return KL(self ‖ other), in nats, [B], in closed form where ``other`` is Gaussian."""
        if other.richer:
            return other.kl_from(self, weight)
        return _as_full(other).kl_from(self, weight)

    def kl_from(self, teacher: Gaussian, weight: Tensor | None = None) -> Tensor:
        """Return KL(teacher ‖ self), in nats, [B], in closed form.

        A teacher of another family counts as the Gaussian with its means and covariance: an
        ensemble with the covariance between its members' means. The KL then differs from the exact
        one by what does not depend on the student.
        """
        error = self._real(teacher.mean) - self._real(self.mean)
        square = self._whitened(error.unsqueeze(-1)).square().sum((-1, -2))
        size = self.mean.shape[-1]
        point = torch.isneginf(teacher.log_var).any(-1)
        covariance = covariance_of(teacher)
        # A label has no covariance; any will do in its place.
        unit = torch.eye(size, dtype=covariance.dtype, device=covariance.device)
        covariance = torch.where(point[:, None, None], unit, covariance)
        theirs = _cholesky(covariance)
        trace = self._whitened(theirs).square().sum((-1, -2))
        log_det = theirs.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        density = 0.5 * (square + trace - size) + self._log_det - log_det
        label = 0.5 * (square + size * LOG_2PI) + self._log_det
        each = torch.where(point, label, density)
        return each if weight is None else each * weight.mean(-1)

    def js(self, other: Gaussian) -> Tensor:
        """Return the Jensen-Shannon divergence to ``other``, in nats, [B].

        The middle is the Gaussian with the mixture's mean and covariance, as for outputs that are
        independent, so this is an upper bound.
        """
        theirs = _as_full(other)
        gap = 0.5 * (self._real(self.mean) - self._real(theirs.mean))
        middle = 0.5 * (covariance_of(self) + covariance_of(theirs))
        middle = middle + gap.unsqueeze(-1) * gap.unsqueeze(-2)
        log_det = _cholesky(middle).diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return (log_det - 0.5 * (self._log_det + theirs._log_det)).clamp_min(0)

    def scaled(self, scale: Tensor, shift: Tensor) -> FullGaussian:
        """Return the distribution of ``scale * y + shift``, scale above 0; both as [B, D]."""
        mean = self.mean.to(scale.dtype) * scale + shift
        log_var = self.log_var.to(scale.dtype) + 2 * scale.abs().log()
        return FullGaussian(mean, log_var, self.lower.to(scale.dtype), limit=limit_of(scale))

    # Each output alone is Gaussian.

    def log_density(self, values: Tensor) -> Tensor:
        """Return the log-density of each output alone at some values [B, D, n]."""
        return log_density_of(self._moments, values)

    def nodes(self) -> tuple[Tensor, Tensor]:
        """Return values and weights of expectations of each output alone."""
        return nodes_of(self._moments)

    def interval(self, mass: float) -> tuple[Tensor, Tensor]:
        """Return bounds [B, D] of the central interval with ``mass`` (0 to 1) of each output."""
        return self._moments.interval(mass)

    def cdf(self, values: Tensor) -> Tensor:
        """Return the distribution function of each output alone at some values [B, D, n]."""
        error = self._real(values) - self._real(self.mean).unsqueeze(-1)
        return normal_cdf(error * (-0.5 * self._log_var).exp().unsqueeze(-1))

    def crps(self, y: Tensor) -> Tensor:
        """Return the continuous ranked probability score, in units of the target, [B, D]."""
        std = (0.5 * self._log_var).exp()
        z = (self._real(y) - self._real(self.mean)) / std
        return std * (z * (2 * normal_cdf(z) - 1) + 2 * normal_density(z) - 1 / math.sqrt(math.pi))

    def energy_from(self, teacher: Gaussian) -> Tensor:
        """Return the energy distance from a teacher, output by output, [B]."""
        theirs = teacher._moments if isinstance(teacher, Richer) else teacher
        return Gaussian.energy(theirs, self._moments)

    @staticmethod
    def mixture(members: Sequence[Gaussian]) -> FullGaussian:
        """Match the mixture's mean and covariance."""
        means = torch.stack([m._real(m.mean) for m in members])
        center = means.mean(0)
        gaps = (means - center).movedim(0, -1)
        covariance = torch.stack([covariance_of(m) for m in members]).mean(0)
        covariance = covariance + gaps @ gaps.mT / len(members)
        var = covariance.diagonal(dim1=-2, dim2=-1)
        scale = var.rsqrt()
        correlation = covariance * scale.unsqueeze(-1) * scale.unsqueeze(-2)
        limit = max(m.limit for m in members)
        return FullGaussian(center, var.log(), _lower_of(correlation), limit=limit)


def covariance_of(given: Gaussian) -> Tensor:
    """Return the covariance of the outputs, [B, D, D]: a diagonal where they are independent."""
    if isinstance(given, FullGaussian):
        std = (0.5 * given._log_var).exp()
        return given.correlation * std.unsqueeze(-1) * std.unsqueeze(-2)
    found = given._log_var.exp().diag_embed()
    if not isinstance(given, GaussianMixture) or not given.joint:
        return found
    gaps = given._means - given._real(given.mean).unsqueeze(-1)
    between = (gaps * given.log_weights.exp()) @ gaps.mT
    # The variances are whole already.
    return found + between - between.diagonal(dim1=-2, dim2=-1).diag_embed()


def _as_full(given: Gaussian) -> FullGaussian:
    if isinstance(given, FullGaussian):
        return given
    size = given.mean.shape[-1]
    lower = given.mean.new_zeros(len(given), size * (size - 1) // 2)
    return FullGaussian(given.mean, given._log_var, lower, limit=given.limit)


def _cholesky(covariance: Tensor) -> Tensor:
    """Return the lower factor of a covariance, without asking the device whether there is one."""
    factor: Tensor = torch.linalg.cholesky_ex(covariance).L
    return factor


def _lower_of(correlation: Tensor) -> Tensor:
    """Return the numbers below the diagonal that stand for correlations, [B, D (D - 1) / 2]."""
    size = correlation.shape[-1]
    unit = torch.eye(size, dtype=correlation.dtype, device=correlation.device)
    factor = _cholesky(correlation + torch.finfo(correlation.dtype).eps * unit)
    rows = factor / factor.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
    return torch.cat([rows[..., i, :i] for i in range(size)], dim=-1)
