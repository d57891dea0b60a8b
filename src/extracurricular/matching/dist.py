"""Matching of relations between classes and between examples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from extracurricular.distributions import Categorical
from extracurricular.matching.divergences import DIVERGENCES, Traits, with_traits
from extracurricular.matching.settings import check_least

# Deviations below this count as none: a constant has no correlation.
_LEAST = 1e-6


@DIVERGENCES.register("dist")
@with_traits(
    Traits(
        no_labels={"classification": "which correlates probabilities, of which labels are none"},
        # A correlation has no scale, so its gradient does not shrink with the temperature.
        power={"classification": 0},
        kinds=("classification",),
        relates=True,
    )
)
@dataclass(frozen=True)
class Dist:
    """Match how classes relate in an example, and examples in a class, by correlations.

    It is inter · (1 - ρ) over the classes of an example, plus intra · (1 - ρ) over the examples of
    the batch in a class, averaged over classes, where ρ is Pearson's correlation of the
    probabilities of teacher and student. So the student need not be as sure as its teacher: a
    strong teacher does it less harm, and its own confidence is not taught. Add `label_weight` where
    probabilities matter. A class in which the teacher says the same of all examples counts for
    nothing.

    The second part depends on the batch: another batch size is another loss.

    Source: Huang, You, Wang, Qian and Xu 2022, "Knowledge Distillation from A Stronger Teacher",
    NeurIPS, equations 8 to 11. The code there multiplies by T²; ours does not, as a correlation has
    no scale (our choice).

    Args:
        inter: Weight of the relations between classes, at least 0; β of the paper.
        intra: Weight of the relations between examples, at least 0; γ of the paper.
    """

    inter: float = 2.0
    intra: float = 2.0

    def __post_init__(self) -> None:
        """Check the settings."""
        check_least(0, inter=self.inter, intra=self.intra)

    def __call__(self, teacher: Categorical, student: Categorical) -> Tensor:
        """Return the divergence of each example, [B]; the second part is the same for all."""
        p, q = teacher.probs, student.probs
        # An empty batch has no examples to relate.
        across = _apart(p.T, q.T).mean() if len(p) else p.new_zeros(())
        return self.inter * _apart(p, q) + self.intra * across


def _apart(wanted: Tensor, said: Tensor) -> Tensor:
    """Return 1 - ρ of each row; 0 where all numbers wanted are the same."""
    wanted = wanted - wanted.mean(-1, keepdim=True)
    said = said - said.mean(-1, keepdim=True)
    first, second = F.normalize(wanted, dim=-1, eps=_LEAST), F.normalize(said, dim=-1, eps=_LEAST)
    # Half the squared distance of unit vectors is 1 - ρ, and keeps its digits near 0.
    apart = 0.5 * (first - second).square().sum(-1)
    return torch.where(wanted.square().sum(-1) > _LEAST**2, apart, torch.zeros_like(apart))
