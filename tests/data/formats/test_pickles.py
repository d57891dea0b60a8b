"""Pickles: arrays come through as they were, and no other name is known."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from extracurricular.data.formats.pickles import read_dict
from extracurricular.errors import DataError


def reduced(callable_of: tuple[str, str], *arguments: Any) -> bytes:
    """A pickle that calls a name with arguments."""
    body = pickle.dumps(arguments, 2)[2:-1]
    return b"\x80\x02c" + "\n".join(callable_of).encode() + b"\n" + body + b"R."


@pytest.mark.parametrize(
    "name",
    [
        ("os", "system"), ("builtins", "eval"), ("__builtin__", "eval"), ("numpy", "load"),
        ("numpy", "fromfile"), ("numpy.core.multiarray", "fromfile"), ("numpy", "ndarray.tofile"),
        ("numpy.core.multiarray", "scalar"), ("_codecs", "lookup"), ("numpy.testing", "_private"),
        ("copyreg", "_reconstructor"), ("functools", "partial"), ("operator", "attrgetter"),
    ],
)  # fmt: skip
def test_no_other_name_is_known(name: tuple[str, str]) -> None:
    with pytest.raises(DataError, match=rf"here asks for {name[0]}\.{name[1]}, which could run"):
        read_dict(reduced(name, "echo"), "here")


def test_names_that_are_known_do_nothing_else() -> None:
    for content in (
        reduced(("_codecs", "encode"), "x", "idna"),
        reduced(("numpy", "dtype"), "O8", False, True),
        reduced(("numpy", "dtype"), "V8"),
        reduced(("numpy", "dtype"), [("a", "i4")]),
    ):
        with pytest.raises(DataError, match="here asks for"):
            read_dict(content, "here")
    wrong = pickle.dumps({"a": np.zeros(4)}, 2).replace(b"K\x04", b"K\x09")
    with pytest.raises(DataError, match=r"shape \(9,\) has 32 bytes"):
        read_dict(wrong, "here")


@pytest.mark.parametrize(
    "name", [("_codecs", "encode"), ("numpy", "ndarray"), ("numpy.core.multiarray", "_reconstruct")]
)
def test_a_pickle_changes_nothing_that_outlives_it(name: tuple[str, str]) -> None:
    """Attributes of what it is given can be set by a pickle, those of functions too."""
    state = pickle.dumps((None, {"__defaults__": ("idna",), "__kwdefaults__": {}}), 2)[2:-1]
    content = b"\x80\x02c" + "\n".join(name).encode() + b"\n" + state + b"b."
    with pytest.raises(DataError, match=r"here (holds a function|cannot be read)"):
        read_dict(content, "here")
    test_arrays_come_through_as_they_were(2, "f4")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["u1", "<i4", ">i8", "f2", "f4", ">f8", "?"])
def test_arrays_come_through_as_they_were(protocol: int, dtype: str) -> None:
    x = (np.arange(24).reshape(2, 3, 4) % 5).astype(dtype)
    given = {"c": x, "f": np.asfortranarray(x), "empty": x[:0], "n": [1, {"a": (b"x", "y", 2.5)}]}
    got = read_dict(pickle.dumps(given, protocol), "here")
    for key in ("c", "f", "empty"):
        assert got[key].dtype == given[key].dtype  # type: ignore[attr-defined]
        assert np.array_equal(got[key], given[key])
        assert got[key].flags.writeable
    assert got["n"] == given["n"]
