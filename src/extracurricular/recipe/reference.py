"""Every key of a recipe, and every entry that it can name: for ``xcl explain`` and the reference.

All of it is read from the code (:mod:`~extracurricular.recipe.described`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache

from extracurricular.errors import RecipeError
from extracurricular.recipe.described import KINDS, Entry, Setting, entries, section

NAME = "NAME"
"""Stands for a name of the user's own in the path of a key."""

# Words of a recipe that are written out before the schema reads it, and so are not in it.
_WRITTEN_OUT = (
    Setting("defaults", "section", "{}", "Settings of every student that does not set its own; "
            "`training` and `matching` are merged key by key.", (), "StudentSection"),
    Setting("chains", "mapping", "{}", "Chains of samplers by name; the name then stands where a "
            "source would stand."),
    Setting("budgets", "mapping", "{}", "Sets of changes by name: `{NAME: {KEY.PATH: value}}`. "
            "`budget` picks one."),
)  # fmt: skip

_BUILT_IN = (
    Entry(
        "blend",
        "Draw from several chains, in proportion to their weights.",
        "A source: it stands first in its chain. Each chain has a name, a `weight`, which is a "
        "number or a course, and a `sampler`.",
        (
            Setting("NAME", "{weight, sampler}", None, "A chain and its weight, at least 0."),
        ),
    ),
    Entry(
        "share",
        "Draw a part of the examples from one chain, and the rest from another.",
        "It stands alone as the whole sampler.",
        (
            Setting("of", "number or course or `auto`", "auto", "The part drawn from `extended`, "
                    "in [0, 1]; `auto` follows the student's mastery of the stored examples."),
            Setting("extended", "chain of samplers", None, "The chain of extended examples."),
            Setting("plain", "chain of samplers", "[empirical]", "The chain of the others."),
        ),
    ),
)  # fmt: skip

# The kind of entries that the value of a key names, by the class of the section and the key.
_NAMES = {
    ("Recipe", "data"): "data",
    ("Recipe", "log"): "logger",
    ("TeacherSection", "model"): "model",
    ("TeacherSection", "estimator"): "teacher",
    ("TeacherSection", "sampler"): "sampler",
    ("StudentSection", "model"): "model",
    ("StudentSection", "estimator"): "estimator",
    ("StudentSection", "sampler"): "sampler",
    ("CandidateSection", "sampler"): "sampler",
    ("GeneratorSection", "model"): "generator",
    ("RecordSection", "codec"): "codec",
    ("Matching", "divergence"): "divergence",
    ("Training", "optimizer"): "optimizer",
    ("TeacherSection", "distribution"): "distribution",
    ("StudentSection", "distribution"): "distribution",
}
# Keys whose value is the settings of one entry.
_ENTRIES = {
    ("TeacherSection", "onnx"): ("teacher", "onnx"),
    ("TeacherSection", "function"): ("teacher", "function"),
    ("TeacherSection", "answers"): ("teacher", "answers"),
}

# Where neither the default nor the choices give a telling example.
EXAMPLES = {
    "schema": "1",
    "name": "mine",
    "about": "what I try",
    "budget": "tiny",
    "budgets": "{tiny: {seeds: [0], defaults.training.steps: 100}}",
    "chains": "{shifted: [empirical, {augment: {pad: 3}}]}",
    "data": "{table: {path: houses.csv, target: price}}",
    "seeds": "[0, 1, 2]",
    "reference": "usual",
    "plain": "from_labels",
    "subject": "mine",
    "front": "[mine, kd]",
    "limit": "{ms: 2, bytes: 500_000}",
    "limit.ms": "2",
    "limit.bytes": "500_000",
    "limit.multiply_adds": "1_000_000",
    "within": "{minutes: 10, part: 0.4}",
    "within.minutes": "10",
    "within.part": "0.4",
    "within.without": "[students.mine.choose.among.all]",
    "log": "tensorboard",
    "teacher.model": "{mlp: {hidden: [256, 256]}}",
    "teacher.estimator": "{random_forest: {trees: 500}}",
    "teacher.onnx": "{path: teacher.onnx, output: logits}",
    "teacher.function": "{function: 'mine:answer', output: probs}",
    "teacher.answers": "{path: answers.csv, id: customer}",
    "teacher.members": "4",
    "teacher.sampler": "[empirical, {mixup: {alpha: 1.0}}]",
    "teacher.matching": "{temperature: 1.0}",
    "teacher.weights": "teacher.safetensors",
    "teacher.key": "model_ema",
    "teacher.classes": "[cat, dog, bird]",
    "teacher.mc_dropout": "16",
    "record.draws": "100000",
    "record.codec": "uint8",
    "generators.NAME.model": "{gmm: {components: 8}}",
    "students.NAME.estimator": "{gradient_boosting: {rounds: 500, leaves: 15}}",
    "students.NAME.draws": "50000",
    "students.NAME.model": "{mlp: {hidden: [32]}}",
    "students.NAME.distribution": "{mixture: {components: 5}}",
    "teacher.distribution": "student_t",
    "levels": "19",
    "sizes": "[{mlp: {hidden: [16]}}, {mlp: {hidden: [64]}}]",
    "students.NAME.sampler": "[empirical, {mixup: {alpha: 1.0}}, {noise: {std: 0.1}}]",
    "matching": "{temperature: 2.0}",
    "choose.among": "{plain: {sampler: [empirical]}, mixed: {sampler: [empirical, mixup]}}",
    "among.NAME.sampler": "[empirical, cutmix]",
    "cost.of": "mine",
    "training.milestones": "[0.625, 0.75, 0.875]",
    "training.lr": "0.003",
    "training.weight_decay": "0.01",
    "training.clip_norm": "1.0",
    "training.ema": "0.999",
    "training.evaluate_every": "500",
    "training.warmup": "200",
    "training.optimizer": "{nadam: {betas: [0.9, 0.99]}}",
    "training.accumulate": "4",
    "training.freeze": "['stem.*']",
    "start.path": "student.safetensors",
    "students.NAME.start.strict": "false",
    "features.student": "stage2",
    "features.teacher": "stage3",
    "students.NAME.quantise": "int8",
    "matching.temperature": "4.0",
    "matching.label_weight": "0.1",
    "matching.beta": "0.5",
    "matching.class_weight": "balanced",
    "matching.divergence": "{dkd: {beta: 2.0}}",
    "matching.label_smoothing": "0.1",
    "standardised.of": "{dkd: {beta: 2.0}}",
    "temperatures.of": "js",
    "share.extended": "[empirical, mixup]",
    "blend.NAME": "{weight: 0.5, sampler: [empirical, mixup]}",
    "path": "data/mine",
    "arrays.path": "mine.npz",
    "table.path": "houses.csv",
    "images.table": "labels.csv",
    "onnx.path": "teacher.onnx",
    "answers.path": "answers.csv",
    "std": "0.5",
    "onnx.inputs": "{image: input_1}",
    "onnx.outputs": "[mean, std]",
    "onnx.shift": "0.5",
    "onnx.scale": "2.0",
    "onnx.input": "{size: 224, layout: nhwc}",
    "onnx.classes": "[cat, dog, bird]",
    "function.classes": "[cat, dog, bird]",
    "function.function": "'mine:answer'",
    "id": "customer",
    "probabilities": "{cat: p_cat, dog: p_dog}",
    "logits": "{cat: z_cat, dog: z_dog}",
    "mean": "price",
    "deviation": "price_std",
    "group": "patient",
    "webdataset.group": "'person-[0-9]+'",
    "webdataset.path": "'shards/train-{000..099}.tar'",
    "webdataset.classes": "classes.txt",
    "webdataset.image": "png",
    "webdataset.label": "json.label",
    "webdataset.limit": "10000",
    "imagefolder.group": "'person-[0-9]+'",
    "time": "date",
    "table.split": "split",
    "images.split": "split",
    "uci.split": "3",
    "train": "5000",
    "digits.train": "300",
    "config": "plain",
    "image": "file",
    "label": "label",
    "size": "32",
    "workers": "4",
    "imagefolder.limit": "10000",
    "images.limit": "10000",
    "root": "photos",
    "ending": ".jpg",
    "missing_values": "[usual, -999]",
    "date_format": "'%d/%m/%Y'",
    "separator": "';'",
    "decimal": "','",
    "thousands": "'.'",
    "encoding": "cp1252",
    "rename": "{colour: color}",
    "categorical": "[zip_code]",
    "drop": "[row_number]",
    "random_forest.columns": "0.33",
    "mixed.of": "[gradient_boosting, {random_forest: {trees: 500}}]",
    "sklearn.estimator": "'sklearn.svm:SVC'",
    "prompts": "{cat: a photo of a cat}",
    "guidance": "7.5",
    "patch": "8",
    "gmm.columns": "{'0': category}",
    "kde.columns": "{'0': category}",
    "components": "8",
    "bandwidth": "0.2",
    "module.factory": "'mine:make_generator'",
    "latent": "32",
    "weights": "mine.safetensors",
    "key": "model_ema",
    "generator": "made",
    "between": "0.5",
    "tau": "0.5",
    "refine": "12",
    "range": "[-1.0, 1.0]",
    "entity": "our-team",
    "mode": "offline",
    "settings": "{drop_rate: 0.1}",
    "normalisation": "published",
}
"""Examples of keys by their path, or the end of it."""


@dataclass(frozen=True)
class Key:
    """A key of a recipe.

    Args:
        path: Its dotted path, with ``NAME`` for names of the user's own.
        setting: The rest of what is known of it.
        kind: The kind of entries that its value names, if it names one.
        of: The entry whose setting it is, if it is no key of the schema.
    """

    path: str
    setting: Setting
    kind: str = ""
    of: str = ""

    @property
    def value(self) -> str:
        """A value that it can have, as YAML; empty for a section."""
        return example(self.path, self.setting)

    @property
    def example(self) -> str:
        """The key with a value, as a recipe has it; empty for a section."""
        if not self.value:
            return ""
        if self.of:
            return f"{{{self.of}: {{{self.setting.name}: {self.value}}}}}"
        return f"{self.setting.name}: {self.value}"


def example(path: str, setting: Setting) -> str:
    """Return a value that a setting can have, as YAML; empty for a section, or if none is known."""
    parts = path.split(".")
    for start in range(len(parts)):
        if ".".join(parts[start:]) in EXAMPLES:
            return EXAMPLES[".".join(parts[start:])]
    if setting.section:
        return ""
    if setting.type.startswith("true or false"):
        return "false" if setting.default == "true" else "true"
    others = [choice for choice in setting.choices if choice != setting.default]
    if others:
        return others[0]
    return "" if setting.default in (None, "null", "{}", '""') else str(setting.default)


@cache
def keys() -> tuple[Key, ...]:
    """Return all keys of a recipe in the order of the schema, sections before what they hold."""
    return tuple(_keys("", "Recipe"))


def _keys(path: str, name: str) -> Iterator[Key]:
    settings = section(name).settings
    for setting in (*settings, *(_WRITTEN_OUT if name == "Recipe" else ())):
        here = f"{path}.{setting.name}".strip(".")
        inner = setting.section
        if setting.name == "matching":
            inner = "Matching"
            setting = replace(setting, type="section", section=inner)
        kind = _NAMES.get((name, setting.name), "")
        if kind and kind != "sampler":
            optional = " or null" if setting.default == "null" else ""
            setting = replace(
                setting, type=f"{kind}: NAME or {{NAME: {{setting: value}}}}{optional}"
            )
        elif kind:
            setting = replace(setting, type="chain of samplers")
        yield Key(here, setting, kind)
        # What `defaults` holds is said at `students`.
        if inner and setting.name != "defaults":
            yield from _keys(f"{here}.{NAME}" if setting.named else here, inner)
        elif (name, setting.name) in _ENTRIES:
            kind, which = _ENTRIES[name, setting.name]
            for inside in entries(kind)[which].settings:
                yield Key(f"{here}.{inside.name}", inside)


def settings_of(entry: Entry) -> tuple[Key, ...]:
    """Return the settings of an entry as keys."""
    return tuple(Key(f"{entry.name}.{s.name}", s, of=entry.name) for s in entry.settings)


def described(kind: str) -> dict[str, Entry]:
    """Return the entries of a kind by name, with those that a recipe can name besides."""
    found = dict(entries(kind))
    if kind == "sampler":
        found |= {entry.name: entry for entry in _BUILT_IN}
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class Explained:
    """What a path or a word stands for.

    Args:
        path: The path that was found.
        key: The key, if it is one.
        entry: The entry, if the path names one.
        kind: The kind of that entry, or of the entries that the key names.
        inside: The keys in it, if it is a section, or the settings of the entry.
    """

    path: str
    key: Key | None
    entry: Entry | None
    kind: str
    inside: tuple[Key, ...]


def explain(words: str) -> list[Explained]:
    """Return what a key, the end of a key, an entry or one of its settings means.

    Args:
        words: ``teacher.members``; ``students.xcl.training.lr`` with a student's own name;
            ``lr``; ``mixup``; ``mixup.alpha``; ``students.xcl.sampler.1.mixup.alpha``.

    Raises:
        RecipeError: Nothing is called so.
    """
    parts = _outermost([part for part in words.split(".") if part and not part.isdigit()])
    found = [
        replace(_of_key(key), path=".".join(parts))
        for key in keys()
        if _fits(key.path.split("."), parts)
    ]
    if not found:
        # A name of the user's own: `students.mine`.
        named = [key for key in keys() if key.setting.named and parts]
        found = [_of_key(key) for key in named if _fits(key.path.split("."), parts[:-1])]
    if not found:
        found = list(_of_entries(parts))
    if not found:
        found = [_of_key(k) for k in keys() if k.path.split(".")[-len(parts) :] == parts]
        found += list(_of_settings(parts))
    if not found:
        known = {key.setting.name for key in keys()}.union(*(described(kind) for kind in KINDS))
        near = get_close_matches(parts[-1] if parts else "", sorted(known), 3, 0.6)
        meant = f"did you mean {' or '.join(map(repr, near))}?" if near else ""
        said = f"nothing in a recipe is called {words!r}"
        raise RecipeError("", f"{said}; {meant or '`xcl explain` lists the keys'}")
    return found


def _outermost(parts: list[str]) -> list[str]:
    """Return a path whose last chain of samplers is a student's own, not one inside another."""
    for end in range(len(parts) - 1, 1, -1):
        in_share = parts[end - 1] == "share" and parts[end] in ("extended", "plain")
        if in_share or (parts[end - 2] == "blend" and parts[end] == "sampler"):
            return ["students", NAME, "sampler", *parts[end + 1 :]]
    return parts


def find_entry(kind: str, name: str) -> Entry | None:
    """Return an entry by its name, also where the name fills in a number or a text."""
    known = described(kind)
    for form, entry in known.items():
        pattern = re.sub(r"\\{(\w+)\\}", r"(.+)" if ":" in form else r"[0-9]+", re.escape(form))
        if re.fullmatch(pattern, name):
            return entry
    return None


def _fits(path: list[str], parts: list[str]) -> bool:
    """Return whether a path with placeholders is that of these words."""
    if parts and parts[0] == "defaults":
        parts = ["students", NAME, *parts[1:]] if len(parts) > 1 else parts
    return len(path) == len(parts) and all(a in (NAME, b) for a, b in zip(path, parts, strict=True))


def _of_key(key: Key) -> Explained:
    path = f"{key.path}.{NAME}" if key.setting.named else key.path
    depth = path.count(".") + 1
    inside = [k for k in keys() if k.path.startswith(f"{path}.") and k.path.count(".") == depth]
    return Explained(key.path, key, None, key.kind, tuple(inside))


def _of_entries(parts: list[str]) -> Iterator[Explained]:
    """Yield the entry, or its setting, at which a path of keys and names ends."""
    for kind in KINDS:
        for length in (1, 2):
            name = parts[-length] if len(parts) >= length else ""
            entry = find_entry(kind, name)
            if entry is None:
                continue
            before = parts[:-length]
            places = [k for k in keys() if k.kind == kind and _fits(k.path.split("."), before)]
            if before and not places:
                continue
            settings = settings_of(entry)
            if length == 1:
                yield Explained(name, None, entry, kind, settings)
                continue
            for key in settings:
                if key.setting.name == parts[-1]:
                    yield Explained(key.path, key, None, "", ())


def _of_settings(parts: list[str]) -> Iterator[Explained]:
    """Yield the settings of entries that have this name."""
    for kind in KINDS:
        for entry in described(kind).values():
            for setting in entry.settings:
                if [setting.name] == parts:
                    key = Key(f"{entry.name}.{setting.name}", setting, of=entry.name)
                    yield Explained(key.path, key, None, "", ())
