"""A teacher whose answers are calibrated before anybody learns from them."""

from __future__ import annotations

from typing import Any

from extracurricular.distributions import Calibration, Distribution
from extracurricular.inputs import Batch, Capturable, obstacle
from extracurricular.teachers.base import HasMembers, Teacher, on_draws, on_split


class Calibrated(Capturable):
    """A teacher with calibrated answers.

    Args:
        teacher: The teacher.
        calibration: The calibration.
    """

    def __init__(self, teacher: Teacher, calibration: Calibration) -> None:
        self.teacher = teacher
        self.calibration = calibration

    @property
    def obstacle(self) -> str | None:
        """The reason why a CUDA graph cannot hold the teacher, as a clause; None if it can."""
        return obstacle(self.teacher)

    @property
    def parameters(self) -> int | None:
        """Count of the numbers the teacher is made of; None where it is unknown."""
        found: int | None = getattr(self.teacher, "parameters", None)
        return found

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on the teacher for the person."""
        return tuple(getattr(self.teacher, "notes", ()))

    @property
    def answered(self) -> Any:
        """Places of the training examples with a stored answer; None where all have one."""
        return getattr(self.teacher, "answered", None)

    def __call__(self, batch: Batch) -> Distribution:
        """Return the teacher's calibrated distribution."""
        return self.calibration(self.teacher(batch))

    # A teacher of stored answers must know where examples come from.

    def on_draws(self, sampler: Any) -> Teacher:
        """Return it as it answers about the draws of a sampler."""
        return calibrated(on_draws(self.teacher, sampler), self.calibration)

    def on_split(self, part: str) -> Teacher:
        """Return it as it answers about a split."""
        return calibrated(on_split(self.teacher, part), self.calibration)


class CalibratedEnsemble(Calibrated):
    """The same for a teacher with members, whose disagreement stays as it was."""

    def members(self, batch: Batch) -> list[Distribution]:
        """Return each member's own distribution, which nothing was fitted to."""
        assert isinstance(self.teacher, HasMembers)
        return self.teacher.members(batch)


def calibrated(teacher: Teacher, calibration: Calibration | None) -> Teacher:
    """Return a teacher with calibrated answers; itself where these are the same."""
    if calibration is None or not calibration.changes:
        return teacher
    kind = CalibratedEnsemble if isinstance(teacher, HasMembers) else Calibrated
    return kind(teacher, calibration)
