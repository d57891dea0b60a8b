"""The places in which two plain values differ."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extracurricular.recipe.difference import differences, first_difference


@pytest.mark.parametrize(
    ("a", "b", "found"),
    [
        (1, 1, []),
        (1, 2, [("", 1, 2)]),
        ({"a": 1, "b": 2}, {"b": 3, "a": 1}, [("b", 2, 3)]),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, [("a.b.1", 2, 3)]),
        ({"a": [1]}, {"a": [1, 2]}, [("a", [1], [1, 2])]),
        ({"a": 1}, {}, [("a", 1, None)]),
        ({}, {"a": 1}, [("a", None, 1)]),
        ([{"a": 1}], [{"a": 2}], [("0.a", 1, 2)]),
        ({"mixup": {}}, "mixup", [("", {"mixup": {}}, "mixup")]),
    ],
)
def test_differences_have_paths(a: Any, b: Any, found: list[Any]) -> None:
    assert list(differences(a, b)) == found
    if found:
        assert first_difference(a, b, "") == found[0]


PLAIN = st.recursive(
    st.integers(0, 2) | st.sampled_from("ab"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner),
    max_leaves=8,
)


@given(PLAIN, PLAIN)
def test_there_are_differences_exactly_where_values_differ(a: Any, b: Any) -> None:
    assert (list(differences(a, b)) == []) == (a == b)
    for path, x, y in differences(a, b):
        assert (at(a, path), at(b, path)) == (x, y)


def at(value: Any, path: str) -> Any:
    """Return the part of a plain value at a dotted path; None for a key that is not there."""
    for part in path.split(".") if path else []:
        value = value[int(part)] if isinstance(value, list) else value.get(part)
    return value
