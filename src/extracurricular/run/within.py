"""Cut a recipe so that its run ends within a time: ``--minutes N``.

A few steps of each training are timed, and the teacher is asked a few times. Then every training
keeps the same part of its steps, so that students stay comparable (law 4), and sizes and candidates
are left out where too little would be left for each. The choice stands in the recipe that the run
keeps (``within``), and the same command in the same folder takes it from there, so that an
interrupted run goes on with the same steps (laws 6 and 9).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from extracurricular.errors import RecipeError, XclError
from extracurricular.recipe.read import read_recipe
from extracurricular.recipe.schema import Recipe, TeacherSection, WithinSection
from extracurricular.run.budget import (
    LEAST,
    Choice,
    Span,
    TooShortError,
    choose,
    duration,
    makespan,
    minutes_of,
    steps_of,
)
from extracurricular.run.check import check
from extracurricular.run.chosen import ChosenStage
from extracurricular.run.equal_cost import settled
from extracurricular.run.estimate import is_training, pair_of, step_seconds
from extracurricular.run.executors import job_count, threads
from extracurricular.run.network import NetworkStage
from extracurricular.run.plan import Plan, plan
from extracurricular.run.recorded import RecordStage
from extracurricular.run.stages import Checks, Stage
from extracurricular.run.workspace import Workspace
from extracurricular.samplers import Context
from extracurricular.training import Training

# Not timed: what a run takes besides its trainings, in seconds: to begin, to measure, for the page;
# and to export a student of a seed, for the front.
_ONCE, _EXPORT = 10.0, 5.0
# The part of the time that is kept for what no estimate knows.
_SPARE = 0.1
# A step takes longer where others are at work on the same cores.
_CROWDED = 1.5
_ASKED, _TIMES = 64, 5


def within(
    recipe: Recipe,
    folder: Path,
    minutes: float,
    jobs: int | None = None,
    tell: Callable[[str], None] | None = None,
) -> tuple[Recipe, str]:
    """Return a recipe that ends within a time, and a sentence that says what was chosen.

    Args:
        recipe: The recipe.
        folder: Folder of the run; what was chosen for a run that was begun there is kept.
        minutes: The time.
        jobs: Stages at once; None for as many as the cores allow.
        tell: Called with the title of each training as it is timed.

    Raises:
        XclError: The recipe cannot be run, or not within this time.
    """
    if not 0 < minutes < float("inf"):
        raise RecipeError("--minutes", f"is {minutes:g}; it must be above 0")
    known = recipe.within or _kept(folder)
    if known is not None and known.minutes != minutes:
        whose = "this recipe" if recipe.within is not None else f"the run in {str(folder)!r}"
        cure = "the recipe that it was made from" if recipe.within is not None else "another --out"
        raise RecipeError(
            "--minutes", f"is {minutes:g}, but {whose} was cut to {minutes_of(known.minutes)}; "
            f"give that, or {cure}"
        )  # fmt: skip
    if known is not None:
        cut_down = recipe if recipe.within is not None else cut(recipe, known)
        return cut_down, f"{_kept_steps(cut_down, known)}, as was chosen when the run began."
    started = time.perf_counter()
    workspace = Workspace(recipe, folder)
    whole = settled(recipe, workspace)
    workspace.recipe = whole
    seconds, untimed = _timed(plan(whole), workspace, tell)
    count = job_count(jobs, whole, plan(whole).trained)
    span = span_of(whole, seconds, count)
    left = 60 * minutes * (1 - _SPARE) - (time.perf_counter() - started)
    try:
        chosen = choose(span, candidates(recipe), left)
    except TooShortError as error:
        least = (error.needed + time.perf_counter() - started) / (60 * (1 - _SPARE))
        raise RecipeError(
            "--minutes",
            f"is {minutes:g}, but with {100 * LEAST:g} % of its steps the run takes about "
            f"{max(least, 0.1):.2g} minutes; give more, or a smaller recipe",
        ) from None
    section = WithinSection(minutes=minutes, part=chosen.part, without=list(chosen.without))
    found = cut(recipe, section)
    return found, sentence(found, section, chosen, untimed)


def sentence(recipe: Recipe, section: WithinSection, chosen: Choice, untimed: list[str]) -> str:
    """Return the sentence that says beforehand what was chosen, and how long it takes.

    Args:
        recipe: The recipe as it was cut.
        section: What was done to it.
        chosen: The choice, with its time.
        untimed: Titles of the stages that could not be timed.
    """
    rest = f"; {', '.join(untimed)} not counted" if untimed else ""
    return f"{_kept_steps(recipe, section)}: about {duration(chosen.seconds)}{rest}."


def _kept_steps(recipe: Recipe, section: WithinSection) -> str:
    gone = f", without {', '.join(section.without)}" if section.without else ""
    if section.part == 1:
        return f"Within {minutes_of(section.minutes)} all trainings have all of their steps{gone}"
    # The steps of a student with a cost are set by those of another; trees have none.
    steps = [
        f"{name} {one.training.steps:,}"
        for name, one in recipe.students.items()
        if one.cost is None and one.estimator is None
    ]
    if _is_trained(recipe.teacher):
        steps.insert(0, f"teacher {recipe.teacher.training.steps:,}")
    shown = ", ".join(steps[:6]) + (", …" if len(steps) > 6 else "")
    return (
        f"Within {minutes_of(section.minutes)} each training has {100 * section.part:.3g} % of its "
        f"steps ({shown}){gone}"
    )


# -- the recipe -----------------------------------------------------------------------------------


def candidates(recipe: Recipe) -> tuple[str, ...]:
    """Return what may be left out of a recipe, by its keys, the first to go first.

    These are sizes, from the end of the front, and then candidates of a choice, of which two stay.
    The first student of the front, and those that have a role or set another's cost, stay.
    """
    roles = {recipe.reference, recipe.plain, recipe.subject, *recipe.front[:1]}
    roles |= {one.cost.of for one in recipe.students.values() if one.cost is not None}
    found = [f"students.{name}" for name in reversed(recipe.front) if name not in roles]
    for name, student in recipe.students.items():
        among = [] if student.choose is None else list(student.choose.among)
        found += [f"students.{name}.choose.among.{one}" for one in reversed(among[2:])]
    return tuple(found)


def cut(recipe: Recipe, section: WithinSection) -> Recipe:
    """Return a recipe with a part of its steps, and without some students and candidates.

    It is a pure function: the same choice gives the same recipe.
    """
    part, gone = section.part, set(section.without)
    teacher = recipe.teacher
    record = teacher.record
    if record is not None:
        size = min(one.training.batch_size for one in recipe.students.values())
        draws = min(record.draws, max(size, steps_of(record.draws, part)))
        record = record.model_copy(update={"draws": draws})
    changes: dict[str, Any] = {"record": record}
    if _is_trained(teacher):
        changes["training"] = _shorter(teacher.training, part)
    students = {}
    for name, one in recipe.students.items():
        if f"students.{name}" in gone:
            continue
        if one.estimator is not None:
            students[name] = one  # a fit has no steps
            continue
        own: dict[str, Any] = {"training": _shorter(one.training, part)}
        if one.choose is not None:
            key = f"students.{name}.choose.among"
            among = {k: v for k, v in one.choose.among.items() if f"{key}.{k}" not in gone}
            own["choose"] = one.choose.model_copy(update={"among": among})
        students[name] = one.model_copy(update=own)
    return recipe.model_copy(
        update={
            "teacher": teacher.model_copy(update=changes),
            "students": students,
            "front": [name for name in recipe.front if name in students],
            "within": section,
        }
    )


def _is_trained(teacher: TeacherSection) -> bool:
    return bool(teacher.networks) and teacher.weights is None


def _shorter(training: Training, part: float) -> Training:
    """Return a training with a part of its steps; its warmup is shortened with it."""
    if part == 1:
        return training
    warmup = int(training.warmup * part)
    return training.model_copy(update={"steps": steps_of(training.steps, part), "warmup": warmup})


def _kept(folder: Path) -> WithinSection | None:
    """Return what was chosen for the run that was begun in a folder; None where nothing was."""
    file = folder / "recipe.yaml"
    if not file.is_file():
        return None
    try:
        return read_recipe(str(file), quiet=True).within
    except XclError:
        return None  # whoever needs that recipe says so


# -- times ----------------------------------------------------------------------------------------


def span_of(recipe: Recipe, seconds: dict[str, float], jobs: int) -> Span:
    """Return the time of a run by the part of its steps, and what it is without.

    Args:
        recipe: The recipe, with all of its steps.
        seconds: The time of each of its stages with all of its steps, by path; a chosen student's
            for one candidate alone.
        jobs: Stages at once.
    """
    plans: dict[tuple[str, ...], Plan] = {}

    def span(part: float, without: tuple[str, ...]) -> float:
        if without not in plans:
            plans[without] = plan(cut(recipe, WithinSection(minutes=1, part=1, without=[*without])))
        planned = plans[without]
        stages = planned.trained
        each = {one.path: seconds.get(one.path, 0.0) * part * _times(one) for one in stages}
        crowded = _CROWDED if jobs > 1 else 1.0
        training = makespan(
            [(one.path, [need.path for need in one.needs]) for one in stages], each, jobs
        )
        exports = _EXPORT * len(planned.recipe.front) * len(planned.recipe.seeds)
        return crowded * training + _ONCE + exports

    return span


def _times(stage: Stage) -> float:
    """Return how many whole trainings a stage has: more than one where candidates are tried."""
    return stage.steps / stage.training.steps if isinstance(stage, ChosenStage) else 1.0


def _timed(
    planned: Plan, workspace: Workspace, tell: Callable[[str], None] | None
) -> tuple[dict[str, float], list[str]]:
    """Return the time of each stage with all of its steps, and titles of those that have none."""
    checks = check(planned, workspace)
    known: dict[Any, float] = {}
    found: dict[str, float] = {}
    untimed: list[str] = []
    with threads(workspace.recipe.device.threads):
        for stage in planned.trained:
            if is_training(stage):
                found[stage.path] = stage.training.steps * max(
                    _once(known, pair_of(one), lambda one=one: _step(one, workspace, checks, tell))  # type: ignore[misc]
                    for one in _networks(stage)
                )
            elif isinstance(stage, RecordStage):
                each = _once(
                    known,
                    repr(stage.student.sampler),
                    lambda stage=stage: _answer(stage, workspace, checks),  # type: ignore[misc]
                )
                found[stage.path] = stage.rows * each
            elif stage.steps:  # a calibration has none, and takes moments
                untimed.append(stage.title)
    return found, untimed


def _once(known: dict[Any, float], key: Any, measure: Callable[[], float]) -> float:
    if key not in known:
        known[key] = measure()
    return known[key]


def _networks(stage: NetworkStage) -> Iterator[NetworkStage]:
    """Yield a training, or those of all candidates of a choice."""
    if isinstance(stage, ChosenStage):
        yield from (one for _, one in stage.candidates)
    else:
        yield stage


def _step(
    stage: NetworkStage,
    workspace: Workspace,
    checks: Checks,
    tell: Callable[[str], None] | None,
) -> float:
    """Return the seconds of a step of a training, rather too many than too few."""
    if tell is not None:
        tell(stage.title)
    return step_seconds(stage, workspace, checks)[1]


def _answer(stage: RecordStage, workspace: Workspace, checks: Checks) -> float:
    """Return the seconds that a draw and the teacher's answer to it take."""
    teacher, student = checks.teacher, stage.student
    if teacher is None:
        return 0.0
    sampler = student.build_sampler(workspace, Context(teacher, None, checks.generators))
    times = []
    for number in range(_TIMES + 1):
        ids = torch.arange(number * _ASKED, (number + 1) * _ASKED, device=workspace.device)
        started = time.perf_counter()
        teacher(sampler(ids)).parameters.sum().item()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:]) / _ASKED
