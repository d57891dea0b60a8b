"""A mixture of Gaussians for each output: several peaks, or tails of another shape."""

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
from extracurricular.distributions.richer import Richer, limit_of, of_layout
from extracurricular.distributions.special import (
    LOG_2PI,
    hermite,
    normal_cdf,
    normal_density,
    spaced,
)

# Nodes of the expectation under a component.
_NODES = 16


@dataclass(frozen=True)
class GaussianMixtures(Family):
    """Weights, means and variances of several Gaussians for each target.

    Args:
        components: Number of Gaussians, K.
    """

    kind: ClassVar[Kind] = "regression"
    name: ClassVar[str] = "mixture"
    noun: ClassVar[str] = "mixtures of Gaussians"
    more: ClassVar[dict[str, tuple[str, str]]] = {
        "weights": ("D, components", "weights of the Gaussians"),
        "means": ("D, components", "their means, in the target's own units"),
        "variances": ("D, components", "their variances, in these units, squared"),
    }
    components: int = 3

    def __post_init__(self) -> None:
        """Check the settings."""
        if not 2 <= self.components <= 100:
            raise ValueError(f"components is {self.components}; it must be from 2 to 100")

    def outputs(self, size: int) -> int:
        """Return 3 K D."""
        return 3 * self.components * size

    def needs(self, size: int) -> str:
        """Return what the raw outputs are, as the end of a sentence."""
        count = self.components * size
        return f"{count} logits of weights, {count} means and {count} log variances"

    def read(self, output: Tensor, size: int) -> GaussianMixture:
        """Read a network's output, whose components begin at means from -1 to 1."""
        logits, means, log_vars = self._parts(output.float())
        # Components that begin alike would have the same gradients for long.
        means = means + spaced(-1.0, 1.0, self.components, means.device, means.dtype)
        return GaussianMixture.of(logits, means, bent(log_vars))

    def stored(self, parameters: Tensor) -> GaussianMixture:
        """Read logits, means and log variances, each [D, K] an example, [B, 3 K D]."""
        return GaussianMixture.of(*self._parts(parameters))

    def _parts(self, flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        width = flat.shape[-1] // 3
        parts = flat.reshape(flat.shape[0], 3, width // self.components, self.components)
        logits, means, log_vars = parts.unbind(1)
        return logits, means, log_vars

    def named(self, said: GaussianMixture) -> dict[str, Tensor]:
        """Return weights, means and variances of the components, [N, D, K]."""
        return {
            "weights": said.log_weights.exp(),
            "means": said._means,
            "variances": said._log_vars.exp(),
        }

    def from_named(self, outputs: dict[str, Tensor], limit: float) -> GaussianMixture:
        """Return the distributions with these components."""
        logits = outputs["weights"].log()
        return GaussianMixture.of(logits, outputs["means"], outputs["variances"].log(), limit)


@dataclass(frozen=True)
class GaussianMixture(Richer):
    """A mixture of K Gaussians for each example and output; make it by :meth:`of`.

    Args:
        mean, log_var: Those of the mixture, [B, D].
        logits: Unnormalised log weights of the components, [B, D, K].
        means, log_vars: Means and log variances of the components, [B, D, K].
        joint: Whether component k of all outputs is one distribution over all of them, such as the
            answer of a member of an ensemble: outputs whose components move together are then
            correlated (:func:`~.full_covariance.covariance_of`).
    """

    logits: Tensor
    means: Tensor
    log_vars: Tensor
    joint: bool = False

    @classmethod
    def of(
        cls,
        logits: Tensor,
        means: Tensor,
        log_vars: Tensor,
        limit: float = MAX_LOG_VAR,
        joint: bool = False,
    ) -> GaussianMixture:
        """Return the mixtures with some components, [B, D, K]."""
        wide = torch.promote_types(means.dtype, torch.float32)
        weights = logits.to(wide).softmax(-1)
        places, variances = means.to(wide), log_vars.to(wide).clamp(-limit, limit).exp()
        mean = (weights * places).sum(-1)
        spread = (places - mean.unsqueeze(-1)).square()
        var = (weights * (variances + spread)).sum(-1)
        return cls(mean, var.log(), logits, means, log_vars, joint, limit=limit)

    @classmethod
    def of_members(cls, members: Sequence[Gaussian]) -> GaussianMixture:
        """Return an ensemble as it is: a component of equal weight for each member."""
        means = torch.stack([m._real(m.mean) for m in members], dim=-1)
        log_vars = torch.stack([m._log_var for m in members], dim=-1)
        limit = max(m.limit for m in members)
        return cls.of(torch.zeros_like(means), means, log_vars, limit, joint=True)

    @property
    def family(self) -> Family:
        """The family."""
        family = GaussianMixtures if not self.joint else JointMixtures
        return family(self.means.shape[-1])

    @property
    def parameters(self) -> Tensor:
        """Logits, means and log variances of the components, [B, 3 K D]."""
        return of_layout([self.logits, self.means, self.log_vars])

    @cached_property
    def log_weights(self) -> Tensor:
        """Log weights of the components, [B, D, K]."""
        return self._real(self.logits).log_softmax(-1)

    @cached_property
    def _means(self) -> Tensor:
        return self._real(self.means)

    @cached_property
    def _log_vars(self) -> Tensor:
        return self._real(self.log_vars).clamp(-self.limit, self.limit)

    @property
    def disagreement(self) -> Tensor | None:
        """The variance of the members' means, [B, D]; None where components are no members."""
        if not self.joint:
            return None
        gaps = (self._means - self._real(self.mean).unsqueeze(-1)).square()
        return (self.log_weights.exp() * gaps).sum(-1)

    def __getitem__(self, index: slice | Tensor) -> GaussianMixture:
        parts = (self.logits[index], self.means[index], self.log_vars[index])
        return GaussianMixture.of(*parts, limit=self.limit, joint=self.joint)

    def output(self, k: int) -> GaussianMixture:
        """Return the distribution of output k alone, [B, 1]."""
        one = slice(k, k + 1)
        parts = (self.logits[:, one], self.means[:, one], self.log_vars[:, one])
        return GaussianMixture.of(*parts, limit=self.limit, joint=self.joint)

    def log_density(self, values: Tensor) -> Tensor:
        """Return the log-density of each output at some values [B, D, n]."""
        log_vars = self._log_vars.unsqueeze(-2)
        error = (values.unsqueeze(-1) - self._means.unsqueeze(-2)).square()
        each = -0.5 * (LOG_2PI + log_vars + error * (-log_vars).exp())
        return (self.log_weights.unsqueeze(-2) + each).logsumexp(-1)

    def nodes(self) -> tuple[Tensor, Tensor]:
        """Return the nodes of Gauss and Hermite of all components."""
        z, weights = hermite(_NODES, self._means.device, self._means.dtype)
        std = (0.5 * self._log_vars).exp().unsqueeze(-1)
        values = (self._means.unsqueeze(-1) + std * z).flatten(-2)
        return values, (self.log_weights.exp().unsqueeze(-1) * weights).flatten(-2)

    def scaled(self, scale: Tensor, shift: Tensor) -> GaussianMixture:
        """Return the distribution of ``scale * y + shift``; both broadcast to [B, D]."""
        factor, offset = scale.unsqueeze(-1), shift.unsqueeze(-1)
        means = self.means.to(scale.dtype) * factor + offset
        log_vars = self.log_vars.to(scale.dtype) + 2 * factor.abs().log()
        logits = self.logits.to(scale.dtype)
        return GaussianMixture.of(logits, means, log_vars, limit_of(scale), self.joint)

    def cdf(self, values: Tensor) -> Tensor:
        """Return the distribution function of each output at some values [B, D, n]."""
        gap = self._real(values).unsqueeze(-1) - self._means.unsqueeze(-2)
        z = gap * (-0.5 * self._log_vars).exp().unsqueeze(-2)
        return (self.log_weights.exp().unsqueeze(-2) * normal_cdf(z)).sum(-1)

    def pinball(self, at: Tensor, levels: Tensor) -> Tensor:
        """Return the expected pinball loss of values [B, D, n] at levels [n], in closed form."""
        std = (0.5 * self._log_vars).exp().unsqueeze(-2)
        gap = at.unsqueeze(-1) - self._means.unsqueeze(-2)
        z = gap / std
        below = gap * normal_cdf(z) + std * normal_density(z)
        below = (self.log_weights.exp().unsqueeze(-2) * below).sum(-1)
        return below - levels * (at - self._real(self.mean).unsqueeze(-1))

    def crps(self, y: Tensor) -> Tensor:
        """Return the continuous ranked probability score, in units of the target, [B, D].

        (Grimit, Gneiting, Berrocal and Johnson 2006, "The continuous ranked probability score for
        circular variables and its application to mesoscale forecast ensemble verification",
        equations 5 and 6.)
        """
        weights, variances = self.log_weights.exp(), self._log_vars.exp()
        from_label = (
            weights * _distance(self._real(y).unsqueeze(-1) - self._means, variances)
        ).sum(-1)
        gaps = self._means.unsqueeze(-1) - self._means.unsqueeze(-2)
        sums = variances.unsqueeze(-1) + variances.unsqueeze(-2)
        both = weights.unsqueeze(-1) * weights.unsqueeze(-2)
        return from_label - 0.5 * (both * _distance(gaps, sums)).sum((-1, -2))

    @staticmethod
    def mixture(members: Sequence[Gaussian]) -> GaussianMixture:
        """Return the mixture of mixtures, with all their components."""
        own = [
            m if isinstance(m, GaussianMixture) else GaussianMixture.of_members([m])
            for m in members
        ]
        return GaussianMixture.of(
            torch.cat([m.log_weights for m in own], dim=-1) - math.log(len(own)),
            torch.cat([m._means for m in own], dim=-1),
            torch.cat([m._log_vars for m in own], dim=-1),
            max(m.limit for m in own),
        )


@dataclass(frozen=True)
class JointMixtures(GaussianMixtures):
    """Mixtures whose components are the members of an ensemble; no student gives them."""

    def __post_init__(self) -> None:
        """Take any number of members."""

    def stored(self, parameters: Tensor) -> GaussianMixture:
        """Read logits, means and log variances, each [D, K] an example, [B, 3 K D]."""
        return GaussianMixture.of(*self._parts(parameters), joint=True)


def _distance(gap: Tensor, variance: Tensor) -> Tensor:
    """Return E|X| of normal X with a mean and a variance."""
    std = variance.sqrt()
    z = gap / std
    return 2 * std * normal_density(z) + gap * (2 * normal_cdf(z) - 1)
