"""Figures of generators, against cases whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn

from extracurricular.data.base import Data, make_data
from extracurricular.generators import Generator
from extracurricular.generators.quality import (
    Quality,
    assess,
    coverage,
    flat_features,
    frechet_distance,
    pair_distances,
    teacher_features,
)
from extracurricular.inputs import Inputs, leaves
from extracurricular.models import build_model
from extracurricular.samplers import Generated
from tests.conftest import eye_data, image_data, table_data

CLASSES = 4


# Features


def test_features_are_what_the_last_linear_layer_takes_in() -> None:
    data = image_data()
    module = build_model({"mlp": {"hidden": [7, 5]}}, inputs=data.shapes, outputs=4).eval()
    assert isinstance(module, nn.Sequential)
    x = data.inputs(data.train.x)
    found = teacher_features(module)(x)
    assert torch.equal(found, module[:-1](x))
    assert found.shape == (60, 5)
    assert not found.requires_grad
    with pytest.raises(RuntimeError):
        teacher_features(module)(torch.zeros(3, 2, 2))
    # What listened in has gone, after a failure too.
    assert not any(part._forward_pre_hooks for part in module.modules())


def test_features_without_a_linear_layer_are_the_inputs() -> None:
    x = torch.randn(3, 2, 4, 4)
    assert torch.equal(teacher_features(nn.Conv2d(2, 2, 1))(x), x.flatten(1))
    data = eye_data()
    parts = data.inputs(data.train.x)
    found = flat_features(parts)
    assert found.shape == (40, 12 * 20 + 2)
    assert torch.equal(found[:, 240:], leaves(parts)["pose"])


# The Fréchet distance


def exactly(mean: list[float], deviation: list[float]) -> Tensor:
    """Points whose mean and (diagonal) covariance are just these."""
    axes = torch.tensor(deviation, dtype=torch.float64)
    count = 2 * len(axes)
    # Pairs of opposite points on each axis; torch.cov divides by one less than their number.
    points = torch.cat([torch.diag(axes), -torch.diag(axes)]) * math.sqrt((count - 1) / 2)
    return points + torch.tensor(mean, dtype=torch.float64)


def test_frechet_distance_in_closed_form() -> None:
    a = exactly([0, 0, 0], [1, 2, 3])
    assert torch.allclose(torch.cov(a.T), torch.diag(torch.tensor([1.0, 4, 9]).double()))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-12)
    moved = exactly([1, -2, 0.5], [1, 2, 3])
    assert frechet_distance(a, moved) == pytest.approx(1 + 4 + 0.25)
    spread = exactly([0, 0, 0], [4, 2, 1])
    assert frechet_distance(a, spread) == pytest.approx(9 + 0 + 4)
    both = exactly([3, 0, 0], [4, 2, 1])
    assert frechet_distance(a, both) == pytest.approx(9 + 13)
    assert frechet_distance(both, a) == pytest.approx(22)
    still = exactly([0, 0, 0], [0, 0, 0])
    assert frechet_distance(a, still) == pytest.approx(1 + 4 + 9)
    assert frechet_distance(a[:, :1], moved[:, :1]) == pytest.approx(1)


@pytest.mark.parametrize(("count", "width"), [(200, 5), (40, 40), (10, 30)])
def test_frechet_distance_agrees_with_the_matrix_square_root(count: int, width: int) -> None:
    """Fewer examples than features, and features that go together, included."""
    g = np.random.default_rng(0)
    a = g.normal(size=(count, width)) @ g.normal(size=(width, width))
    b = g.normal(size=(count + 3, width)) @ g.normal(size=(width, width)) + 1
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    root = scipy.linalg.sqrtm(cov_a @ cov_b)
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a + cov_b - 2 * root.real)
    found = frechet_distance(torch.from_numpy(a).float(), torch.from_numpy(b).float())
    assert found == pytest.approx(expected, rel=1e-3)


# Pairs


def test_pairs_are_of_one_class_and_of_two_examples() -> None:
    torch.manual_seed(0)
    label = torch.randint(0, 5, (2500,))
    condition = torch.eye(5)[label]
    assert not pair_distances(100.0 * label[:, None].float(), condition).any()
    # Numbers of their own: a pair of an example with itself would be 0.
    own = torch.arange(2500.0)[:, None]
    distance = pair_distances(own, condition)
    assert bool((distance >= 1).all())
    # Any partner is as likely: on average they are as far apart as two of the class are.
    mine = own[label == 2, 0]
    pairs = (mine[:, None] - mine).abs().sum() / (len(mine) * (len(mine) - 1))
    assert float(distance[label == 2].mean()) == pytest.approx(float(pairs), rel=0.12)
    assert torch.equal(pair_distances(own, condition), distance)
    assert not torch.equal(pair_distances(own, condition, seed=1), distance)


def test_pairs_of_real_conditions_are_neighbours() -> None:
    condition = torch.tensor([[0.0, 0.0], [0.0, 0.1], [5.0, 5.0], [5.0, 5.2], [9.0, 0.0]])
    features = torch.tensor([[0.0], [3.0], [10.0], [14.0], [100.0]])
    assert pair_distances(features, condition).tolist() == [3, 3, 4, 4, 90]


# Coverage


def test_coverage() -> None:
    torch.manual_seed(0)
    real = torch.randn(300, 4)
    assert coverage(real, real) == 1
    assert coverage(real, real + 100) == 0
    assert coverage(real, torch.randn(300, 4)) > 0.85
    # Only one half is drawn: about that half is covered.
    assert coverage(real, real[real[:, 0] > 0]) == pytest.approx(0.5, abs=0.25)
    assert coverage(real, real[:1].expand(300, -1)) < 0.05


def test_coverage_on_a_line() -> None:
    real = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    # The radii to the nearest other: 1, 1, 2, 4.
    assert coverage(real, torch.tensor([[0.5]]), neighbours=1) == 0.5
    assert coverage(real, torch.tensor([[2.5]]), neighbours=1) == 0.25
    assert coverage(real, torch.tensor([[10.9], [-1.0]]), neighbours=1) == 0.5
    # To the second: 3, 2, 3, 6.
    assert coverage(real, torch.tensor([[2.5]]), neighbours=2) == 1
    # There are only three others.
    assert coverage(real, torch.tensor([[8.0]]), neighbours=9) == coverage(
        real, torch.tensor([[8.0]]), neighbours=3
    )
    assert math.isnan(coverage(real[:1], real))


# All of them


def clouds(count: int = 800, held: int = 800) -> Data:
    """Classes that are Gaussian clouds in six dimensions, far apart."""
    torch.manual_seed(0)
    y = torch.arange(count + held) % CLASSES
    x = torch.randn(count + held, 6) + 8 * torch.eye(6)[y]
    held_out = (x[count:], y[count:])
    return make_data("clouds", (x[:count], y[:count]), held_out, held_out)


def cloud(
    change: Callable[[Tensor, Tensor], Tensor] = lambda latent, condition: latent, **settings: Any
) -> Generator:
    """A perfect generator of these, but for a change of its latents."""

    def function(latent: Tensor, condition: Tensor) -> Inputs:
        return change(latent, condition) + 8 * condition @ torch.eye(6)[:CLASSES]

    return Generator(function, 6, **settings)


def replay(data: Data) -> Generator:
    """A generator that draws training examples of the class it is asked for."""
    x, y = data.train.x, data.train.y
    assert isinstance(x, Tensor)
    assert y is not None
    order = y.argsort()
    counts = y.bincount()
    first = counts.cumsum(0) - counts

    def function(latent: Tensor, condition: Tensor) -> Inputs:
        label = condition.argmax(1)
        return x[order[first[label] + (latent[:, 0] * counts[label]).long()]].float()

    return Generator(function, 1, uniforms=1)


def nearest(x: Inputs) -> Tensor:
    """A teacher that knows the clouds: the coordinate in which an example is large."""
    return leaves(x)[""][:, :CLASSES]


def measured(data: Data, generator: Generator, count: int = 800, **given: Any) -> Quality:
    sampler = Generated(data, generator, seed=3)

    def draw(ids: Tensor) -> tuple[Inputs, Tensor]:
        return sampler(ids).x, sampler.condition(ids)

    return assess(generator, data, draw, flat_features, count=count, **given)


def test_a_perfect_generator_is_as_good_as_held_out_examples() -> None:
    found = measured(clouds(), cloud(), predict=nearest)
    assert found.floor is not None
    assert found.frechet == pytest.approx(found.floor, rel=0.5)
    assert found.variety == pytest.approx(1, abs=0.05)
    assert found.least_variety == pytest.approx(1, abs=0.15)
    assert found.ceiling is not None
    assert found.coverage == pytest.approx(found.ceiling, abs=0.05)
    assert found.coverage > 0.9
    assert found.label_error == found.real_error == 0


def test_coverage_and_its_ceiling_are_comparable() -> None:
    """However many examples are held out or drawn."""
    found = measured(clouds(held=100), cloud())
    assert found.ceiling is not None
    assert found.coverage == pytest.approx(found.ceiling, abs=0.1)


def test_the_order_of_training_examples_plays_no_part() -> None:
    data = clouds()
    assert data.train.y is not None
    ordered = replace(data, train=data.train[data.train.y.argsort()])
    found = measured(ordered, cloud(), count=200)
    assert found.coverage > 0.9


def test_real_data_replayed() -> None:
    for data in (clouds(), image_data(count=240, size=4)):
        found = measured(data, replay(data))
        assert found.floor is not None
        assert found.frechet < max(found.floor, 0.2 * leaves(data.train.x)[""][0].numel())
        assert found.variety == pytest.approx(1, abs=0.05)
        assert found.least_variety == pytest.approx(1, abs=0.15)


def test_a_generator_that_ignores_its_latent_has_no_variety() -> None:
    found = measured(clouds(), cloud(lambda latent, condition: torch.zeros_like(latent)))
    assert found.variety == pytest.approx(0, abs=1e-6)
    assert found.least_variety == pytest.approx(0, abs=1e-6)
    assert found.floor is not None
    assert found.frechet > 10 * found.floor
    assert found.coverage < 0.3
    half = measured(clouds(), cloud(lambda latent, condition: latent / 2))
    assert half.variety == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("label", [0, 2])
def test_one_class_that_has_collapsed_is_found(label: int) -> None:
    def change(latent: Tensor, condition: Tensor) -> Tensor:
        return latent * (condition.argmax(1) != label)[:, None]

    found = measured(clouds(), cloud(change))
    assert found.least_varied == label
    assert found.least_variety == pytest.approx(0, abs=1e-6)
    assert found.variety == pytest.approx(1 - 1 / CLASSES, abs=0.1)


def test_classes_that_hardly_occur_are_left_out() -> None:
    data = clouds()
    assert data.train.y is not None
    keep = (data.train.y != 1) | (torch.arange(800) == 1)
    rare = replace(data, train=data.train[keep])
    found = measured(rare, cloud(lambda z, c: z * (c.argmax(1) != 1)[:, None]))
    assert found.least_varied != 1
    assert found.least_variety == pytest.approx(1, abs=0.15)


def test_a_generator_of_wrong_classes_shows_in_the_label_error() -> None:
    def function(latent: Tensor, condition: Tensor) -> Inputs:
        return latent + 8 * condition.roll(1, 1) @ torch.eye(6)[:CLASSES]

    found = measured(clouds(), Generator(function, 6), predict=nearest)
    assert found.label_error == 1
    assert found.real_error == 0
    assert found.variety == pytest.approx(1, abs=0.05)


def test_real_targets() -> None:
    """A table whose first column is its target; the errors are in standardised units."""
    torch.manual_seed(0)
    x = torch.randn(600, 3) * 5 + 2
    y = 10 * x[:, :1]
    data = make_data("line", (x, y), (x[:200], y[:200]), (x[:200], y[:200]))
    assert data.y_scale is not None
    scale = data.y_scale

    def function(latent: Tensor, condition: Tensor) -> Inputs:
        wanted = (condition * scale.scale + scale.shift) / 10
        return torch.cat([wanted, latent * 5 + 2], 1)

    def predict(offset: float) -> Callable[[Inputs], Tensor]:
        return lambda x: leaves(x)[""][:, :1] + offset

    found = measured(data, Generator(function, 2), predict=predict(0.5))
    assert found.label_error == pytest.approx(0.5, abs=1e-4)
    assert found.real_error == pytest.approx(0.5, abs=1e-4)
    assert (found.least_variety, found.least_varied) == (None, None)
    # Neighbours in the target differ in the other two columns alone, and so do the draws.
    assert found.variety == pytest.approx(1, abs=0.1)


def test_what_there_is_nothing_to_compare_with_is_left_out() -> None:
    data = clouds()
    bare = replace(data, validation=data.validation[:0])
    found = measured(bare, cloud(), predict=nearest)
    assert (found.floor, found.ceiling, found.real_error) == (None, None, None)
    assert found.label_error == 0
    without = measured(data, cloud())
    assert (without.label_error, without.real_error) == (None, None)
    free = measured(data, cloud(conditional=False), predict=nearest)
    assert (free.label_error, free.least_variety, free.least_varied) == (None, None, None)
    assert free.real_error == 0


def test_an_unconditional_generator_is_as_varied_as_all_the_data() -> None:
    """Within a class or between classes makes no difference where there is no condition."""
    data = table_data(800)
    x = data.train.x
    assert isinstance(x, Tensor)

    def function(latent: Tensor, condition: Tensor) -> Inputs:
        return x[(latent[:, 0] * len(x)).long()]

    found = measured(data, Generator(function, 1, uniforms=1, conditional=False))
    assert found.variety == pytest.approx(1, abs=0.1)


def test_the_same_ids_give_the_same_figures() -> None:
    a, b = (measured(clouds(), cloud(), predict=nearest) for _ in range(2))
    assert a == b
    assert a.plain()["frechet"] == a.frechet
