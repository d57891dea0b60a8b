"""Survey a data set: its sizes, values and labels, and what looks wrong in them."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from extracurricular.assess.survey_columns import (
    Array,
    class_findings,
    column_findings,
    constant_advice,
    far_values,
    plain,
)
from extracurricular.data.base import SAMPLE, Data, Split, lacking, spaced
from extracurricular.data.images.sizes import left_out
from extracurricular.data.images.stream import streamed
from extracurricular.inputs import hard_labels, leaves

PARTS = ("train", "validation", "test")
# Classes are unequal if the most frequent has so many times the examples of the rarest.
_UNEQUAL = 10


@dataclass(frozen=True)
class Values:
    """Values of a channel, a column or a target, raw, over one split.

    Args:
        name: Name of the channel, column or target.
        low, mean, high, deviation: Statistics of its finite values; NaN if there are none.
        infinite: Number of values that are not finite.
    """

    name: str
    low: float
    mean: float
    high: float
    deviation: float
    infinite: int = 0


@dataclass(frozen=True)
class Survey:
    """The contents of a data set, and what looks wrong in it.

    Args:
        sizes: Number of examples by split.
        inputs: Name, shape and type of each input, and the values of its channels or columns in
            training.
        targets: Values of each target by split, in their own units; none for classes.
        counts: Number of examples of each class, or with each label, by split; none for real
            targets.
        suspicious: Sentences about what looks wrong.
        looked_at: Number of examples that represent a split, for splits whose images are streamed
            from files; they are spread evenly.
    """

    sizes: dict[str, int]
    inputs: list[tuple[str, tuple[int, ...], torch.dtype, list[Values]]]
    targets: dict[str, list[Values]]
    counts: dict[str, list[int]]
    suspicious: list[str]
    looked_at: dict[str, int] = field(default_factory=dict)


def survey(data: Data) -> Survey:
    """Survey a data set."""
    splits = {part: getattr(data, part) for part in PARTS}
    looks = {part: _look(split) for part, split in splits.items()}
    seen = {part: look.split for part, look in looks.items()}
    inputs = [
        (name, tuple(leaf.shape[1:]), leaf.dtype, _values(leaf, _column_names(data, name, leaf)))
        for name, leaf in _wide(seen["train"]).items()
    ]
    targets: dict[str, list[Values]] = {}
    counts: dict[str, list[int]] = {}
    size = data.task.size
    for part, split in splits.items():
        if split.y is None or not len(split):
            continue
        if data.task.kind == "multilabel":
            counts[part] = [int(count) for count in split.y.sum(0)]
        elif data.task.kind == "regression":
            names = data.outputs or [f"target {k}" if size > 1 else "target" for k in range(size)]
            targets[part] = _values(split.y, list(names))
        else:
            y = hard_labels(split.y)
            inside = y[(y >= 0) & (y < size)]
            counts[part] = inside.bincount(minlength=size).tolist()
    sizes = {part: len(split) for part, split in splits.items()}
    looked_at = {p: look.count for p, look in looks.items() if look.count < sizes[p]}
    found = Survey(sizes, inputs, targets, counts, [], looked_at)
    found.suspicious.extend(look.lost for look in looks.values() if look.lost)
    found.suspicious.extend(_odd_values(data, found, seen))
    found.suspicious.extend(_odd_labels(data, found, splits))
    found.suspicious.extend(_far_away(data, seen))
    found.suspicious.extend(column_findings(data))
    found.suspicious.extend(class_findings(data))
    places = {part: look.places for part, look in looks.items()}
    known = data.fields is not None or "image" in data.reading
    mend = "; `duplicates: drop` leaves them out" if known else ""
    found.suspicious.extend(_twice(seen, places, mend))
    return found


@dataclass(frozen=True)
class _Look:
    """The examples of a split that are looked at.

    Args:
        split: The examples.
        places: Their places in the whole split.
        count: Number of places that were looked at, unreadable images included.
        lost: A sentence about images that cannot be read, if any.
    """

    split: Split
    places: Sequence[int]
    count: int
    lost: str = ""


def _look(split: Split) -> _Look:
    """Return all examples of a split, or some that are spread evenly if its images are streamed."""
    images = streamed(split.x)
    if images is None:
        return _Look(split, range(len(split)), len(split))
    places = spaced(len(split), SAMPLE)
    x, taken = images.read(places)
    good = taken == places
    lost = images.names(places[~good])
    y = None if split.y is None else split.y[places[good]]
    sentence = left_out(lost, len(places)) if lost else ""
    return _Look(Split(x[good.to(x.device)], y), places[good].tolist(), len(places), sentence)


def _wide(split: Split) -> dict[str, Tensor]:
    """Return the inputs by name, single numbers [N] as columns [N, 1]."""
    named = leaves(split.x).items()
    return {name: leaf.unsqueeze(1) if leaf.ndim == 1 else leaf for name, leaf in named}


def _column_names(data: Data, name: str, leaf: Tensor) -> list[str]:
    if leaf.ndim == 2:
        if data.columns and len(data.columns) == leaf.shape[1]:
            return list(data.columns)
        return [f"{name} column {k}".strip() for k in range(leaf.shape[1])]
    colours = {1: ["grey"], 3: ["red", "green", "blue"]}.get(leaf.shape[1])
    if leaf.ndim == 4 and colours:
        return [f"{name} {colour}".strip() for colour in colours]
    return [f"{name} channel {k}".strip() for k in range(leaf.shape[1])]


def _values(values: Tensor, names: Sequence[str]) -> list[Values]:
    """Return the values of each channel of [N, C, ...], or of each column of [N, C]."""
    found = []
    for k, name in enumerate(names):
        column = values[:, k].flatten()
        infinite = 0
        if column.is_floating_point():
            finite = torch.isfinite(column)
            infinite = int((~finite).sum())
            column = column[finite]
            low, high = (
                (float(v) for v in column.aminmax()) if len(column) else (math.nan, math.nan)
            )
            reals = column.double()
            mean, deviation = float(reals.mean()), float(reals.std(correction=0))
        else:
            # Counts are enough; a float64 copy of all pixels would take eight times their memory.
            counts = column.bincount().double()
            levels = torch.arange(len(counts), dtype=torch.float64, device=counts.device)
            mean = float((counts * levels).sum() / counts.sum())
            deviation = float(((counts * (levels - mean) ** 2).sum() / counts.sum()).sqrt())
            low, high = (float(v) for v in column.aminmax())
        found.append(Values(name, low, mean, high, deviation, infinite))
    return found


# What looks wrong


def _odd_values(data: Data, found: Survey, splits: Mapping[str, Split]) -> list[str]:
    sentences = []
    every = [v for *_, values in found.inputs for v in values]
    constant = [v for v in every if v.low == v.high]
    if constant:
        shown = ", ".join(f"{v.name} ({v.low:g})" for v in constant[:8])
        more = f" and {len(constant) - 8} more" if len(constant) > 8 else ""
        verb = "is" if len(constant) == 1 else "are"
        mend = constant_advice(data, [v.name for v in constant])
        sentences.append(f"{shown}{more} {verb} constant in training, so of no use{mend}.")
    for name, shape, dtype, values in found.inputs:
        highest = max(v.high for v in values)
        if len(shape) == 3 and dtype == torch.uint8 and 0 < highest <= 1:
            sentences.append(
                f"The bytes of {name or 'the images'} are all 0 or 1; they may have been divided "
                "by 255 before they became bytes."
            )
    for part, split in splits.items():
        for name, leaf in leaves(split.x).items():
            bad = int((~torch.isfinite(leaf)).sum()) if leaf.is_floating_point() else 0
            if bad:
                sentences.append(f"{bad:,} values of {name or 'x'} in {part} are not finite.")
        if split.y is not None and split.y.is_floating_point():
            bad = int((~torch.isfinite(split.y)).sum())
            if bad:
                sentences.append(f"{bad:,} targets in {part} are not finite.")
    if not found.sizes["validation"]:
        mend = "; `validation: 0.1` sets one aside" if data.fields is not None else ""
        sentences.append(
            f"There is no validation split, so no settings can be chosen without test data{mend}."
        )
    return sentences


def _odd_labels(data: Data, found: Survey, splits: Mapping[str, Split]) -> list[str]:
    if data.task.kind == "multilabel":
        return lacking(data)
    sentences = []
    names = data.classes or tuple(map(str, range(data.task.size)))
    for part, split in splits.items():
        if part in found.counts and split.y is not None:
            outside = len(split) - sum(found.counts[part])
            if outside:
                sentences.append(
                    f"{outside:,} labels in {part} are outside of 0 to {data.task.size - 1}."
                )
    train = found.counts.get("train", [])
    for sentence in lacking(data):
        sentences.append(sentence)
        if data.fields is not None and len(data.outputs):  # not of probabilities of classes
            totals = [
                sum(found.counts[part][k] for part in found.counts) for k in range(len(names))
            ]
            gone = [
                totals[k]
                for k in range(len(names))
                if totals[k] and any(not found.counts[part][k] for part in found.counts)
            ]
            sentences[-1] = (
                f"{sentence[:-1]}; a larger `test` and `validation` may reach them, and "
                f"`fewest: {max(gone) + 1}` leaves out so rare classes."
            )
    present = [count for count in train if count]
    if present and max(present) >= _UNEQUAL * min(present):
        sentences.append(
            f"The classes are unequal: {names[train.index(max(present))]} has {max(present):,} "
            f"training examples, {names[train.index(min(present))]} has {min(present):,}; "
            "accuracy alone says little then."
        )
    sentences += [
        f"The target {v.name} is {v.low:g} in all of {part}."
        for part, values in found.targets.items()
        for v in values
        if v.low == v.high and found.sizes[part] > 1
    ]
    return sentences


def _far_away(data: Data, splits: Mapping[str, Split]) -> list[str]:
    """Return sentences about the farthest value of each split, of inputs and of real targets."""
    sentences = []
    for part, split in splits.items():
        worst: tuple[float, str, float, int] | None = None
        for name, values, train in _flat(data, splits["train"], split):
            found = far_values(values, train)
            if found is not None and found[2] > (worst[0] if worst else 0):
                worst = found[2], name, found[0], found[1]
        if worst:
            distance, name, value, times = worst
            often = "once" if times == 1 else f"{times:,} times"
            sentences.append(
                f"In {part}, {name} is {often} {plain(value)}, {distance:.0f} robust deviations "
                "from the median of training" + _far_advice(data, name, value) + "."
            )
    return sentences


def _flat(data: Data, train: Split, split: Split) -> Iterator[tuple[str, Array, Array]]:
    """Yield each column of numbers of a split, and that of training, without what is not finite."""
    pairs = [
        (_column_names(data, key, leaf), leaf, own)
        for (key, leaf), own in zip(_wide(split).items(), _wide(train).values(), strict=True)
        if leaf.ndim == 2
    ]
    if data.task.kind == "regression" and split.y is not None and train.y is not None:
        size = data.task.size
        names = data.outputs or [f"target {k}" if size > 1 else "target" for k in range(size)]
        pairs.append((list(names), split.y, train.y))
    for names, leaf, own in pairs:
        for k, name in enumerate(names):
            columns = [v[:, k].double().cpu().numpy() for v in (leaf, own)]
            values, like = (v[np.isfinite(v)] for v in columns)
            yield name, values, like


def _far_advice(data: Data, name: str, value: float) -> str:
    """Return the setting that takes a value of a table for a missing one."""
    if data.fields is None or name not in (*data.fields.names, *data.outputs):
        return ""
    rest = " and `missing: impute`" if name in data.fields.names else ""
    return f"; if that means no value, set `missing_values: [usual, {plain(value)}]`{rest}"


def _twice(
    splits: Mapping[str, Split], places: Mapping[str, Sequence[int]], mend: str = ""
) -> list[str]:
    """Return sentences about examples that are equal to the last bit, within and across splits.

    Args:
        splits: The examples that are looked at.
        places: Their places in the whole splits, which the sentences name.
        mend: The end of a sentence about examples that training has too.
    """
    sentences = []
    digests = {part: _digests(split) for part, split in splits.items()}
    first = {
        part: dict(zip(reversed(own), range(len(own) - 1, -1, -1), strict=True))
        for part, own in digests.items()
    }
    for part, own in digests.items():
        again = sum(count - 1 for count in Counter(own).values() if count > 1)
        if again:
            k = next(k for k, digest in enumerate(own) if first[part][digest] != k)
            sentences.append(
                f"{again:,} of {len(own):,} examples in {part} repeat another of {part}; "
                f"the first is {places[part][k]}, which equals {places[part][first[part][own[k]]]}."
            )
    for part, other in (("test", "train"), ("validation", "train"), ("test", "validation")):
        common = [k for k, digest in enumerate(digests[part]) if digest in first[other]]
        if common:
            k = common[0]
            sentences.append(
                f"{len(common):,} of {len(digests[part]):,} examples in {part} are in {other} too; "
                f"the first is {places[part][k]}, "
                f"which equals {places[other][first[other][digests[part][k]]]} there"
                + (mend if other == "train" else "")
                + "."
            )
    return sentences + _contradictions(splits, places, digests)


def _contradictions(
    splits: Mapping[str, Split],
    places: Mapping[str, Sequence[int]],
    digests: dict[str, list[bytes]],
) -> list[str]:
    known: dict[bytes, tuple[Any, str, int]] = {}
    found = []
    for part, split in splits.items():
        labels = [] if split.y is None else split.y.tolist()
        for k, (digest, label) in enumerate(zip(digests[part], labels, strict=False)):
            before, *place = known.setdefault(digest, (label, part, places[part][k]))
            if before != label:
                found.append((part, places[part][k], *place))
    if not found:
        return []
    a, b, c, d = found[0]
    return [
        f"{len(found):,} examples have another label than an equal example before them; "
        f"one is {a} {b}, which equals {c} {d}."
    ]


def _digests(split: Split) -> list[bytes]:
    rows = [leaf.cpu().contiguous().flatten(1).numpy() for leaf in _wide(split).values()]
    found = []
    for example in zip(*rows, strict=True):
        digest = hashlib.blake2b(digest_size=16)
        for part in example:
            digest.update(part.tobytes())
        found.append(digest.digest())
    return found
