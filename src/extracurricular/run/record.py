"""Record the teacher of a recipe in a folder of its own, on the draws of one of its students.

``xcl record`` does this, with the draws of a student's first seed. A record inside a run is a stage
of it: see :mod:`extracurricular.run.recorded`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from extracurricular.distributions import Task
from extracurricular.errors import RecipeError, XclError, known_names, shorten
from extracurricular.knowledge import RecordOptions, Report, build_codec, record
from extracurricular.run.check import check
from extracurricular.run.equal_cost import settled
from extracurricular.run.execute import prepare
from extracurricular.run.network import NetworkStage
from extracurricular.run.plan import plan
from extracurricular.run.recorded import RecordStage, check_length, description, recorded_draws
from extracurricular.run.workspace import Workspace, sampler_seed
from extracurricular.samplers.build import share_is_auto
from extracurricular.teachers import Teacher


@dataclass(frozen=True)
class Source:
    """A teacher and the draws to record it on.

    Args:
        workspace: The workspace of the run that has the teacher.
        name: The student whose draws these are.
        stage: Its stage, of the recipe's first seed.
        teacher: The trained teacher.
    """

    workspace: Workspace
    name: str
    stage: NetworkStage
    teacher: Teacher


def teacher_of(workspace: Workspace, student: str | None = None) -> Source:
    """Return a student's stage and its teacher; train the teacher first if that is not done.

    Of several processes, the first trains and the others wait.

    Args:
        workspace: The workspace of the run that has the teacher, or gets it.
        student: The student's name; the first that learns from the teacher where None.

    Raises:
        XclError: There is no such student, or the recipe cannot be run.
    """
    recipe = workspace.recipe
    learners = [n for n, s in recipe.students.items() if s.learns_from == "teacher"]
    if student is None and not learners:
        raise RecipeError("students", "all learn from 'labels', so no teacher is asked")
    name = learners[0] if student is None else student
    if name not in recipe.students:
        known = known_names(name, recipe.students)
        raise RecipeError("", f"--student is {name!r}, which the recipe does not have; {known}")
    if name not in learners:
        raise RecipeError(
            f"students.{name}.learns_from", "is 'labels', so its teacher is not recorded"
        )
    recipe = workspace.recipe = settled(recipe, workspace)
    whole = plan(recipe)
    check(whole, workspace)
    stage = whole.students[name, recipe.seeds[0]]
    prepare([part for part in stage.parts if not isinstance(part, RecordStage)], workspace)
    assert stage.teacher is not None
    return Source(workspace, name, stage, workspace.made(stage.teacher))


def record_teacher(
    source: Source,
    folder: Path,
    draws: int,
    *,
    codec: Any = None,
    members: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> Report:
    """Record a teacher; see :func:`extracurricular.knowledge.record`.

    Raises:
        XclError: The draws cannot be recorded; the message is one sentence.
    """
    workspace, stage = source.workspace, source.stage
    if share_is_auto(stage.sampler):
        check_length(stage, draws, "--draws")
    try:
        with workspace.exact():
            return record(
                recorded_draws(stage, workspace, sampler_seed(stage.seed), draws),
                source.teacher,
                workspace.data(stage.data),
                draws,
                folder,
                codec=codec,
                members=members,
                temperature=stage.last_temperature,
                options=RecordOptions(
                    description=description(stage, draws),
                    seed=sampler_seed(stage.seed),
                    fabric=workspace.fabric,
                    on_progress=on_progress,
                ),
            )
    except ValueError as error:
        raise XclError(f"cannot record {source.name!r}: {error}") from error


def read_codec(text: str | None, task: Task) -> Any:
    """Read and check a codec as it is written on the command line.

    Raises:
        RecipeError: It is not YAML, or no codec for the task.
    """
    if text is None:
        return None
    try:
        spec = yaml.safe_load(text)
    except yaml.YAMLError:
        raise RecipeError("--codec", f"is {shorten(text)}, which is not valid YAML") from None
    build_codec(spec, task, "--codec")
    return spec


def one_gpu_each() -> None:
    """Give each process that ``torchrun`` started on this machine a GPU of its own."""
    rank, count = os.environ.get("LOCAL_RANK"), torch.cuda.device_count()
    if rank is not None and count > 1:
        names = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
        os.environ["CUDA_VISIBLE_DEVICES"] = names.split(",")[int(rank) % count]
