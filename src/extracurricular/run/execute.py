"""Do the stages of a recipe, in order, whatever of them is not done yet."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from extracurricular.data.images.stream import left_out_of_draws
from extracurricular.errors import RecipeError
from extracurricular.evaluation import metrics
from extracurricular.files import locked, read_json, write_if_changed
from extracurricular.recipe.overrides import FULL, describe_budget
from extracurricular.recipe.schema import Recipe
from extracurricular.run.check import check
from extracurricular.run.environment import note_environment
from extracurricular.run.plan import Plan, in_order, plan
from extracurricular.run.stages import Checks, Stage
from extracurricular.run.watcher import Watcher
from extracurricular.run.workspace import Workspace


def execute(
    recipe: Recipe,
    folder: str | Path,
    watcher: Watcher | None = None,
    last: Sequence[Stage] = (),
) -> dict[str, Any]:
    """Do whatever of a recipe is not done yet, and return the summary.

    Everything that the recipe names is built once before anything is written, so that mistakes
    show at once and leave the folder as it was.

    Args:
        recipe: What to do.
        folder: Where; it may hold what an earlier, interrupted run did.
        watcher: Who follows the run; nobody where None.
        last: Stages to do at the end, such as the page.

    Returns:
        What ``summary.json`` holds.

    Raises:
        XclError: With one sentence for the user.
    """
    metrics.check_available()
    workspace = Workspace(recipe, Path(folder), watcher)
    whole = plan(recipe, last)
    checks = check(whole, workspace)
    with locked(workspace.folder):
        begin(whole, workspace, whole.trained, checks)
        for stage in whole.stages:
            stage.do(workspace)
    summary: dict[str, Any] = read_json(workspace.folder / "summary.json")
    return summary


def generate(
    recipe: Recipe, folder: str | Path, watcher: Watcher | None = None
) -> dict[str, dict[str, Any]]:
    """Train the teachers and fit the generators, and no students.

    Returns:
        The figures of each generator, by the path of its folder.

    Raises:
        XclError: With one sentence for the user.
    """
    if not recipe.generators:
        raise RecipeError("generators", "is empty; there is nothing to generate from")
    workspace = Workspace(recipe, Path(folder), watcher)
    whole = plan(recipe)
    checks = check(whole, workspace)
    found = {}
    with locked(workspace.folder):
        begin(whole, workspace, whole.preparations, checks)
        for stage in whole.preparations:
            stage.do(workspace)
        for stages in whole.generators.values():
            for generator in stages.values():
                found[generator.path] = generator.look(workspace)
    return {path: figures for path, figures in found.items() if figures is not None}


def prepare(stages: Sequence[Stage], workspace: Workspace) -> None:
    """Do stages, and all that they need, that are not done yet.

    The first of several processes does them, and the others wait.
    """
    needed = list(in_order(stages))
    if int(os.environ.get("RANK", "0")) > 0:
        while not all(one.is_done(workspace) for one in needed):
            time.sleep(0.5)
    elif not all(one.is_done(workspace) for one in needed):
        with locked(workspace.folder):
            for one in needed:
                one.do(workspace)


def begin(plan: Plan, workspace: Workspace, stages: Sequence[Stage], checks: Checks) -> None:
    """Write the recipe and the environment, and tell the watcher what lies ahead."""
    recipe, folder, watcher = plan.recipe, workspace.folder, workspace.watcher
    text = yaml.safe_dump(recipe.dump(), sort_keys=False, allow_unicode=True)
    write_if_changed(folder / "recipe.yaml", text.encode())
    waiting = [stage for stage in stages if not stage.is_done(workspace)]
    if waiting:
        note_environment(folder, workspace.fabric.device)
    if recipe.budget_name != FULL:
        watcher.tell(describe_budget(recipe.budget_name, recipe.budget_changes))
    for note in workspace.data_of(recipe.seeds[0]).notes:
        watcher.tell(note)
    for data in workspace.every_data:
        left_out_of_draws(data)  # those of the draws that checked the recipe
    for key, asks in checks.asks.items():
        if asks > 1 and any(stage.key == key for stage in waiting):
            name = key.partition(".")[2]
            watcher.tell(f"{name} asks the teacher {asks:.3g} times as often")
    every = sum(stage.steps for stage in stages)
    watcher.plan(every, every - sum(stage.steps for stage in waiting))
