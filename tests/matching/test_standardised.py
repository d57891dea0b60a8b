"""Standardised logits: their scale and shift do not matter."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from extracurricular.distributions import Categorical
from extracurricular.errors import RecipeError
from extracurricular.matching import Matching
from extracurricular.matching.standardised import standardised

GEN = torch.Generator().manual_seed(5)
A, B = (torch.randn(8, 6, generator=GEN) * 3 for _ in range(2))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_it_is_the_kl_of_standardised_logits(temperature: float) -> None:
    def z(logits: torch.Tensor) -> torch.Tensor:
        return (logits - logits.mean(-1, keepdim=True)) / logits.std(-1, keepdim=True, correction=0)

    wanted, said = (z(v.double()).div(temperature).log_softmax(-1) for v in (A, B))
    kl = F.kl_div(said, wanted, log_target=True, reduction="batchmean") * temperature**2
    loss = Matching("standardised", temperature)(Categorical(B), Categorical(A))
    assert float(loss) == pytest.approx(float(kl), rel=1e-4)


def test_scale_and_shift_do_not_matter() -> None:
    loss = Matching("standardised", 2.0)
    plain = loss(Categorical(B), Categorical(A))
    torch.testing.assert_close(loss(Categorical(3 * B - 2), Categorical(0.1 * A + 5)), plain)
    assert float(loss(Categorical(5 * A), Categorical(A))) < 1e-6


def test_the_scale_of_the_students_logits_has_no_gradient() -> None:
    raw = B.clone().requires_grad_()
    Matching("standardised")(Categorical(raw), Categorical(A)).backward()
    assert raw.grad is not None
    assert float((raw.grad * B).sum(-1).abs().max()) < 1e-5


def test_a_masked_class_is_no_nan() -> None:
    masked = A.clone()
    masked[:, 0] = -math.inf
    assert bool(torch.isfinite(standardised(Categorical(masked)).logits).all())


def test_it_wraps_another_divergence_of_this_package_alone() -> None:
    inner = Matching({"dkd": {"beta": 2.0}}, 3.0)(
        standardised(Categorical(B)), standardised(Categorical(A))
    )
    outer = Matching({"standardised": {"of": {"dkd": {"beta": 2.0}}}}, 3.0)
    torch.testing.assert_close(outer(Categorical(B), Categorical(A)), inner)
    with pytest.raises(RecipeError, match=r"standardised\.of: is 'mine:loss'; it must be a diverg"):
        Matching({"standardised": {"of": "mine:loss"}})
