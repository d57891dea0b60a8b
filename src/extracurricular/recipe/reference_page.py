"""The page docs/reference.md, made from the code: every key of a recipe, and every name in it."""

from __future__ import annotations

from collections.abc import Sequence

from extracurricular.recipe.described import KINDS, Entry
from extracurricular.recipe.reference import Key, described, keys, settings_of

_INTRO = """\
# Reference: every key of a recipe, and every name that it can hold

This page is made from the code by `python docs/tables.py`; a test fails where it has fallen behind.
`xcl explain KEY` shows the same in the terminal, `xcl samplers`, `xcl matchings` and `xcl models`
list what is there. `NAME` in a path stands for a name of your own. A key without a default must be
given. How the keys are used is told in [recipes.md](recipes.md).
"""

_TEXTS = {
    "data": "The value of `data` ([data.md](data.md)).",
    "model": "The value of `teacher.model` and of a student's `model` ([models.md](models.md)). "
    "`{depth}` is a number in the name, as in `resnet20`.",
    "estimator": "The value of a student's `estimator` ([models.md](models.md#trees)).",
    "teacher": "Teachers that are no networks of ours ([teachers.md](teachers.md)): `onnx`, "
    "`function` and `answers` stand at `teacher`, the others at `teacher.estimator`.",
    "generator": "The `model` of a generator ([examples.md](examples.md#generators)).",
    "sampler": "Members of a `sampler` chain ([examples.md](examples.md)).",
    "score": "The `score` of the sampler `uncertain`.",
    "divergence": "The `divergence` of a `matching` ([method.md](method.md#divergences)).",
    "optimizer": "The `optimizer` of a `training` ([recipes.md](recipes.md#optimiser-and-rate)).",
    "codec": "The `codec` of a record ([knowledge.md](knowledge.md)).",
    "distribution": "The `distribution` of a student, or of a teacher's networks "
    "([distributions.md](distributions.md)).",
    "logger": "The value of `log` ([compare.md](compare.md#while-it-runs)).",
}


def page() -> str:
    """Return the page as Markdown."""
    parts = [_INTRO, _links(), _sections(), *(_kind(kind) for kind in KINDS)]
    return "\n".join(parts).rstrip() + "\n"


def _links() -> str:
    titles = ["keys of a recipe", *(kind.title for kind in KINDS.values())]
    links = " · ".join(f"[{title}](#{title.replace(' ', '-')})" for title in titles)
    return f"**On this page:** {links}\n"


def _sections() -> str:
    """Return a table of keys for each section; equal sections are shown once."""
    parts = ["## Keys of a recipe\n"]
    shown: dict[str, str] = {}
    groups: dict[str, list[Key]] = {}
    for key in keys():
        groups.setdefault(key.path.rpartition(".")[0], []).append(key)
    sections = {f"{k.path}.NAME" if k.setting.named else k.path: k.setting.section for k in keys()}
    for path, group in groups.items():
        name = sections.get(path, "")
        if name in shown:
            continue
        if path:
            others = [other for other, which in sections.items() if name and which == name]
            places = " and ".join(f"`{other}`" for other in dict.fromkeys([path, *others]))
            parts.append(f"### {places}\n")
        if name:
            shown[name] = path
        parts.append(_table(group))
    return "\n".join(parts)


def _kind(kind: str) -> str:
    title = KINDS[kind].title
    parts = [f"## {title[:1].upper()}{title[1:]}\n", f"{_TEXTS[kind]}\n"]
    for entry in described(kind).values():
        parts.append(_entry(entry))
    return "\n".join(parts)


def _entry(entry: Entry) -> str:
    text = f"### `{entry.name}`\n\n{entry.summary}\n"
    if entry.text:
        text += f"\n{entry.text}\n"
    return f"{text}\n{_table(settings_of(entry))}" if entry.settings else text


def _table(group: Sequence[Key]) -> str:
    rows = ["| key | default | values | |", "|---|---|---|---|"]
    for key in group:
        setting = key.setting
        default = "" if setting.default is None or setting.section else _code(setting.default)
        example = f" Example: {_code(key.example)}." if key.example else ""
        meaning = _cell(setting.meaning)
        rows.append(
            f"| `{setting.name}` | {default} | {_cell(setting.type)} | {meaning}{example} |"
        )
    return "\n".join(rows) + "\n"


def _code(text: str) -> str:
    return f"`{_cell(text)}`" if text.strip() else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
