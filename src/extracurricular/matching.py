"""The loss: the divergence D(q_T ‖ q_S) of a student from its teacher, as one number.

Divergences are functions of two distributions that return nats per example, [B], summed over
outputs. :class:`Matching` tempers both sides, adds the optional label term, applies the weights of
examples and takes the mean over examples. Nothing else in the package reduces a loss.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from extracurricular.distributions import Distribution
from extracurricular.errors import OldWordWarning, known_names
from extracurricular.inputs import Capturable, obstacle
from extracurricular.registry import Registry

DIVERGENCES: Registry[Tensor] = Registry("divergence")


@DIVERGENCES.register("forward_kl")
def forward_kl(teacher: Distribution, student: Distribution) -> Tensor:
    """Return KL(teacher ‖ student) in nats, [B]; the student must cover all the teacher believes.

    For labels, which are point masses, this is the negative log-likelihood.
    """
    return teacher.kl(_same(teacher, student))  # type: ignore[arg-type]


@DIVERGENCES.register("reverse_kl")
def reverse_kl(teacher: Distribution, student: Distribution) -> Tensor:
    """Return KL(student ‖ teacher) in nats, [B]; the student must believe nothing else."""
    return _same(teacher, student).kl(teacher)  # type: ignore[arg-type]


@DIVERGENCES.register("js")
def js(teacher: Distribution, student: Distribution) -> Tensor:
    """Return the Jensen-Shannon divergence in nats, [B]: symmetric, at most log 2 for classes."""
    return teacher.js(_same(teacher, student))  # type: ignore[arg-type]


def _same(teacher: Distribution, student: Distribution) -> Distribution:
    if type(teacher) is not type(student):
        raise ValueError(
            f"the teacher gives a {type(teacher).__name__}, "
            f"the student a {type(student).__name__}; they must give the same kind of distribution"
        )
    return student


def weighted_mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """Return the mean over examples [B] of ``weight * values``; weights have mean 1."""
    return (values if weight is None else values * weight).mean()


@dataclass(frozen=True)
class Matching(Capturable):
    """The loss of one batch.

    ``(1 - label_weight) · T^k · D(teacher at T, student at T) + label_weight · NLL of the labels``,
    averaged over examples. T^k (T² for classes, T for Gaussians; see ``temperature_power``) keeps
    the size of the gradients across temperatures.

    Args:
        divergence: Name of the divergence: ``forward_kl``, ``reverse_kl`` or ``js``.
        temperature: T, greater than 0; both sides are tempered.
        label_weight: Weight of the label term, in [0, 1].
    """

    divergence: str = "forward_kl"
    temperature: float = 1.0
    label_weight: float = 0.0

    def __post_init__(self) -> None:
        """Check the settings."""
        if ":" not in self.divergence and self.divergence not in DIVERGENCES:
            known = known_names(self.divergence, DIVERGENCES.names())
            raise ValueError(f"unknown divergence {self.divergence!r}; {known}")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(
                f"temperature is {self.temperature}; it must be finite and greater than 0"
            )
        if not 0 <= self.label_weight <= 1:
            raise ValueError(f"label_weight is {self.label_weight}; it must be between 0 and 1")

    @property
    def obstacle(self) -> str | None:
        """The reason why a CUDA graph cannot hold the loss, as a clause; None if it can."""
        if ":" not in self.divergence:
            return None
        return obstacle(DIVERGENCES.find(self.divergence)[0])

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
            y: Labels for the label term (see ``nll`` of the distributions).
            weight: Weight of each example, [B].

        Raises:
            ValueError: ``label_weight`` is positive but the examples have no labels.
        """
        divergence, _ = DIVERGENCES.find(self.divergence)
        t = self.temperature
        loss: Tensor = divergence(teacher.tempered(t), student.tempered(t))
        loss = loss * (t**student.temperature_power)
        if self.label_weight > 0:
            if y is None:
                raise ValueError(
                    f"label_weight is {self.label_weight}, but the sampler gives examples without "
                    "labels; set it to 0 or draw labelled examples"
                )
            loss = torch.lerp(loss, student.nll(y), self.label_weight)
        return weighted_mean(loss, weight)


def _accept_hard(init: Callable[..., None]) -> Callable[..., None]:
    """Return a constructor that also takes ``hard``, the old name of ``label_weight``."""

    @wraps(init)
    def accept(self: Matching, *arguments: Any, **settings: Any) -> None:
        if "hard" in settings and "label_weight" not in settings:
            warnings.warn(
                "hard of Matching is called label_weight now; the next release takes only that",
                OldWordWarning,
                stacklevel=2,
            )
            settings["label_weight"] = settings.pop("hard")
        init(self, *arguments, **settings)

    return accept


# The signature stays that of the dataclass, from which the settings of recipes are read.
Matching.__init__ = _accept_hard(Matching.__init__)  # type: ignore[method-assign]


def describe(matching: Matching) -> dict[str, Any]:
    """Return the settings as plain values."""
    return {
        "divergence": matching.divergence,
        "temperature": matching.temperature,
        "label_weight": matching.label_weight,
    }
