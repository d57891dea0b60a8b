"""Where a student's mastery can be measured at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from extracurricular.errors import RecipeError
from extracurricular.samplers.build import share_is_auto


def check_mastery(
    sampler: Sequence[Any], held_out: float | None, learns_from: str, recorded: bool, key: str
) -> None:
    """Refuse to measure mastery where there is no teacher to ask.

    Args:
        sampler: The sampler of a student, as a recipe writes it.
        held_out: Part of the training examples to measure it on; None where none is set.
        learns_from: ``labels`` or ``teacher``.
        recorded: Whether the student learns from recorded answers.
        key: Where the student stands in the recipe.

    Raises:
        RecipeError: The student learns from labels, or, without an ``auto`` share, from a record.
    """
    auto = share_is_auto(sampler)
    if not auto and held_out is None:
        return
    key = f"{key}.sampler" if auto else f"{key}.mastery"
    what = "has a share of 'auto'" if auto else "is set"
    if learns_from == "labels":
        raise RecipeError(
            key, f"{what}, which compares the student with a teacher, but it learns from labels"
        )
    if recorded and not auto:
        raise RecipeError(
            key, f"{what}, which asks the teacher about draws that no record holds; "
            "set teacher.record to null"
        )  # fmt: skip
