"""Trainings at once in one process: cohorts that share their draws, and several on one GPU.

Students with the same sampler, seed, teacher and batch size see the same draws. Such a cohort is
trained side by side, so that each chunk is drawn, and the teacher asked about it, only once. On a
GPU, independent trainings run at once too, each on a stream of its own (``device.together``).
Neither changes a number: each stage does what it would do alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from extracurricular.run.estimator import EstimatorStage
from extracurricular.run.network import NetworkStage, drawn_with
from extracurricular.run.stages import Stage
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


def do_in_order(stages: Sequence[Stage], workspace: Workspace) -> None:
    """Do stages in this process, in the order of the plan where they do not go together."""
    waiting, most = list(stages), most_together(workspace)
    while waiting:
        ahead = {stage.path for stage in waiting}
        ready = [s for s in waiting if not any(need.path in ahead for need in s.needs)]
        group = next_group(ready, most)
        do_group(group, workspace)
        waiting = [stage for stage in waiting if stage not in group]


def _trains(stage: Stage) -> bool:
    """Return whether a stage is a training; an estimator is fitted, which goes with no other."""
    return isinstance(stage, NetworkStage) and not isinstance(stage, EstimatorStage)


def _lane(stage: Stage) -> str:
    """Return the name of a cohort, or of a training that has none."""
    return (drawn_with(stage) if isinstance(stage, NetworkStage) else None) or stage.path
