"""A teacher maps a batch of examples to a predictive distribution on them."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from extracurricular.distributions import Distribution, epistemic
from extracurricular.errors import TrainingError
from extracurricular.inputs import Batch


@runtime_checkable
class Teacher(Protocol):
    """Anything that maps a batch to the teacher's predictive distribution on its examples."""

    def __call__(self, batch: Batch) -> Distribution:
        """Return the distribution for the B examples of ``batch``."""
        ...


@runtime_checkable
class HasMembers(Teacher, Protocol):
    """A teacher with several members, whose disagreement is epistemic uncertainty."""

    def members(self, batch: Batch) -> list[Distribution]:
        """Return each member's distribution for the B examples of ``batch``."""
        ...


def epistemic_uncertainty(teacher: HasMembers, batch: Batch) -> Tensor:
    """Return the members' disagreement: mutual information [B], or variance of means [B, D]."""
    return epistemic(teacher.members(batch))


def check_answer(target: Distribution, ids: Tensor) -> None:
    """Refuse a teacher's NaN or infinity.

    Args:
        target: The teacher's distribution for B draws.
        ids: The draw ids, [B].

    Raises:
        TrainingError: A parameter is not finite; the sentence names the draws.
    """
    bad = ~torch.isfinite(target.parameters).all(-1)
    if bool(bad.any()):
        at_fault = ids[bad].tolist()
        shown = ", ".join(map(str, at_fault[:5])) + (", …" if len(at_fault) > 5 else "")
        raise TrainingError(
            f"the teacher gave NaN or infinity for {len(at_fault)} of {len(ids)} draws: ids {shown}"
        )
