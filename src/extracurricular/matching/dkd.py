"""Decoupled knowledge distillation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from extracurricular.distributions import Categorical
from extracurricular.matching.divergences import DIVERGENCES, Traits, with_traits
from extracurricular.matching.settings import check_least

# A logit so low that its class has no probability, yet finite.
_NONE = -1e30


@DIVERGENCES.register("dkd")
@with_traits(
    Traits(
        no_labels={
            "classification": "which compares the wrong classes, of which labels say nothing"
        },
        kinds=("classification",),
    )
)
@dataclass(frozen=True)
class DKD:
    """Weigh the teacher's top class against the others by a factor of their own each.

    KL is KL(b_T ‖ b_S) + (1 - p) KL(r_T ‖ r_S), where p is the teacher's probability of the target
    class, b that class against all others, and r the distribution over the others. So the second
    part, which holds what the teacher knows of the other classes, counts least where the teacher is
    surest. Here both have fixed weights: alpha KL(b_T ‖ b_S) + beta KL(r_T ‖ r_S).

    Source: Zhao, Cui, Song, Qiu and Liang 2022, "Decoupled Knowledge Distillation", CVPR, equations
    5 to 7. There the target is the label. Here it is the teacher's most probable class, since draws
    may have no label, or a mixed one (our choice).

    Args:
        alpha: Weight of the target class against all others, at least 0.
        beta: Weight of the distribution over the others, at least 0. The paper has 1 to 8 on
            CIFAR-100, more where the teacher is surer.
    """

    alpha: float = 1.0
    beta: float = 8.0

    def __post_init__(self) -> None:
        """Check the settings."""
        check_least(0, alpha=self.alpha, beta=self.beta)

    def __call__(self, teacher: Categorical, student: Categorical) -> Tensor:
        """Return the divergence of each example, [B]."""
        target = teacher.log_probs.argmax(-1, keepdim=True)
        (mine, my_rest), (theirs, their_rest) = _split(teacher, target), _split(student, target)
        return self.alpha * mine.kl(theirs) + self.beta * my_rest.kl(their_rest)


def _split(said: Categorical, target: Tensor) -> tuple[Categorical, Categorical]:
    """Return the target class against all others, [B, 2], and the distribution over the others."""
    first = said.log_probs.gather(-1, target)
    rest = said.log_probs.scatter(-1, target, _NONE)
    against = torch.cat([first, rest.logsumexp(-1, keepdim=True)], dim=-1)
    return Categorical(against), Categorical(rest)
