"""What a training has besides its loss: features to match, and simulated 8-bit arithmetic.

Both are off unless they are asked for, and neither is in the weights that a training leaves.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from extracurricular.errors import RecipeError
from extracurricular.inputs import Inputs
from extracurricular.samplers.base import Sampler
from extracurricular.teachers.base import Teacher
from extracurricular.teachers.order import first_network
from extracurricular.training.features import FeatureLoss, Features, in_evaluation
from extracurricular.training.simulated import Ranges, Simulated, folded_norms

Bits = Literal["int8"]


@dataclass(frozen=True)
class Additions:
    """What a training has besides its loss.

    Args:
        features: The layers to match; None for none.
        quantise: ``int8`` to simulate 8-bit arithmetic; None for none.
    """

    features: Features | None = None
    quantise: Bits | None = None


class Added:
    """The additions of one training at work.

    Args:
        additions: What there is.
        student: The network, on its device.
        sampler: Source of its examples.
        teacher: Its teacher.
        seed: Seed of the training.

    Raises:
        RecipeError: The teacher has no layers, or a layer is not there.
    """

    def __init__(
        self,
        additions: Additions,
        student: nn.Module,
        sampler: Sampler,
        teacher: Teacher,
        seed: int,
    ) -> None:
        self.features: FeatureLoss | None = None
        self.simulated: Simulated | None = None
        if additions.features is None and additions.quantise is None:
            return
        x = sampler(torch.arange(2, device=next(student.parameters()).device)).x
        if additions.features is not None:
            network = network_of(teacher)
            self.features = FeatureLoss(additions.features, student, network, x, seed)
        if additions.quantise is not None:
            with in_evaluation(student):
                folded = folded_norms(student, partial(student, x))
            self.simulated = Simulated(student, folded)

    @property
    def relates(self) -> bool:
        """Whether what is added to the loss of an example depends on the others of its batch."""
        return self.features is not None and self.features.features.relates

    @property
    def projector(self) -> nn.Module:
        """What is trained besides the student; it may have no weights."""
        return nn.Identity() if self.features is None else self.features.projector

    def loss(
        self, x: Inputs, weight: Tensor | None, autocast: AbstractContextManager[None]
    ) -> Tensor | None:
        """Return what is added to the loss of a batch, a scalar; None for nothing.

        Args:
            x: The inputs that the student was just called on.
            weight: Weight of each example, [B].
            autocast: The precision in which the teacher is asked.
        """
        return None if self.features is None else self.features(x, weight, autocast)

    def at(self, step: int, steps: int) -> None:
        """Say which step of a training of so many comes next."""
        if self.simulated is not None:
            self.simulated.at(step, steps)

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors that a step changes."""
        own: list[Tensor] = [*self.projector.parameters()]
        return own if self.simulated is None else [*own, *self.simulated.tensors]

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs; empty where nothing is added."""
        found: dict[str, Any] = {}
        if self.features is not None:
            found["projector"] = self.projector.state_dict()
        if self.simulated is not None:
            found["simulated"] = self.simulated.state()
        return found

    def restore(self, state: dict[str, Any]) -> None:
        """Take over the state of a checkpoint."""
        if self.features is not None:
            self.projector.load_state_dict(state["projector"])
        if self.simulated is not None:
            self.simulated.restore(state["simulated"])

    def stop(self) -> Ranges | None:
        """Leave the student as it was built; return the ranges of its layers in 8 bits."""
        if self.features is not None:
            self.features.stop()
        if self.simulated is None:
            return None
        found = self.simulated.found()
        self.simulated.stop()
        return found


def network_of(teacher: Teacher) -> nn.Module:
    """Return the network whose features a teacher gives: of an ensemble, that of its first member.

    Raises:
        RecipeError: The teacher is no network here.
    """
    found: nn.Module | None = first_network(teacher)
    if found is not None:
        return found
    raise RecipeError(
        "features",
        f"matches layers of the teacher, but it is no network ({type(teacher).__name__}): only its "
        "answers are at hand; give a network as the teacher, or leave features out",
    )
