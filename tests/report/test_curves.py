"""The curves of the report against closed forms and the figures of the table."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from extracurricular.distributions import Categorical
from extracurricular.evaluation import metrics
from extracurricular.report.curves import (
    band,
    confusion,
    error_by_deviation,
    interval_coverage,
    log_edges,
    log_histogram,
    mean_by_rank,
    reliability,
    risk_coverage,
)


@pytest.mark.parametrize("seed", range(5))
def test_the_diagram_has_the_calibration_error_of_the_table(seed: int) -> None:
    torch.manual_seed(seed)
    prediction, y = Categorical(2 * torch.randn(300, 4)), torch.randint(4, (300,))
    confidence, predicted = prediction.probs.double().max(-1)
    bins = reliability(confidence.numpy(), (predicted == y).double().numpy())
    assert bins.ece == pytest.approx(metrics.figures(prediction, y)["ece"], abs=1e-6)
    assert bins.count.sum() == 300


def test_bins_are_means_and_empty_ones_are_left_out() -> None:
    bins = reliability(np.array([0.1, 0.3, 0.5, 1.0]), np.array([0.0, 1.0, 1.0, 1.0]), bins=2)
    assert bins.confidence == pytest.approx([0.2, 0.75])  # 0.5 belongs above, 1 to the last
    assert bins.accuracy.tolist() == [0.5, 1.0]
    assert bins.count.tolist() == [2, 2]
    assert reliability(np.ones(3), np.zeros(3)).count.tolist() == [3]


def test_risk_falls_where_confidence_knows_what_is_wrong() -> None:
    confidence, loss = np.array([0.6, 0.9, 0.8, 0.7]), np.array([1.0, 0.0, 0.0, 1.0])
    coverage = np.array([0.1, 0.5, 0.75, 1.0])
    assert risk_coverage(confidence, loss, coverage) == pytest.approx([0, 0, 1 / 3, 0.5])
    # One that knows nothing has the same risk everywhere, in whatever order examples come.
    assert risk_coverage(np.ones(4), loss, coverage) == pytest.approx([0.5] * 4)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.2, 0.5, 0.9]), st.booleans()), min_size=1), st.data())
def test_risk_does_not_depend_on_the_order(
    rows: list[tuple[float, bool]], data: st.DataObject
) -> None:
    coverage = np.linspace(0.05, 1, 20)
    curves = []
    for some in (rows, data.draw(st.permutations(rows))):
        confidence, loss = np.array(some, dtype=np.float64).T
        curves.append(risk_coverage(confidence, loss, coverage))
    assert curves[0] == pytest.approx(curves[1])
    assert curves[0][-1] == pytest.approx(np.mean([wrong for _, wrong in rows]))


def test_intervals_hold_what_they_should_of_gaussian_errors() -> None:
    masses = [0.1, 0.5, 0.9]
    z = np.random.default_rng(0).normal(size=(20_000, 2))
    assert interval_coverage(z, masses) == pytest.approx(masses, abs=0.01)
    # Deviations half as large as they should be: P(|z| < q/2).
    assert interval_coverage(2 * z, [0.9]) == pytest.approx([0.589], abs=0.01)
    assert interval_coverage(np.array([0.0, np.inf, np.nan]), [0.5]) == pytest.approx([1 / 3])


def test_a_calibrated_deviation_equals_the_error() -> None:
    rng = np.random.default_rng(0)
    deviation = np.exp(rng.normal(size=50_000))
    predicted, true = error_by_deviation(deviation, deviation * rng.normal(size=50_000))
    assert len(predicted) == 10
    assert (np.diff(predicted) > 0).all()
    assert true == pytest.approx(predicted, rel=0.06)
    small = error_by_deviation(np.array([3.0, 1.0]), np.array([5.0, 2.0]), bins=10)
    assert [part.tolist() for part in small] == [[1.0, 3.0], [2.0, 5.0]]


def test_means_by_rank_follow_the_score() -> None:
    score = np.array([3.0, 1.0, 2.0, 4.0])
    assert mean_by_rank(score, 10 * score, bins=2).tolist() == [15.0, 35.0]
    assert mean_by_rank(score, 10 * score).tolist() == [10.0, 20.0, 30.0, 40.0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_a_histogram_counts_every_value(values: list[float]) -> None:
    array = np.array(values)
    edges = log_edges(array)
    assert (np.diff(edges) > 0).all()
    assert edges[-1] / edges[0] <= 1.001e6
    assert log_histogram(array, edges).sum() == pytest.approx(1)


def test_confusions_are_true_by_predicted() -> None:
    counts = confusion(np.array([1, 1, 0]), np.array([0, 0, 2]), 3)
    assert counts.tolist() == [[0, 2, 0], [0, 0, 0], [1, 0, 0]]


def test_a_band_reaches_from_the_lowest_to_the_highest_where_all_are_known() -> None:
    x = np.array([1.0, 2.0, 3.0, 4.0])
    found = band([(x, x), (np.array([2.0, 4.0]), np.array([6.0, 10.0]))])
    assert found.x.tolist() == [2.0, 3.0, 4.0]
    assert found.low.tolist() == [2.0, 3.0, 4.0]
    assert found.high.tolist() == [6.0, 8.0, 10.0]
    assert found.mean.tolist() == [4.0, 5.5, 7.0]
