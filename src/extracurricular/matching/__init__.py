"""Divergences, and the loss that they make.

A setting of the loss, like one of a sampler, may follow a course over the training
(:mod:`~extracurricular.matching.course`).
"""

import sys
from types import ModuleType
from typing import Any

from torch import Tensor

from extracurricular.distributions import Kind
from extracurricular.matching.divergences import (
    DIVERGENCES,
    Divergence,
    Traits,
    energy,
    forward_kl,
    js,
    reverse_kl,
    traits_of,
    wasserstein,
    with_traits,
)
from extracurricular.matching.function import matching
from extracurricular.matching.loss import BETA, Matching, build_matching, describe, weighted_mean

__all__ = [
    "BETA",
    "DIVERGENCES",
    "Divergence",
    "Kind",
    "Matching",
    "Traits",
    "build_matching",
    "describe",
    "energy",
    "forward_kl",
    "js",
    "matching",
    "reverse_kl",
    "traits_of",
    "wasserstein",
    "weighted_mean",
    "with_traits",
]


class _Room(ModuleType):
    """This package, which is called as the loss: ``xcl.matching`` is both."""

    def __call__(self, *arguments: Any, **settings: Any) -> Tensor:
        return matching(*arguments, **settings)


# Once imported, the package stands in the place of the public name ``xcl.matching``.
sys.modules[__name__].__class__ = _Room
