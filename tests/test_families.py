"""Richer families: closed forms, quadratures against draws and grids, laws for any input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from torch import Tensor
from torch import distributions as td

from extracurricular.distributions import (
    Categorical,
    Dirichlet,
    Dirichlets,
    Ensembled,
    Family,
    FullGaussian,
    FullGaussians,
    Gaussian,
    GaussianMixture,
    GaussianMixtures,
    NormalInverseGamma,
    NormalInverseGammas,
    Quantiled,
    Quantiles,
    StudentT,
    StudentTs,
    Task,
    concatenate,
    epistemic,
    kind_of_distribution,
    mixture,
    reader_of,
    together,
    usual_of,
)
from extracurricular.distributions.full_covariance import covariance_of
from extracurricular.distributions.special import digamma_less_log, log_gamma_half
from extracurricular.matching import Matching
from extracurricular.matching.divergences import DIVERGENCES, traits_of

REALS: list[Family] = [
    StudentTs(), GaussianMixtures(3), Quantiles(9), FullGaussians(), NormalInverseGammas(),
    NormalInverseGammas("members"),
]  # fmt: skip
CLASSES: list[Family] = [Dirichlets(), Dirichlets("members")]
ALL = [*REALS, *CLASSES]


def drawn(family: Family, count: int = 6, size: int = 2, seed: int = 0, spread: float = 1.0) -> Any:
    """What a network with random outputs says."""
    g = torch.Generator().manual_seed(seed)
    raw = spread * torch.randn(count, family.outputs(size), generator=g)
    return Task(family.kind, size, family).distribution(raw)


def labels(count: int = 6, size: int = 2, seed: int = 9) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


def ids(family: Family) -> str:
    return str(family.spec)


reals = pytest.mark.parametrize("family", REALS, ids=ids)
every = pytest.mark.parametrize("family", ALL, ids=ids)


# Against others


def test_student_t_is_the_one_of_scipy() -> None:
    said, y = drawn(StudentTs()), labels()
    theirs = stats.t(
        *(v.double().numpy() for v in (said.df, said.mean, (0.5 * said.log_scale).exp()))
    )
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(
        said.nll(y).double(), -torch.tensor(theirs.logpdf(y.double().numpy())).sum(-1), **close
    )
    torch.testing.assert_close(said.var.double(), torch.tensor(theirs.var()), **close)
    entropy = torch.tensor(theirs.entropy()).sum(-1)
    torch.testing.assert_close(said.entropy().double(), entropy, **close)
    found = said.cdf(y.unsqueeze(-1)).squeeze(-1).double()
    torch.testing.assert_close(
        found, torch.tensor(theirs.cdf(y.double().numpy())), rtol=1e-6, atol=1e-6
    )
    low, high = said.interval(0.9)
    torch.testing.assert_close(low.double(), torch.tensor(theirs.ppf(0.05)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(high.double(), torch.tensor(theirs.ppf(0.95)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("df", [2.1, 5.0, 80.0, 2000.0])
def test_student_t_keeps_its_digits_at_any_degrees_of_freedom(df: float) -> None:
    excess = torch.full((5, 1), math.log(df - 2))
    said = StudentT.of(torch.zeros(5, 1), torch.zeros(5, 1), excess)
    y = torch.tensor([[-9.0], [-1.0], [0.0], [0.3], [4.0]])
    own = stats.t(float(said.df[0]))
    np.testing.assert_allclose(said.nll(y), -own.logpdf(y)[:, 0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(said.cdf(y.unsqueeze(-1))[..., 0], own.cdf(y), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(said.entropy(), own.entropy(), rtol=1e-5)


def test_a_mixture_is_the_one_of_torch() -> None:
    said, y = drawn(GaussianMixtures(4)), labels()
    parts = td.Normal(said.means.double(), (0.5 * said.log_vars.double()).exp())
    theirs = td.MixtureSameFamily(td.Categorical(logits=said.logits.double()), parts)
    torch.testing.assert_close(
        said.nll(y).double(), -theirs.log_prob(y).sum(-1), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(said.mean.double(), theirs.mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(said.var.double(), theirs.variance, rtol=1e-5, atol=1e-5)
    found = said.cdf(y.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(found.double(), theirs.cdf(y.double()), rtol=1e-5, atol=1e-5)


def test_a_full_covariance_is_the_one_of_torch() -> None:
    said, other, y = (
        drawn(FullGaussians(), size=3),
        drawn(FullGaussians(), size=3, seed=1),
        labels(6, 3),
    )

    def of(one: FullGaussian) -> td.MultivariateNormal:
        return td.MultivariateNormal(one.mean.double(), covariance_of(one).double())

    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(said.nll(y).double(), -of(said).log_prob(y.double()), **close)
    torch.testing.assert_close(said.entropy().double(), of(said).entropy(), **close)
    torch.testing.assert_close(
        said.kl(other).double(), td.kl_divergence(of(said), of(other)), **close
    )
    plain = Gaussian(other.mean, other.log_var)
    independent = td.MultivariateNormal(plain.mean.double(), plain.var.double().diag_embed())
    forth, back = td.kl_divergence(of(said), independent), td.kl_divergence(independent, of(said))
    torch.testing.assert_close(said.kl(plain).double(), forth, **close)
    torch.testing.assert_close(plain.kl(said).double(), back, **close)
    ones = said.correlation.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(ones, torch.ones_like(ones))


def test_a_normal_inverse_gamma_is_that_of_its_draws() -> None:
    said: NormalInverseGamma = drawn(NormalInverseGammas(), count=3, size=1)
    g = np.random.default_rng(0)
    alpha = 1 + said._log_shape.exp().numpy()[:, 0]
    noise, kappa = said.log_noise.exp().numpy()[:, 0], said.log_sure.exp().numpy()[:, 0]
    var = stats.invgamma(alpha, scale=noise * (alpha - 1)).rvs((200_000, 3), random_state=g)
    mean = said.mean.numpy()[:, 0] + g.normal(size=var.shape) * np.sqrt(var / kappa)
    np.testing.assert_allclose(mean.var(0), said.disagreement[:, 0], rtol=0.05)
    y = mean + g.normal(size=var.shape) * np.sqrt(var)
    np.testing.assert_allclose(y.var(0), said.var[:, 0], rtol=0.05)
    low, high = said.interval(0.9)
    inside = ((y >= low[:, 0].numpy()) & (y <= high[:, 0].numpy())).mean(0)
    np.testing.assert_allclose(inside, 0.9, atol=0.005)


def test_the_members_density_of_a_normal_inverse_gamma_is_that_of_scipy() -> None:
    said = drawn(NormalInverseGammas("members"), count=4, size=1)
    members = [Gaussian(labels(4, 1, k), 0.3 * labels(4, 1, k + 20)) for k in range(3)]
    alpha = 1 + said._log_shape.exp().double()
    beta, kappa = said.log_noise.exp().double() * (alpha - 1), said.log_sure.exp().double()
    total = torch.zeros(4, dtype=torch.float64)
    for one in members:
        var = one.var.double()
        of_mean = stats.norm(said.mean, (var / kappa).sqrt()).logpdf(one.mean)
        # The density of log σ² is that of σ² times σ².
        of_var = stats.invgamma(alpha, scale=beta).logpdf(var) + var.log().numpy()
        total -= torch.tensor(of_mean + of_var)[:, 0] / len(members)
    torch.testing.assert_close(
        together(members).kl(said).double(),
        total,
        rtol=1e-3,
        atol=1e-2,  # type: ignore[arg-type]
    )


def test_a_dirichlet_knows_the_disagreement_of_its_draws() -> None:
    said: Dirichlet = drawn(Dirichlets(), count=4, size=5, spread=2.0)
    alpha = said.logits.double().exp()
    torch.testing.assert_close(said.probs.double(), td.Dirichlet(alpha).mean, rtol=1e-5, atol=1e-6)
    draws = td.Dirichlet(alpha).sample(torch.Size([100_000]))
    members = Categorical.from_probs(draws.flatten(0, 1)).entropy().view(100_000, 4).mean(0)
    torch.testing.assert_close(said.disagreement, said.entropy() - members, rtol=0.03, atol=3e-3)


def test_the_members_loss_of_a_dirichlet_is_their_density() -> None:
    said: Dirichlet = drawn(Dirichlets("members"), count=4, size=5)
    members = [Categorical(labels(4, 5, k)) for k in range(3)]
    smooth = [(1 - 1e-4) * m.probs.double() + 1e-4 / 5 for m in members]
    theirs = td.Dirichlet(said.logits.double().exp())
    expected = -torch.stack([theirs.log_prob(one) for one in smooth]).mean(0)
    found = together(members).kl(said)  # type: ignore[arg-type]
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_the_disagreement_loss_of_a_dirichlet_is_0_at_the_ensembles_own() -> None:
    apart = torch.stack([labels(1, 3, k) for k in range(4)], dim=1)
    ensemble = Ensembled.of(apart)
    low, high = -3.0, 9.0
    for _ in range(60):  # the precision at which the disagreement is the ensemble's
        middle = 0.5 * (low + high)
        said = Dirichlet(ensemble.log_probs + middle)
        low, high = (middle, high) if said.disagreement > ensemble.disagreement else (low, middle)
    assert float(ensemble.kl(Dirichlet(ensemble.log_probs + low))) < 1e-6
    assert float(ensemble.kl(Dirichlet(ensemble.log_probs + low + 1))) > 0.01


def test_special_functions_are_those_of_scipy() -> None:
    x = torch.logspace(-3, 6, 200, dtype=torch.float64)
    found = digamma_less_log(x.float()).double()
    torch.testing.assert_close(
        found, torch.tensor(special.digamma(x.numpy() + 1) - np.log(x.numpy())), rtol=2e-5, atol=0
    )
    halves = torch.tensor(special.gammaln(x.numpy() + 0.5) - special.gammaln(x.numpy()))
    torch.testing.assert_close(log_gamma_half(x), halves, rtol=1e-6, atol=1e-7)


# Any real family, against integrals on a grid

GRID = torch.linspace(-80, 80, 320_001, dtype=torch.float64)


@reals
def test_a_density_has_the_moments_and_levels_that_it_says(family: Family) -> None:
    said, y = drawn(family, count=3), labels(3)
    density = said.log_density(GRID.float().expand(3, 2, -1)).double().exp()
    step = float(GRID[1] - GRID[0])
    tails = 2e-3 if isinstance(said, StudentT) else 1e-4
    assert float(((density.sum(-1) * step) - 1).abs().max()) < tails
    mean = (density * GRID).sum(-1) * step
    torch.testing.assert_close(said.mean.double(), mean, rtol=1e-2, atol=1e-2)
    values, weights = said.nodes()
    by_nodes = (weights * (values - said.mean.unsqueeze(-1)).square()).sum(-1)
    torch.testing.assert_close(by_nodes, said.var, rtol=2e-2, atol=1e-5)
    below = density.masked_fill(y.double().unsqueeze(-1) < GRID, 0).sum(-1) * step
    found = said.cdf(y.unsqueeze(-1)).squeeze(-1).double()
    torch.testing.assert_close(found, below, rtol=2e-3, atol=2e-3)
    low, high = said.interval(0.8)
    levels = said.cdf(torch.stack([low, high], -1))
    torch.testing.assert_close(levels, torch.tensor([0.1, 0.9]).expand(3, 2, 2), rtol=0, atol=1e-4)
    steps = density.cumsum(-1) * step
    crps = ((steps - (y.double().unsqueeze(-1) <= GRID).double()).square()).sum(-1) * step
    torch.testing.assert_close(said.crps(y).double(), crps, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize(
    "family", [StudentTs(), GaussianMixtures(3), Quantiles(9), NormalInverseGammas()], ids=ids
)
def test_a_kl_from_a_gaussian_is_that_of_an_integral(family: Family) -> None:
    said = drawn(family, count=4, size=1)
    teacher = Gaussian(labels(4, 1), 0.5 * labels(4, 1, 3))
    own = td.Normal(teacher.mean.double(), teacher.std.double())
    log_density = own.log_prob(GRID)
    terms = log_density.exp() * (
        log_density - said.log_density(GRID.float().expand(4, 1, -1))[:, 0]
    )
    exact = terms.sum(-1) * float(GRID[1] - GRID[0])
    torch.testing.assert_close(teacher.kl(said).double(), exact, rtol=2e-3, atol=2e-3)


# Laws for any family


@every
def test_a_family_reads_what_it_stores(family: Family) -> None:
    said = drawn(family, count=7, size=3)
    assert said.richer
    assert said.family == family
    assert said.parameters.shape == (7, family.outputs(3))
    assert kind_of_distribution(said) == family.kind
    again = reader_of(said)(said.parameters)
    assert type(again) is type(said)
    assert torch.equal(again.parameters, said.parameters)
    assert torch.equal(again.entropy(), said.entropy())
    joined = concatenate([said[:3], said[3:]])
    assert torch.equal(joined.parameters, said.parameters)
    assert joined.family == family
    empty = said[:0]
    assert empty.parameters.shape == (0, family.outputs(3))
    assert reader_of(empty)(empty.parameters).entropy().shape == (0,)
    assert usual_of(said).family is None
    torch.testing.assert_close(usual_of(said).mean, said.mean)


@reals
def test_real_families_do_not_depend_on_units(family: Family) -> None:
    said, other, y = drawn(family), drawn(family, seed=3), labels()
    scale, shift = torch.tensor([20.0, 0.5]), torch.tensor([-1e2, 3.0])
    moved = said.scaled(scale, shift)
    raw = y * scale + shift
    slope = scale.log().sum()
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(moved.nll(raw), said.nll(y) + slope, **close)
    torch.testing.assert_close(moved.entropy(), said.entropy() + slope, **close)
    torch.testing.assert_close(moved.kl(other.scaled(scale, shift)), said.kl(other), **close)
    torch.testing.assert_close(moved.crps(raw), said.crps(y) * scale, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(moved.mean, said.mean * scale + shift, **close)
    torch.testing.assert_close(moved.std, said.std * scale, **close)
    wide = said.scaled(scale.double(), shift.double())
    assert wide.nll(raw.double()).dtype == torch.float64
    outputs = {"mean": moved.mean, "variance": moved.var, **family.named(moved)}
    read = family.from_named(outputs, moved.limit)
    torch.testing.assert_close(read.nll(raw), moved.nll(raw), rtol=1e-3, atol=1e-3)
    assert set(family.named(moved)) == set(family.more)
    one = said.output(1)
    assert one.mean.shape == (6, 1)
    torch.testing.assert_close(one.std[:, 0], said.std[:, 1])


@reals
def test_the_divergences_of_real_families_are_some(family: Family) -> None:
    said, other, y = drawn(family), drawn(family, seed=3), labels()
    teacher = Gaussian(labels(seed=5), labels(seed=6))
    assert float(said.kl(said).abs().max()) < 1e-5
    for one, two in ((said, other), (teacher, said), (said, teacher)):
        assert bool((one.kl(two) > 0).all())
        assert bool((one.js(two) > 0).all())
        torch.testing.assert_close(one.js(two), two.js(one), rtol=1e-4, atol=1e-5)
    if not isinstance(said, FullGaussian):
        assert bool((said.js(other) <= 2 * math.log(2) + 1e-5).all())
    torch.testing.assert_close(Gaussian.point(y).kl(said), said.nll(y), rtol=1e-5, atol=1e-5)
    far = 4 * y
    near, away = (Gaussian.point(at).energy(said) for at in (said.mean, said.mean + 5 + far.abs()))
    assert bool((near < away).all())


@every
def test_tempering_widens(family: Family) -> None:
    said = drawn(family)
    assert said.tempered(1.0) is said
    for t in (4.0, torch.tensor(4.0)):
        hot = said.tempered(t)
        assert bool((hot.entropy() > said.entropy()).all())
        assert hot.family == family
        if isinstance(said, Gaussian):
            torch.testing.assert_close(hot.var, 4 * said.var, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(hot.mean, said.mean, rtol=1e-4, atol=1e-5)


def test_the_pinball_loss_has_its_closed_form() -> None:
    teacher = Gaussian(labels(4, 1), labels(4, 1, 3))
    said: Quantiled = drawn(Quantiles(7), count=4, size=1)
    g = torch.Generator().manual_seed(0)
    y = teacher.mean + teacher.std * torch.randn(200_000, 4, 1, generator=g)
    miss = y.unsqueeze(-1) - said.at
    loss = torch.maximum(said.levels * miss, (said.levels - 1) * miss).mean(0)
    best = (
        teacher.mean.unsqueeze(-1)
        + teacher.std.unsqueeze(-1) * torch.tensor(stats.norm.ppf(said.levels)).float()
    )
    least = y.unsqueeze(-1) - best
    least = torch.maximum(said.levels * least, (said.levels - 1) * least).mean(0)
    expected = 4 * (loss - least).mean(-1).sum(-1)
    torch.testing.assert_close(teacher.energy(said), expected, rtol=0.02, atol=0.01)
    own = Quantiled.of(best)
    assert float(teacher.energy(own).abs().max()) < 1e-5


def test_an_ensemble_kept_apart_is_the_mixture_of_its_members() -> None:
    members = [Gaussian(labels(5, 2, k), labels(5, 2, k + 9)) for k in range(4)]
    kept, matched = together(members), mixture(members)
    assert isinstance(kept, GaussianMixture)
    torch.testing.assert_close(kept.mean, matched.mean)
    torch.testing.assert_close(kept.var, matched.var)  # type: ignore[union-attr]
    again = reader_of(kept)(kept.parameters)
    assert again.joint  # type: ignore[union-attr]
    gaps = torch.stack([m.mean for m in members]) - matched.mean
    between = torch.einsum("mbi,mbj->bij", gaps, gaps) / 4
    noise = torch.stack([m.var for m in members]).mean(0).diag_embed()
    torch.testing.assert_close(covariance_of(kept), between + noise)
    full = FullGaussian.mixture(members)
    torch.testing.assert_close(covariance_of(full), between + noise, rtol=1e-3, atol=1e-4)
    sure = [Categorical(labels(5, 3, k)) for k in range(4)]
    known = together(sure)
    torch.testing.assert_close(known.mean, mixture(sure).mean)
    torch.testing.assert_close(known.disagreement, epistemic(sure))
    assert torch.equal(reader_of(known)(known.parameters).mean, known.mean)
    with pytest.raises(ValueError, match="one or more members"):
        together([])


@pytest.mark.parametrize("family", [Dirichlets(), NormalInverseGammas()], ids=ids)
def test_several_that_know_a_disagreement_know_more_together(family: Family) -> None:
    some = [drawn(family, seed=k) for k in range(3)]
    inside = torch.stack([one.disagreement for one in some]).mean(0)
    assert bool((epistemic(some) > inside).all())
    assert bool((epistemic([some[0], some[0]]) - some[0].disagreement).abs().max() < 1e-5)


# Gradients and precision


def teacher_of(family: Family, dtype: torch.dtype = torch.float32) -> Any:
    size, read = (4, Categorical) if family.kind == "classification" else (2, Gaussian)
    g = torch.Generator().manual_seed(4)
    raw = [torch.randn(3, 4, generator=g).to(dtype) for _ in range(3)]
    return size, together([read.from_output(one) for one in raw])


@every
def test_losses_have_the_gradients_of_their_differences(family: Family) -> None:
    size, ensemble = teacher_of(family)
    task = Task(family.kind, size, family)
    raw = torch.randn(3, task.outputs, generator=torch.Generator().manual_seed(0)) * 0.7
    matching = Matching(**{"beta": 0.0, **family.matching} if size == 2 else family.matching)
    if family.matching and size == 2:
        matching = Matching(**family.matching)

    def loss(output: Tensor) -> Tensor:
        return matching(task.distribution(output), ensemble)

    raw.requires_grad_()
    loss(raw).backward()
    assert raw.grad is not None
    direction = torch.randn(raw.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        step = 5e-3
        slope = (loss(raw + step * direction) - loss(raw - step * direction)) / (2 * step)
    assert float((raw.grad * direction).sum()) == pytest.approx(float(slope), rel=0.02, abs=3e-3)


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_wild_outputs_stay_finite(family: Family, dtype: torch.dtype) -> None:
    size, ensemble = teacher_of(family, dtype)
    task = Task(family.kind, size, family)
    g = torch.Generator().manual_seed(0)
    # A gradient of float16 overflows from 65504 on, which scaled losses are there for.
    for spread in (1.0, 30.0, 1e3) if dtype == torch.bfloat16 else (1.0,):
        raw = (spread * torch.randn(3, task.outputs, generator=g)).to(dtype).requires_grad_()
        said = task.distribution(raw)
        for target in (ensemble, usual_of(ensemble)):
            loss = Matching(**family.matching)(said, target)
            assert bool(torch.isfinite(loss)), spread
        loss.backward()
        assert bool(torch.isfinite(raw.grad).all()), spread  # type: ignore[union-attr]
        assert bool(torch.isfinite(said.entropy()).all())


@every
@pytest.mark.parametrize("name", [n for n in DIVERGENCES.names() if ":" not in n])
def test_every_divergence_takes_every_family(family: Family, name: str) -> None:
    size, ensemble = teacher_of(family)
    task = Task(family.kind, size, family)
    raw = torch.randn(3, task.outputs, generator=torch.Generator().manual_seed(0))
    raw.requires_grad_()
    if family.kind not in traits_of(name).kinds:
        with pytest.raises(ValueError, match=f"'{name}' is for"):
            Matching(name, temperature=2.0)(task.distribution(raw), ensemble)
        return
    for teacher in (ensemble, usual_of(ensemble)):
        loss = Matching(name, temperature=2.0)(task.distribution(raw), teacher)
        assert loss.shape == ()
        loss.backward()
    assert bool(torch.isfinite(raw.grad).all())  # type: ignore[union-attr]


@reals
@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(-30, 30, width=32), min_size=18, max_size=18))
def test_whatever_a_network_says_is_a_distribution(family: Family, numbers: list[float]) -> None:
    output = torch.tensor([numbers[: family.outputs(2)]])
    said = Task("regression", 2, family).distribution(output)
    assert bool((said.var > 0).all())  # type: ignore[union-attr]
    low, high = said.interval(0.9)  # type: ignore[union-attr]
    assert bool((low < high).all())
    assert bool(torch.isfinite(said.nll(labels(1))).all())
    assert bool((said.crps(labels(1)) > -1e-3 * said.std).all())  # type: ignore[union-attr]


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="components is 1; it must be from 2 to 100"):
        GaussianMixtures(1)
    with pytest.raises(ValueError, match="levels is 2; it must be from 3 to 199"):
        Quantiles(2)
    with pytest.raises(ValueError, match="is for several targets"):
        FullGaussians().check(1)
    with pytest.raises(ValueError, match=r"regression needs 2 locations, 2 log squared scales"):
        Task("regression", 2, StudentTs()).distribution(torch.zeros(3, 4))
