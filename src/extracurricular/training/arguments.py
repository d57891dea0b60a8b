"""Refuse arguments of a training that stand in each other's places, in one sentence."""

from __future__ import annotations

from typing import Any

from torch import nn

from extracurricular.data.base import Data, Split
from extracurricular.distributions import Task
from extracurricular.errors import RecipeError, shorten
from extracurricular.matching import Matching
from extracurricular.samplers.base import Seeded
from extracurricular.teachers import DropoutTeacher, EnsembleTeacher, LabelTeacher, NetworkTeacher
from extracurricular.teachers.base import check_teacher
from extracurricular.teachers.raw import RawTeacher
from extracurricular.training.settings import Training

_TEACHERS = (NetworkTeacher, EnsembleTeacher, DropoutTeacher, LabelTeacher, RawTeacher)
_ORDER = "the order is train(student, sampler, teacher, task)"


def check_arguments(
    student: Any, sampler: Any, teacher: Any, task: Any, matching: Any, settings: Any
) -> None:
    """Refuse what cannot be trained from, before anything is asked.

    Raises:
        RecipeError: An argument is of another kind; the sentence says which kind it must be.
    """
    if not isinstance(student, nn.Module):
        raise RecipeError(
            "student",
            f"is {_a(student)}; it must be a torch module, such as xcl.build_model(…) makes",
        )
    check_sampler(sampler)
    if isinstance(teacher, Seeded):
        raise RecipeError("teacher", f"is {_a(teacher)}, which is a sampler; {_ORDER}")
    check_teacher(teacher)
    if not isinstance(task, Task):
        raise RecipeError("task", f"is {_a(task)}; it must be a Task, such as data.task")
    for name, given, kind in (("matching", matching, Matching), ("settings", settings, Training)):
        if given is not None and not isinstance(given, kind):
            raise RecipeError(name, f"is {_a(given)}; it must be xcl.{kind.__name__}(…)")


def check_sampler(sampler: Any) -> None:
    """Refuse what cannot be a sampler.

    Raises:
        RecipeError: It is something else; the sentence says how to make one.
    """
    if isinstance(sampler, _TEACHERS):
        raise RecipeError("sampler", f"is {_a(sampler)}, which is a teacher; {_ORDER}")
    if isinstance(sampler, str | list | dict):
        raise RecipeError(
            "sampler",
            f"is {shorten(sampler)}; make it by xcl.build_sampler({shorten(sampler)}, data)",
        )
    if isinstance(sampler, Data | Split):
        raise RecipeError("sampler", f"is {_a(sampler)}; xcl.Empirical(data) draws from data")
    if isinstance(sampler, nn.Module | type) or not callable(sampler):
        raise RecipeError(
            "sampler", f"is {_a(sampler)}; it must be a sampler, such as xcl.Empirical(data)"
        )


def _a(given: Any) -> str:
    """Return what something is, for an error."""
    return shorten(given) if isinstance(given, type | str | None) else f"a {type(given).__name__}"
