"""The families of distributions that a student may have, by the name that a recipe gives them.

The key ``distribution`` of a student, or of the networks of a teacher, names one; null is the usual
family of the task. Each is described by a :class:`~extracurricular.distributions.Family`, and has
the figures of the usual one, exact, and a shape of its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from extracurricular.data.base import Data
from extracurricular.distributions import (
    Dirichlets,
    Family,
    FullGaussians,
    GaussianMixtures,
    NormalInverseGammas,
    Quantiles,
    StudentTs,
)
from extracurricular.distributions.family import Match
from extracurricular.errors import RecipeError
from extracurricular.registry import Registry, split_spec

DISTRIBUTIONS: Registry[Family | None] = Registry("distribution")

_USUAL = {"gaussian": "regression", "categorical": "classification"}
_WHAT = {
    "classification": "classes",
    "regression": "real targets",
    "multilabel": "labels of 0 and 1",
}


@DISTRIBUTIONS.register("gaussian")
def gaussian() -> Family | None:
    """A mean and a variance for each real target: the usual family, also where nothing is said."""
    return None


@DISTRIBUTIONS.register("categorical")
def categorical() -> Family | None:
    """Probabilities of classes: the usual family, also where nothing is said."""
    return None


@DISTRIBUTIONS.register("student_t")
def student_t() -> Family | None:
    """Student's t for each real target: a Gaussian with tails as heavy as the data have.

    Three outputs a target: location, log squared scale, degrees of freedom above 2. NLL, entropy
    and CRPS have closed forms; KL from a Gaussian is a quadrature of Gauss and Hermite.
    """
    return StudentTs()


@DISTRIBUTIONS.register("mixture")
def mixture(components: int = 3) -> Family | None:
    """A mixture of Gaussians for each real target: several peaks, or other tails.

    Three outputs a component and target. NLL and CRPS have closed forms; KL is a quadrature. From a
    teacher of several members it learns the mixture of their Gaussians itself, not its moments.

    Args:
        components: Number of Gaussians, from 2 to 100.
    """
    return GaussianMixtures(components)


@DISTRIBUTIONS.register("quantiles")
def quantiles(levels: int = 9) -> Family | None:
    """Quantiles of each real target: a distribution of any shape.

    They are at the levels (k - 1/2) / K; between them the density is constant, beyond them it falls
    exponentially. The loss is `energy` unless another is set: the expected pinball loss, which has
    a closed form for a Gaussian teacher. NLL, CRPS and entropy have closed forms.

    Args:
        levels: Number of quantiles, from 3 to 199.
    """
    return Quantiles(levels)


@DISTRIBUTIONS.register("full")
def full() -> Family | None:
    """A Gaussian with a full covariance, for several real targets whose errors are correlated.

    An output more for each pair of targets. NLL, entropy and KL have closed forms; each target
    alone is a Gaussian. An ensemble's covariance is that of its members' means, and their noise.
    """
    return FullGaussians()


@DISTRIBUTIONS.register("normal_inverse_gamma")
def normal_inverse_gamma(match: Match = "disagreement") -> Family | None:
    """A normal-inverse-gamma: an ensemble's noise and its disagreement, apart, of real targets.

    Four outputs a target. A prediction is Student's t, and knows the variance of the mean among the
    members (`epistemic`). The teacher must have several members.

    Args:
        match: What is matched of them: their mixture and their `disagreement`; or the means and
            variances of the `members`, whose mean negative log-density is the loss.
    """
    return NormalInverseGammas(match)


@DISTRIBUTIONS.register("dirichlet")
def dirichlet(match: Match = "disagreement") -> Family | None:
    """A Dirichlet over the probabilities of classes: an ensemble's disagreement, in one network.

    As many outputs as classes. A prediction is the mean, and knows the mutual information of class
    and member (`epistemic`). The teacher must have several members.

    Args:
        match: What is matched of them: their mean and their `disagreement`; or the answers of the
            `members`, whose mean negative log-density is the loss (Malinin, Mlodozeniec and Gales
            2020, who begin at a temperature of 10: `matching: {temperature: {linear: [10, 1]}}`).
    """
    return Dirichlets(match)


def read_family(spec: Any, key: str = "distribution") -> Family | None:
    """Return the family that a recipe names; None for the usual one.

    Raises:
        RecipeError: It is unknown, or a setting is wrong.
    """
    if spec is None:
        return None
    name, _ = split_spec(spec, "distribution", key)
    if DISTRIBUTIONS.names_own_code(name):
        known = ", ".join(DISTRIBUTIONS.names())
        raise RecipeError(key, f"is {name!r}, and must be one of {known}")
    return DISTRIBUTIONS.build(spec, key=key)


def with_family(data: Data, spec: Any, key: str = "distribution") -> Data:
    """Return a data set whose task has a family, for networks that give its distributions.

    Args:
        data: The data set.
        spec: The family as a recipe writes it; None for the usual one.
        key: Its key in the recipe, for errors.

    Raises:
        RecipeError: It is unknown, or does not go with the task.
    """
    family = read_family(spec, key)
    if spec is None:
        return data
    name, _ = split_spec(spec, "distribution", key)
    kind = _USUAL[name] if family is None else family.kind
    if kind != data.task.kind:
        raise RecipeError(
            key,
            f"is {name!r}, which is for {_WHAT[kind]}, but the data have {_WHAT[data.task.kind]}",
        )
    if family is None:
        return data
    try:
        family.check(data.task.size)
    except ValueError as error:
        raise RecipeError(key, f"{name!r} {error}") from None
    if data.y_transform is not None:
        raise RecipeError(
            key, f"is {name!r}, and the targets are transformed, of which only a Gaussian knows "
            "mean and variance; leave the transform or the distribution out"
        )  # fmt: skip
    return replace(data, task=replace(data.task, family=family))
