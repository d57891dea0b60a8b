"""The log variance of a network: itself in the middle, bent far out, never without a slope."""

from __future__ import annotations

import math

import pytest
import torch

from extracurricular.distributions import SOFT_LOG_VAR, Gaussian, Task, bent
from extracurricular.models.heads import moments

REAL = Task("regression", 1)


def test_it_is_the_output_to_the_last_bit_within_the_bounds() -> None:
    x = torch.linspace(-SOFT_LOG_VAR, SOFT_LOG_VAR, 10_001)
    assert torch.equal(bent(x), x)
    half = x.bfloat16()
    assert torch.equal(bent(half), half)
    said = REAL.distribution(torch.tensor([[0.5, -13.9]]))
    assert torch.equal(said.parameters, torch.tensor([[0.5, -13.9]]))


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("away", [1e-3, 1.0, 100.0, 1e10, 1e30])
def test_beyond_the_bounds_it_has_its_closed_form(sign: float, away: float) -> None:
    x = torch.tensor([sign * (SOFT_LOG_VAR + away)], requires_grad=True)
    said = bent(x)
    assert float(said.detach()) == pytest.approx(sign * (14 + math.log1p(4 * away) / 4), rel=1e-5)
    said.sum().backward()
    assert x.grad is not None
    assert float(x.grad) == pytest.approx(1 / (1 + 4 * away), rel=1e-2)


def test_it_rises_everywhere() -> None:
    far = torch.logspace(2, 37, 60)
    x = torch.cat([-far.flip(0), torch.linspace(-60, 60, 4001), far])
    assert bool((bent(x).diff() > 0).all())


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("away", [14.5, 40.5, 1e4, 1e10, 1e20, 1e30])
def test_a_gradient_leads_back_from_far_out(sign: float, away: float) -> None:
    """The loss of a wrong mean raises a variance that is far too small; one too large sinks."""
    raw = torch.tensor([[1.0, sign * away]], requires_grad=True)
    REAL.distribution(raw).nll(torch.zeros(1, 1)).sum().backward()
    assert raw.grad is not None
    slope = float(raw.grad[0, 1])
    assert math.isfinite(slope)
    assert slope * sign > 0


@pytest.mark.parametrize("start", [-60.0, 60.0])
def test_a_training_finds_back_from_there(start: float) -> None:
    raw = torch.tensor([[0.3, start]], requires_grad=True)
    optimizer = torch.optim.AdamW([raw], lr=1.0, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, 200)
    y = torch.linspace(-1, 1, 8)[:, None]
    for _ in range(200):
        optimizer.zero_grad()
        loss = REAL.distribution(raw.expand(8, 2)).nll(y).mean()
        loss.backward()
        optimizer.step()
        schedule.step()
    least = 0.5 * (1 + math.log(2 * math.pi * float(y.var(correction=0))))
    assert float(loss.detach()) == pytest.approx(least, abs=0.02)


@pytest.mark.parametrize("raw", [-60.0, -1e4, -1e8, 1e4])
def test_the_natural_head_has_a_slope_far_out_too(raw: float) -> None:
    output = torch.tensor([[0.0, raw]], requires_grad=True)
    moments(output)[0, 1].backward()
    assert output.grad is not None
    assert float(output.grad[0, 1]) < 0


def test_a_variance_that_is_given_is_not_bent() -> None:
    wide = Gaussian(torch.zeros(1, 1), torch.full((1, 1), 30.0))
    assert float(wide.var) == pytest.approx(math.exp(30.0), rel=1e-5)
    assert float(Gaussian.point(torch.zeros(1, 1)).var) == 0
