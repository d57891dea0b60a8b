"""The part of a predictor's uncertainty that is the disagreement of an ensemble."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from extracurricular.distributions import Distribution, Task, epistemic


def disagreement(
    asked: Callable[[dict[str, Tensor], int | None], Iterator[Any]],
    x: dict[str, Tensor],
    size: int | None,
    task: Task,
) -> np.ndarray[Any, Any] | None:
    """Return the disagreement on N examples; None where nothing knows any.

    Args:
        asked: Yields answers to raw tensors, batch by batch: one for each member of an ensemble, or
            that of one network, which may know an ensemble's disagreement.
        x: Raw tensors [N, ...] by name.
        size: Examples at once; the predictor's own where None.
        task: What is predicted.

    Returns:
        The mutual information in nats, [N]; for real targets deviations of the mean, [N, D].
    """
    one = next(asked({name: leaf[:1] for name, leaf in x.items()}, size))
    if not isinstance(one, list) and one.disagreement is None:
        return None
    found = torch.cat([_of(part) for part in asked(x, size)])
    return (found.sqrt() if task.kind == "regression" else found).cpu().numpy()


def _of(answer: list[Distribution] | Distribution) -> Tensor:
    if isinstance(answer, list):
        return epistemic(answer)
    known = answer.disagreement
    assert known is not None
    return known
