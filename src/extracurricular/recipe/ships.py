"""The texts of the recipes that ship with the package; reading them imports no torch."""

from __future__ import annotations

from functools import cache
from importlib import resources
from string import Template

import yaml

from extracurricular.recipe.plain_values import Loader


@cache
def shipped_recipes() -> dict[str, str]:
    """Return the text of each recipe that ships with the package, by name, sorted.

    A file of two YAML documents holds several recipes: a table ``pairs`` of words by recipe, and a
    template in which ``$word`` stands for each.
    """
    folder = resources.files("extracurricular.recipe") / "shipped"
    found: dict[str, str] = {}
    for file in folder.iterdir():
        if file.name.endswith(".yaml"):
            found |= _recipes_in(file.name.removesuffix(".yaml"), file.read_text(encoding="utf-8"))
    return dict(sorted(found.items()))


def abouts() -> dict[str, str]:
    """Return the line that tells what each shipped recipe is about, by name."""
    return {
        name: str(yaml.load(text, Loader=Loader).get("about", ""))
        for name, text in shipped_recipes().items()
    }


def _recipes_in(name: str, text: str) -> dict[str, str]:
    """Return the recipes in a file, by name."""
    table, line, template = text.partition("\n---\n")
    if not line:
        return {name: text}
    pairs = yaml.load(table, Loader=Loader)["pairs"]
    return {pair: Template(template).substitute(words, name=pair) for pair, words in pairs.items()}
