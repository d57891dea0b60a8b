"""Estimate the cost of a run: each stage's steps, draws, questions to the teacher, bytes and time.

Nothing is trained and nothing is written. A time is measured on short trainings that are thrown
away, one for each distinct pair of network and sampler.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import torch

from extracurricular.knowledge.fingerprint import canonical
from extracurricular.run.check import check
from extracurricular.run.estimator import EstimatorStage
from extracurricular.run.executors import threads
from extracurricular.run.families import shaped
from extracurricular.run.loss import loss_for
from extracurricular.run.network import NetworkStage
from extracurricular.run.plan import Plan
from extracurricular.run.stages import Checks, Price, Stage
from extracurricular.run.workspace import Workspace
from extracurricular.samplers import Context, Share
from extracurricular.teachers import LabelTeacher
from extracurricular.training import Execution, Training, train

WARM_UP = 5
TIMED = 20


@dataclass(frozen=True)
class Estimate:
    """The cost of one stage.

    Args:
        stage: The stage.
        done: Whether it is done already.
        price: Its steps, draws and so on.
        seconds: The shortest and the longest time that it will probably take; None where it is not
            timed, or done already.
    """

    stage: Stage
    done: bool
    price: Price
    seconds: tuple[float, float] | None = None


def estimate(
    plan: Plan,
    workspace: Workspace,
    *,
    timed: bool = False,
    tell: Callable[[str], None] | None = None,
) -> list[Estimate]:
    """Return the cost of each stage of a run, in order.

    Args:
        plan: The run.
        workspace: Its workspace; nothing is written to its folder.
        timed: Also time :data:`TIMED` steps of each distinct pair of network and sampler, after
            :data:`WARM_UP` to warm up.
        tell: Called with the title of each stage as it is timed.

    Raises:
        XclError: The recipe cannot be run, or the folder belongs to another.
    """
    checks = check(plan, workspace)
    known: dict[bytes, tuple[float, float]] = {}
    found = []
    for stage in plan.stages:
        done = stage.is_done(workspace)
        seconds = None
        if timed and not done and is_training(stage):
            pair = pair_of(stage)
            if pair not in known:
                if tell is not None:
                    tell(stage.title)
                # As in the run: two threads of a small network may be far slower than one.
                with threads(workspace.recipe.device.threads):
                    known[pair] = step_seconds(stage, workspace, checks)
            low, high = known[pair]
            seconds = (low * stage.steps, high * stage.steps)
        found.append(Estimate(stage, done, stage.price(workspace, checks), seconds))
    return found


def whole_seconds(estimates: list[Estimate]) -> tuple[float, float]:
    """Return the shortest and the longest time of all that was timed."""
    known = [one.seconds for one in estimates if one.seconds is not None]
    return sum(low for low, _ in known), sum(high for _, high in known)


def step_seconds(stage: NetworkStage, workspace: Workspace, checks: Checks) -> tuple[float, float]:
    """Time a few steps of a training, and return the bounds of the mean time of a step.

    The teacher and the generators are untrained, which costs as much. The bounds are two standard
    errors of the mean away from it, and at least a tenth.
    """
    model = stage.untrained(workspace).to(workspace.device)
    context = Context()
    if stage.teacher is not None:
        context = Context(checks.teacher, model, checks.generators)
    sampler = stage.build_sampler(workspace, context)
    if isinstance(sampler, Share):
        # Whatever the share will be, half of the draws are extended.
        sampler = replace(sampler, of=0.5)
    labelled = sampler(torch.arange(2, device=workspace.device)).y is not None
    known = checks.teacher is not None and stage.asks_once(checks.teacher, sampler)
    given = labelled and (stage.record is not None or known)
    asks = stage.learns_from == "teacher" and not given
    teacher = checks.teacher if asks and checks.teacher is not None else LabelTeacher()

    def steps(count: int, on_progress: Callable[[int, float], None]) -> None:
        train(
            model,
            sampler,
            teacher,
            shaped(stage, workspace.data(stage.data)).task,
            matching=loss_for(
                stage.matching,
                f"{stage.key}.matching",
                workspace.data(stage.data),
                stage.learns_from,
            ),
            settings=for_timing(stage.training, count),
            seed=stage.seed,
            fabric=workspace.fabric,
            on_progress=on_progress,
            execution=Execution(capture=workspace.recipe.device.capture),
        )

    return time_steps(steps)


def for_timing(training: Training, steps: int) -> Training:
    """Return a training of some steps that hardly changes the network it trains."""
    changes: dict[str, Any] = {"steps": steps, "warmup": 0, "lr": training.rate / 1e3}
    return training.model_copy(update=changes)


def time_steps(
    steps: Callable[[int, Callable[[int, float], None]], None],
) -> tuple[float, float]:
    """Time :data:`TIMED` steps after some to warm up; return the bounds of the mean time of one.

    Args:
        steps: Does a number of steps, and calls a function after each of them.
    """
    moments: list[float] = []

    def note(step: int, loss: float) -> None:
        moments.append(time.perf_counter())

    steps(WARM_UP, note)
    moments.clear()
    steps(TIMED, note)
    # The first step may have been captured before it was done, so time counts from its end.
    each = [after - before for before, after in itertools.pairwise(moments)]
    mean = statistics.mean(each)
    spread = 2 * statistics.stdev(each) / math.sqrt(len(each)) if len(each) > 1 else mean
    around = max(spread, mean / 10)
    return max(mean - around, min(each)), mean + around


def is_training(stage: Stage) -> TypeGuard[NetworkStage]:
    """Return whether a stage has steps to time; the fit of an estimator has none."""
    return isinstance(stage, NetworkStage) and not isinstance(stage, EstimatorStage)


def pair_of(stage: NetworkStage) -> bytes:
    """Return all that the time of a step depends on."""
    training = stage.training
    recorded = stage.record is not None
    own = [stage.model, stage.sampler, stage.learns_from, recorded, stage.teacher is None]
    return canonical([*own, training.batch_size, training.optimizer, training.ema is not None])
