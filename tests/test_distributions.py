"""Distributions: closed forms, laws that hold for any input, and no NaN at the edge of a float."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch import distributions as td

from extracurricular.distributions import (
    Categorical,
    Gaussian,
    Task,
    concatenate,
    epistemic,
    mixture,
)

HALVES = [torch.float16, torch.bfloat16]
FLOATS = [torch.float32, *HALVES]
LOG_2 = math.log(2)

real = st.floats(-20, 20, width=32)
log_variance = st.floats(-12, 12, width=32)


def rows(element: st.SearchStrategy[float], least: int = 1) -> st.SearchStrategy[list[list[float]]]:
    """Two vectors of the same length."""
    return st.integers(least, 6).flatmap(
        lambda n: st.lists(st.lists(element, min_size=n, max_size=n), min_size=2, max_size=2)
    )


def categorical_pair(seed: int = 0, count: int = 50, classes: int = 7) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, count, classes, generator=g, dtype=torch.float64) * 3
    return a, b


def gaussian_pair(seed: int = 0, count: int = 50, outputs: int = 3) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return list(torch.randn(4, count, outputs, generator=g, dtype=torch.float64) * 1.5)


def normal(mean: Tensor, log_var: Tensor) -> td.Normal:
    return td.Normal(mean.double(), (0.5 * log_var.double()).exp())


def close(got: Tensor, expected: Tensor, rtol: float = 1e-5, atol: float = 1e-5) -> None:
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected.double(), rtol=rtol, atol=atol)


# Against torch.distributions


def test_categorical_is_the_one_of_torch() -> None:
    a, b = categorical_pair()
    p, q = Categorical(a.float()), Categorical(b.float())
    reference_p, reference_q = td.Categorical(logits=a), td.Categorical(logits=b)
    y = torch.arange(len(a)) % a.shape[1]
    close(p.entropy(), reference_p.entropy())
    close(p.nll(y), -reference_p.log_prob(y))
    close(p.kl(q), td.kl_divergence(reference_p, reference_q))
    close(p.probs, reference_p.probs)
    close(p.mean, reference_p.probs)
    middle = td.Categorical(probs=(reference_p.probs + reference_q.probs) / 2)
    js = 0.5 * (td.kl_divergence(reference_p, middle) + td.kl_divergence(reference_q, middle))
    close(p.js(q), js)
    assert torch.equal(p.parameters, p.logits)


def test_gaussian_is_the_one_of_torch() -> None:
    mean, log_var, other_mean, other_log_var = gaussian_pair()
    p = Gaussian(mean.float(), log_var.float())
    q = Gaussian(other_mean.float(), other_log_var.float())
    reference_p, reference_q = normal(mean, log_var), normal(other_mean, other_log_var)
    close(p.entropy(), reference_p.entropy().sum(-1))
    close(p.nll(other_mean), -reference_p.log_prob(other_mean).sum(-1))
    close(p.kl(q), td.kl_divergence(reference_p, reference_q).sum(-1))
    close(p.var, reference_p.variance)
    close(p.std, reference_p.stddev)
    assert torch.equal(p.parameters, torch.cat([p.mean, p.log_var], 1))
    again = Gaussian.from_output(p.parameters)
    assert torch.equal(again.mean, p.mean)
    assert torch.equal(again.log_var, p.log_var)


def test_closed_forms() -> None:
    uniform = Categorical(torch.full((1, 8), 3.0))
    assert float(uniform.entropy()) == pytest.approx(math.log(8), rel=1e-6)
    assert float(uniform.nll(torch.tensor([5]))) == pytest.approx(math.log(8), rel=1e-6)
    coin = Categorical.from_probs(torch.tensor([[0.25, 0.75]]))
    fair = Categorical.from_probs(torch.tensor([[0.5, 0.5]]))
    assert float(coin.kl(fair)) == pytest.approx(
        0.25 * math.log(0.5) + 0.75 * math.log(1.5), rel=1e-5
    )
    standard = Gaussian(torch.zeros(1, 2), torch.zeros(1, 2))
    assert float(standard.entropy()) == pytest.approx(math.log(2 * math.pi * math.e), rel=1e-6)
    assert float(standard.nll(torch.zeros(1, 2))) == pytest.approx(math.log(2 * math.pi), rel=1e-6)
    shifted = Gaussian(torch.full((1, 2), 3.0), torch.zeros(1, 2))
    assert float(standard.kl(shifted)) == pytest.approx(9, rel=1e-6)  # 2 · 3² / 2
    wide = Gaussian(torch.zeros(1, 1), torch.full((1, 1), math.log(4)))
    narrow = Gaussian(torch.zeros(1, 1), torch.zeros(1, 1))
    assert float(wide.kl(narrow)) == pytest.approx(0.5 * (4 - 1 - math.log(4)), rel=1e-6)


def test_distances_of_gaussians_in_closed_form() -> None:
    def of(mean: float, deviation: float) -> Gaussian:
        log_var = -math.inf if deviation == 0 else 2 * math.log(deviation)
        return Gaussian(torch.tensor([[mean]]), torch.tensor([[log_var]]))

    assert float(of(1, 2).wasserstein(of(4, 6))) == pytest.approx(3**2 + 4**2, rel=1e-6)
    assert float(of(1, 0).wasserstein(of(4, 2))) == pytest.approx(3**2 + 2**2, rel=1e-6)
    # Equal deviations and means, equal means, two points, and one point at the mean.
    assert float(of(1, 2).energy(of(1, 2))) == 0
    spread = 2 * (math.sqrt(2) * math.hypot(1, 3) - 1 - 3) / math.sqrt(math.pi)
    assert float(of(7, 1).energy(of(7, 3))) == pytest.approx(spread, rel=1e-5)
    assert float(of(1, 0).energy(of(4, 0))) == pytest.approx(2 * 3, rel=1e-6)
    assert float(of(4, 0).energy(of(4, 0))) == 0
    at_mean = 2 * 3 * (math.sqrt(2) - 1) / math.sqrt(math.pi)
    assert float(of(2, 0).energy(of(2, 3))) == pytest.approx(at_mean, rel=1e-5)


def test_the_energy_distance_from_a_label_is_twice_the_ranked_probability_score() -> None:
    mean, log_var, y, _ = gaussian_pair()
    z = (y - mean) / (0.5 * log_var).exp()
    unit = td.Normal(0.0, 1.0)
    bulge = 2 * unit.log_prob(z).exp() - 1 / math.sqrt(math.pi)
    score = (0.5 * log_var).exp() * (z * (2 * unit.cdf(z) - 1) + bulge)
    found = Gaussian.point(y.float()).energy(Gaussian(mean.float(), log_var.float()))
    close(found, 2 * score.sum(-1), rtol=1e-5, atol=1e-5)


def test_the_energy_distance_is_that_of_draws() -> None:
    mean, log_var, other_mean, other_log_var = gaussian_pair(count=6, outputs=1)
    p, q = normal(mean, log_var), normal(other_mean, other_log_var)
    g = torch.Generator().manual_seed(0)
    x, x2, y, y2 = torch.randn(4, 200_000, 6, 1, generator=g, dtype=torch.float64)
    x, x2 = (p.mean + p.stddev * v for v in (x, x2))
    y, y2 = (q.mean + q.stddev * v for v in (y, y2))
    each = (x - y).abs() + (x2 - y2).abs() - (x - x2).abs() - (y - y2).abs()
    error = each.std(0) / math.sqrt(len(each))
    found = Gaussian(mean.float(), log_var.float()).energy(
        Gaussian(other_mean.float(), other_log_var.float())
    )
    assert bool(((found.double() - each.mean(0).sum(-1)).abs() < 5 * error.sum(-1)).all())


@given(rows(real), rows(log_variance))
def test_distances_of_gaussians_are_distances(
    means: list[list[float]], log_vars: list[list[float]]
) -> None:
    width = min(len(means[0]), len(log_vars[0]))
    p, q = (
        Gaussian(torch.tensor([m[:width]]), torch.tensor([v[:width]]))
        for m, v in zip(means, log_vars, strict=True)
    )
    for name in ("wasserstein", "energy"):
        forth, back = (float(getattr(a, name)(b)) for a, b in ((p, q), (q, p)))
        assert forth == back
        assert forth >= 0
        assert float(getattr(p, name)(p)) == 0
        away = (p.mean - q.mean).abs().max() > 0.01 or (p.std - q.std).abs().max() > 0.01
        assert not away or forth > 0
        # Distances do not feel a shift, and grow with the scale.
        scale = torch.tensor(3.0)
        moved = [d.scaled(scale, torch.tensor(0.0)) for d in (p, q)]
        power = 2 if name == "wasserstein" else 1
        expected = forth * 3**power
        assert float(getattr(moved[0], name)(moved[1])) == pytest.approx(
            expected, rel=1e-3, abs=1e-4
        )


def test_small_energy_distances_keep_their_digits() -> None:
    for step in (1e-1, 1e-2, 1e-3):
        p = Gaussian(torch.zeros(1, 2), torch.zeros(1, 2))
        q = Gaussian(torch.tensor([[step, 0.0]]), torch.tensor([[0.0, step]]))
        # To second order δ² / (√π σ) for the mean, and (σ - σ')² / (2 √π σ) for the spread.
        moved = step**2 / math.sqrt(math.pi)
        spread = math.expm1(step / 2) ** 2 / (2 * math.sqrt(math.pi))
        assert float(p.energy(q)) == pytest.approx(moved + spread, rel=0.05 * math.sqrt(step))


def test_outputs_may_be_weighed() -> None:
    mean, log_var, other_mean, other_log_var = (v.float() for v in gaussian_pair())
    p, q = Gaussian(mean, log_var), Gaussian(other_mean, other_log_var)
    one = torch.ones_like(mean)
    assert torch.equal(p.nll(other_mean, one), p.nll(other_mean))
    assert torch.equal(p.kl(q, one), p.kl(q))
    weight = torch.tensor([2.0, 0.0, 0.5]).expand_as(mean)
    parts = [Gaussian(mean[:, k : k + 1], log_var[:, k : k + 1]) for k in range(3)]
    others = [Gaussian(other_mean[:, k : k + 1], other_log_var[:, k : k + 1]) for k in range(3)]
    close(p.kl(q, weight), 2 * parts[0].kl(others[0]) + 0.5 * parts[2].kl(others[2]))
    close(p.var_to(0.5), p.std)
    close(p.var_to(1.0), p.var)
    assert torch.equal(p.var_to(0.0), one)
    assert not Gaussian(mean, log_var.requires_grad_()).var_to(0.5).requires_grad


def test_sums_over_outputs_and_keeps_examples_apart() -> None:
    mean, log_var, other_mean, other_log_var = (v.float() for v in gaussian_pair())
    p, q = Gaussian(mean, log_var), Gaussian(other_mean, other_log_var)
    columns = [
        (
            Gaussian(mean[:, k : k + 1], log_var[:, k : k + 1]),
            Gaussian(other_mean[:, k : k + 1], other_log_var[:, k : k + 1]),
        )
        for k in range(mean.shape[1])
    ]
    assert p.kl(q).shape == (len(p),)
    close(p.kl(q), sum(a.kl(b) for a, b in columns))  # type: ignore[arg-type]
    close(p.js(q), sum(a.js(b) for a, b in columns))  # type: ignore[arg-type]
    close(p.entropy(), sum(a.entropy() for a, _ in columns))  # type: ignore[arg-type]
    close(p.wasserstein(q), sum(a.wasserstein(b) for a, b in columns))  # type: ignore[arg-type]
    close(p.energy(q), sum(a.energy(b) for a, b in columns))  # type: ignore[arg-type]


def test_nll_of_soft_labels_is_cross_entropy() -> None:
    a, b = categorical_pair()
    soft = b.softmax(-1)
    close(Categorical(a.float()).nll(soft.float()), F.cross_entropy(a, soft, reduction="none"))
    y = torch.arange(len(a)) % a.shape[1]
    q = Categorical(a.float())
    torch.testing.assert_close(q.nll(y), q.nll(F.one_hot(y, a.shape[1])))
    torch.testing.assert_close(q.nll(y), q.nll(y.to(torch.uint8)))


def test_gradient_of_kl_is_the_difference_of_probabilities() -> None:
    a, b = categorical_pair()
    student = b.float().requires_grad_()
    Categorical(a.float()).kl(Categorical(student)).sum().backward()
    assert student.grad is not None
    close(student.grad, b.softmax(-1) - a.softmax(-1), atol=1e-6)


def test_gradient_of_gaussian_kl_is_the_closed_form() -> None:
    mean, log_var, other_mean, other_log_var = gaussian_pair()
    m, v = other_mean.float().requires_grad_(), other_log_var.float().requires_grad_()
    Gaussian(mean.float(), log_var.float()).kl(Gaussian(m, v)).sum().backward()
    assert m.grad is not None
    assert v.grad is not None
    precision = (-other_log_var).exp()
    close(m.grad, (other_mean - mean) * precision, rtol=1e-4)
    expected = 0.5 * (1 - (log_var.exp() + (mean - other_mean) ** 2) * precision)
    close(v.grad, expected, rtol=1e-4, atol=1e-4)


# Laws, for any input


@given(rows(real))
@settings(max_examples=100, deadline=None)
def test_laws_of_categorical(pair: list[list[float]]) -> None:
    a, b = torch.tensor(pair).unsqueeze(1)
    p, q = Categorical(a), Categorical(b)
    assert float(p.kl(q)) >= -1e-5
    assert float(p.kl(Categorical(a + 3))) == pytest.approx(0, abs=1e-5)  # a shift is nothing
    close(p.kl(q), q_reference(a, b), atol=2e-5)
    distance = float((p.probs - q.probs).abs().sum())
    # Pinsker's inequality: equal in the limit only if the distributions are.
    assert float(p.kl(q)) >= 0.5 * distance**2 - 1e-5
    assert float(p.js(q)) == pytest.approx(float(q.js(p)), abs=1e-6)
    assert -1e-6 <= float(p.js(q)) <= LOG_2 + 1e-6
    assert float(p.js(q)) >= 0.125 * distance**2 - 1e-5
    assert float(p.js(p)) == pytest.approx(0, abs=1e-6)
    assert -1e-6 <= float(p.entropy()) <= math.log(a.shape[1]) + 1e-5
    close(p.probs.sum(-1), torch.ones(1))
    members = [p, q]
    disagreement = float(epistemic(members))
    assert 0 <= disagreement <= LOG_2 + 1e-5
    # With two members, mutual information is the Jensen-Shannon divergence.
    assert disagreement == pytest.approx(float(p.js(q)), abs=1e-5)
    close(mixture(members).mean, (p.probs + q.probs) / 2)


def q_reference(a: Tensor, b: Tensor) -> Tensor:
    return td.kl_divergence(td.Categorical(logits=a.double()), td.Categorical(logits=b.double()))


@given(rows(real), rows(log_variance))
@settings(max_examples=100, deadline=None)
def test_laws_of_gaussian(means: list[list[float]], log_vars: list[list[float]]) -> None:
    width = min(len(means[0]), len(log_vars[0]))
    m = torch.tensor(means)[:, None, :width]
    v = torch.tensor(log_vars)[:, None, :width]
    p, q = Gaussian(m[0], v[0]), Gaussian(m[1], v[1])
    expected = td.kl_divergence(normal(m[0], v[0]), normal(m[1], v[1])).sum(-1)
    close(p.kl(q), expected, rtol=1e-4)
    assert float(p.kl(q)) >= -1e-6
    assert float(p.kl(p)) == 0
    assert float(p.js(p)) == pytest.approx(0, abs=1e-5)
    assert float(p.js(q)) >= -1e-5
    assert float(p.js(q)) == pytest.approx(float(q.js(p)), rel=1e-5, abs=1e-5)
    if not torch.equal(m[0], m[1]) and float((m[0] - m[1]).abs().max()) > 0.1:
        z = (m[0] - m[1]).square() / (p.var + q.var)
        assert float(p.kl(q)) > 0
        assert float(p.js(q)) >= 0.5 * float(torch.log1p(z / 2).sum()) * 0.99 - 1e-5


@given(st.floats(-1, 1), st.floats(-1, 1))
@settings(max_examples=50, deadline=None)
def test_divergence_of_gaussians_is_zero_only_where_they_are_equal(dm: float, dv: float) -> None:
    zero = torch.zeros(1, 1)
    p, q = Gaussian(zero, zero), Gaussian(torch.full((1, 1), dm), torch.full((1, 1), dv))
    size = max(abs(dm), abs(dv))
    if size > 0.01:
        assert float(p.kl(q)) > 1e-6
        assert float(p.js(q)) > 1e-6
    else:
        assert float(p.kl(q)) == pytest.approx(0, abs=1e-3)
        assert float(p.js(q)) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("difference", [1e-2, 1e-3])
def test_kl_of_nearly_equal_gaussians_keeps_its_digits(difference: float) -> None:
    zero = torch.zeros(1, 1)
    p, q = Gaussian(zero, torch.full((1, 1), difference)), Gaussian(zero, zero)
    d = float(torch.tensor(difference))
    assert float(p.kl(q)) == pytest.approx(0.5 * (math.expm1(d) - d), rel=1e-3)


@given(st.floats(-5, 5), st.floats(-4, 4), st.floats(-4, 4))
@settings(max_examples=60, deadline=None)
def test_js_of_gaussians_bounds_the_exact_one(shift: float, a: float, b: float) -> None:
    deviations = math.exp(a / 2), math.exp(b / 2)
    reach = 12 * max(deviations)
    y = np.linspace(min(0, shift) - reach, max(0, shift) + reach, 40_001)
    log_p, log_q = (
        -0.5 * ((y - m) / s) ** 2 - math.log(s) - 0.5 * math.log(2 * math.pi)
        for m, s in zip((0.0, shift), deviations, strict=True)
    )
    log_middle = np.logaddexp(log_p, log_q) - LOG_2
    terms = np.exp(log_p) * (log_p - log_middle) + np.exp(log_q) * (log_q - log_middle)
    exact = 0.5 * float(np.trapezoid(terms, y))
    p = Gaussian(torch.zeros(1, 1), torch.full((1, 1), a))
    q = Gaussian(torch.full((1, 1), shift), torch.full((1, 1), b))
    assert exact <= LOG_2 + 1e-4
    assert float(p.js(q)) >= exact - 1e-4


@pytest.mark.parametrize("shift", [-1000.0, 0.5, 1000.0])
def test_a_shift_of_logits_changes_nothing(shift: float) -> None:
    a, b = (v.float() for v in categorical_pair())
    p, q = Categorical(a), Categorical(b)
    moved = Categorical(a + shift)
    close(moved.probs, p.probs, atol=1e-3, rtol=1e-3)
    close(moved.kl(q), p.kl(q), atol=1e-3, rtol=1e-3)
    close(moved.entropy(), p.entropy(), atol=1e-3, rtol=1e-3)


# Temperature


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 2.0, 20.0])
def test_tempering_takes_the_density_to_a_power_and_normalises(temperature: float) -> None:
    a, _ = categorical_pair()
    tempered = Categorical(a.float()).tempered(temperature)
    power = a.softmax(-1) ** (1 / temperature)
    close(tempered.probs, power / power.sum(-1, keepdim=True))
    close(tempered.probs, (a / temperature).softmax(-1))

    mean, log_var, y, z = (v.float() for v in gaussian_pair())
    p = Gaussian(mean, log_var)
    hot = p.tempered(temperature)
    # Ratios of densities need no normalisation.
    close(hot.nll(y) - hot.nll(z), (p.nll(y) - p.nll(z)) / temperature, rtol=1e-3, atol=1e-3)
    # And the density still integrates to 1.
    one = Gaussian(mean[:1, :1], log_var[:1, :1]).tempered(temperature)
    grid = one.mean + one.std * torch.linspace(-10, 10, 4001).unsqueeze(1)
    density = (-Gaussian(one.mean.expand(4001, 1), one.log_var.expand(4001, 1)).nll(grid)).exp()
    assert float(torch.trapezoid(density, grid[:, 0])) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("dtype", HALVES)
def test_tempering_a_half_precision_gaussian_is_done_in_single(dtype: torch.dtype) -> None:
    log_var = torch.linspace(-9, 9, 37).unsqueeze(1).to(dtype)
    p = Gaussian(torch.zeros_like(log_var), log_var)
    close(p.tempered(3.0).var, log_var.double().exp() * 3.0)


def test_tempering_keeps_points_and_extreme_temperatures_finite() -> None:
    point = Gaussian.point(torch.ones(2, 3))
    assert bool((point.tempered(4.0).var == 0).all())
    for temperature in (1e-30, 1e-6, 1e6, 1e30):
        q = Categorical(torch.tensor([[1.0, -2.0, 3e4]])).tempered(temperature)
        assert bool(torch.isfinite(q.log_probs).all())
        assert bool(torch.isfinite(q.entropy()).all())
        g = Gaussian(torch.zeros(1, 1), torch.zeros(1, 1)).tempered(temperature)
        assert bool(torch.isfinite(g.nll(torch.ones(1, 1))).all())


# Points


def test_labels_as_points() -> None:
    _, b = categorical_pair()
    q = Categorical(b.float())
    y = torch.arange(len(b)) % b.shape[1]
    one_hot = Categorical.from_probs(F.one_hot(y, b.shape[1]).float())
    torch.testing.assert_close(one_hot.kl(q), q.nll(y))
    assert bool((one_hot.entropy().abs() < 1e-6).all())
    soft = b.flip(0).softmax(-1).float()
    close(Categorical.from_probs(soft).probs, soft)

    mean, log_var, target, _ = (v.float() for v in gaussian_pair())
    g = Gaussian(mean, log_var)
    point = Gaussian.point(target)
    torch.testing.assert_close(point.kl(g), g.nll(target))
    assert bool((point.var == 0).all())
    assert bool((point.std == 0).all())
    assert bool((point.entropy() == 0).all())


def test_a_point_gives_the_student_the_gradient_of_its_nll() -> None:
    mean, log_var, target, _ = (v.float() for v in gaussian_pair())
    gradients = []
    for loss in (
        lambda q: Gaussian.point(target).kl(q),
        lambda q: q.nll(target),
    ):
        m, v = mean.clone().requires_grad_(), log_var.clone().requires_grad_()
        loss(Gaussian(m, v)).sum().backward()
        gradients.append((m.grad, v.grad))
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("extreme", [1e4, 1e30, math.inf])
def test_a_one_hot_label_against_a_sure_student(extreme: float) -> None:
    logits = torch.tensor([[extreme, -extreme, 0.0]] * 3)
    q = Categorical(logits)
    y = torch.arange(3)
    kl = Categorical.from_probs(F.one_hot(y, 3).float()).kl(q)
    assert bool(torch.isfinite(kl).all())
    torch.testing.assert_close(kl, q.nll(y))
    assert float(kl[0]) == pytest.approx(0, abs=1e-6)


# Scale


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_scaling_is_a_change_of_variables(sign: float) -> None:
    mean, log_var, y, other_log_var = (v.float() for v in gaussian_pair())
    scale, shift = sign * torch.tensor([0.1, 2.0, 30.0]), torch.tensor([5.0, 0.0, -7.0])
    p, q = Gaussian(mean, log_var), Gaussian(y, other_log_var)
    a, b = p.scaled(scale, shift), q.scaled(scale, shift)
    jacobian = scale.abs().log().sum()
    close(a.nll(y * scale + shift), p.nll(y) + jacobian, rtol=1e-3, atol=1e-3)
    close(a.entropy(), p.entropy() + jacobian)
    close(a.kl(b), p.kl(q), rtol=1e-3, atol=1e-3)
    close(a.js(b), p.js(q), rtol=1e-3, atol=1e-4)
    close(a.mean, mean * scale + shift)
    close(a.std, p.std * scale.abs())
    assert bool((Gaussian.point(y).scaled(scale, shift).var == 0).all())


@pytest.mark.parametrize("mass", [0.5, 0.9, 0.99])
def test_an_interval_holds_its_mass(mass: float) -> None:
    mean, log_var, _, _ = (v.float() for v in gaussian_pair())
    p = Gaussian(mean, log_var)
    low, high = p.interval(mass)
    reference = normal(mean, log_var)
    held = reference.cdf(high.double()) - reference.cdf(low.double())
    torch.testing.assert_close(held, torch.full_like(held, mass), rtol=1e-4, atol=1e-5)
    close((low + high) / 2, mean)


# Ensembles


def test_mixture_averages_probabilities_not_logits() -> None:
    a = Categorical.from_probs(torch.tensor([[0.9, 0.1]]))
    b = Categorical.from_probs(torch.tensor([[0.5, 0.5]]))
    close(mixture([a, b]).mean, torch.tensor([[0.7, 0.3]]))
    logits_averaged = Categorical((a.logits + b.logits) / 2).probs
    assert float((logits_averaged - mixture([a, b]).mean).abs().max()) > 0.02
    # Logits that differ by a constant are the same member.
    moved = Categorical(a.logits + 50)
    close(mixture([moved, b]).mean, torch.tensor([[0.7, 0.3]]), atol=1e-4)


def test_mixture_of_gaussians_has_the_moments_of_the_mixture() -> None:
    g = torch.Generator().manual_seed(3)
    means = torch.randn(5, 4, 2, generator=g) * 2
    log_vars = torch.randn(5, 4, 2, generator=g)
    members = [Gaussian(m, v) for m, v in zip(means, log_vars, strict=True)]
    got = mixture(members)
    assert isinstance(got, Gaussian)
    second = (log_vars.double().exp() + means.double() ** 2).mean(0)
    expected = second - means.double().mean(0) ** 2
    close(got.mean, means.mean(0))
    close(got.var, expected, rtol=1e-4)
    close(epistemic(members), means.double().var(0, correction=0), rtol=1e-4)
    samples = torch.cat(
        [
            m + (0.5 * v).exp() * torch.randn(40_000, 4, 2, generator=g)
            for m, v in zip(means, log_vars, strict=True)
        ]
    )
    close(got.mean, samples.mean(0), rtol=0, atol=0.05)
    close(got.var, samples.var(0), rtol=0.03)


def test_a_mixture_of_one_is_itself() -> None:
    a, _ = categorical_pair()
    p = Categorical(a.float())
    close(mixture([p]).mean, p.probs)
    mean, log_var, _, _ = (v.float() for v in gaussian_pair())
    single = mixture([Gaussian(mean, log_var)])
    assert isinstance(single, Gaussian)
    close(single.mean, mean)
    close(single.log_var, log_var)
    assert bool((epistemic([Gaussian(mean, log_var)]) == 0).all())


def test_epistemic_uncertainty_is_disagreement() -> None:
    a, _ = categorical_pair()
    same = [Categorical(a.float())] * 4
    assert float(epistemic(same).max()) == pytest.approx(0, abs=1e-5)
    g = torch.Generator().manual_seed(1)
    logits = torch.randn(6, 30, 5, generator=g, dtype=torch.float64) * 4
    members = [Categorical(v.float()) for v in logits]
    probs = logits.softmax(-1)
    total = td.Categorical(probs=probs.mean(0)).entropy()
    expected = total - td.Categorical(probs=probs).entropy().mean(0)
    close(epistemic(members), expected)
    assert float(expected.min()) > 0.01
    # M sure members that all differ: the most there can be, log M.
    sure = [Categorical(torch.eye(4)[k : k + 1] * 200) for k in range(4)]
    assert float(epistemic(sure)) == pytest.approx(math.log(4), rel=1e-6)


def test_ensembles_need_members_of_one_kind() -> None:
    c = Categorical(torch.zeros(2, 3))
    g = Gaussian(torch.zeros(2, 3), torch.zeros(2, 3))
    for function in (mixture, epistemic):
        with pytest.raises(ValueError, match="one or more members"):
            function([])
        with pytest.raises(ValueError, match="all of one family"):
            function([c, g])


# Extreme values


def proper(gradient: Tensor) -> bool:
    """Finite; but a true gradient of 1e17 has no other name than infinity in float16."""
    if gradient.dtype == torch.float16:
        return not bool(gradient.isnan().any())
    return bool(gradient.isfinite().all())


def finite_everywhere(p: Categorical | Gaussian, q: Categorical | Gaussian, y: Tensor) -> None:
    """Check all values, and that their gradients stay finite too."""
    values = {
        "nll": p.nll(y),
        "entropy": p.entropy(),
        "kl": p.kl(q),  # type: ignore[arg-type]
        "reverse kl": q.kl(p),  # type: ignore[arg-type]
        "js": p.js(q),  # type: ignore[arg-type]
        "mixture": mixture([p, q]).nll(y),
        "mixture entropy": mixture([p, q]).entropy(),
        "tempered": p.tempered(3.0).kl(q.tempered(3.0)),  # type: ignore[arg-type]
    }
    if isinstance(p, Gaussian) and isinstance(q, Gaussian):
        values |= {"wasserstein": p.wasserstein(q), "energy": p.energy(q)}
    inputs = [
        v
        for d in (p, q)
        for v in ([d.logits] if isinstance(d, Categorical) else [d.mean, d.log_var])
    ]
    for name, value in values.items():
        assert value.dtype == torch.float32, name
        assert bool(torch.isfinite(value).all()), f"{name}: {value}"
        gradients = torch.autograd.grad(value.mean(), inputs, allow_unused=True, retain_graph=True)
        for gradient in gradients:
            assert gradient is None or proper(gradient), f"{name}: {gradient}"


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("extreme", [1e4, 6.5e4, 1e30, math.inf])
def test_extreme_logits_stay_finite(dtype: torch.dtype, extreme: float) -> None:
    e = min(extreme, torch.finfo(dtype).max) if math.isfinite(extreme) else extreme
    first = [[e, -e, 0.0], [0.0, 0.0, e], [-e, -e, -e], [e, e, e], [e, e, 0.0], [1.0, 2.0, -e]]
    for second in (first[::-1], [[0.0, 1.0, 2.0]] * 6, [[-e, e, 0.0]] * 6):
        p = Categorical(torch.tensor(first, dtype=dtype).requires_grad_())
        q = Categorical(torch.tensor(second, dtype=dtype).requires_grad_())
        for y in (torch.tensor([0, 1, 2, 0, 1, 2]), torch.full((6, 3), 1 / 3)):
            finite_everywhere(p, q, y)
        assert bool((p.entropy() >= -1e-6).all())
        assert bool((p.js(q) <= LOG_2 + 1e-6).all())
        assert bool((p.kl(q) >= -1e-6).all())
    assert torch.equal(
        Categorical(torch.tensor([[-e, -e]], dtype=dtype)).probs, torch.full((1, 2), 0.5)
    )


def test_nan_is_not_hidden() -> None:
    assert bool(Categorical(torch.tensor([[math.nan, 0.0]])).entropy().isnan().all())
    zero = torch.zeros(1, 1)
    nan = torch.full((1, 1), math.nan)
    assert bool(Gaussian(nan, zero).nll(zero).isnan().all())
    assert bool(Gaussian(zero, nan).nll(zero).isnan().all())


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("extreme", [50.0, 1e4])
def test_extreme_variances_stay_finite(dtype: torch.dtype, extreme: float) -> None:
    log_vars = [[extreme, -extreme], [-extreme, -extreme], [extreme, extreme], [0.0, extreme]]
    for mean in (0.0, 1e4):
        for other in (log_vars[::-1], [[0.0, 0.0]] * 4, log_vars):
            p = Gaussian(
                torch.zeros(4, 2, dtype=dtype).requires_grad_(),
                torch.tensor(log_vars, dtype=dtype).requires_grad_(),
            )
            q = Gaussian(
                torch.full((4, 2), mean, dtype=dtype).requires_grad_(),
                torch.tensor(other, dtype=dtype).requires_grad_(),
            )
            finite_everywhere(p, q, torch.ones(4, 2))
            assert bool((p.kl(q) >= 0).all())
            assert bool((p.js(q) >= -1e-5).all())


def test_the_largest_half_precision_mean_stays_finite() -> None:
    top = torch.finfo(torch.float16).max
    p = Gaussian(torch.tensor([[top, -top]]).half(), torch.tensor([[-40.0, -1e4]]).half())
    q = Gaussian(torch.tensor([[-top, top]]).half(), torch.tensor([[40.0, -40.0]]).half())
    p = Gaussian(p.mean.requires_grad_(), p.log_var.requires_grad_())
    q = Gaussian(q.mean.requires_grad_(), q.log_var.requires_grad_())
    for value in (p.nll(q.mean.detach()), p.kl(q), q.kl(p), p.js(q), mixture([p, q]).entropy()):
        assert bool(torch.isfinite(value).all())


@pytest.mark.parametrize("dtype", FLOATS)
def test_points_stay_finite_in_every_role(dtype: torch.dtype) -> None:
    y = torch.tensor([[0.0, 3.0]], dtype=dtype)
    mean = torch.tensor([[0.0, -2.0]], dtype=dtype).requires_grad_()
    log_var = torch.tensor([[0.0, 1.0]], dtype=dtype).requires_grad_()
    p, q = Gaussian.point(y), Gaussian(mean, log_var)
    distances = (p.energy(q), q.energy(p), p.energy(p), p.wasserstein(q), q.wasserstein(p))
    likelihoods = (p.kl(q), q.kl(p), p.js(q), p.kl(p), p.nll(y), mixture([p, q]).nll(y))
    for value in (*likelihoods, *distances):
        assert value.dtype == torch.float32
        assert bool(torch.isfinite(value).all())
        if value.requires_grad:
            for gradient in torch.autograd.grad(value.sum(), [mean, log_var], retain_graph=True):
                assert proper(gradient)


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_inputs_are_computed_in_single(dtype: torch.dtype) -> None:
    a, b = (v.to(dtype) for v in categorical_pair())
    p, q = Categorical(a), Categorical(b)
    reference_p, reference_q = td.Categorical(logits=a.double()), td.Categorical(logits=b.double())
    y = torch.arange(len(a)) % a.shape[1]
    close(p.nll(y), -reference_p.log_prob(y))
    close(p.entropy(), reference_p.entropy())
    close(p.kl(q), td.kl_divergence(reference_p, reference_q))
    close(p.tempered(4.0).probs, (a.double() / 4).softmax(-1))
    close(mixture([p, q]).mean, (reference_p.probs + reference_q.probs) / 2)
    close(
        Categorical.from_probs(torch.tensor([[0.25, 0.75]], dtype=dtype)).probs,
        torch.tensor([[0.25, 0.75]]),
    )

    mean, log_var, other_mean, other_log_var = (v.to(dtype) for v in gaussian_pair())
    g, h = Gaussian(mean, log_var), Gaussian(other_mean, other_log_var)
    first, second = normal(mean, log_var), normal(other_mean, other_log_var)
    close(g.nll(other_mean), -first.log_prob(other_mean.double()).sum(-1))
    close(g.entropy(), first.entropy().sum(-1))
    close(g.kl(h), td.kl_divergence(first, second).sum(-1))
    merged = mixture([g, h])
    assert isinstance(merged, Gaussian)
    spread = (mean.double() - other_mean.double()) ** 2 / 4
    close(merged.var, (first.variance + second.variance) / 2 + spread, rtol=1e-4)


# Reading a network's output


def test_a_task_reads_outputs() -> None:
    output = torch.arange(8.0).view(2, 4)
    classes = Task("classification", 4)
    assert classes.outputs == 4
    read = classes.distribution(output)
    assert isinstance(read, Categorical)
    assert torch.equal(read.logits, output)
    reals = Task("regression", 2)
    assert reals.outputs == 4
    g = reals.distribution(output)
    assert isinstance(g, Gaussian)
    assert torch.equal(g.mean, output[:, :2])
    assert torch.equal(g.log_var, output[:, 2:])
    assert len(classes.distribution(output[:0])) == 0


@pytest.mark.parametrize("shape", [(2, 3), (4,), (2, 4, 1), (2, 5)])
def test_a_task_refuses_outputs_of_another_shape(shape: tuple[int, ...]) -> None:
    text = str(shape).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=f"shape {text}; classification needs 4 logits"):
        Task("classification", 4).distribution(torch.zeros(shape))
    with pytest.raises(ValueError, match=f"shape {text}; regression needs 2 means and 2 log var"):
        Task("regression", 2).distribution(torch.zeros(shape))


def test_length_and_indexing() -> None:
    a, b = (v.float() for v in categorical_pair())
    p = Categorical(a)
    mean, log_var, other, _ = (v.float() for v in gaussian_pair())
    g = Gaussian(mean, log_var)
    assert len(p) == len(g) == 50
    chosen = torch.tensor([3, 1, 7])
    for index in (slice(2, 9), chosen, torch.arange(50) % 2 == 0):
        assert torch.equal(p[index].kl(Categorical(b)[index]), p.kl(Categorical(b))[index])
        torch.testing.assert_close(g[index].nll(other[index]), g.nll(other)[index])
    assert len(p[chosen]) == len(g[chosen]) == 3
    assert len(p[:0]) == 0


@pytest.mark.parametrize("unit", [1e-13, 1e12])
def test_units_of_the_user_may_be_as_large_or_small_as_they_like(unit: float) -> None:
    """Bytes and farads have deviations far outside of those that a network gives."""
    g = torch.Generator().manual_seed(0)
    mean, log_var = torch.randn(9, 2, generator=g), torch.randn(9, 2, generator=g)
    y = torch.randn(9, 2, generator=g)
    plain, scale = Gaussian(mean, log_var), torch.tensor([unit, 3 * unit])
    large = plain.scaled(scale, torch.zeros(2))
    joined = concatenate([large[:4], large[4:]])
    assert isinstance(joined, Gaussian)
    torch.testing.assert_close(joined.std / scale, plain.std)
    torch.testing.assert_close(joined.nll(y * scale), plain.nll(y) + scale.log().sum())
    other = Gaussian(mean + 0.3, log_var - 0.2)
    bounds = large.interval(0.9)[1] / scale
    torch.testing.assert_close(bounds, plain.interval(0.9)[1])
    for name in ("kl", "js"):
        found = getattr(large, name)(other.scaled(scale, torch.zeros(2)))
        torch.testing.assert_close(found, getattr(plain, name)(other), rtol=1e-3, atol=1e-5)
    both = Gaussian.mixture([large, other.scaled(scale, torch.zeros(2))])
    torch.testing.assert_close(both.std / scale, Gaussian.mixture([plain, other]).std)
