"""A teacher whose classes have another order than those of the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch import nn

from extracurricular.data.base import Data
from extracurricular.distributions import Categorical, Distribution
from extracurricular.inputs import Batch, Capturable, obstacle
from extracurricular.teachers.base import HasMembers, Teacher
from extracurricular.teachers.calibrated import Calibrated
from extracurricular.teachers.networks import DropoutTeacher, EnsembleTeacher, NetworkTeacher


class Reordered(Capturable):
    """A teacher that answers with its classes in the order of the data's.

    Args:
        teacher: The teacher.
        order: The teacher's class for each class of the data.
    """

    def __init__(self, teacher: Teacher, order: Sequence[int]) -> None:
        self.teacher = teacher
        self.order = list(order)

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

    def __call__(self, batch: Batch) -> Distribution:
        """Return the teacher's distribution, over the data's classes."""
        return self.ordered(self.teacher(batch))

    def ordered(self, said: Distribution) -> Distribution:
        """Return a distribution of the teacher's over the data's classes."""
        assert isinstance(said, Categorical)
        return Categorical(said.logits[:, self.order])


class ReorderedEnsemble(Reordered):
    """The same for a teacher with members."""

    def members(self, batch: Batch) -> list[Distribution]:
        """Return each member's distribution, over the data's classes."""
        assert isinstance(self.teacher, HasMembers)
        return [self.ordered(said) for said in self.teacher.members(batch)]


def reordered(teacher: Teacher, classes: Sequence[Any] | None, data: Data) -> Teacher:
    """Return a teacher with its classes in the order of the data's.

    Args:
        teacher: The teacher.
        classes: Names of its classes in its own order; None if they have that of the data.
        data: The data set.

    Raises:
        ValueError: The names are not those of the data's classes.
    """
    if classes is None:
        return teacher
    order = class_order(classes, data)
    if order == list(range(len(order))):
        return teacher
    kind = ReorderedEnsemble if isinstance(teacher, HasMembers) else Reordered
    return kind(teacher, order)


def class_order(classes: Sequence[Any], data: Data) -> list[int]:
    """Return the teacher's class for each class of the data, by name.

    Raises:
        ValueError: The data have no classes, or the names differ; the sentence says which.
    """
    if data.task.kind != "classification":
        raise ValueError("classes is set, but the data have none")
    own = list(data.classes) or [str(k) for k in range(data.task.size)]
    given = [str(name) for name in classes]
    twice = [name for name, count in Counter(given).items() if count > 1]
    if twice:
        raise ValueError(f"classes has {twice[0]!r} more than once")
    difference = classes_differ(given, own)
    if difference:
        raise ValueError(f"classes {difference}")
    return [given.index(name) for name in own]


def classes_differ(given: Sequence[str], own: Sequence[str], most: int = 5) -> str | None:
    """Return how names differ from those of the data's classes, as a clause; None if none does."""
    lacking = [name for name in own if name not in given]
    foreign = [name for name in given if name not in own]
    parts = []
    if lacking:
        parts.append(f"lacks {_shown(lacking, most)}")
    if foreign:
        parts.append(f"has {_shown(foreign, most)}, which the data do not know")
    return " and ".join(parts) or None


def _shown(names: Sequence[str], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more


def first_network(teacher: Teacher) -> nn.Module | None:
    """Return the first network of a teacher, for its features; None if it is no network."""
    while isinstance(teacher, Reordered | Calibrated):
        teacher = teacher.teacher
    first = teacher.teachers[0] if isinstance(teacher, EnsembleTeacher) else teacher
    network = first.network if isinstance(first, DropoutTeacher) else first
    return network.module if isinstance(network, NetworkTeacher) else None
