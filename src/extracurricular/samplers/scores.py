"""How unsure the teacher is of an example, as one number that is larger for the more uncertain.

A score is a function whose parameters say what it needs: ``prediction`` (the teacher's
distribution), ``members`` (the distribution of each member of an ensemble) or ``student`` (the
student's distribution). It gives one number per example, [B].
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

from torch import Tensor

from extracurricular.distributions import Categorical, Distribution, Gaussian, epistemic
from extracurricular.registry import Registry

SCORES: Registry[Tensor] = Registry("score")


@SCORES.register("entropy")
def entropy(prediction: Distribution) -> Tensor:
    """Entropy of the prediction in nats: in [0, log C] for classes, any real for Gaussians."""
    return prediction.entropy()


@SCORES.register("margin")
def margin(prediction: Distribution) -> Tensor:
    """One less the lead of the most probable class over the second, in [0, 1]."""
    if not isinstance(prediction, Categorical):
        raise ValueError(
            "score is 'margin', which only classes have; for real targets use "
            "'predictive_variance', 'epistemic_variance' or 'entropy'"
        )
    best = prediction.probs.topk(2, dim=-1).values
    return 1 - (best[:, 0] - best[:, 1])


@SCORES.register("mutual_information")
def mutual_information(members: list[Distribution]) -> Tensor:
    """Disagreement of an ensemble on the class, in nats, in [0, log of the number of members].

    Entropy of the mean prediction less the mean entropy of the members (Houlsby et al. 2011,
    "Bayesian active learning for classification and preference learning", section 2).
    """
    if not isinstance(members[0], Categorical):
        raise ValueError(
            "score is 'mutual_information', which is for classes; for real targets use "
            "'epistemic_variance'"
        )
    return epistemic(members)


@SCORES.register("predictive_variance")
def predictive_variance(prediction: Distribution) -> Tensor:
    """Variance of the prediction, summed over outputs, in squared standardised units."""
    if not isinstance(prediction, Gaussian):
        raise ValueError(
            "score is 'predictive_variance', which is for real targets; for classes use "
            "'entropy' or 'margin'"
        )
    return prediction.var.sum(-1)


@SCORES.register("epistemic_variance")
def epistemic_variance(members: list[Distribution]) -> Tensor:
    """Variance of the members' means, summed over outputs, in squared standardised units."""
    if not isinstance(members[0], Gaussian):
        raise ValueError(
            "score is 'epistemic_variance', which is for real targets; for classes use "
            "'mutual_information'"
        )
    return epistemic(members).sum(-1)


@SCORES.register("divergence")
def divergence(prediction: Distribution, student: Distribution) -> Tensor:
    """KL(teacher ‖ student) in nats: the examples that the student has yet to learn.

    It depends on the student, so draws chosen by it are no function of their ids alone.
    """
    return prediction.kl(student)  # type: ignore[arg-type]


def needs(score: Callable[..., Tensor]) -> set[str]:
    """Return which of ``prediction``, ``members`` and ``student`` a score takes."""
    return set(inspect.signature(score).parameters)
