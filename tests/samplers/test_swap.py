"""Swap: marginals, one-hot groups, partners."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from extracurricular.data.base import Data, make_data
from extracurricular.data.sets.table import from_frame
from extracurricular.inputs import Batch
from extracurricular.samplers import Empirical, Noise
from extracurricular.samplers.swap import Swap, swap_batch
from extracurricular.samplers.table_columns import column_groups, table_rows
from tests.conftest import image_data, table_data

IDS = torch.arange(4000)


def mixed_data(count: int = 200) -> Data:
    """A real column, three columns of one category, a whole number."""
    rng = np.random.default_rng(0)
    kinds = np.eye(3)[rng.integers(0, 3, count)]
    x = np.column_stack([rng.normal(0, 5, count), kinds, rng.integers(0, 90, count)])
    y = rng.normal(0, 1, (count, 1)).astype(np.float32)
    x = x.astype(np.float32)
    return make_data("mixed", (x, y), (x[:20], y[:20]), (x[:10], y[:10]))


def raw(data: Data, batch: Batch) -> torch.Tensor:
    assert isinstance(batch.x, torch.Tensor)
    return data.x_scale[""].undo(batch.x)


def test_a_batch_takes_what_is_asked_of_the_other_and_keeps_its_labels() -> None:
    first = Batch(IDS[:2], torch.zeros(2, 3), torch.tensor([[1.0], [2.0]]))
    second = Batch(IDS[:2], torch.ones(2, 3), torch.tensor([[3.0], [4.0]]))
    taken = torch.tensor([[True, False, False], [False, True, True]])
    found = swap_batch(first, second, taken)
    assert isinstance(found.x, torch.Tensor)
    assert found.x.tolist() == [[1, 0, 0], [0, 1, 1]]
    assert found.y is first.y


def test_every_value_is_one_of_its_column_and_categories_stay_whole() -> None:
    data = mixed_data()
    rows = raw(data, Swap(Empirical(data), data, p=0.5)(IDS))
    for k, column in enumerate(table_rows(data, "swap").unbind(1)):
        near = (rows[:, k, None] - column).abs().amin(1)
        assert float(near.max()) < 1e-4
    assert torch.allclose(rows[:, 1:4].sum(1), torch.ones(len(rows)), atol=1e-5)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_a_column_is_swapped_with_probability_p_and_its_mean_stays(p: float) -> None:
    data = table_data(count=400)
    child = Empirical(data)
    rows, own = (sampler(IDS).x for sampler in (Swap(child, data, p=p), child))
    assert isinstance(rows, torch.Tensor)
    assert isinstance(own, torch.Tensor)
    changed = (rows != own).float().mean(0)
    # A partner can be the row itself, once in 400 draws.
    assert torch.allclose(changed, torch.full((5,), p), atol=0.03)
    assert float(rows.mean(0).abs().max()) < 0.06
    assert torch.allclose(rows.std(0), torch.ones(5), atol=0.05)


def test_all_swapped_columns_come_from_one_other_draw() -> None:
    data = table_data(count=100)
    rows = Swap(Empirical(data), data, p=0.5, seed=2)(IDS[:200])
    stored = data.inputs(data.train.x)
    assert isinstance(rows.x, torch.Tensor)
    assert isinstance(stored, torch.Tensor)
    of = (rows.x[:, None] == stored).float().argmax(1)
    assert max(len(set(row)) for row in of.tolist()) == 2


def test_columns_of_a_described_table_swap_as_the_person_named_them() -> None:
    rng = np.random.default_rng(0)
    frame = {
        "when": [f"2024-{1 + k % 12:02d}-{1 + k % 28:02d}" for k in range(60)],
        "colour": [("red", "green", "blue")[k % 3] for k in range(60)],
        "size": rng.normal(0, 1, 60).tolist(),
        "price": rng.normal(0, 1, 60).tolist(),
    }
    data = from_frame(frame, target="price")
    assert data.fields is not None
    of = column_groups(data, table_rows(data, "swap")).tolist()
    owners = [k for k, field in enumerate(data.fields.inputs) for _ in field.labels]
    assert of == owners
    assert len(owners) > len(data.fields.inputs)


def test_the_other_draw_is_made_by_the_child() -> None:
    data = table_data()
    noisy = Noise(Empirical(data), std=5.0)
    rows = Swap(noisy, data, p=1.0)(IDS[:100]).x
    stored = data.inputs(data.train.x)
    assert isinstance(rows, torch.Tensor)
    assert isinstance(stored, torch.Tensor)
    assert not (rows[:, None] == stored).any()
    assert Swap(noisy, data).asks == 0


def test_images_and_wrong_settings_are_refused_by_name() -> None:
    images, data = image_data(), table_data()
    with pytest.raises(
        ValueError, match=r"swap is for the columns of tables, but the input .* \(1, 8"
    ):
        Swap(Empirical(images), images)
    with pytest.raises(ValueError, match=r"p is 1.5; it must be a probability"):
        Swap(Empirical(data), data, p=1.5)
