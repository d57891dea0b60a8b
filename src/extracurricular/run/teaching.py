"""The teacher of a recipe: networks trained here, one read from a file, or what is no network.

A teacher from outside is fitted again in every process that asks it, and no estimator is kept.
``stage.json`` of its folder keeps its identity instead, so that one which answers otherwise than it
did, as after an update of a library, is refused.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from extracurricular import rng
from extracurricular.data.base import Data
from extracurricular.errors import RecipeError, StorageError, XclError
from extracurricular.files import read_json, write_json
from extracurricular.knowledge.fingerprint import teacher_fingerprint
from extracurricular.models import parameter_count
from extracurricular.models.weights import checksum, load_pretrained
from extracurricular.registry import split_spec
from extracurricular.run.stages import AnyStage, OutsideStage, Stage
from extracurricular.samplers import Batch
from extracurricular.teachers import DropoutTeacher, EnsembleTeacher, NetworkTeacher, Teacher
from extracurricular.teachers.named import OUTSIDE, few, files_of

if TYPE_CHECKING:
    from extracurricular.run.pipeline import Run

_KEY = "teacher.outside"


def network_stages(run: Run, seed: int) -> list[Stage]:
    """The networks of the teacher for students of this seed; none if it is no network."""
    section = run.recipe.teacher
    which = f"seed-{seed}" if section.per_seed else "shared"
    seed = seed if section.per_seed else 0
    count = len(section.networks)
    return [
        Stage(
            path=f"teacher/{which}/member-{number}",
            title=f"teacher {number + 1}/{count}" + (f", seed {seed}" if section.per_seed else ""),
            key="teacher",
            data=run.recipe.data_of(seed),
            model=model,
            sampler=section.sampler,
            training=section.training,
            seed=rng.fold(seed, "teacher", number) >> 1,
            upstream=_given_weights(section.weights),
        )
        for number, model in enumerate(section.networks)
    ]


def outside_stage(run: Run, seed: int) -> OutsideStage:
    """The teacher from outside that students of this seed learn from."""
    section = run.recipe.teacher
    which = f"seed-{seed}" if section.per_seed else "shared"
    seed = seed if section.per_seed else 0
    name, _ = split_spec(section.outside, "teacher", _KEY)
    return OutsideStage(
        path=f"teacher/{which}/outside",
        title=f"teacher {name}" + (f", seed {seed}" if section.per_seed else ""),
        key=_KEY,
        data=run.recipe.data_of(seed),
        spec=section.outside,
        seed=rng.fold(seed, "teacher") >> 1,
        of=seed,
        files=_checksums(section.outside),
    )


def teacher_stages(run: Run, seed: int) -> list[AnyStage]:
    """All that the teacher for students of this seed is made of."""
    if run.recipe.teacher.outside is not None:
        return [outside_stage(run, seed)]
    return list(network_stages(run, seed))


def _given_weights(given: str | None) -> tuple[dict[str, Any], ...]:
    """What tells one file of teacher weights from another: its content, not its name."""
    if given is None or not Path(given).is_file():
        return ()
    return ({"weights_sha256": checksum(Path(given))},)


def _checksums(spec: Any) -> tuple[str, ...]:
    """What tells one teacher's files from another's."""
    try:
        files = files_of(OUTSIDE.build(spec, key=_KEY))
    except ValueError as error:
        raise RecipeError(_KEY, str(error)) from error
    return tuple(checksum(file) for file in files)


def load_teacher(run: Run, seed: int) -> Teacher:
    """The trained teacher for students of this seed.

    Raises:
        XclError: A file is missing or damaged, or the teacher is not what it was.
    """
    section = run.recipe.teacher
    if section.outside is not None:
        return _fit(run, outside_stage(run, seed))
    stages = network_stages(run, seed)
    if section.weights is None:
        return as_teacher(run, [run.load(stage) for stage in stages])
    module = run.model(stages[0], "teacher.model")
    noun = "classes" if run.data.task.kind == "classification" else "outputs"
    try:
        load_pretrained(module, Path(section.weights), noun)
    except StorageError as error:
        raise RecipeError("teacher.weights", str(error)) from error
    return as_teacher(run, [module.to(run.fabric.device).eval()])


def preview_teacher(run: Run) -> Teacher:
    """The teacher as it will be, untrained, to check by what samplers and students want of it.

    Raises:
        RecipeError: A teacher from outside does not go with the data.
    """
    seed = run.recipe.seeds[0]
    if run.recipe.teacher.outside is not None:
        return _build(outside_stage(run, seed), few(run.data_for(seed)))
    stages = network_stages(run, seed)
    modules = [run.model(s, "teacher.model").to(run.fabric.device).eval() for s in stages]
    return as_teacher(run, modules)


def as_teacher(run: Run, modules: list[nn.Module]) -> Teacher:
    """The recipe's teacher, made of these networks."""
    passes, task = run.recipe.teacher.mc_dropout, run.data.task
    teachers: list[Teacher]
    if passes is None:
        teachers = [NetworkTeacher(module, task) for module in modules]
    else:
        try:
            teachers = [DropoutTeacher(module, task, passes) for module in modules]
        except ValueError as error:
            raise RecipeError("teacher.mc_dropout", f"is {passes}, but {error}") from error
    return teachers[0] if len(teachers) == 1 else EnsembleTeacher(teachers)


def first_network(teacher: Teacher) -> nn.Module | None:
    """The first network of a teacher, for its features; None if it is no network."""
    first = teacher.teachers[0] if isinstance(teacher, EnsembleTeacher) else teacher
    network = first.network if isinstance(first, DropoutTeacher) else first
    return network.module if isinstance(network, NetworkTeacher) else None


def _build(stage: OutsideStage, data: Data) -> Teacher:
    """Fit or open a teacher from outside, and ask it once."""
    entry = OUTSIDE.build(stage.spec, key=stage.key)
    name, _ = split_spec(stage.spec, "teacher", stage.key)
    try:
        teacher = entry.fit(data, stage.seed)
        probe = data.train[:2]
        ids = torch.arange(len(probe), device=data.device)
        teacher(Batch(ids, data.inputs(probe.x)))
    except RecipeError as error:
        raise RecipeError(f"{stage.key}.{name}.{error.key}".strip("."), error.problem) from error
    except XclError:
        raise
    except ValueError as error:
        raise RecipeError(f"{stage.key}.{name}", str(error)) from error
    return teacher


def _fit(run: Run, stage: OutsideStage) -> Teacher:
    """Make the teacher, which must be what the run's folder says it was."""
    teacher = _build(stage, run.data_of(stage))
    file = run.folder / stage.path / "stage.json"
    known = read_json(file).get("identity") if file.exists() else None
    if known is not None and known != _identity(teacher):
        raise StorageError(
            f"{stage.path} of {str(run.folder)!r} does not answer as it did, as after another "
            "version of a library; choose another --out, or delete that folder and what learned "
            "from it"
        )
    return teacher


def _identity(teacher: Teacher) -> str | None:
    try:
        return teacher_fingerprint(teacher)
    except ValueError:
        return None  # of a kind of somebody's own


def fit_stage(run: Run, stage: OutsideStage) -> None:
    """Fit a teacher from outside, and note what it took and what it is."""
    folder = run.folder / stage.path
    state: dict[str, Any] = {"settings": stage.settings(run.recipe), "done": False}
    write_json(folder / "stage.json", state)
    if run.watcher is not None:
        run.watcher.begin(stage.title, stage.steps)
    started = time.perf_counter()
    teacher = run.teacher(stage.of)
    seconds = time.perf_counter() - started
    state |= {"done": True, "identity": _identity(teacher), "steps": stage.steps}
    state |= {"seconds": round(seconds, 3), "parameters": getattr(teacher, "parameters", None)}
    write_json(folder / "stage.json", state)
    if run.watcher is not None:
        run.watcher.end(stage.title, stage.steps, seconds)


def teacher_records(run: Run, seed: int) -> dict[str, Any]:
    """Steps, seconds and parameters of the teacher for students of this seed."""
    if run.recipe.teacher.weights is not None:
        modules = [run.model(stage, "teacher.model") for stage in network_stages(run, seed)]
        parameters = sum(parameter_count(module) for module in modules)
        return {"steps": 0, "seconds": 0.0, "parameters": parameters}
    stages = teacher_stages(run, seed)
    records = [read_json(run.folder / stage.path / "stage.json") for stage in stages]
    keys = ("steps", "seconds", "parameters")
    if any(record["parameters"] is None for record in records):
        return {**{key: sum(r[key] for r in records) for key in keys[:2]}, "parameters": None}
    return {key: sum(r[key] for r in records) for key in keys}
