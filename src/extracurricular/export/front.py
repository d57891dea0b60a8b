"""Measure the front of a run: its students' exported files, float and 8 bits, on this machine.

The last stage of a run that names a ``front`` exports each student of it, in memory, and asks the
files about the validation examples and those that results are measured on. The files are timed side
by side, so that other work of the machine slows all of them alike.
"""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from extracurricular.data.base import Data, Split
from extracurricular.errors import ExportError, RecipeError, StorageError, XclError
from extracurricular.evaluation.entries import measure_of
from extracurricular.evaluation.front import Point, best, plain, read, verdict
from extracurricular.evaluation.metrics import error_of
from extracurricular.evaluation.predict import predict
from extracurricular.evaluation.words import WORDS
from extracurricular.export.formats import check_onnx, to_onnx, trace
from extracurricular.export.graph import Exported, input_names
from extracurricular.export.quantise import quantise, raw_draws
from extracurricular.export.timing import side_by_side
from extracurricular.export.verify import Checked, Runner, check, enforce, onnx_runner
from extracurricular.files import read_json, read_sealed, write_sealed
from extracurricular.inputs import leaves
from extracurricular.models import parameter_count
from extracurricular.models.trees import Trees
from extracurricular.recipe.schema import Recipe
from extracurricular.run.environment import cpu_name
from extracurricular.run.evaluation import SUMMARY
from extracurricular.run.executors import threads
from extracurricular.run.expense import forward_cost
from extracurricular.run.plan import plan
from extracurricular.run.stages import Checks, Stage
from extracurricular.run.workspace import Workspace
from extracurricular.samplers import Empirical
from extracurricular.teachers import NetworkTeacher
from extracurricular.teachers.calibrated import calibrated

SCHEMA = 1
FILE = "front.json"
# A float file may differ from its student by this much, as an export may.
_LIMIT = 1e-4
# Seconds to time each file.
_SECONDS = 0.5
_CPU = torch.device("cpu")


@dataclass
class _File:
    """The exported file of a student: what it takes, and what it gave for each seed."""

    bytes: int
    runner: Runner
    raw: dict[str, torch.Tensor]
    validation: list[dict[str, float]] = field(default_factory=list)
    measured: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class FrontStage(Stage):
    """The front of a run, measured once and kept until a student of it changes."""

    path: str = FILE
    title: str = "front"
    key: str = "front"
    data: Any = None

    @property
    def steps(self) -> int:
        """The number of steps, 0: the progress of a run counts trainings."""
        return 0

    def is_done(self, workspace: Workspace) -> bool:
        """Return whether the students were measured as they are."""
        found = read_front(workspace.folder)
        try:
            return found is not None and found["of"] == _networks(workspace)
        except StorageError:
            return False  # a student is not there yet

    def check(self, workspace: Workspace, checks: Checks) -> None:
        """Refuse a front without the libraries of ONNX, or without validation examples."""
        check_onnx()
        if len(workspace.data_of(workspace.recipe.seeds[0]).validation) == 0:
            raise RecipeError(
                "front", "is of students that are compared on validation examples, and the data "
                "have none; give them some, or remove front, limit and sizes"
            )  # fmt: skip

    def do(self, workspace: Workspace) -> None:
        """Measure the students, unless that is done; tell which is best within the limits."""
        if not self.is_done(workspace):
            workspace.watcher.begin(self.title, 1)
            with threads(1):
                found = measured(workspace)
            write_sealed(workspace.folder / FILE, found)
            workspace.watcher.end(self.title, 1, found["seconds"])
        for name, reason in (read_front(workspace.folder) or {}).get("without", {}).items():
            workspace.watcher.tell(f"{self.title}: {name} is left out: {reason}")


def read_front(folder: Path) -> dict[str, Any] | None:
    """Return the front that a run keeps; None where there is none, or its file is damaged."""
    try:
        found = read_sealed(folder / FILE) if (folder / FILE).is_file() else None
    except StorageError:
        return None
    return found if isinstance(found, dict) and found.get("schema") == SCHEMA else None


def points_of(found: Mapping[str, Any]) -> list[Point]:
    """Return the points of a front that was read."""
    return [read(one) for one in found["points"]]


def limit_of(recipe: Recipe) -> dict[str, float]:
    """Return the limits of a recipe by the name of the cost; empty for none."""
    return {} if recipe.limit is None else recipe.limit.model_dump(exclude_none=True)


def report(found: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Return a front as plain values, with the limits, the best student and a sentence on it."""
    points, limit, words = points_of(found), limit_of(recipe), WORDS[found["measure"]]
    chosen = best(points, limit)
    return {
        "measure": found["measure"],
        "split": recipe.evaluation.split,
        "cpu": found["cpu"],
        "limit": limit,
        "points": plain(points),
        "without": found["without"],
        "best": None if chosen is None else chosen.student,
        "precision": None if chosen is None else chosen.precision,
        "sentence": verdict(points, limit, words),
    }


def measured(workspace: Workspace) -> dict[str, Any]:
    """Export, ask and time the students of the front; return what ``front.json`` holds."""
    started = time.perf_counter()
    recipe, measure = workspace.recipe, measure_of(read_json(workspace.folder / SUMMARY))
    files: dict[tuple[str, str], _File] = {}
    counts: dict[str, tuple[int, int | None]] = {}
    without: dict[str, str] = {}
    for name in recipe.front:
        try:
            counts[name] = _student(workspace, name, files, without)
        except XclError as error:
            without[name] = str(error)
    calls = {key: partial(one.runner, one.raw) for key, one in files.items()}
    times = side_by_side(calls, _SECONDS)
    points = [
        Point(
            name,
            precision,
            *counts[name][:1],
            ms=float(f"{1e3 * times[name, precision]:.4g}"),
            bytes=one.bytes,
            multiply_adds=counts[name][1],
            validation=_mean(one.validation, measure),
            error=_mean(one.measured, measure),
            loss=statistics.fmean(figures["nll"] for figures in one.validation),
        )
        for (name, precision), one in files.items()
    ]
    return {
        "schema": SCHEMA,
        "of": _networks(workspace),
        "measure": measure,
        "cpu": cpu_name(),
        "points": plain(points),
        "without": without,
        "seconds": round(time.perf_counter() - started, 3),
    }


def _networks(workspace: Workspace) -> dict[str, Any]:
    """Return all that the front depends on, as plain values: its networks and its examples."""
    recipe, whole = workspace.recipe, plan(workspace.recipe)
    pairs = [(name, seed) for name in recipe.front for seed in recipe.seeds]
    found: dict[str, Any] = {
        whole.students[pair].path: workspace.record(whole.students[pair].path).get("sha256")
        for pair in pairs
    }
    for fitted in (whole.calibrations[pair] for pair in pairs if pair in whole.calibrations):
        found[fitted.path] = workspace.record(fitted.path).get("calibration")
    return {"made": found, "split": recipe.evaluation.split}


def _student(
    workspace: Workspace,
    name: str,
    files: dict[tuple[str, str], _File],
    without: dict[str, str],
) -> tuple[int, int | None]:
    """Export the student of each seed, and add its files; return its parameters, multiply-adds.

    A student that has no 8 bits is added without, and ``without`` gets the reason.

    Raises:
        XclError: It cannot be exported.
    """
    recipe, whole = workspace.recipe, plan(workspace.recipe)
    own: dict[str, _File] = {}
    reason = ""
    count: tuple[int, int | None] = (0, None)
    for seed in recipe.seeds:
        data = workspace.data_of(seed).to(_CPU)
        module = copy.deepcopy(whole.students[name, seed].trained(workspace)).cpu().eval()
        fitted = whole.calibrations.get((name, seed))
        calibration = None if fitted is None else fitted.load(workspace)
        count = parameter_count(module), forward_cost(module, data)
        asked = calibrated(NetworkTeacher(module, data.task), calibration)
        model = Exported(module, data, calibration)
        trees = [part for part in model.modules() if isinstance(part, Trees)]
        for part in trees:
            part.in_onnx = True
        made = {"float32": to_onnx(model, trace(model))}
        try:
            if not trees:
                made["int8"] = quantise(made["float32"], raw_draws(Empirical(data), data))
        except ExportError as error:
            reason = str(error)
        names = ("validation", recipe.evaluation.split)
        splits: list[Split] = [getattr(data, one) for one in names]
        originals = [predict(asked, data, split) for split in splits]
        for precision, proto in made.items():
            content = proto.SerializeToString()
            runner = onnx_runner(content)
            found: list[Checked] = []
            for which, split, original in zip(names, splits, originals, strict=True):
                stated = None if calibration is None else calibration.conformal
                found.append(check(runner, data, split, original, stated))
                # The difference of 8 bits has no limit: the figures judge it.
                enforce(found[-1], _LIMIT if precision == "float32" else math.inf, which)
            file = own.setdefault(precision, _File(len(content), runner, _one(data)))
            file.validation.append(found[0].metrics)
            file.measured.append(found[1].metrics)
    if reason:
        own.pop("int8", None)
        without[f"{name} (int8)"] = reason
    files |= {(name, precision): file for precision, file in own.items()}
    return count


def _one(data: Data) -> dict[str, torch.Tensor]:
    """Return one raw example by the names of a file's inputs."""
    names, split = input_names(data), data.validation
    one: Split = split[torch.zeros(1, dtype=torch.int64)]
    return {names[key]: leaf for key, leaf in leaves(one.x).items()}


def _mean(figures: list[dict[str, float]], measure: str) -> float:
    return statistics.fmean(error_of(one, measure) for one in figures)
