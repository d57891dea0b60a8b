"""What a student has besides its draws and its loss: first weights, features, simulated 8 bits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from extracurricular.errors import RecipeError, StorageError
from extracurricular.inputs import Inputs
from extracurricular.models.weights import checksum, load_start
from extracurricular.recipe.students import FeaturesSection, StartSection, StudentSection
from extracurricular.teachers import Teacher
from extracurricular.training.additions import Additions, network_of
from extracurricular.training.features import FeatureLoss, Features
from extracurricular.training.frozen import Frozen


@dataclass(frozen=True)
class Extras:
    """The sections ``start``, ``features`` and ``quantise`` of a student, all off by default.

    Args:
        start: Weights that it starts from.
        features: Layers of teacher and student to match.
        quantise: ``int8`` to simulate 8-bit arithmetic.
    """

    start: StartSection | None = None
    features: FeaturesSection | None = None
    quantise: Any = None

    @classmethod
    def of(cls, section: StudentSection) -> Extras:
        """Return those of a student."""
        return cls(section.start, section.features, section.quantise)

    @property
    def settings(self) -> dict[str, Any]:
        """Those that are set, as plain values; a file counts by its content."""
        found: dict[str, Any] = {}
        if self.start is not None:
            file = Path(self.start.path)
            found["start"] = self.start.model_dump(mode="json")
            if file.is_file():
                found["start"] |= {"sha256": checksum(file)}
        if self.features is not None:
            found["features"] = self.features.model_dump(mode="json")
        return found | ({} if self.quantise is None else {"quantise": self.quantise})

    @property
    def additions(self) -> Additions:
        """What the training has besides its loss."""
        features = None if self.features is None else Features(**self.features.model_dump())
        return Additions(features, self.quantise)

    def begin(self, student: nn.Module, key: str) -> tuple[str, ...]:
        """Give a student the weights that it starts from; return sentences on what did not fit.

        Raises:
            RecipeError: They do not fit as they must, or cannot be read.
        """
        if self.start is None:
            return ()
        try:
            return load_start(student, Path(self.start.path), self.start.key, self.start.strict)
        except StorageError as error:
            raise RecipeError(f"{key}.start", str(error)) from error

    def check(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        recorded: bool,
        x: Inputs,
        key: str,
        freeze: tuple[str, ...],
    ) -> None:
        """Try all on a student and its teacher as they will be, which are left as they are.

        Args:
            student: The student, with its first weights.
            teacher: The teacher that it learns from; None where it learns from labels.
            recorded: Whether it learns from a record of the teacher.
            x: Some inputs.
            key: Key of the student in the recipe.
            freeze: Weights to freeze.

        Raises:
            RecipeError: Something cannot be done; the sentence is by its key.
        """
        if self.start is not None:
            state = {name: value.clone() for name, value in student.state_dict().items()}
            self.begin(student, key)
            student.load_state_dict(state)
        try:
            Frozen(student, freeze).thaw()
        except RecipeError as error:
            raise RecipeError(f"{key}.{error.key}", error.problem) from error
        if self.features is None:
            return
        if recorded or teacher is None:
            what = "there is a record of its answers alone" if recorded else "there is none"
            cure = "set teacher.record to null, or " if recorded else ""
            raise RecipeError(
                f"{key}.features",
                f"matches layers of the teacher, but {what}; {cure}leave features out",
            )
        try:
            features = self.additions.features
            assert features is not None
            FeatureLoss(features, student, network_of(teacher), x, 0).stop()
        except RecipeError as error:
            raise RecipeError(f"{key}.{error.key}", error.problem) from error
