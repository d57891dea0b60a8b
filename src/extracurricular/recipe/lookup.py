"""Find the data set that a person names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from extracurricular.data.base import Data
from extracurricular.data.sets import DATA
from extracurricular.errors import RecipeError, known_names
from extracurricular.recipe.named_code import named_code, refusal
from extracurricular.recipe.overrides import override
from extracurricular.recipe.paths import absolute_spec
from extracurricular.recipe.read import read_recipe
from extracurricular.recipe.ships import shipped_recipes
from extracurricular.registry import looking, split_spec

# The file that every run has from its beginning.
RUN_FILE = "environment.json"


def find_data(what: str, overrides: Sequence[str] = (), *, trust: bool = False) -> Data:
    """Build the data set that a person names.

    Args:
        what: A data set's name, or ``{NAME: {setting: value}}``; or the file or the name of a
            recipe, or the folder of a run, for the data of its first seed. A name that a data set
            and a recipe share is that of the data set.
        overrides: ``setting=value`` each; for a recipe ``key.path=value``.
        trust: Whether code that the recipe of a run's folder names may be imported. A recipe that
            lies elsewhere is a program that the person names.

    Raises:
        XclError: There is no such data set or recipe, or the data set cannot be built.
    """
    path = Path(what)
    if (path / "recipe.yaml").is_file():
        path = path / "recipe.yaml"
    if path.is_file() or (what in shipped_recipes() and what not in DATA):
        recipe = read_recipe(str(path), overrides)
        spec = recipe.data_of(recipe.seeds[0])
        if trust or not (path.name == "recipe.yaml" and (path.parent / RUN_FILE).is_file()):
            return DATA.build(spec, key="data")
        where = f"the run {str(path.parent)!r}"
        with looking(partial(refusal, where, named_code({"data": spec}))):
            return DATA.build(spec, key="data")
    return DATA.build(data_spec(what, overrides, shipped_recipes()), key="data")


def data_spec(
    what: str, overrides: Sequence[str] = (), others: Iterable[str] = ()
) -> dict[str, Any]:
    """Return the spec ``{NAME: settings}`` of the data set that a person names.

    Args:
        what: A data set's name, or ``{NAME: {setting: value}}``.
        overrides: ``setting=value`` each.
        others: Further names to suggest where there is no such data set.

    Raises:
        RecipeError: There is no such data set, or it is not written as one.
    """
    spec = absolute_spec(read_spec(what), Path.cwd())
    name, given = split_spec(spec, "data set", "")
    if name not in DATA and ":" not in name:
        known = known_names(name, [*DATA.names(), *others])
        raise RecipeError("", f"there is no data set, and no recipe, {name!r}; {known}")
    values: dict[str, Any] = {name: dict(given)}
    for change in overrides:
        override(values[name], change)
    found: dict[str, Any] = absolute_spec(values, Path.cwd())
    return found


def read_spec(text: str, key: str = "") -> Any:
    """Return a spec as it is written on a command line: a name, or YAML in braces.

    Raises:
        RecipeError: It is not YAML.
    """
    if not text.lstrip().startswith("{"):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise RecipeError(key, f"{text!r} is not valid YAML") from None
