"""Find the places in which two plain values differ: two recipes, or the settings of two stages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def differences(a: Any, b: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted path of each difference between two plain values, and both sides of it.

    Args:
        a, b: Nested dicts and lists. A key that one side lacks counts as None there.
        path: The path of the values themselves.
    """
    if a == b:
        return
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*b, *(k for k in a if k not in b)]:
            yield from differences(a.get(key), b.get(key), f"{path}.{key}".strip("."))
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for place, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from differences(x, y, f"{path}.{place}".strip("."))
    else:
        yield path, a, b


def first_difference(a: Any, b: Any, path: str) -> tuple[str, Any, Any]:
    """Return the path of the first difference between two plain values, and both sides of it."""
    return next(differences(a, b, path), (path, a, b))
