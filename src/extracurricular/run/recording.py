"""Record the teacher of a recipe, on the draws of one of its students.

``xcl record`` makes a record to keep, with the draws of a student's first seed. Inside a run,
``teacher: {record: N}`` makes one for each sampler, whose draws do not depend on the student's
seed, so that all seeds and students with that sampler share it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from extracurricular import rng
from extracurricular.data.images.stream import left_out_of_draws
from extracurricular.distributions import Task
from extracurricular.errors import RecipeError, XclError, known_names, shorten
from extracurricular.files import write_json
from extracurricular.knowledge import (
    Recorded,
    Replay,
    Report,
    build_codec,
    open_knowledge,
    price_lines,
    record,
)
from extracurricular.knowledge.fingerprint import canonical
from extracurricular.run.stages import KnowledgeStage, Stage
from extracurricular.teachers import Teacher

if TYPE_CHECKING:
    from extracurricular.run.pipeline import Run


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
    run.prepare(stage)
    return Source(run, name, stage, run.teacher(stage.seed))


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
            run.sampler(stage),
            source.teacher,
            run.data_of(stage),
            draws,
            folder,
            codec=codec,
            members=members,
            temperature=float(stage.matching.get("temperature", 1.0)),
            description=description(run, stage),
            seed=rng.fold(stage.seed, "sampler"),
            fabric=run.fabric,
            on_progress=on_progress,
        )
    except ValueError as error:
        raise XclError(f"cannot record {source.name!r}: {error}") from error


def description(run: Run, stage: Stage) -> dict[str, Any]:
    """All that a student's draws depend on, but for the data, the teacher and the seed."""
    used = [part.settings(run.recipe) for part in run.generators_of(stage)]
    return {"chain": stage.sampler, "generators": used}


def knowledge_stages(run: Run) -> Iterator[KnowledgeStage]:
    """The records that a recipe asks for: one for each sampler and teacher."""
    draws = run.recipe.teacher.record
    if draws is None:
        return
    known: set[str] = set()
    for seed in run.recipe.seeds:
        for name, section in run.recipe.students.items():
            if section.learns_from == "teacher":
                stage = knowledge_stage(run, run.student_stage(name, seed), draws)
                if stage.path not in known:
                    known.add(stage.path)
                    yield stage


def knowledge_stage(run: Run, student: Stage, draws: int) -> KnowledgeStage:
    """The record that a student learns from."""
    # Of the sampler, its data and its teacher; not of the student's name or seed.
    own = student.seed if run.recipe.teacher.per_seed else 0
    key = rng.fold(own, canonical([student.sampler, student.data]).decode())
    return KnowledgeStage(
        path=f"knowledge/{key:016x}",
        title=f"knowledge of {student.title}" if own else f"knowledge of {_name(student)}",
        key=student.key,
        student=student,
        seed=rng.fold(key, "sampler"),
        draws=draws,
    )


def _name(student: Stage) -> str:
    return student.key.partition(".")[2]


def record_stage(run: Run, stage: KnowledgeStage) -> None:
    """Record into the stage's folder, going on from where an interrupted recording was."""
    folder, student = run.folder / stage.path, stage.student
    state: dict[str, Any] = {"settings": stage.settings(run.recipe), "done": False}
    write_json(folder / "stage.json", state)
    if run.watcher is not None:
        run.watcher.begin(stage.title, stage.steps)
    size = student.training.batch_size

    def advance(done: int) -> None:
        if run.watcher is not None:
            run.watcher.advance(done // size, None)

    try:
        report = record(
            run.sampler(student, seed=stage.seed),
            run.teacher(student.seed),
            run.data_of(stage),
            stage.draws,
            folder,
            codec=run.recipe.teacher.codec,
            temperature=float(student.matching.get("temperature", 1.0)),
            description=description(run, student),
            seed=stage.seed,
            fabric=run.fabric,
            on_progress=advance,
        )
    except ValueError as error:
        raise RecipeError(f"{stage.key}.sampler", str(error)) from error
    price = report.price.model_dump(mode="json")
    size_told = {"draws": report.draws, "bytes_per_draw": report.bytes_per_draw}
    write_json(folder / "stage.json", state | {"done": True, **size_told, "price": price})
    if run.watcher is not None:
        run.watcher.end(stage.title, stage.steps, report.seconds)
        for left_out in left_out_of_draws(run.data_of(stage)):
            run.watcher.tell(left_out)
        told = "; ".join(price_lines(report))
        run.watcher.tell(f"{stage.title}: {report.bytes_per_draw} bytes a draw, {told}")


def replayed(run: Run, student: Stage) -> tuple[Replay, Recorded]:
    """The sampler and the teacher of a student that learns from a record."""
    draws = run.recipe.teacher.record
    assert draws is not None
    stage = knowledge_stage(run, student, draws)
    known = open_knowledge(
        run.folder / stage.path,
        data=run.data_of(stage),
        sampler=description(run, student),
        seed=stage.seed,
        teacher=run.teacher(student.seed),
    )
    choices = known.choices if known.manifest.origin.choice else None
    child = run.sampler(student, seed=stage.seed)
    # Seeds share the draws, but each goes through them in an order of its own.
    return Replay(child, draws, student.seed, choices, start=1), known


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
