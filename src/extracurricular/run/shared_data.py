"""A data set that several processes have in memory once.

Its tensors lie in a file that all processes of a machine map, or apart from it, so that an engine
can bring them to other machines.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from extracurricular.data.base import Affine, Data, Split
from extracurricular.data.images.stream import streamed
from extracurricular.inputs import as_bytes, tree_map

# Tensors begin at multiples of this, as the processor likes it.
_ALIGN = 64


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies in the file."""

    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Mapped:
    """A data set whose tensors lie in a file.

    Args:
        file: The file.
        spec: Spec of the data set.
        content: Fingerprint of its training examples.
        frame: The data set with a :class:`_Place` instead of each tensor.
    """

    file: Path
    spec: Any
    content: str
    frame: Data


def mapped(spec: Any, data: Data, content: str, file: Path) -> Mapped | None:
    """Write the tensors of a data set to a file; None for one that is streamed or on a device."""
    if streamed(data.train.x) is not None or data.device.type != "cpu":
        return None
    end = 0
    with file.open("wb") as out:

        def put(tensor: Tensor) -> Any:
            nonlocal end
            out.write(b"\0" * (-end % _ALIGN))
            start = end + (-end % _ALIGN)
            if tensor.numel():
                out.write(as_bytes(tensor).numpy().data)
            end = start + tensor.nbytes
            return _Place(start, tuple(tensor.shape), tensor.dtype)

        frame = _mapped(data, put)
        out.write(b"\0")  # a file of no bytes cannot be mapped
    return Mapped(file, spec, content, frame)


def read_mapped(found: Mapped) -> Data:
    """Return the data set; its tensors share the memory of all processes that read it so."""
    size = found.file.stat().st_size
    # A private mapping: a page is copied for a process that writes to it, which none does.
    whole = torch.from_file(str(found.file), shared=False, size=size, dtype=torch.uint8)

    def get(place: Any) -> Tensor:
        count = 1
        for length in place.shape:
            count *= length
        if not count:
            return torch.empty(place.shape, dtype=place.dtype)
        raw = whole[place.offset : place.offset + count * place.dtype.itemsize]
        return raw.view(place.dtype).view(place.shape)

    return _mapped(found.frame, get)


def _mapped(data: Data, function: Any) -> Data:
    """Apply a function to each tensor of a data set, in a fixed order."""

    def split(part: Split) -> Split:
        return Split(_tree(function, part.x), None if part.y is None else function(part.y))

    def affine(scale: Affine) -> Affine:
        return Affine(function(scale.shift), function(scale.scale))

    return replace(
        data,
        train=split(data.train),
        validation=split(data.validation),
        test=split(data.test),
        x_scale={key: affine(scale) for key, scale in data.x_scale.items()},
        y_scale=None if data.y_scale is None else affine(data.y_scale),
        unlabelled=None if data.unlabelled is None else split(data.unlabelled),
    )


def _tree(function: Any, x: Any) -> Any:
    """Apply a function to each leaf; a leaf may be a place."""
    if isinstance(x, dict):
        return {key: function(value) for key, value in x.items()}
    if isinstance(x, tuple):
        return tuple(function(value) for value in x)
    return function(x) if not isinstance(x, Tensor) else tree_map(function, x)


@dataclass(frozen=True)
class Sent:
    """A data set whose tensors are apart, to be sent to other machines.

    Args:
        spec, content: As for :class:`Mapped`.
        frame: The data set with a :class:`_Place` instead of each tensor; its offset is the number
            of the tensor.
        parts: The bytes of each tensor.
    """

    spec: Any
    content: str
    frame: Data
    parts: list[npt.NDArray[np.uint8]]


def sent(spec: Any, data: Data, content: str) -> Sent:
    """Take the tensors of a data set out of it."""
    parts: list[npt.NDArray[np.uint8]] = []

    def put(tensor: Tensor) -> Any:
        parts.append(as_bytes(tensor).cpu().numpy())
        return _Place(len(parts) - 1, tuple(tensor.shape), tensor.dtype)

    return Sent(spec, content, _mapped(data, put), parts)


def received(found: Sent) -> Data:
    """Return the data set; its tensors lie where the parts do, which nobody may write to."""

    def get(place: Any) -> Tensor:
        part = found.parts[place.offset]
        if not part.size:
            return torch.empty(place.shape, dtype=place.dtype)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable")
            return torch.from_numpy(part).view(place.dtype).view(place.shape)

    return _mapped(found.frame, get)


def size_of(data: Data) -> int:
    """Return the bytes of the tensors of a data set."""
    total = 0

    def add(part: Any) -> Any:
        nonlocal total
        total += part.nbytes if isinstance(part, Tensor) else 0  # others are streamed
        return part

    _mapped(data, add)
    return total
