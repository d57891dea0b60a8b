"""Matching at several temperatures at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from extracurricular.distributions import FAMILIES, Distribution
from extracurricular.errors import shorten
from extracurricular.matching.divergences import (
    DIVERGENCES,
    Divergence,
    Spec,
    Traits,
    at_temperature,
    find_inner,
    traits_of,
)

_REASON = "which tempers both sides, and labels have no temperature"


@DIVERGENCES.register("temperatures")
@dataclass(frozen=True)
class Temperatures:
    """Match at several temperatures, and take the mean.

    Low temperatures match the top classes, high ones all logits alike. Each term has the factor of
    its own temperature, so that their gradients are of one size.

    Source: Jin, Wang and Lin 2023, "Multi-Level Logit Distillation", CVPR, section 3.2, the part of
    single examples ("instance-level alignment").

    Args:
        values: The temperatures, each greater than 0; each is multiplied by the `temperature` of
            the matching, which is 1 unless it is set.
        of: The divergence at each of them: NAME or {NAME: {setting: value}}.
    """

    values: tuple[float, ...] = (2.0, 3.0, 4.0, 5.0, 6.0)
    of: Spec = "forward_kl"
    _of: Divergence = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the settings, and find the inner divergence."""
        values = list(self.values)
        if not values or not all(0 < value < math.inf for value in values):
            raise ValueError(
                f"values is {shorten(values)}; it must be a list of numbers greater than 0, such "
                "as [1, 2, 4]"
            )
        object.__setattr__(self, "_of", find_inner(self.of))

    @property
    def traits(self) -> Traits:
        """Those of the inner divergence, from a teacher alone."""
        inner = traits_of(self._of)
        reasons = dict.fromkeys(FAMILIES, _REASON) | dict(inner.no_labels)
        return replace(inner, no_labels=reasons, tempers=True, weighs=inner.weighs)

    def __call__(
        self,
        teacher: Distribution,
        student: Distribution,
        temperature: float | Tensor,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Return the mean of the divergences of each example, with their factors, [B]."""
        outputs = {} if weight is None else {"weight": weight}
        each = [
            at_temperature(self._of, teacher, student, temperature * value, **outputs)
            for value in self.values
        ]
        return torch.stack(each).mean(0)
