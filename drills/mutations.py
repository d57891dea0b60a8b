"""Recipes made wrong at random: in their values, and in the YAML that holds them."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import yaml

Place: TypeAlias = tuple[Any, Any]
"""A mapping or list, and a key in it."""

ODD: list[Any] = [
    *(None, True, False, -1, 0, 1, 3, 1.5, -0.25, 1e-300, 1e308, float("nan"), float("inf")),
    *(2**31, 2**63 - 1, 2**63, 10**12, 10**30, "", " ", "x", "auto", "1", "1e3", "$seed", "off"),
    *("a\x1b[1m", "[red]x[/red]", "..", "../../x", "/etc/passwd", "~", "a\0b", "\u202ea", "\ud800"),
    *("2001-99-99", "json:dumps", "math:sqrt", "no_such_module:thing", "json:nothing", ":", "a:"),
    *(":a", "..:x", "mlp-0", "wrn-0-0", "résumé", "x" * 500, b"x", [], {}, [[]], [None], {"": 1}),
    *({1: 2}, {"x": None}, {"a": 1, "b": 2}, [1, [2, [3, [4]]]], ["empirical"] * 3, "empirical"),
    *("mixup", {"mixup": {"alpha": 0}}, {"noise": {"std": -1}}, {"mlp": {"hidden": [0]}}),
    *({"mlp": {"hidden": [10**9]}}, {"linear": [0, 1]}, {"linear": [1]}, ["mixup", "empirical"]),
    *({"blend": {}}, {"blend": {"a": {"weight": 0, "sampler": ["empirical"]}}}, {"share": {}}),
    *({"onnx": "x.onnx"}, "random_forest", {"gan": {}}, "gan", "uint4", {"topk": {"k": 10**6}}),
]  # fmt: skip
"""Values that hardly fit anywhere."""

KEYS: list[Any] = [
    *("zz", "", 3, None, "steps", "model", "sampler", "training", "lr", "seeds", "hidden", "data"),
    *("batch_size", "matching", "temperature", "alpha", "a.b", "__class__", "model_config", "self"),
    *("path", "train", "record", "members", "std", "x" * 300, "[b]", "\x07", "schema", "teacher"),
]  # fmt: skip
"""Keys that mostly do not stand where they are put."""


def places(value: Any) -> list[Place]:
    """Return every place of plain values."""

    def walk(part: Any) -> Iterator[Place]:
        for key in list(part if isinstance(part, dict) else range(len(part))):
            yield part, key
            if isinstance(part[key], dict | list):
                yield from walk(part[key])

    return list(walk(value))


def _delete(part: Any, key: Any, chance: random.Random, every: list[Place]) -> None:
    del part[key]


def _replace(part: Any, key: Any, chance: random.Random, every: list[Place]) -> None:
    part[key] = copy.deepcopy(chance.choice(ODD))


def _add(part: Any, key: Any, chance: random.Random, every: list[Place]) -> None:
    value = copy.deepcopy(chance.choice(ODD))
    if isinstance(part, list):
        part.insert(key, value)
    else:
        part[chance.choice(KEYS)] = value


def _rename(part: Any, key: Any, chance: random.Random, every: list[Place]) -> None:
    if isinstance(part, dict):
        part[chance.choice([*KEYS, f"{key}x"])] = part.pop(key)


def _swap(part: Any, key: Any, chance: random.Random, every: list[Place]) -> None:
    """Exchange the values of two places, such as two sections."""
    other, at = chance.choice(every)
    part[key], other[at] = copy.deepcopy(other[at]), copy.deepcopy(part[key])


def _double(part: Any, key: Any, chance: random.Random, every: list[Place]) -> None:
    if isinstance(part, list):
        part.insert(key, copy.deepcopy(part[key]))
    else:
        part[key] = [copy.deepcopy(part[key]) for _ in range(2)]


def _retype(part: Any, key: Any, chance: random.Random, every: list[Place]) -> None:
    """Give a value as another type would have it."""
    value = part[key]
    if isinstance(value, dict):
        part[key] = chance.choice([list(value), list(value.values()), str(value)])
    elif isinstance(value, list):
        part[key] = chance.choice([dict(enumerate(value)), str(value), value[:1], value * 3])
    else:
        part[key] = chance.choice(
            [[value], {"value": value}, {str(value): {}}, str(value), [[value]]]
        )


def _scale(part: Any, key: Any, chance: random.Random, every: list[Place]) -> None:
    value = part[key]
    if isinstance(value, int | float):
        part[key] = value * chance.choice([-1, 0, 10, 0.1, 1000, 10**6, 10**12])


def _nest(part: Any, key: Any, chance: random.Random, every: list[Place]) -> None:
    for _ in range(chance.choice([1, 5, 60, 120])):
        part[key] = [part[key]] if chance.random() < 0.5 else {"x": part[key]}


_CHANGES: list[Callable[[Any, Any, random.Random, list[Place]], None]] = [
    _delete, _replace, _replace, _replace, _add, _rename, _swap, _double, _retype, _scale, _nest,
]  # fmt: skip


def mutated(value: Any, chance: random.Random) -> Any:
    """Return plain values with one place changed: removed, replaced, renamed, moved or retyped."""
    found = copy.deepcopy(value)
    every = places(found)
    if every:
        part, key = chance.choice(every)
        # A swap may move a place into itself, which deep copies keep from being endless.
        chance.choice(_CHANGES)(part, key, chance, every)
    return found


def written(values: Any) -> str:
    """Return plain values as YAML, whatever they are."""
    return yaml.dump(values, sort_keys=False, allow_unicode=False, Dumper=_Dumper)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


LINES = [
    "zz: &a [*a]",
    "zz: &a {b: *a}",
    "zz: *nothing",
    "zz: !!python/object/apply:os.system [true]",
    "zz: !!python/name:os.system",
    "zz: !!binary aGVsbG8=",
    "zz: !!set {a, b}",
    "zz: !!omap [a: 1]",
    "zz: !!timestamp 2001-01-01",
    "zz: !mine 3",
    "seeds: [0, .inf]",
    "name: 2001-01-01",
    "name: 2001-99-99",
    "name: yes",
    "name: 0o17",
    "about: 2001-01-01 10:00:00",
    'about: "\\x1b[2J\\x07"',
    'about: "\\ud800"',
    "zz: " + "9" * 5000,
    "zz: " + "[" * 2000 + "]" * 2000,
    "zz: " + "{a: " * 300 + "1" + "}" * 300,
    "zz: 0x" + "f" * 2000,
    "zz: 1:30:61",
    "? [a, b]\n: 1",
    "? {a: b}\n: 1",
    "<<: 3",
    "<<: {name: merged, steps: 3}",
    "<<: [{name: merged}, {about: also}]",
    "<<: &m {<<: *m}",
    "---\nanother: document",
    "...",
    "%YAML 9.9",
    "\t- tab",
    "zz: 'no end",
    "zz: |\n  text\n more",
    "- a list",
    "\x00",
    "zz: \x85",
    "zz: \ufeff",
    "=: 3",
    "~: 3",
    "yes: no",
    "\n".join([
        "a0: &a0 [" + ", ".join(["x"] * 10) + "]",
        *(f"a{k}: &a{k} [" + ", ".join([f"*a{k - 1}"] * 10) + "]" for k in range(1, 12)),
    ]),
    "\n".join([
        "m0: &m0 {" + ", ".join(f"k{k}: 1" for k in range(10)) + "}",
        *(f"m{k}: &m{k} {{<<: [" + ", ".join([f"*m{k - 1}"] * 10) + "]}" for k in range(1, 12)),
    ]),
    "chains:\n" + "\n".join([
        "  c0: [empirical, mixup]",
        *(
            f"  c{k}: [{{blend: {{a: {{weight: 1, sampler: [c{k - 1}]}}, "
            f"b: {{weight: 1, sampler: [c{k - 1}]}}}}}}]"
            for k in range(1, 40)
        ),
    ]),
]  # fmt: skip
"""Lines of YAML at the end of a recipe."""


def mutated_text(text: str, chance: random.Random) -> str:
    """Return the text of a recipe with one change that plain values cannot make."""
    kind = chance.randrange(7)
    lines = text.splitlines()
    at = chance.randrange(len(lines))
    if kind <= 2:
        return text + "\n" + chance.choice(LINES) + "\n"
    if kind == 3:  # the indentation of a line
        lines[at] = " " * chance.choice([0, 1, 3, 9]) + lines[at].lstrip()
    elif kind == 4:  # a line twice, or at another place
        lines.insert(chance.randrange(len(lines)), lines[at])
    elif kind == 5:  # some signs
        spot = chance.randrange(len(text) + 1)
        sign = chance.choice(list("{}[],:&*#?|->!%@`'\"\\\t\n\x00\x1b\u2028\U0001f600"))
        return text[:spot] + sign * chance.choice([1, 2, 40]) + text[spot:]
    else:  # a value that is an anchor elsewhere
        return re.sub(r": ", ": &a ", text, count=1) + "\nzz: *a\nyy: {<<: *a}\n"
    return "\n".join(lines) + "\n"
