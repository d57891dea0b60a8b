"""Read recipes: the shipped ones, those in files, and plain values.

A recipe is YAML, read with the safe loader; keys that the schema does not know are refused. Reading
goes through these steps:

1. Old words are renamed (:mod:`~extracurricular.recipe.old_words`), and paths made absolute
   (:mod:`~extracurricular.recipe.paths`).
2. The budget and the overrides are applied (:mod:`~extracurricular.recipe.overrides`).
3. Named chains are written out (:mod:`~extracurricular.recipe.chains`).
4. The section ``defaults`` is merged into the students, and their sizes become students of their
   own (:mod:`~extracurricular.recipe.sizes`).
5. The schema checks the result (:mod:`~extracurricular.recipe.schema`).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from extracurricular.errors import OldWordWarning, RecipeError, known_names, shorten
from extracurricular.recipe.chains import expand_chains
from extracurricular.recipe.old_words import Notes, upgrade
from extracurricular.recipe.overrides import override_recipe
from extracurricular.recipe.paths import absolute_paths
from extracurricular.recipe.plain_values import MOST_BYTES, MOST_VALUES, Loader, size, unshared
from extracurricular.recipe.schema import (
    ROLES,
    DeviceSection,
    EvaluationSection,
    GeneratorSection,
    Recipe,
    RecordSection,
    TeacherSection,
    WithinSection,
    roles,
)
from extracurricular.recipe.ships import shipped_recipes
from extracurricular.recipe.sizes import expand_sizes
from extracurricular.recipe.students import FOR_NETWORKS, LimitSection, StudentSection
from extracurricular.registry import explain_validation, first_complaint
from extracurricular.training import Training

# One of these lies beside the recipe that a run keeps.
_RUN_FILES = ("environment.json", "summary.json")


def read_recipe(source: str, overrides: Sequence[str] = (), *, quiet: bool = False) -> Recipe:
    """Read a recipe from a file, or by the name of a shipped one.

    Relative paths in a file are relative to its folder; those in a shipped recipe, and in
    overrides, to the working directory.

    Args:
        source: A path, or a shipped recipe's name.
        overrides: ``key.path=value`` each, the value in YAML; ``data.path=value`` sets the path of
            whatever data set the recipe has.
        quiet: Whether old words pass without a ``OldWordWarning``, as in the recipe of a finished
            run.

    Raises:
        RecipeError: Not found, not YAML, an unknown key, or an impossible value.
    """
    loaded, base = _load(source)
    recipe, notes = _parse(loaded, overrides, base)
    _tell(notes, quiet)
    return recipe


def read_recipes(
    source: str | Recipe, changes: Iterable[Sequence[str]], *, quiet: bool = False
) -> Iterator[Recipe]:
    """Yield a recipe once for each list of overrides; its file is read once.

    Args:
        source: A path, a shipped recipe's name, or a recipe.
        changes: Lists of overrides, as :func:`read_recipe` takes them.
        quiet: Whether old words pass without a ``OldWordWarning``, which the first recipe has.

    Raises:
        RecipeError: As for :func:`read_recipe`.
    """
    loaded, base = (source.dump(), None) if isinstance(source, Recipe) else _load(source)
    for place, overrides in enumerate(changes):
        recipe, notes = _parse(loaded, overrides, base)
        _tell(notes, quiet or place > 0)
        yield recipe


def parse_recipe(loaded: Any, overrides: Sequence[str] = (), *, quiet: bool = False) -> Recipe:
    """Read a recipe from the plain values that its file holds.

    The section ``defaults`` gives students the settings that they lack; ``training`` and
    ``matching`` are merged key by key, everything else is replaced.

    Relative paths in it are relative to the working directory.

    Args:
        loaded: The content of a recipe file; it is not changed.
        overrides: ``key.path=value`` each, the value in YAML.
        quiet: Whether old words pass without a ``OldWordWarning``.

    Raises:
        RecipeError: An unknown key, or an impossible value.
    """
    recipe, notes = _parse(loaded, overrides)
    _tell(notes, quiet)
    return recipe


def _load(source: str) -> tuple[Any, Path]:
    """Return the content of a recipe, and the folder that its paths are relative to."""
    path, shipped = Path(source), shipped_recipes()
    base = Path.cwd()
    if path.is_file():
        # A run keeps absolute paths; those of earlier versions were relative to the shell's folder.
        of_a_run = any(path.with_name(name).exists() for name in _RUN_FILES)
        base = base if of_a_run else path.absolute().parent
        try:
            count = path.stat().st_size
            if count > MOST_BYTES:
                raise RecipeError("", f"{source!r} has {count:,} bytes, which is no recipe")
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
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # A date such as 2001-99-99, or an integer of too many digits, is a ValueError.
        where = " ".join(str(error).split())
        raise RecipeError("", f"the recipe {source!r} is not valid YAML: {where}") from None
    except RecursionError:
        raise RecipeError("", f"the recipe {source!r} is nested too deeply") from None
    if not isinstance(loaded, Mapping):
        what = f"not {shorten(loaded)}"
        raise RecipeError("", f"in {source!r}, a recipe is a mapping of keys to values, {what}")
    return loaded, base


def _parse(loaded: Any, overrides: Sequence[str], base: Path | None = None) -> tuple[Recipe, Notes]:
    if not isinstance(loaded, Mapping):
        raise RecipeError("", f"a recipe is a mapping of keys to values, not {shorten(loaded)}")
    values, notes = unshared(loaded), Notes()
    upgrade(values, notes)
    _forget_default_roles(values)
    absolute_paths(values, base or Path.cwd())
    override_recipe(values, overrides, notes)
    absolute_paths(values, Path.cwd())
    expand_chains(values)
    _merge_defaults(values)
    expand_sizes(values)
    try:
        return Recipe.model_validate(values), notes
    except ValidationError as error:
        raise _explain(error, values) from None


def _tell(notes: Notes, quiet: bool) -> None:
    for sentence in () if quiet else notes.sentences():
        warnings.warn(sentence, OldWordWarning, stacklevel=3)  # points at the caller of this module


def _forget_default_roles(values: dict[str, Any]) -> None:
    """Remove the roles that have their defaults, which a change of the students may change.

    The recipe that a run keeps has all roles filled in.
    """
    default = roles({key: value for key, value in values.items() if key not in ROLES})
    for role in ("reference", "plain"):
        if role in values and values[role] == default.get(role):
            del values[role]
    others = {key: value for key, value in values.items() if key != "subject"}
    if values.get("subject") == roles(others).get("subject"):
        values.pop("subject", None)


def _merge_defaults(values: dict[str, Any]) -> None:
    """Merge the section ``defaults`` into the students, in place, and remove it."""
    defaults = values.pop("defaults", None) or {}
    if not isinstance(defaults, Mapping):
        raise RecipeError("defaults", f"is {shorten(defaults)}; it should be a mapping")
    unknown = [key for key in defaults if key not in StudentSection.model_fields]
    if unknown:
        known = known_names(str(unknown[0]), StudentSection.model_fields)
        raise RecipeError(f"defaults.{unknown[0]}", f"unknown key {unknown[0]!r}; {known}")
    students = values.get("students")
    if isinstance(students, Mapping):
        if size(defaults) * len(students) > MOST_VALUES:
            raise RecipeError("defaults", f"gives students more than {MOST_VALUES:,} values")
        values["students"] = {k: _with_defaults(v, defaults) for k, v in students.items()}


def _with_defaults(student: Any, defaults: Mapping[str, Any]) -> Any:
    if student is None:
        student = {}
    if not isinstance(student, Mapping):
        return student
    if student.get("estimator") is not None:
        defaults = {key: value for key, value in defaults.items() if key not in FOR_NETWORKS}
    elif student.get("model") is not None:
        defaults = {k: value for k, value in defaults.items() if k not in ("estimator", "draws")}
    merged = {**defaults, **student}
    for key in ("training", "matching"):
        base, own = defaults.get(key), student.get(key)
        if isinstance(base, Mapping) and isinstance(own, Mapping):
            merged[key] = {**base, **own}
    return copy.deepcopy(merged)


def _explain(error: ValidationError, given: Mapping[str, Any]) -> RecipeError:
    """Explain a schema error, with the keys known at the place where it stands."""
    place = [part for part in first_complaint(error)["loc"] if isinstance(part, str)]
    sections: dict[str, type[BaseModel]] = {
        "teacher": TeacherSection,
        "students": StudentSection,
        "generators": GeneratorSection,
        "evaluation": EvaluationSection,
        "device": DeviceSection,
        "limit": LimitSection,
        "within": WithinSection,
    }
    top = [field.alias or name for name, field in Recipe.model_fields.items()]
    known: Sequence[str] = [*top, "defaults", "budgets", "chains"]
    if "training" in place[:-1]:
        known = list(Training.model_fields)
    elif place[:2] == ["teacher", "record"]:
        known = list(RecordSection.model_fields)
    elif len(place) > 1 and place[0] in sections:
        known = list(sections[place[0]].model_fields)
    return explain_validation(error, "", dict.fromkeys(known), given)
