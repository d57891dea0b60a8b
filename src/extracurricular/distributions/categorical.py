"""A distribution over classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from extracurricular.distributions.family import Shaped

TINY = torch.finfo(torch.float32).tiny
# This replaces infinite logits: it is far beyond any real one, yet differences and products of it
# stay finite.
_MAX_LOGIT = 1e30


def _xlogx(p: Tensor, log_p: Tensor) -> Tensor:
    """Sum p log p over the last dimension. Log-probabilities are finite here, so 0 log 0 = 0."""
    return (p * log_p).sum(-1)


@dataclass(frozen=True)
class Categorical(Shaped):
    """A distribution over C classes for each example.

    Args:
        logits: Unnormalised log-probabilities, [B, C], any floating type. Infinite entries count
            as very large ones; NaN stays NaN.
    """

    logits: Tensor

    @classmethod
    def from_probs(cls, probs: Tensor) -> Categorical:
        """Make a distribution from probabilities [B, C]; zeros are kept as (nearly) zeros."""
        return cls(probs.float().clamp_min(TINY).log())

    @classmethod
    def from_output(cls, output: Tensor) -> Categorical:
        """Read a network's output [B, C] as logits."""
        return cls(output)

    @cached_property
    def log_probs(self) -> Tensor:
        """Normalised log-probabilities, float32, [B, C]."""
        logits = self.logits.float()
        # Subtracting the maximum first keeps differences exact where logits are huge.
        logits = logits.clamp(-_MAX_LOGIT, _MAX_LOGIT)
        return F.log_softmax(logits, dim=-1)

    @cached_property
    def probs(self) -> Tensor:
        """Probabilities, float32, [B, C]."""
        return self.log_probs.exp()

    @property
    def mean(self) -> Tensor:
        """The mean of the one-hot label, which is the probabilities, [B, C]."""
        return self.probs

    @property
    def parameters(self) -> Tensor:
        """The tensor that defines the distribution, as the network gave it, [B, C]."""
        return self.logits

    @property
    def temperature_power(self) -> int:
        """The power of T that keeps gradients comparable across temperatures.

        Gradients with respect to logits shrink as 1/T² (Hinton, Vinyals and Dean 2015, section 2).
        """
        return 2

    def __len__(self) -> int:
        return len(self.logits)

    def __getitem__(self, index: slice | Tensor) -> Categorical:
        return Categorical(self.logits[index])

    def top(self) -> tuple[Tensor, Tensor]:
        """Return the probability and the index of the most probable class, both [B]."""
        return self.probs.max(-1)

    def columns(self, first: int, last: int) -> Tensor:
        """Return the probabilities of classes [first, last), [B, last - first]."""
        return self.probs[:, first:last]

    def nll(self, y: Tensor) -> Tensor:
        """Return the cross-entropy of class indices [B] or soft labels [B, C], in nats, [B]."""
        if y.ndim == 1:
            return -self.log_probs.gather(-1, y.long().unsqueeze(-1)).squeeze(-1)
        return -(y.float() * self.log_probs).sum(-1)

    def entropy(self) -> Tensor:
        """Return the Shannon entropy in nats, between 0 and log C, [B]."""
        return -_xlogx(self.probs, self.log_probs)

    def kl(self, other: Categorical) -> Tensor:
        """Return KL(self ‖ other) in nats, [B]."""
        return _generalised_kl(self, other.probs, other.log_probs)

    def js(self, other: Categorical) -> Tensor:
        """Return the Jensen-Shannon divergence to ``other`` in nats, between 0 and log 2, [B]."""
        log_middle = torch.logaddexp(self.log_probs, other.log_probs) - math.log(2)
        middle = 0.5 * (self.probs + other.probs)
        mine = _generalised_kl(self, middle, log_middle)
        theirs = _generalised_kl(other, middle, log_middle)
        return 0.5 * (mine + theirs)

    def tempered(self, temperature: float | Tensor) -> Categorical:
        """Return the softmax of logits / T: flatter for T > 1, sharper for T < 1."""
        if not isinstance(temperature, Tensor) and temperature == 1.0:
            return self
        return Categorical(self.log_probs / temperature)

    @staticmethod
    def mixture(members: Sequence[Categorical]) -> Categorical:
        """Average the members' probabilities (not their logits)."""
        stacked = torch.stack([m.log_probs for m in members])
        return Categorical(stacked.logsumexp(0) - math.log(len(members)))

    @staticmethod
    def epistemic(members: Sequence[Categorical]) -> Tensor:
        """Return the mutual information of label and member, in nats, [B].

        It is the entropy of the mean less the mean of the entropies, between 0 and the log of the
        number of members: the total less the aleatoric part of the uncertainty (Depeweg et al.
        2018, section 3).
        """
        total = Categorical.mixture(members).entropy()
        aleatoric = torch.stack([m.entropy() for m in members]).mean(0)
        return (total - aleatoric).clamp_min(0)


def _generalised_kl(p: Categorical, q: Tensor, log_q: Tensor) -> Tensor:
    """Sum p log(p / q) - p + q over the last dimension.

    The last two terms add up to zero, but with them every summand is at least 0, so that the many
    small ones do not cancel where p and q are nearly equal.
    """
    difference = p.log_probs - log_q
    near = p.probs * (difference + torch.expm1(-difference.clamp(-0.5, 0.5)))
    far = p.probs * difference - p.probs + q
    return torch.where(difference.abs() < 0.5, near, far).sum(-1)
