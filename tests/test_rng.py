"""Random numbers as pure functions of (seed, ids, stream): right distributions, no correlation."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from extracurricular import rng

IDS = torch.arange(100_000)
# Each test looks at one fixed sample, so a bound is either kept for ever or broken by a change.
P_LEAST = 1e-3
GOLDEN_BITS = [2522960903850574353, -8777856116568084922, 8630914502015706611]
GOLDEN_ORDER = [8, 3, 6, 9, 0, 4, 7, 5, 2, 1]


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.double(), b.double()]))[0, 1])


def test_uniform_has_the_moments_and_the_distribution_it_should() -> None:
    u = rng.uniform(0, IDS, "test")
    assert u.dtype == torch.float32
    assert 0 < float(u.min()) < float(u.max()) < 1
    assert float(u.mean()) == pytest.approx(0.5, abs=4 / math.sqrt(12 * len(IDS)))
    assert float(u.var()) == pytest.approx(1 / 12, rel=0.02)
    assert stats.kstest(u.numpy(), "uniform").pvalue > P_LEAST


def test_uniform_never_rounds_to_0_or_1() -> None:
    top = torch.tensor([(1 << 23) - 1, 0])
    edge = (top.float() + 0.5) * 2.0**-23
    assert float(edge[0]) < 1
    assert float(edge[1]) > 0


@pytest.mark.parametrize("shape", [(), (7,), (3, 5)])
def test_normal_is_normal(shape: tuple[int, ...]) -> None:
    z = rng.normal(1, IDS[:20_000], "test", shape)
    assert z.shape == (20_000, *shape)
    flat = z.flatten()[:100_000]
    assert float(flat.mean()) == pytest.approx(0, abs=4 / math.sqrt(len(flat)))
    assert float(flat.var()) == pytest.approx(1, rel=0.03)
    assert stats.kstest(flat.numpy(), "norm").pvalue > P_LEAST


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 0.9, 1.0, 2.0, 8.0, 200.0])
def test_beta_is_beta_for_any_alpha(alpha: float) -> None:
    x = rng.beta(alpha, 0, IDS, "test").double()
    assert bool(((x >= 0) & (x <= 1)).all())
    assert float(x.mean()) == pytest.approx(0.5, abs=0.006)
    assert float(x.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.02)
    # Below 1/2 float32 holds the number exactly enough for the test; above, 1 - 1e-9 is 1.
    lower = x[x < 0.5].numpy()
    assert stats.kstest(lower, lambda t: 2 * stats.beta(alpha, alpha).cdf(t)).pvalue > P_LEAST
    assert len(lower) == pytest.approx(len(IDS) / 2, rel=0.02)


@pytest.mark.parametrize("alpha", [1e-6, 1e6])
def test_beta_is_finite_for_extreme_alpha(alpha: float) -> None:
    x = rng.beta(alpha, 0, IDS[:1000], "test")
    assert bool(torch.isfinite(x).all())


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan])
def test_beta_refuses_other_alpha(alpha: float) -> None:
    with pytest.raises(ValueError, match=r"alpha is .* greater than 0"):
        rng.beta(alpha, 0, IDS[:1], "test")


@pytest.mark.parametrize("high", [1, 2, 7, 1000])
def test_integers_are_uniform(high: int) -> None:
    k = rng.integer(high, 0, IDS, "test")
    counts = torch.bincount(k, minlength=high)
    assert len(counts) == high
    if high > 1:
        assert stats.chisquare(counts.numpy()).pvalue > P_LEAST


def test_every_bit_is_fair() -> None:
    words = rng.bits(0, IDS, "test")
    for k in range(64):
        ones = int(((words >> k) & 1).sum())
        assert ones == pytest.approx(len(IDS) / 2, abs=4.5 * math.sqrt(len(IDS)) / 2), k


def test_streams_seeds_ids_and_elements_are_uncorrelated() -> None:
    limit = 4.5 / math.sqrt(len(IDS))
    u = rng.uniform(0, IDS, "a")
    others = {
        "stream": rng.uniform(0, IDS, "b"),
        "seed": rng.uniform(1, IDS, "a"),
        "next id": rng.uniform(0, IDS + 1, "a"),
        "far id": rng.uniform(0, IDS + 2**40, "a"),
        "double id": rng.uniform(0, 2 * IDS, "a"),
        "element": rng.uniform(0, IDS, "a", (2,))[:, 1],
    }
    for name, other in others.items():
        keep = slice(1, None) if name == "double id" else slice(None)
        assert abs(correlation(u[keep], other[keep])) < limit, name
        centred = (u[keep] - 0.5) ** 2, (other[keep] - 0.5) ** 2
        assert abs(correlation(*centred)) < limit, f"squares, {name}"


def test_elements_of_one_id_do_not_reappear_at_the_next_id() -> None:
    # A Weyl sequence keyed by the id alone would give id k + 1 the numbers of id k, shifted.
    words = rng.bits(0, torch.arange(200), "test", (50,)).flatten()
    assert len(words.unique()) == len(words)


def test_avalanche() -> None:
    """One bit of the id changes half of the output's bits."""
    base = rng.bits(0, IDS[:2000], "test")
    for k in range(0, 48, 5):
        changed = rng.bits(0, IDS[:2000] ^ (1 << k), "test") ^ base
        share = torch.stack([(changed >> j) & 1 for j in range(64)]).float().mean()
        assert float(share) == pytest.approx(0.5, abs=0.01)


def test_numbers_do_not_change_between_releases() -> None:
    """Recorded knowledge and resumed runs depend on these very numbers."""
    ids = torch.tensor([0, 1, 2**62])
    assert rng.bits(0, ids, "golden").tolist() == GOLDEN_BITS
    assert rng.permuted(10, 0, torch.arange(10), "golden").tolist() == GOLDEN_ORDER


@given(
    st.integers(-(2**70), 2**70),
    st.lists(st.integers(0, 2**62), min_size=1, max_size=20),
    st.text(max_size=8),
)
@settings(max_examples=50, deadline=None)
def test_a_number_depends_on_its_own_id_alone(seed: int, ids: list[int], stream: str) -> None:
    together = torch.tensor(ids)
    for draw in (
        lambda i: rng.uniform(seed, i, stream, (3,)),
        lambda i: rng.normal(seed, i, stream, (3,)),
        lambda i: rng.beta(0.4, seed, i, stream),
        lambda i: rng.derive(seed, i, stream),
        lambda i: rng.permuted(1 + len(ids), seed, i, stream),
    ):
        one_by_one = torch.cat([draw(together[k : k + 1]) for k in range(len(ids))])
        assert torch.equal(draw(together), one_by_one)
    assert bool((rng.derive(seed, together, stream) >= 0).all())


@given(st.integers(1, 3000), st.integers(0, 2**32), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_every_epoch_is_a_permutation(count: int, seed: int, epoch: int) -> None:
    order = rng.permuted(count, seed, torch.arange(count) + epoch * count, "test")
    assert torch.equal(order.sort().values, torch.arange(count))


@pytest.mark.parametrize("start", range(0, 3072, 256))
def test_a_fixed_number_of_walks_is_exact(start: int) -> None:
    """For every number of positions up to a few thousand, in a whole epoch."""
    for count in range(max(1, start), start + 256):
        ids = torch.arange(count) + 5 * count
        order = rng.permuted(count, count, ids, "test", static=True)
        assert torch.equal(order, rng.permuted(count, count, ids, "test"))
        assert int(order.bincount(minlength=count).max()) == 1


@pytest.mark.parametrize("count", [50_000, 60_000, 1_281_167, 2**31 + 11, 2**40 - 1])
def test_a_fixed_number_of_walks_gives_the_same_places_in_large_sets(count: int) -> None:
    ids = torch.cat([torch.arange(100_000), rng.derive(0, IDS, "far")])
    found = rng.permuted(count, 1, ids, "test", static=True)
    assert torch.equal(found, rng.permuted(count, 1, ids, "test"))
    assert bool(((found >= 0) & (found < count)).all())


def test_a_cell_is_beyond_after_the_last_walk_with_a_chance_below_2_to_the_minus_60() -> None:
    some = [*range(1, 5000), *(2**k + j for k in range(13, 40) for j in range(-50, 50))]
    squares = [k * k + j for k in (100, 999, 2**15, 2**19 + 7) for j in (-1, 0, 1, k, k + 1)]
    for count in (*some, *squares, 2**40 - 1):
        a, b = rng._cells(count)
        beyond = a * b - count
        assert 0 <= beyond < b <= a
        walks = rng.walks(count)
        # As many walks as there are cells beyond are always enough.
        assert walks == beyond or Fraction(beyond, a * b) ** walks < Fraction(1, 2**60), count
        # One fewer would not be.
        assert walks == 0 or (
            walks - 1 < beyond and Fraction(beyond, a * b) ** (walks - 1) >= Fraction(1, 2**60)
        ), count
    assert max(rng.walks(count) for count in some) <= 16


def test_orders_are_uniform_and_differ_between_epochs() -> None:
    count, epochs = 100, 20_000
    orders = rng.permuted(count, 0, torch.arange(count * epochs), "test").view(epochs, count)
    for place in (0, 37, 99):
        assert stats.chisquare(torch.bincount(orders[:, place]).numpy()).pvalue > P_LEAST
    for a, b in ((0, 1), (3, 50), (98, 99), (0, 10)):
        pairs = torch.bincount(orders[:, a] * count + orders[:, b], minlength=count**2)
        off_diagonal = pairs.view(count, count)[~torch.eye(count, dtype=torch.bool)]
        assert stats.chisquare(off_diagonal.numpy()).pvalue > P_LEAST
    fixed = (orders == torch.arange(count)).sum(1).double()
    assert float(fixed.mean()) == pytest.approx(1, abs=0.05)  # a random order has one fixed point


@pytest.mark.parametrize(
    "call", [lambda: rng.integer(0, 0, IDS, ""), lambda: rng.permuted(0, 0, IDS, "")]
)
def test_empty_ranges_are_refused(call: object) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        call()  # type: ignore[operator]
