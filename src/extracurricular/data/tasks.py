"""Decide whether labels are classes or real numbers, and say why."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]
Kind: TypeAlias = Literal["classification", "regression"]

FEW = 20
"""A target of at most so many different whole numbers is taken for classes."""


def kind_of(name: str, y: Array, indices: bool = False) -> tuple[Kind | None, str]:
    """Return the kind of task that labels suggest, and a sentence that says why.

    Texts are classes, and so are at most :data:`FEW` different whole numbers; other numbers are
    real.

    Args:
        name: Name of the target, for the sentence.
        y: Labels [N], or several real targets [N, D]; numbers, booleans or texts.
        indices: Whether whole numbers are class indices where they are all of 0 to C - 1, as in
            arrays. Other whole numbers of many kinds are then anybody's guess, and the kind None.
    """
    target = f"The target {name!r}" if name else "The target"
    if y.ndim > 1 and y.shape[1] > 1:
        return "regression", f"There are {y.shape[1]} targets, which are read as numbers."
    y = y.reshape(-1)
    if y.dtype.kind not in "fiu":
        count = len(np.unique(y))
        return "classification", f"{target} has texts, which are read as {count} classes."
    if y.dtype.kind == "f" and not bool((y == np.round(y)).all()):
        return "regression", f"{target} has numbers with a fraction, so it is read as numbers."
    kinds = np.unique(y)
    has = f"{target} has {len(kinds)} different whole numbers, {kinds[0]:g} to {kinds[-1]:g}"
    if len(kinds) <= FEW:
        return "classification", (
            f"{has}, which are read as classes; `task: regression` reads them as numbers."
        )
    if indices:
        if kinds[0] == 0 and kinds[-1] == len(kinds) - 1:
            return "classification", (
                f"{has}, all of them, which are read as classes; `task: regression` reads them as "
                "numbers."
            )
        return None, (
            f"{has}, which may be classes or numbers; set task to 'classification' or 'regression'"
        )
    return "regression", f"{has}, so it is read as numbers; `task: classification` makes classes."
