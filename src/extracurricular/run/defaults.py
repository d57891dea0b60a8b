"""The optimiser and the rate of the trainings of a run, where its recipe leaves them open.

They are decided once, before the run is planned, by the task and the network of each section. They
then stand in the recipe that the run keeps, and in the settings of each stage. A run that was begun
keeps what its stages have, also where a version before this decided otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from extracurricular.errors import StorageError
from extracurricular.files import read_json
from extracurricular.recipe.schema import Recipe
from extracurricular.run.workspace import Workspace
from extracurricular.training import Training
from extracurricular.training.defaults import decided, is_open

_KEYS = ("optimizer", "lr", "weight_decay")


def with_defaults(recipe: Recipe, workspace: Workspace) -> Recipe:
    """Return a recipe whose trainings all have an optimiser and a rate.

    Args:
        recipe: The recipe.
        workspace: Its workspace, for the task, the networks, and the stages that are there.

    Raises:
        RecipeError: A network cannot be built.
    """
    teacher, seed = recipe.teacher, recipe.seeds[0]
    changes: dict[str, Any] = {}
    if teacher.networks and teacher.weights is None and is_open(teacher.training):
        kept = _kept(workspace, ["teacher/*/*/stage.json"])
        training = _filled(
            teacher.training, kept, workspace, teacher.networks[0], seed, "teacher.model"
        )
        changes["teacher"] = teacher.model_copy(update={"training": training})
    waiting = {
        name: one
        for name, one in recipe.students.items()
        if one.estimator is None and is_open(one.training)
    }
    if waiting:
        students = dict(recipe.students)
        for name, section in waiting.items():
            # A student that is new in a folder is trained as those that are there already.
            others = [one for one in waiting if one != name]
            kept = _kept(
                workspace, [f"students/{one}/seed-*/stage.json" for one in (name, *others)]
            )
            training = _filled(
                section.training, kept, workspace, section.model, seed, f"students.{name}.model"
            )
            students[name] = section.model_copy(update={"training": training})
        changes["students"] = students
    return recipe.model_copy(update=changes) if changes else recipe


def _filled(
    training: Training,
    kept: dict[str, Any] | None,
    workspace: Workspace,
    model: Any,
    seed: int,
    key: str,
) -> Training:
    """Return settings with what stages have that are there, or else what the network suggests."""
    if kept is not None:
        given = {name: value for name in _KEYS if (value := getattr(training, name)) is not None}
        return training.model_copy(update=kept | given)
    data = workspace.described_of(seed)
    return decided(training, data.task, workspace.network(model, data, seed, key))


def _kept(workspace: Workspace, patterns: Iterable[str]) -> dict[str, Any] | None:
    """Return the optimiser and the rate of the first stage that was begun; None where none was."""
    for file in (file for one in patterns for file in sorted(workspace.folder.glob(one))):
        try:
            record = read_json(file)
        except StorageError:
            continue  # whoever needs that stage says so
        settings = record.get("settings") if isinstance(record, dict) else None
        training = settings.get("training") if isinstance(settings, dict) else None
        if isinstance(training, dict) and training.get("optimizer") and training.get("lr"):
            return {name: training.get(name) for name in _KEYS}
    return None
