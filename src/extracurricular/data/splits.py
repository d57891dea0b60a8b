"""Choose the examples of each split."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from extracurricular.data.base import split_indices
from extracurricular.errors import DataError

Array = np.ndarray[Any, Any]

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test",),
}


def name_splits(names: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """Find train, validation and test among the names of given splits.

    If there is no ``test`` but a split for validation, that one becomes the test split, as in the
    published figures of ImageNet: nothing may be chosen on the split that figures are reported on.

    Returns:
        The given name of each split that was found, and notes about the choice.
    """
    found = {
        part: name for part, known in SPLIT_NAMES.items() for name in names if name.lower() in known
    }
    if "test" in found or "validation" not in found:
        return found, []
    name = found.pop("validation")
    return found | {"test": name}, [
        f"There is no split 'test', so {name!r} is the test split, and validation examples are "
        "taken from the training examples."
    ]


def part_size(value: float, count: int, name: str, where: str) -> int:
    """Return the number of examples that a setting asks for: a part in [0, 1), or a whole number.

    Raises:
        DataError: The value is neither, or leaves none of ``count`` examples.
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
    """Return an order of examples whose first k, for any k, have each class in proportion.

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
    # Example r of a class with n examples stands at the fraction (r + 1/2) / n of the order.
    place[by_class] = (np.arange(len(y)) - np.repeat(first, counts) + 0.5) / np.repeat(
        counts, counts
    )
    return order[np.argsort(place, kind="stable")]


def stratified_parts(y: Array, sizes: list[int], seed: int) -> list[Array]:
    """Return the places of disjoint parts, ascending, each with the classes in proportion.

    Args:
        y: Class indices, [N].
        sizes: Number of examples of each part.
        seed: Seed of the choice.
    """
    order = stratified_order(y, seed)
    return [np.sort(part) for part in np.split(order, np.cumsum(sizes))[: len(sizes)]]


def set_aside(
    where: str,
    rows: Mapping[str, Array],
    y: Array,
    parts: Mapping[str, float],
    seed: int,
) -> dict[str, Array]:
    """Take the splits that are missing from the training examples.

    Args:
        where: Name of the data, for errors.
        rows: Places of the examples of each split that exists, ``train`` among them.
        y: Labels of all examples: class indices, which each part gets in proportion, or reals.
        parts: Part or number to set aside for ``test`` and ``validation`` (:func:`part_size`).
        seed: Seed of the choice.

    Raises:
        DataError: A part is out of range, or no example is left to train on.
    """
    train = rows["train"]
    missing = [part for part in parts if part not in rows]
    sizes = [part_size(parts[part], len(train), part, where) for part in missing]
    left = len(train) - sum(sizes)
    if left < 1:
        raise DataError(f"{where}: test and validation leave none of {len(train)} examples")
    if y.ndim == 1 and y.dtype.kind in "iu":
        chosen = stratified_parts(y[train], [*sizes, left], seed)
    else:
        chosen = split_indices(len(train), [*sizes, left], seed)
    taken = {part: train[which] for part, which in zip(missing, chosen, strict=False)}
    return {**rows, **taken, "train": train[chosen[-1]]}
