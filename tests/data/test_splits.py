"""Splits: an order with every class in proportion, and sizes that cannot be."""

from __future__ import annotations

import numpy as np
import pytest

from extracurricular.data.splits import part_size, stratified_order
from extracurricular.errors import DataError


def test_a_stratified_order() -> None:
    y = np.array([0] * 50 + [1] * 5 + [7] * 20)
    order = stratified_order(y, 3)
    assert sorted(order) == list(range(75))
    for k in range(76):
        counts = np.bincount(y[order[:k]], minlength=8)[[0, 1, 7]]
        assert np.abs(counts - np.array([50, 5, 20]) * k / 75).max() <= 1
    assert not np.array_equal(order, stratified_order(y, 4))
    assert np.array_equal(order, stratified_order(y, 3))


@pytest.mark.parametrize("value", [-1, 40, 41, 1.0, -0.5, float("nan"), 0.999])
def test_sizes_that_cannot_be(value: float) -> None:
    with pytest.raises(DataError, match="here: validation is"):
        part_size(value, 40, "validation", "here")
