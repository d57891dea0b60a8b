"""Fit a calibration to a model's answers and the labels of validation examples.

Everything is a function of answers and labels alone, computed in float64, and nothing is random.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import torch
from torch import Tensor

from extracurricular.distributions import (
    Bernoulli,
    Calibration,
    Categorical,
    Conformal,
    Distribution,
    Filed,
    Gaussian,
)
from extracurricular.inputs import hard_labels, soft_labels

MOST = 100.0
"""The largest temperature; the smallest is its inverse. A factor of a variance may be its cube."""
# Numbers of logits in float64 at once.
_AT_ONCE = 2**20
_HALVINGS = 60
# A temperature that is this near to its lower bound is there for want of a minimum.
_EDGE = 1.0001


def calibrate(
    said: Distribution,
    y: Tensor,
    *,
    temperature: bool = False,
    variance: bool = False,
    coverage: float | None = None,
) -> Calibration:
    """Fit a calibration; intervals or sets are those of the calibrated answers.

    Args:
        said: Answers on N validation examples.
        y: Their labels, in the units of the answers: class indices [N], soft labels [N, C], labels
            of 0 and 1 [N, L], or real targets [N, D].
        temperature: Whether to fit a temperature, of classes or labels.
        variance: Whether to fit a factor of the variance of each real target.
        coverage: The stated coverage of intervals or sets; None for none.

    Raises:
        ValueError: It is for another kind of answer, or for more examples.
    """
    count = len(said)
    if not count:
        raise ValueError("there are no examples to calibrate on")
    found = Calibration(
        fit_temperature(said, y) if temperature else None,
        variance_factors(said, y) if variance else None,
        examples=count,
    )
    if coverage is None:
        return found
    conformal = fit_conformal(found(said), y, coverage)
    return Calibration(found.temperature, found.variance, conformal, examples=count)


# Temperature


def fit_temperature(said: Distribution, y: Tensor) -> float:
    """Return the temperature with the least NLL (Guo et al. 2017, section 4.2), in [0.01, 100].

    The NLL of logits times β = 1 / T is convex in β, so halving the interval of log β finds the
    zero of its slope, the sum over examples of E_β[z] - z_y. Where the examples leave no minimum
    but T = 0, as when every one is right, they say nothing of the size of T, and it is 1.

    Raises:
        ValueError: The answers are of real targets.
    """
    if isinstance(said, Gaussian):
        raise ValueError("temperature is for classes and labels; real targets take variance")
    low, high = -math.log(MOST), math.log(MOST)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if _slope(said, y, math.exp(middle)) > 0:
            high = middle
        else:
            low = middle
    found = math.exp(-0.5 * (low + high))
    if found * MOST < _EDGE:
        return 1.0
    # Rounding must not make it worse than no change.
    return found if _nll(said, y, 1 / found) <= _nll(said, y, 1.0) else 1.0


def _slope(said: Distribution, y: Tensor, beta: float) -> float:
    """Return the slope of the summed NLL by β."""
    whole = 0.0
    for z, target in _parts(said, y):
        p = torch.softmax(beta * z, -1)
        whole += float(((p - target) * z).sum())
    return whole


def _nll(said: Distribution, y: Tensor, beta: float) -> float:
    whole = 0.0
    for z, target in _parts(said, y):
        whole -= float((torch.log_softmax(beta * z, -1) * target).sum())
    return whole


def _parts(said: Distribution, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield logits and labels as probabilities, [B, C] or [B, L, 2] each, in float64."""
    rows = max(1, _AT_ONCE // max(1, said[:1].parameters.shape[-1]))
    for start in range(0, len(said), rows):
        part, own = said[start : start + rows], y[start : start + rows]
        if isinstance(part, Bernoulli):
            true = own.double()
            yield part.pairs.log_probs.double(), torch.stack([1 - true, true], -1)
        else:
            assert isinstance(part, Categorical)
            z = part.log_probs.double()
            yield z, soft_labels(own, z.shape[1]).double()


# Variance


def variance_factors(said: Distribution, y: Tensor) -> tuple[float, ...]:
    """Return the factor of the variance of each real target with the least NLL.

    It is the mean of (y - μ)² / σ², where the slope of log c + (y - μ)² / (c σ²) by c is zero: the
    closed form of Laves et al. 2020, "Well-calibrated regression uncertainty in medical imaging
    with deep learning", for each output. It is bounded to [1e-6, 1e6].

    Raises:
        ValueError: The answers are of no real targets, or an answer with an error has no variance.
    """
    if not isinstance(said, Gaussian):
        raise ValueError("variance is for real targets; classes and labels take temperature")
    if getattr(said, "family", None) is not None:
        raise ValueError("variance is for Gaussians; other distributions take conformal")
    factors = said.deviates(y).square().mean(0)
    if not bool(torch.isfinite(factors).all()):
        raise ValueError(
            "variance has nothing to multiply: an answer has no variance, or is not finite"
        )
    return tuple(factors.clamp(MOST**-3, MOST**3).tolist())


# Split conformal


def fewest(coverage: float) -> int:
    """Return the fewest examples for a coverage: ⌈1 / (1 - coverage)⌉ - 1."""
    return math.ceil(1 / (1 - Fraction(str(coverage)))) - 1


def rank(count: int, coverage: float) -> int:
    """Return which of ``count`` scores, by size from 1, is the bound: ⌈(n + 1) · coverage⌉.

    The score of a new example is as likely to have any of n + 1 ranks among those of n others, if
    all are exchangeable, so it is at most that bound with a probability of at least the coverage,
    and of at most coverage + 1 / (n + 1) without ties (Lei et al. 2018, "Distribution-free
    predictive inference for regression", section 2.2).
    """
    # As a fraction, since 0.55 · 100 is more than 55 in binary.
    return math.ceil((count + 1) * Fraction(str(coverage)))


def fit_conformal(said: Distribution, y: Tensor, coverage: float) -> Conformal:
    """Fit intervals of real targets, or sets of classes, with a stated coverage.

    The score of a real target is |y - μ| / σ, for each output on its own (Papadopoulos et al. 2008,
    normalised). That of a class is one minus its probability, which gives the smallest sets on
    average, some of them empty (LAC: Sadinle, Lei and Wasserman 2019, "Least ambiguous set-valued
    classifiers with bounded error levels").

    Raises:
        ValueError: The answers are of several labels, or there are too few.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage is {coverage}; it must be between 0 and 1")
    count = len(said)
    if count < fewest(coverage):
        raise ValueError(
            f"a coverage of {coverage:g} needs at least {fewest(coverage):,} examples, and there "
            f"are {count:,}"
        )
    place = rank(count, coverage) - 1
    if isinstance(said, Gaussian):
        scores = said.deviates(y).abs().sort(0).values[place]
        if not bool(torch.isfinite(scores).all()):
            raise ValueError("an answer has no variance, or is not finite")
        return Conformal(coverage, deviations=tuple(scores.tolist()), examples=count)
    if isinstance(said, Bernoulli):
        raise ValueError("conformal is for classes and real targets, not for several labels")
    true = _of_label(said, hard_labels(y)).sort(descending=True).values
    return Conformal(coverage, least=float(true[place]), examples=count)


def _of_label(said: Categorical, y: Tensor) -> Tensor:
    """Return the probability of each label, [N]; the very numbers that sets are made of."""
    if isinstance(said, Filed):
        return said.each(lambda part, rows: _of_label(part, y[rows]))
    return said.probs.gather(1, y.long()[:, None])[:, 0]
