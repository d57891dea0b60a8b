"""Find every mistake of a recipe before anything is written.

Whatever the recipe names is built once, the teacher and the generators untrained, and asked for a
draw; so a wrong name, a setting that does not go with the data, or a score that the teacher cannot
give, is told at once and leaves the folder as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from extracurricular.data.base import Split
from extracurricular.distributions import Task
from extracurricular.errors import RecipeError, StorageError, XclError, shorten
from extracurricular.files import read_json
from extracurricular.generators import Generator
from extracurricular.knowledge import build_codec
from extracurricular.matching import Matching
from extracurricular.registry import check_settings
from extracurricular.run.generating import preview
from extracurricular.run.loggers import check_loggers
from extracurricular.run.stages import (
    AnyStage,
    GeneratorStage,
    KnowledgeStage,
    Stage,
    first_difference,
)
from extracurricular.run.teaching import preview_teacher
from extracurricular.samplers import Batch, Context, Sampler, Uncertain, is_pure
from extracurricular.teachers import Teacher

if TYPE_CHECKING:
    from extracurricular.run.pipeline import Run


def check(run: Run) -> dict[str, float]:
    """Build everything a recipe names, and compare it with what the folder holds.

    Returns:
        How often each student's draw asks the teacher, by the key of the student.

    Raises:
        XclError: Something cannot be built, or the folder belongs to another recipe.
    """
    if run.folder.exists() and not run.folder.is_dir():
        raise StorageError(f"--out is {str(run.folder)!r}, which is a file, not a folder")
    if len(run.split_of(run.data)) == 0:
        where = run.recipe.evaluation.split
        raise RecipeError("evaluation.split", f"is {where!r}, but that split has no examples")
    for seed in run.recipe.seeds:
        run.data_for(seed)  # of a published split for each seed, one may be missing
    check_loggers(run.recipe.log)
    device, probe = run.fabric.device, torch.arange(2)
    asks: dict[str, float] = {}
    checked: set[str] = set()
    previews: dict[str, Generator | Split] = {}
    untrained: Teacher | None = None
    for stage in run.stages():
        if isinstance(stage, KnowledgeStage):
            build_codec(run.recipe.teacher.codec or "float16", run.data.task, "teacher.codec")
        elif isinstance(stage, GeneratorStage):
            if stage.name not in previews:
                previews[stage.name] = preview(stage, run.data)
        elif isinstance(stage, Stage) and stage.key not in checked:
            checked.add(stage.key)
            model = run.model(stage, f"{stage.key}.model").to(device)
            context = Context()
            if stage.key != "teacher":
                untrained = untrained or preview_teacher(run)
                context = Context(untrained, model, previews)
            sampler = run.sampler(stage, context)
            batch = _draw(sampler, probe.to(device), f"{stage.key}.sampler")
            _check_matching(stage, batch, run.data.task)
            asks[stage.key] = questions(sampler, stage)
            if run.recipe.teacher.record is not None and stage.learns_from == "teacher":
                asks[stage.key] = 0.0
                if not is_pure(sampler):
                    raise RecipeError(
                        f"{stage.key}.sampler",
                        "gives draws that depend on the student in training, on which no teacher "
                        "can be recorded; choose another score, or set teacher.record to null",
                    )
        _check_folder(run, stage)
    if run.recipe.teacher.weights is not None:
        run.teacher(run.recipe.seeds[0])
    return asks


def questions(sampler: Sampler, stage: Stage) -> float:
    """How many times the teacher is asked for each of a student's draws, on average."""
    inside: float = getattr(sampler, "asks", 0.0)
    # The loop takes over what such a sampler has asked already.
    taken_over = isinstance(sampler, Uncertain) or stage.learns_from == "labels"
    return inside if taken_over else 1 + inside


def _draw(sampler: Sampler, ids: Tensor, key: str) -> Batch:
    try:
        return sampler(ids)
    except XclError:
        raise
    except ValueError as error:
        raise RecipeError(key, str(error)) from error


def _check_matching(stage: Stage, batch: Batch, task: Task) -> None:
    key = f"{stage.key}.matching"
    matching = build_matching(stage.matching, key)
    labelled = batch.y is not None
    if stage.learns_from == "labels":
        if not labelled:
            raise RecipeError(
                f"{stage.key}.learns_from",
                "is 'labels', but the sampler gives examples without labels",
            )
        if matching.divergence == "reverse_kl":
            raise RecipeError(
                f"{key}.divergence", "is 'reverse_kl', which is infinite from labels; "
                "learning from labels needs 'forward_kl'"
            )  # fmt: skip
        if matching.divergence == "js" and task.kind == "regression":
            raise RecipeError(
                f"{key}.divergence", "is 'js', which real-valued labels do not have; "
                "learning from labels needs 'forward_kl'"
            )  # fmt: skip
        if matching.temperature != 1:
            raise RecipeError(
                f"{key}.temperature",
                f"is {matching.temperature}; labels have no temperature, so it must be 1",
            )
    if matching.hard > 0 and not labelled:
        raise RecipeError(
            f"{key}.hard", f"is {matching.hard}, but the sampler gives examples without labels"
        )


def _check_folder(run: Run, stage: AnyStage) -> None:
    file = run.folder / stage.path / "stage.json"
    if not file.exists():
        return
    found = read_json(file).get("settings")
    wanted = stage.settings(run.recipe)
    if found != wanted:
        path, was, now = first_difference(found, wanted, "")
        raise StorageError(
            f"{stage.key}: {str(run.folder)!r} holds {stage.path} made with {path} = "
            f"{shorten(was)}, but the recipe says {shorten(now)}; "
            "choose another --out, or delete that stage's folder"
        )


def build_matching(settings: dict[str, Any], key: str) -> Matching:
    """Make the loss that a recipe's ``matching`` section describes.

    Raises:
        RecipeError: An unknown key, or a value that cannot be.
    """
    try:
        return Matching(**check_settings(Matching, settings, key))
    except ValueError as error:
        raise RecipeError(key, str(error)) from error
