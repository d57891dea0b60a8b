"""Gibbs: the search, the conditionals, and what stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from extracurricular.data.base import Data, make_data
from extracurricular.inputs import Batch
from extracurricular.samplers import Empirical, Swap, gibbs
from extracurricular.samplers.gibbs import Gibbs, nearest_but
from extracurricular.samplers.table_columns import table_rows
from tests.conftest import image_data, table_data

IDS = torch.arange(3000)


def linked_data(count: int = 500) -> Data:
    """Two numbers of correlation 0.95, a category of three that follows the first, hundredths."""
    rng = np.random.default_rng(0)
    first = rng.normal(0, 1, count)
    second = 0.95 * first + np.sqrt(1 - 0.95**2) * rng.normal(0, 1, count)
    kinds = np.eye(3)[np.digitize(first, [-0.5, 0.5])]
    x = np.column_stack([first, second, kinds, np.round(rng.normal(0, 1, count), 2)])
    x = x.astype(np.float32)
    y = x[:, :1]
    return make_data("linked", (x, y), (x[:20], y[:20]), (x[:10], y[:10]))


def rows_of(batch: Batch) -> Tensor:
    assert isinstance(batch.x, Tensor)
    return batch.x


@pytest.mark.parametrize("at_once", [2**24, 900])
def test_the_search_is_that_of_all_distances(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gibbs, "_AT_ONCE", at_once)
    rows, stored = torch.rand(40, 3), torch.rand(300, 3)
    weights = torch.tensor([1.0, 0.0, 4.0]).expand(40, 3)
    rank = torch.arange(40) % 5
    distance = torch.cdist(rows * weights.sqrt(), stored * weights[0].sqrt())
    expected = distance.argsort(1).gather(1, rank.unsqueeze(1)).squeeze(1)
    assert torch.equal(nearest_but(rows, stored, weights, rank, 5), expected)


def test_no_step_changes_nothing_and_one_step_one_column() -> None:
    data = table_data()
    own = rows_of(Empirical(data)(IDS))
    assert torch.equal(rows_of(Gibbs(Empirical(data), data, steps=0)(IDS)), own)
    changed = (rows_of(Gibbs(Empirical(data), data, steps=1)(IDS)) != own).sum(1)
    assert int(changed.max()) == 1
    # The row itself is one of the ten nearest.
    assert 0.8 < float(changed.float().mean()) <= 1


def test_dependent_columns_stay_so_where_swaps_part_them() -> None:
    data = linked_data()
    child = Empirical(data)

    def correlation(batch: Batch) -> float:
        rows = rows_of(batch)
        return float(torch.corrcoef(rows[:, :2].T)[0, 1])

    drawn = Gibbs(child, data, steps=6)(IDS)
    assert correlation(drawn) > 0.85
    assert correlation(Swap(child, data, p=0.5)(IDS)) < 0.6
    # And each column is still spread as in the training rows.
    assert torch.allclose(rows_of(drawn).std(0), torch.ones(6), atol=0.15)


def test_every_value_is_one_of_its_column_and_categories_stay_whole() -> None:
    data = linked_data()
    rows = data.x_scale[""].undo(rows_of(Gibbs(Empirical(data), data, steps=5)(IDS)))
    for k, column in enumerate(table_rows(data, "").unbind(1)):
        assert float((rows[:, k, None] - column).abs().amin(1).max()) < 1e-4
    assert torch.allclose(rows[:, 2:5].sum(1), torch.ones(len(rows)), atol=1e-5)


def test_values_come_from_rows_that_are_drawn() -> None:
    data = linked_data()
    data = replace(data, drawn=torch.arange(0, 500, 2))
    rows = rows_of(Gibbs(Empirical(data), data, steps=5)(IDS[:300]))
    kept = data.inputs(data.train.x)
    assert isinstance(kept, Tensor)
    assert (rows[:, None, 0] == kept[::2, 0]).any(1).all()


def test_images_and_wrong_settings_are_refused_by_name() -> None:
    images, data = image_data(), table_data()
    with pytest.raises(ValueError, match="gibbs is for the columns of tables"):
        Gibbs(Empirical(images), images)
    with pytest.raises(ValueError, match="steps is -1; it must be at least 0"):
        Gibbs(Empirical(data), data, steps=-1)
    with pytest.raises(ValueError, match=r"count is 51; it must be at least 1 and at most .* 50"):
        Gibbs(Empirical(data), data, count=51)
