"""Combinations of settings: ``--over students.xcl.matching.temperature=1,2,4``.

Values are split at commas outside brackets, braces and quotes, and each is read as an override is:
``=[32, 64],[64, 64]`` are two lists, and ``=[1, 2]`` is one.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from extracurricular.errors import RecipeError, known_names, shorten
from extracurricular.recipe.overrides import read_change
from extracurricular.recipe.read import read_recipes
from extracurricular.recipe.schema import Recipe

MOST = 100
"""Most combinations of a sweep, unless the person allows more."""

_CLOSING = {"[": "]", "{": "}"}
# A folder's name may have these characters, and so many of them.
_ODD = re.compile(r"[^A-Za-z0-9._+=,-]+")
_LONGEST = 80
# Settings of the device that change what is learned.
_LEARNED = ("device.precision", "device.tf32")
# Parts of a recipe whose entries have names of the user's own.
_NAMED = ("students", "generators")


@dataclass(frozen=True)
class Over:
    """A setting to vary.

    Args:
        key: Its dotted path.
        values: Its values.
        texts: The same as YAML, as the person wrote them.
    """

    key: str
    values: tuple[Any, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Combination:
    """A value for each setting that is varied.

    Args:
        values: The values by key.
        texts: The same as YAML.
        names: A short name for each key.
    """

    values: Mapping[str, Any]
    texts: Mapping[str, str]
    names: Mapping[str, str]

    @property
    def label(self) -> str:
        """The combination for people: ``temperature=2, lr=0.1``."""
        return ", ".join(f"{self.names[key]}={text}" for key, text in self.texts.items())

    @property
    def folder(self) -> str:
        """The name of its folder: readable, and another for each combination."""
        plain = ",".join(f"{self.names[key]}={text}" for key, text in self.texts.items())
        name = _ODD.sub("-", plain)
        if name == plain and len(name) <= _LONGEST:
            return name
        return f"{name[:_LONGEST].rstrip('-')}-{self.mark[:8]}"

    @property
    def mark(self) -> str:
        """A checksum of keys and values."""
        text = json.dumps(self.values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def overrides(self) -> list[str]:
        """The overrides that make its recipe."""
        return [f"{key}={text}" for key, text in self.texts.items()]


def read_overs(given: Sequence[str] | Mapping[str, Any]) -> list[Over]:
    """Read the settings to vary.

    Args:
        given: ``key.path=value,value`` each; or lists of values by key.

    Raises:
        RecipeError: There is none, or one is of another form, stands twice or cannot be varied.
    """
    if isinstance(given, Mapping):
        overs = [_from_values(key, values) for key, values in given.items()]
    else:
        overs = [_from_text(text) for text in given]
    if not overs:
        raise RecipeError(
            "--over", "is needed: the settings to vary, as "
            "--over students.xcl.matching.temperature=1,2,4"
        )  # fmt: skip
    for place, over in enumerate(overs):
        _check_key(over.key)
        for other in overs[:place]:
            first, second = sorted((over.key, other.key), key=len)
            if first == second:
                raise RecipeError(over.key, "is varied twice; give all of its values in one --over")
            if second.startswith(f"{first}."):
                raise RecipeError(second, f"is a part of {first}, which is varied too; vary one")
    return overs


def combinations(overs: Sequence[Over], most: int = MOST) -> list[Combination]:
    """Return all combinations of values, the last key changing fastest.

    Raises:
        RecipeError: There are more than ``most``.
    """
    count = 1
    for over in overs:
        count *= len(over.values)
    if count > most:
        told = " × ".join(str(len(over.values)) for over in overs)
        raise RecipeError(
            "--over", f"gives {told} = {count:,} combinations, and at most {most:,} are taken; "
            f"give fewer values, or --most {count}"
        )  # fmt: skip
    keys = [over.key for over in overs]
    names = short_names(keys)
    values = itertools.product(*(over.values for over in overs))
    texts = itertools.product(*(over.texts for over in overs))
    return [
        Combination(
            dict(zip(keys, some, strict=True)), dict(zip(keys, written, strict=True)), names
        )
        for some, written in zip(values, texts, strict=True)
    ]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return for each key the fewest of its last parts that no other key ends with."""
    found = {}
    for key in keys:
        parts = key.split(".")
        ends = (".".join(parts[-count:]) for count in range(1, len(parts) + 1))
        found[key] = next(
            (e for e in ends if not any(o != key and f".{o}".endswith(f".{e}") for o in keys)), key
        )
    return found


def read_combinations(
    source: str | Recipe, overrides: Sequence[str], some: Sequence[Combination]
) -> Iterator[Recipe]:
    """Yield the recipe of each combination.

    Args:
        source: A path, a shipped recipe's name, or a recipe.
        overrides: Overrides that all combinations have.
        some: The combinations.

    Raises:
        RecipeError: A key is none of the recipe, or given twice; or a combination is refused, which
            the sentence names.
    """
    keys = list(some[0].values)
    for text in overrides:
        path, _ = read_change(text)
        for key in keys:
            if f"{path}.".startswith(f"{key}.") or f"{key}.".startswith(f"{path}."):
                raise RecipeError(path, f"is set by {text!r}, and {key} is varied by --over")
    found = read_recipes(source, [list(overrides), *([*overrides, *c.overrides] for c in some)])
    base = next(found)
    for key in keys:
        _check_entry(key, base)
    for combination in some:
        try:
            recipe = next(found)
        except RecipeError as error:
            raise in_combination(error, combination) from error
        if recipe.seeds != base.seeds:
            raise RecipeError(keys[0], "changes the seeds, which are never varied")
        yield recipe


def in_combination(error: RecipeError, combination: Combination) -> RecipeError:
    """Return an error that names the combination that was refused."""
    return RecipeError(error.key, f"{error.problem} (of the combination {combination.label})")


def check_different(some: Iterable[tuple[Combination, Any]], what: str) -> None:
    """Refuse two combinations of which one makes the same as another.

    Args:
        some: Combinations, and what each makes.
        what: The end of the sentence: "make the same recipe".

    Raises:
        RecipeError: Two make the same.
    """
    seen: dict[str, Combination] = {}
    for combination, made in some:
        mark = json.dumps(made, sort_keys=True, default=str)
        if mark in seen:
            raise RecipeError("--over", f"{seen[mark].label} and {combination.label} {what}")
        seen[mark] = combination


def _from_text(text: str) -> Over:
    key, equals, rest = text.partition("=")
    key = key.strip()
    if not equals or not key or not rest.strip():
        raise RecipeError(
            "--over", f"is {text!r}; it should be like students.xcl.matching.temperature=1,2,4"
        )
    texts = [part.strip() for part in _parts(key, rest)]
    if not all(texts):
        raise RecipeError(key, f"is varied over {rest!r}, in which a value is missing")
    return _over(key, [read_change(f"{key}={part}")[1] for part in texts], texts)


def _from_values(key: Any, values: Any) -> Over:
    if not isinstance(key, str) or not key:
        raise RecipeError(
            "over", f"has the key {shorten(key)}; it should be {{key.path: [values]}}"
        )
    if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
        raise RecipeError(key, f"is varied over {shorten(values)}; it should be a list of values")
    found, texts = [], []
    for value in values:
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError):
            raise RecipeError(
                key, f"is varied over {shorten(value)}, which is no plain value (a number, a text, "
                "a list or a dict of such)"
            ) from None  # fmt: skip
        found.append(read_change(f"{key}={text}")[1])
        bare = isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w-]*", value)
        same = bare and read_change(f"{key}={value}")[1] == value
        texts.append(value if same else text)
    if not found:
        raise RecipeError(key, "is varied over no values")
    return _over(key, found, texts)


def _over(key: str, values: list[Any], texts: list[str]) -> Over:
    for place, value in enumerate(values):
        if any(value == one and type(value) is type(one) for one in values[:place]):
            raise RecipeError(key, f"is varied over {texts[place]} twice")
    return Over(key, tuple(values), tuple(texts))


def _parts(key: str, text: str) -> Iterator[str]:
    """Yield the parts of a text between commas outside brackets, braces and quotes."""
    begin, open_, quote, last = 0, list[str](), "", ","
    for place, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"" and last in ",[{:":
            quote = sign
        elif sign in _CLOSING:
            open_.append(_CLOSING[sign])
        elif sign in "]}":
            if not open_ or open_.pop() != sign:
                raise RecipeError(key, f"is varied over {text!r}, whose {sign!r} closes nothing")
        elif sign == "," and not open_:
            yield text[begin:place]
            begin = place + 1
        last = last if sign == " " else sign
    if open_ or quote:
        missing = quote or open_[-1]
        raise RecipeError(key, f"is varied over {text!r}, in which {missing!r} is missing")
    yield text[begin:]


def _check_key(key: str) -> None:
    first = key.split(".")[0]
    if first == "seeds":
        raise RecipeError(
            "seeds", "are never varied: each combination has all of them, which give the "
            "intervals; set them for all, as seeds=[0,1,2]"
        )  # fmt: skip
    if first in ("budget", "budgets"):
        raise RecipeError(
            key, "cannot be varied: a budget is many settings at once; choose one for all "
            "combinations, as budget=NAME, and vary the settings themselves"
        )  # fmt: skip
    if first == "device" and key not in _LEARNED:
        raise RecipeError(
            key, "cannot be varied: it says where a run is computed, not what it learns; of the "
            f"device only {' and '.join(_LEARNED)} can be"
        )  # fmt: skip
    if first == "evaluation":
        raise RecipeError(
            key, "cannot be varied: all combinations are measured alike; set it for all"
        )


def _check_entry(key: str, base: Recipe) -> None:
    """Refuse the setting of a student that is not there, which an override would make."""
    first, _, rest = key.partition(".")
    name = rest.partition(".")[0]
    known = getattr(base, first, None)
    if first in _NAMED and isinstance(known, Mapping) and name not in known:
        raise RecipeError(key, f"{first} has no {name!r}; {known_names(name, known)}")
