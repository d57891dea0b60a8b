"""A weak draw for the teacher, and a strong one of the same id for the student."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from extracurricular.inputs import Batch
from extracurricular.samplers.base import SAMPLERS, Sampler, Seeded, check_child

NAME = "weak"
NOT_AFTER = ("mixup", "cutmix", "uncertain")
"""Samplers that may not follow: they make another example of it, about which the teacher would have
to be asked anew."""


@SAMPLERS.register("weak")
@dataclass(frozen=True)
class Weak(Seeded):
    """Show the teacher the draw as it is here; what follows is for the student alone.

    In `[empirical, augment, weak, trivial_augment, cutout]` the teacher answers on a shifted image,
    and the student learns that answer on the same image after two strong distortions. It is the one
    exception to the rule that both see the same, for distortions under which the answer should stay
    and the teacher's would not. Both are functions of the id. What follows may distort an example,
    but not mix it with others (`mixup`, `cutmix`) or choose among several (`uncertain`).

    Source: the weak and the strong view of Sohn et al. 2020, "FixMatch", NeurIPS, section 2.1.

    Args:
        child: Source of the weak draws.
    """

    child: Sampler

    def __post_init__(self) -> None:
        """Check the child."""
        check_child(self.child)

    def __call__(self, ids: Tensor) -> Batch:
        """Draw the examples with these ids, with a note of what the teacher sees."""
        batch = self.child(ids)
        return replace(batch, weak=batch.x)


def seen_by_teacher(sampler: Any) -> Any:
    """Return the sampler of the draws that the teacher sees: the sampler itself, or a weak one."""
    inner = sampler
    while inner is not None:
        if isinstance(inner, Weak):
            return inner.child
        inner = getattr(inner, "child", None)
    return sampler
