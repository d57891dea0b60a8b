"""Successive halving of whole runs: all begin with a part of the steps, the better half goes on.

Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter
optimization", AISTATS. A training of fewer steps has another schedule of its learning rate, so each
rung is a run of its own, and those that go on are trained anew. Nothing is continued, and the
figures at the end are those of whole trainings.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from extracurricular.errors import RecipeError, shorten
from extracurricular.recipe.schema import EvaluationSection, Recipe
from extracurricular.run.budget import steps_of
from extracurricular.samplers.build import moves, share_is_auto

USUAL = (0.25,)
"""The parts of the steps after which the worse half stops, where a person gives none."""


@dataclass(frozen=True)
class Rungs:
    """The rungs of a sweep.

    Args:
        parts: The part of the steps that combinations have on each rung, rising, in (0, 1).
    """

    parts: tuple[float, ...]

    def counts(self, count: int) -> list[int]:
        """Return how many combinations are on each rung, and how many are trained whole at last."""
        found = [count]
        for _ in self.parts:
            found.append(math.ceil(found[-1] / 2))
        return found

    def cost(self, count: int) -> float:
        """Return the steps of all rungs together, as a part of those of all trained whole."""
        return sum(
            part * some for part, some in zip((*self.parts, 1.0), self.counts(count), strict=True)
        ) / count  # fmt: skip

    def sentence(self, count: int) -> str:
        """Return a sentence on the whole cost, for a person, before anything is trained."""
        told = [
            f"{some} with {100 * part:g} % of their steps"
            for part, some in zip(self.parts, self.counts(count), strict=False)
        ]
        last = self.counts(count)[-1]
        return (
            f"Halving: of {count} combinations {', then '.join(told)}, then {last} anew with all, "
            f"which is {100 * self.cost(count):.0f} % of the steps of all whole."
        )


def read_rungs(given: Any) -> Rungs:
    """Read the rungs that a person asks for: ``0.25``, ``0.1,0.3``, or a list of numbers.

    Raises:
        RecipeError: They do not rise between 0 and 1.
    """
    parts: Iterable[Any] = given.split(",") if isinstance(given, str) else given
    parts = [parts] if isinstance(parts, int | float) else parts
    try:
        found = tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        found = ()
    if not found or not all(a < b for a, b in itertools.pairwise((0.0, *found, 1.0))):
        raise RecipeError(
            "--halving", f"is {shorten(given)}; it should be the parts of the steps after which "
            "the worse half stops, rising between 0 and 1, as 0.25 or 0.1,0.3"
        )  # fmt: skip
    return Rungs(found)


def shortened(recipe: Recipe, student: str, part: float) -> Recipe:
    """Return the recipe of a rung: one student with a part of its steps, measured on validation.

    The teacher is whole. The students that set its cost stay too, with the same part.

    Args:
        recipe: The whole recipe.
        student: The student that is judged.
        part: Part of the steps, in (0, 1).

    Raises:
        RecipeError: The student is fitted at once, and has no steps.
    """
    if recipe.students[student].estimator is not None:
        raise RecipeError(
            "--halving", f"gives {student} a part of its steps, but it is an estimator, which is "
            "fitted at once; leave it out"
        )  # fmt: skip
    names = _needed(recipe, student)
    students = {}
    for name in names:
        section = recipe.students[name]
        training = section.training
        warmup = int(training.warmup * part)
        steps = steps_of(training.steps, part)
        training = training.model_copy(update={"steps": steps, "warmup": warmup})
        students[name] = section.model_copy(update={"training": training})
    judged = students[student]
    record = recipe.teacher.record
    if record is not None and (moves(judged.sampler) or share_is_auto(judged.sampler)):
        # Its draws belong to a training of one length.
        draws = judged.training.steps * judged.training.batch_size
        record = record.model_copy(update={"draws": draws})
    return recipe.model_copy(
        update={
            "students": students,
            "teacher": recipe.teacher.model_copy(update={"record": record}),
            "reference": recipe.reference if recipe.reference in students else None,
            "plain": recipe.plain if recipe.plain in students else None,
            "subject": student,
            "front": [],
            "limit": None,
            "evaluation": EvaluationSection(
                split="validation", batch_size=recipe.evaluation.batch_size
            ),
        }
    )


def better_half(order: Sequence[str], count: int) -> list[str]:
    """Return the first of an order, the best first, that go on from a rung."""
    return list(order[: math.ceil(count / 2)])


def _needed(recipe: Recipe, student: str) -> list[str]:
    """Return a student and those that set its cost, in the order of the recipe."""
    found, last = {student}, student
    while (cost := recipe.students[last].cost) is not None and cost.of not in found:
        last = cost.of
        found.add(last)
    return [name for name in recipe.students if name in found]
