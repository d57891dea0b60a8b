"""Record the teacher of a recipe, on the draws of one of its students."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from extracurricular import rng
from extracurricular.distributions import Task
from extracurricular.errors import RecipeError, XclError, known_names, shorten
from extracurricular.knowledge import Report, build_codec, record
from extracurricular.pipeline import Run
from extracurricular.stages import Stage
from extracurricular.teachers import Teacher


@dataclass(frozen=True)
class Source:
    """What is recorded.

    Args:
        run: The recipe in its folder.
        name: The student whose draws these are.
        stage: Its stage, of the recipe's first seed.
        teacher: The trained teacher.
    """

    run: Run
    name: str
    stage: Stage
    teacher: Teacher


def teacher_of(run: Run, student: str | None = None) -> Source:
    """Find a student's sampler, and its teacher, trained first where that is not done.

    Of several processes, the first trains and the others wait.

    Args:
        run: The recipe in its folder.
        student: The student's name; the first that learns from the teacher where None.

    Raises:
        XclError: There is no such student, or the recipe cannot be run.
    """
    taught = [n for n, s in run.recipe.students.items() if s.learns_from == "teacher"]
    if student is None and not taught:
        raise RecipeError("students", "all learn from 'labels', so no teacher is asked")
    name = taught[0] if student is None else student
    if name not in run.recipe.students:
        known = known_names(name, run.recipe.students)
        raise RecipeError("", f"--student is {name!r}, which the recipe does not have; {known}")
    if name not in taught:
        raise RecipeError(
            f"students.{name}.learns_from", "is 'labels', so its teacher is not recorded"
        )
    run.check()
    stage = run.student_stage(name, run.recipe.seeds[0])
    while int(os.environ.get("RANK", "0")) > 0 and not run.teacher_is_ready(stage.seed):
        time.sleep(0.5)
    return Source(run, name, stage, run.train_teacher(stage.seed))


def record_run(
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
        XclError: With one sentence for the user.
    """
    run, stage = source.run, source.stage
    try:
        return record(
            run._sampler(stage),
            source.teacher,
            run.data,
            draws,
            folder,
            codec=codec,
            members=members,
            temperature=float(stage.matching.get("temperature", 1.0)),
            description=stage.sampler,
            seed=rng.fold(stage.seed, "sampler"),
            fabric=run.fabric,
            on_progress=on_progress,
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
