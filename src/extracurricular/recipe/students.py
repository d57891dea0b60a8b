"""The section of a student in a recipe, and the sections inside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from extracurricular.errors import RecipeError, known_names, shorten
from extracurricular.recipe.calibrate import spelt_out, stated, switch
from extracurricular.registry import split_spec
from extracurricular.training import Training
from extracurricular.training.settings import MOST_BATCH


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

# Draws that an estimator is fitted to, where the recipe sets none.
DRAWS = 20_000

FOR_NETWORKS = (
    "model", "distribution", "matching", "training", "mastery", "choose", "cost", "sizes",
    "start", "features", "quantise",
)  # fmt: skip
"""The settings of a student that an estimator has not; it takes none of them from ``defaults``."""


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


class StartSection(Section):
    """Weights that a student starts its training from, instead of random ones.

    Args:
        path: The file: safetensors, or a checkpoint of torch (see docs/models.md).
        key: Where the weights stand in that file (``model_ema``), or the first part of their names
            (``student``); null to find them.
        strict: Whether all weights must fit. With false, those that the student lacks or has in
            another shape, such as a head for other classes, are skipped, and it is told which.
    """

    path: str
    key: str | None = None
    strict: bool = True


class FeaturesSection(Section):
    """Match a layer of the student to a layer of the teacher, beside the distributions.

    The teacher must be a network that is asked at each step; of an ensemble it is the first member.
    A layer that turns the student's channels into the teacher's is trained too, and dropped at the
    end. A wrong name is told with those that there are.

    Args:
        student: Name of the student's layer, as torch's ``named_modules`` has it.
        teacher: Name of the teacher's layer.
        loss: ``mse`` (FitNets), ``attention`` (maps of activity) or ``similarity`` (of all pairs of
            examples).
        weight: Weight of it beside the matching.
    """

    student: str
    teacher: str
    loss: Literal["mse", "attention", "similarity"] = "mse"
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0


def _spell_start(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


class CostSection(Section):
    """Give a student as many steps as cost what the training of another student costs.

    Args:
        of: The other student.
        unit: ``multiply_adds``, those of the teacher's answers included; or ``steps``, those of all
            candidates of a student that is chosen.
    """

    of: str
    unit: Literal["multiply_adds", "steps"] = "multiply_adds"


class LimitSection(Section):
    """The most that a student may cost on its target; at least one of them is set.

    Args:
        ms: Milliseconds for one example, measured on this machine, on one thread of its CPU, with
            the exported file; null for no limit.
        bytes: Bytes of the exported file; null for no limit.
        multiply_adds: Multiply-adds for one example; null for no limit.
    """

    ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    bytes: Annotated[int, Field(ge=1)] | None = None
    multiply_adds: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _check_some(self) -> LimitSection:
        if not self.model_dump(exclude_none=True):
            raise ValueError("has no limit; set ms, bytes or multiply_adds")
        return self


class ConformalSection(Section):
    """Intervals or sets of a stated coverage.

    Args:
        coverage: The part of new examples whose label is inside. It needs at least
            1 / (1 - coverage) - 1 validation examples: 9 for 0.9, 99 for 0.99.
    """

    coverage: Annotated[float, Field(gt=0, lt=1)] = 0.9


class CalibrateSection(Section):
    """Calibrate a finished model on the validation examples; nothing is trained again.

    It is written as the name of a method, ``temperature``, ``variance`` or ``conformal``; as a list
    of these; or as below (docs/calibrate.md).

    Args:
        temperature: Divide the logits of classes or labels by the number that has the least NLL.
        variance: Multiply the variance of each real target by the number that has the least NLL.
        conformal: Give intervals of real targets, or sets of classes, with a stated coverage; null
            for none. They are those of the answers as the others have changed them.
    """

    temperature: Annotated[bool, BeforeValidator(switch)] = False
    variance: Annotated[bool, BeforeValidator(switch)] = False
    conformal: Annotated[ConformalSection | None, BeforeValidator(stated)] = None

    @model_validator(mode="after")
    def _check_any(self) -> CalibrateSection:
        if self.temperature and self.variance:
            raise ValueError(
                "has both temperature, which is for classes and labels, and variance, which is for "
                "real targets; it needs only one of them"
            )
        if not self.temperature and not self.variance and self.conformal is None:
            raise ValueError("names no method; set it to null for none")
        return self

    @property
    def changes(self) -> dict[str, bool]:
        """The methods that change distributions, as plain values; empty where none does."""
        methods = {"temperature": self.temperature, "variance": self.variance}
        return {name: True for name, used in methods.items() if used}


class StudentSection(Section):
    """One student.

    Args:
        learns_from: ``teacher``, or ``labels`` for training without one (ERM).
        model: The network.
        distribution: The family of its distributions, such as ``student_t`` or ``dirichlet``; null
            for the usual one, a Gaussian or probabilities.
        estimator: A student that is no network: trees of scikit-learn, fitted to the teacher's
            distributions on draws (``gradient_boosting``, ``random_forest``, ``extra_trees``,
            ``sklearn``); null for a network.
        draws: Draws that an estimator is fitted to; null for 20,000.
        sampler: The source of its training examples.
        matching: Divergence, temperature, weight of the label term, weights of the classes in what
            comes from labels, and weight of the variance.
        training: The training.
        mastery: Examples to keep out of its draws, to measure its mastery of the stored ones; null
            to measure it only where the sampler's ``share`` is ``auto``.
        choose: Candidates among which its sampler or loss is chosen; null for no choice.
        cost: Another student whose training costs as much: ``training.steps`` is set by it; null to
            train as many steps as that says.
        start: Weights to start from: a path, or ``{path: FILE, key: …, strict: …}``; null for
            random ones.
        features: Layers of student and teacher to match; null for none.
        quantise: ``int8`` to train with simulated 8-bit arithmetic, so that ``xcl export --int8``
            loses less; null for none.
        sizes: Further networks, each of which becomes a student that is trained as this one is;
            they are shown with their cost, float and 8 bits (docs/models.md).
        calibrate: Calibration of the trained student on the validation examples: ``temperature``,
            ``variance``, ``conformal``, a list of these, or a section; null for none.
    """

    learns_from: Literal["teacher", "labels"] = "teacher"
    model: Annotated[Any, AfterValidator(lambda v: None if v is None else check_spec(v))] = None
    distribution: Annotated[Any, AfterValidator(lambda v: None if v is None else check_spec(v))] = (
        None
    )
    estimator: Annotated[Any, AfterValidator(lambda v: None if v is None else check_spec(v))] = None
    draws: Annotated[int, Field(ge=2, le=MOST_BATCH)] | None = None
    sampler: Chain = Field(default_factory=lambda: ["empirical"])
    matching: Loss = Field(default_factory=dict)
    training: Training = Training()
    mastery: MasterySection | None = None
    choose: ChooseSection | None = None
    cost: CostSection | None = None
    start: Annotated[StartSection | None, BeforeValidator(_spell_start)] = None
    features: FeaturesSection | None = None
    quantise: Literal["int8"] | None = None
    sizes: list[Spec] = Field(default_factory=list)
    calibrate: Annotated[CalibrateSection | None, BeforeValidator(spelt_out)] = None

    @property
    def budget(self) -> int:
        """Draws that an estimator is fitted to."""
        return DRAWS if self.draws is None else self.draws

    @model_validator(mode="after")
    def _check_kind(self) -> StudentSection:
        if self.estimator is None:
            if self.model is None:
                raise ValueError("has neither model nor estimator; it needs one of them")
            if self.draws is not None:
                raise ValueError(
                    f"draws is {self.draws}, but a network has training.steps of "
                    "training.batch_size; remove draws"
                )
            return self
        for key in FOR_NETWORKS:
            usual = StudentSection.model_fields[key].get_default(call_default_factory=True)
            if getattr(self, key) != usual:
                raise ValueError(f"{key} is for networks, but estimator is set; remove one of them")
        return self


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
    if students[other].estimator is not None:
        raise ValueError(f"{key}, which is an estimator and has no steps; name a network")
