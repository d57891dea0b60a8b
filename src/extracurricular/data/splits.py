"""Which examples are in which split, and how many."""

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
    """Tell which of the splits that something comes with is which.

    Where there is no ``test``, but a split for validation, that one is the test split, as in the
    published figures of ImageNet: nothing may be chosen on what figures are reported on.

    Returns:
        The name of each split there is, and notes about it.
    """
    found = {
        part: name for part, known in SPLIT_NAMES.items() for name in names if name.lower() in known
    }
    if "test" in found or "validation" not in found:
        return found, []
    name = found.pop("validation")
    return found | {"test": name}, [
        f"There is no split 'test', so {name!r} is the test split, and validation examples are "
        "set aside from those of training."
    ]


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


def set_aside(
    where: str,
    rows: Mapping[str, Array],
    y: Array,
    parts: Mapping[str, float],
    seed: int,
) -> dict[str, Array]:
    """Take the splits that are missing from the training examples.

    Args:
        where: What the data are, for errors.
        rows: Places of the examples of each split there is; one of them is ``train``.
        y: Class indices, which each part then has in proportion, or real targets; of all examples.
        parts: What to set aside for ``test`` and ``validation`` (see :func:`part_size`).
        seed: Seed of the choice.

    Raises:
        DataError: A part cannot be, or nothing is left to train on.
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
