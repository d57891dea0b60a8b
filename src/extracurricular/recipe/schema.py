"""The schema of a recipe file, and how one is read.

A recipe says which data, which teacher, and which students to train and compare. It is YAML, read
with the safe loader; keys that the schema does not know are refused. Everything a recipe can set
has a dotted path (``students.xcl.matching.temperature``), which names it in overrides and errors.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from extracurricular.errors import RecipeError, known_names, shorten
from extracurricular.recipe.overrides import FULL, Loader, override_recipe
from extracurricular.recipe.overrides import override as override
from extracurricular.registry import explain_validation, first_complaint, split_spec
from extracurricular.training import Training


def _check_spec(value: Any) -> Any:
    try:
        split_spec(value, "choice", "")
    except RecipeError as error:
        raise ValueError(error.problem) from None
    return value


def _check_chain(value: Any) -> Any:
    if not isinstance(value, list | str):
        raise ValueError(
            f"is {shorten(value)}; a sampler is a list such as [empirical, {{mixup: {{alpha: 1}}}}]"
        )
    return value


Chain = Annotated[Any, AfterValidator(_check_chain)]

# A setting of the data set with this value takes each seed in turn.
SEED = "$seed"

# NAME or {NAME: {setting: value}}. What names and settings there are is for the registries to say.
Spec = Annotated[Any, AfterValidator(_check_spec)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TeacherSection(_Section):
    """The teacher: one network, or an ensemble, trained here or read from a file; or no network.

    Args:
        model: The network; a list of several makes an ensemble of them.
        outside: A teacher that is no torch module, instead of ``model``: ``random_forest``,
            ``gaussian_process``, ``gradient_boosting``, ``sklearn``, ``onnx``, ``function`` (see
            docs/teachers.md).
        members: Networks of each model, trained from different seeds.
        sampler: Where the teacher's training examples come from.
        training: How it is trained.
        weights: A file of trained weights, instead of training (one network only): safetensors,
            or a checkpoint of torch (see docs/models.md).
        mc_dropout: Passes of Monte Carlo dropout; null for none.
        per_seed: Train a teacher for each seed, so that the interval covers its luck too; or one
            for all, which costs less.
        record: Draws on which the teacher is asked once, for all students and seeds that have the
            same sampler; a longer training goes through them again, each time in another order.
            Null to ask it in every training.
        codec: How what it said is stored; null for float16 (see docs/knowledge.md).
    """

    model: Any = None
    outside: Any = None
    members: Annotated[int, Field(ge=1)] = 1
    sampler: Chain = Field(default_factory=lambda: ["empirical"])
    training: Training = Training()
    weights: str | None = None
    mc_dropout: Annotated[int, Field(ge=1)] | None = None
    per_seed: bool = False
    record: Annotated[int, Field(ge=1)] | None = None
    codec: Any = None

    @property
    def networks(self) -> list[Spec]:
        """The model of each member."""
        if self.outside is not None:
            return []
        models = self.model if isinstance(self.model, list) else [self.model]
        return [model for model in models for _ in range(self.members)]

    @field_validator("model")
    @classmethod
    def _specs(cls, value: Any) -> Any:
        if value is None:
            return None
        for spec in value if isinstance(value, list) else [value]:
            _check_spec(spec)
        return value

    @field_validator("outside")
    @classmethod
    def _outside_spec(cls, value: Any) -> Any:
        return value if value is None else _check_spec(value)

    @model_validator(mode="after")
    def _model_or_outside(self) -> TeacherSection:
        if self.outside is None and self.model is None:
            raise ValueError("has neither model nor outside; it needs one of them")
        if self.outside is not None:
            fresh = TeacherSection.model_fields
            of_networks = ("model", "members", "sampler", "training", "weights", "mc_dropout")
            given = [
                k
                for k in of_networks
                if getattr(self, k) != fresh[k].get_default(call_default_factory=True)
            ]
            if given:
                raise ValueError(
                    f"{given[0]} is for networks, but outside is set: the teacher is none"
                )
        return self

    @model_validator(mode="after")
    def _one_file_one_network(self) -> TeacherSection:
        if not self.networks and self.outside is None:
            raise ValueError("model is an empty list; it needs at least one model")
        if self.codec is not None and self.record is None:
            raise ValueError("codec says how a record is stored, but record is not set")
        if self.weights is not None and len(self.networks) > 1:
            raise ValueError(
                f"weights holds one network, but there are {len(self.networks)} members"
            )
        return self


class StudentSection(_Section):
    """One student.

    Args:
        learns_from: ``teacher``, or ``labels`` for training without one (ERM).
        model: The network.
        sampler: Where the examples come from.
        matching: Divergence, temperature and share of the hard-label term.
        training: How it is trained.
    """

    learns_from: Literal["teacher", "labels"] = "teacher"
    model: Spec
    sampler: Chain = Field(default_factory=lambda: ["empirical"])
    matching: dict[str, Any] = Field(default_factory=dict)
    training: Training = Training()


class GeneratorSection(_Section):
    """A model of the data distribution, for the samplers ``generated`` and ``pool``.

    Args:
        model: What it is: ``gan``, ``gmm``, ``kde``, ``module``, ``diffusers``.
        least_variety: Distance between its draws of one condition, as a part of that between real
            examples, below which it counts as collapsed and the run stops; 0 to use it regardless.
    """

    model: Spec
    least_variety: Annotated[float, Field(ge=0)] = 0.5


class EvaluationSection(_Section):
    """How results are measured.

    Args:
        split: ``test`` for final figures; ``validation`` while settings are being chosen.
        batch_size: Examples at once; it does not change the figures.
    """

    split: Literal["test", "validation"] = "test"
    batch_size: Annotated[int, Field(ge=1)] = 1024


class DeviceSection(_Section):
    """Where and how precisely to compute (names as in Lightning Fabric).

    Args:
        accelerator: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``.
    """

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"


class Recipe(_Section):
    """A whole recipe.

    Args:
        schema: Version of this schema, 1.
        name: Its name.
        about: What it shows, for the person who lists recipes.
        budget: ``full`` for the recipe as it is written; or one of those in its section
            ``budgets``, with what it changed: ``{tiny: {seeds: [0]}}``.
        data: The data set. A setting whose value is ``$seed`` takes each seed in turn (a published
            split for each); the teacher is then one for each seed too.
        seeds: Everything is trained once for each.
        teacher: The teacher.
        generators: Models of the data distribution by name.
        students: Students by name; the gap is measured from the one called ``kd``.
        evaluation: How results are measured.
        device: Where to compute.
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
    evaluation: EvaluationSection = EvaluationSection()
    device: DeviceSection = DeviceSection()
    log: Any = None

    @model_validator(mode="after")
    def _sound(self) -> Recipe:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds are {self.seeds}; each may occur only once")
        for what, names in (("student", self.students), ("generator", self.generators)):
            for name in names:
                if not name or not all(c.isalnum() or c in "-_." for c in name) or name[0] == ".":
                    raise ValueError(
                        f"a {what} is called {name!r}; a name has letters, digits, '-', '_' and '.'"
                    )
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
        """What the budget changed, by dotted path."""
        _, changes = split_spec(self.budget, "budget", "budget")
        return changes

    @property
    def folder_name(self) -> str:
        """What a run's folder is called where nobody says otherwise."""
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

    def plain(self) -> dict[str, Any]:
        """Return the recipe as plain values, defaults filled in."""
        return self.model_dump(mode="json", by_alias=True)


def shipped_recipes() -> dict[str, str]:
    """Return the text of each recipe that ships with the package, by name."""
    folder = resources.files("extracurricular.recipe") / "shipped"
    return {
        file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8")
        for file in sorted(folder.iterdir(), key=lambda file: file.name)
        if file.name.endswith(".yaml")
    }


def read_recipe(source: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from a file, or by the name of a shipped one.

    Args:
        source: A path, or a shipped recipe's name.
        overrides: ``key.path=value`` each, the value in YAML; ``data.path=value`` sets the path of
            whatever data set the recipe has.

    Raises:
        RecipeError: Not found, not YAML, an unknown key, or a value that cannot be.
    """
    path, shipped = Path(source), shipped_recipes()
    if path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError("", f"the recipe {source!r} cannot be read: {error}") from None
    elif source in shipped:
        text = shipped[source]
    else:
        raise RecipeError(
            "", f"there is no recipe file {source!r}, nor a shipped recipe; "
            f"{known_names(source, shipped)}"
        )  # fmt: skip
    try:
        loaded = yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        where = " ".join(str(error).split())
        raise RecipeError("", f"the recipe {source!r} is not valid YAML: {where}") from None
    return parse_recipe(loaded, overrides)


def parse_recipe(loaded: Any, overrides: Sequence[str] = ()) -> Recipe:
    """Check what a recipe file holds.

    The section ``defaults`` gives what students do not set themselves; ``training`` and
    ``matching`` are merged key by key, everything else is replaced. The section ``budgets`` has
    changes by name, of which ``budget`` chooses (see :mod:`extracurricular.recipe.overrides`).

    Raises:
        RecipeError: An unknown key, or a value that cannot be.
    """
    if not isinstance(loaded, Mapping):
        raise RecipeError("", f"a recipe is a mapping of keys to values, not {shorten(loaded)}")
    values = _unshared(loaded)
    override_recipe(values, overrides)
    defaults = values.pop("defaults", None) or {}
    if not isinstance(defaults, Mapping):
        raise RecipeError("defaults", f"is {shorten(defaults)}; it should be a mapping")
    unknown = [key for key in defaults if key not in StudentSection.model_fields]
    if unknown:
        known = known_names(str(unknown[0]), StudentSection.model_fields)
        raise RecipeError(f"defaults.{unknown[0]}", f"unknown key {unknown[0]!r}; {known}")
    students = values.get("students")
    if isinstance(students, Mapping):
        values["students"] = {k: _with_defaults(v, defaults) for k, v in students.items()}
    top = [field.alias or name for name, field in Recipe.model_fields.items()]
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise _explain(error, top) from None


def _unshared(value: Any) -> Any:
    """Copy plain values such that what YAML's aliases share is no longer shared.

    Else a setting that is overridden in one place would change in the others too.
    """
    if isinstance(value, Mapping):
        return {key: _unshared(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_unshared(part) for part in value]
    return value


def _explain(error: ValidationError, top: list[str]) -> RecipeError:
    """Explain a schema error, with the keys known at the place where it stands."""
    place = [part for part in first_complaint(error)["loc"] if isinstance(part, str)]
    sections: dict[str, type[BaseModel]] = {
        "teacher": TeacherSection,
        "students": StudentSection,
        "generators": GeneratorSection,
        "evaluation": EvaluationSection,
        "device": DeviceSection,
    }
    known: Sequence[str] = [*top, "defaults", "budgets"]
    if "training" in place[:-1]:
        known = list(Training.model_fields)
    elif len(place) > 1 and place[0] in sections:
        known = list(sections[place[0]].model_fields)
    return explain_validation(error, "", dict.fromkeys(known))


def _with_defaults(student: Any, defaults: Mapping[str, Any]) -> Any:
    if student is None:
        student = {}
    if not isinstance(student, Mapping):
        return student
    merged = {**defaults, **student}
    for key in ("training", "matching"):
        base, own = defaults.get(key), student.get(key)
        if isinstance(base, Mapping) and isinstance(own, Mapping):
            merged[key] = {**base, **own}
    return copy.deepcopy(merged)
