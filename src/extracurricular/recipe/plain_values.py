"""Take over what a YAML file holds, within bounds, whatever it is."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from extracurricular.errors import RecipeError, shorten

MOST_VALUES = 100_000
"""Most values of a recipe, with those that aliases repeat."""
DEEPEST = 100
"""Most levels of a recipe."""


def unshared(loaded: Any, *start: str) -> Any:
    """Copy plain values such that nothing in them is shared, as it is between YAML's aliases.

    An override of one place would otherwise change the others too.

    Args:
        loaded: The content of a file, or of a part of it.
        start: The key of the part.

    Raises:
        RecipeError: There are more values or levels than any recipe has, a value holds itself, a
            number is not finite, or something is no plain value; the sentence names the key.
    """
    count = 0

    def copied(value: Any, place: tuple[Any, ...]) -> Any:
        nonlocal count
        count += 1
        if count > MOST_VALUES:
            raise RecipeError(_key(place[:2]), f"has more than {MOST_VALUES:,} values")
        if len(place) > DEEPEST:
            raise RecipeError(_key(place[:3]), f"is nested more than {DEEPEST} levels deep")
        if isinstance(value, Mapping):
            return {key: copied(part, (*place, key)) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [copied(part, (*place, number)) for number, part in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            raise RecipeError(_key(place), f"is {value}; it should be a finite number")
        if isinstance(value, bytes | set):
            problem = f"is {shorten(value)}; it must be a text, a number, or a list"
            raise RecipeError(_key(place), problem)
        return value

    return copied(loaded, start)


def _key(place: Iterable[Any]) -> str:
    return ".".join(map(str, place))


class Loader(yaml.SafeLoader):
    """Safe YAML loader that refuses a repeated key and reads 1e-3 as a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build the mapping of a node."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)
