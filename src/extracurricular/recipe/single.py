"""The recipe of one student, its defaults, and the arguments of ``xcl.distill`` that it has too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from extracurricular.data.base import Data
from extracurricular.distributions import Task
from extracurricular.errors import RecipeError, known_names
from extracurricular.inputs import Deferred, leaves
from extracurricular.models.base import MODELS
from extracurricular.models.estimators import ESTIMATORS
from extracurricular.recipe.calibrate import METHODS, spelt_out
from extracurricular.recipe.candidates import PLAIN
from extracurricular.recipe.schema import REFERENCE
from extracurricular.recipe.students import (
    DRAWS,
    CalibrateSection,
    ChooseSection,
    ConformalSection,
    StudentSection,
)
from extracurricular.registry import explain_validation, first_complaint
from extracurricular.training import Training

STEPS = 2000

SAMPLER: list[Any] = [
    {"share": {"of": "auto", "extended": ["empirical", "mixup"], "plain": ["empirical"]}}
]
"""The default source of a network's examples: stored ones, and as many mixed ones as mastery
allows."""


def default_training(steps: int = STEPS, size: int = 64) -> Training:
    """Return the default settings of a student's training (our choice).

    Args:
        steps: Optimiser steps.
        size: Examples a step.
    """
    warmup = min(100, steps // 20)
    rate, decay = 3e-3, 1e-2
    return Training(
        steps=steps, batch_size=size, optimizer="adamw", lr=rate, weight_decay=decay, warmup=warmup
    )


def default_matching(task: Task) -> dict[str, Any]:
    """Return the default loss (our choice): KL, at T = 4 for classes."""
    return {"temperature": 4.0} if task.kind == "classification" else {}


def trees_sampler(data: Data) -> list[Any]:
    """Return the default source of the draws that trees are fitted to (our choice).

    Half are stored examples. The other half are rows of a table with swapped columns, so that each
    value is one that the column has; examples of another form, such as images, are mixed.
    """
    inputs = leaves(data.train.x).values()
    rows = all(not isinstance(leaf, Deferred) and leaf.ndim <= 2 for leaf in inputs)
    name = "swap" if rows else "mixup"
    return [
        {
            "blend": {
                "stored": {"weight": 0.5, "sampler": ["empirical"]},
                "swapped" if rows else "mixed": {"weight": 0.5, "sampler": ["empirical", name]},
            }
        }
    ]


# Reading what a person gives


@dataclass(frozen=True)
class TreesSpec:
    """A student that is no network, as ``{estimator, draws}`` gives it.

    Args:
        estimator: Spec of the estimator.
        draws: Draws that it is fitted to.
    """

    estimator: Any
    draws: int = DRAWS


def read_trees(student: Any, key: str = "student") -> TreesSpec | None:
    """Read a student that is no network, ``{"estimator": …, "draws": …}``; None for a network.

    Args:
        student: The student, as a person gives it.
        key: Where it stands, for errors.

    Raises:
        RecipeError: It has other keys, or estimator or draws are wrong; or it is the bare name of
            an estimator.
    """
    if not isinstance(student, Mapping) or "estimator" not in student:
        _refuse_bare(student, key)
        return None
    known = ("estimator", "draws")
    for name in student:
        if name in ("sampler", "calibrate"):
            problem = f"is no key of a student here; give {name} beside the student"
            raise RecipeError(f"{key}.{name}", problem)
        if name not in known:
            problem = f"unknown key {name!r}; {known_names(str(name), known)}"
            raise RecipeError(f"{key}.{name}", problem)
    try:
        section = StudentSection.model_validate(dict(student))
    except ValidationError as error:
        raise explain_validation(error, key, dict.fromkeys(known)) from None
    ESTIMATORS.build(section.estimator, key=f"{key}.estimator")
    return TreesSpec(section.estimator, section.budget)


def _refuse_bare(student: Any, key: str) -> None:
    """Refuse the name of an estimator where a network's is meant.

    Raises:
        RecipeError: It is one.
    """
    bare = student if isinstance(student, str) else None
    if isinstance(student, Mapping) and len(student) == 1:
        bare = next(iter(student))
    if isinstance(bare, str) and bare in ESTIMATORS.names() and bare not in MODELS:
        raise RecipeError(
            key, f"is {bare!r}, which is no network; trees are given as "
            f"{{estimator: {bare}, draws: {DRAWS}}}"
        )  # fmt: skip


def read_calibrate(given: Any, key: str = "calibrate") -> CalibrateSection | None:
    """Read a calibration as a recipe writes it: a method, a list, or a section; None for none.

    Raises:
        RecipeError: A method is unknown, or a setting is wrong.
    """
    if given is None:
        return None
    try:
        spelt = spelt_out(list(given) if isinstance(given, tuple) else given)
        return CalibrateSection.model_validate(spelt)
    except ValidationError as error:
        inner = "conformal" in first_complaint(error)["loc"]
        known = ConformalSection.model_fields if inner else dict.fromkeys(METHODS)
        raise explain_validation(error, key, known) from None
    except ValueError as error:
        raise RecipeError(key, str(error)) from None


# The recipe


def recipe_for(
    teacher: dict[str, Any],
    student: Any,
    data: Any,
    known: Data,
    *,
    name: str,
    steps: int | None = None,
    seed: int = 0,
    choose: ChooseSection | None = None,
    beside: bool = True,
    calibrate: CalibrateSection | None = None,
) -> dict[str, Any]:
    """Return the recipe of what :func:`extracurricular.distill` does, as plain values.

    Args:
        teacher: The section ``teacher``.
        student: Spec of the network; or ``{"estimator": …, "draws": …}``.
        data: Spec of the data set.
        known: The data set.
        name: Name of the recipe.
        steps, seed: As for :func:`extracurricular.distill`.
        choose: The candidates, if there is a choice.
        beside: Whether a student on stored examples alone is trained beside a choice, with as many
            steps as all candidates together.
        calibrate: The calibration of the student, and of the one beside it.
    """
    trees = read_trees(student)
    own: dict[str, Any]
    if trees is None:
        training = default_training(STEPS if steps is None else steps)
        own = {
            "model": student,
            "sampler": SAMPLER,
            "matching": default_matching(known.task),
            "training": training.model_dump(mode="json"),
        }
    else:
        own = {
            "estimator": trees.estimator,
            "draws": trees.draws,
            "sampler": trees_sampler(known),
        }
    if calibrate is not None:
        own["calibrate"] = calibrate.model_dump(mode="json")
    students: dict[str, Any] = {"student": own}
    if choose is not None:
        students["student"] = {**own, "choose": choose.model_dump(mode="json")}
        if beside:
            cost = {"of": "student", "unit": "steps"}
            students[REFERENCE] = {**own, "sampler": PLAIN, "cost": cost}
    return {
        "schema": 1,
        "name": name,
        "data": data,
        "seeds": [seed],
        "teacher": teacher,
        "students": students,
    }


def refuse_for_trees(given: Mapping[str, Any], key: str = "student") -> None:
    """Refuse arguments that are for networks alone.

    Args:
        given: The arguments by name; those that are None are not given.
        key: Where the student stands.

    Raises:
        RecipeError: One is given.
    """
    for name, value in given.items():
        if value is not None:
            raise RecipeError(
                name, f"is for networks, but {key} is an estimator, which is fitted to its draws "
                "at once; remove it"
            )  # fmt: skip
