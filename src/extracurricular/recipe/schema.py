"""The schema of a recipe: its sections, their settings, and the values these may have.

A recipe says which data, which teacher and which students to train and compare. Each setting has a
dotted path (``students.xcl.matching.temperature``), which names it in overrides and errors.
:mod:`extracurricular.recipe.read` reads recipes from files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from extracurricular.errors import known_names, shorten
from extracurricular.recipe.calibrate import spelt_out as calibrations
from extracurricular.recipe.device import DeviceSection as DeviceSection
from extracurricular.recipe.old_words import spelt_out
from extracurricular.recipe.overrides import FULL
from extracurricular.recipe.students import (
    CalibrateSection,
    Chain,
    LimitSection,
    Loss,
    Section,
    Spec,
    StudentSection,
    check_cost,
    check_spec,
)
from extracurricular.registry import split_spec
from extracurricular.training import Training

SEED = "$seed"
"""A setting of the data set with this value takes each seed in turn."""

ROLES = ("reference", "plain", "subject")
"""The fields that name a student."""

# A student with one of these names has the role, where the recipe gives it to no other.
REFERENCE = "kd"
_PLAIN = "erm"

# The defaults of a training that the recipes of finished runs have from before there was a choice.
_TRAINING_BEFORE = Training(optimizer="sgd", lr=0.1, weight_decay=5e-4)


def _check_record(value: Any) -> Any:
    if value is not None and not isinstance(value, Mapping | RecordSection):
        raise ValueError(f"is {shorten(value)}; it should be {{draws: N, codec: …}}, or null")
    if isinstance(value, Mapping) and value.get("draws") is None and value.get("codec") is not None:
        raise ValueError("codec says how a record is stored, but draws, its size, is not set")
    return value


class RecordSection(Section):
    """A record of the teacher's answers, which students replay instead of asking it.

    Args:
        draws: Number of draws on which the teacher is asked once, for all students and seeds with
            the same sampler. A longer training replays them, each time in another order.
        codec: How the answers are stored; null for float16 (see docs/knowledge.md).
    """

    draws: Annotated[int, Field(ge=1)]
    codec: Any = None


class TeacherSection(Section):
    """The teacher: networks, an estimator, an ONNX file, a function, or a file of answers.

    Exactly one of ``model``, ``estimator``, ``onnx``, ``function`` and ``answers`` is set
    (docs/teachers.md).

    Args:
        model: The network; a list makes an ensemble of several.
        estimator: An estimator fitted to the training examples: ``random_forest``,
            ``gaussian_process``, ``gradient_boosting``, ``sklearn``.
        onnx: An ONNX file: its path, or ``{path: FILE, setting: value}``.
        function: A Python function: ``module:name``, or ``{function: module:name, …}``.
        answers: A file of a teacher's answers, which is all that is left of it: its path, or
            ``{path: FILE, id: COLUMN, probabilities: COLUMNS}``.
        members: Networks of each model, trained from different seeds.
        distribution: The family of the networks' distributions, as a student's; null for the usual.
        sampler: The source of the teacher's training examples.
        matching: The loss of that training, from labels.
        training: The training of each network.
        weights: A file of trained weights, which replaces training (one network only):
            safetensors, or a checkpoint of torch (see docs/models.md).
        key: Where the weights stand in that file (``model_ema``), or the first part of their names
            (``teacher``); null to find them.
        classes: Names of the teacher's classes in its own order, for a teacher that was made
            elsewhere (``weights``, ``onnx``, ``function``); null where that is the order of the
            data's.
        mc_dropout: Passes of Monte Carlo dropout; null for none.
        per_seed: Train a teacher for each seed, so that the interval covers its luck too; or one
            for all, which costs less.
        record: Ask the teacher once and keep its answers; null to ask it in every training.
        calibrate: Calibration of the teacher on the validation examples before any student learns
            from it: as for a student.
    """

    model: Any = None
    estimator: Any = None
    onnx: dict[str, Any] | None = None
    function: dict[str, Any] | None = None
    answers: dict[str, Any] | None = None
    members: Annotated[int, Field(ge=1, le=1000)] = 1
    distribution: Annotated[Any, AfterValidator(lambda v: None if v is None else check_spec(v))] = (
        None
    )
    sampler: Chain = Field(default_factory=lambda: ["empirical"])
    matching: Loss = Field(default_factory=dict)
    training: Training = Training()
    weights: str | None = None
    key: str | None = None
    classes: Annotated[list[str | int], Field(min_length=2)] | None = None
    mc_dropout: Annotated[int, Field(ge=1, le=10_000)] | None = None
    per_seed: bool = False
    record: Annotated[RecordSection | None, BeforeValidator(_check_record)] = None
    calibrate: Annotated[CalibrateSection | None, BeforeValidator(calibrations)] = None

    @property
    def networks(self) -> list[Spec]:
        """The model of each member; none if the teacher is no network."""
        if self.fitted is not None:
            return []
        models = self.model if isinstance(self.model, list) else [self.model]
        return [model for model in models for _ in range(self.members)]

    @property
    def fitted(self) -> dict[str, Any] | None:
        """The spec ``{name: settings}`` of a teacher that is no network; None for networks."""
        if self.estimator is not None:
            name, settings = split_spec(self.estimator, "teacher", self.fitted_key)
            return {name: settings}
        ordered = {} if self.classes is None else {"classes": list(self.classes)}
        if self.onnx is not None:
            return {"onnx": {**self.onnx, **ordered}}
        if self.answers is not None:
            return {"answers": self.answers}
        return None if self.function is None else {"function": {**self.function, **ordered}}

    @property
    def fitted_key(self) -> str:
        """The dotted path at which :attr:`fitted` stands."""
        return "teacher" if self.estimator is None else "teacher.estimator"

    @field_validator("model")
    @classmethod
    def _check_models(cls, value: Any) -> Any:
        for spec in value if isinstance(value, list) else [] if value is None else [value]:
            check_spec(spec)
        return value

    @field_validator("estimator")
    @classmethod
    def _check_estimator(cls, value: Any) -> Any:
        if value is None:
            return None
        name, _ = split_spec(check_spec(value), "teacher", "")
        if name in ("onnx", "function", "answers"):
            raise ValueError(f"is {name!r}, which has a word of its own: set teacher.{name}")
        return value

    @field_validator("onnx", "function", "answers", mode="before")
    @classmethod
    def _spell_out(cls, value: Any, info: ValidationInfo) -> Any:
        settings = spelt_out(str(info.field_name), value)
        if settings is not None and not isinstance(settings, Mapping):
            raise ValueError(f"is {shorten(value)}; it should be a text or {{setting: value}}")
        return settings

    @model_validator(mode="after")
    def _check_kind(self) -> TeacherSection:
        fitted = ("estimator", "onnx", "function", "answers")
        kinds = [kind for kind in fitted if getattr(self, kind) is not None]
        if len(kinds) > 1:
            raise ValueError(f"has both {kinds[0]} and {kinds[1]}; it needs only one of them")
        if not kinds and self.model is None:
            raise ValueError(
                "has neither model nor estimator, onnx, function or answers; it needs one of them"
            )
        if self.answers is not None and self.record is not None:
            raise ValueError("record is set, but answers are a record already; set record to null")
        if self.classes is not None and self.weights is None and self.fitted is None:
            raise ValueError(
                "classes is set, but the teacher is trained here, in the order of the data's"
            )
        if self.classes is not None and (self.estimator or self.answers) is not None:
            raise ValueError(
                f"classes is for weights, onnx and function, but {kinds[0]} is set; it knows the "
                "classes by their names"
            )
        for_networks = (
            "model", "members", "distribution", "sampler", "matching", "training", "weights",
            "key", "mc_dropout",
        )  # fmt: skip
        for key in for_networks if kinds else ():
            usual = [TeacherSection.model_fields[key].get_default(call_default_factory=True)]
            usual += [_TRAINING_BEFORE] if key == "training" else []
            if getattr(self, key) not in usual:
                raise ValueError(
                    f"{key} is for networks, but {kinds[0]} is set; remove one of them"
                )
        return self

    @model_validator(mode="after")
    def _check_networks(self) -> TeacherSection:
        if not self.networks and self.fitted is None:
            raise ValueError("model is an empty list; it needs at least one model")
        if self.key is not None and self.weights is None:
            raise ValueError(f"key is {shorten(self.key)}, but weights, its file, is not set")
        if self.weights is not None and len(self.networks) > 1:
            raise ValueError(
                f"weights holds one network, but there are {len(self.networks)} members"
            )
        return self


class GeneratorSection(Section):
    """A model of the data distribution, for the samplers ``generated`` and ``pool``.

    Args:
        model: Its kind: ``gan``, ``gmm``, ``kde``, ``module``, ``diffusers``.
        least_variety: Distance between its draws of one condition, as a part of that between real
            examples. Below this it counts as collapsed and the run stops; 0 never stops it.
    """

    model: Spec
    least_variety: Annotated[float, Field(ge=0)] = 0.5


class EvaluationSection(Section):
    """The measurement of results.

    Args:
        split: ``test`` for final figures; ``validation`` while settings are being chosen.
        batch_size: Examples at once; it does not change the figures.
    """

    split: Literal["test", "validation"] = "test"
    batch_size: Annotated[int, Field(ge=1)] = 1024


class WithinSection(Section):
    """The choice that a time budget made, by which the recipe that a run keeps was cut.

    Args:
        minutes: The budget.
        part: Part of the steps that each training keeps, in (0, 1].
        without: Candidates and sizes that are left out, by their keys.
    """

    minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    part: Annotated[float, Field(gt=0, le=1)]
    without: list[str] = Field(default_factory=list)


_LONGEST_NAME = 100
_MOST_TRAININGS = 20_000


def _check_name(name: str) -> None:
    """Refuse a name that no folder of a run can have."""
    usable = name.strip() == name and name.isprintable() and not set(name) & set("/\\")
    if not usable or not name or name.startswith(".") or len(name) > _LONGEST_NAME:
        raise ValueError(
            f"name is {shorten(name)}; it names the run's folder, so it must be of 1 to "
            f"{_LONGEST_NAME} printable characters, none of them / or \\, and begin with no dot"
        )


class Recipe(Section):
    """A whole recipe.

    Args:
        schema: Version of this schema, 1.
        name: Its name.
        about: What it shows, for the person who lists recipes.
        budget: ``full`` for the recipe as it is written; or one of those in its section
            ``budgets``, with its changes: ``{tiny: {seeds: [0]}}``.
        data: The data set. A setting whose value is ``$seed`` takes each seed in turn (a published
            split for each); the teacher is then one for each seed too.
        seeds: Everything is trained once for each.
        teacher: The teacher.
        generators: Models of the data distribution by name.
        students: Students by name.
        reference: The student from which the gap to the teacher is measured, by default the one
            called ``kd``; null to measure no gap.
        plain: The student that learns without a teacher, by default the one called ``erm``; null
            for none.
        subject: The student that the verdict, the gallery, ``export`` and ``load`` are about; by
            default the first that learns from the teacher and is neither ``reference`` nor
            ``plain``.
        front: Students whose error is shown against time, bytes and multiply-adds of their exported
            files; by default those with ``sizes``, or all if there is a ``limit``.
        limit: The most that a student may cost on its target; the best student of ``front`` within
            it is named, by its error on validation examples. Null for no limit.
        within: What ``--minutes`` chose, once it is done to the recipe; null in a recipe of your
            own.
        evaluation: The measurement of results.
        device: The device to compute on.
        keep: The most examples of a split that a run keeps: of the split that results are measured
            on, to verify exports; and of the training split, to calibrate 8 bits. With 0 it keeps
            none, shows no draws on its page, and its exports are not verified.
        log: Where the curves go while it runs, besides ``log.jsonl``: ``tensorboard``, ``wandb``,
            any class of a Lightning logger, or a list of them.
    """

    schema_version: Literal[1] = Field(default=1, alias="schema")
    name: str
    about: str = ""
    budget: Spec = FULL
    data: Spec
    seeds: Annotated[list[int], Field(min_length=1)] = Field(default_factory=lambda: [0])
    teacher: TeacherSection
    generators: dict[str, GeneratorSection] = Field(default_factory=dict)
    students: Annotated[dict[str, StudentSection], Field(min_length=1)]
    reference: str | None = None
    plain: str | None = None
    subject: str = ""
    front: list[str] = Field(default_factory=list)
    limit: LimitSection | None = None
    within: WithinSection | None = None
    evaluation: EvaluationSection = EvaluationSection()
    device: DeviceSection = DeviceSection()
    keep: Annotated[int, Field(ge=0)] = 256
    log: Any = None

    @model_validator(mode="before")
    @classmethod
    def _give_roles(cls, values: Any) -> Any:
        return {**values, **roles(values)} if isinstance(values, Mapping) else values

    @field_validator(*ROLES)
    @classmethod
    def _check_role(cls, value: str | None, info: ValidationInfo) -> str | None:
        students = info.data.get("students")
        if value is not None and students is not None and value not in students:
            raise ValueError(f"is {value!r}, which is no student; {known_names(value, students)}")
        return value

    @field_validator("front")
    @classmethod
    def _check_front(cls, value: list[str], info: ValidationInfo) -> list[str]:
        for name in value:
            cls._check_role(name, info)
        return value

    @model_validator(mode="after")
    def _check_whole(self) -> Recipe:
        _check_name(self.name)
        _check_name(self.folder_name)
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds are {self.seeds}; each may occur only once")
        for what, names in (("student", self.students), ("generator", self.generators)):
            for name in names:
                letters = all(c.isalnum() or c in "-_." for c in name)
                if not name or not letters or name[0] == "." or len(name) > _LONGEST_NAME:
                    raise ValueError(
                        f"a {what} is called {shorten(name)}; a name has letters, digits, '-', '_' "
                        f"and '.', at most {_LONGEST_NAME} of them"
                    )
        for name, student in self.students.items():
            if student.cost is not None:
                check_cost(name, student.cost.of, self.students)
        trainings = len(self.seeds) * (len(self.students) + len(self.teacher.networks))
        if trainings > _MOST_TRAININGS:
            raise ValueError(
                f"seeds are {len(self.seeds):,}, which makes {trainings:,} trainings; there may be "
                f"at most {_MOST_TRAININGS:,}"
            )
        if "teacher" in self.students:
            raise ValueError("a student is called 'teacher', which the tables have already")
        if self.data_varies and not self.teacher.per_seed:
            raise ValueError(
                f"data has a setting {SEED!r}, so each seed has data of its own and needs a "
                "teacher of its own: set teacher.per_seed to true"
            )
        return self

    @property
    def budget_name(self) -> str:
        """Name of the budget that it has."""
        name, _ = split_spec(self.budget, "budget", "budget")
        return name

    @property
    def budget_changes(self) -> dict[str, Any]:
        """The changes that the budget made, by dotted path."""
        _, changes = split_spec(self.budget, "budget", "budget")
        return changes

    @property
    def folder_name(self) -> str:
        """Name of the run's folder, unless the person gives another."""
        return self.name if self.budget_name == FULL else f"{self.name}-{self.budget_name}"

    @property
    def data_varies(self) -> bool:
        """Whether each seed has data of its own."""
        return bool(self.data_of(0) != self.data)

    def data_of(self, seed: int) -> Spec:
        """Return the data set of one seed: ``$seed`` replaced."""
        if not isinstance(self.data, Mapping):
            return self.data
        return {
            name: {k: seed if v == SEED else v for k, v in settings.items()}
            if isinstance(settings, Mapping)
            else settings
            for name, settings in self.data.items()
        }

    def dump(self) -> dict[str, Any]:
        """Return the recipe as plain values, with defaults and roles filled in."""
        return self.model_dump(mode="json", by_alias=True)


def roles(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``reference``, ``plain`` and ``subject`` of a recipe that may leave them out.

    Args:
        values: The recipe as plain values, valid or not. The section ``defaults`` may still be
            there, or merged into the students.
    """
    students, defaults = values.get("students"), values.get("defaults")
    if not isinstance(students, Mapping) or not students:
        return {role: values.get(role) for role in ("reference", "plain")}
    found = {
        "reference": values.get("reference", REFERENCE if REFERENCE in students else None),
        "plain": values.get("plain", _PLAIN if _PLAIN in students else None),
    }
    usual = defaults.get("learns_from", "teacher") if isinstance(defaults, Mapping) else "teacher"
    others = [name for name in students if name not in found.values()]
    taught = [name for name in others if _learns_from(students[name], usual) == "teacher"]
    best = [values.get("subject"), *taught, *others, found["reference"], found["plain"]]
    return {**found, "subject": next((name for name in best if name is not None), None)}


def _learns_from(student: Any, usual: Any) -> Any:
    return student.get("learns_from", usual) if isinstance(student, Mapping) else usual
