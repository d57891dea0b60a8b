"""Sizes of images, their memory, and sentences about images that are left out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from extracurricular.errors import DataError


def pair(size: int | list[int]) -> tuple[int, int]:
    """Return height and width from one number of pixels, or from both.

    Raises:
        DataError: There are not two numbers, or one is below 1.
    """
    both = [size, size] if isinstance(size, int) else size
    if len(both) != 2 or min(both) < 1:
        raise DataError(f"size is {size}; it must be a number of pixels, or [height, width]")
    return both[0], both[1]


def gigabytes(count: int, shape: tuple[int, ...]) -> float:
    """Return the memory of images [C, H, W] of bytes, in GB (10^9 bytes)."""
    return count * math.prod(shape) / 1e9


def check_memory(where: str, count: int, shape: tuple[int, ...], memory: float) -> None:
    """Refuse images [C, H, W] of bytes that together take more than ``memory`` GB (10^9 bytes).

    Raises:
        DataError: They take more; the sentence names both.
    """
    needed = gigabytes(count, shape)
    if needed > memory:
        form = " × ".join(map(str, shape))
        raise DataError(
            f"{where}: {count} images of {form} bytes take {needed:.1f} GB, and memory is "
            f"{memory:g}; choose a smaller size, or set memory to as much as this machine can spare"
        )


def quoted(names: Sequence[str]) -> str:
    """Return the first five of several names, quoted, for a sentence."""
    return ", ".join(repr(name) for name in names[:5]) + (", …" if len(names) > 5 else "")


def left_out(names: Sequence[str], count: int) -> str:
    """Return a sentence that says which of ``count`` images are left out."""
    return f"{len(names)} of {count} images cannot be read and are left out: {quoted(names)}."
