"""A teacher whose members' answers stay apart, for students that learn from each of them."""

from __future__ import annotations

from extracurricular.distributions import Distribution, together
from extracurricular.inputs import Batch, Capturable, obstacle
from extracurricular.teachers.base import HasMembers


class Apart(Capturable):
    """An ensemble as a distribution that still knows what each member answers.

    Args:
        teacher: A teacher with members.
    """

    def __init__(self, teacher: HasMembers) -> None:
        self.teacher = teacher

    @property
    def obstacle(self) -> str | None:
        """The reason why a CUDA graph cannot hold the members, as a clause; None if it can."""
        return obstacle(self.teacher)

    def members(self, batch: Batch) -> list[Distribution]:
        """Return each member's distribution."""
        return self.teacher.members(batch)

    def __call__(self, batch: Batch) -> Distribution:
        """Return the mixture with its members (:func:`~extracurricular.distributions.together`)."""
        return together(self.teacher.members(batch))
