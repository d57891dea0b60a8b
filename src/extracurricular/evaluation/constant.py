"""Predictions against those of a constant: the mean and deviation, or the frequencies, in training.

Whoever knows the training labels alone gives one answer to every example. A network that is no
better has learned nothing from its inputs, whatever its training looked like.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from extracurricular.data.base import Data
from extracurricular.data.transformed import inner_of
from extracurricular.distributions import (
    SOFT_LOG_VAR,
    Bernoulli,
    Categorical,
    Distribution,
    Gaussian,
)
from extracurricular.evaluation.predict import own_units
from extracurricular.inputs import hard_labels

# From this ratio of the largest to the smallest class on, all classes count alike.
UNEQUAL = 3.0
# Deviations of the difference of NLLs from which on it is told that the constant's is lower.
_SURE = 2.0
# Part of the examples from which on variances beyond the bounds are no accident.
_MANY = 0.01
# Part of the spread of labels below which answers are all the same.
_SAME = 1e-3


@dataclass(frozen=True)
class Against:
    """Predictions of N examples, and a constant's.

    Args:
        measure: ``rmse``, in deviations of the target; ``error_rate``; ``balanced_error_rate``,
            where the largest class is more than three times the smallest; or ``hamming``.
        error, constant_error: That error of the predictions, and of the constant.
        nll, constant_nll: Their negative log-likelihoods in nats. Those of real targets are of
            standardised ones, so that they do not depend on units.
        better: Whether error or NLL is lower than the constant's, by more than the standard error
            of the difference.
        too_sure: Whether the NLL is higher than the constant's by more than two standard errors.
        far_out: Part of the log variances beyond ±14, from where they are bent.
        same: Whether all answers are alike.
    """

    measure: str
    error: float
    constant_error: float
    nll: float
    constant_nll: float
    better: bool
    too_sure: bool
    far_out: float
    same: bool

    def dump(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def constant(data: Data, count: int) -> Distribution:
    """Return the constant's answer on so many examples, in the target's own units.

    It is the normal distribution with mean and deviation of the training targets (or of their
    transforms); for classes and labels their frequencies in training, as if there were one more
    example of all alike.
    """
    y = data.train.y
    assert y is not None
    size = data.task.size
    if data.task.kind == "regression":
        zeros = torch.zeros(count, size)
        return own_units(Gaussian(zeros, zeros), data)
    own = y.cpu()
    if data.task.kind == "multilabel":
        shares = (own.double().sum(0) + 0.5) / (len(own) + 1)
        return Bernoulli.from_probs(shares.expand(count, -1))
    soft = own.is_floating_point()
    sums = own.double().sum(0) if soft else own.bincount(minlength=size).double()
    return Categorical.from_probs(((sums + 1 / size) / (len(own) + 1)).expand(count, -1))


def against_constant(prediction: Distribution, y: Tensor, data: Data) -> Against:
    """Compare predictions with the constant's.

    Args:
        prediction: Distributions of N examples, in the target's own units, on the CPU.
        y: Their labels.
        data: The data set, for its training labels and scales.
    """
    y = y.cpu()
    other = constant(data, len(y))
    measure, errors, theirs, weight = _errors(prediction, other, y, data)
    nll, their_nll = (_nll(one, y, data) for one in (prediction, other))
    gain, gain_nll = weight * (theirs - errors), their_nll - nll
    mean, mean_nll = float(gain.mean()), float(gain_nll.mean())
    better = mean > _standard_error(gain) or mean_nll > _standard_error(gain_nll)
    finite = bool(torch.isfinite(nll).all() and torch.isfinite(errors).all())
    return Against(
        measure=measure,
        error=_total(errors, weight, measure),
        constant_error=_total(theirs, weight, measure),
        nll=float(nll.mean()),
        constant_nll=float(their_nll.mean()),
        better=better and finite,
        too_sure=-mean_nll > _SURE * _standard_error(gain_nll) and finite,
        far_out=_far_out(prediction, data),
        same=_same(prediction, data),
    )


def is_dead(found: Against) -> bool:
    """Whether the variances are so far out that they follow no data."""
    return found.far_out > _MANY


def _standard_error(values: Tensor) -> float:
    return float(values.std() / len(values) ** 0.5) if len(values) > 1 else 0.0


def _total(errors: Tensor, weight: Tensor, measure: str) -> float:
    mean = float((weight * errors).mean())
    return mean**0.5 if measure == "rmse" else mean


def _errors(
    prediction: Distribution, other: Distribution, y: Tensor, data: Data
) -> tuple[str, Tensor, Tensor, Tensor]:
    """Return the measure, the errors of both on each example, and the weight of each, [N]."""
    ones = torch.ones(len(y), dtype=torch.float64)
    if isinstance(prediction, Gaussian):
        assert isinstance(other, Gaussian)
        target = _standardised(Gaussian.point(y.double()), data).mean
        pair = [_standardised(one, data).mean for one in (prediction, other)]
        mine, theirs = ((mean - target).square().mean(-1) for mean in pair)
        return "rmse", mine, theirs, ones
    if isinstance(prediction, Bernoulli):
        mine, theirs = (
            ((one.mean >= 0.5) != (y >= 0.5)).double().mean(-1) for one in (prediction, other)
        )
        return "hamming", mine, theirs, ones
    right = hard_labels(y)
    mine, theirs = ((one.mean.argmax(-1) != right).double() for one in (prediction, other))
    assert data.train.y is not None
    counts = hard_labels(data.train.y.cpu()).bincount(minlength=data.task.size)
    there = counts[counts > 0]
    if float(there.max()) <= UNEQUAL * float(there.min()):
        return "error_rate", mine, theirs, ones
    known = right.bincount(minlength=data.task.size).double()
    weight = len(y) / (known[right] * int((known > 0).sum()))
    return "balanced_error_rate", mine, theirs, weight


def _nll(said: Distribution, y: Tensor, data: Data) -> Tensor:
    """Return negative log-likelihoods, float64, [N]; of real targets those of standardised ones."""
    if not isinstance(said, Gaussian):
        return said.nll(y).double()
    own = _standardised(said, data)
    target = _standardised(Gaussian.point(y.double()), data).mean
    if own.richer:
        return own.nll(target).double()
    return Gaussian(own.mean, own.log_var, limit=said.limit).nll(target).double()


def _standardised(said: Gaussian, data: Data) -> Gaussian:
    """Return a distribution of own units as one of standardised targets, float64."""
    if data.y_scale is None:
        return said
    shift, scale = data.y_scale.shift.cpu().double(), data.y_scale.scale.cpu().double()
    if data.y_transform is not None:
        if bool(torch.isneginf(said.log_var).all()):
            return Gaussian((data.y_transform.apply(said.mean) - shift) / scale, said.log_var)
        said = inner_of(said, data.y_transform)
    if said.richer:
        return said.scaled(1 / scale, -shift / scale)
    log_var = said.log_var.double() - 2 * scale.log()
    return Gaussian((said.mean.double() - shift) / scale, log_var)


def _far_out(said: Distribution, data: Data) -> float:
    if not isinstance(said, Gaussian):
        return 0.0
    return float((_standardised(said, data).log_var.abs() > SOFT_LOG_VAR + 0.01).double().mean())


def _same(said: Distribution, data: Data) -> bool:
    mean = _standardised(said, data).mean if isinstance(said, Gaussian) else said.mean
    return len(mean) > 1 and float(mean.double().std(0).max()) < _SAME
