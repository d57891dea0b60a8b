"""Change the settings of a recipe before it is checked: overrides of the command line, and budgets.

A budget is a named set of changes that the recipe itself brings along::

    budgets:
      tiny: {seeds: [0], data.cifar100.train: 1000, defaults.training.steps: 50}

``budget: tiny``, in the recipe or on the command line, applies them before any override, so an
override has the last word wherever it stands. The changes are kept as ``budget: {tiny: {…}}``,
which says that they are made; the section ``budgets`` is not kept. Both may use the words of the
previous release (:mod:`~extracurricular.recipe.old_words`).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import yaml

from extracurricular.errors import RecipeError, known_names, shorten
from extracurricular.recipe.old_words import Notes, translate, upgrade
from extracurricular.recipe.plain_values import Loader, unshared

FULL = "full"
"""The budget of a recipe as it is written."""

TINY = "tiny"
"""The budget that only shows that a recipe runs, by convention of the shipped recipes."""

Change: TypeAlias = tuple[str, Any]
"""A dotted path, and the value to put there."""


def override(values: dict[str, Any], change: str) -> None:
    """Apply one change, ``key.path=value``, to nested dicts and lists, in place.

    Raises:
        RecipeError: It is not of that form, not YAML, or there is no such place.
    """
    path, value = read_change(change)
    _put(values, path.split("."), value, path)


def override_recipe(values: dict[str, Any], overrides: Sequence[str], notes: Notes) -> None:
    """Apply the budget of a recipe and then the overrides, in place.

    Args:
        values: The content of the recipe file, upgraded to the words of this release. ``budgets``
            is removed, and ``budget`` replaced by the changes it made.
        overrides: ``key.path=value`` each. ``data.SETTING`` is a setting of the recipe's data set,
            as ``data.NAME.SETTING`` is.
        notes: Takes a note of each old word in a budget or an override.

    Raises:
        RecipeError: There is no such budget, or a change cannot be made.
    """
    changes = [read_change(text) for text in overrides]
    for path, _ in changes:
        if path.startswith("budget.") or path.split(".")[0] == "budgets":
            raise RecipeError(
                path, "cannot be changed from outside of the recipe; override the setting itself, "
                "such as defaults.training.steps=100"
            )  # fmt: skip
    _apply_budget(values, [value for path, value in changes if path == "budget"], notes)
    for path, value in changes:
        if path != "budget":
            _change(values, _full_path(path, values), value, path, notes)


def read_change(text: str) -> Change:
    """Read ``key.path=value``, the value in YAML.

    Raises:
        RecipeError: It is not of that form, or not YAML.
    """
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise RecipeError("", f"{text!r} is not of the form key.path=value")
    try:
        return path, unshared(yaml.load(value, Loader=Loader), path)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        raise RecipeError(path, f"{shorten(value)} is not valid YAML") from None


def describe_budget(name: str, changes: Mapping[str, Any]) -> str:
    """Return one line that names a budget and lists its changes."""
    note = ", too small for figures that mean anything" if name == TINY else ""
    listed = ", ".join(f"{path} = {shorten(v)}" for path, v in changes.items() if path != "about")
    return f"budget: {name}{note}" + (f"; it has {listed}" if listed else "")


def _apply_budget(values: dict[str, Any], chosen: list[Any], notes: Notes) -> None:
    budgets = _budgets(values.pop("budgets", None))
    own = values.get("budget", FULL)
    if isinstance(own, Mapping):
        # A run kept this recipe: the changes are made, and the other budgets are not known.
        if chosen and [chosen[-1]] != list(own):
            raise RecipeError(
                "budget", f"is {shorten(chosen[-1])}, but {', '.join(map(str, own))!r} is applied "
                "to this recipe already; choose another in the recipe it was made from"
            )  # fmt: skip
        return
    name = chosen[-1] if chosen else own
    if name == FULL:
        values["budget"] = FULL
        return
    if not isinstance(name, str) or name not in budgets:
        known = known_names(str(name), [FULL, *budgets])
        raise RecipeError("budget", f"is {shorten(name)}, which the recipe does not have; {known}")
    for path, value in budgets[name].items():
        parts = _full_path(path, values)
        where = f"budgets.{name}.{path}"
        # Elsewhere a path that does not exist is an unknown key; here it would be a new entry.
        entries = values.get(parts[0]) if parts[0] in ("students", "generators", "chains") else None
        if isinstance(entries, Mapping) and len(parts) > 1 and parts[1] not in entries:
            known = known_names(parts[1], entries)
            raise RecipeError(where, f"{parts[0]} has no {parts[1]!r}; {known}")
        _change(values, parts, copy.deepcopy(value), where, notes)
    values["budget"] = {name: dict(budgets[name])}


def _budgets(given: Any) -> dict[str, dict[str, Any]]:
    """Check the section ``budgets``."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise RecipeError(
            "budgets", f"is {shorten(given)}; it should be {{NAME: {{key.path: value}}}}"
        )
    for name, settings in given.items():
        if not isinstance(name, str) or not re.fullmatch(r"[\w-][\w.-]*", name) or name == FULL:
            raise RecipeError(
                "budgets", f"one is called {name!r}; a name has letters, digits, '-', '_' and '.', "
                f"and {FULL!r} is the recipe as it is written"
            )  # fmt: skip
        if not isinstance(settings, Mapping) or not all(isinstance(key, str) for key in settings):
            raise RecipeError(
                f"budgets.{name}", f"is {shorten(settings)}; it should be {{key.path: value}}"
            )
    return dict(given)


def _full_path(path: str, values: Mapping[str, Any]) -> list[str]:
    """Split a path, and add the name of the data set where it is left out."""
    first, *rest = path.split(".")
    data = values.get("data")
    name = next(iter(data)) if isinstance(data, Mapping) and len(data) == 1 else data
    if first == "data" and rest and isinstance(name, str) and rest[0] != name:
        return [first, name, *rest]
    return [first, *rest]


def _change(
    values: dict[str, Any], parts: Sequence[str], value: Any, path: str, notes: Notes
) -> None:
    """Put a value into a recipe, at a path and with words that may be old ones."""
    _put(values, translate(values, parts, value, notes), value, path)
    upgrade(values, notes)


def _put(values: dict[str, Any], parts: Sequence[str], value: Any, path: str) -> None:
    """Put a value into nested dicts and lists, at ``parts``; errors call the place ``path``."""
    here: Any = values
    for depth, part in enumerate(parts):
        final = depth == len(parts) - 1
        if isinstance(here, list):
            if not part.isdigit() or int(part) >= len(here):
                known = f"it has the positions 0 to {len(here) - 1}" if here else "it is empty"
                raise RecipeError(path, f"{part!r} is no position in the list; {known}")
            if final:
                here[int(part)] = value
            elif isinstance(here[int(part)], str):
                here[int(part)] = {here[int(part)]: {}}  # a bare name, to be given a setting
            here = here[int(part)]
        elif isinstance(here, dict):
            if final:
                here[part] = value
            elif not isinstance(here.get(part), dict | list):
                current = here.get(part)
                here[part] = {current: {}} if isinstance(current, str) else {}
            here = here[part]
        else:
            raise RecipeError(path, f"{part!r} cannot be set inside {shorten(here)}")
