"""Splits: an order with every class in proportion, and sizes that cannot be."""

from __future__ import annotations

import numpy as np
import pytest

from extracurricular.data.splits import (
    part_size,
    repeats,
    split_rows,
    strata,
    stratified_order,
)
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


def test_real_targets_are_cut_into_tenths() -> None:
    y = np.random.default_rng(0).permutation(1000).astype(float)
    tenths = strata(y[:, None])
    assert np.bincount(tenths).tolist() == [100] * 10
    assert (np.diff(tenths[np.argsort(y)]) >= 0).all()
    assert np.array_equal(strata(np.stack([y, -y], 1)), tenths), "the first target decides"
    assert strata(np.arange(30.0)).max() == 2, "a stratum has ten examples"
    assert (
        strata(np.zeros(500)).max() == 9
        or strata(np.zeros(500)).min() == strata(np.zeros(500)).max()
    )
    assert strata(np.array([3, 1])).tolist() == [3, 1]


def test_parts_are_disjoint_complete_and_in_proportion() -> None:
    y = np.array([0] * 60 + [1] * 30 + [2] * 10)
    for stratify in (True, False):
        parts = split_rows("here", y, [20, 10, 70], 4, stratify=stratify)
        assert sorted(np.concatenate(parts).tolist()) == list(range(100))
        assert [len(part) for part in parts] == [20, 10, 70]
        assert all((np.diff(part) > 0).all() for part in parts)
    parts = split_rows("here", y, [20, 10, 70], 4)
    assert np.bincount(y[parts[0]]).tolist() == [12, 6, 2]
    assert np.bincount(y[parts[1]]).tolist() == [6, 3, 1]


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_whole_and_classes_in_proportion(seed: int) -> None:
    g = np.random.default_rng(seed)
    group = g.integers(0, 60, 1000)
    # The class goes by the group, so that chance alone would give parts other shares.
    y = (group % 3 == 0).astype(int)
    parts = split_rows("here", y, [200, 100, 700], seed, group=group)
    assert sorted(np.concatenate(parts).tolist()) == list(range(1000))
    owners = [set(group[part]) for part in parts]
    assert not owners[0] & owners[1]
    assert not owners[0] & owners[2]
    assert not owners[1] & owners[2]
    for part, size in zip(parts, (200, 100, 700), strict=True):
        assert abs(len(part) - size) <= 30
        assert abs(y[part].mean() - y.mean()) < 0.1
    names = np.array([f"person {k}" for k in group])
    assert [p.tolist() for p in split_rows("", y, [200, 100, 700], seed, group=names)] != []


def test_no_part_is_asked_for_and_none_is_given() -> None:
    group = np.arange(100) % 10
    parts = split_rows("here", np.zeros(100, int), [20, 0, 80], 0, group=group)
    assert [len(part) for part in parts] == [20, 0, 80]
    parts = split_rows("here", np.zeros(100, int), [20, 0, 80], 0, time=np.arange(100))
    assert parts[0].tolist() == list(range(80, 100))
    assert len(parts[1]) == 0


def test_the_latest_are_tested_on_and_a_moment_stays_whole() -> None:
    time = np.random.default_rng(0).integers(0, 12, 300)
    parts = split_rows("here", np.zeros(300), [60, 30, 210], 0, time=time)
    assert sorted(np.concatenate(parts).tolist()) == list(range(300))
    assert time[parts[2]].max() < time[parts[1]].min()
    assert time[parts[1]].max() < time[parts[0]].min()
    dates = np.datetime64("2024-01-01") + time.astype("timedelta64[D]")
    again = split_rows("here", np.zeros(300), [60, 30, 210], 0, time=dates)
    assert [p.tolist() for p in again] == [p.tolist() for p in parts]


def test_splits_that_cannot_be() -> None:
    y = np.zeros(30)
    with pytest.raises(DataError, match="here: group and time are both set"):
        split_rows("here", y, [6, 3, 21], 0, group=y, time=y)
    with pytest.raises(DataError, match="here: the 1 groups are too few or too unequal for parts"):
        split_rows("here", y, [6, 3, 21], 0, group=y)
    with pytest.raises(DataError, match="here: the 1 moments are too few or too unequal for"):
        split_rows("here", y, [6, 3, 21], 0, time=y)


def test_repeats_are_equal_to_the_last_bit() -> None:
    x = np.array([[1.0, 2], [0.0, 3], [4, 5]], dtype=np.float32)
    others = np.array([[4, 5], [-0.0, 3], [1, np.nextafter(np.float32(2), 3)]], dtype=np.float32)
    assert repeats(x, others).tolist() == [True, True, False]
    assert repeats(x.astype(np.uint8), x[:1].astype(np.uint8)).tolist() == [True]
    both = {"a": x, "b": np.array([1, 2, 3])}
    assert repeats(both, {"a": x, "b": np.array([1, 2, 4])}).tolist() == [True, True, False]
    assert repeats(x[:, :0], others[:, :0]).tolist() == [False] * 3
