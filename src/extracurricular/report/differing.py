"""The examples on which a student and its teacher differ most, for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from extracurricular.data.base import Data
from extracurricular.run.answers import FILE, read_answers
from extracurricular.run.finished import Finished

MOST = 10
# Targets or labels of an example that a cell names.
_SHOWN = 3


@dataclass(frozen=True)
class Differing:
    """A table of examples, the largest divergence first.

    Args:
        student: The student.
        seed: Its seed.
        named: Whether examples have names, from where they came from; else their places count.
        rows: Name, label, what the teacher says, what the student says, and the divergence.
    """

    student: str
    seed: int
    named: bool
    rows: list[tuple[str, str, str, str, float]]


def differing(finished: Finished, most: int = MOST) -> Differing | None:
    """Return the examples with the largest KL of the subject from its teacher, in the first seed.

    None where the run keeps no such answers, as of a teacher whose answers are in a file.

    Raises:
        StorageError: A file of the run is damaged.
    """
    name, seed = finished.recipe.subject, finished.recipe.seeds[0]
    if name is None or name not in finished.recipe.students:
        return None
    paths = finished.plan.teachers[seed].path, finished.stage(name, seed).path
    teacher, student = (
        read_answers(finished.folder / path, finished.workspace.checksum("", f"{path}/{FILE}"))
        for path in paths
    )
    if teacher is None or student is None or "kl" not in student or "labels" not in teacher:
        return None
    data = finished.workspace.described_of(seed)
    kl = student["kl"].double().nan_to_num(nan=-1.0)
    order = kl.argsort(descending=True, stable=True)[:most].tolist()
    kept, spec = finished.workspace.kept, finished.recipe.data_of(seed)
    split = finished.recipe.evaluation.split
    names: Sequence[object] = [] if kept is None else kept.names(spec, split)
    named = len(names) == len(kl)
    rows = [
        (
            str(names[k] if named else k),
            _label(teacher["labels"][k], data),
            _said(teacher, k, data),
            _said(student, k, data),
            float(kl[k]),
        )
        for k in order
    ]
    return Differing(name, seed, named, rows)


def _label(y: Tensor, data: Data) -> str:
    if data.task.kind == "regression":
        return _listed([f"{value:.4g}" for value in y.tolist()])
    if data.task.binary:
        return _those(y >= 0.5, data)
    return _class(int(y), data)


def _said(answers: Mapping[str, Tensor], k: int, data: Data) -> str:
    if "predicted" in answers:
        sure = 100 * float(answers["confidence"][k])
        return f"{_class(int(answers['predicted'][k]), data)}, {sure:.0f} %"
    if "probs" in answers:
        return _those(answers["probs"][k] >= 0.5, data)
    pairs = zip(answers["mean"][k].tolist(), answers["std"][k].tolist(), strict=True)
    return _listed([f"{mean:.4g} ± {std:.2g}" for mean, std in pairs])


def _class(place: int, data: Data) -> str:
    return str(data.classes[place]) if data.classes else str(place)


def _those(chosen: Tensor, data: Data) -> str:
    names = data.outputs or tuple(map(str, range(data.task.size)))
    return _listed([names[k] for k in torch.nonzero(chosen)[:, 0].tolist()]) or "none"


def _listed(parts: Sequence[str]) -> str:
    return "; ".join(parts[:_SHOWN]) + ("; …" if len(parts) > _SHOWN else "")
