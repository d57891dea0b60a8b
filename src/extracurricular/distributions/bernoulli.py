"""A distribution over several labels of 0 and 1, each on its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from extracurricular.distributions.categorical import TINY, Categorical
from extracurricular.distributions.family import Shaped


@dataclass(frozen=True)
class Bernoulli(Shaped):
    """Independent labels of 0 and 1 for each example: multi-label classification.

    A label is a distribution over two classes of its own, and those of one example are independent
    of each other. So every figure is the sum over labels of that of two classes.

    Args:
        logits: Log-odds log p / (1 - p) of each label, [B, L], any floating type. Infinite entries
            count as very large ones; NaN stays NaN.
    """

    logits: Tensor

    @classmethod
    def from_probs(cls, probs: Tensor) -> Bernoulli:
        """Make a distribution from probabilities [B, L]; 0 and 1 are kept (nearly) as they are."""
        p = probs.float()
        return cls(p.clamp_min(TINY).log() - (1 - p).clamp_min(TINY).log())

    @classmethod
    def from_output(cls, output: Tensor) -> Bernoulli:
        """Read a network's output [B, L] as logits."""
        return cls(output)

    @cached_property
    def pairs(self) -> Categorical:
        """Each label as a distribution over the classes 0 and 1: logits [B, L, 2]."""
        logits = self.logits.float()
        return Categorical(torch.stack([torch.zeros_like(logits), logits], dim=-1))

    @cached_property
    def probs(self) -> Tensor:
        """The probability that a label is 1, float32, [B, L]."""
        return self.pairs.probs[..., 1]

    @property
    def mean(self) -> Tensor:
        """The mean of the labels, which is the probabilities, [B, L]."""
        return self.probs

    @property
    def parameters(self) -> Tensor:
        """The tensor that defines the distribution, as the network gave it, [B, L]."""
        return self.logits

    @property
    def temperature_power(self) -> int:
        """The power of T that keeps gradients comparable across temperatures, as for classes."""
        return 2

    def __len__(self) -> int:
        return len(self.logits)

    def __getitem__(self, index: slice | Tensor) -> Bernoulli:
        return Bernoulli(self.logits[index])

    def nll(self, y: Tensor) -> Tensor:
        """Return the cross-entropy of labels [B, L] in [0, 1], in nats, summed over labels, [B]."""
        logs, true = self.pairs.log_probs, y.float()
        return -(true * logs[..., 1] + (1 - true) * logs[..., 0]).sum(-1)

    def entropy(self) -> Tensor:
        """Return the Shannon entropy in nats, between 0 and L log 2, [B]."""
        return self.pairs.entropy().sum(-1)

    def kl(self, other: Bernoulli) -> Tensor:
        """Return KL(self ‖ other) in nats, [B]."""
        return self.pairs.kl(other.pairs).sum(-1)

    def js(self, other: Bernoulli) -> Tensor:
        """Return the Jensen-Shannon divergences of the labels in nats, summed, [B].

        The sum is an upper bound of the divergence of the joint distributions, whose middle is not
        independent (see :meth:`mixture`); it lies between 0 and L log 2.
        """
        return self.pairs.js(other.pairs).sum(-1)

    def tempered(self, temperature: float | Tensor) -> Bernoulli:
        """Return the density to the power 1/T, normalised, which has logits / T."""
        if not isinstance(temperature, Tensor) and temperature == 1.0:
            return self
        return Bernoulli(self.logits.float() / temperature)

    @staticmethod
    def mixture(members: Sequence[Bernoulli]) -> Bernoulli:
        """Average the members' probabilities (not their logits).

        A mixture of independent labels is not independent: where the members disagree on two
        labels, these two are correlated. The average keeps the probability of each label and drops
        the correlations. It is the independent distribution nearest to the mixture in
        KL(mixture ‖ ·); that labels are matched one by one is our choice.
        """
        logs = torch.stack([m.pairs.log_probs for m in members]).logsumexp(0)
        return Bernoulli(logs[..., 1] - logs[..., 0])

    @staticmethod
    def epistemic(members: Sequence[Bernoulli]) -> Tensor:
        """Return the mutual information of each label and the member, in nats, summed, [B].

        It lies between 0 and L times the log of the number of members, or L log 2 if that is less.
        """
        return Categorical.epistemic([m.pairs for m in members]).sum(-1)
