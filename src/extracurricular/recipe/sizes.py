"""Write out the sizes of a student: one student for each of several networks.

``sizes`` of a student lists networks, each of which is trained as the student is::

    students:
      mine: {model: {mlp: {hidden: [64]}}, sizes: [{mlp: {hidden: [16]}}, {mlp: {hidden: [256]}}]}
    limit: {ms: 2, bytes: 500_000}

They become students of their own, ``mine-mlp-16`` and ``mine-mlp-256``, and ``front`` names all
whose error is then set against their cost. The lists are gone when the recipe has been read.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

from extracurricular.errors import RecipeError, shorten
from extracurricular.registry import split_spec

# More networks than this are a mistake: each is trained for each seed.
_MOST = 100


def expand_sizes(values: dict[str, Any]) -> None:
    """Replace the sizes of students by students, in place, and name the students of the front.

    Raises:
        RecipeError: Sizes are no list of networks.
    """
    students = values.get("students")
    if not isinstance(students, Mapping):
        return
    found: dict[str, Any] = {}
    front: list[Any] = []
    for name, section in students.items():
        found[name] = section
        given = section.pop("sizes", None) if isinstance(section, dict) else None
        if given is None or given == []:
            continue
        sizes = list(_checked(given, f"students.{name}.sizes"))
        section.setdefault("model", sizes[0])
        front.append(name)
        for spec in sizes:
            if spec == section.get("model"):
                continue
            own = _free(f"{name}-{slug(spec)}", {*students, *found})
            found[own] = {**copy.deepcopy(section), "model": spec}
            front.append(own)
    values["students"] = found
    if values.get("limit") is not None and not front:
        front = list(found)
    if front and not values.get("front"):
        values["front"] = front


def _checked(given: Any, key: str) -> Iterator[Any]:
    """Yield the networks of a list, each once."""
    if not isinstance(given, list) or len(given) > _MOST:
        raise RecipeError(
            key, f"is {shorten(given)}; it must be a list of at most {_MOST} networks, such as "
            "[{mlp: {hidden: [16]}}, {mlp: {hidden: [64]}}]"
        )  # fmt: skip
    for place, spec in enumerate(given):
        split_spec(spec, "model", f"{key}.{place}")
        if spec not in given[:place]:
            yield spec


def slug(spec: Any) -> str:
    """Return a network's spec as a part of a student's name: its name and the values set.

    ``{mlp: {hidden: [32, 8]}}`` is ``mlp-32-8``.
    """
    name, settings = split_spec(spec, "model", "")
    text = "-".join(map(str, [name, *_values(settings)]))
    return re.sub(r"[^\w.-]+", "-", text).strip("-")[:60]


def _values(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _values(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _values(inner)
    elif value is not None:
        yield value


def _free(name: str, taken: set[str]) -> str:
    """Return a name, with a number behind it if it is taken."""
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}-{number}"
    return found
