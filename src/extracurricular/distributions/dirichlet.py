"""A Dirichlet: a distribution over the probabilities of classes, as an ensemble gives them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from extracurricular.distributions.categorical import Categorical
from extracurricular.distributions.family import Family, Kind, Match, Members
from extracurricular.distributions.gaussian import bent
from extracurricular.distributions.special import digamma_less_log

# Concentrations beyond exp(±12) are bent: their disagreement is below 1e-6 nats.
_BEND = 12.0
# The part of each member's answer that is spread over all classes before its density is taken.
SMOOTHING = 1e-4
# The weight of the disagreement beside the mean, and the disagreement in nats below which all is
# alike (our choice).
_WEIGHT, _ALIKE = 0.1, 1e-5


@dataclass(frozen=True)
class Dirichlets(Family):
    """A concentration for each class.

    Args:
        match: What is matched of an ensemble (:meth:`Dirichlet.kl_from`).
    """

    kind: ClassVar[Kind] = "classification"
    name: ClassVar[str] = "dirichlet"
    noun: ClassVar[str] = "Dirichlet distributions"
    members: ClassVar[Members] = "needed"
    more: ClassVar[dict[str, tuple[str, str]]] = {
        "precision": ("1", "sum of the concentrations of the Dirichlet"),
        "epistemic": ("1", "the ensemble's disagreement on the class, in nats"),
    }

    match: Match = "disagreement"

    def outputs(self, size: int) -> int:
        """Return C: the network is no larger than one of a categorical."""
        return size

    def needs(self, size: int) -> str:
        """Return what the raw outputs are, as the end of a sentence."""
        return f"{size} log concentrations"

    def read(self, output: Tensor, size: int) -> Dirichlet:
        """Read a network's output as log concentrations."""
        return Dirichlet(bent(output.float(), _BEND), self.match)

    def stored(self, parameters: Tensor) -> Dirichlet:
        """Read log concentrations, [B, C]."""
        return Dirichlet(parameters, self.match)

    def named(self, said: Dirichlet) -> dict[str, Tensor]:
        """Return the sum of the concentrations [N, 1], and the mutual information [N, 1]."""
        apart = said.disagreement.unsqueeze(-1)
        return {"precision": said.log_precision.exp().unsqueeze(-1), "epistemic": apart}

    def from_named(self, outputs: dict[str, Tensor], limit: float = 0.0) -> Dirichlet:
        """Return the distributions with these probabilities and sums."""
        logs = Categorical.from_probs(outputs["probs"]).logits
        return Dirichlet(logs + outputs["precision"].log(), self.match)


@dataclass(frozen=True)
class Dirichlet(Categorical):
    """A Dirichlet over the probabilities of C classes for each example.

    It is the categorical of its mean probabilities, whose logits are the log concentrations, to
    whoever asks for those. (Malinin, Mlodozeniec and Gales 2020, "Ensemble distribution
    distillation".)

    Args:
        logits: Log concentrations log α, [B, C].
        match: What is matched of an ensemble (:meth:`kl_from`).
    """

    richer = True
    match: Match = "disagreement"

    @property
    def family(self) -> Family:
        """The family."""
        return Dirichlets(self.match)

    @cached_property
    def log_precision(self) -> Tensor:
        """The logarithm of the sum of the concentrations, float32, [B]."""
        return self.logits.float().logsumexp(-1)

    @cached_property
    def disagreement(self) -> Tensor:
        """The mutual information of class and probabilities, in nats, at least 0, [B].

        It is the entropy of the mean less the mean entropy (ibid., section 3), written as
        Σ p g(α) - g(Σ α) with g(x) = ψ(x + 1) - log x, in which no digits cancel.
        """
        alpha = self.logits.float().exp().clamp_min(1e-30)
        parts = (self.probs * digamma_less_log(alpha)).sum(-1)
        return (parts - digamma_less_log(self.log_precision.exp())).clamp_min(0)

    def __getitem__(self, index: slice | Tensor) -> Dirichlet:
        return Dirichlet(self.logits[index], self.match)

    def like(self, parameters: Tensor) -> Dirichlet:
        """Return distributions of this family with other log concentrations [B, C]."""
        return Dirichlet(parameters, self.match)

    def tempered(self, temperature: float | Tensor) -> Dirichlet:
        """Return the Dirichlet with log concentrations divided by T; its mean is tempered too."""
        if not isinstance(temperature, Tensor) and temperature == 1.0:
            return self
        return Dirichlet(self.logits.float() / temperature, self.match)

    def kl_from(self, teacher: Any, weight: Tensor | None = None) -> Tensor:
        """Return the divergence of an ensemble from this one, [B].

        With ``match`` ``disagreement`` it is the KL between the means in nats, and a tenth of the
        square of the difference between the logarithms of the mutual informations: at least 0, and
        0 only where both are equal (our choice; docs/method.md has its figures beside the others).

        With ``members`` it is the mean negative log-density of the members' answers, as in ensemble
        distribution distillation: the KL from the ensemble as a set of points, but for an entropy
        that does not depend on the student, so it may be negative. Each answer is mixed with 0.0001
        of the uniform one, as a density has no bound at the corners. It is summed in float64.

        Args:
            teacher: An :class:`Ensembled`.
            weight: Not for classes.
        """
        assert isinstance(teacher, Ensembled)
        if self.match == "disagreement":
            parts = (self.disagreement, teacher.disagreement)
            ours, theirs = ((one + _ALIKE).log() for one in parts)
            return Categorical.kl(teacher, self) + _WEIGHT * (ours - theirs).square()
        wide = torch.float32 if self.logits.device.type == "mps" else torch.float64
        alpha = self.logits.to(wide).exp()
        members = teacher.smoothed(SMOOTHING).to(wide).mean(1)
        norm = torch.lgamma(alpha).sum(-1) - torch.lgamma(alpha.sum(-1))
        return (norm - ((alpha - 1) * members).sum(-1)).float()

    @staticmethod
    def epistemic(members: Sequence[Categorical]) -> Tensor:
        """Return the mutual information of the class and all that the members are unsure of, [B].

        It is that between them, and the mean of that inside each.
        """
        inside = [m.disagreement for m in members]
        known = torch.stack([one for one in inside if one is not None]).mean(0)
        return Categorical.epistemic(members) + known


@dataclass(frozen=True)
class Ensembles(Family):
    """The answers of each of several members; no student gives them.

    Args:
        count: Number of members, M.
    """

    kind: ClassVar[Kind] = "classification"
    name: ClassVar[str] = "ensemble"
    noun: ClassVar[str] = "answers of an ensemble"
    count: int = 1

    def outputs(self, size: int) -> int:
        """Return M C."""
        return self.count * size

    def stored(self, parameters: Tensor) -> Ensembled:
        """Read log-probabilities, [M, C] an example, [B, M C]."""
        return Ensembled.of(_members_of(parameters, self.count))


@dataclass(frozen=True)
class Ensembled(Categorical):
    """An ensemble's mean answer that still knows the answers of its members.

    Args:
        logits: Log-probabilities of the mean, [B, C].
        apart: Log-probabilities of each member, [B, M, C].
    """

    apart: Tensor

    @classmethod
    def of(cls, apart: Tensor) -> Ensembled:
        """Return the ensemble whose members give some logits, [B, M, C]."""
        logs = apart.float().log_softmax(-1)
        return cls(logs.logsumexp(1) - math.log(logs.shape[1]), logs)

    @property
    def family(self) -> Family:
        """The family."""
        return Ensembles(self.apart.shape[1])

    @property
    def parameters(self) -> Tensor:
        """Log-probabilities of each member, [B, M C]."""
        return self.apart.flatten(1)

    @property
    def disagreement(self) -> Tensor:
        """The mutual information of class and member, in nats, [B]."""
        return Categorical.epistemic([Categorical(one) for one in self.apart.unbind(1)])

    def __getitem__(self, index: slice | Tensor) -> Ensembled:
        return Ensembled(self.logits[index], self.apart[index])

    def like(self, parameters: Tensor) -> Ensembled:
        """Return as many members with other log-probabilities [B, M C]."""
        return Ensembled.of(_members_of(parameters, self.apart.shape[1]))

    def smoothed(self, part: float) -> Tensor:
        """Return the members' log-probabilities, a part of which is uniform, [B, M, C]."""
        uniform = math.log(part / self.apart.shape[-1])
        return torch.logaddexp(self.apart + math.log1p(-part), torch.full_like(self.apart, uniform))

    def tempered(self, temperature: float | Tensor) -> Ensembled:
        """Return the ensemble of the tempered members."""
        if not isinstance(temperature, Tensor) and temperature == 1.0:
            return self
        return Ensembled.of(self.apart / temperature)

    def kl(self, other: Categorical) -> Tensor:
        """Return KL(self ‖ other) in nats, [B]; see :meth:`Dirichlet.kl_from` of a Dirichlet."""
        if isinstance(other, Dirichlet):
            return other.kl_from(self)
        return Categorical.kl(self, other)


def _members_of(flat: Tensor, count: int) -> Tensor:
    """Return the numbers of each member, [B, M, C], of [B, M C]."""
    return flat.reshape(len(flat), count, flat.shape[-1] // count)
