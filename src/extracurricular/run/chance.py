"""Tell of a teacher from elsewhere that does no better than chance, before any student learns.

The likeliest cause is an order of classes other than that of the data. If there is an order with
which the teacher would do well, the sentence gives it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from extracurricular.data.base import Data
from extracurricular.distributions import Categorical
from extracurricular.errors import RecipeError
from extracurricular.evaluation.predict import predict
from extracurricular.recipe.schema import Recipe
from extracurricular.run.plan import Plan
from extracurricular.run.teacher import TeacherPlan
from extracurricular.run.workspace import Workspace
from extracurricular.teachers import Teacher
from extracurricular.teachers.order import Reordered

# Validation examples that are asked for at most, and at least.
_MOST = 512
_LEAST = 20
# What another order must reach to be worth a word: this accuracy, and as much more than without.
_MENDED = 0.5
_GAIN = 0.2


def tell_of_chance(plan: Plan, workspace: Workspace) -> None:
    """Ask each teacher from elsewhere about validation examples, if a student will learn from it.

    Args:
        plan: The run.
        workspace: Its workspace, whose watcher is told.

    Raises:
        RecipeError: The teacher cannot be asked about them.
    """
    if not _from_elsewhere(plan.recipe):
        return
    waiting = [
        stage
        for stage in plan.students.values()
        if stage.asks_teacher and not stage.is_done(workspace)
    ]
    asked: dict[str, TeacherPlan] = {
        stage.teacher.path: stage.teacher
        for stage in waiting
        if isinstance(stage.teacher, TeacherPlan)
    }
    for one in asked.values():
        data = workspace.data(one.data)
        if data.task.kind == "classification":
            try:
                said = sentence(workspace.made(one.uncalibrated), data)
            except ValueError as error:  # a teacher from elsewhere raises what it likes
                raise RecipeError("teacher", str(error)) from error
            if said is not None:
                workspace.watcher.tell(said)


def _from_elsewhere(recipe: Recipe) -> bool:
    teacher = recipe.teacher
    return any(one is not None for one in (teacher.weights, teacher.onnx, teacher.function))


def sentence(teacher: Teacher, data: Data) -> str | None:
    """Return a sentence on a teacher that is no better than chance; None for any other.

    Args:
        teacher: The teacher, on the device of the data.
        data: The data set, of classes.
    """
    split = data.validation if len(data.validation) >= _LEAST else data.train
    part = split[:_MOST]
    y = part.y
    if y is None or len(part) < _LEAST:
        return None
    if y.ndim > 1:
        y = y.argmax(-1)
    said = predict(teacher, data, part)
    assert isinstance(said, Categorical)
    guess, y = said.log_probs.argmax(-1), y.cpu()
    confusion = counts(guess, y, data.task.size)
    accuracy = float((guess == y).double().mean())
    usual = float(confusion.sum(0).max()) / len(y)
    order = best_order(confusion)
    mended = float(confusion[order, torch.arange(len(order))].sum()) / len(y)
    helps = mended >= _MENDED and mended - accuracy >= _GAIN
    if accuracy > usual and not helps:
        return None
    words = f"the teacher is right on {100 * accuracy:.1f} % of {len(y):,} validation examples"
    if accuracy <= usual:
        words += f", where always giving one class is right on {100 * usual:.1f} %"
    if not helps:
        return f"{words}; its classes, its inputs or its scale may be others than those of the data"
    names = list(data.classes) or [str(k) for k in range(data.task.size)]
    given = _order_of_teacher(order, teacher, names)
    return (
        f"{words}; with its classes in another order it would be right on {100 * mended:.1f} %: "
        f"set teacher.classes to [{', '.join(given)}]"
    )


def counts(guess: Tensor, y: Tensor, size: int) -> Tensor:
    """Return how often each class was guessed (rows) of each class (columns), [C, C]."""
    found = torch.zeros(size * size, dtype=torch.int64)
    return found.index_add_(0, guess * size + y, torch.ones_like(y)).view(size, size)


def best_order(confusion: Tensor) -> Tensor:
    """Return for each class the guess that stands for it, so that most examples are right.

    It is an assignment of guesses to classes (Kuhn 1955), which scipy solves exactly.
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(-confusion.numpy())
    order = torch.empty(len(confusion), dtype=torch.int64)
    order[torch.from_numpy(columns)] = torch.from_numpy(rows)
    return order


def _order_of_teacher(order: Tensor, teacher: Teacher, names: list[str]) -> list[str]:
    """Return the names of the teacher's outputs in its own order, as ``teacher.classes`` has them.

    Args:
        order: For each class of the data, the answer that stands for it.
        teacher: The teacher, which may have been reordered already.
        names: Names of the data's classes.
    """
    before = teacher.order if isinstance(teacher, Reordered) else list(range(len(names)))
    given = [""] * len(names)
    for name, place in zip(names, order.tolist(), strict=True):
        given[before[place]] = name
    return given
