"""Transforms of targets: closed forms against integrals, and properties of the distribution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from extracurricular.data.transform import NAMES, Rule, Transform, load_transform
from extracurricular.data.transformed import Transformed, inner_of, metadata_of, transform_of
from extracurricular.distributions import Gaussian, concatenate, epistemic, mixture
from extracurricular.evaluation import metrics

RULES = [Rule("log", 0.1), Rule("asinh", 3.0), Rule("asinh", 0.01)]
MOMENTS = [(0.0, 1.0), (1.3, 0.4), (-2.0, 0.05), (0.7, 1.8)]
BOTH = pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.name}-{rule.unit}")
AT = pytest.mark.parametrize(("mean", "deviation"), MOMENTS)

means = st.floats(-6, 6)
deviations = st.floats(0.01, 2.5)


def made(rule: Rule, mean: float, deviation: float) -> Transformed:
    """One target whose transform has this mean and deviation."""
    inner = Gaussian(torch.tensor([[mean]]), torch.tensor([[2 * math.log(deviation)]]))
    return Transformed.of(inner, Transform((rule,)))


def grid(mean: float, deviation: float) -> tuple[Tensor, Tensor]:
    """Values of the transform, and their weights under its normal law, which sum to 1."""
    u = torch.linspace(-11, 11, 200_001, dtype=torch.float64)
    weight = torch.exp(-0.5 * u.square())
    return mean + deviation * u, weight / weight.sum()


@BOTH
@AT
def test_moments_are_those_of_an_integral(rule: Rule, mean: float, deviation: float) -> None:
    z, weight = grid(mean, deviation)
    y = rule.undo(z)
    first = float((weight * y).sum())
    second = float((weight * (y - first).square()).sum())
    found = made(rule, mean, deviation)
    size = max(abs(first), math.sqrt(second))
    assert float(found.mean) == pytest.approx(first, abs=2e-6 * size)
    assert float(found.std) == pytest.approx(math.sqrt(second), rel=2e-6)


@BOTH
@AT
def test_the_score_is_that_of_an_integral(rule: Rule, mean: float, deviation: float) -> None:
    z, _ = grid(mean, deviation)
    y = rule.undo(z)
    cdf = 0.5 * (1 + torch.erf((z - mean) / deviation / math.sqrt(2)))
    found = made(rule, mean, deviation)
    for place in (0.03, 0.4, 0.97):
        truth = y[int(place * len(y) * 0.3 + 0.35 * len(y))]
        inside = (cdf - (y >= truth).double()).square()
        wanted = float(torch.trapezoid(inside, y))
        got = float(found.crps(truth.view(1, 1)))
        assert got == pytest.approx(wanted, rel=1e-3, abs=1e-6 * float(found.std))


@BOTH
@AT
def test_the_density_is_that_of_the_variable_and_sums_to_one(
    rule: Rule, mean: float, deviation: float
) -> None:
    u = torch.linspace(-8, 8, 20_001, dtype=torch.float64)
    y = rule.undo(mean + deviation * u)[:, None]
    inner = Gaussian(
        torch.full((len(y), 1), mean), torch.full((len(y), 1), 2 * math.log(deviation))
    )
    nll = Transformed.of(inner, Transform((rule,))).nll(y).double()
    assert float(torch.trapezoid((-nll).exp(), y[:, 0])) == pytest.approx(1, abs=1e-3)


def test_the_likelihood_of_a_log_normal_is_that_of_its_textbook_form() -> None:
    mean, deviation, y = 0.7, 0.6, 3.2
    wanted = math.log(y * deviation * math.sqrt(2 * math.pi)) + (math.log(y) - mean) ** 2 / (
        2 * deviation**2
    )
    found = made(Rule("log"), mean, deviation).nll(torch.tensor([[y]]))
    assert float(found) == pytest.approx(wanted, rel=1e-6)


@BOTH
@AT
def test_entropy_is_the_mean_likelihood(rule: Rule, mean: float, deviation: float) -> None:
    z, weight = grid(mean, deviation)
    y = rule.undo(z)[:, None]
    inner = Gaussian(
        torch.full((len(y), 1), mean), torch.full((len(y), 1), 2 * math.log(deviation))
    )
    nll = Transformed.of(inner, Transform((rule,))).nll(y).double()
    inside = weight > 1e-20
    mean_nll = float((nll * weight)[inside].sum())
    assert float(made(rule, mean, deviation).entropy()) == pytest.approx(mean_nll, abs=2e-4)


@pytest.mark.parametrize(("deviation", "most"), [(0.5, 1e-6), (2.0, 1e-6), (6.0, 1e-2)])
def test_the_quadrature_of_the_entropy_errs_no_more_than_it_says(
    deviation: float, most: float
) -> None:
    z, weight = grid(0.3, deviation)
    exact = float((weight * torch.cosh(z.clamp(-300, 300)).log()).sum())
    mean, width = (torch.tensor([[v]], dtype=torch.float64) for v in (0.3, deviation))
    found = float(Rule("asinh", 1.0).log_stretch(mean, width))
    assert found == pytest.approx(exact, abs=most)


@given(st.sampled_from(RULES), means, deviations)
@settings(deadline=None, max_examples=60)
def test_moments_are_found_again(rule: Rule, mean: float, deviation: float) -> None:
    one = [torch.tensor([[v]], dtype=torch.float64) for v in (mean, deviation**2)]
    first, log_var = rule.moments(*one)
    if rule.name == "log" and float(first) < rule.unit:
        return  # the least mean that a teacher's answer may have
    back = rule.matched(first, log_var.exp())
    assert float(back[0]) == pytest.approx(mean, abs=1e-6)
    assert float(back[1]) == pytest.approx(deviation**2, rel=1e-6)


@given(st.sampled_from(RULES), means, deviations, st.floats(0.05, 0.95))
@settings(deadline=None, max_examples=60)
def test_intervals_hold_their_mass(rule: Rule, mean: float, deviation: float, mass: float) -> None:
    found = made(rule, mean, deviation)
    low, high = found.interval(mass)
    assert float(low) < float(found.median) < float(high)
    ends = [float(rule.apply(end.double())) for end in (low, high)]
    held = [0.5 * math.erfc((mean - end) / deviation / math.sqrt(2)) for end in ends]
    assert held[1] - held[0] == pytest.approx(mass, abs=1e-3)


@given(st.sampled_from(RULES), st.floats(1e-3, 1e6))
@settings(deadline=None, max_examples=60)
def test_a_transform_is_undone(rule: Rule, y: float) -> None:
    value = torch.tensor([[y]], dtype=torch.float64)
    assert float(rule.undo(rule.apply(value))) == pytest.approx(y, rel=1e-9)
    step = value * 1e-5
    slope = (rule.apply(value + step) - rule.apply(value - step)) / (2 * step)
    assert float(rule.log_slope(value)) == pytest.approx(math.log(float(slope)), abs=1e-5)


@given(st.sampled_from(RULES), means, deviations, means, deviations)
@settings(deadline=None, max_examples=40)
def test_divergences_do_not_depend_on_units(
    rule: Rule, a: float, b: float, c: float, d: float
) -> None:
    one, other = made(rule, a, b), made(rule, c, d)
    assert torch.equal(one.kl(other), one.inner.kl(other.inner))
    assert torch.equal(one.js(other), one.inner.js(other.inner))
    assert float(one.kl(one)) == 0


def test_a_score_is_proper_and_zero_for_a_known_label() -> None:
    y = torch.tensor([[4.0]])
    for rule in RULES:
        sure = made(rule, float(rule.apply(y)), 1e-4)
        off = made(rule, float(rule.apply(y)) + 0.5, 1e-4)
        assert 0 <= float(sure.crps(y)) < 1e-3
        assert float(off.crps(y)) == pytest.approx(abs(float(off.mean) - 4), rel=1e-2)


def test_a_label_that_cannot_be_has_no_density() -> None:
    found = made(Rule("log"), 0.0, 1.0)
    assert float(found.nll(torch.tensor([[-1.0]]))) == math.inf
    assert float(found.nll(torch.tensor([[0.0]]))) == math.inf
    assert math.isfinite(float(found.crps(torch.tensor([[-1.0]]))))


def test_extreme_answers_stay_finite() -> None:
    for rule in RULES:
        for mean in (-500.0, 0.0, 500.0):
            for log_var in (-60.0, 0.0, 60.0):
                inner = Gaussian(torch.tensor([[mean]]), torch.tensor([[log_var]]))
                found = Transformed.of(inner, Transform((rule,)))
                ends = [*found.interval(0.9), found.mean, found.std, found.log_var]
                ends += [found.entropy(), found.crps(torch.tensor([[1.0]]))]
                assert all(bool(torch.isfinite(end).all()) for end in ends), (rule, mean, log_var)


def several() -> Transformed:
    torch.manual_seed(0)
    rules = (Rule("log", 0.1), Rule("none"), Rule("asinh", 2.0))
    return Transformed.of(Gaussian(torch.randn(9, 3), 0.3 * torch.randn(9, 3)), Transform(rules))


def test_targets_of_different_transforms_are_their_own() -> None:
    whole = several()
    y = whole.median * 1.1
    alone = [
        Transformed.of(
            Gaussian(whole.inner.mean[:, k : k + 1], whole.inner.log_var[:, k : k + 1]),
            whole.transform.of_output(k),
        )
        for k in range(3)
    ]
    for k, one in enumerate(alone):
        assert torch.equal(whole.mean[:, k : k + 1], one.mean)
        assert torch.equal(whole.crps(y)[:, k : k + 1], one.crps(y[:, k : k + 1]))
    total = torch.stack([one.nll(y[:, k : k + 1]) for k, one in enumerate(alone)]).sum(0)
    assert torch.allclose(whole.nll(y), total, atol=1e-5)
    plain = Gaussian(whole.inner.mean[:, 1:2], whole.inner.log_var[:, 1:2])
    assert torch.allclose(alone[1].crps(y[:, 1:2]), metrics.crps(plain, y[:, 1:2]), atol=1e-6)
    assert torch.allclose(alone[1].nll(y[:, 1:2]), plain.nll(y[:, 1:2]))


def test_parts_are_joined_again() -> None:
    whole = several()
    joined = concatenate([whole[:4], whole[4:]])
    assert isinstance(joined, Transformed)
    for name in ("mean", "log_var", "parameters"):
        assert torch.equal(getattr(joined, name), getattr(whole, name))


def test_a_mixture_is_one_of_the_transforms_and_disagreement_is_in_units() -> None:
    a, b = several(), several()[torch.arange(8, -1, -1)]
    found = mixture([a, b])
    assert isinstance(found, Transformed)
    inner = Gaussian.mixture([a.inner, b.inner])
    assert torch.equal(found.parameters, inner.parameters)
    assert torch.allclose(epistemic([a, b]), torch.stack([a.mean, b.mean]).var(0, correction=0))


def test_an_answer_in_units_keeps_its_moments() -> None:
    mean = torch.tensor([[3.0, -2.0, 40.0]])
    given_ = Gaussian(mean, torch.tensor([[1.0, 2.0, 3.0]]))
    inner = inner_of(given_, several().transform)
    found = Transformed.of(inner, several().transform)
    assert torch.allclose(found.mean, mean, rtol=1e-5)
    assert torch.allclose(found.log_var, given_.log_var, atol=1e-5)


def test_an_answer_below_what_a_log_may_have_becomes_the_least() -> None:
    transform = Transform((Rule("log", 0.25),))
    inner = inner_of(Gaussian(torch.tensor([[-3.0]]), torch.tensor([[-2.0]])), transform)
    assert float(Transformed.of(inner, transform).mean) == pytest.approx(0.25, rel=1e-5)


def test_monte_carlo_agrees_with_every_figure() -> None:
    found = several()
    generator = torch.Generator().manual_seed(1)
    draws = torch.randn(400_000, 9, 3, generator=generator)
    y = found.transform.undo(found.inner.mean + found.inner.std * draws)
    error = found.std / math.sqrt(len(y)) * 6
    assert bool(((y.mean(0) - found.mean).abs() < error + 1e-4).all())
    low, high = found.interval(0.5)
    held = ((y >= low) & (y <= high)).float().mean(0)
    assert bool(((held - 0.5).abs() < 0.006).all())
    truth = found.median
    apart = (y - truth).abs().mean(0) - 0.5 * (y[:200_000] - y[200_000:]).abs().mean(0)
    assert bool(((apart - found.crps(truth)).abs() < error).all())


@pytest.mark.parametrize(
    "damaged",
    [[], [{"name": "log"}], [{"name": "sqrt", "unit": 1.0}], [{"name": "log", "unit": 0}], 3],
)
def test_a_damaged_transform_is_refused(damaged: Any) -> None:
    with pytest.raises(ValueError, match="transform of the target is damaged"):
        load_transform(damaged)


def test_a_transform_is_kept_to_the_last_bit() -> None:
    transform = Transform((Rule("asinh", np.pi / 7), Rule("log", 1 / 3), Rule("none")))
    assert load_transform(transform.dump()) == transform
    assert transform_of(metadata_of(transform)) == transform
    assert metadata_of(None) == {}
    assert transform_of({}) is None
    assert {rule.name for rule in transform.rules} == set(NAMES)
