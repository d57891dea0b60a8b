"""The distribution of a real target of which a transform is normal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from extracurricular.data.transform import FORMULAS, INVERSES, Rule, Transform, load_transform
from extracurricular.distributions import OWN_LOG_VAR, Distribution, Gaussian

# A log variance in the target's units, of which float32 still has the exponential.
_MOST_LOG = 85.0


@dataclass(frozen=True)
class Transformed(Gaussian):
    """A distribution whose transform is a diagonal Gaussian; make it by :meth:`of`.

    ``mean`` and ``log_var`` are those of the target in its own units, in closed form, so whoever
    asks for a mean or a deviation gets the exact one. Densities, intervals, entropy and scores are
    those of the transformed Gaussian, by change of variables. Divergences do not depend on the
    units that both sides are written in, so they are taken between the transforms, where they have
    their closed forms (for ``wasserstein`` and ``energy``, which do depend, this is our choice).

    Args:
        mean, log_var: Of the target, in its own units, [B, D].
        inner: The Gaussian of the transform, not standardised.
        transform: The transform.
    """

    inner: Gaussian
    transform: Transform

    @classmethod
    def of(cls, inner: Gaussian, transform: Transform) -> Transformed:
        """Return the distribution of y, where ``inner`` is that of its transform."""
        # In double precision, since an exponential multiplies the rounding of what it is given.
        wide = inner.limit > OWN_LOG_VAR
        moments = partial(Rule.moments, wide=wide)
        mean, log_var = transform.pairs(moments, inner.mean.double(), inner.var.double())
        if wide:
            return cls(mean, log_var, inner, transform, limit=inner.limit)
        return cls(mean.float(), log_var.float(), inner, transform)

    def like(self, parameters: Tensor) -> Transformed:
        """Return a distribution of the same transform with other parameters [B, 2 D]."""
        return self.of(self.inner.like(parameters), self.transform)

    @cached_property
    def _log_var(self) -> Tensor:
        # Logarithmic targets may have any size, so the bounds are those of float32 alone.
        most = self.limit if self.limit > OWN_LOG_VAR else _MOST_LOG
        return self._real(self.log_var).clamp(-most, most)

    @property
    def parameters(self) -> Tensor:
        """Means, then log variances, of the transform, [B, 2 D]."""
        return self.inner.parameters

    @property
    def median(self) -> Tensor:
        """The median in the target's own units, [B, D]."""
        return self.transform.undo(self.inner._real(self.inner.mean))

    def __getitem__(self, index: slice | Tensor) -> Transformed:
        parts = self.mean[index], self.log_var[index], self.inner[index]
        return Transformed(*parts, self.transform, limit=self.limit)

    def nll(self, y: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the negative log-density of real vectors [B, D], in nats, [B].

        It is that of the transform less log |g'(y)|; infinite where y cannot be.
        """
        raw = y.double()
        slope = self.transform.each(Rule.log_slope, raw).float()
        slope = slope if weight is None else slope * weight
        return self.inner.nll(self.transform.apply(raw), weight) - slope.sum(-1)

    def entropy(self) -> Tensor:
        """Return the differential entropy, in nats, [B]; see :meth:`.Rule.log_stretch`."""
        stretch = self.transform.each(
            Rule.log_stretch, self.inner.mean.double(), self.inner.std.double()
        )
        stretch = stretch.masked_fill(torch.isneginf(self.inner.log_var), 0.0)
        return self.inner.entropy() + stretch.float().sum(-1)

    def crps(self, y: Tensor) -> Tensor:
        """Return the continuous ranked probability score, in units of the target, [B, D]."""
        mean, deviation, raw = self.inner.mean.double(), self.inner.std.double(), y.double()

        def score(rule: Rule, mean: Tensor, deviation: Tensor, y: Tensor) -> Tensor:
            if rule.name == "none":
                return _normal_crps(mean, deviation, y)
            return rule.crps(mean, deviation, y)

        return self.transform.each(score, mean, deviation, raw).float()

    def interval(self, mass: float) -> tuple[Tensor, Tensor]:
        """Return bounds [B, D] of the central interval with ``mass`` (0 to 1) of each output."""
        low, high = self.inner.interval(mass)
        return self.transform.undo(low), self.transform.undo(high)

    def within(self, deviations: Tensor) -> tuple[Tensor, Tensor]:
        """Return the bounds [B, D] of so many ``deviations`` [D] of the transform around its mean.

        They are in the target's own units.
        """
        low, high = self.inner.within(deviations)
        return self.transform.undo(low), self.transform.undo(high)

    def deviates(self, y: Tensor) -> Tensor:
        """Return by how many deviations the transforms of labels [B, D] are off their mean."""
        return self.inner.deviates(self.transform.apply(y.double()))

    def kl(self, other: Gaussian, weight: Tensor | None = None) -> Tensor:
        """Return KL(self ‖ other), in nats, [B]."""
        return self.inner.kl(inner_of(other, self.transform), weight)

    def js(self, other: Gaussian) -> Tensor:
        """Return the Jensen-Shannon divergence to ``other``, in nats, [B]."""
        return self.inner.js(inner_of(other, self.transform))

    def wasserstein(self, other: Gaussian) -> Tensor:
        """Return the squared 2-Wasserstein distance of the transforms, [B]."""
        return self.inner.wasserstein(inner_of(other, self.transform))

    def energy(self, other: Gaussian) -> Tensor:
        """Return the energy distance of the transforms, [B]."""
        return self.inner.energy(inner_of(other, self.transform))

    def tempered(self, temperature: float | Tensor) -> Transformed:
        """Return the distribution with the variance of its transform multiplied by T."""
        return self.of(self.inner.tempered(temperature), self.transform)

    @staticmethod
    def mixture(members: Sequence[Gaussian]) -> Transformed:
        """Match the moments of the members' transforms."""
        first = members[0]
        assert isinstance(first, Transformed)
        inner = Gaussian.mixture([inner_of(one, first.transform) for one in members])
        return Transformed.of(inner, first.transform)


def inner_of(given: Gaussian, transform: Transform) -> Gaussian:
    """Return the Gaussian of the transform of a distribution in the target's own units.

    A distribution of another kind has its mean and variance matched (:meth:`.Rule.matched`), which
    is exact in both; the shape is then that of the transform. A mean that ``log`` cannot have
    becomes the least that it may (:class:`.Rule`).
    """
    if isinstance(given, Transformed) and given.transform == transform:
        return given.inner
    log_var = given.log_var.double()
    mean, var = transform.pairs(Rule.matched, given.mean.double(), log_var.exp())
    return Gaussian(mean, var.log())


def _normal_crps(mean: Tensor, deviation: Tensor, y: Tensor) -> Tensor:
    """Return the score of a normal target (Gneiting and Raftery 2007, section 4.2)."""
    safe = deviation.clamp_min(torch.finfo(deviation.dtype).tiny)
    z = (y - mean) / safe
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    return safe * (z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))


# What a file keeps of a transform


def metadata_of(transform: Transform | None) -> dict[str, Any]:
    """Return the entry of an exported file's metadata; none where nothing is transformed.

    It has the rule of each target, and as texts what is transformed, how it is undone, and how the
    transform's own mean and variance follow from the outputs ``mean`` and ``variance``.
    """
    if transform is None:
        return {}
    names = [rule.name for rule in transform.rules]
    return {
        "target_transform": [
            {**rule.dump(), "formula": FORMULAS[name], "inverse": INVERSES[name]}
            for name, rule in zip(names, transform.rules, strict=True)
        ]
    }


def transform_of(metadata: Mapping[str, Any]) -> Transform | None:
    """Return the transform that :func:`metadata_of` wrote; None for files without one.

    Raises:
        ValueError: It is damaged.
    """
    found = metadata.get("target_transform")
    return None if found is None else load_transform(found)


def own_kind(found: Distribution, transform: Transform | None) -> Distribution:
    """Return the distribution of a target whose mean and variance are known."""
    if transform is None or not isinstance(found, Gaussian):
        return found
    return Transformed.of(inner_of(found, transform), transform)
