"""Run a recipe: do its stages in order, except those that are done already."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from extracurricular.data.images.stream import left_out_of_draws
from extracurricular.errors import RecipeError, shorten
from extracurricular.files import read_json, write_if_changed
from extracurricular.recipe.overrides import FULL, describe_budget
from extracurricular.recipe.schema import Recipe
from extracurricular.run.chance import tell_of_chance
from extracurricular.run.check import check, check_folder, recipe_text
from extracurricular.run.data_sets import data_specs
from extracurricular.run.environment import note_environment
from extracurricular.run.equal_cost import settled
from extracurricular.run.evaluation import SUMMARY
from extracurricular.run.executors import do_stages, job_context, job_count, threads
from extracurricular.run.kept import keep_data
from extracurricular.run.lock import locked
from extracurricular.run.plan import Plan, in_order, plan
from extracurricular.run.stages import Checks, Stage
from extracurricular.run.watcher import Watcher
from extracurricular.run.workspace import RECORD, WEIGHTS, Workspace


def execute(
    recipe: Recipe,
    folder: str | Path,
    watcher: Watcher | None = None,
    last: Sequence[Stage] = (),
    jobs: int | None = 1,
    on: str | None = None,
) -> dict[str, Any]:
    """Run a recipe, except the stages that are done already, and return the summary.

    Everything that the recipe names is built once before anything is written, so that mistakes
    show at once and leave the folder as it was.

    Args:
        recipe: The recipe.
        folder: Folder of the run; it may hold stages of an earlier, interrupted run.
        watcher: Follows the run; may be None.
        last: Stages to do at the end, such as the page.
        jobs: How many stages are done at once, in processes of their own; None for as many as the
            cores allow. No number depends on it.
        on: The Ray cluster that does the stages: ``ray`` for that of ``RAY_ADDRESS``, or else for
            one that is started here with ``jobs`` workers; or ``ray://HOST:PORT``. A cluster that
            is there has the workers that it has: ``jobs`` must be None. See docs/scale.md.

    Returns:
        The content of ``summary.json``.

    Raises:
        XclError: The recipe cannot be run, or a stage failed; the message is one sentence.
    """
    check_alone()
    if not isinstance(recipe, Recipe):
        raise RecipeError(
            "recipe", f"is {shorten(recipe)}; it must be a Recipe, as xcl.read_recipe(name) and "
            "xcl.parse_recipe(values) give one"
        )  # fmt: skip
    if on is not None:
        from extracurricular.run.cluster import check_cluster

        check_cluster(on, jobs)
    workspace = Workspace(recipe, Path(folder), watcher)
    recipe = workspace.recipe = settled(recipe, workspace)
    whole = plan(recipe, last)
    if on is None and job_count(jobs, recipe, whole.trained) > 1:
        job_context(workspace)  # it imports while the data are read
    checks = check(whole, workspace)
    with locked(workspace.folder), threads(recipe.device.threads):
        check_folder(whole, workspace)  # another run may have been at work until now
        begin(whole, workspace, whole.trained, checks)
        tell_of_chance(whole, workspace)
        waiting = [stage for stage in whole.trained if not stage.is_done(workspace)]
        count = jobs if on is not None else job_count(jobs, recipe, waiting)
        do_stages(whole.trained, workspace, count, on)
        for stage in (*whole.calibrations.values(), whole.evaluation, *whole.last):
            stage.do(workspace)
    summary: dict[str, Any] = read_json(workspace.folder / SUMMARY)
    return summary


def check_alone() -> None:
    """Refuse to be one of several processes that each would do the whole run.

    Raises:
        RecipeError: ``torchrun`` or a scheduler started several.
    """
    count = os.environ.get("WORLD_SIZE", "1")
    if count.isdigit() and int(count) > 1:
        raise RecipeError(
            "WORLD_SIZE",
            f"is {count}, as torchrun sets it, but a run is one process, which starts its own; "
            "start it without torchrun (`--jobs N` does stages at once)",
        )


def generate(
    recipe: Recipe, folder: str | Path, watcher: Watcher | None = None
) -> dict[str, dict[str, Any]]:
    """Train the teachers and fit the generators, and no students.

    Returns:
        The figures of each generator, by the path of its folder.

    Raises:
        XclError: The recipe cannot be run, or a stage failed; the message is one sentence.
    """
    if not recipe.generators:
        raise RecipeError("generators", "is empty; there is nothing to generate from")
    workspace = Workspace(recipe, Path(folder), watcher)
    recipe = workspace.recipe = settled(recipe, workspace)
    whole = plan(recipe)
    checks = check(whole, workspace)
    found = {}
    with locked(workspace.folder), threads(recipe.device.threads):
        check_folder(whole, workspace)
        begin(whole, workspace, whole.preparations, checks)
        for stage in whole.preparations:
            stage.do(workspace)
        for stages in whole.generators.values():
            for generator in stages.values():
                found[generator.path] = generator.look(workspace)
    return {path: figures for path, figures in found.items() if figures is not None}


def prepare(stages: Sequence[Stage], workspace: Workspace) -> None:
    """Do the stages that are not done yet, and all that they need.

    The first of several processes does them, and the others wait.
    """
    needed = list(in_order(stages))
    if int(os.environ.get("RANK", "0")) > 0:
        missing = [one.title for one in needed if not one.is_done(workspace)]
        if missing:
            workspace.watcher.tell(
                f"waiting for process 0 of {os.environ.get('WORLD_SIZE', 'several')}, which does "
                f"{', '.join(missing)} (RANK={os.environ['RANK']})"
            )
        while not all(one.is_done(workspace) for one in needed):
            time.sleep(0.5)
    elif not all(one.is_done(workspace) for one in needed):
        with locked(workspace.folder), threads(workspace.recipe.device.threads):
            for one in needed:
                one.check_folder(workspace)  # another run may have been at work until now
                one.do(workspace)


def begin(plan: Plan, workspace: Workspace, stages: Sequence[Stage], checks: Checks) -> None:
    """Write the recipe and the environment, and announce the work ahead to the watcher."""
    recipe, folder, watcher = plan.recipe, workspace.folder, workspace.watcher
    write_if_changed(folder / "recipe.yaml", recipe_text(recipe).encode())
    keep_data(
        folder,
        [(spec, workspace.data(spec), workspace.contents(spec)) for spec in data_specs(recipe)],
        keep=recipe.keep,
        measured=recipe.evaluation.split,
    )
    waiting = [stage for stage in stages if not stage.is_done(workspace)]
    for stage in (one for one in stages if one not in waiting):
        # Of a process that ended just after it had finished the stage.
        stage.clear_checkpoints(workspace)
        for sentence in stage.damaged(workspace):
            watcher.tell(sentence)
    for stage in waiting:
        own = folder / stage.path
        if (own / WEIGHTS).exists() and not (own / RECORD).exists():
            watcher.tell(f"the file {str(own / RECORD)!r} is missing; {stage.title} is made anew")
    if waiting:
        note_environment(folder, workspace.device, watcher.tell)
    if waiting and workspace.chose:
        watcher.tell(f"the run {workspace.arithmetic}")
    if recipe.budget_name != FULL:
        watcher.tell(describe_budget(recipe.budget_name, recipe.budget_changes))
    for note in workspace.data_of(recipe.seeds[0]).notes:
        watcher.tell(note)
    for data in workspace.every_data:
        left_out_of_draws(data)  # forget those met in the check of the recipe
    for key, asks in checks.asks.items():
        if asks > 1 and any(stage.key == key for stage in waiting):
            name = key.partition(".")[2]
            watcher.tell(f"{name} asks the teacher {asks:.3g} times as often")
    every = sum(stage.steps for stage in stages)
    watcher.plan(every, every - sum(stage.steps for stage in waiting))
