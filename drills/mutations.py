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


_EMPIRICAL = ["empirical"]
FITTING: dict[str, list[Any]] = {
    "model": [
        *("mlp", {"mlp": {"hidden": [3, 3]}}, {"mlp": {"hidden": []}}, "resnet8", "wrn-10-1",
          "vgg8"),
        *("digits_cnn", "gaze_lenet", {"gaze_preact_resnet": {"width": 4, "pool": [3, 5]}}, "gmm"),
        *("kde", {"gan": {"steps": 2}}, {"gan": {"latent": 0}}, "json:dumps",
          "collections:Counter"),
        *({"math:sqrt": {}}, "timm:resnet18", "mobilenetv2", {"mlp": {"hidden": [4],
          "dropout": 1}}),
        *({"module": {"factory": "collections:OrderedDict", "latent": 2}}, "torch.nn:Identity"),
        *("torch.nn:Linear", {"mlp": {"hidden": [2**20, 2**20]}}, {"mlp": {"head": "natural"}}),
    ],
    "sampler": [
        *(_EMPIRICAL, [*_EMPIRICAL, "mixup"], [*_EMPIRICAL, "cutmix"], ["resized_crop"], ["pool"]),
        *([*_EMPIRICAL, {"augment": {"pad": 4, "flip": True}}], [*_EMPIRICAL, {"augment": {}}]),
        *([*_EMPIRICAL, {"augment": {"pad": 10**9}}], [*_EMPIRICAL, {"mixup": {"alpha": 1e-300}}]),
        *([*_EMPIRICAL, {"mixup": {"alpha": 1e300}}], [*_EMPIRICAL, {"noise": {"std": 1e300}}]),
        *([*_EMPIRICAL, {"uncertain": {"score": "entropy", "candidates": 3}}], ["generated"]),
        *([*_EMPIRICAL, {"uncertain": {"score": "epistemic_variance", "candidates": 2}}], "mixup"),
        *([*_EMPIRICAL, {"uncertain": {"score": "student_entropy"}}],
          [{"pool": {"generator": "x"}}]),
        *([*_EMPIRICAL, {"uncertain": {"candidates": 10**6}}], [*_EMPIRICAL, "json:dumps"]),
        *([{"generated": {"generator": "made"}}], [{"generated": {"generator": "rows"}}]),
        *([{"share": {"of": "auto", "extended": [*_EMPIRICAL, "mixup"]}}], [{"share": {"of": 2}}]),
        *([{"share": {"of": {"linear": [0, 1]}, "extended": ["mixup"]}}], ["collections:Counter"]),
        [{"blend": {"a": {"weight": 1e-300, "sampler": _EMPIRICAL}}}, {"noise": {"std": 0.1}}],
        [{"blend": {"a": {"weight": {"linear": [0, 1]}, "sampler": [*_EMPIRICAL, "mixup"]}}}],
    ],
    "matching": [
        *({"temperature": t} for t in (1e-300, 1e300, {"linear": [4, 1]}, {"cosine": [1, 0]}, "1")),
        *({"divergence": d} for d in ("reverse_kl", "js", "wasserstein", "energy", "math:dist",
          "x")),
        *({"label_weight": 1.0}, {"label_weight": 2}, {"beta": 1.0}, {"beta": 0.5}, {"beta": -1},
          {}),
    ],
    "training": [
        *({"steps": s, "batch_size": b} for s in (1, 3) for b in (1, 7, 4096)),
        *({"steps": 2, "optimizer": o} for o in ("adamw", "sgd", "lion", "json:dumps")),
        *({"steps": 2, "lr": lr} for lr in (0, 1e-300, 1e300, -1)),
        *({"steps": 2, "warmup": w} for w in (5, 2, -1)),
        *({"steps": 2, "schedule": s} for s in ("steps", "constant", "cosine", "none")),
        *({"steps": 3, "schedule": "steps", "milestones": m} for m in ([], [0.5], [2], [0.5, 0.1])),
        *({"steps": 2, "clip_norm": c} for c in (0, 1e-300, -1)),
    ],
    "codec": ["float16", "uint4", "uint8", {"topk": {"k": 2}}, {"topk": {"k": 0}}, {"topk": {}}],
    "record": [{"draws": d} for d in (1, 160, 0, 10**12)],
    "teacher": [
        {"estimator": "random_forest"}, {"estimator": {"random_forest": {"trees": 0}}},
        {"estimator": "gaussian_process"}, {"estimator": {"sklearn": {"estimator": "json:dumps"}}},
        {"estimator": "collections:Counter"}, {"onnx": "none.onnx"}, {"onnx": "r.yaml"},
        {"function": "json:dumps"}, {"function": "math:sqrt"}, {"function": "no.such:thing"},
        {"answers": "none.npz"}, {"answers": "r.yaml"}, {"model": "mlp", "weights": "r.yaml"},
        {"model": "mlp", "members": 10**6}, {"model": "mlp", "mc_dropout": 3},
        {"model": {"mlp": {"hidden": [2], "dropout": 0.5}}, "mc_dropout": 10**9},
    ],
    "data": [
        *("digits", {"digits": {"train": 10**9}}, {"digits": {"train": 0}},
          {"digits": {"seed": -1}}),
        *({"table": {"path": "r.yaml"}}, {"table": {"path": "/dev/null"}},
          {"arrays": {"path": "."}}),
        *({"imagefolder": {"path": "/proc/self"}}, {"hf": {"path": "r.yaml"}}, "json:dumps",
          "table"),
        *({"gaze": {"train_persons": 0}}, {"gaze": {"train_persons": 2, "train_images": 2}}, "uci"),
        *("collections:Counter", {"images": {"table": "r.yaml", "image": "a", "target": "b"}}),
    ],
    "cost": [{"of": name} for name in ("kd", "erm", "xcl", "nobody")],
    "mastery": [{"held_out": h} for h in (0.01, 0.5, 0.999)],
    "choose": [
        {"among": {"a": {}, "b": {"matching": {"temperature": 2.0}}}, "after": [0.5]},
        {"among": {"a": {"sampler": ["mixup"]}, "b": {"sampler": _EMPIRICAL}}},
        {"among": {f"a{k}": {} for k in range(40)}, "after": [0.001, 0.999]},
    ],
    "seeds": [[0], [-1], [2**63 - 1], [0, 0], list(range(30))],
    "evaluation": [{"batch_size": 1}, {"split": "validation"}, {"batch_size": 2**62}],
    "device": [
        *({"accelerator": a} for a in ("cpu", "cuda", "mps", "tpu")),
        *({"accelerator": "cpu", "precision": p} for p in ("bf16-mixed", "16-mixed", "auto")),
        *({"accelerator": "cpu", "threads": t} for t in (1, 10**9)),
        {"accelerator": "cpu", "together": 10**9},
    ],
    "keep": [0, 1, 2**62],
    "log": ["tensorboard", "wandb", "json:dumps", ["tensorboard", "collections:Counter"],
      {"a": {}}],
    "subject": ["erm", "kd", "nobody"],
    "generators": [{"made": {"model": "gmm"}}, {"made": {"model": {"gan": {"steps": 1}}}}],
    "members": [1, 3, 10**5],
    "learns_from": ["labels", "teacher"],
    "hidden": [[1], [2**31], [3] * 50],
}  # fmt: skip
"""Values that stand at a key of this name, and may go with the others or not."""


def _fit(part: Any, key: Any, chance: random.Random, every: list[Place]) -> None:
    """Give a key that is known another value that it may have."""
    known = [(a, b) for a, b in every if isinstance(a, dict) and b in FITTING]
    if known:
        part, key = chance.choice(known)
        part[key] = copy.deepcopy(chance.choice(FITTING[key]))


_CHANGES: list[Callable[[Any, Any, random.Random, list[Place]], None]] = [
    _delete, _replace, _replace, _replace, _add, _rename, _swap, _double, _retype, _scale, _nest,
    _scale, _delete, _fit, _fit, _fit, _fit, _fit, _fit, _fit, _fit, _fit,
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
