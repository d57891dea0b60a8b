"""Several temperatures at once: the mean of the losses at each."""

from __future__ import annotations

import pytest
import torch

from extracurricular.distributions import Bernoulli, Categorical, Gaussian
from extracurricular.errors import RecipeError
from extracurricular.matching import Matching, describe

GEN = torch.Generator().manual_seed(6)
A, B = (torch.randn(8, 6, generator=GEN) * 2 for _ in range(2))


@pytest.mark.parametrize("family", [Categorical, Gaussian, Bernoulli])
@pytest.mark.parametrize("of", ["forward_kl", "energy"])
def test_it_is_the_mean_over_the_temperatures(
    family: type[Categorical] | type[Gaussian] | type[Bernoulli], of: str
) -> None:
    teacher, student = family.from_output(A), family.from_output(B)
    several = Matching({"temperatures": {"values": [1, 2, 8], "of": of}}, 0.5)
    each = [Matching(of, t)(student, teacher) for t in (0.5, 1.0, 4.0)]
    torch.testing.assert_close(several(student, teacher), torch.stack(each).mean())


def test_one_temperature_is_the_plain_loss() -> None:
    teacher, student = Categorical(A), Categorical(B)
    one = Matching({"temperatures": {"values": [4.0]}})
    torch.testing.assert_close(one(student, teacher), Matching("forward_kl", 4.0)(student, teacher))


@pytest.mark.parametrize("values", [[], [0.0], [1.0, -2.0], [float("inf")]])
def test_values_must_be_positive(values: list[float]) -> None:
    with pytest.raises(RecipeError, match=r"values is .*; it must be a list of numbers greater"):
        Matching({"temperatures": {"values": values}})


def test_it_is_described_with_what_is_inside() -> None:
    spec = {"temperatures": {"values": [1, 4], "of": {"standardised": {"of": "dkd"}}}}
    assert describe(Matching(spec))["divergence"] == {
        "temperatures": {
            "values": [1, 4],
            "of": {"standardised": {"of": {"dkd": {"alpha": 1.0, "beta": 8.0}}}},
        }
    }
