"""Generators of tables: what they learn, and that whatever they give is a row that could be."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture
from torch import Tensor

from extracurricular import rng
from extracurricular.data.base import Data, make_data
from extracurricular.errors import RecipeError
from extracurricular.generators import GENERATORS, Fit, Generator
from extracurricular.generators.tables import Kernel, Mixture
from extracurricular.inputs import leaves
from tests.conftest import eye_data, image_data, table_data

CPU = torch.device("cpu")
BOTH = (Mixture, Kernel)


def data_of(x: Any) -> Data:
    """Data whose training inputs are these; what is in the other splits must not matter."""
    first = x if isinstance(x, np.ndarray) else next(iter(x.values() if isinstance(x, dict) else x))
    count = len(first)
    y = np.zeros((count, 1), np.float32)
    return make_data("made up", (x, y), (x, y))


def state_of(fit: Fit, data: Data, seed: int = 0) -> dict[str, Tensor]:
    return fit.fit(data, seed=seed, folder=None, device=CPU)


def fitted(fit: Fit, data: Data, seed: int = 0) -> Generator:
    generator = fit.load(state_of(fit, data, seed), data)
    assert isinstance(generator, Generator)
    return generator


def latents(generator: Generator, count: int = 4000, scale: float = 1, seed: int = 0) -> Tensor:
    ids = torch.arange(count)
    uniform = rng.uniform(seed, ids, "u", (generator.uniforms,))
    normals = generator.latent - generator.uniforms
    if normals == 0:
        return uniform
    return torch.cat([uniform, scale * rng.normal(seed, ids, "n", (normals,))], dim=1)


def call(generator: Generator, latent: Tensor) -> Tensor:
    x = generator.function(latent, torch.zeros(len(latent), 1))
    assert isinstance(x, Tensor)
    return x


def draws(fit: Fit, data: Data, count: int = 4000, scale: float = 1) -> Tensor:
    generator = fitted(fit, data)
    return call(generator, latents(generator, count, scale))


def mixed_rows(count: int = 400, seed: int = 0) -> np.ndarray[Any, Any]:
    """Real, integer, category, one-hot group of three, real with an atom at 0, constant."""
    g = np.random.default_rng(seed)
    real = g.normal(-3, 2, count)
    integer = g.poisson(np.exp(real / 4 + 5))
    category = np.array([0.5, 2, 7])[g.integers(0, 3, count)]
    hot = np.eye(3)[g.integers(0, 3, count)]
    atom = np.where(g.random(count) < 0.4, 0, g.gamma(3, 20, count))
    columns = [real, integer, category, *hot.T, atom, np.full(count, 4.25)]
    return np.stack(columns, axis=1).astype(np.float32)


def check_mixed(x: Tensor, train: Tensor) -> None:
    low, high = train.min(0).values, train.max(0).values
    assert bool(torch.isfinite(x).all())
    assert torch.equal(x[:, 1], x[:, 1].round())
    assert set(x[:, 2].tolist()) <= {0.5, 2, 7}
    assert bool(((x[:, 3:6] == 0) | (x[:, 3:6] == 1)).all())
    assert torch.equal(x[:, 3:6].sum(1), torch.ones(len(x)))
    assert bool((x[:, 6] >= 0).all())
    assert bool((x[:, 7] == 4.25).all())
    span = high - low
    for column, room in ((0, 0.1), (1, 0.0), (6, 0.1)):
        assert float(x[:, column].min()) >= float(low[column] - room * span[column]) - 1e-4
        assert float(x[:, column].max()) <= float(high[column] + room * span[column]) + 1e-4


def two_clusters(count: int = 1000) -> np.ndarray[Any, Any]:
    """A third of the rows about (-5, 10) with category 0, the others about (5, 30) with 1."""
    g = np.random.default_rng(0)
    which = (g.random(count) < 2 / 3).astype(int)
    centre = np.array([[-5, 10], [5, 30]])[which]
    return np.column_stack([centre + g.normal(0, 1, (count, 2)), which]).astype(np.float32)


# What both do


def test_they_are_found_by_name_and_keep_the_contract() -> None:
    for name, kind in (("gmm", Mixture), ("kde", Kernel)):
        built = GENERATORS.build({name: {"columns": {"0": "real"}, "most_categories": 3}})
        assert isinstance(built, kind)
        assert isinstance(built, Fit)
        assert built.steps == 1
        generator = fitted(built, table_data())
        assert not generator.conditional
        assert generator.range is None
    with pytest.raises(RecipeError, match="gmm: components is 0; it must be at least 1"):
        GENERATORS.build({"gmm": {"components": 0}})


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("rows", [mixed_rows(), two_clusters()[:, :2]])
def test_law_1_a_row_is_a_pure_function_of_its_latent(
    kind: type[Fit], rows: np.ndarray[Any, Any]
) -> None:
    generator = fitted(kind(), data_of(rows))
    latent = latents(generator, 500)
    whole = call(generator, latent)
    order = torch.randperm(500)
    assert torch.equal(call(generator, latent[order]), whole[order])
    for k in range(0, 500, 7):
        assert torch.equal(call(generator, latent[k : k + 1]), whole[k : k + 1])
        assert torch.equal(call(generator, latent[k : k + 13]), whole[k : k + 13])
    assert call(generator, latent[:0]).shape == (0, rows.shape[1])
    # Nor does the memory's layout matter.
    assert torch.equal(call(generator, latent.T.contiguous().T), whole)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("columns", [slice(0, 8), slice(0, 2), slice(2, 6)])
def test_a_preview_has_the_form_of_what_is_fitted(kind: type[Fit], columns: slice) -> None:
    data = data_of({"a": mixed_rows()[:, columns], "b": mixed_rows(seed=1)[:, 0]})
    preview, generator = kind().preview(data), fitted(kind(), data)
    assert isinstance(preview, Generator)
    for name in ("latent", "uniforms", "conditional", "range"):
        assert getattr(preview, name) == getattr(generator, name)
    latent = latents(generator, 5)
    a, b = (leaves(g.function(latent, torch.zeros(5, 1))) for g in (preview, generator))
    assert a.keys() == b.keys()
    assert all(a[k].shape == b[k].shape and a[k].dtype == b[k].dtype for k in a)


@pytest.mark.parametrize("kind", BOTH)
def test_a_seed_decides(kind: type[Fit]) -> None:
    data = data_of(mixed_rows())
    before = torch.random.get_rng_state()
    a, b = state_of(kind(), data, 3), state_of(kind(), data, 3)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert a.keys() == b.keys()
    for key, value in a.items():
        assert value.equal(b[key]) or bool(value.isnan().any()), key


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("rows", [mixed_rows(), two_clusters()[:, :2], mixed_rows()[:, 2:6]])
def test_a_file_gives_the_same_back(kind: type[Fit], rows: np.ndarray[Any, Any]) -> None:
    data = data_of(rows)
    fit = kind()
    state = state_of(fit, data)
    assert all(value.is_contiguous() for value in state.values())
    read = safetensors.torch.load(safetensors.torch.save(state))
    a, b = fit.load(state, data), fit.load(read, data)
    assert isinstance(a, Generator)
    assert isinstance(b, Generator)
    latent = latents(a, 50)
    assert torch.equal(call(a, latent), call(b, latent))


@pytest.mark.parametrize("kind", BOTH)
def test_only_the_training_split_is_looked_at(kind: type[Fit]) -> None:
    x = mixed_rows()
    y = np.zeros(len(x), np.float32)
    a = make_data("a", (x, y), (x[:9], y[:9]), (x[:5], y[:5]))
    b = make_data("a", (x, y), (x[:9] * 1000, y[:9] + 1), (x[:5] - 77, y[:5]))
    unlabelled = replace(a, train=replace(a.train, y=None))
    assert torch.equal(draws(kind(), a), draws(kind(), b))
    assert torch.equal(draws(kind(), a), draws(kind(), unlabelled))


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("scale", [0.0, 1.0, 1000.0])
def test_mixed_columns_stay_valid(kind: type[Fit], scale: float) -> None:
    rows = mixed_rows()
    check_mixed(draws(kind(), data_of(rows), scale=scale), torch.from_numpy(rows))


@pytest.mark.parametrize("kind", BOTH)
def test_mixed_columns_have_the_frequencies_of_the_data(kind: type[Fit]) -> None:
    rows = mixed_rows(1000)
    x = draws(kind(), data_of(rows), 20_000).numpy()
    for column in range(2, 6):
        for value in np.unique(rows[:, column]):
            found, there = ((v[:, column] == value).mean() for v in (x, rows))
            assert found == pytest.approx(there, abs=0.02)
    # A number below the bound becomes the bound, which is the atom.
    assert (x[:, 6] == 0).mean() == pytest.approx((rows[:, 6] == 0).mean(), abs=0.05)
    np.testing.assert_allclose(x.mean(0), rows.mean(0), atol=0.1 * rows.std(0).max(), rtol=0.05)


@pytest.mark.parametrize("kind", BOTH)
def test_moments_of_a_gaussian(kind: type[Fit]) -> None:
    g = np.random.default_rng(0)
    rows = (g.normal(size=(2000, 3)) @ g.normal(size=(3, 3)) + [50, -1000, 0.1]).astype(np.float32)
    x = draws(kind(), data_of(rows), 20_000).numpy()
    deviation = rows.std(0)
    np.testing.assert_allclose(x.mean(0) / deviation, rows.mean(0) / deviation, atol=0.05)
    # A kernel adds its own variance.
    np.testing.assert_allclose(x.std(0), deviation, rtol=0.1)
    np.testing.assert_allclose(np.corrcoef(x.T), np.corrcoef(rows.T), atol=0.06)


@pytest.mark.parametrize("kind", BOTH)
def test_the_structure_of_the_input_is_kept(kind: type[Fit]) -> None:
    rows = mixed_rows()
    parts = {"b": rows[:, :2], "a": rows[:, 2:7], "c": rows[:, 7]}
    flat = draws(kind(), data_of(rows), 20)
    for data in (data_of(parts), data_of(tuple(parts.values()))):
        generator = fitted(kind(), data)
        x = generator.function(latents(generator, 20), torch.zeros(20, 1))
        assert type(x) is type(data.train.x)
        assert [v.shape for v in leaves(x).values()] == [(20, 2), (20, 5), (20,)]
        assert list(leaves(x)) == list(leaves(data.train.x))
        joined = torch.cat([v.reshape(20, -1) for v in leaves(x).values()], dim=1)
        assert torch.equal(joined, flat)


@pytest.mark.parametrize("kind", BOTH)
def test_bytes_are_numbers_too(kind: type[Fit]) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (300, 3)).astype(np.uint8)
    x = draws(kind(), data_of(rows), scale=3)
    assert x.dtype == torch.float32
    assert torch.equal(x, x.round())
    assert (float(x.min()), float(x.max())) == (0, 255)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("count", [1, 2, 3, 30])
def test_few_rows_are_enough(kind: type[Fit], count: int) -> None:
    rows = mixed_rows()[:count]
    x = draws(kind(), data_of(rows), 100, scale=5)
    assert bool(torch.isfinite(x).all())
    assert bool((x[:, 7] == 4.25).all())
    assert torch.equal(x[:, 3:6].sum(1), torch.ones(100))
    assert set(x[:, 2].tolist()) <= {0.5, 2, 7} or count <= 15
    if count == 1:
        assert torch.equal(x, torch.from_numpy(rows).expand(100, -1))


@pytest.mark.parametrize("kind", BOTH)
def test_columns_can_be_told(kind: type[Fit]) -> None:
    g = np.random.default_rng(0)
    rows = np.column_stack(
        [g.integers(0, 5, 500), g.integers(0, 50, 500), g.integers(0, 2, 500)]
    ).astype(np.float32)
    found = draws(kind(), data_of(rows))
    assert torch.equal(found, found.round())
    told = draws(kind(columns={"0": "real", "1": "category", "2": "integer"}), data_of(rows))
    assert not torch.equal(told[:, 0], told[:, 0].round())
    assert set(told[:, 1].tolist()) <= set(rows[:, 1].tolist())
    assert set(told[:, 2].tolist()) == {0, 1}
    # Five values are too many to be a category where four are the most.
    other = state_of(kind(most_categories=4), data_of(rows))
    assert other["columns.numeric"].tolist() == [0, 1]
    assert other["columns.whole"].tolist() == [True, True]


def test_what_never_is_negative_does_not_become_so() -> None:
    g = np.random.default_rng(0)
    rows = np.column_stack([g.gamma(2, 1, 500), -g.gamma(2, 1, 500), g.normal(0, 1, 500)])
    data = data_of(rows.astype(np.float32))
    for fit in (Mixture(), Kernel(), Kernel(widen=3)):
        x = draws(fit, data, scale=5)
        assert float(x[:, 0].min()) == 0
        assert float(x[:, 1].max()) == 0
        assert float(x[:, 2].min()) < float(rows[:, 2].min())
    tight = draws(Kernel(widen=0), data, scale=5)
    assert float(tight[:, 2].max()) == float(data.train.x[:, 2].max())  # type: ignore[index,call-overload]


def test_one_hot_groups() -> None:
    g = np.random.default_rng(0)
    count = 300
    flag = (g.random(count) < 0.5).astype(float)
    hot = np.eye(4)[g.integers(0, 3, count)]  # the fourth value does not occur
    rows = np.column_stack([flag, hot, flag, 1 - flag, np.ones(count)]).astype(np.float32)
    state = state_of(Kernel(), data_of(rows))
    # A flag, three values of four columns, a flag and what it is not, and a constant.
    assert sorted(state["columns.sizes"].tolist()) == [1, 2, 2, 3]
    group = dict(
        zip(state["columns.coded"].tolist(), state["columns.variable"].tolist(), strict=True)
    )
    assert group[1] == group[2] == group[3] == group[4] != group[0]
    assert group[5] == group[6] != group[0]
    x = draws(Kernel(resample=1), data_of(rows))
    assert torch.equal(x[:, 1:5].sum(1), torch.ones(len(x)))
    assert bool((x[:, 4] == 0).all())
    assert torch.equal(x[:, 5], 1 - x[:, 6])
    assert not torch.equal(x[:, 0], x[:, 5])


def test_an_atom_of_a_real_column() -> None:
    g = np.random.default_rng(0)
    real = np.where(g.random(1000) < 0.3, 100, 100 - g.gamma(2, 10, 1000))
    rows = real[:, None].astype(np.float32)
    for kind in BOTH:
        x = draws(kind(), data_of(rows), 20_000)
        assert float((x == 100).float().mean()) == pytest.approx(0.3, abs=0.05)
        assert float(x.max()) == 100
    apart = draws(Mixture(atom=1), data_of(rows), 20_000)
    assert float(apart.max()) > 100


@pytest.mark.parametrize("kind", BOTH)
def test_progress_is_told(kind: type[Fit]) -> None:
    told: list[tuple[int, float]] = []
    kind().fit(
        table_data(), seed=0, folder=None, device=CPU, on_progress=lambda k, v: told.append((k, v))
    )
    [(step, loss)] = told
    assert step == 1
    assert math.isfinite(loss)


@st.composite
def tables(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Rows of any kinds of columns, with any scales."""
    count = draw(st.integers(1, 60))
    g = np.random.default_rng(draw(st.integers(0, 2**32)))
    columns = []
    for kind in draw(st.lists(st.sampled_from("rRzicbhk"), min_size=1, max_size=5)):
        size = 10.0 ** draw(st.integers(-12, 14))
        columns += {
            "r": [g.normal(draw(st.sampled_from([0, 1e3])), 1, count) * size],
            "R": [g.exponential(size, count)],
            "z": [np.where(g.random(count) < 0.5, 0, g.exponential(size, count))],
            "i": [np.round(g.normal(0, 1e4, count))],
            "c": [g.integers(0, 4, count) * size],
            "b": [g.integers(0, 2, count)],
            "h": list(np.eye(3)[g.integers(0, 3, count)].T),
            "k": [np.full(count, size)],
        }[kind]
    return np.stack(columns, axis=1).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(rows=tables(), scale=st.sampled_from([0.0, 1.0, 30.0]), kernel=st.booleans())
def test_any_table_gives_rows_that_could_be(
    rows: np.ndarray[Any, Any], scale: float, kernel: bool
) -> None:
    fit: Fit = Kernel() if kernel else Mixture(components=None if len(rows) > 40 else 1)
    data = data_of(rows)
    # Numbers that differ in their last digits alone are refused, which has a test of its own.
    assume(all(leaf.dtype != torch.float64 for leaf in leaves(data.train.x).values()))
    x = draws(fit, data, 200, scale).numpy()
    assert x.shape == (200, rows.shape[1])
    assert np.isfinite(x).all()
    for drawn, column in zip(x.T, rows.T, strict=True):
        low, high = column.min(), column.max()
        room = np.float32(0.1001) * (high - low)
        assert low - room <= drawn.min()
        assert drawn.max() <= high + room
        assert drawn.min() >= 0 or low < 0
        assert drawn.max() <= 0 or high > 0
        if (column == np.round(column)).all():
            assert (drawn == np.round(drawn)).all()
        if len(np.unique(column)) <= 4 and len(column) > 20:
            assert set(drawn) <= set(column)


# The mixture


def test_a_mixture_is_recovered() -> None:
    g = np.random.default_rng(0)
    weights = np.array([0.5, 0.3, 0.2])
    means = np.array([[0.0, 0], [8, 8], [-8, 8]])
    factors = np.array([[[1, 0], [0.9, 0.5]], [[1, 0], [0, 1]], [[0.3, 0], [0, 2]]])
    which = g.choice(3, 3000, p=weights)
    rows = means[which] + (factors[which] @ g.normal(size=(3000, 2, 1)))[:, :, 0]
    data = data_of(rows.astype(np.float32))
    state = state_of(Mixture(components=3), data)
    order = [int(np.argmin(((state["means"].numpy() - m) ** 2).sum(1))) for m in means]
    assert sorted(order) == [0, 1, 2]
    found = state["weights"].diff(prepend=torch.zeros(1)).numpy()[order]
    np.testing.assert_allclose(found, weights, atol=0.03)
    np.testing.assert_allclose(state["means"].numpy()[order], means, atol=0.15)
    got = state["factors"].numpy()[order]
    np.testing.assert_allclose(
        got @ got.transpose(0, 2, 1), factors @ factors.transpose(0, 2, 1), atol=0.25
    )
    # The draws are of that mixture too: what was standardised has been undone.
    x = draws(Mixture(components=3), data, 20_000).numpy()
    nearest = ((x[:, None] - means) ** 2).sum(2).argmin(1)
    np.testing.assert_allclose(np.bincount(nearest) / len(x), weights, atol=0.03)
    for k, mean in enumerate(means):
        np.testing.assert_allclose(x[nearest == k].mean(0), mean, atol=0.15)


def test_of_real_columns_it_is_the_mixture_of_scikit_learn() -> None:
    g = np.random.default_rng(0)
    rows = np.concatenate([g.normal(0, 1, (300, 2)), g.normal(3, 0.5, (200, 2))])
    standard = ((rows - rows.mean(0)) / rows.std(0)).astype(np.float32)
    reference = GaussianMixture(2, reg_covar=1e-3, random_state=0, tol=1e-6).fit(standard)
    told: list[float] = []
    Mixture(components=2).fit(
        data_of(standard), seed=0, folder=None, device=CPU, on_progress=lambda _, v: told.append(v)
    )
    assert told == [pytest.approx(-reference.score(standard), abs=2e-3)]


@pytest.mark.parametrize(("true", "spread"), [(1, 0), (2, 10), (4, 10)])
def test_the_number_of_components_is_chosen(true: int, spread: float) -> None:
    g = np.random.default_rng(0)
    centres = spread * np.array([[0, 0], [1, 1], [-1, 1], [1, -1]])
    rows = centres[g.integers(0, true, 800)] + g.normal(0, 1, (800, 2))
    state = state_of(Mixture(), data_of(rows.astype(np.float32)))
    assert len(state["weights"]) == true


def test_categories_go_with_the_numbers_they_go_with_in_the_data() -> None:
    for fit in (Mixture(), Mixture(components=2)):
        x = draws(fit, data_of(two_clusters()))
        assert float(((x[:, 0] > 0) == (x[:, 2] == 1)).float().mean()) > 0.995
        assert float((x[:, 2] == 1).float().mean()) == pytest.approx(2 / 3, abs=0.04)
        assert float(x[x[:, 2] == 0, 1].mean()) == pytest.approx(10, abs=0.3)


def test_categories_alone_are_a_latent_class_model() -> None:
    """Three columns that always agree, of which one is a one-hot group; and one on its own."""
    g = np.random.default_rng(0)
    which = g.integers(0, 4, 600)
    rows = np.column_stack([which, which * 0.25, np.eye(4)[which], g.integers(0, 2, 600)])
    data = data_of(rows.astype(np.float32))
    generator = fitted(Mixture(), data)
    assert generator.latent == generator.uniforms == 1 + 4
    x = call(generator, latents(generator))
    agree = (x[:, 1] == x[:, 0] / 4) & (x[:, 2:6].argmax(1) == x[:, 0])
    assert float(agree.float().mean()) > 0.995
    for value in range(4):
        assert float((x[:, 0] == value).float().mean()) == pytest.approx(0.25, abs=0.05)


def test_scale_0_gives_the_means_of_the_components() -> None:
    rows = two_clusters()[:, :2]
    data = data_of(rows)
    state = state_of(Mixture(components=2), data)
    x = draws(Mixture(components=2), data, scale=0)
    assert {tuple(r) for r in x.tolist()} == {tuple(m) for m in state["means"].tolist()}
    one = draws(Mixture(components=1), data, scale=0)
    np.testing.assert_allclose(one[0], rows.mean(0), rtol=1e-4)


def test_the_floor_keeps_a_component_from_collapsing() -> None:
    """Two columns of which one is twice the other."""
    g = np.random.default_rng(0)
    first = g.normal(0, 1, 400)
    data = data_of(np.column_stack([first, 2 * first]).astype(np.float32))
    for floor in (1e-2, 1e-6):
        x = draws(Mixture(components=1, covariance_floor=floor), data, 20_000)
        off = (x[:, 1] - 2 * x[:, 0]).std() / 2
        assert float(off) == pytest.approx((2 * floor) ** 0.5, rel=0.1)


# The kernel estimate


def test_scale_0_gives_training_rows() -> None:
    rows = mixed_rows()
    x = draws(Kernel(resample=0), data_of(rows), 8000, scale=0)
    stored = {tuple(r) for r in rows.tolist()}
    drawn = {tuple(r) for r in x.tolist()}
    assert drawn <= stored
    assert len(drawn) > 0.99 * len(stored)
    numbers = rows[:, [0, 1, 6]]
    x = draws(Kernel(), data_of(numbers), scale=0)
    assert {tuple(r) for r in x.tolist()} <= {tuple(r) for r in numbers.tolist()}


def test_the_bandwidth_is_in_deviations_of_the_column() -> None:
    g = np.random.default_rng(0)
    rows = (g.normal(0, 1, (500, 2)) * [1, 100]).astype(np.float32)
    data = data_of(rows)
    fit = Kernel(bandwidth=0.25)
    noise = draws(fit, data, 20_000) - draws(fit, data, 20_000, scale=0)
    np.testing.assert_allclose(noise.numpy().std(0) / rows.std(0), [0.25, 0.25], rtol=0.03)


def test_the_chosen_bandwidth_fits_the_data() -> None:
    g = np.random.default_rng(0)
    smooth = g.normal(0, 1, (600, 1))
    # Two narrow peaks far apart, for which Scott's rule is far too wide.
    peaks = g.choice([-1, 1], (600, 1)) + g.normal(0, 0.02, (600, 1))
    chosen = []
    for rows in (smooth, peaks):
        state = state_of(Kernel(), data_of(rows.astype(np.float32)))
        chosen.append(float(state["spread"]) / rows.std())
    scott = 600 ** (-1 / 5)
    assert 0.4 * scott < chosen[0] < 2.1 * scott
    assert chosen[1] < 0.1 * scott
    # Copies of the rows are no reason for no noise.
    twice = state_of(Kernel(), data_of(np.repeat(smooth, 4, axis=0).astype(np.float32)))
    assert float(twice["spread"]) / smooth.std() > 0.3 * scott


def test_categories_are_drawn_anew_with_the_given_probability() -> None:
    g = np.random.default_rng(0)
    rows = np.column_stack([g.integers(0, 100, 500), g.choice(3, 500, p=[0.5, 0.3, 0.2])])
    rows[:, 0] = rows[:, 1] * 1000 + rows[:, 0]  # tells which category the row had
    data = data_of(rows.astype(np.float32))
    frequencies = np.bincount(rows[:, 1]) / 500
    for resample in (0, 0.25, 1):
        x = draws(Kernel(resample=resample), data, 20_000, scale=0)
        had = (x[:, 0] // 1000).long()
        same = float((had == x[:, 1]).float().mean())
        assert same == pytest.approx(1 - resample * (1 - (frequencies**2).sum()), abs=0.02)
        now = torch.bincount(x[:, 1].long()) / len(x)
        np.testing.assert_allclose(now, frequencies, atol=0.02)


# Refusals


@pytest.mark.parametrize(
    ("kind", "given", "says"),
    [
        (Mixture, {"components": 0}, "components is 0; it must be at least 1"),
        (Mixture, {"covariance_floor": 0}, "covariance_floor is 0; it must be greater than 0"),
        (Kernel, {"bandwidth": 0.0}, "bandwidth is 0.0; it must be greater than 0"),
        (Kernel, {"bandwidth": math.nan}, "bandwidth is nan; it must be"),
        (Kernel, {"resample": 1.5}, r"resample is 1.5; it must be a probability in \[0, 1\]"),
        (Kernel, {"most_categories": 0}, "most_categories is 0; it must be at least 1"),
        (Mixture, {"atom": 0}, r"atom is 0; it must be a share in \(0, 1\]"),
        (Mixture, {"widen": -0.1}, "widen is -0.1; it must be at least 0"),
        (Mixture, {"columns": {"age": "real"}}, "columns has 'age'; it must name columns by posi"),
        (Kernel, {"columns": {"-1": "real"}}, "columns has '-1'"),
        (Kernel, {"columns": {"3": "int"}}, "columns.3 is 'int'; it must be one of real, integer"),
    ],
)
def test_settings_out_of_range_are_refused(
    kind: type[Fit], given: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        kind(**given)


@pytest.mark.parametrize("kind", BOTH)
def test_data_that_do_not_go_with_it_are_refused_before_and_when_fitting(kind: type[Fit]) -> None:
    name = "gmm" if kind is Mixture else "kde"
    swapped = data_of(mixed_rows()[:, [1, 0]])
    cases: list[tuple[Fit, Data, str]] = [
        (kind(), image_data(), f"{name} is for vectors, but x of data 'images' has shape"),
        (kind(), eye_data(), rf"{name} is .* x\['eye'\] of .* shape \(1, 12, 20\); images need"),
        (kind(columns={"5": "real"}), table_data(), "columns has '5'; .* columns '0' to '4'"),
        (kind(columns={"1": "integer"}), swapped, r"columns.1 is 'integer'; it has .* -\d+\.\d+"),
    ]
    for fit, data, says in cases:
        with pytest.raises(ValueError, match=says):
            fit.preview(data)
        with pytest.raises(ValueError, match=says):
            state_of(fit, data)


def test_more_components_than_rows_are_refused() -> None:
    rows = np.repeat(mixed_rows(5), 3, axis=0)
    with pytest.raises(ValueError, match="components is 6; it may be at most 5, the number of"):
        state_of(Mixture(components=6), data_of(rows))
    with pytest.raises(ValueError, match="components is 6"):
        Mixture(components=6).preview(data_of(rows))
    assert bool(torch.isfinite(draws(Mixture(components=5), data_of(rows), 50)).all())
