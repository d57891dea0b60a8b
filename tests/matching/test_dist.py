"""DIST: correlations over classes and over examples."""

from __future__ import annotations

import torch

from extracurricular.distributions import Categorical
from extracurricular.matching import Matching, traits_of
from extracurricular.matching.dist import Dist

GEN = torch.Generator().manual_seed(4)
TEACHER, STUDENT = (Categorical(torch.randn(12, 5, generator=GEN) * 2) for _ in range(2))


def test_each_part_is_one_less_pearsons_correlation() -> None:
    p, q = TEACHER.probs, STUDENT.probs
    rows = [1 - torch.corrcoef(torch.stack([p[k], q[k]]))[0, 1] for k in range(12)]
    torch.testing.assert_close(Dist(3.0, 0.0)(TEACHER, STUDENT), 3 * torch.stack(rows))
    columns = [1 - torch.corrcoef(torch.stack([p[:, c], q[:, c]]))[0, 1] for c in range(5)]
    expected = 2 * torch.stack(columns).mean()
    torch.testing.assert_close(Dist(0.0, 2.0)(TEACHER, STUDENT), expected.expand(12))


def test_a_student_that_is_less_sure_in_the_same_way_loses_little() -> None:
    """Probabilities that are a shifted multiple of the teacher's correlate fully."""
    shy = Categorical.from_probs(0.5 * TEACHER.probs + 0.1)
    assert float(Dist()(TEACHER, shy).max()) < 1e-5
    assert float(TEACHER.kl(shy).mean()) > 0.05


def test_a_constant_class_counts_for_nothing() -> None:
    same = Categorical(torch.zeros(12, 5))
    assert float(Dist()(same, STUDENT).abs().max()) == 0
    one = slice(0, 1)
    torch.testing.assert_close(
        Dist(2.0, 2.0)(TEACHER[one], STUDENT[one]), Dist(2.0, 0.0)(TEACHER[one], STUDENT[one])
    )


def test_it_says_that_it_relates_examples() -> None:
    assert traits_of("dist").relates
    assert Matching({"dist": {"intra": 1.0}}).relates
    assert Matching({"temperatures": {"of": "dist"}}).relates
    assert not Matching("dkd").relates
