"""Divergences D(q_T ‖ q_S) of a student from its teacher.

Each is a function of two distributions that returns one number per example, [B], summed over
outputs. One with settings is a class, whose instances are such functions; it has a file of its own.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

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
from extracurricular.errors import RecipeError
from extracurricular.registry import Registry, split_spec

DIVERGENCES: Registry[Any] = Registry("divergence", "extracurricular.matching")
Divergence: TypeAlias = Callable[..., Tensor]
Spec: TypeAlias = Any
"""A divergence as a recipe writes it: ``NAME`` or ``{NAME: {setting: value}}``."""


@dataclass(frozen=True)
class Traits:
    """The properties of a divergence that its formula does not show.

    Args:
        no_labels: The reason why it cannot learn from labels, as a clause that begins with
            "which", for the kinds of tasks whose labels it does not take.
        power: For the kinds of tasks where it is not that of the distributions
            (``temperature_power``): the power of T that keeps gradients comparable.
        weighs: Whether it takes ``weight``, a weight for each output of Gaussians, [B, D].
        kinds: The kinds of tasks that it is for.
        tempers: Whether it takes the distributions as they are, and ``temperature``, and gives
            the loss with its factor.
        relates: Whether the number of an example depends on the other examples of its batch.
    """

    no_labels: Mapping[Kind, str] = field(default_factory=dict)
    power: Mapping[Kind, float] = field(default_factory=dict)
    weighs: bool = False
    kinds: tuple[Kind, ...] = tuple(FAMILIES)
    tempers: bool = False
    relates: bool = False


TRAITS: dict[object, Traits] = {}
T = TypeVar("T")


def with_traits(traits: Traits) -> Callable[[T], T]:
    """Return a decorator that notes the traits of a divergence; one without has the defaults."""

    def note(divergence: T) -> T:
        TRAITS[divergence] = traits
        return divergence

    return note


def find_divergence(spec: Spec, key: str = "") -> Divergence:
    """Return the function that a spec means, with its settings.

    Args:
        spec: ``NAME``, ``{NAME: {setting: value}}`` or ``module:function``.
        key: Key of the spec in the recipe, for errors.

    Raises:
        RecipeError: There is no such divergence, it cannot be imported, or a setting is wrong.
    """
    name, given = split_spec(spec, "divergence", key)
    if DIVERGENCES.names_own_code(name):
        return _made(name, given, key)
    return _known(json.dumps([name, given], default=repr), key)


@lru_cache(maxsize=256)
def _known(spec: str, key: str) -> Divergence:
    """Return a divergence that is registered here; each is made once."""
    name, given = json.loads(spec)
    return _made(name, given, key)


def _made(name: str, given: dict[str, Any], key: str) -> Divergence:
    entry, _ = DIVERGENCES.find(name, key=key)
    if inspect.isclass(entry):
        made: Divergence = DIVERGENCES.build({name: given}, key=key)
        return made
    if given:
        raise RecipeError(
            f"{key}.{name}".strip("."),
            f"has settings ({', '.join(given)}), but takes none; one that does is a class",
        )
    return entry


def find_inner(spec: Spec) -> Divergence:
    """Return the divergence inside of another one, its setting ``of``.

    Raises:
        RecipeError: There is no such divergence, or it is code of somebody's own, which those who
            only look at a run must not need.
    """
    name, _ = split_spec(spec, "divergence", "of")
    if DIVERGENCES.names_own_code(name):
        raise RecipeError("of", f"is {name!r}; it must be a divergence that `xcl matchings` lists")
    return find_divergence(spec, "of")


def traits_of(divergence: Spec | Divergence) -> Traits:
    """Return the traits of a divergence, by its spec or as :func:`find_divergence` gives it.

    Raises:
        RecipeError: There is no such divergence, or it cannot be imported.
    """
    found = divergence if callable(divergence) else find_divergence(divergence)
    # One that is made of another has traits that depend on the other.
    own: Traits | None = getattr(found, "traits", None)
    return own or TRAITS.get(found) or TRAITS.get(type(found), Traits())


def at_temperature(
    divergence: Divergence,
    teacher: Distribution,
    student: Distribution,
    temperature: float | Tensor,
    **outputs: Tensor,
) -> Tensor:
    """Return T^k · D(teacher at T ‖ student at T), [B].

    Args:
        divergence: D.
        teacher, student: Distributions of one kind for the same examples.
        temperature: T, maybe as a scalar on the device.
        outputs: ``weight``, for a divergence that takes it.

    Raises:
        ValueError: The divergence is not for this kind of distributions, or they are of two kinds.
    """
    traits, kind = traits_of(divergence), kind_of_distribution(_same(teacher, student))
    if kind not in traits.kinds:
        name = getattr(divergence, "__name__", type(divergence).__name__.lower())
        raise ValueError(f"the divergence {name!r} is for {traits.kinds[0]}, not for {kind}")
    if traits.tempers:
        found: Tensor = divergence(teacher, student, temperature=temperature, **outputs)
        return found
    power = traits.power.get(kind, student.temperature_power)
    values = divergence(teacher.tempered(temperature), student.tempered(temperature), **outputs)
    return values * (temperature**power)


def kinds_in_words(kinds: tuple[Kind, ...]) -> str:
    """Return the word for what tasks of some kinds predict."""
    words = {"classification": "classes", "regression": "real targets", "multilabel": "labels"}
    return " and ".join(words[kind] for kind in kinds)


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
