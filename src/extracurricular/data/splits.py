"""How many examples a split takes, and which."""

from __future__ import annotations

from typing import Any

import numpy as np

from extracurricular.data.base import split_indices
from extracurricular.errors import DataError

Array = np.ndarray[Any, Any]


def part_size(value: float, count: int, name: str, where: str) -> int:
    """Number of examples that a setting asks for: a part in [0, 1), or a whole number of them.

    Raises:
        DataError: It is neither, or leaves nothing of ``count``.
    """
    whole = isinstance(value, int)
    if not (0 <= value < count if whole else 0 <= value < 1):
        raise DataError(
            f"{where}: {name} is {value}; it must be a part in [0, 1) "
            f"or a number of examples below {count}"
        )
    size = int(value) if whole else round(value * count)
    if size >= count:
        raise DataError(f"{where}: {name} is {value}, which leaves none of {count} examples")
    return size


def stratified_order(y: Array, seed: int) -> Array:
    """Order of examples such that the first k, for any k, have each class in proportion.

    Args:
        y: Class indices, [N].
        seed: Seed of the order within each class.

    Returns:
        A permutation of ``range(N)``.
    """
    [order] = split_indices(len(y), [len(y)], seed)
    labels = y[order]
    by_class = np.argsort(labels, kind="stable")
    _, first, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    place = np.empty(len(y))
    # Example r of the n of a class stands at (r + 1/2) / n of the whole.
    place[by_class] = (np.arange(len(y)) - np.repeat(first, counts) + 0.5) / np.repeat(
        counts, counts
    )
    return order[np.argsort(place, kind="stable")]


def stratified_parts(y: Array, sizes: list[int], seed: int) -> list[Array]:
    """Cut disjoint parts, each with the classes in proportion, in the order they came in.

    Args:
        y: Class indices, [N].
        sizes: Number of examples of each part.
        seed: Seed of the choice.
    """
    order = stratified_order(y, seed)
    return [np.sort(part) for part in np.split(order, np.cumsum(sizes))[: len(sizes)]]
