"""Trainings at once in one process: cohorts that share their draws, and several on one GPU.

Students with the same sampler, seed, teacher and batch size see the same draws. Such a cohort is
trained side by side, so that each chunk is drawn, and the teacher asked about it, only once. On a
GPU, independent trainings run at once too, each on a stream of its own (``device.together``).
Neither changes a number: each stage does what it would do alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from extracurricular.run.estimator import EstimatorStage
from extracurricular.run.network import NetworkStage, drawn_with
from extracurricular.run.stages import Stage
from extracurricular.run.tasks import Task, ready_tasks
from extracurricular.run.workspace import Workspace
from extracurricular.training import Shared, together

# Trainings at once on one GPU where the recipe says auto. On an H200, three trainings of small
# networks at once took a fifth less time than one after the other, and more gained no more.
_ON_A_GPU = 3


def most_together(workspace: Workspace) -> int:
    """Return how many independent trainings run at once in one process."""
    if workspace.device.type != "cuda":
        return 1
    wanted = workspace.recipe.device.together
    return _ON_A_GPU if wanted == "auto" else int(wanted)


def next_group(ready: Sequence[Stage], most: int = 1) -> list[Stage]:
    """Return the stages to do at once: the first that is ready, and those that go with it.

    Args:
        ready: Stages whose needs are done, in the order of the plan; at least one.
        most: Independent trainings at once, at least 1; a cohort counts as one.
    """
    first = ready[0]
    if not _trains(first):
        return [first]
    lanes: dict[str, list[Stage]] = {}
    for stage in ready:
        if _trains(stage):
            lanes.setdefault(_lane(stage), []).append(stage)
    return [stage for lane in list(lanes.values())[:most] for stage in lane]


def do_group(group: Sequence[Stage], workspace: Workspace) -> None:
    """Do stages at once.

    Raises:
        XclError: A stage failed. The others end soon after, and go on from their checkpoints.
    """
    if len(group) == 1:
        group[0].do(workspace)
        return
    lanes = [_lane(stage) for stage in group]
    workspace.shared.update({lane: Shared() for lane in lanes if lanes.count(lane) > 1})
    try:
        together([partial(stage.do, workspace) for stage in group], workspace.device, lanes)
    finally:
        workspace.shared.clear()


def do_in_order(
    tasks: Sequence[Task],
    workspaces: Mapping[Path, Workspace],
    finished: Callable[[Task], None] = lambda task: None,
) -> None:
    """Do tasks in this process, in their order where they do not go together.

    Args:
        tasks: The tasks.
        workspaces: The workspace of each run.
        finished: Called with each task that is done, before any that needs it begins.
    """
    waiting = list(tasks)
    while waiting:
        ready = ready_tasks(waiting, (task.key for task in waiting))
        group = group_of(ready, most_together(workspaces[ready[0].run]))
        workspace = workspaces[group[0].run]
        torch.set_num_threads(workspace.recipe.device.threads)
        do_group([task.stage for task in group], workspace)
        for task in group:
            finished(task)
        keys = {task.key for task in group}
        waiting = [task for task in waiting if task.key not in keys]


def group_of(ready: Sequence[Task], most: int = 1) -> list[Task]:
    """Return the tasks to do at once: the first, and those of its run that go with it."""
    own = [task for task in ready if task.run == ready[0].run]
    stages = {task.stage.path: task for task in own}
    return [stages[stage.path] for stage in next_group([task.stage for task in own], most)]


def _trains(stage: Stage) -> bool:
    """Return whether a stage is a training; an estimator is fitted, which goes with no other."""
    return isinstance(stage, NetworkStage) and not isinstance(stage, EstimatorStage)


def _lane(stage: Stage) -> str:
    """Return the name of a cohort, or of a training that has none."""
    return (drawn_with(stage) if isinstance(stage, NetworkStage) else None) or stage.path
