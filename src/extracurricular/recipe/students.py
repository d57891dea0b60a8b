"""The section of a student in a recipe, and the sections inside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from extracurricular.errors import RecipeError, known_names, shorten
from extracurricular.registry import split_spec
from extracurricular.training import Training


def check_spec(value: Any) -> Any:
    """Refuse what is no NAME and no {NAME: {setting: value}}."""
    try:
        split_spec(value, "choice", "")
    except RecipeError as error:
        raise ValueError(error.problem) from None
    return value


def check_chain(value: Any) -> Any:
    """Refuse what is no chain of samplers."""
    if not isinstance(value, list | str):
        raise ValueError(
            f"is {shorten(value)}; a sampler is a list such as [empirical, {{mixup: {{alpha: 1}}}}]"
        )
    return value


Chain = Annotated[Any, AfterValidator(check_chain)]

# NAME or {NAME: {setting: value}}. Which names and settings there are is for the registries to say.
Spec = Annotated[Any, AfterValidator(check_spec)]


def _name_classes(matching: dict[str, Any]) -> dict[str, Any]:
    """Return settings of a loss whose classes have texts for names, as JSON will have them."""
    weights = matching.get("class_weight")
    if not isinstance(weights, Mapping):
        return matching
    return {**matching, "class_weight": {str(name): weight for name, weight in weights.items()}}


# Settings of a loss; which there are is for the loss to say.
Loss = Annotated[dict[str, Any], AfterValidator(_name_classes)]


class Section(BaseModel):
    """A part of a recipe."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class MasterySection(Section):
    """Measure how well a student masters the stored examples.

    Args:
        held_out: Part of the training examples to keep out of its draws, in (0, 1), at most 512
            examples: to the end, or with ``share: auto`` for the first 30 % of the training. The
            teacher has been trained on them too.
    """

    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1


class CandidateSection(Section):
    """What a candidate for a student has of its own; the rest is the student's.

    Args:
        sampler: The source of its training examples; null for the student's.
        matching: Settings of the loss that differ from the student's.
    """

    sampler: Annotated[Any, AfterValidator(lambda v: None if v is None else check_chain(v))] = None
    matching: Loss = Field(default_factory=dict)


class ChooseSection(Section):
    """Choose a student's draws or loss among candidates, by held-out KL from the teacher.

    Args:
        among: The candidates by name, at least two.
        after: The parts of the training, rising in (0, 1), after each of which the worse half of
            the candidates stops; after the last, all but the best.
    """

    among: dict[str, CandidateSection]
    after: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1)] = Field(
        default_factory=lambda: [0.5]
    )

    @field_validator("after")
    @classmethod
    def _check_order(cls, value: list[float]) -> list[float]:
        if sorted(set(value)) != value:
            raise ValueError(f"is {value}; the parts must rise, as in [0.25, 0.5]")
        return value

    @field_validator("among")
    @classmethod
    def _check_names(cls, value: dict[str, Any]) -> dict[str, Any]:
        if len(value) < 2:
            raise ValueError(f"has {len(value)} candidates; a choice needs at least two")
        for name in value:
            if not re.fullmatch(r"[^\W\d][\w-]*", name):
                raise ValueError(
                    f"has a candidate {name!r}; a name begins with a letter and has letters, "
                    "digits, '-' and '_'"
                )
        return value


class CostSection(Section):
    """Give a student as many steps as cost what the training of another student costs.

    Args:
        of: The other student.
        unit: ``multiply_adds``, those of the teacher's answers included; or ``steps``, those of all
            candidates of a student that is chosen.
    """

    of: str
    unit: Literal["multiply_adds", "steps"] = "multiply_adds"


class StudentSection(Section):
    """One student.

    Args:
        learns_from: ``teacher``, or ``labels`` for training without one (ERM).
        model: The network.
        distribution: The family of its distributions, such as ``student_t`` or ``dirichlet``; null
            for the usual one, a Gaussian or probabilities.
        sampler: The source of its training examples.
        matching: Divergence, temperature, weight of the label term, weights of the classes in what
            comes from labels, and weight of the variance.
        training: The training.
        mastery: Examples to keep out of its draws, to measure its mastery of the stored ones; null
            to measure it only where the sampler's ``share`` is ``auto``.
        choose: Candidates among which its sampler or loss is chosen; null for no choice.
        cost: Another student whose training costs as much: ``training.steps`` is set by it; null to
            train as many steps as that says.
    """

    learns_from: Literal["teacher", "labels"] = "teacher"
    model: Spec
    distribution: Annotated[Any, AfterValidator(lambda v: None if v is None else check_spec(v))] = (
        None
    )
    sampler: Chain = Field(default_factory=lambda: ["empirical"])
    matching: Loss = Field(default_factory=dict)
    training: Training = Training()
    mastery: MasterySection | None = None
    choose: ChooseSection | None = None
    cost: CostSection | None = None


def check_cost(name: str, other: str, students: Mapping[str, StudentSection]) -> None:
    """Refuse a student whose cost is that of no student, or of one without steps of its own.

    Raises:
        ValueError: It is.
    """
    key = f"students.{name}.cost.of is {other!r}"
    if other not in students:
        raise ValueError(f"{key}, which is no student; {known_names(other, students)}")
    if other == name or students[other].cost is not None:
        what = "the student itself" if other == name else "whose own steps are set by its cost"
        raise ValueError(f"{key}, {what}; name one that has a number of steps of its own")
