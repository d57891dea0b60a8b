"""Find the code of somebody's own that a recipe names, without importing it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from extracurricular.data.sets import DATA
from extracurricular.errors import shorten
from extracurricular.generators import GENERATORS
from extracurricular.models.base import MODELS
from extracurricular.registry import Registry
from extracurricular.samplers.base import SAMPLERS
from extracurricular.teachers.named import ENTRIES

_REGISTRIES: tuple[Registry[Any], ...] = (DATA, MODELS, SAMPLERS, GENERATORS, ENTRIES)
_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_TEXTS = ("name", "about")
# Names that one sentence can show.
_MOST = 5


def named_code(recipe: Mapping[str, Any]) -> dict[str, str]:
    """Return each ``module:attribute`` of a recipe by its key."""
    parts = {key: part for key, part in recipe.items() if key not in _TEXTS}
    return dict(_found(parts, ()))


def _found(value: Any, place: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            if isinstance(key, str) and _is_own(key):
                yield ".".join(place), key
                yield from _found(part, place)
            else:
                yield from _found(part, (*place, str(key)))
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from _found(part, (*place, str(number)))
    elif isinstance(value, str) and _is_own(value):
        yield ".".join(place), value


def _is_own(name: str) -> bool:
    if not _NAME.fullmatch(name):
        return False
    return all(registry.names_own_code(name) for registry in _REGISTRIES)


def refusal(where: str, found: Mapping[str, str], name: str, key: str) -> str:
    """Return the sentence that refuses to import code, and shows all the names.

    Args:
        where: Whose names they are, such as ``the run 'out'``.
        found: The names by their keys.
        name, key: The name that is asked for, and its key.
    """
    shown = dict(found)
    if name not in shown.values():
        shown = {key: name, **shown}
    parts = [f"{shorten(own)} ({place})" if place else shorten(own) for place, own in shown.items()]
    more = len(parts) - _MOST
    listed = ", ".join(parts[:_MOST]) + (f", and {more} more" if more > 0 else "")
    return (
        f"{where} names code of somebody's own: {listed}; it is not imported unless you trust it: "
        "--trust (in Python trust=True)"
    )
