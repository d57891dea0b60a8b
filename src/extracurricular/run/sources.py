"""The sources that a student's stage learns from: teacher, generators, record."""

from __future__ import annotations

from typing import Any, Protocol

from extracurricular.data.base import Split
from extracurricular.generators import Generator
from extracurricular.run.stages import Stage
from extracurricular.run.workspace import Made, Workspace
from extracurricular.samplers import Sampler
from extracurricular.teachers import Teacher


class TeacherSource(Protocol):
    """The source of a student's teacher."""

    @property
    def path(self) -> str:
        """The path that distinguishes it from other teachers of the run."""
        ...

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that make it."""
        ...

    @property
    def settings(self) -> list[dict[str, Any]]:
        """All that its answers depend on."""
        ...

    @property
    def is_stored(self) -> bool:
        """Whether its answers are in a file, so that it knows no others."""
        ...

    @property
    def uncalibrated(self) -> Made[Teacher]:
        """The teacher as it answers before it is calibrated."""
        ...

    def load(self, workspace: Workspace) -> Teacher:
        """Read the trained teacher."""
        ...

    def preview(self, workspace: Workspace) -> Teacher:
        """Build the teacher untrained."""
        ...

    def forward_cost(self, workspace: Workspace) -> int | None:
        """Return the multiply-adds of an answer; None where they cannot be counted."""
        ...


class GeneratorSource(Protocol):
    """The source of a generator for a student's draws."""

    @property
    def name(self) -> str:
        """Its name in the recipe."""
        ...

    @property
    def path(self) -> str:
        """Folder of its stage."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """All that its draws depend on."""
        ...

    def load(self, workspace: Workspace) -> Generator | Split:
        """Read the fitted generator."""
        ...


class RecordSource(Protocol):
    """The source of a recorded teacher for a student."""

    @property
    def rows(self) -> int:
        """Recorded answers: one for each draw, two where a share follows mastery."""
        ...

    @property
    def draws(self) -> int:
        """Draws that are recorded."""
        ...

    @property
    def codec(self) -> Any:
        """The codec of the answers."""
        ...

    @property
    def seed(self) -> int:
        """The seed of the recorded draws."""
        ...

    def replay(self, workspace: Workspace, seed: int) -> tuple[Sampler, Teacher]:
        """Return the recorded draws in the order of a seed, and the recorded teacher."""
        ...
