"""Read the arguments of ``xcl.distill``: its numbers, the training, and the network."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import nn

from extracurricular.data.base import Data
from extracurricular.errors import RecipeError, shorten
from extracurricular.recipe.single import STEPS, default_training
from extracurricular.registry import explain_validation
from extracurricular.run.workspace import first_network
from extracurricular.training import Training


def read_whole(name: str, given: Any, least: int) -> int:
    """Return a whole number of at least ``least``; NumPy's integers are such numbers too.

    Raises:
        RecipeError: It is something else.
    """
    try:
        found = operator.index(given)
    except TypeError:
        found = None
    if found is None or isinstance(given, bool) or found < least:
        raise RecipeError(
            name, f"is {shorten(given)}; it must be a whole number of at least {least}"
        )
    return found


def check_kinds(raw: Any, out: Any, fabric: Any, on_progress: Any) -> None:
    """Refuse arguments of other kinds than :func:`extracurricular.distill` takes.

    Raises:
        RecipeError: One is of another kind.
    """
    wrong = (
        ("raw", raw, raw in (None, True, False), "True, False or None"),
        ("out", out, out is None or isinstance(out, str | Path), "the path of a folder"),
        ("fabric", fabric, hasattr(fabric, "device"), "a Fabric of lightning_fabric"),
        ("on_progress", on_progress, on_progress is None or callable(on_progress), "a function"),
    )
    for name, given, fits, kind in wrong:
        if not fits:
            raise RecipeError(name, f"is {shorten(given)}; it must be {kind}")


def read_training(
    given: Training | dict[str, Any] | None, steps: int | None, size: int | None
) -> Training:
    """Return the settings of a training, as a person gives them.

    Args:
        given: The settings; a dict changes the default ones, which None stands for.
        steps: Optimiser steps; those of the settings where None.
        size: Examples a step, where the settings say nothing; the default where None.

    Raises:
        RecipeError: A setting is unknown or wrong.
    """
    if isinstance(given, Training):
        return given if steps is None else given.model_copy(update={"steps": steps})
    usual = default_training(STEPS if steps is None else steps, size or 64)
    if given is None:
        return usual
    if not isinstance(given, dict):
        raise RecipeError(
            "training", f"is {shorten(given)}; it must be xcl.Training(…), or a dict of settings"
        )
    try:
        return Training.model_validate(usual.model_dump() | given)
    except ValidationError as error:
        known = dict.fromkeys(Training.model_fields)
        raise explain_validation(error, "training", known) from None


def read_network(given: Any, data: Data, seed: int) -> nn.Module:
    """Return a student with its first weights: a copy of a module, or what a spec describes.

    Raises:
        RecipeError: It is neither, or does not go with the data.
    """
    if isinstance(given, nn.Module):
        return copy.deepcopy(given)
    if not isinstance(given, str | dict):
        made = f", so give {given.__name__}(…)" if isinstance(given, type) else ""
        raise RecipeError(
            "student", f"is {shorten(given)}; it must be a torch module, the name of a network or "
            f"{{NAME: {{setting: value}}}}{made}"
        )  # fmt: skip
    return first_network(given, data, seed, "student")


@contextmanager
def as_they_were(modules: list[nn.Module]) -> Iterator[None]:
    """Put modules back into their modes and onto their devices once a block ends."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    tensors = [next(chain(module.parameters(), module.buffers()), None) for module in modules]
    places = [
        (module, tensor.device)
        for module, tensor in zip(modules, tensors, strict=True)
        if tensor is not None
    ]
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
        for module, device in places:
            module.to(device)
