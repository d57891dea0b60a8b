"""Predictions against a constant's, in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from extracurricular.data.base import Data, make_data
from extracurricular.distributions import Bernoulli, Categorical, Gaussian
from extracurricular.evaluation.constant import against_constant, constant, is_dead
from extracurricular.evaluation.marks import mark_sentences, marks_of
from extracurricular.evaluation.predict import own_units

R = np.random.default_rng(0)
X = R.normal(size=(300, 2)).astype(np.float32)


def reals(unit: float = 1.0) -> Data:
    y = unit * (3 * X[:, :1] + 5)
    return make_data("r", (X[:200], y[:200]), (X[200:], y[200:]))


def classes(shares: list[float]) -> Data:
    edges = np.cumsum([0, *shares])
    y = np.searchsorted(edges, np.arange(300) * 0.618 % 1, "right") - 1
    return make_data("c", (X[:200], y[:200]), (X[200:], y[200:]))


@pytest.mark.parametrize("unit", [1.0, 1e-30, 1e30])
def test_the_constant_of_real_targets_has_their_mean_and_deviation(unit: float) -> None:
    data = reals(unit)
    assert data.train.y is not None
    assert data.test.y is not None
    own = data.train.y.double()
    said = constant(data, 4)
    assert isinstance(said, Gaussian)
    assert said.mean[0] / unit == pytest.approx(float(own.mean()) / unit, rel=1e-6)
    assert said.std[0] / unit == pytest.approx(float(own.std(correction=0)) / unit, rel=1e-5)
    found = against_constant(constant(data, 100), data.test.y, data)
    z = (data.test.y.double() - own.mean()) / own.std(correction=0)
    rmse = float(z.square().mean().sqrt())
    assert found.error == pytest.approx(rmse, rel=1e-5)
    assert found.constant_error == pytest.approx(rmse, rel=1e-5)
    nll = 0.5 * (math.log(2 * math.pi) + rmse**2)
    assert found.constant_nll == pytest.approx(nll, rel=1e-5)
    assert not found.better
    assert found.same


def test_an_answer_that_follows_the_target_is_better_and_one_that_does_not_is_not() -> None:
    data = reals()
    y = data.test.y
    assert y is not None
    good = Gaussian(y + 0.1, torch.full_like(y, -2.0))
    assert against_constant(good, y, data).better
    shuffled = Gaussian(y.roll(7), torch.full_like(y, 2.0))
    assert not against_constant(shuffled, y, data).better
    gone = Gaussian(torch.full_like(y, math.nan), torch.zeros_like(y))
    assert not against_constant(gone, y, data).better


def test_a_variance_that_is_far_out_is_dead() -> None:
    data = reals()
    assert data.test.y is not None
    for log_var, dead in ((-16.0, True), (16.0, True), (-13.0, False)):
        raw = torch.stack([torch.zeros(100), torch.full((100,), log_var)], -1)
        said = own_units(Gaussian.from_output(raw), data)
        assert is_dead(against_constant(said, data.test.y, data)) == dead


def test_means_that_are_better_may_be_too_sure() -> None:
    data = reals()
    y = data.test.y
    assert y is not None
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    found = against_constant(Gaussian(y + noise, torch.full_like(y, -8.0)), y, data)
    assert found.better
    assert found.too_sure


def test_the_constant_of_classes_has_their_frequencies() -> None:
    data = classes([0.5, 0.3, 0.2])
    y = data.train.y
    assert y is not None
    said = constant(data, 2)
    assert isinstance(said, Categorical)
    counts = y.bincount().double()
    torch.testing.assert_close(said.probs[0].double(), (counts + 1 / 3) / 201, rtol=1e-5, atol=0)
    assert data.test.y is not None
    found = against_constant(constant(data, 100), data.test.y, data)
    assert found.measure == "error_rate"
    assert found.error == pytest.approx(float((data.test.y != 0).double().mean()))
    assert not found.better


def test_of_unequal_classes_all_count_alike() -> None:
    data = classes([0.9, 0.1])
    y = data.test.y
    assert y is not None
    found = against_constant(constant(data, 100), y, data)
    assert found.measure == "balanced_error_rate"
    assert found.constant_error == pytest.approx(0.5)
    # It finds the rare class, at the price of an accuracy below the largest class's share.
    seen = torch.where((y == 1) | (torch.arange(100) % 5 == 0), 1, 0)
    probs = torch.nn.functional.one_hot(seen, 2) * 0.6 + 0.2
    rare = against_constant(Categorical.from_probs(probs), y, data)
    assert rare.better
    assert rare.error < 0.15


def test_chance_within_its_standard_error_is_no_better() -> None:
    data = classes([0.5, 0.5])
    y = data.test.y
    assert y is not None
    # Three more right answers than the constant has, where the error of the difference is ten.
    guess = y.roll(1)
    wanted = int((y == 0).sum()) + 3
    for place in range(100):
        if int((guess == y).sum()) >= wanted:
            break
        guess[place] = y[place]
    probs = torch.nn.functional.one_hot(guess, 2) * 0.98 + 0.01
    assert not against_constant(Categorical.from_probs(probs), y, data).better
    sure = torch.nn.functional.one_hot(y, 2) * 0.98 + 0.01
    assert against_constant(Categorical.from_probs(sure), y, data).better


def test_labels_are_compared_with_their_shares() -> None:
    y = (X[:, :2] > 0.5).astype(np.float32)
    data = make_data("m", (X[:200], y[:200]), (X[200:], y[200:]))
    assert data.task.kind == "multilabel"
    assert data.test.y is not None
    assert not against_constant(constant(data, 100), data.test.y, data).better
    right = Bernoulli.from_probs(data.test.y * 0.8 + 0.1)
    found = against_constant(right, data.test.y, data)
    assert found.better
    assert found.error == 0


def test_marks_are_told_by_name() -> None:
    good, bad = {"better": True}, {"problem": "no better than a constant: …"}
    rows = {
        "teacher": [{"against_constant": bad}, {"against_constant": bad}],
        "kd": [{"against_constant": good}, {"against_constant": {"note": "too sure of itself"}}],
        "old": [{}, {}],
    }
    marks = marks_of([0, 3], rows)
    assert [(mark["name"], mark["seed"]) for mark in marks] == [
        ("teacher", 0),
        ("teacher", 3),
        ("kd", 3),
    ]
    summary = {"seeds": [0, 3], "students": {"kd": {}, "old": {}}, "marks": marks}
    assert mark_sentences(summary) == [
        "the teacher, in 2 of 2 seeds, is no better than a constant: ….",
        "kd, in 1 of 2 seeds, is too sure of itself.",
    ]
