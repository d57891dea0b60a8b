"""Draws of every class equally often."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from extracurricular.data.base import Data
from extracurricular.errors import RecipeError
from extracurricular.inputs import hard_labels
from extracurricular.samplers import Empirical, build_sampler
from extracurricular.samplers.balanced import Balanced
from tests.conftest import image_data, label_data, soft_data, table_data


def rare(count: int = 60) -> Data:
    """Four classes, of which the last has two examples and the third has none."""
    data = image_data(count=count, classes=4)
    y = torch.arange(count) % 2
    y[7] = y[20] = 3
    return replace(data, train=replace(data.train, y=y))


def labels(sampler: Balanced, ids: torch.Tensor) -> torch.Tensor:
    found = sampler(ids).y
    assert found is not None
    return hard_labels(found)


def test_draws_in_a_row_have_each_class_once() -> None:
    sampler = Balanced(rare(), seed=3)
    found = labels(sampler, torch.arange(300)).view(100, 3)
    assert found.sort(1).values.tolist() == [[0, 1, 3]] * 100
    assert len({tuple(row) for row in found.tolist()}) > 1  # in orders of their own


def test_within_a_class_all_examples_come_and_about_equally_often() -> None:
    data = rare()
    index = Balanced(data, seed=1).index(torch.arange(9000))
    assert data.train.y is not None
    for label in (0, 1, 3):
        own = (data.train.y == label).nonzero().squeeze(1)
        times = torch.bincount(index, minlength=60)[own]
        mean = 3000 / len(own)
        assert bool(((times - mean).abs() < 5 * mean**0.5).all())


def test_a_share_of_the_draws_is_balanced() -> None:
    data = rare()
    for of in (0.0, 0.5):
        found = labels(Balanced(data, seed=2, of=of), torch.arange(6000))
        wanted = of / 3 + (1 - of) * 2 / 60
        assert float((found == 3).double().mean()) == pytest.approx(wanted, abs=0.02)
    none = Balanced(data, seed=2, of=0.0).index(torch.arange(200))
    plain = Empirical(data, seed=2)
    assert sorted(none[:60].tolist()) == sorted(plain.index(torch.arange(60)).tolist())
    moving = build_sampler(
        [{"balanced": {"of": {"linear": [1.0, 0.0]}}}], data, 0, context=_training(6000)
    )
    found = labels(moving, torch.arange(6000))  # type: ignore[arg-type]
    early, late = ((part == 3).double().mean() for part in (found[:1000], found[-1000:]))
    assert early > 2 * late


def _training(draws: int) -> object:
    from extracurricular.samplers import Context

    return Context(draws=draws)


def test_examples_that_are_kept_out_are_not_drawn() -> None:
    data = replace(rare(), drawn=torch.tensor([0, 1, 2, 3, 7]))
    found = Balanced(data).index(torch.arange(600))
    assert set(found.tolist()) == {0, 1, 2, 3, 7}
    assert float((found == 7).double().mean()) == pytest.approx(1 / 3)


def test_soft_labels_count_as_their_most_probable_class() -> None:
    data = soft_data()
    assert data.train.y is not None
    hard = hard_labels(data.train.y)
    found = hard[Balanced(data).index(torch.arange(400))]
    counts = torch.bincount(found)
    assert counts[counts > 0].tolist() == [400 // int((counts > 0).sum())] * int((counts > 0).sum())


@pytest.mark.parametrize("data", [table_data, label_data])
def test_data_without_classes_are_refused(data: object) -> None:
    with pytest.raises(RecipeError, match=r"sampler.0.balanced: balanced draws classes equally of"):
        build_sampler(["balanced"], data(), 0)  # type: ignore[operator]


def test_a_share_out_of_its_range_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"of is 1.5; it must be a share between 0 and 1"):
        build_sampler([{"balanced": {"of": 1.5}}], rare(), 0)
    unlabelled = replace(rare(), train=replace(rare().train, y=None))
    with pytest.raises(RecipeError, match="which needs training labels"):
        build_sampler(["balanced"], unlabelled, 0)
