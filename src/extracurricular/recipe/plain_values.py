"""Take over what a YAML file holds, within bounds, whatever it is."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Mapping
from typing import Any

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


def _is_writable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a pair of surrogates
        return False
    return True


def _key(place: Iterable[Any]) -> str:
    found = ".".join(map(str, place))
    return found if len(found) <= _LONGEST and found.isprintable() else shorten(found, _LONGEST)
