"""A normal-inverse-gamma: a distribution over means and variances, as an ensemble gives them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from extracurricular.distributions.family import Family, Match, Members
from extracurricular.distributions.gaussian import MAX_LOG_VAR, Gaussian, _summed, bent
from extracurricular.distributions.gaussian_mixture import GaussianMixture
from extracurricular.distributions.student_t import StudentT, StudentTs

# What outputs of 0 stand for: log κ of 3, and shapes log(α - 1) of 2, and where they are bent.
_START_MEAN, _START_SHAPE, _BEND = 3.0, 2.0, 6.0
# The least variance between members, in standardised units: without it the κ of equal members has
# no bound. And the weight of the disagreement beside the KL (our choice).
_LEAST, _WEIGHT = 1e-6, 0.1


@dataclass(frozen=True)
class NormalInverseGammas(StudentTs):
    """The ensemble's mean, its variance, and how sure both are, for each target.

    Args:
        match: What is matched of an ensemble (:meth:`NormalInverseGamma.kl_from`).
    """

    name: ClassVar[str] = "normal_inverse_gamma"
    noun: ClassVar[str] = "normal-inverse-gamma distributions"
    members: ClassVar[Members] = "needed"
    more: ClassVar[dict[str, tuple[str, str]]] = {
        "df": ("D", "degrees of freedom"),
        "epistemic_variance": ("D", "variance of the mean in the ensemble, part of the variance"),
    }

    match: Match = "disagreement"

    def outputs(self, size: int) -> int:
        """Return 4 D."""
        return 4 * size

    def needs(self, size: int) -> str:
        """Return what the raw outputs are, as the end of a sentence."""
        return f"{size} means, {size} log variances and {2 * size} shapes"

    def read(self, output: Tensor, size: int) -> NormalInverseGamma:
        """Read a network's output."""
        mean, noise, sure, shape = output.float().chunk(4, dim=-1)
        sure, shape = _START_MEAN + bent(sure, _BEND), _START_SHAPE + bent(shape, _BEND)
        return NormalInverseGamma.of_noise(mean, bent(noise), sure, shape, match=self.match)

    def stored(self, parameters: Tensor) -> NormalInverseGamma:
        """Read means, log noise variances, log κ and log(α - 1), [B, 4 D]."""
        mean, noise, sure, shape = parameters.chunk(4, dim=-1)
        return NormalInverseGamma.of_noise(mean, noise, sure, shape, match=self.match)

    def named(self, said: StudentT) -> dict[str, Tensor]:
        """Return the degrees of freedom, and the variance of the mean, [N, D]."""
        assert isinstance(said, NormalInverseGamma)
        return {"df": said.df, "epistemic_variance": said.disagreement}

    def from_named(self, outputs: dict[str, Tensor], limit: float) -> NormalInverseGamma:
        """Return the distributions with these variances, of the whole and of the mean."""
        whole, apart = outputs["variance"], outputs["epistemic_variance"]
        noise = whole - apart
        shape = (outputs["df"] - 2).log() - math.log(2)
        return NormalInverseGamma.of_noise(
            outputs["mean"], noise.log(), noise.log() - apart.log(), shape, limit, self.match
        )


@dataclass(frozen=True)
class NormalInverseGamma(StudentT):
    """A mean μ and a variance σ² that are uncertain: μ ~ N(m, σ²/κ), 1/σ² ~ Gamma(α, β).

    A prediction is then Student's t. Its variance has two parts: the noise E σ² = β / (α - 1), and
    the variance of the mean, which is the noise divided by κ. (Amini, Schwarting, Soleimany and Rus
    2020, "Deep evidential regression", section 3; Malinin, Chervontsev, Provilkov and Gales 2020,
    "Regression prior networks".) Make it by :meth:`of_noise`.

    Args:
        mean, log_var, log_scale, log_excess: Those of the t distribution, [B, D].
        log_noise: Logarithm of the noise, [B, D].
        log_sure: log κ, [B, D].
        match: What is matched of an ensemble (:meth:`kl_from`).
    """

    log_noise: Tensor
    log_sure: Tensor
    match: Match = "disagreement"

    @classmethod
    def of_noise(
        cls,
        mean: Tensor,
        log_noise: Tensor,
        log_sure: Tensor,
        log_shape: Tensor,
        limit: float = MAX_LOG_VAR,
        match: Match = "disagreement",
    ) -> NormalInverseGamma:
        """Return the distributions with a noise, κ and α, [B, D]; ``log_shape`` is log(α - 1)."""
        excess = log_shape + math.log(2)
        # β (1 + κ) / (α κ), with β = noise (α - 1).
        log_var = log_noise + torch.log1p((-log_sure).exp())
        log_scale = log_var - torch.log1p(2 * (-excess).exp())
        return cls(mean, log_var, log_scale, excess, log_noise, log_sure, match, limit=limit)

    @property
    def family(self) -> Family:
        """The family."""
        return NormalInverseGammas(self.match)

    @property
    def _log_shape(self) -> Tensor:
        return self.log_excess - math.log(2)

    @property
    def parameters(self) -> Tensor:
        """Means, log noise variances, log κ and log(α - 1), [B, 4 D]."""
        return torch.cat([self.mean, self.log_noise, self.log_sure, self._log_shape], dim=-1)

    @cached_property
    def disagreement(self) -> Tensor:
        """The variance of the mean, in squared units, [B, D]."""
        return (self._real(self.log_noise) - self._real(self.log_sure)).exp()

    def __getitem__(self, index: slice | Tensor) -> NormalInverseGamma:
        return self._at(index)

    def _at(self, index: Any) -> NormalInverseGamma:
        whole = (self.mean, self.log_noise, self.log_sure, self._log_shape)
        mean, noise, sure, shape = (part[index] for part in whole)
        return NormalInverseGamma.of_noise(mean, noise, sure, shape, self.limit, self.match)

    def output(self, k: int) -> NormalInverseGamma:
        """Return the distribution of output k alone, [B, 1]."""
        return self._at((slice(None), slice(k, k + 1)))

    def scaled(self, scale: Tensor, shift: Tensor) -> NormalInverseGamma:
        """Return the distribution of ``scale * y + shift``; both broadcast to [B, D]."""
        one = super().scaled(scale, shift)
        noise = self.log_noise.to(scale.dtype) + 2 * scale.abs().log()
        sure, shape = self.log_sure.to(scale.dtype), self._log_shape.to(scale.dtype)
        return NormalInverseGamma.of_noise(one.mean, noise, sure, shape, one.limit, self.match)

    def kl_from(self, teacher: Gaussian, weight: Tensor | None = None) -> Tensor:
        """Return the divergence of a teacher from this one, in nats, [B].

        With ``match`` ``disagreement`` it is the KL from an ensemble, as a mixture, to the t
        distribution, and a tenth of the square of the difference between the logarithms of the
        variances of the mean (our choice). With ``members`` it is the mean negative log-density of
        the members' (μ, log σ²): the KL from the ensemble as a set of points, but for an entropy
        that does not depend on the student, so it may be negative. Of any other teacher it is the
        KL alone.
        """
        if not isinstance(teacher, GaussianMixture) or teacher.disagreement is None:
            return super().kl_from(teacher, weight)
        if self.match == "members":
            each = (teacher.log_weights.exp() * self._member_nll(teacher)).sum(-1)
            return _summed(each, weight)
        ours, theirs = ((one + _LEAST).log() for one in (self.disagreement, teacher.disagreement))
        return super().kl_from(teacher, weight) + _WEIGHT * (ours - theirs).square().sum(-1)

    def _member_nll(self, teacher: GaussianMixture) -> Tensor:
        """Return the negative log-density of each member's mean and log variance, [B, D, M]."""
        noise, sure, shape, mean = (
            part.unsqueeze(-1)
            for part in (self._real(self.log_noise), self._real(self.log_sure),
                         self._real(self._log_shape), self._real(self.mean))
        )  # fmt: skip
        log_var = self._real(teacher._log_vars)
        alpha, log_beta = 1 + shape.exp(), noise + shape
        gap = (self._real(teacher._means) - mean).square() * (sure - log_var).exp()
        # Smoothed, as a member that agrees to the last bit would be sure without end.
        gap = gap + _LEAST * sure.exp()
        of_mean = 0.5 * (math.log(2 * math.pi) + log_var - sure + gap)
        of_var = torch.lgamma(alpha) - alpha * log_beta + alpha * log_var
        return of_mean + of_var + (log_beta - log_var).exp()

    @staticmethod
    def epistemic(members: Sequence[Gaussian]) -> Tensor:
        """Return the variance of the mean over the members and what each is unsure of, [B, D]."""
        own = [m.disagreement for m in members]
        known = torch.stack([one for one in own if one is not None]).mean(0)
        return Gaussian.epistemic(members) + known
