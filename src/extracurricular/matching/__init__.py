"""Divergences, and the loss that they make.

A setting of the loss, like one of a sampler, may follow a course over the training
(:mod:`~extracurricular.matching.course`).
"""

from extracurricular.distributions import Kind
from extracurricular.matching.divergences import (
    DIVERGENCES,
    Divergence,
    Traits,
    at_temperature,
    energy,
    find_divergence,
    forward_kl,
    js,
    reverse_kl,
    traits_of,
    wasserstein,
    with_traits,
)
from extracurricular.matching.loss import BETA, Matching, build_matching, describe, weighted_mean

__all__ = [
    "BETA",
    "DIVERGENCES",
    "Divergence",
    "Kind",
    "Matching",
    "Traits",
    "at_temperature",
    "build_matching",
    "describe",
    "energy",
    "find_divergence",
    "forward_kl",
    "js",
    "reverse_kl",
    "traits_of",
    "wasserstein",
    "weighted_mean",
    "with_traits",
]
