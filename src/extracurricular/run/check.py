"""Find every mistake of a recipe before anything is written.

Everything that the recipe names is built once, the teacher and the generators untrained, asked for
a draw, and tried on it (:mod:`~extracurricular.run.trial`). So a wrong name, a setting that does
not go with the data, a network of another shape, or a score that the teacher cannot give, shows at
once and leaves the folder as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import yaml

from extracurricular.errors import RecipeError, StorageError, own_code, raised
from extracurricular.files import telling
from extracurricular.inputs import Batch
from extracurricular.recipe.schema import Recipe
from extracurricular.run.data_sets import check_same, data_specs
from extracurricular.run.loggers import check_loggers
from extracurricular.run.plan import Plan
from extracurricular.run.stages import Checks
from extracurricular.run.trial import PROBE, try_answer, try_answers
from extracurricular.run.workspace import Workspace

# The file that every run has from its beginning, and nobody else's folder.
_MARK = "environment.json"
# Among what was checked: the teacher has been asked.
_ASKED = "the teacher was asked"


def check(plan: Plan, workspace: Workspace, checks: Checks | None = None) -> Checks:
    """Build everything a recipe names, and compare it with the folder's content.

    Args:
        plan: The run.
        workspace: Its workspace.
        checks: The parts that were built for another run, with equal teachers and generators; what
            was checked there is not checked again.

    Returns:
        The parts that were built, and how often each student's draw asks the teacher.

    Raises:
        XclError: Something cannot be built, or the folder belongs to another recipe.
    """
    folder, recipe = workspace.folder, plan.recipe
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"--out is {str(folder)!r}, which is a file, not a folder")
    _check_owner(plan, workspace)
    checks = checks or Checks()
    plan.evaluation.check(workspace, checks)
    for seed in recipe.seeds:
        workspace.data_of(seed)  # the published split of any one seed may be missing
    if workspace.kept is not None and is_begun(plan, workspace):
        for spec in data_specs(recipe):
            check_same(workspace, spec, "run")
    if not workspace.looks:
        check_loggers(recipe.log)
    for stage in plan.stages:
        with beyond_all_bounds(stage.key):
            stage.check(workspace, checks)
        # Before the next stage, which may ask what this one made.
        stage.check_folder(workspace)
    _try_teacher(plan, workspace, checks)
    return checks


def _try_teacher(plan: Plan, workspace: Workspace, checks: Checks) -> None:
    """Ask a teacher that needs no training, before it teaches anybody.

    Raises:
        XclError: Its weights cannot be read, or it gives NaN, or no such answers.
    """
    seed = plan.recipe.seeds[0]
    source, data = plan.teachers[seed], workspace.data_of(seed)
    waits = not all(stage.is_done(workspace) for stage in plan.trained)
    given = source.weights is not None
    teacher = workspace.made(source.uncalibrated) if given else checks.teacher
    if teacher is None or not source.needs_no_training or not waits or _ASKED in checks.seen:
        return
    checks.seen.add(_ASKED)
    rows = torch.arange(PROBE, device=data.device) % len(data.train)
    with workspace.exact():
        key = f"teacher.{next(iter(plan.recipe.teacher.fitted or {'model': None}))}"
        try_answer(teacher, Batch(rows, data.inputs(data.train[rows].x)), data.task, key)
        with own_code(key, "the teacher cannot be asked", plain=True):
            try_answers(teacher, data, workspace.evaluated(data), source.title)


@contextmanager
def beyond_all_bounds(key: str) -> Iterator[None]:
    """Name the part of a recipe whose numbers are larger than torch, or the memory, can hold.

    Raises:
        RecipeError: They are.
    """
    try:
        yield
    except (RuntimeError, MemoryError, OverflowError) as error:
        raise RecipeError(key, f"cannot be built or drawn from: {raised(error)}") from error


def check_folder(plan: Plan, workspace: Workspace) -> None:
    """Compare a recipe with the content of its folder, which others may change until it is locked.

    Raises:
        StorageError: The folder belongs to another recipe, or to nobody's run.
    """
    _check_owner(plan, workspace)
    for stage in plan.stages:
        stage.check_folder(workspace)


def _check_owner(plan: Plan, workspace: Workspace) -> None:
    """Refuse a folder with a recipe that is no run's."""
    folder = workspace.folder
    file = folder / "recipe.yaml"
    if file.exists() and not (folder / _MARK).exists():
        text = recipe_text(plan.recipe).encode()
        with telling(file, "read"):
            # A run that was stopped right at its beginning has its recipe and no more.
            if file.read_bytes() != text:
                raise StorageError(
                    f"{str(file)!r} is there and belongs to no run, which would overwrite it; give "
                    "another --out"
                )


def recipe_text(recipe: Recipe) -> str:
    """Return the text of ``recipe.yaml`` in the folder of a run."""
    return yaml.safe_dump(recipe.dump(), sort_keys=False, allow_unicode=True)


def is_begun(plan: Plan, workspace: Workspace) -> bool:
    """Return whether any stage of a run was begun in its folder."""
    return any((workspace.folder / stage.path / "stage.json").exists() for stage in plan.trained)
