"""The family of distributions of a network, in a run: its task, its loss, and what it asks of."""

from __future__ import annotations

from typing import Any, Protocol

from extracurricular.data.base import Data
from extracurricular.distributions import Family
from extracurricular.errors import RecipeError
from extracurricular.matching import Matching
from extracurricular.models.families import read_family, with_family
from extracurricular.teachers import HasMembers, Teacher
from extracurricular.teachers.apart import Apart


class Shaped(Protocol):
    """A training of a network that may have a family of its own."""

    @property
    def key(self) -> str:
        """Where it stands in the recipe."""
        ...

    @property
    def distribution(self) -> Any:
        """The family as a recipe writes it; None for the usual one."""
        ...

    @property
    def learns_from(self) -> str:
        """``labels`` or ``teacher``."""
        ...


def shaped(stage: Shaped, data: Data) -> Data:
    """Return a data set whose task has the family of a network.

    Raises:
        RecipeError: The family is unknown, or does not go with the data.
    """
    return with_family(data, stage.distribution, f"{stage.key}.distribution")


def own_spec(spec: Any) -> Any:
    """Return a family as a recipe writes it; None where it is the usual one, whatever its name."""
    family = read_family(spec)
    return None if family is None else family.spec


def own_matching(spec: Any, matching: dict[str, Any]) -> dict[str, Any]:
    """Return settings of a loss, with those that suit a family where they say nothing."""
    family = read_family(spec)
    return matching if family is None else {**family.matching, **matching}


def own_loss(family: Family, given: Matching | dict[str, Any] | None) -> Matching | dict[str, Any]:
    """Return a loss that a person gives for a family, or settings with those that suit it."""
    return given if isinstance(given, Matching) else {**family.matching, **(given or {})}


def asks_members(spec: Any) -> bool:
    """Return whether a network of a family learns from each member of a teacher that has some."""
    family = read_family(spec)
    return family is not None and family.members != "unused"


def told_apart(family: Family | None, teacher: Teacher) -> Teacher:
    """Return a teacher as a network learns from it: with its members, where its family asks so."""
    asks = family is not None and family.members != "unused"
    return Apart(teacher) if asks and isinstance(teacher, HasMembers) else teacher


def as_taught(stage: Shaped, teacher: Teacher) -> Teacher:
    """Return the teacher of a training as its network learns from it; see :func:`told_apart`."""
    return told_apart(read_family(stage.distribution), teacher)


def check_members(stage: Shaped, teacher: Teacher | None, matching: Matching) -> None:
    """Refuse a family that keeps an ensemble's disagreement where there is none to learn.

    Args:
        stage: The training.
        teacher: Its teacher as it will be; None where it has none.
        matching: Its loss.

    Raises:
        RecipeError: It learns from labels, or from a teacher without members, or by another loss.
    """
    family = read_family(stage.distribution)
    if family is not None and family.members == "needed":
        from_labels = stage.learns_from == "labels"
        check_needed(family, None if from_labels else teacher, matching, stage.key)


def check_needed(family: Family, teacher: Teacher | None, matching: Matching, key: str) -> None:
    """Refuse a teacher or a loss from which a family that needs members does not learn.

    Args:
        family: The family.
        teacher: The teacher; None for labels.
        matching: The loss.
        key: Where the student stands in the recipe; empty where there is none.

    Raises:
        RecipeError: They do not go together.
    """
    if not isinstance(teacher, HasMembers):
        what = (
            "labels have none" if teacher is None else "this teacher is a single network or model"
        )
        raise RecipeError(
            f"{key}.distribution".strip("."),
            f"is {family.name!r}, which learns an ensemble's disagreement from its members, but "
            f"{what}; set teacher.members to 2 or more, or choose another distribution",
        )
    if matching.divergence != "forward_kl":
        raise RecipeError(
            f"{key}.matching.divergence".strip("."),
            f"is {matching.divergence!r}, which does not see the members of an ensemble; "
            f"{family.name!r} needs 'forward_kl'",
        )
