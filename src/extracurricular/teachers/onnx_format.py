"""Read the layout of an ONNX file before anything is loaded from it.

An ONNX file is a protocol buffer: fields of (number, wire type, value), nested. Tensors may lie in
further files, which the file names by relative paths. These paths are checked here, so that none
leads out of the file's folder. ``onnx.proto`` defines the field numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from extracurricular.models.checkpoints import kind_of

# For each message that may hold a tensor: the fields that lead there, and the message in each.
_NESTED: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"
    },
    "sparse": {1: "tensor", 2: "tensor"},
}  # fmt: skip
_DIMS, _TYPE, _EXTERNAL = 1, 2, 13
_KEY, _VALUE = 1, 2
# float, uint8, int8, float16, double, bfloat16: types of weights, unlike shapes and indices.
_WEIGHTS = frozenset({1, 2, 3, 10, 11, 16})
_DEEPEST = 64


@dataclass(frozen=True)
class Layout:
    """Contents of an ONNX file.

    Args:
        parameters: Count of the numbers in its tensors, without shapes and indices.
        files: The further files that it reads tensors from, all in its folder.
    """

    parameters: int
    files: tuple[Path, ...]


def read_layout(path: Path) -> Layout:
    """Read the layout of an ONNX file.

    Raises:
        ValueError: The file is missing or damaged, or reads tensors from a file that is missing or
            leads out of its folder.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"the file {str(path)!r} cannot be read: {error.strerror}") from None
    other = kind_of(content)
    if other is not None:
        raise ValueError(f"the file {str(path)!r} {other}")
    parameters, names = 0, set()
    try:
        for dims, kind, location in _tensors(memoryview(content), "model", 0):
            parameters += math.prod(dims) if kind in _WEIGHTS else 0
            if location is not None:
                names.add(location)
    except (IndexError, ValueError, UnicodeDecodeError):
        raise ValueError(f"the file {str(path)!r} is damaged, or no ONNX file") from None
    return Layout(parameters, tuple(_inside(path, name) for name in sorted(names)))


def _inside(path: Path, name: str) -> Path:
    folder = path.parent.resolve()
    file = (folder / name).resolve()
    if not file.is_relative_to(folder):
        raise ValueError(
            f"the file {str(path)!r} reads tensors from {name!r}, which leads out of its folder"
        )
    if not file.is_file():
        raise ValueError(f"the file {str(path)!r} reads tensors from {name!r}, which is missing")
    return file


def _tensors(
    message: memoryview, kind: str, depth: int
) -> Iterator[tuple[list[int], int, str | None]]:
    """Yield sizes, element type and external file of every tensor in a message."""
    if depth > _DEEPEST:
        raise ValueError
    if kind == "tensor":
        yield _tensor(message)
        return
    for number, value in _fields(message):
        inner = _NESTED[kind].get(number)
        if inner is not None and isinstance(value, memoryview):
            yield from _tensors(value, inner, depth + 1)


def _tensor(message: memoryview) -> tuple[list[int], int, str | None]:
    dims: list[int] = []
    kind, location = 0, None
    for number, value in _fields(message):
        if number == _DIMS:
            dims += [value] if isinstance(value, int) else _integers(value)
        elif number == _TYPE and isinstance(value, int):
            kind = value
        elif number == _EXTERNAL and isinstance(value, memoryview):
            entry = {n: bytes(v) for n, v in _fields(value) if isinstance(v, memoryview)}
            if entry.get(_KEY) == b"location":
                if location is not None:
                    raise ValueError  # onnxruntime may take the other one
                location = entry.get(_VALUE, b"").decode()
    return dims, kind, location


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and value of each field; a fixed-size number, which is not needed, becomes 0."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        wire = tag & 7
        if wire == 0:
            value, place = _varint(message, place)
            yield tag >> 3, value
        elif wire == 2:
            size, place = _varint(message, place)
            if place + size > len(message):
                raise ValueError
            yield tag >> 3, message[place : place + size]
            place += size
        elif wire in (1, 5):
            place += 8 if wire == 1 else 4
            if place > len(message):
                raise ValueError
            yield tag >> 3, 0
        else:
            raise ValueError


def _integers(message: memoryview) -> list[int]:
    found, place = [], 0
    while place < len(message):
        value, place = _varint(message, place)
        found.append(value)
    return found


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError
