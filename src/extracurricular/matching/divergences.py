"""Divergences D(q_T ‖ q_S) of a student from its teacher.

Each is a function of two distributions that returns one number per example, [B], summed over
outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from extracurricular.distributions import (
    FAMILIES,
    Bernoulli,
    Categorical,
    Distribution,
    Gaussian,
    Kind,
    kind_of_distribution,
)
from extracurricular.registry import Registry

DIVERGENCES: Registry[Tensor] = Registry("divergence")
Divergence: TypeAlias = Callable[..., Tensor]


@dataclass(frozen=True)
class Traits:
    """The properties of a divergence that its formula does not show.

    Args:
        no_labels: The reason why it cannot learn from labels, as a clause that begins with
            "which", for the kinds of tasks whose labels it does not take.
        power: For the kinds of tasks where it is not that of the distributions
            (``temperature_power``): the power of T that keeps gradients comparable.
        weighs: Whether it takes ``weight``, a weight for each output of Gaussians, [B, D].
    """

    no_labels: Mapping[Kind, str] = field(default_factory=dict)
    power: Mapping[Kind, float] = field(default_factory=dict)
    weighs: bool = False


TRAITS: dict[Divergence, Traits] = {}


def with_traits(traits: Traits) -> Callable[[Divergence], Divergence]:
    """Return a decorator that notes the traits of a divergence; one without has the defaults."""

    def note(divergence: Divergence) -> Divergence:
        TRAITS[divergence] = traits
        return divergence

    return note


def traits_of(divergence: str) -> Traits:
    """Return the traits of a divergence, by its name.

    Raises:
        RecipeError: There is no such divergence, or it cannot be imported.
    """
    return TRAITS.get(DIVERGENCES.find(divergence)[0], Traits())


@DIVERGENCES.register("forward_kl")
@with_traits(Traits(weighs=True))
def forward_kl(
    teacher: Distribution, student: Distribution, weight: Tensor | None = None
) -> Tensor:
    """Return KL(teacher ‖ student) in nats, [B]; the student must cover all the teacher believes.

    For labels, which are point masses, this is the negative log-likelihood.

    Args:
        teacher, student: Distributions of one kind for the same examples.
        weight: Weight of each output of Gaussians, [B, D]; equal weights where None.
    """
    _same(teacher, student)
    if weight is None:
        return teacher.kl(student)  # type: ignore[arg-type]
    assert isinstance(teacher, Gaussian)
    assert isinstance(student, Gaussian)
    return teacher.kl(student, weight)


_INFINITE = "which is infinite from labels"


@DIVERGENCES.register("reverse_kl")
@with_traits(Traits(no_labels=dict.fromkeys(FAMILIES, _INFINITE)))
def reverse_kl(teacher: Distribution, student: Distribution) -> Tensor:
    """Return KL(student ‖ teacher) in nats, [B]; the student must believe nothing else."""
    return _same(teacher, student).kl(teacher)  # type: ignore[arg-type]


@DIVERGENCES.register("js")
@with_traits(Traits(no_labels={"regression": "which real-valued labels do not have"}))
def js(teacher: Distribution, student: Distribution) -> Tensor:
    """Return the Jensen-Shannon divergence in nats, [B]: symmetric, at most log 2 for classes.

    Labels of 0 and 1 add up.
    """
    return teacher.js(_same(teacher, student))  # type: ignore[arg-type]


@DIVERGENCES.register("wasserstein")
@with_traits(Traits(power={"classification": 1, "regression": 0, "multilabel": 1}))
def wasserstein(teacher: Distribution, student: Distribution) -> Tensor:
    """Return the squared 2-Wasserstein distance, [B]: symmetric, and at most 1 for classes.

    For Gaussians it is (μ - μ')² + (σ - σ')², summed over outputs, so the gradient of the mean
    does not depend on any variance (:meth:`~extracurricular.distributions.Gaussian.wasserstein`).
    A label has σ = 0: from labels alone, the student learns the mean and no uncertainty.

    Classes have no distance, so any two count as 1 apart. The squared distance is then the total
    variation ½ Σ |p - q| (Levin and Peres 2017, "Markov Chains and Mixing Times", proposition 4.7),
    which is 1 - q_y from a label y. Labels of 0 and 1 differ in a number of places (Hamming), which
    gives Σ |p - q| over the labels.
    """
    _same(teacher, student)
    if isinstance(teacher, Gaussian) and isinstance(student, Gaussian):
        return teacher.wasserstein(student)
    return _over_classes(teacher, student, lambda difference: 0.5 * difference.abs())


@DIVERGENCES.register("energy")
@with_traits(Traits(power={"regression": 0.5}))
def energy(teacher: Distribution, student: Distribution) -> Tensor:
    """Return the energy distance 2 E d(X, Y) - E d(X, X') - E d(Y, Y'), [B]: symmetric.

    For Gaussians d is the distance of real numbers, and outputs add up
    (:meth:`~extracurricular.distributions.Gaussian.energy`). From a label it is twice the
    continuous ranked probability score. That is a proper score, so the student learns mean and
    variance from labels too (Gneiting and Raftery 2007, section 4.2).

    Any two classes count as 1 apart, which gives Σ (p - q)²: from a label, the Brier score
    (Gneiting and Raftery 2007, section 3). Each of several labels counts as two classes.
    """
    _same(teacher, student)
    if isinstance(teacher, Gaussian) and isinstance(student, Gaussian):
        return teacher.energy(student)
    return _over_classes(teacher, student, torch.square)


def _over_classes(
    teacher: Distribution, student: Distribution, size: Callable[[Tensor], Tensor]
) -> Tensor:
    """Sum a function of the differences of probabilities over classes, and over labels, [B]."""
    if isinstance(teacher, Bernoulli) and isinstance(student, Bernoulli):
        return size(teacher.pairs.probs - student.pairs.probs).sum(-1).sum(-1)
    assert isinstance(teacher, Categorical)
    assert isinstance(student, Categorical)
    return size(teacher.probs - student.probs).sum(-1)


def _same(teacher: Distribution, student: Distribution) -> Distribution:
    if kind_of_distribution(teacher) != kind_of_distribution(student):
        raise ValueError(
            f"the teacher gives a {type(teacher).__name__}, "
            f"the student a {type(student).__name__}; they must give the same kind of distribution"
        )
    return student
