"""Neighbours: the search, the law of the draws, grids and bounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from extracurricular.data.base import Data, make_data
from extracurricular.samplers import Empirical, neighbours
from extracurricular.samplers.neighbours import Neighbours, between, nearest
from extracurricular.samplers.table_columns import column_groups, grid, table_rows
from tests.conftest import image_data, table_data

IDS = torch.arange(3000)


def raw(sampler: Neighbours, ids: Tensor = IDS) -> Tensor:
    x = sampler(ids).x
    assert isinstance(x, Tensor)
    return sampler.data.x_scale[""].undo(x)


def columns(*values: np.ndarray) -> Data:
    x = np.column_stack(values).astype(np.float32)
    y = np.zeros((len(x), 1), dtype=np.float32) + x[:, :1]
    return make_data("columns", (x, y), (x[:20], y[:20]), (x[:10], y[:10]))


@pytest.mark.parametrize("at_once", [2**24, 700])
def test_the_nearest_are_those_of_all_distances(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "_AT_ONCE", at_once)
    points = torch.rand(300, 4, dtype=torch.float64)
    distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    distance.fill_diagonal_(torch.inf)
    assert torch.equal(nearest(points, 3), distance.topk(3, largest=False).indices)


def test_a_search_is_made_once_for_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_found", {})
    searches: list[int] = []

    def counted(points: Tensor, count: int) -> Tensor:
        searches.append(count)
        return nearest(points, count)

    monkeypatch.setattr(neighbours, "nearest", counted)
    first = Neighbours(table_data())(IDS).x
    again = Neighbours(table_data())(IDS).x
    assert isinstance(first, Tensor)
    assert isinstance(again, Tensor)
    assert torch.equal(first, again)
    assert searches == [1]
    for count in (2, 3, 4, 5):
        Neighbours(table_data(), count=count)
    assert len(neighbours._found) == 4
    Neighbours(table_data(count=51))
    assert searches == [1, 2, 3, 4, 5, 1]


def test_numbers_are_normal_about_the_neighbours_value() -> None:
    data = columns(np.linspace(-1e3, 1e3, 400) ** 3)
    found = grid(table_rows(data, ""), torch.tensor([0]))
    own, other = torch.full((40_000, 1), 3.0), torch.full((40_000, 1), 7.0)
    noise = torch.randn(40_000, 1, generator=torch.Generator().manual_seed(0))
    taken = torch.ones_like(noise, dtype=torch.bool)
    rows = between(own, other, taken, noise, 2.0, found)
    assert float(rows.mean()) == pytest.approx(7.0, abs=0.05)
    assert float(rows.std()) == pytest.approx(2.0, abs=0.05)
    assert torch.equal(between(own, other, ~taken, noise, 2.0, found), own)


def test_with_p_of_0_the_rows_are_stored_ones_with_their_labels() -> None:
    data = table_data()
    drawn, stored = Neighbours(data, p=0.0)(IDS), Empirical(data)(IDS)
    assert isinstance(drawn.x, Tensor)
    assert isinstance(stored.x, Tensor)
    assert isinstance(drawn.y, Tensor)
    assert isinstance(stored.y, Tensor)
    # Rows and labels have a stream of their own, and the same seed.
    assert torch.equal(drawn.x, stored.x)
    assert torch.equal(drawn.y, stored.y)


def test_grids_choices_and_bounds_of_the_training_rows_are_kept() -> None:
    rng = np.random.default_rng(0)
    count = 300
    kinds = np.eye(3)[rng.integers(0, 3, count)]
    data = columns(
        rng.lognormal(0, 1, count),
        rng.integers(0, 1000, count),
        np.round(rng.normal(15, 8, count), 2),
        rng.choice([0.25, 0.5, 7.75], count),
        kinds,
    )
    sampler = Neighbours(data, p=0.8, s=0.5, count=3)
    rows, stored = raw(sampler).double(), table_rows(data, "")
    assert (rows >= stored.amin(0).double() - 1e-4).all()
    assert (rows <= stored.amax(0).double() + 1e-4).all()
    for column, step in ((1, 1.0), (2, 0.01), (3, 0.25)):
        places = rows[:, column] / step
        assert float((places - places.round()).abs().max()) < 0.02
    assert set(rows[:, 3].mul(100).round().long().tolist()) == {25, 50, 775}
    assert torch.allclose(rows[:, 4:].sum(1), torch.ones(len(rows), dtype=torch.float64), atol=1e-5)
    # The real column has new values.
    assert ((rows[:, 0, None] - stored[:, 0]).abs().amin(1) > 1e-5).float().mean() > 0.5


def test_a_value_that_many_rows_share_is_taken_or_left() -> None:
    rng = np.random.default_rng(2)
    amount = np.where(rng.random(400) < 0.4, 0.0, rng.uniform(10, 20, 400))
    data = columns(amount, rng.normal(0, 1, 400))
    sampler = Neighbours(data, p=0.9, s=0.5)
    rows, stored = raw(sampler)[:, 0], table_rows(data, "")[:, 0]
    share = float((rows.abs() < 1e-4).float().mean())
    assert share == pytest.approx(float((amount == 0).mean()), abs=0.06)
    absent = stored[Empirical(data).index(IDS)] == 0
    assert absent.any()
    assert float((rows[absent, None] - stored).abs().amin(1).max()) < 1e-4


def test_the_step_of_a_grid_is_the_coarsest_that_holds_all_values() -> None:
    rng = np.random.default_rng(1)
    places = rng.integers(-500, 500, (400, 6))
    steps = np.array([1, 0.01, 5, 0.25, 1e-4, 0])
    x = places * steps
    x[:, 5] = rng.normal(0, 1, 400)
    data = columns(x)
    rows = table_rows(data, "")
    found = grid(rows, column_groups(data, rows))
    assert (found.up / found.down).tolist() == pytest.approx(steps.tolist())
    # A value of the grid is the very number that a file with it gives.
    assert torch.equal(found.put(rows)[:, :5], rows[:, :5])


def test_neighbours_are_sought_among_the_rows_that_are_drawn() -> None:
    data = columns(np.arange(60.0), np.arange(60.0) % 7)
    data = replace(data, drawn=torch.arange(0, 60, 2))
    sampler = Neighbours(data, count=2)
    assert set(sampler._near[data.drawn].flatten().tolist()) <= set(range(0, 60, 2))


def test_images_and_wrong_settings_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="neighbours is for the columns of tables"):
        Neighbours(image_data())
    with pytest.raises(ValueError, match=r"s is 0; it must be greater than 0"):
        Neighbours(table_data(), s=0)
    with pytest.raises(ValueError, match=r"count is 50; it must be at least 1 and less than .* 50"):
        Neighbours(table_data(), count=50)
