"""Matching of standardised logits."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from extracurricular.distributions import Categorical
from extracurricular.matching.divergences import (
    DIVERGENCES,
    Divergence,
    Spec,
    Traits,
    at_temperature,
    find_inner,
    traits_of,
)

# Logits whose deviation is below this count as equal.
_LEAST = 1e-3
_REASON = "which standardises logits, and labels have none"


@DIVERGENCES.register("standardised")
@dataclass(frozen=True)
class Standardised:
    """Bring the logits of both sides to mean 0 and deviation 1, then temper and match them.

    So only the shape of the logits is matched, not their scale: a small student need not have
    logits as large as its teacher's. Nothing then teaches its confidence, and its likelihood and
    calibration are poor. Add `label_weight`, as the paper does. Of two classes only the order is
    left.

    Source: Sun, Ren, Li, Wang and Cao 2024, "Logit Standardization in Knowledge Distillation",
    CVPR, equations 14 and 15, with the deviation over all C classes.

    Args:
        of: The divergence of the standardised logits: NAME or {NAME: {setting: value}}.
    """

    of: Spec = "forward_kl"
    _of: Divergence = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Find the inner divergence."""
        object.__setattr__(self, "_of", find_inner(self.of))

    @property
    def traits(self) -> Traits:
        """Those of the inner divergence, for classes, from a teacher alone."""
        inner = traits_of(self._of)
        reasons = {"classification": _REASON, **inner.no_labels}
        return replace(
            inner, no_labels=reasons, kinds=("classification",), tempers=True, weighs=False
        )

    def __call__(
        self, teacher: Categorical, student: Categorical, temperature: float | Tensor
    ) -> Tensor:
        """Return the divergence of each example at a temperature, with its factor, [B]."""
        return at_temperature(self._of, standardised(teacher), standardised(student), temperature)


def standardised(said: Categorical) -> Categorical:
    """Return logits with mean 0 and deviation 1 over the classes."""
    centred = said.log_probs - said.log_probs.mean(-1, keepdim=True)
    # Divided by the largest first, since the square of a masked class would be infinite. It cancels
    # out, and so does its gradient.
    most = centred.detach().abs().amax(-1, keepdim=True).clamp_min(_LEAST)
    small = centred / most
    deviation = (small.square().mean(-1, keepdim=True) + _LEAST**4).sqrt() * most
    return Categorical(centred / deviation.clamp_min(_LEAST))
