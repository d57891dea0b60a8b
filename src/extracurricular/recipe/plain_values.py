"""Take over what a YAML file holds, within bounds, whatever it is."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from extracurricular.errors import RecipeError, shorten

MOST_VALUES = 100_000
"""Most values of a recipe, with those that aliases repeat."""
MOST_BYTES = 4_000_000
"""Most bytes of a file that holds a recipe."""
DEEPEST = 100
"""Most levels of a recipe."""
# The largest whole number that files and tensors can hold.
_LARGEST = 2**63 - 1
# Just below the largest number of float32, in which tensors are.
_FURTHEST = 3.4e38
# Most characters of a key in a sentence.
_LONGEST = 200


def unshared(loaded: Any, *start: str) -> Any:
    """Copy plain values such that nothing in them is shared, as it is between YAML's aliases.

    An override of one place would otherwise change the others too.

    Args:
        loaded: The content of a file, or of a part of it.
        start: The key of the part.

    Raises:
        RecipeError: There are more values or levels than any recipe has, a value holds itself, a
            number is not finite or beyond 64 bits, a text cannot be that of a file, or something is
            no plain value; the sentence names the key.
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
            for key in value:
                _check(key, (*place, key))
            _check_keys(value, place)
            return {key: copied(part, (*place, key)) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [copied(part, (*place, number)) for number, part in enumerate(value)]
        _check(value, place)
        return value

    return copied(loaded, start)


def size(value: Any) -> int:
    """Return the number of values in a value, itself included."""
    if isinstance(value, Mapping):
        return 1 + sum(map(size, value.values()))
    return 1 + sum(map(size, value)) if isinstance(value, list | tuple) else 1


def depth(value: Any) -> int:
    """Return the number of levels of a value: 1 for one without parts."""
    parts = value.values() if isinstance(value, Mapping) else value
    return 1 + max(map(depth, parts), default=0) if isinstance(value, Mapping | list) else 1


def _check(value: Any, place: tuple[Any, ...]) -> None:
    """Refuse what is no text, no number, no truth value and not null."""
    problem = None
    if isinstance(value, float) and not math.isfinite(value):
        problem = f"is {value}; it should be a finite number"
    elif isinstance(value, float) and abs(value) > _FURTHEST:
        problem = f"is {value}; it should be a number of at most {_FURTHEST:g}"
    elif isinstance(value, int) and abs(value) > _LARGEST:
        problem = f"is {shorten(value)}; it should be a number of at most 64 bits"
    elif isinstance(value, datetime.date | datetime.time):
        problem = f"is the date {value}; it must be a text, so put it in quotes"
    elif isinstance(value, str) and ("\0" in value or not _is_writable(value)):
        problem = f"is {shorten(value)}, which has a character that no file can have"
    elif not isinstance(value, str | int | float | None):
        problem = f"is {shorten(value)}; it must be a text, a number, or a list"
    if problem is not None:
        raise RecipeError(_key(place), problem)


def _check_keys(value: Mapping[Any, Any], place: tuple[Any, ...]) -> None:
    """Refuse keys that have no order among them, as settings are written in the order of keys."""
    for key in value:
        if not isinstance(key, str | int | float):
            raise RecipeError(_key(place), f"has the key {key}; a key should be a text or a number")
    if len({isinstance(key, str) for key in value}) > 1:
        shown = ", ".join(map(repr, value))
        raise RecipeError(
            _key(place), f"has the keys {shorten(shown)}; all should be texts, or all numbers"
        )


def _is_writable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a pair of surrogates
        return False
    return True


def _key(place: Iterable[Any]) -> str:
    found = ".".join(map(str, place))
    return found if len(found) <= _LONGEST and found.isprintable() else shorten(found, _LONGEST)


class Loader(yaml.SafeLoader):
    """Safe YAML loader that refuses a repeated key and reads 1e-3 as a number."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Build the node of a mapping, in which each key stands once.

        A key of a merged mapping (``<<``) is not among them: those may be given again.
        """
        found: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in found.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.composer.ComposerError(
                        None, None, f"the key {key.value!r} is given twice", key.start_mark
                    )
                seen.add((key.tag, key.value))
        return found

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Put the entries of merge keys (``<<``) into a mapping, whose number is bounded.

        Mappings that merge several others, which merge several others, would grow with a power.
        """
        merged = [value for key, value in node.value if key.tag == "tag:yaml.org,2002:merge"]
        count = len(node.value)
        for value in merged:
            for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if isinstance(part, yaml.MappingNode):
                    self.flatten_mapping(part)
                    count += len(part.value)
        if count > MOST_VALUES:
            raise yaml.constructor.ConstructorError(
                None, None, f"merge keys give more than {MOST_VALUES:,} values", node.start_mark
            )
        super().flatten_mapping(node)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Build a node, of which there is a bounded number."""
        self._nodes = getattr(self, "_nodes", 0) + 1
        if self._nodes > 2 * MOST_VALUES:
            raise yaml.composer.ComposerError(
                None, None, f"it has more than {MOST_VALUES:,} values", self.get_mark()
            )
        found: yaml.Node | None = super().compose_node(parent, index)
        return found


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)
