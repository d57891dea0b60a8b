"""The part of the processes that take part in a run which rank 0 does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from extracurricular.errors import RecipeError
from extracurricular.inputs import Inputs
from extracurricular.matching import build_matching
from extracurricular.recipe.read import parse_recipe
from extracurricular.run.chosen import ChosenStage
from extracurricular.run.estimator import EstimatorStage
from extracurricular.run.executors import threads
from extracurricular.run.network import NetworkStage, train_network
from extracurricular.run.plan import Plan, plan
from extracurricular.run.ranks import Ranks
from extracurricular.run.recorded import RecordStage
from extracurricular.run.stages import Stage
from extracurricular.run.teacher import TeacherPlan
from extracurricular.run.workspace import Workspace
from extracurricular.training.synchronised import batch_norms


def lead(ranks: Ranks, workspace: Workspace) -> None:
    """Begin a run in rank 0: tell the others where and on which device, and wait for them."""
    device = workspace.recipe.device
    ranks.shards = device.strategy == "fsdp"
    ranks.tell(
        "begin",
        recipe=workspace.recipe.dump(),
        folder=str(workspace.folder.absolute()),
        precision=workspace.precision,
    )
    workspace.ranks = ranks
    _ = workspace.fabric


def do_one_by_one(stages: Sequence[Stage], workspace: Workspace, ranks: Ranks) -> None:
    """Do stages in rank 0, each of which all processes share, one after the other."""
    device = workspace.recipe.device
    said = set[str]()
    for stage in stages:
        if isinstance(stage, NetworkStage) and not stage.is_done(workspace):
            said |= {stage.key} if _uneven(stage, workspace) else set()
    if said and not device.sync_batchnorm:
        workspace.watcher.tell(
            f"batch norms of {', '.join(sorted(said))} take their statistics over the slice of "
            f"each of {ranks.place.world} devices, so numbers depend on that "
            "(device.sync_batchnorm is false)"
        )
    for stage in stages:
        stage.do(workspace)


def _uneven(stage: NetworkStage, workspace: Workspace) -> bool:
    """Return whether a student's outputs on an example depend on others of the batch."""
    trains = not isinstance(stage, EstimatorStage)
    return trains and bool(batch_norms(stage.untrained(workspace)))


def follow(ranks: Ranks) -> None:
    """Take part in a run until rank 0 ends it."""
    begun = ranks.hear()
    if begun["what"] == "begin":
        _follow(ranks, begun)
    ranks.leave()


def _follow(ranks: Ranks, begun: dict[str, Any]) -> None:
    recipe = parse_recipe(begun["recipe"], quiet=True)
    workspace = Workspace(recipe, Path(begun["folder"]))
    # Rank 0 has resolved it.
    workspace.precision = begun["precision"]
    workspace.ranks, ranks.shards = ranks, recipe.device.strategy == "fsdp"
    _ = workspace.fabric
    whole = None
    with threads(recipe.device.threads):
        while (message := ranks.hear())["what"] != "end":
            if message["what"] == "plan":
                workspace.recipe = parse_recipe(message["recipe"], quiet=True)
                whole = plan(workspace.recipe)
            else:
                assert whole is not None
                _do(message, ranks, workspace, whole)


def _do(
    message: dict[str, Any],
    ranks: Ranks,
    workspace: Workspace,
    whole: Plan,
) -> None:
    what = message["what"]
    if what == "meet":
        ranks.see(workspace.folder, message["token"])
    elif what == "shard":
        with ranks.together():
            _shard(message, workspace, whole)
    elif what == "answer":
        with ranks.together(), torch.no_grad(), workspace.fabric.autocast():
            ranks.networks[message["name"]](_probe(message["name"], workspace, whole))
    else:
        stage = _by_path(whole)[message["path"]]
        ranks.check_content(workspace.content(stage.data), message["content"])
        with workspace.exact():
            if isinstance(stage, RecordStage):
                stage.record(workspace)
            elif isinstance(stage, NetworkStage):
                train_network(
                    stage, workspace, _nobody, until=message["until"], stop=message["stop"]
                )


def _nobody(step: int, loss: float) -> None:
    """Tell nobody, as rank 0 does."""


def _by_path(whole: Plan) -> dict[str, Stage]:
    found: dict[str, Stage] = {}
    for stage in whole.trained:
        found[stage.path] = stage
        if isinstance(stage, ChosenStage):
            found |= {one.path: one for _, one in stage.candidates}
    return found


def _teacher(path: str, whole: Plan) -> TeacherPlan:
    return next(one for one in whole.teachers.values() if one.path == path)


def _shard(message: dict[str, Any], workspace: Workspace, whole: Plan) -> None:
    """Load a teacher as rank 0 does, whose networks are sharded by that."""
    teacher = _teacher(message["path"], whole)
    if message["preview"]:
        teacher.preview(workspace)
    else:
        workspace.made(teacher.uncalibrated)


def _probe(name: str, workspace: Workspace, whole: Plan) -> Inputs:
    """Return an example for a network whose answer nobody needs."""
    data = workspace.data(_teacher(name.rpartition("/")[0].removeprefix("preview/"), whole).data)
    return data.inputs(data.train[:1].x)


# -- what several devices cannot do ---------------------------------------------------------------


def check_trainings(whole: Plan, workspace: Workspace, world: int) -> None:
    """Refuse trainings that several processes cannot share, before anything is done.

    Args:
        whole: The plan.
        workspace: The workspace of the run.
        world: Number of processes.

    Raises:
        RecipeError: There is one; the sentence names the key.
    """
    for stage in whole.trained:
        trains = isinstance(stage, NetworkStage) and not isinstance(stage, EstimatorStage)
        if not trains or stage.is_done(workspace):
            continue
        assert isinstance(stage, NetworkStage)
        check_batch(stage, world)
        among = dict(stage.candidates).values() if isinstance(stage, ChosenStage) else [stage]
        for one in among:
            _check_loss(one, world)


def check_batch(stage: NetworkStage, world: int) -> None:
    """Refuse a batch that cannot be shared equally.

    Raises:
        RecipeError: The number of devices does not divide it.
    """
    size, parts = stage.training.batch_size, stage.training.accumulate
    if size % (world * parts):
        how = f"{world} devices" + (f", in {parts} parts each (accumulate)," if parts > 1 else "")
        raise RecipeError(
            f"{stage.key}.training.batch_size", f"is {size}, which {how} cannot share equally; "
            f"choose a multiple of {world * parts}, or other devices"
        )  # fmt: skip


def _check_loss(stage: NetworkStage, world: int) -> None:
    loss = build_matching(stage.matching, f"{stage.key}.matching")
    if loss.relates:
        raise RecipeError(
            f"{stage.key}.matching.divergence", f"is {loss.divergence_name!r}, which relates the "
            f"examples of a batch, of which {world} devices see parts; use one device"
        )  # fmt: skip
    for name in ("features", "quantise"):
        if getattr(stage.extras, name) is not None:
            raise RecipeError(
                f"{stage.key}.{name}", f"is set, which is for one device, but there are {world}"
            )
