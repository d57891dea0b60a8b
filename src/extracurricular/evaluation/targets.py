"""Figures of each real target alone, beside those of all together.

Errors over all targets are in raw units, so the target with the largest ones decides them; the
figures of each target are in its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from extracurricular.data.base import Data
from extracurricular.data.transformed import Transformed
from extracurricular.distributions import Distribution, Gaussian
from extracurricular.distributions.richer import Richer
from extracurricular.evaluation import metrics

SHOWN = ("rmse", "mae", "nll", "crps", "coverage90")
"""Figures of a target that tables show; the others are in ``summary.json``."""


def target_names(data: Data) -> tuple[str, ...]:
    """Return the names of real targets."""
    if data.angular:
        return ("pitch", "yaw")
    return data.outputs or tuple(f"target {k}" for k in range(data.task.size))


def one_target(prediction: Gaussian, k: int) -> Gaussian:
    """Return the distribution of one of the targets, [B, 1]."""
    if isinstance(prediction, Transformed):
        inner = one_target(prediction.inner, k)
        return Transformed.of(inner, prediction.transform.of_output(k))
    if isinstance(prediction, Richer):
        return prediction.output(k)
    return Gaussian(
        prediction.mean[:, k : k + 1], prediction.log_var[:, k : k + 1], limit=prediction.limit
    )


def by_target(
    prediction: Distribution, y: Tensor, data: Data, teacher: Distribution | None = None
) -> dict[str, dict[str, float]]:
    """Return the figures of each target by its name; empty for classes and for one target.

    Args:
        prediction: Distributions of N examples, in the targets' own units.
        y: Targets [N, D] in these units.
        data: The data set, for the names of its targets.
        teacher: The teacher's distributions, for divergence and agreement.
    """
    if not isinstance(prediction, Gaussian) or data.task.size < 2:
        return {}
    found = {}
    for k, name in enumerate(target_names(data)):
        other = one_target(teacher, k) if isinstance(teacher, Gaussian) else None
        own = one_target(prediction, k)
        found[name] = metrics.figures(own, y[:, k : k + 1], teacher=other)
    return found


def targets_of(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the figures by target of an entry of a summary; none where it has no targets."""
    found: Mapping[str, Any] = entry.get("targets") or {}
    return found
