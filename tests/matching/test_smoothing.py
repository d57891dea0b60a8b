"""Label smoothing: a part of each label is spread evenly."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from extracurricular.distributions import Bernoulli, Categorical, Gaussian
from extracurricular.matching import Matching, describe
from extracurricular.matching.smoothing import smoothed_labels

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
