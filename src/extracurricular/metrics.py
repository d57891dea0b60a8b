"""Figures for people: how good predictions are, how near the student is to the teacher.

Classification: ``accuracy``, ``nll``, ``brier``, ``ece``. Regression: ``rmse``, ``nll``, ``crps``,
``coverage90`` and, for gaze, ``angular_error``. Against the teacher: ``kl_to_teacher`` and
``agreement``. Calibration error is no proper score (a useless constant prediction can have 0),
so it always stands beside NLL and Brier.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from extracurricular.distributions import Categorical, Distribution, Gaussian
from extracurricular.errors import XclError

ECE_BINS = 15


@lru_cache(maxsize=1)
def _torchmetrics() -> Any:
    """Import torchmetrics, which cannot load beside a torchvision built for another torch."""
    try:
        import torchmetrics.functional as functional
    except (RuntimeError, ImportError, AttributeError) as error:
        raise XclError(
            f"torchmetrics cannot be imported, most likely since the installed torchvision was not "
            f"built for the installed torch ({error}); install matching versions, or remove "
            "torchvision, which extracurricular does not need"
        ) from error
    return functional


def check_available() -> None:
    """Raise XclError now, not after hours of training, if metrics cannot be computed."""
    _torchmetrics()


def evaluate(
    prediction: Distribution,
    y: Tensor,
    *,
    teacher: Distribution | None = None,
    angular: bool = False,
) -> dict[str, float]:
    """Compute all figures that apply.

    Args:
        prediction: Distributions for N examples.
        y: Class indices [N], or real targets [N, D] in the units of the prediction.
        teacher: The teacher's distributions for the same examples, for the fidelity figures.
        angular: Targets are (pitch, yaw) in radians.

    Returns:
        Figures by name. ``accuracy``, ``ece``, ``coverage90`` and ``agreement`` are in [0, 1];
        ``nll`` and ``kl_to_teacher`` are in nats; ``rmse`` and ``crps`` are in units of the target,
        over all outputs; ``angular_error`` is in degrees.
    """
    if isinstance(prediction, Categorical):
        figures = _classification(prediction, y)
    else:
        figures = _regression(prediction, y)
        if angular:
            figures["angular_error"] = float(angular_error(prediction.mean, y).mean())
    if teacher is not None:
        figures["kl_to_teacher"] = float(teacher.kl(prediction).mean())  # type: ignore[arg-type]
        figures["agreement"] = agreement(prediction, teacher)
    return figures


def _classification(prediction: Categorical, y: Tensor) -> dict[str, float]:
    tm = _torchmetrics()
    probs, classes = prediction.probs, prediction.probs.shape[1]
    accuracy = tm.accuracy(probs, y, task="multiclass", num_classes=classes, average="micro")
    ece = tm.calibration_error(
        probs, y, task="multiclass", num_classes=classes, n_bins=ECE_BINS, norm="l1"
    )
    return {
        "accuracy": float(accuracy),
        "nll": float(prediction.nll(y).mean()),
        "brier": float(brier(prediction, y).mean()),
        "ece": float(ece),
    }


def _regression(prediction: Gaussian, y: Tensor) -> dict[str, float]:
    low, high = prediction.interval(0.9)
    rmse = _torchmetrics().mean_squared_error(prediction.mean.float().flatten(), y.flatten())
    return {
        "rmse": math.sqrt(float(rmse)),
        "nll": float(prediction.nll(y).mean()),
        "crps": float(crps(prediction, y).mean()),
        "coverage90": float(((y >= low) & (y <= high)).float().mean()),
    }


def brier(prediction: Categorical, y: Tensor) -> Tensor:
    """Squared distance of the probabilities from the one-hot label, in [0, 2], [N] (Brier 1950)."""
    target = F.one_hot(y, prediction.probs.shape[1])
    return (prediction.probs - target).square().sum(-1)


def crps(prediction: Gaussian, y: Tensor) -> Tensor:
    """Continuous ranked probability score of each output, in units of the target, [N, D].

    The closed form for a Gaussian (Gneiting and Raftery 2007, section 4.2).
    """
    std = prediction.std
    # A point prediction has the absolute error; the tiny deviation avoids 0/0 on the way there.
    safe = std.clamp_min(torch.finfo(std.dtype).tiny)
    z = (y - prediction.mean.float()) / safe
    cdf = 0.5 * (1 + torch.erf(z / math.sqrt(2)))
    pdf = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    return safe * (z * (2 * cdf - 1) + 2 * pdf - 1 / math.sqrt(math.pi))


def gaze_vector(angles: Tensor) -> Tensor:
    """Unit vectors [N, 3] of (pitch, yaw) in radians [N, 2], in the convention of MPIIGaze."""
    pitch, yaw = angles.unbind(-1)
    return torch.stack([-pitch.cos() * yaw.sin(), -pitch.sin(), -pitch.cos() * yaw.cos()], dim=-1)


def angular_error(prediction: Tensor, y: Tensor) -> Tensor:
    """Angle between predicted and true gaze in degrees, [N], from radians [N, 2]."""
    a, b = gaze_vector(prediction.double()), gaze_vector(y.double())
    # The arc cosine loses half of the digits for small angles; this form does not.
    return torch.rad2deg(torch.atan2(torch.linalg.cross(a, b).norm(dim=-1), (a * b).sum(-1)))


def agreement(student: Distribution, teacher: Distribution) -> float:
    """Share of examples on which student and teacher agree, in [0, 1].

    Classes: both have the same most probable class. Regression: the student's mean lies within the
    teacher's central 90 % interval, counted over examples and outputs (our choice).
    """
    if isinstance(teacher, Categorical):
        same = student.mean.argmax(-1) == teacher.mean.argmax(-1)
        return float(same.float().mean())
    low, high = teacher.interval(0.9)
    mean = student.mean.float()
    return float(((mean >= low) & (mean <= high)).float().mean())


def error_of(figures: dict[str, float]) -> float:
    """The error that gaps are measured in: angular error, else RMSE, else 1 - accuracy."""
    for name in ("angular_error", "rmse"):
        if name in figures:
            return figures[name]
    return 1 - figures["accuracy"]


def gap_closed(
    kd: Sequence[float],
    student: Sequence[float],
    teacher: Sequence[float],
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Any] | None:
    """The part of the gap between KD student and teacher that another student closes.

    Args:
        kd, student, teacher: Errors by seed, in the same order of seeds.
        resamples: Bootstrap resamples of the seeds.
        seed: Seed of the bootstrap.

    Returns:
        ``{"value": (kd - student) / (kd - teacher) of the means over seeds, "ci95": [low, high]}``,
        a percentile bootstrap over seeds; None where the teacher is not better than KD. A resample
        without a gap leaves the ratio unbounded, so it counts to both ends; a bound that lies among
        those, or an interval from one seed, is None.
    """
    errors = np.array([kd, student, teacher], dtype=np.float64)
    means = errors.mean(1)
    gap = means[0] - means[2]
    if not gap > 0:
        return None
    value = float((means[0] - means[1]) / gap)
    count = errors.shape[1]
    if count < 2:
        return {"value": value, "ci95": [None, None]}
    draw = np.random.Generator(np.random.Philox(key=seed)).integers(count, size=(resamples, count))
    k, s, t = errors[:, draw].mean(2)
    # A gap of less than rounding is none.
    valid = k - t > 1e-12
    ratios = (k - s)[valid] / (k - t)[valid]
    missing = resamples - len(ratios)
    low = np.concatenate([np.full(missing, -np.inf), ratios])
    high = np.concatenate([ratios, np.full(missing, np.inf)])
    bounds = [
        float(np.quantile(low, 0.025, method="lower")),
        float(np.quantile(high, 0.975, method="higher")),
    ]
    return {"value": value, "ci95": [b if math.isfinite(b) else None for b in bounds]}
