"""Nodes of quadratures, and functions that torch lacks or that lose digits in float32."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)
# From here on the series of lgamma(x + 1/2) - lgamma(x) has all digits of float32.
_LARGE = 12.0
# Terms of the recurrence that brings digamma to where its series holds.
_SHIFTS = 6


@lru_cache(maxsize=64)
def hermite(count: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return nodes and weights, [n], of expectations under the standard normal distribution.

    The rule of Gauss and Hermite is exact for polynomials of degree 2 n - 1. The tensors are made
    once on each device, so that no later step waits for a copy.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return _on(nodes, device, dtype), _on(weights / weights.sum(), device, dtype)


@lru_cache(maxsize=64)
def legendre(count: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return nodes in (0, 1) and weights, [n], of means over the unit interval."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return _on((nodes + 1) / 2, device, dtype), _on(weights / 2, device, dtype)


@lru_cache(maxsize=64)
def laguerre(count: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return nodes and weights, [n], of expectations under the exponential distribution."""
    nodes, weights = np.polynomial.laguerre.laggauss(count)
    return _on(nodes, device, dtype), _on(weights / weights.sum(), device, dtype)


@lru_cache(maxsize=64)
def spaced(low: float, high: float, count: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return equally spaced numbers, [n], made once on each device."""
    return _on(np.linspace(low, high, count), device, dtype)


def _on(values: np.ndarray, device: torch.device, dtype: torch.dtype) -> Tensor:
    # Made outside of any inference mode that the first caller may be in, for others to use.
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


def normal_cdf(z: Tensor) -> Tensor:
    """Return the distribution function of the standard normal."""
    return 0.5 * torch.erfc(-z * math.sqrt(0.5))


def normal_density(z: Tensor) -> Tensor:
    """Return the density of the standard normal."""
    return torch.exp(-0.5 * z.square() - 0.5 * LOG_2PI)


def normal_quantile(levels: Tensor) -> Tensor:
    """Return the quantiles of the standard normal."""
    return math.sqrt(2) * torch.erfinv(2 * levels - 1)


def log_gamma_half(x: Tensor) -> Tensor:
    """Return lgamma(x + 1/2) - lgamma(x), of which the difference itself loses digits.

    From 12 on it is the series in 1 / x (Abramowitz and Stegun 1964, formula 6.1.47).
    """
    small = x.clamp_max(_LARGE)
    near = torch.lgamma(small + 0.5) - torch.lgamma(small)
    inverse = x.clamp_min(_LARGE).reciprocal()
    series = inverse * (-1 / 8 + inverse.square() * (1 / 192 - inverse.square() / 640))
    return torch.where(x < _LARGE, near, series - 0.5 * inverse.log())


def digamma_half(x: Tensor) -> Tensor:
    """Return digamma(x + 1/2) - digamma(x), the slope of :func:`log_gamma_half`."""
    small = x.clamp_max(_LARGE)
    near = torch.digamma(small + 0.5) - torch.digamma(small)
    inverse = x.clamp_min(_LARGE).reciprocal()
    square = inverse.square()
    series = 0.5 * inverse + square * (1 / 8 - square * (1 / 64 - square / 128))
    return torch.where(x < _LARGE, near, series)


def digamma_less_log(x: Tensor) -> Tensor:
    """Return digamma(x + 1) - log x, which is positive and falls from infinity to 0, for x > 0.

    It is made of operators that ONNX has, and keeps its digits where x is large. (Abramowitz and
    Stegun 1964, formulas 6.3.6 and 6.3.18.)
    """
    # digamma(x + 1) = digamma(y) - Σ 1 / (x + i), with y = x + 6.
    y = x + _SHIFTS
    inverse = y.reciprocal()
    square = inverse * inverse
    tail = square * (1 / 12 - square * (1 / 120 - square * (1 / 252 - square / 240)))
    terms = (x + 1).reciprocal()
    for i in range(2, _SHIFTS):
        terms = terms + (x + i).reciprocal()
    return torch.log1p(_SHIFTS * x.reciprocal()) - 0.5 * inverse - tail - terms
