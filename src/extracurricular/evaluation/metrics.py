"""Figures for people: how good predictions are, how near the student is to the teacher.

Classification: ``accuracy``, ``nll``, ``brier``, ``ece``, ``adaptive_ece``, ``aurc``, and those in
which every class counts the same (:mod:`extracurricular.evaluation.classes`). Regression:
``rmse``, ``mae``, ``nll``, ``crps``, ``coverage90``, ``sharpness90`` and, for gaze,
``angular_error``. Several labels: see :mod:`extracurricular.evaluation.labels`. Against the
teacher: ``kl_to_teacher`` and ``agreement``. Calibration error is no proper score (a useless
constant prediction can have 0), so it always stands beside NLL and Brier.

This module computes the figures; :mod:`extracurricular.evaluation.words` says how each is called
and written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from extracurricular.data.transformed import Transformed, inner_of
from extracurricular.distributions import Bernoulli, Categorical, Distribution, Filed, Gaussian
from extracurricular.distributions.richer import Richer
from extracurricular.evaluation.classes import by_class, over_classes
from extracurricular.evaluation.labels import auroc as auroc
from extracurricular.evaluation.labels import flat_pairs, label_figures
from extracurricular.evaluation.words import BALANCED, error_measure
from extracurricular.inputs import hard_labels

ECE_BINS = 15


def figures(
    prediction: Distribution,
    y: Tensor,
    *,
    teacher: Distribution | None = None,
    angular: bool = False,
    ranks: bool = True,
) -> dict[str, float]:
    """Compute all figures that apply to a prediction.

    Args:
        prediction: Distributions for N examples.
        y: Class indices [N], soft labels [N, C], labels of 0 and 1 [N, L], or real targets [N, D]
            in the units of the prediction.
        teacher: The teacher's distributions for the same examples, for the fidelity figures.
        angular: Whether targets are (pitch, yaw) in radians.
        ranks: Whether ``macro_auroc`` and ``macro_auprc`` of classes are among them, which take a
            sort for each class.

    Returns:
        Figures by name. One that cannot be computed from these labels is left out
        (:func:`extracurricular.evaluation.classes.without` says why). ``accuracy``, ``ece``,
        ``adaptive_ece``, ``aurc``, ``coverage90``, ``agreement`` and those over classes are in
        [0, 1]; ``nll`` and ``kl_to_teacher`` are in nats; ``rmse``, ``mae``, ``crps`` and
        ``sharpness90`` are in units of the target, over all outputs; ``angular_error`` is in
        degrees. With soft labels the right class is their most probable one; ``nll`` and ``brier``
        are measured to the whole label.
    """
    if isinstance(prediction, Categorical):
        every = over_classes(by_class(prediction, y, ranks))
        figures = _classification(prediction, y)
        figures |= every if ranks else {k: every[k] for k in ("balanced_accuracy", "macro_f1")}
    elif isinstance(prediction, Bernoulli):
        figures = label_figures(prediction, y)
        # Each pair of example and label is a prediction of two classes.
        pairs = _classification(*flat_pairs(prediction, y))
        figures |= {name: pairs[name] for name in ("ece", "adaptive_ece", "aurc")}
    else:
        figures = _regression(prediction, y)
        if angular:
            figures["angular_error"] = float(angular_error(prediction.mean, y).mean())
    if teacher is not None:
        figures["kl_to_teacher"] = float(teacher.kl(prediction).mean())  # type: ignore[arg-type]
        figures["agreement"] = agreement(prediction, teacher)
    return figures


def _classification(prediction: Categorical, label: Tensor) -> dict[str, float]:
    y = hard_labels(label)
    return {
        "accuracy": accuracy(prediction, y),
        "nll": float(prediction.nll(label).mean()),
        "brier": float(brier(prediction, label).mean()),
        "ece": ece(prediction, y),
        "adaptive_ece": adaptive_ece(prediction, y),
        "aurc": aurc(prediction, y),
    }


def _regression(prediction: Gaussian, y: Tensor) -> dict[str, float]:
    return {
        "rmse": math.sqrt(float((prediction.mean.to(y.dtype) - y).square().mean())),
        "mae": float((prediction.mean.to(y.dtype) - y).abs().mean()),
        "nll": float(prediction.nll(y).mean()),
        "crps": float(crps(prediction, y).mean()),
        "coverage90": coverage(prediction, y, 0.9),
        "sharpness90": sharpness(prediction, 0.9),
    }


def brier(prediction: Categorical, y: Tensor) -> Tensor:
    """Return the squared distance of probabilities and label, in [0, 2], [N] (Brier 1950).

    Args:
        prediction: Distributions for N examples.
        y: Class indices [N], or soft labels [N, C].
    """
    if isinstance(prediction, Filed):
        return prediction.each(lambda part, rows: brier(part, y[rows]))
    target = y if y.is_floating_point() else F.one_hot(y, prediction.probs.shape[1])
    return (prediction.probs - target).square().sum(-1)


def accuracy(prediction: Categorical, y: Tensor) -> float:
    """Return the share of examples whose most probable class is theirs, in [0, 1]."""
    return float((prediction.top()[1] == y).double().mean())


def ece(prediction: Categorical, y: Tensor, bins: int = ECE_BINS) -> float:
    """Return the expected calibration error in bins of equal width, in [0, 1].

    The error is the mean over examples of the distance between accuracy and mean confidence of
    their bin, where the confidence is the probability of the most probable class (Guo et al. 2017,
    "On calibration of modern neural networks", equations 2 and 3). Bins are closed above, so that
    the last one holds a confidence of 1.

    Args:
        prediction: Distributions for N examples, N at least 1.
        y: Class indices [N].
        bins: Number of bins.
    """
    confidence, choice = prediction.top()
    inner = torch.arange(1, bins, device=confidence.device, dtype=torch.float64) / bins
    # In float64, as a confidence in float32 would be compared with a rounded edge.
    place = torch.bucketize(confidence.double(), inner)
    excess = (choice == y).double() - confidence.double()
    sums = excess.new_zeros(bins).index_add_(0, place, excess)
    return float(sums.abs().sum() / len(y))


def adaptive_ece(prediction: Categorical, y: Tensor, bins: int = ECE_BINS) -> float:
    """Return the calibration error in bins of equally many examples, in [0, 1].

    The error is the mean over examples of the distance between accuracy and mean confidence of
    their bin. Bins that adapt to the confidences are from Nixon et al. 2019, "Measuring calibration
    in deep learning". Their ACE looks at every class; this figure looks at the most probable class,
    as ``ece`` does. Examples of the same confidence count as their mean, so the figure does not
    depend on the order of the examples.

    Args:
        prediction: Distributions for N examples, N at least 1.
        y: Class indices [N].
        bins: Number of bins; their sizes differ by one example at most. Each example is a bin
            where there are fewer examples than bins.
    """
    confidence, right = _by_confidence(prediction, y)
    count = len(confidence)
    edges = [k * count // bins for k in range(bins + 1)] if count > bins else range(count + 1)
    sums = F.pad((right - confidence).cumsum(0), (1, 0))[torch.tensor(edges)]
    return float(sums.diff().abs().sum() / count)


def aurc(prediction: Categorical, y: Tensor) -> float:
    """Return the area under the risk-coverage curve, in [0, 1].

    The area is the mean over k of the error rate among the k examples of highest confidence, which
    is the probability of the most probable class (Geifman, Uziel and El-Yaniv 2019, "Bias-reduced
    uncertainty estimation for deep neural classifiers"). Where confidences are equal, it is the
    mean over all orders of these examples.

    Args:
        prediction: Distributions for N examples, N at least 1.
        y: Class indices [N].
    """
    _, right = _by_confidence(prediction, y)
    wrong = 1 - right.flip(0)
    kept = torch.arange(1, len(wrong) + 1, device=wrong.device)
    return float((wrong.cumsum(0) / kept).mean())


def _by_confidence(prediction: Categorical, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return confidences, ascending, and their accuracy, both float64, [N].

    Examples of equal confidence share their mean accuracy.
    """
    confidence, choice = prediction.top()
    values, place, counts = torch.unique(confidence, return_inverse=True, return_counts=True)
    right = torch.zeros(len(values), dtype=torch.float64, device=y.device)
    right.index_add_(0, place, (choice == y).double())
    return (
        values.double().repeat_interleave(counts),
        (right / counts).repeat_interleave(counts),
    )


def coverage(prediction: Gaussian, y: Tensor, mass: float = 0.9) -> float:
    """Return the share of targets [N, D] in their central interval of ``mass`` (0 to 1)."""
    low, high = prediction.interval(mass)
    return float(((y >= low) & (y <= high)).float().mean())


def sharpness(prediction: Gaussian, mass: float = 0.9) -> float:
    """Return the mean width of the central interval of ``mass`` (0 to 1), in units of the target.

    A smaller width is better among predictions whose coverage is right, and means nothing otherwise
    (Gneiting, Balabdaoui and Raftery 2007, "Probabilistic forecasts, calibration and sharpness").
    """
    low, high = prediction.interval(mass)
    return float((high - low).mean())


def crps(prediction: Gaussian, y: Tensor) -> Tensor:
    """Return the continuous ranked probability score, in units of the target, [N, D].

    This is the closed form for a Gaussian (Gneiting and Raftery 2007, section 4.2), that of a
    transformed target (:meth:`.Rule.crps`), or that of a richer family.
    """
    if isinstance(prediction, Transformed | Richer):
        return prediction.crps(y)
    std = prediction.std
    # A point prediction has the absolute error; the tiny deviation avoids 0/0 on the way there.
    safe = std.clamp_min(torch.finfo(std.dtype).tiny)
    z = (y - prediction.mean.to(y.dtype)) / safe
    cdf = 0.5 * (1 + torch.erf(z / math.sqrt(2)))
    pdf = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    return safe * (z * (2 * cdf - 1) + 2 * pdf - 1 / math.sqrt(math.pi))


def gaze_vector(angles: Tensor) -> Tensor:
    """Return unit vectors [N, 3] for (pitch, yaw) in radians [N, 2], as MPIIGaze defines them."""
    pitch, yaw = angles.unbind(-1)
    return torch.stack([-pitch.cos() * yaw.sin(), -pitch.sin(), -pitch.cos() * yaw.cos()], dim=-1)


def angular_error(prediction: Tensor, y: Tensor) -> Tensor:
    """Return the angle between predicted and true gaze in degrees, [N], from radians [N, 2]."""
    a, b = gaze_vector(prediction.double()), gaze_vector(y.double())
    # The arc cosine loses half of the digits for small angles; this form does not.
    return torch.rad2deg(torch.atan2(torch.linalg.cross(a, b).norm(dim=-1), (a * b).sum(-1)))


def agreement(student: Distribution, teacher: Distribution) -> float:
    """Return the share of examples on which student and teacher agree, in [0, 1].

    They agree on a class where both have the same most probable one, on a label where both predict
    it (from 0.5 on) or both do not, and on a real target where the student's mean lies within the
    teacher's central 90 % interval, counted over examples and outputs (our choice). Of transformed
    targets it is the mean of the transform, which is the median, as the mean of a long tail may lie
    beyond its own interval.
    """
    if isinstance(teacher, Bernoulli):
        return float(((student.mean >= 0.5) == (teacher.mean >= 0.5)).float().mean())
    if isinstance(teacher, Categorical):
        assert isinstance(student, Categorical)
        same = student.top()[1] == teacher.top()[1]
        return float(same.float().mean())
    if isinstance(teacher, Transformed) and isinstance(student, Gaussian):
        student = inner_of(student, teacher.transform)
        teacher = teacher.inner
    low, high = teacher.interval(0.9)
    mean = student.mean.to(low.dtype)
    return float(((mean >= low) & (mean <= high)).float().mean())


def fpr_at_tpr(positive: Tensor, negative: Tensor, rate: float = 0.95) -> float:
    """Return the share of negative examples that raise an alarm when ``rate`` of the positive do.

    The threshold is the highest score that at least ``rate`` of the positive examples reach. The
    share is in [0, 1], and smaller is better. The foreign examples are the positive ones, as in
    Hendrycks, Mazeika and Dietterich 2019, "Deep anomaly detection with outlier exposure"; papers
    that take them for the negative ones have another figure.

    Args:
        positive, negative: Scores [P] and [N], at least one of each.
        rate: In (0, 1].
    """
    # Rounded first, as 0.95 * 100 is a little more than 95.
    needed = math.ceil(round(rate * len(positive), 6))
    threshold = positive.sort(descending=True).values[max(needed, 1) - 1]
    return float((negative >= threshold).double().mean())


def error_of(figures: Mapping[str, float], measure: str = "") -> float:
    """Return the error that gaps are measured in.

    That is the angular error, the RMSE, or the Hamming loss where there is one, else 1 - accuracy.

    Args:
        figures: The figures.
        measure: ``balanced_error_rate`` for 1 - balanced accuracy; empty for the usual one.
    """
    name = measure or error_measure(figures)
    if name in figures:
        return figures[name]
    return 1 - figures["balanced_accuracy" if name == BALANCED else "accuracy"]


def gap_closed(
    reference: Sequence[float],
    student: Sequence[float],
    teacher: Sequence[float],
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Any] | None:
    """Return the part of the gap between a reference and the teacher that a student closes.

    Args:
        reference: Errors by seed of the student that the gap is measured from, usually plain KD.
        student, teacher: Errors of student and teacher, in the same order of seeds.
        resamples: Bootstrap resamples of the seeds.
        seed: Seed of the bootstrap.

    Returns:
        ``{"value": v, "ci95": [low, high]}``; None where the teacher is not better than the
        reference. ``v`` is (reference - student) / (reference - teacher) of the means over seeds,
        and the interval a percentile bootstrap over seeds. A resample without a gap leaves the
        ratio unbounded, so it counts to both ends; a bound that lies among those, or an interval
        from one seed, is None.
    """
    errors = np.array([reference, student, teacher], dtype=np.float64)
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
    # A gap smaller than rounding is no gap.
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
