"""Label smoothing: a part of each label is spread evenly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from extracurricular.distributions import Bernoulli, Categorical, Gaussian, Task
from extracurricular.inputs import Batch
from extracurricular.matching import Matching, describe
from extracurricular.matching.smoothing import smoothed_labels
from extracurricular.teachers import LabelTeacher
from extracurricular.training import Training, train

GEN = torch.Generator().manual_seed(7)
LOGITS = torch.randn(8, 4, generator=GEN)
Y = torch.arange(8) % 4


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5])
def test_the_label_term_is_that_of_torch(part: float) -> None:
    student, teacher = Categorical(LOGITS), Categorical(LOGITS.flip(0))
    loss = Matching(label_weight=1.0, label_smoothing=part)(student, teacher, Y)
    torch.testing.assert_close(loss, F.cross_entropy(LOGITS, Y, label_smoothing=part))
    soft = F.one_hot(Y, 4).float() * 0.7 + 0.3 / 4
    loss = Matching(label_weight=1.0, label_smoothing=part)(student, teacher, soft)
    torch.testing.assert_close(loss, F.cross_entropy(LOGITS, soft, label_smoothing=part))


def test_several_labels_move_towards_a_half() -> None:
    y = torch.tensor([[0.0, 1.0]])
    said = Bernoulli(torch.zeros(1, 2))
    torch.testing.assert_close(smoothed_labels(y, said, 0.2), torch.tensor([[0.1, 0.9]]))


def test_real_targets_are_refused_and_so_is_a_part_of_1() -> None:
    with pytest.raises(ValueError, match=r"label_smoothing is 0\.1, but real targets have no cl"):
        smoothed_labels(torch.zeros(2, 1), Gaussian.from_output(torch.zeros(2, 2)), 0.1)
    for part in (1.0, -0.1):
        with pytest.raises(ValueError, match=r"label_smoothing is .*at least 0 and below 1"):
            Matching(label_smoothing=part)


def test_a_loss_without_it_is_described_as_before() -> None:
    assert "label_smoothing" not in describe(Matching())
    assert describe(Matching(label_smoothing=0.1))["label_smoothing"] == 0.1


def test_a_student_of_labels_learns_smoothed_ones() -> None:
    batch = Batch(torch.arange(8), torch.zeros(8, 1), Y, 4)
    said = LabelTeacher(smoothing=0.2)(batch)
    torch.testing.assert_close(said.mean, F.one_hot(Y, 4) * 0.8 + 0.05)
    assert torch.equal(LabelTeacher()(batch).mean, LabelTeacher(smoothing=0.0)(batch).mean)
    student = nn.Linear(2, 4)
    sampler = Fixed(Y)
    logged: list[dict[str, float]] = []
    train(
        student, sampler, LabelTeacher(), Task("classification", 4),
        matching=Matching(label_smoothing=0.9),
        settings=Training(steps=300, batch_size=8, lr=0.5, momentum=0.0),
        on_log=logged.append,
    )  # fmt: skip
    with torch.no_grad():
        probs = student(sampler(torch.arange(8)).x).softmax(-1)
    # Nothing can be learned from constant inputs but the mean of the smoothed labels.
    torch.testing.assert_close(probs, torch.full((8, 4), 0.25), atol=1e-3, rtol=0)
    entropy = -(0.325 * math.log(0.325) + 3 * 0.225 * math.log(0.225))
    assert logged[-1]["loss"] == pytest.approx(math.log(4) - entropy, abs=1e-3)


@dataclass(frozen=True)
class Fixed:
    """The same inputs for all ids."""

    y: torch.Tensor

    def __call__(self, ids: torch.Tensor) -> Batch:
        return Batch(ids, torch.ones(len(ids), 2), self.y[ids % 8], 4)
