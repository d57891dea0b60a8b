"""The loss of a training: what a recipe says of it, with its weights of classes on the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from extracurricular.data.base import Data
from extracurricular.errors import RecipeError
from extracurricular.matching import Matching, build_matching


def loss_for(settings: Mapping[str, Any], key: str, data: Data, learns_from: str) -> Matching:
    """Return the loss that a section ``matching`` describes for a data set.

    Args:
        settings: The section.
        key: Its key in the recipe, for errors.
        data: The data set.
        learns_from: ``labels`` or ``teacher``.

    Raises:
        RecipeError: A setting is wrong, or does not fit the data.
    """
    return fitted_loss(build_matching(settings, key), key, data, learns_from)


def fitted_loss(matching: Matching, key: str, data: Data, learns_from: str = "teacher") -> Matching:
    """Return a loss with its weights of classes on a data set; see :func:`loss_for`."""
    try:
        return matching.for_data(data, learns_from == "labels")
    except ValueError as error:
        raise RecipeError(key, str(error)) from error
