"""Scores of the teacher's uncertainty: one number for each example, larger where it is unsure.

A score is a function whose parameters name its inputs: ``prediction`` (the teacher's distribution),
``members`` (the distribution of each member of an ensemble) or ``student`` (the student's
distribution). It returns one number for each example, [B].
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

from torch import Tensor

from extracurricular.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Gaussian,
    epistemic,
)
from extracurricular.registry import Registry

SCORES: Registry[Tensor] = Registry("score")


@SCORES.register("entropy")
def entropy(prediction: Distribution) -> Tensor:
    """Return the entropy in nats: in [0, log C] for classes, any real number for Gaussians.

    That of several labels is the sum over them, in [0, L log 2].
    """
    return prediction.entropy()


@SCORES.register("margin")
def margin(prediction: Distribution) -> Tensor:
    """Return 1 minus the lead of the most probable class over the second, in [0, 1].

    Of several labels of 0 and 1, the least sure one counts: its two classes are ``present`` and
    ``absent`` (our choice).
    """
    if isinstance(prediction, Bernoulli):
        return (1 - (2 * prediction.probs - 1).abs()).amax(-1)
    if not isinstance(prediction, Categorical):
        raise ValueError(
            "score is 'margin', which is for classes; for real targets use "
            "'predictive_variance', 'epistemic_variance' or 'entropy'"
        )
    best = prediction.probs.topk(2, dim=-1).values
    return 1 - (best[:, 0] - best[:, 1])


@SCORES.register("mutual_information")
def mutual_information(members: list[Distribution]) -> Tensor:
    """Return an ensemble's disagreement on the class, in nats, in [0, log of the member count].

    It is the entropy of the mean prediction minus the mean entropy of the members (Houlsby et al.
    2011, "Bayesian active learning for classification and preference learning", section 2). That
    of several labels is the sum over them.
    """
    if isinstance(members[0], Gaussian):
        raise ValueError(
            "score is 'mutual_information', which is for classes; for real targets use "
            "'epistemic_variance'"
        )
    return epistemic(members)


@SCORES.register("predictive_variance")
def predictive_variance(prediction: Distribution) -> Tensor:
    """Return the variance summed over outputs, in squared standardised units."""
    if not isinstance(prediction, Gaussian):
        raise ValueError(
            "score is 'predictive_variance', which is for real targets; for classes and labels use "
            "'entropy' or 'margin'"
        )
    return prediction.var.sum(-1)


@SCORES.register("epistemic_variance")
def epistemic_variance(members: list[Distribution]) -> Tensor:
    """Return the variance of the members' means, summed over outputs, in squared standard units."""
    if not isinstance(members[0], Gaussian):
        raise ValueError(
            "score is 'epistemic_variance', which is for real targets; for classes and labels use "
            "'mutual_information'"
        )
    return epistemic(members).sum(-1)


@SCORES.register("divergence")
def divergence(prediction: Distribution, student: Distribution) -> Tensor:
    """Return KL(teacher ‖ student) in nats, which is large where the student has yet to learn.

    It depends on the student, so draws that it chooses are not functions of their ids alone.
    """
    return prediction.kl(student)  # type: ignore[arg-type]


def needs(score: Callable[..., Tensor]) -> set[str]:
    """Return which of ``prediction``, ``members`` and ``student`` a score takes."""
    return set(inspect.signature(score).parameters)
