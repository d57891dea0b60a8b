"""DKD: two parts of the KL, each with a weight of its own."""

from __future__ import annotations

import pytest
import torch

from extracurricular.distributions import Categorical
from extracurricular.errors import RecipeError
from extracurricular.matching import Matching, describe, find_divergence
from extracurricular.matching.dkd import DKD

GEN = torch.Generator().manual_seed(3)
TEACHER, STUDENT = (Categorical(torch.randn(16, 5, generator=GEN) * 2) for _ in range(2))


def test_the_parts_add_up_to_the_kl() -> None:
    """Equation 7 of the paper: with beta = 1 - p, the sum is the plain KL."""
    target_part = DKD(1.0, 0.0)(TEACHER, STUDENT)
    other_part = DKD(0.0, 1.0)(TEACHER, STUDENT)
    rest = 1 - TEACHER.probs.amax(-1)
    torch.testing.assert_close(target_part + rest * other_part, TEACHER.kl(STUDENT))


def test_each_part_is_its_formula() -> None:
    p, q = TEACHER.probs.double(), STUDENT.probs.double()
    for k in range(16):
        top = int(p[k].argmax())
        a, b = p[k, top], q[k, top]
        expected = a * (a / b).log() + (1 - a) * ((1 - a) / (1 - b)).log()
        others = [c for c in range(5) if c != top]
        r, s = p[k, others] / (1 - a), q[k, others] / (1 - b)
        rest = (r * (r / s).log()).sum()
        one = slice(k, k + 1)
        found = DKD(2.0, 3.0)(TEACHER[one], STUDENT[one])
        torch.testing.assert_close(
            found.double(), (2 * expected + 3 * rest).view(1), rtol=1e-4, atol=1e-6
        )


def test_two_classes_have_no_others_to_compare() -> None:
    teacher, student = Categorical(TEACHER.logits[:, :2]), Categorical(STUDENT.logits[:, :2])
    torch.testing.assert_close(DKD(1.0, 8.0)(teacher, student), teacher.kl(student))


def test_settings_are_read_described_and_refused() -> None:
    matching = Matching({"dkd": {"beta": 2}}, temperature=4.0)
    assert find_divergence(matching.divergence) == DKD(1.0, 2)
    assert describe(matching)["divergence"] == {"dkd": {"alpha": 1.0, "beta": 2}}
    assert describe(Matching("dkd"))["divergence"] == {"dkd": {"alpha": 1.0, "beta": 8.0}}
    with pytest.raises(RecipeError, match=r"beta is -1\.0; it must be finite and at least 0"):
        Matching({"dkd": {"beta": -1}})
    with pytest.raises(RecipeError, match=r"dkd\.gamma: unknown key 'gamma'; known: alpha, beta"):
        Matching({"dkd": {"gamma": 1}})
