"""Teachers of several labels and of soft labels: what they may answer, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import extracurricular as xcl
from extracurricular.data.base import Data
from extracurricular.distributions import Bernoulli, Categorical, Task
from extracurricular.inputs import Batch
from extracurricular.predictors.units import module_teacher
from extracurricular.samplers import Empirical, Mixup
from extracurricular.teachers import Ensemble, Labels, Network
from extracurricular.teachers.raw import FunctionTeacher, NotProbabilitiesError, read_answer
from tests.conftest import label_data, soft_data

LABELS = Task("multilabel", 3)


def batch(data: Data, count: int = 6) -> Batch:
    return Empirical(data)(torch.arange(count))


def test_answers_are_a_probability_or_log_odds_for_each_label() -> None:
    p = np.array([[0.9, 0.8, 0.0], [0.5, 1.0, 0.25]])
    said = read_answer(p, LABELS, "probs")
    assert isinstance(said, Bernoulli)
    np.testing.assert_allclose(said.probs.numpy(), p, atol=1e-6)
    odds = read_answer(np.array([[0.0, 2.0, -1.0]]), LABELS, "logits")
    np.testing.assert_allclose(odds.mean.numpy(), 1 / (1 + np.exp([[0.0, -2.0, 1.0]])), atol=1e-6)
    with pytest.raises(NotProbabilitiesError, match=r"labels with one of 2; .* output: logits"):
        read_answer(np.array([[2.0, 0.5, 0.5]]), LABELS, "probs")
    with pytest.raises(ValueError, match=r"of shape \(1, 2\); it must be \[B, 3\]"):
        read_answer(np.array([[0.5, 0.5]]), LABELS, "probs")
    with pytest.raises(ValueError, match="multilabel needs one of probs, logits"):
        FunctionTeacher(lambda x: x, label_data(), output="mean_std")


def test_labels_teach_as_they_are() -> None:
    data = label_data()
    drawn = batch(data)
    said = Labels()(drawn)
    assert isinstance(said, Bernoulli)
    assert drawn.y is not None
    torch.testing.assert_close(said.probs, drawn.y)
    mixed = Mixup(Empirical(data))(torch.arange(6))
    both = Labels()(mixed)
    assert mixed.y is not None
    torch.testing.assert_close(both.mean, mixed.y)
    soft = soft_data()
    given = batch(soft)
    as_classes = Labels()(given)
    assert isinstance(as_classes, Categorical)
    assert given.y is not None
    torch.testing.assert_close(as_classes.probs, given.y)
    halves = Mixup(Empirical(soft))(torch.arange(6))
    assert halves.y is not None
    torch.testing.assert_close(halves.y.sum(1), torch.ones(6))


def test_an_ensemble_of_labels_has_both_parts() -> None:
    data = label_data()
    networks = [Network(nn.Linear(5, 3), data.task) for _ in range(3)]
    teacher = Ensemble(networks)
    members = teacher.members(batch(data))
    said = teacher(batch(data))
    assert isinstance(said, Bernoulli)
    torch.testing.assert_close(said.probs, torch.stack([m.mean for m in members]).mean(0))


@pytest.mark.parametrize("make", [label_data, soft_data])
def test_a_module_is_asked_in_the_units_that_it_knows(make: object) -> None:
    data: Data = make()  # type: ignore[operator]
    scale = data.x_scale[""]
    size = data.task.size
    raw = nn.Linear(5, size)
    with torch.no_grad():
        if data.task.binary:
            raw.weight.copy_(torch.eye(5)[:size] * 4)
            raw.bias.fill_(-12.0)
        else:
            raw.weight.copy_(torch.eye(5)[:size])
            raw.bias.zero_()
    found = module_teacher(raw, data)
    assert isinstance(found, FunctionTeacher)
    standard = nn.Linear(5, size)
    with torch.no_grad():
        standard.weight.copy_(raw.weight * scale.scale)
        standard.bias.copy_(raw.bias + raw.weight @ scale.shift)
    other = module_teacher(standard, data)
    assert isinstance(other, Network)
    drawn = batch(data)
    torch.testing.assert_close(found(drawn).mean, other(drawn).mean, rtol=1e-3, atol=1e-4)
    constant = nn.Linear(5, size)
    nn.init.zeros_(constant.weight)
    nn.init.zeros_(constant.bias)
    word = "accuracy of labels" if data.task.binary else "accuracy"
    with pytest.raises(xcl.RecipeError, match=f"is no better than a constant .*{word}"):
        module_teacher(constant, data)
