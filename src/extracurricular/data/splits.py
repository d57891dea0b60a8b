"""Choose the examples of each split."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from extracurricular.errors import DataError

Array = np.ndarray[Any, Any]

QUANTILES = 10
"""Real targets are kept in proportion by so many quantiles."""

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


def strata(y: Array) -> Array:
    """Return the class of each example, or the quantile of its first real target, int64, [N].

    There are at most :data:`QUANTILES` quantiles, and each has some ten examples or more.
    """
    if y.ndim == 1 and y.dtype.kind in "iub":
        return y.astype(np.int64)
    values = y.reshape(len(y), -1)[:, 0].astype(np.float64)
    bins = min(QUANTILES, max(1, len(values) // 10))
    if not len(values):
        return np.zeros(0, dtype=np.int64)
    edges = np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1])
    return np.searchsorted(edges, values, side="right").astype(np.int64)


def split_rows(
    where: str,
    y: Array,
    sizes: Sequence[int],
    seed: int,
    *,
    group: Array | None = None,
    time: Array | None = None,
    stratify: bool = True,
) -> list[Array]:
    """Cut examples into disjoint parts.

    Args:
        where: Name of the data, for errors.
        y: Class indices [N], or reals [N] or [N, D].
        sizes: Number of examples of each part. The last part comes first in ``time``.
        seed: Seed of the choice.
        group: A name or number of each example, [N]; those of one group stay in one part.
        time: A number or date of each example, [N]; later examples come into earlier parts, and
            examples of one moment stay in one part.
        stratify: Whether each part gets each class, or each quantile of a real target, in
            proportion.

    Returns:
        The places of each part, ascending. With ``group`` and ``time`` sizes are met as nearly as
        they can be.

    Raises:
        DataError: Both ``group`` and ``time`` are given, or a part that should have examples gets
            none.
    """
    if group is not None and time is not None:
        raise DataError(f"{where}: group and time are both set; a split goes by one of them")
    if group is not None:
        found = _by_group(np.unique(group, return_inverse=True)[1], strata(y), sizes, seed)
        kept = f"the {len(np.unique(group))} groups"
    elif time is not None:
        found = _by_time(time, sizes)
        kept = f"the {len(np.unique(time))} moments"
    else:
        if stratify:
            return stratified_parts(strata(y), list(sizes), seed)
        return [np.sort(part) for part in split_indices(len(y), sizes, seed)]
    if any(size and not len(part) for size, part in zip(sizes, found, strict=True)):
        raise DataError(f"{where}: {kept} are too few or too unequal for parts of {list(sizes)}")
    return found


def _by_time(time: Array, sizes: Sequence[int]) -> list[Array]:
    """Cut examples by their time, the latest first, where one moment ends that is nearest."""
    order = np.argsort(time, kind="stable")[::-1]
    later = time[order]
    ends = np.flatnonzero(later[1:] != later[:-1]) + 1
    cuts: list[int] = []
    for size, wanted in zip(sizes[:-1], np.cumsum(sizes), strict=False):
        before = cuts[-1] if cuts else 0
        after = ends[ends > before]
        if size and len(after):
            cuts.append(int(after[np.abs(after - wanted).argmin()]))
        else:
            cuts.append(before)
    return [np.sort(part) for part in np.split(order, cuts)]


def _by_group(group: Array, y: Array, sizes: Sequence[int], seed: int) -> list[Array]:
    """Give each group to the part that lacks most of its examples, in all and class by class.

    The largest groups come first, so that small ones fill what is left; groups of one size come in
    an order that the seed chooses.
    """
    _, y = np.unique(y, return_inverse=True)
    classes = int(y.max()) + 1
    # The last column counts all examples, and weighs as much as all classes together.
    counts = np.zeros((int(group.max()) + 1, classes + 1))
    np.add.at(counts, (group, y), 1)
    counts[:, -1] = counts.sum(1)
    share = np.array(sizes, dtype=np.float64) / max(1, sum(sizes))
    wanted = share[:, None] * counts.sum(0)
    scale = 1 / np.maximum(wanted, 1e-9)
    scale[:, -1] *= classes
    [order] = split_indices(len(counts), [len(counts)], seed)
    order = order[np.argsort(-counts[order, -1], kind="stable")]
    got = np.zeros_like(wanted)
    part_of = np.empty(len(counts), dtype=np.int64)
    for one in order:
        # The sum of squares of what each part lacks, in parts of what it should have.
        before = ((wanted - got) ** 2 * scale).sum(1)
        after = ((wanted - got - counts[one]) ** 2 * scale).sum(1)
        part = int(np.argmin(after - before))
        got[part] += counts[one]
        part_of[one] = part
    return [np.flatnonzero(part_of[group] == part) for part in range(len(sizes))]


def repeats(x: Any, others: Any) -> Array:
    """Return which examples of ``others`` equal one of ``x`` to the last bit, bool, [N].

    Args:
        x, others: An array [N, ...], or a tuple or dict of such.
    """
    own, found = _bytes(x), _bytes(others)
    if own.shape[1] == 0:
        return np.zeros(len(found), dtype=bool)
    kind = np.dtype((np.void, own.shape[1]))
    return np.isin(found.view(kind).reshape(-1), own.view(kind).reshape(-1))


def _bytes(x: Any) -> Array:
    """Return examples as rows of bytes, uint8, [N, B]."""
    parts = x.values() if isinstance(x, dict) else x if isinstance(x, tuple) else (x,)
    # Minus zero equals zero; adding zero makes them one.
    plain = [np.ascontiguousarray(np.asarray(v) + np.asarray(v).dtype.type(0)) for v in parts]
    rows = [v.reshape(len(v), -1).view(np.uint8).reshape(len(v), -1) for v in plain]
    return np.ascontiguousarray(np.concatenate(rows, axis=1))


def set_aside(
    where: str,
    rows: Mapping[str, Array],
    y: Array,
    parts: Mapping[str, float],
    seed: int,
    group: Array | None = None,
) -> dict[str, Array]:
    """Take the splits that are missing from the training examples.

    Args:
        where: Name of the data, for errors.
        rows: Places of the examples of each split that exists, ``train`` among them.
        y: Labels of all examples: class indices or reals; each part gets each class, or each
            quantile, in proportion.
        parts: Part or number to set aside for ``test`` and ``validation`` (:func:`part_size`).
        seed: Seed of the choice.
        group: A name or number of each example, [N]; those of one group stay in one split.

    Raises:
        DataError: A part is out of range, or no example is left to train on.
    """
    train = rows["train"]
    missing = [part for part in parts if part not in rows]
    sizes = [part_size(parts[part], len(train), part, where) for part in missing]
    left = len(train) - sum(sizes)
    if left < 1:
        raise DataError(f"{where}: test and validation leave none of {len(train)} examples")
    own = None if group is None else group[train]
    chosen = split_rows(where, y[train], [*sizes, left], seed, group=own)
    taken = {part: train[which] for part, which in zip(missing, chosen, strict=False)}
    return {**rows, **taken, "train": train[chosen[-1]]}


def split_indices(count: int, parts: Sequence[int], seed: int) -> list[np.ndarray[Any, Any]]:
    """Cut a permutation of ``range(count)`` into disjoint parts of the given sizes.

    Raises:
        ValueError: The parts need more examples than there are.
    """
    if sum(parts) > count:
        raise ValueError(f"the splits need {sum(parts)} examples, but there are {count}")
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(count)
    return np.split(order, np.cumsum(parts))[: len(parts)]
