"""Pickled dictionaries of arrays, read without running anything that they ask for.

A pickle is a program that may call any function by name. Here the few names that arrays of numbers
need stand for functions of our own, and any other name ends the reading. No function of numpy is
called with values from a file either, except to view bytes as numbers.
"""

from __future__ import annotations

import codecs
import io
import math
import pickle
import re
from typing import Any

import numpy as np

from extracurricular.errors import DataError


def read_dict(content: bytes, where: str) -> dict[str, Any]:
    """Read a pickled dict of arrays, bytes, texts, numbers and containers of such.

    Texts of Python 2 come back as bytes, keys as texts, and arrays of numbers as arrays.

    Args:
        content: The pickle, of any protocol.
        where: Name of its source, for errors (``"the file 'a'"``).

    Raises:
        DataError: The pickle is damaged, holds no dict, or asks for anything else.
    """
    try:
        found = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except _RefusedError as error:
        raise DataError(
            f"{where} asks for {error}, which could run code; "
            "only arrays of numbers, texts and containers are read from a pickle"
        ) from None
    except Exception as error:  # unpickling a damaged file raises all kinds
        raise DataError(f"{where} cannot be read as a pickle: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{where} holds a {type(found).__name__}; it must hold a dict of arrays")
    return {
        key.decode("latin1") if isinstance(key, bytes) else str(key): value.array
        if isinstance(value, _Array)
        else value
        for key, value in found.items()
    }


class _RefusedError(Exception):
    """A name that is not on the list."""


class _DType:
    """A type as a pickle describes it: a code and, as its state, the order of bytes."""

    def __init__(self, code: Any, align: Any = False, copy: Any = False) -> None:
        self.code = code.decode("ascii") if isinstance(code, bytes) else str(code)
        self.order = "="
        if not re.fullmatch("b1|[iu][1248]|f[248]", self.code):
            raise _RefusedError(f"an array of type {self.code!r}")

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        self.order = order.decode("ascii") if isinstance(order, bytes) else str(order)

    def array(self, content: Any, shape: Any, fortran: bool) -> np.ndarray[Any, Any]:
        """Return bytes as an array with memory of its own."""
        size = tuple(int(n) for n in shape)
        # Protocols 0 to 2 of Python 3 hold bytes as texts.
        raw = content.encode("latin1") if isinstance(content, str) else bytes(content)
        dtype = np.dtype(f"{self.order if self.order in '<>' else '='}{self.code}")
        if min(size, default=0) < 0 or math.prod(size) * dtype.itemsize != len(raw):
            raise ValueError(f"an array of shape {size} has {len(raw)} bytes")
        flat = np.frombuffer(raw, dtype)
        return flat.reshape(size, order="F" if fortran else "C").copy()


class _Array:
    """A stand-in for numpy's ndarray until its state is known."""

    def __init__(self) -> None:
        self.array = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        self.array = dtype.array(content, shape, bool(fortran))


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(content: Any, dtype: _DType, shape: Any, order: Any) -> _Array:
    made = _Array()
    made.array = dtype.array(content, shape, order in ("F", b"F"))
    return made


def _encode(text: str, encoding: str | bytes = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1", b"latin1"):
        raise _RefusedError(f"the codec {encoding!r}")
    return codecs.latin_1_encode(text)[0]


def _no_bytes() -> bytes:
    return b""


# The names that pickles of numpy 1 and 2, and of bytes in old protocols, ask for.
_ADMITTED = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise _RefusedError(f"{module}.{name}")
        entry: Any = _ADMITTED[module, name]
        # Each time a new function is returned, as a pickle can set attributes of what it gets.
        return entry if isinstance(entry, type) else lambda *given: entry(*given)
