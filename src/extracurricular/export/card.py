"""The model card: a README.md as Hugging Face expects it, with an example of use."""

from __future__ import annotations

import platform
import re
from dataclasses import fields
from typing import Any

import torch
import yaml

from extracurricular.evaluation.calibrated import calibration_sentence, percent
from extracurricular.evaluation.classes import class_rows, shown_classes
from extracurricular.evaluation.verdict import with_unit
from extracurricular.evaluation.words import small
from extracurricular.export.markdown import block, code, plain
from extracurricular.export.rows import Row, cells, headings
from extracurricular.export.subject import Subject, without_folders
from extracurricular.export.usage import usage
from extracurricular.models.trees import Trees
from extracurricular.registry import split_spec

# Hugging Face's names for a task, by (kind, whether the only input is an image).
_PIPELINES = {
    ("classification", True): "image-classification",
    ("classification", False): "tabular-classification",
    ("regression", False): "tabular-regression",
    ("multilabel", True): "image-classification",
    ("multilabel", False): "tabular-classification",
}
# Kinds of teachers that are no networks, as in a recipe.
_NO_NETWORKS = ("estimator", "onnx", "function", "answers")
_MOST_NAMES = 20


def card(subject: Subject, metadata: dict[str, Any], rows: list[Row]) -> str:
    """Return the text of ``README.md``.

    Args:
        subject: The exported student.
        metadata: The content of ``metadata.json``.
        rows: Rows of teacher, student and each file.
    """
    name, file = rows[1].name, rows[2].name
    front = yaml.safe_dump(_front(subject, metadata), sort_keys=False, allow_unicode=True)
    parts = [
        f"---\n{front}---",
        f"# {plain(subject.title)}",
        _about(subject, metadata),
        f"## Use\n\n{usage(subject, metadata, file)}",
        f"## Inputs and outputs\n\n{_contract(subject, metadata)}",
        f"## Figures\n\n{_figures(subject, metadata, rows)}",
    ]
    if subject.recipe:
        parts.append(f"## Training\n\n{_training(subject, name)}")
    parts.append(f"## Limits\n\n{_limits(subject)}")
    return "\n\n".join(parts) + "\n"


def _front(subject: Subject, metadata: dict[str, Any]) -> dict[str, Any]:
    inputs = list(metadata["inputs"].values())
    image = len(inputs) == 1 and len(inputs[0]["shape"]) == 3
    flat = all(len(one["shape"]) == 1 for one in inputs)
    pipeline = _PIPELINES.get((metadata["task"], image)) if image or flat else None
    formats = {one["format"] for one in metadata["files"].values()}
    tags = ["knowledge-distillation", "extracurricular-learning"]
    tags += ["onnx"] if "onnx" in formats else []
    front: dict[str, Any] = {"library_name": "extracurricular", "tags": tags}
    if pipeline is not None:
        front["pipeline_tag"] = pipeline
    hub = _hub_name(subject)
    if hub is not None:
        front["datasets"] = [hub]
    figures = {k: v for k, v in metadata["metrics"].items() if v is not None}
    front["metrics"] = list(figures)
    split = next(reversed(metadata["files"].values()))["split"]
    result = {
        "task": {"type": pipeline or metadata["task"]},
        "dataset": {
            "name": subject.data.name,
            "type": hub or _slug(subject.data.name),
            "split": split,
        },
        "metrics": [{"type": k, "value": round(v, 6)} for k, v in figures.items()],
    }
    front["model-index"] = [{"name": subject.title.replace(" ", "-"), "results": [result]}]
    return front


def _hub_name(subject: Subject) -> str | None:
    """Return the data set's name on the Hugging Face Hub; None if it is from elsewhere."""
    if not subject.recipe:
        return None
    kind, settings = split_spec(subject.recipe["data"], "data set", "data")
    name = settings.get("path") or settings.get("name") or ""
    fits = re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", str(name))
    return str(name) if kind == "hf" and fits else None


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-") or "data"


def _about(subject: Subject, metadata: dict[str, Any]) -> str:
    size = f"{metadata['parameters']:,} parameters"
    if metadata["task"] == "classification":
        answer = f"the probabilities of {subject.data.task.size} classes"
    elif metadata["task"] == "multilabel":
        count = _count(subject.data.task.size, "label")
        answer = f"the probability of each of {count}, which stand on their own"
    else:
        answer = f"mean and variance of {_count(subject.data.task.size, 'real target')}"
    trees = isinstance(subject.network.module, Trees)
    what = "A model of trees with" if trees else "A network of"
    text = f"{what} {size} that gives {answer}, for the data set {plain(subject.data.name)}."
    if not subject.recipe:
        return text
    source = subject.recipe["students"][subject.name]["learns_from"]
    origin = "learnt from labels" if source == "labels" else "was distilled from a teacher"
    return (
        f"{text} It {origin} with *extracurricular*: see Extracurricular Learning (Pouransari, "
        "Javaheripi, Sharma and Tuzel, [arXiv 2007.00051](https://arxiv.org/abs/2007.00051))."
    )


def _transforms(metadata: dict[str, Any]) -> str:
    """Return sentences on transformed targets."""
    told = ""
    for k, rule in enumerate(metadata.get("target_transform", [])):
        if rule["name"] != "none":
            name = code(metadata["outputs"][k]) if metadata["outputs"] else f"number {k}"
            unit = f", unit {rule['unit']:.6g}" if rule["name"] == "asinh" else ""
            told += (
                f" The network learned the {rule['name']} of the target {name}{unit}: "
                f"{rule['formula']}. From mean and variance of y, {rule['inverse']}."
            )
    return told


def _stated(metadata: dict[str, Any]) -> str | None:
    """Return the coverage of the model's intervals or sets; None where it has none."""
    conformal = metadata.get("calibration", {}).get("conformal")
    return None if conformal is None else percent(conformal["coverage"])


def _calibration(subject: Subject) -> str:
    """Return sentences on a calibration; nothing without one."""
    if subject.calibration is None or not subject.calibrated:
        return ""
    split = subject.split_name
    text = " " + plain(calibration_sentence("The student", subject.calibrated, split))
    if subject.calibration.conformal is not None:
        text += " The coverage is that of examples like the validation examples, on average."
    return text


def _contract(subject: Subject, metadata: dict[str, Any]) -> str:
    size, stated = subject.data.task.size, _stated(metadata)
    lines = ["| name | shape | type | |", "|---|---|---|---|"]
    for name, one in metadata["inputs"].items():
        shape = ", ".join(["N", *map(str, one["shape"])])
        values = "0 to 255" if one["dtype"] == "uint8" else "in the units of the data"
        lines.append(f"| {_cell(code(name))} | [{shape}] | {one['dtype']} | input, {values} |")
    if metadata["task"] == "classification":
        lines.append(f"| probs | [N, {size}] | float32 | a probability for each class |")
        if stated is not None:
            lines.append(f"| in_set | [N, {size}] | bool | whether it is in the {stated} set |")
    elif metadata["task"] == "multilabel":
        lines.append(f"| probs | [N, {size}] | float32 | a probability for each label |")
    else:
        scale = subject.data.y_scale
        kind = "float32" if scale is None else str(scale.scale.dtype).removeprefix("torch.")
        lines.append(f"| mean | [N, {size}] | {kind} | in the target's own units |")
        lines.append(f"| variance | [N, {size}] | {kind} | in these units, squared |")
        for name in ("lower", "upper") if stated is not None else ():
            lines.append(f"| {name} | [N, {size}] | {kind} | bound of the {stated} interval |")
    lines += _of_family(subject)
    text = "\n".join(lines)
    text += "\n\nN is any number of examples. Normalisation is part of the model."
    data = subject.data
    for noun, named in (
        ("Columns", data.columns),
        ("Classes", data.classes),
        ("Labels" if data.task.binary else "Targets", data.outputs),
    ):
        if named:
            names = ", ".join(code(str(one)) for one in named[:_MOST_NAMES])
            more = ", …" if len(named) > _MOST_NAMES else ""
            text += f" {noun}, in order: {names}{more}."
    text += _transforms(metadata) + _calibration(subject)
    return f"{text} `metadata.json` holds all this for programs, and an ONNX file carries a copy."


def _of_family(subject: Subject) -> list[str]:
    """Return a line for each output that a family of distributions has besides the usual ones."""
    family, lines = subject.data.task.family, []
    if family is None:
        return []
    settings = {
        "D": subject.data.task.size,
        **{f.name: getattr(family, f.name) for f in fields(family)},
    }
    for name, (shape, words) in family.more.items():
        sizes = ", ".join(str(settings.get(part, part)) for part in shape.split(", "))
        lines.append(f"| {name} | [N, {sizes}] | float32 | {words} |")
    return lines


def _figures(subject: Subject, metadata: dict[str, Any], rows: list[Row]) -> str:
    titles = headings(rows)
    lines = [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]
    lines += [f"| {' | '.join(map(plain, line))} |" for line in cells(rows)]
    entry = metadata["files"][rows[2].name]
    how = (
        "of a probability"
        if metadata["task"] != "regression"
        else "of a mean in units of the target's deviation, or of the logarithm of a variance"
    )
    if "target_transform" in metadata:
        how = "of a mean in units of its deviation or its size, or of the logarithm of a variance"
    count = torch.get_num_threads()
    threads = "one thread" if count == 1 else f"{count} threads"
    times = (
        "Times are medians of a call with so many examples, normalisation included, on one machine "
        f"({platform.machine()} CPU, {threads})."
    )
    table = "\n".join(lines)
    whole = f"all {_count(subject.examples, 'example')} of the {subject.split_name} split"
    if not entry.get("verified", True):
        return (
            f"{table}\n\n**The file is not verified**: the run keeps no examples to compare it on. "
            f"The student's figures are those of {whole}. {times}"
        )
    examples = _count(entry["examples"], "example")
    text = (
        f"{table}\n\nFigures are measured on {examples} of the {entry['split']} split. The "
        f"difference is the largest from the student in torch, float32: {how}. {times}"
    )
    measured = subject.measured
    if measured and (subject.examples > entry["examples"] or subject.imbalanced):
        figures = ", ".join(
            f"{words.title} {with_unit(words, measured[words.name])}"
            for words in small(measured, "exports", subject.imbalanced)
        )
        text += f" On {whole} the student has: {figures}."
    return text + _each_class(subject, whole)


def _each_class(subject: Subject, whole: str) -> str:
    """Return the table of the figures of each class; nothing where they are not known."""
    if not subject.classes:
        return ""
    titles, rows = class_rows(subject.classes)
    _, left = shown_classes(subject.classes)
    lines = [f"| {' | '.join(titles)} |", f"|---|{'---:|' * (len(titles) - 1)}"]
    lines += [f"| {' | '.join(map(plain, row))} |" for row in rows]
    told = "Recall is the share of the class's examples that are right. " + (
        "Classes are imbalanced, and the balanced accuracy is the mean of the recalls. "
        if subject.imbalanced
        else ""
    )
    table = "\n".join(lines)
    note = f" These are {left}." if left else ""
    return f"\n\n### Each class\n\n{table}\n\n{told}Figures are measured on {whole}.{note}"


def _training(subject: Subject, name: str) -> str:
    recipe = subject.recipe
    teacher = recipe["teacher"]
    kinds = [kind for kind in _NO_NETWORKS if teacher.get(kind) is not None]
    shown = {"data": without_folders(recipe["data"]), "seed": subject.seed}
    student = recipe["students"][name]
    if student["learns_from"] == "teacher":
        shown["teacher"] = {key: teacher[key] for key in kinds or ("model", "members")}
    shown["student"] = {
        key: student[key] for key in ("model", "sampler", "learns_from", "matching")
    } | {"steps": student["training"]["steps"]}
    if student.get("estimator") is not None:
        keys = ("estimator", "draws", "sampler", "learns_from")
        shown["student"] = {key: student[key] for key in keys if student[key] is not None}
    text = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, default_flow_style=None)
    return f"{block(text, 'yaml')}\n\nThe whole recipe is in `metadata.json`."


def _limits(subject: Subject) -> str:
    count = len(subject.recipe.get("seeds", []))
    text = f"The figures come from one training{f' of {count}' if count > 1 else ''}. "
    return text + (
        "They hold for data like the training data; on other data the stated uncertainty may be "
        "wrong too. Its behaviour on groups of people, or under attack, was not examined."
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
