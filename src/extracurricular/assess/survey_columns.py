"""Find what looks wrong in the columns of a table and the names of classes, with what mends it.

Every sentence about a table names the setting that mends it as a recipe writes it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import yaml
from torch import Tensor

from extracurricular.data.base import Data, Split
from extracurricular.data.fields import Field
from extracurricular.data.target_transform import unit_of
from extracurricular.data.transform import Rule
from extracurricular.inputs import leaves

Array: TypeAlias = np.ndarray[Any, Any]

# A few rows may count upwards by chance.
_FEWEST = 20
# A value is far away beyond so many robust deviations; of heavy tails, also of logarithms.
_FAR, _FAR_LOG = 30.0, 8.0
_SPREAD = 1.4826
# Numbers that people write for "no value".
_SENTINELS = {sign * float("9" * k) for k in range(2, 7) for sign in (1, -1)} | {-1.0, -9.0}
_IDENTIFIER = re.compile(r"(^|[ _-])(id|uuid|guid|key)$|ID$", re.ASCII)
_CODE = re.compile(r"(^|[ _-])(zip|zipcode|postcode|postal code|plz|code)$", re.IGNORECASE)
_SKEWED = 2.0
# A transform is advised that leaves less than this part of the skewness.
_EVENED = 0.5
# Letters of other alphabets that look like Latin ones.
_ALIKE = str.maketrans(
    "АВЕКМНОРСТУХавекмнорстухіјѕΑΒΕΖΗΙΚΜΝΟΡΤΥΧοαν", "ABEKMHOPCTYXabekmhopctyxijsABEZHIKMNOPTYXoav"
)


def column_findings(data: Data) -> list[str]:
    """Return sentences about the columns of a table; none for other data."""
    if data.fields is None:
        return []
    splits = [data.train, data.validation, data.test]
    splits += [] if data.unlabelled is None else [data.unlabelled]
    every = np.concatenate([_array(split) for split in splits])
    train = _array(data.train)
    blocks = dict(_blocks(data.fields.inputs))
    sentences = []
    for field in data.fields.inputs:
        if field.kind == "category":
            sentences += _category(field, len(train))
        elif field.kind == "number":
            sentences += _number(field, every[:, blocks[field.name].start])
    sentences += _equal(data, train, blocks)
    sentences += _units(data)
    for field in data.fields.inputs:
        sentences += [
            f"The values {a!r} and {b!r} of {field.name} look alike; {setting(rename={a: b})} "
            "makes them one."
            for a, b in look_alikes(field.categories)
        ]
    return sentences


def constant_advice(data: Data, names: Sequence[str]) -> str:
    """Return how to leave out columns of the input, if they are of a table; else nothing."""
    if data.fields is None:
        return ""
    owners = [f.name for f in data.fields.inputs if set(f.labels) & set(names)]
    whole = [f.name for f in data.fields.inputs if set(f.labels) <= set(names)]
    return f"; {setting(drop=whole)} leaves them out" if whole and owners else ""


def class_findings(data: Data) -> list[str]:
    """Return sentences about names of classes that are hard to tell apart."""
    table = data.fields is not None or "column" in data.reading.get("image", {})
    found = []
    pairs = look_alikes(data.classes)
    for a, b in pairs:
        mend = f"{setting(rename={a: b})} makes them one" if table else "they may be one class"
        found.append(f"The classes {a!r} and {b!r} look alike; {mend}.")
    for name in data.classes:
        alien = [sign for sign in name if sign.translate(_ALIKE) != sign]
        latin = any(sign.isascii() and sign.isalpha() for sign in name)
        if alien and latin and not any(name in pair for pair in pairs):
            seen = name.translate(_ALIKE)
            mend = f"; {setting(rename={name: seen})} mends it" if table else ""
            found.append(
                f"The name of the class {name!r} has letters of another alphabet, such as "
                f"{alien[0]!r} (U+{ord(alien[0]):04X}), among Latin ones{mend}."
            )
    odd = [name for name in data.classes if any(_invisible(sign) for sign in name)]
    if odd:
        seen = "".join(sign for sign in odd[0] if not _invisible(sign))
        mend = f"; {setting(rename={odd[0]: seen})} leaves them out" if table else ""
        found.append(f"The name of the class {odd[0]!r} has signs that are not seen{mend}.")
    return found


def setting(**given: Any) -> str:
    """Return a setting of a table as a recipe writes it, in backticks."""
    text = yaml.safe_dump(given, default_flow_style=True, allow_unicode=True, width=10**6)
    return f"`{text.strip()[1:-1]}`"


def look_alikes(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return pairs of names that differ in case, blanks, accents' form or alphabet alone."""
    seen: dict[str, str] = {}
    found = []
    for name in names:
        key = unicodedata.normalize("NFKC", name).translate(_ALIKE)
        key = "".join(sign for sign in key if not _invisible(sign))
        key = " ".join(re.sub(r"[\s_-]+", " ", key).split()).casefold()
        if key in seen:
            found.append((name, seen[key]))
        seen.setdefault(key, name)
    return found


def far_values(values: Array, train: Array) -> tuple[float, int, float] | None:
    """Return the value that is farthest away, how often it occurs, and its distance; or None.

    The distance is from the median of training, in robust deviations (1.4826 times the median
    absolute deviation), so that a value cannot hide behind the deviation that it makes itself. If
    all values are positive, logarithms have to be far apart too: long tails are no mistakes.

    Args:
        values: Values of a split, [N].
        train: Values of the training split.
    """
    if len(train) < _FEWEST or not len(values):
        return None
    distance = _distance(values, train)
    if distance is None:
        return None
    if min(values.min(), train.min()) > 0:
        logs = _distance(np.log(values), np.log(train))
        distance = np.where(logs > _FAR_LOG, distance, 0) if logs is not None else distance
    place = int(distance.argmax())
    if distance[place] <= _FAR:
        return None
    value = float(values[place])
    return value, int((values == values[place]).sum()), float(distance[place])


def _distance(values: Array, train: Array) -> Array | None:
    middle = np.median(train)
    spread = _SPREAD * float(np.median(np.abs(train - middle)))
    return np.abs(values - middle) / spread if spread > 0 else None


def plain(value: float) -> str:
    """Return a number as it was most likely written: the shortest that float32 tells apart."""
    text = np.format_float_positional(np.float32(value), trim="-")
    return text if len(text) <= 16 else f"{value:g}"


# Columns


def _array(split: Split) -> Array:
    [leaf] = leaves(split.x).values()
    return leaf.cpu().numpy()


def _blocks(fields: Sequence[Field]) -> Iterator[tuple[str, slice]]:
    """Yield the columns of the input that each column of the table became."""
    start = 0
    for field in fields:
        width = len(field.labels)
        yield field.name, slice(start, start + width)
        start += width


def _category(field: Field, count: int) -> list[str]:
    """Return a sentence about texts that are names of rows."""
    kinds = len(field.categories)
    if count >= _FEWEST and kinds > count / 2:
        return [
            f"{field.name} has {kinds:,} different texts in {count:,} training rows, such as "
            f"{field.categories[0]!r}; it names the rows more than it says of them, and "
            f"{setting(drop=[field.name])} leaves it out."
        ]
    return []


def _number(field: Field, values: Array) -> list[str]:
    """Return sentences about numbers that are no quantities, and about stand-ins for no value."""
    raw = values.astype(np.float64) / field.factor + field.origin
    name, count, sentences = field.name, len(raw), []
    whole = bool((raw == np.round(raw)).all())
    kinds = np.unique(raw)
    if whole and count >= _FEWEST and len(kinds) == count:
        span = kinds[-1] - kinds[0]
        if span < 1.5 * count:
            sentences.append(
                f"{name} counts the rows, {kinds[0]:.0f} to {kinds[-1]:.0f}; a student could learn "
                f"them by heart, and {setting(drop=[name])} leaves it out."
            )
        elif _IDENTIFIER.search(name):
            sentences.append(
                f"{name} is another number in each row, as an identifier is; "
                f"{setting(drop=[name])} leaves it out."
            )
    elif whole and _CODE.search(name) and len(kinds) > 2:
        sentences.append(
            f"{name} has numbers, but is called like a code; {setting(categorical=[name])} reads "
            "its values as names."
        )
    if whole and len(kinds) > 2 and _compact_dates(kinds):
        sentences.append(
            f"{name} has numbers that look like dates, such as {kinds[0]:.0f}; "
            f"{setting(date_format={name: '%Y%m%d'})} reads them as dates."
        )
    lone = _sentinel(kinds)
    if lone is not None and not field.indicator:
        times = int((raw == lone).sum())
        sentences.append(
            f"{name} is {plain(lone)} in {times:,} rows, far from all others; if that means no "
            f"value, set `missing_values: [usual, {plain(lone)}]` and `missing: impute`."
        )
    return sentences


def _sentinel(kinds: Array) -> float | None:
    """Return the least or greatest value if it looks like "no value" and is far from all others."""
    if len(kinds) < 4:
        return None
    for value, nearest, rest in (
        (kinds[0], kinds[1], kinds[1:]),
        (kinds[-1], kinds[-2], kinds[:-1]),
    ):
        if value in _SENTINELS and abs(value - nearest) > rest[-1] - rest[0] > 0:
            return float(value)
    return None


def _compact_dates(kinds: Array) -> bool:
    """Return whether numbers are all dates such as 20240131."""
    if not (kinds[0] >= 19000101 and kinds[-1] <= 21001231):
        return False
    month, day = kinds // 100 % 100, kinds % 100
    return bool(((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).all())


def _equal(data: Data, train: Array, blocks: Mapping[str, slice]) -> list[str]:
    """Return sentences about columns that equal another, or the target."""
    assert data.fields is not None
    sentences, seen = [], dict[bytes, str]()
    y = data.train.y
    targets = {}
    if y is not None and data.task.kind == "regression":
        own = y.cpu().numpy()
        targets = {own[:, k].tobytes(): name for k, name in enumerate(data.outputs)}
    for field in data.fields.inputs:
        block = train[:, blocks[field.name]]
        if block.min() == block.max():
            continue
        key = np.ascontiguousarray(block).tobytes()
        target = targets.get(np.ascontiguousarray(block[:, 0]).tobytes())
        if target is not None:
            sentences.append(
                f"{field.name} equals the target {target} in all training rows; "
                f"{setting(drop=[field.name])} leaves it out."
            )
        if key in seen:
            sentences.append(
                f"{field.name} equals {seen[key]} in all training rows; "
                f"{setting(drop=[field.name])} leaves it out."
            )
        seen.setdefault(key, field.name)
    return sentences


def _units(data: Data) -> list[str]:
    """Return sentences about real targets that are constant or skewed."""
    y = data.train.y
    if y is None or data.task.kind != "regression":
        return []
    sentences = []
    parts = [s.y for s in (data.train, data.validation, data.test) if s.y is not None]
    learned = [] if data.y_transform is None else data.y_transform.rules
    for k, name in enumerate(data.outputs):
        if learned and learned[k].name != "none":
            continue  # students learn what is not skewed
        values = y[:, k].double()
        if len(values) < _FEWEST or float(values.std(correction=0)) == 0:
            continue
        skew = _skewness(values)
        if abs(skew) > _SKEWED:
            positive = all(bool((part[:, k] > 0).all()) for part in parts)
            even = _evening(values, skew, positive)
            chosen: Any = even if len(data.outputs) == 1 else {name: even}
            mend = f"; {setting(target_transform=chosen)} evens it." if even else "."
            sentences.append(
                f"The target {name} is skewed (skewness {skew:.1f}): a few values decide on its "
                f"squared errors{mend}"
            )
    return sentences


def _skewness(values: Tensor) -> float:
    away = (values - values.mean()) / values.std(correction=0).clamp_min(1e-300)
    return float(away.pow(3).mean())


def _evening(values: Tensor, skew: float, positive: bool) -> str | None:
    """Return the transform of a target after which it is much less skewed; None where none is."""
    for name in ("log", "asinh") if positive else ("asinh",):
        rule = Rule(name, unit_of(name, values))
        if abs(_skewness(rule.apply(values))) < _EVENED * abs(skew):
            return name
    return None


def _invisible(sign: str) -> bool:
    return unicodedata.category(sign) in ("Cf", "Cc") or (
        sign.isspace() and sign not in (" ", "\n")
    )
