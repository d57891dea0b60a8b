"""The times that teacher and students take for an answer, measured once and kept.

A page that is made again shows the same times on any machine, until a network changes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from extracurricular.errors import StorageError, TrustError, XclError
from extracurricular.files import read_sealed, write_sealed
from extracurricular.inputs import Inputs, batch_size, tree_map
from extracurricular.models.cost import latency
from extracurricular.run.environment import cpu_name
from extracurricular.run.finished import Finished
from extracurricular.run.settings import data_settings
from extracurricular.run.workspace import WEIGHTS, recorded_files
from extracurricular.samplers import Batch
from extracurricular.teachers import Teacher

SCHEMA = 1
BATCHES = (1, 32)
_FILE = "latency.json"


class _Asked(nn.Module):
    """A teacher as a module, so that it is timed like a network."""

    def __init__(self, teacher: Teacher, device: torch.device) -> None:
        super().__init__()
        self.teacher, self.device = teacher, device

    def forward(self, x: Inputs) -> Tensor:
        x = tree_map(lambda v: v.to(self.device), x)
        ids = torch.arange(batch_size(x), device=self.device)
        return self.teacher(Batch(ids, x)).parameters


def latencies(
    finished: Finished, seconds: float = 0.1, tell: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Return the times that teacher and students take for an answer on the CPU.

    Args:
        finished: The run; ``latency.json`` in its folder is read, or written.
        seconds: Time to spend on each network and batch size.
        tell: Gets a sentence where that file is damaged.

    Returns:
        ``{"cpu", "threads", "teacher": {"1": s, "32": s}, "students": {NAME: {"1": s, "32": s}}}``,
        medians in seconds by the number of examples in a call. A teacher that is no network, and
        cannot be fitted again where the data are not, has none: ``{}``. Nor has one that is code
        that may not be imported.
    """
    file = finished.folder / _FILE
    of = _networks(finished)
    known = _read(file, tell)
    if known is not None and known["of"] in (of, {k: v for k, v in of.items() if k != "weights"}):
        return known  # files of earlier versions name no weights
    if known is not None and tell is not None:
        tell(f"{str(file)!r} is of other networks; the times are measured again")
    found = _measure(finished, of, seconds)
    if found["teacher"] and all(found["students"].values()):
        write_sealed(file, found)
    return found


def _read(file: Path, tell: Callable[[str], None] | None) -> dict[str, Any] | None:
    try:
        found = read_sealed(file) if file.is_file() else None
    except StorageError as error:
        if tell is not None:
            tell(f"{error}; the times are measured again")
        return None
    sound = isinstance(found, dict) and found.get("schema") == SCHEMA and "of" in found
    return found if sound else None


def _networks(finished: Finished) -> dict[str, Any]:
    """Return all that the times depend on, as plain values."""
    recipe = finished.summary["recipe"]
    keys = ("model", "estimator", "onnx", "function", "members", "mc_dropout")
    teacher = {key: recipe["teacher"][key] for key in keys}
    if recipe["teacher"].get("answers") is not None:  # runs from before have no such key
        teacher["answers"] = recipe["teacher"]["answers"]
    students = {
        name: section["model"] or {"estimator": section.get("estimator")}
        for name, section in recipe["students"].items()
    }
    files = recorded_files(finished.folder, "")
    return {
        "data": data_settings(recipe["data"]),
        "teacher": teacher,
        "students": students,
        # Times do not depend on them, but they tell the file of this run from that of another.
        "weights": {path: found for path, found in files.items() if path.endswith(f"/{WEIGHTS}")},
    }


def _fitted(finished: Finished, seed: int) -> Teacher | None:
    if finished.plan.teachers[seed].is_stored:
        return None  # nothing is computed
    try:
        return finished.teacher(seed)
    except XclError:
        return None  # its data are not there, and the page is made all the same


def _measure(finished: Finished, of: dict[str, Any], seconds: float) -> dict[str, Any]:
    workspace, seed = finished.workspace, finished.recipe.seeds[0]
    shapes = workspace.described_of(seed).shapes

    def timed(module: nn.Module) -> dict[str, float]:
        return {str(b): round(latency(module, shapes, b, seconds), 9) for b in BATCHES}

    planned = finished.plan.teachers[seed]
    teacher: Teacher | None = None
    device = torch.device("cpu")
    if planned.fitted is not None:
        teacher, device = _fitted(finished, seed), workspace.device
    else:
        # The cost of a network does not depend on its weights, so none are read.
        with suppress(TrustError):
            modules = [one.untrained(workspace).eval() for one in planned.members]
            teacher = planned.of(modules, workspace)
    known: dict[str, dict[str, float]] = {}
    students: dict[str, dict[str, float]] = {}
    for name in finished.students:
        stage = finished.stage(name, seed)
        spec = repr(stage.model)
        if spec not in known:
            known[spec] = {}
            with suppress(TrustError):
                known[spec] = timed(stage.untrained(workspace))
        students[name] = known[spec]
    return {
        "schema": SCHEMA,
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "of": of,
        "teacher": {} if teacher is None else timed(_Asked(teacher, device)),
        "students": students,
    }
