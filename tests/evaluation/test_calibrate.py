"""Calibrations are optima in closed form, and conformal coverage is what was stated."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor

from extracurricular.data.transform import Rule, Transform
from extracurricular.data.transformed import Transformed
from extracurricular.distributions import (
    Bernoulli,
    Calibration,
    Categorical,
    Conformal,
    Distribution,
    Filed,
    Gaussian,
)
from extracurricular.evaluation.calibrate import (
    calibrate,
    fewest,
    fit_conformal,
    fit_temperature,
    rank,
    variance_factors,
)
from extracurricular.evaluation.calibrated import (
    calibration_figures,
    calibration_rows,
    calibration_sentence,
    interval_figures,
    plain_sets,
    set_figures,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def classes(count: int = 400, sharp: float = 3.0, seed: int = 0) -> tuple[Categorical, Tensor]:
    """Answers that are too sure by a factor: labels are drawn from logits, answers are sharper."""
    z = normal(count, 5, seed=seed)
    draw = torch.Generator().manual_seed(seed + 1)
    y = torch.multinomial(z.softmax(-1), 1, generator=draw)[:, 0]
    return Categorical(sharp * z), y


def reals(count: int = 400, seed: int = 0) -> tuple[Gaussian, Tensor]:
    """Answers with variances of their own, too small by 4 and too large by 9."""
    mean, log_var = normal(count, 2, seed=seed), normal(count, 2, seed=seed + 1)
    noise = normal(count, 2, seed=seed + 2) * torch.tensor([2.0, 1 / 3])
    return Gaussian(mean, log_var), mean + noise * (0.5 * log_var).exp()


def test_the_slope_of_the_nll_by_the_temperature_is_zero_at_the_optimum() -> None:
    said, y = classes()
    found = fit_temperature(said, y)
    beta = torch.tensor(1 / found, dtype=torch.float64, requires_grad=True)
    logits = beta * said.log_probs.double()
    nll = torch.nn.functional.cross_entropy(logits, y)
    [slope] = torch.autograd.grad(nll, beta)
    assert abs(float(slope)) < 1e-9
    assert 2.4 < found < 3.6  # the answers were made too sure by 3
    better = said.tempered(found).nll(y).double().mean()
    assert better < said.nll(y).double().mean()


def test_several_labels_have_one_temperature() -> None:
    z = normal(500, 3)
    y = torch.bernoulli((z / 2).sigmoid(), generator=torch.Generator().manual_seed(1))
    said = Bernoulli(z)
    found = fit_temperature(said, y)
    near = [float(said.tempered(found * f).nll(y).double().mean()) for f in (0.98, 1.0, 1.02)]
    assert near[1] == min(near)
    assert 1.5 < found < 2.7


def test_soft_labels_have_the_temperature_they_were_made_with() -> None:
    said, _ = classes(sharp=1.0)
    soft = said.tempered(2.5).probs
    assert fit_temperature(said, soft) == pytest.approx(2.5, rel=1e-5)


@pytest.mark.parametrize("sharp", [0.3, 1.0, 8.0])
def test_a_temperature_is_never_worse_on_the_examples_it_was_fitted_to(sharp: float) -> None:
    said, y = classes(60, sharp)
    nll = said.tempered(fit_temperature(said, y)).nll(y).double().mean()
    assert nll <= said.nll(y).double().mean() + 1e-9


def test_where_all_are_right_there_is_no_minimum_and_the_temperature_is_1() -> None:
    y = torch.arange(5).repeat(4)
    said = Categorical(2.0 * torch.nn.functional.one_hot(y, 5))
    assert fit_temperature(said, y) == 1.0


def test_answers_in_a_file_have_the_same_calibration() -> None:
    said, y = classes()
    filed = Filed.collect([said[:100], said[100:]])
    wanted = calibrate(said, y, temperature=True, coverage=0.8)
    assert calibrate(filed, y, temperature=True, coverage=0.8) == wanted


def test_a_factor_of_the_variance_is_the_optimum_of_each_output() -> None:
    said, y = reals()
    factors = variance_factors(said, y)
    z = ((y - said.mean).double().square() / said.var.double()).mean(0)
    assert factors == pytest.approx(z.tolist(), rel=1e-6)
    assert factors[0] == pytest.approx(4, rel=0.2)
    assert factors[1] == pytest.approx(1 / 9, rel=0.2)
    log_factor = torch.tensor(factors, dtype=torch.float64).log().requires_grad_()
    scaled = said.log_var.double() + log_factor
    nll = 0.5 * (scaled + (y - said.mean).double().square() * (-scaled).exp()).sum(-1).mean()
    [slope] = torch.autograd.grad(nll, log_factor)
    assert float(slope.abs().max()) < 1e-6
    fitted = Calibration(variance=factors)
    after = fitted(said)
    assert isinstance(after, Gaussian)
    assert after.nll(y).mean() < said.nll(y).mean()
    assert torch.allclose(after.var, said.var * torch.tensor(factors), rtol=1e-5)
    assert torch.equal(after.mean, said.mean)


def test_a_calibration_is_undone() -> None:
    said, _ = reals(20)
    fitted = Calibration(variance=(3.0, 0.2))
    assert torch.allclose(fitted.undone(fitted(said)).parameters, said.parameters, atol=1e-5)
    sure, _ = classes(20)
    softer = Calibration(temperature=2.5)
    assert torch.allclose(softer.undone(softer(sure)).mean, sure.mean, atol=1e-5)
    assert Calibration()(sure) is sure


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95, 0.99])
def test_the_fewest_examples_are_those_whose_bound_is_a_score(coverage: float) -> None:
    least = fewest(coverage)
    assert rank(least, coverage) <= least
    assert rank(least - 1, coverage) > least - 1


def test_ranks_are_not_moved_by_rounding() -> None:
    assert [rank(n, 0.9) for n in (9, 19, 99, 100)] == [9, 18, 90, 91]
    assert rank(99, 0.55) == 55  # 100 * 0.55 is a little more in binary
    assert rank(9, 0.7) == 7


def split_in_two(
    made: tuple[Distribution, Tensor], count: int
) -> list[tuple[Distribution, Tensor]]:
    said, y = made
    return [(said[:count], y[:count]), (said[count:], y[count:])]


@pytest.mark.parametrize("count", [19, 40])
def test_conformal_coverage_is_what_was_stated_on_exchangeable_data(count: int) -> None:
    """The expected coverage of continuous scores is rank / (n + 1) exactly, whatever the model."""
    stated, held, inside = 0.9, [], []
    for seed in range(150):
        [(said, y), (new, of_new)] = split_in_two(reals(count + 200, seed=10 * seed), count)
        assert isinstance(new, Gaussian)
        held.append(interval_figures(new, of_new, stated, fit_conformal(said, y, stated))[0])
        [(sure, label), (others, of_others)] = split_in_two(
            classes(count + 200, seed=10 * seed), count
        )
        assert isinstance(others, Categorical)
        sets = fit_conformal(sure, label, stated)
        inside.append(set_figures(others, of_others, sets)["coverage"])
    wanted = rank(count, stated) / (count + 1)
    for found in (held, inside):
        mean = sum(found) / len(found)
        error = torch.tensor(found).std() / math.sqrt(len(found))
        assert abs(mean - wanted) < 4 * error
        assert mean >= stated - 4 * error


def test_ties_keep_the_coverage() -> None:
    y = torch.tensor([0] * 8 + [1] * 2)
    said = Categorical.from_probs(torch.tensor([[0.7, 0.3]]).expand(10, 2))
    sets = fit_conformal(said, y, 0.8)
    # The ninth highest probability of a label is 0.3: the tie with the tenth is inside too.
    assert set_figures(said, y, sets)["coverage"] == 1.0
    few = fit_conformal(said, y, 0.7)
    assert few.least == pytest.approx(0.7)
    assert set_figures(said, y, few)["coverage"] == 0.8
    flat = Gaussian(torch.zeros(10, 1), torch.zeros(10, 1))
    known = fit_conformal(flat, torch.ones(10, 1), 0.8)
    assert known.deviations == (1.0,)
    assert interval_figures(flat, torch.ones(10, 1), 0.8, known) == (1.0, 2.0)


def test_a_set_may_be_empty() -> None:
    said = Categorical.from_probs(torch.tensor([[0.9, 0.1], [0.5, 0.5]]))
    sets = Conformal(0.5, least=0.6)
    assert sets.contains(said).tolist() == [[True, False], [False, False]]
    assert set_figures(said, torch.tensor([0, 0]), sets) == {
        "coverage": 0.5, "size": 0.5, "empty": 0.5
    }  # fmt: skip


def test_plain_sets_have_the_likeliest_classes_up_to_the_mass() -> None:
    said = Categorical.from_probs(torch.tensor([[0.5, 0.3, 0.2], [0.05, 0.95, 0.0]]))
    assert plain_sets(said, 0.75).tolist() == [[True, True, False], [False, True, False]]


def test_conformal_intervals_do_not_depend_on_a_factor_of_the_variance() -> None:
    said, y = reals()
    alone = calibrate(said, y, coverage=0.9)
    both = calibrate(said, y, variance=True, coverage=0.9)
    assert alone.conformal is not None
    assert both.conformal is not None
    after = both(said)
    assert isinstance(after, Gaussian)
    for one, other in zip(alone.conformal.bounds(said), both.conformal.bounds(after), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_a_transformed_target_is_calibrated_in_its_transform() -> None:
    transform = Transform((Rule("log"), Rule("none")))
    inner, z = reals()
    y = torch.stack([z[:, 0].exp(), z[:, 1]], 1)
    said = Transformed.of(inner, transform)
    assert variance_factors(said, y) == pytest.approx(variance_factors(inner, z), rel=1e-3)
    known, own = fit_conformal(said, y, 0.9), fit_conformal(inner, z, 0.9)
    assert known.deviations == pytest.approx(own.deviations, rel=1e-4)
    low, high = known.bounds(said)
    wanted = own.bounds(inner)
    assert torch.allclose(low[:, 0], wanted[0][:, 0].exp(), rtol=1e-3)
    assert torch.allclose(high[:, 1], wanted[1][:, 1], atol=1e-3)
    held = [((y >= low) & (y <= high)).double().mean(0).tolist()]
    assert held[0] == pytest.approx([0.9025] * 2, abs=0.003)  # rank 361 of 400


def test_a_calibration_is_the_same_after_it_was_written() -> None:
    made, y = reals()
    for found in (calibrate(made, y, variance=True, coverage=0.9), Calibration(temperature=1.7)):
        assert Calibration.load(found.dump()) == found


@pytest.mark.parametrize(
    "damaged",
    [
        None,
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"variance": [0.0]},
        {"conformal": {"coverage": 2.0}},
        {"conformal": []},
    ],
)
def test_a_damaged_calibration_is_refused(damaged: object) -> None:
    with pytest.raises(ValueError, match="calibration"):
        Calibration.load(damaged)


def test_what_cannot_be_calibrated_is_told() -> None:
    said, y = reals(8)
    sure, label = classes(8)
    with pytest.raises(ValueError, match=r"a coverage of 0\.9 needs at least 9 examples, and"):
        fit_conformal(said, y, 0.9)
    with pytest.raises(ValueError, match="temperature is for classes and labels; real targets"):
        fit_temperature(said, y)
    with pytest.raises(ValueError, match="variance is for real targets; classes and labels take"):
        variance_factors(sure, label)
    with pytest.raises(ValueError, match="not for several labels"):
        fit_conformal(Bernoulli(normal(20, 2)), torch.ones(20, 2), 0.5)
    with pytest.raises(ValueError, match="an answer has no variance"):
        variance_factors(Gaussian.point(y + 1), y)
    with pytest.raises(ValueError, match="no examples"):
        calibrate(sure[:0], label[:0], temperature=True)


def test_figures_stand_beside_those_from_before() -> None:
    said, y = reals()
    fitted = calibrate(said, y, variance=True, coverage=0.9)
    figures = calibration_figures(fitted, fitted(said), y)
    assert figures["coverage"] == pytest.approx(0.9025, abs=1e-4)
    # A deviation that is half of the error's holds 59 %, one that is three times it 100 %.
    assert figures["coverage_before"] == pytest.approx(0.795, abs=0.03)
    assert figures["nll"] < figures["nll_before"]
    entry = {"fitted": [fitted.dump()], "figures": figures}
    text = calibration_sentence("xcl", entry, "test")
    assert text.startswith("xcl is calibrated on 400 validation examples (variance × ")
    assert "its 90 % intervals hold 90.2 % of the targets of the test split" in text
    headings, rows = calibration_rows({"kd": {}, "xcl": {"calibration": entry}})
    assert headings[:3] == ["", "fitted", "coverage"]
    assert re.fullmatch(r"[\d.]+ → 90\.2 %", rows[0][2])
    assert [row[0] for row in rows] == ["xcl"]
    assert all(len(row) == len(headings) for row in rows)
