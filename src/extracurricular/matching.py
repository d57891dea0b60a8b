"""How far the student is from the teacher: D(q_T ‖ q_S), and its reduction to one number.

Divergences are functions of two distributions that give nats per example, [B], summed over outputs.
:class:`Matching` tempers both sides, adds the optional hard-label term, applies the example weights
and takes the mean over examples. That is the only reduction there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from extracurricular.distributions import Distribution
from extracurricular.errors import known_names
from extracurricular.registry import Registry

DIVERGENCES: Registry[Tensor] = Registry("divergence")


@DIVERGENCES.register("forward_kl")
def forward_kl(teacher: Distribution, student: Distribution) -> Tensor:
    """KL(teacher ‖ student) in nats, [B]: the student must cover whatever the teacher believes.

    For labels, which are point masses, this is the negative log-likelihood.
    """
    return teacher.kl(_same(teacher, student))  # type: ignore[arg-type]


@DIVERGENCES.register("reverse_kl")
def reverse_kl(teacher: Distribution, student: Distribution) -> Tensor:
    """KL(student ‖ teacher) in nats, [B]: it must not believe what the teacher does not."""
    return _same(teacher, student).kl(teacher)  # type: ignore[arg-type]


@DIVERGENCES.register("js")
def js(teacher: Distribution, student: Distribution) -> Tensor:
    """Jensen-Shannon divergence in nats, [B]: symmetric, and for classes at most log 2."""
    return teacher.js(_same(teacher, student))  # type: ignore[arg-type]


def _same(teacher: Distribution, student: Distribution) -> Distribution:
    if type(teacher) is not type(student):
        raise ValueError(
            f"the teacher gives a {type(teacher).__name__}, "
            f"the student a {type(student).__name__}; they must give the same kind of distribution"
        )
    return student


def weighted_mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """Mean over examples [B] of ``weight * values``; weights have mean 1 by convention."""
    return (values if weight is None else values * weight).mean()


@dataclass(frozen=True)
class Matching:
    """The loss of one batch.

    ``(1 - hard) · T^k · D(teacher at T, student at T) + hard · NLL of the labels``, averaged over
    examples, where T^k (T² for classes, T for Gaussians; see ``temperature_power``) keeps the size
    of the gradients across temperatures.

    Args:
        divergence: Name of the divergence: ``forward_kl``, ``reverse_kl`` or ``js``.
        temperature: T, greater than 0; both sides are tempered.
        hard: Share of the hard-label term, in [0, 1].
    """

    divergence: str = "forward_kl"
    temperature: float = 1.0
    hard: float = 0.0

    def __post_init__(self) -> None:
        """Check the settings."""
        if ":" not in self.divergence and self.divergence not in DIVERGENCES:
            known = known_names(self.divergence, DIVERGENCES.names())
            raise ValueError(f"unknown divergence {self.divergence!r}; {known}")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(
                f"temperature is {self.temperature}; it must be finite and greater than 0"
            )
        if not 0 <= self.hard <= 1:
            raise ValueError(f"hard is {self.hard}; it must be between 0 and 1")

    def __call__(
        self,
        student: Distribution,
        teacher: Distribution,
        y: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Return the loss, a scalar in nats.

        Args:
            student, teacher: Distributions for the same B examples.
            y: Labels for the hard-label term (see ``nll`` of the distributions).
            weight: Weight of each example, [B].

        Raises:
            ValueError: ``hard`` is positive but the examples have no labels.
        """
        divergence, _ = DIVERGENCES.find(self.divergence)
        t = self.temperature
        loss: Tensor = divergence(teacher.tempered(t), student.tempered(t))
        loss = loss * (t**student.temperature_power)
        if self.hard > 0:
            if y is None:
                raise ValueError(
                    f"hard is {self.hard}, but the sampler gives examples without labels; "
                    "set it to 0 or draw labelled examples"
                )
            loss = torch.lerp(loss, student.nll(y), self.hard)
        return weighted_mean(loss, weight)


def describe(matching: Matching) -> dict[str, Any]:
    """Return the settings as plain values."""
    return {
        "divergence": matching.divergence,
        "temperature": matching.temperature,
        "hard": matching.hard,
    }
