"""Figures against independent implementations, closed forms and numbers made by hand."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, roc_auc_score, roc_curve
from torch import Tensor
from torchmetrics.functional import calibration_error, mean_absolute_error

from extracurricular.distributions import Categorical, Gaussian
from extracurricular.evaluation import metrics
from extracurricular.evaluation.metrics import (
    adaptive_ece,
    agreement,
    angular_error,
    aurc,
    auroc,
    brier,
    coverage,
    crps,
    error_of,
    fpr_at_tpr,
    gap_closed,
    gaze_vector,
    sharpness,
)


def classified(classes: int = 5, count: int = 400) -> tuple[Categorical, Tensor]:
    """Predictions that are right rather often, and labels."""
    g = torch.Generator().manual_seed(classes)
    y = torch.randint(classes, (count,), generator=g)
    logits = torch.randn(count, classes, generator=g) * 1.5 + 2 * F.one_hot(y, classes)
    return Categorical(logits), y


def predicted(count: int = 20_000, outputs: int = 2) -> tuple[Gaussian, Tensor]:
    """Predictions that are calibrated, and targets drawn from them."""
    g = torch.Generator().manual_seed(0)
    mean = torch.randn(count, outputs, generator=g) * 3
    log_var = torch.randn(count, outputs, generator=g)
    y = mean + (0.5 * log_var).exp() * torch.randn(count, outputs, generator=g)
    return Gaussian(mean, log_var), y


# Classification


@pytest.mark.parametrize("classes", [2, 5, 40])
def test_classification_figures(classes: int) -> None:
    prediction, y = classified(classes)
    figures = metrics.figures(prediction, y)
    assert set(figures) == {
        *("accuracy", "nll", "brier", "ece", "adaptive_ece", "aurc"),
        *("balanced_accuracy", "macro_f1", "macro_auroc", "macro_auprc"),
    }
    assert all(type(v) is float for v in figures.values())
    probs = prediction.logits.double().softmax(-1).numpy()
    labels = y.numpy()
    top = probs.argmax(1)
    assert figures["accuracy"] == pytest.approx(accuracy_score(labels, top), abs=1e-6)
    expected = log_loss(labels, probs, labels=np.arange(classes))
    assert figures["nll"] == pytest.approx(expected, rel=1e-5)
    one_hot = np.eye(classes)[labels]
    assert figures["brier"] == pytest.approx(((probs - one_hot) ** 2).sum(1).mean(), rel=1e-5)
    assert brier(prediction, y).shape == (len(y),)
    # ECE from its definition (Guo et al. 2017): 15 bins of equal width.
    confidence, right = probs.max(1), top == labels
    cell = np.minimum((confidence * 15).astype(int), 14)
    ece = sum(
        abs(right[cell == k].mean() - confidence[cell == k].mean()) * (cell == k).mean()
        for k in range(15)
        if (cell == k).any()
    )
    assert figures["ece"] == pytest.approx(ece, abs=1e-5)


def test_brier_of_two_classes_is_twice_that_of_scikit_learn() -> None:
    prediction, y = classified(2)
    expected = 2 * brier_score_loss(y.numpy(), prediction.probs[:, 1].double().numpy())
    assert float(brier(prediction, y).mean()) == pytest.approx(expected, rel=1e-5)


def test_best_and_worst_predictions() -> None:
    y = torch.tensor([0, 1, 2])
    sure = Categorical(torch.eye(3) * 1e4)
    best = metrics.figures(sure, y)
    none = dict.fromkeys(("nll", "brier", "ece", "adaptive_ece", "aurc"), 0)
    every = ("balanced_accuracy", "macro_f1", "macro_auroc", "macro_auprc")
    assert best == pytest.approx({"accuracy": 1, **none, **dict.fromkeys(every, 1)}, abs=1e-6)
    worst = metrics.figures(sure, (y + 1) % 3)
    one = dict.fromkeys(("ece", "adaptive_ece", "aurc"), 1)
    # An example's own class has probability 0, as has that of one of the other two examples.
    ranked = {"macro_auroc": 1 / 4, "macro_auprc": 1 / 3}
    none = dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1"), 0)
    assert worst == pytest.approx({"nll": 1e4, "brier": 2, **none, **one, **ranked}, rel=1e-6)
    # A constant prediction of the class shares is useless, yet its calibration error is 0.
    useless = metrics.figures(
        Categorical.from_probs(torch.tensor([[0.6, 0.4]] * 5)), torch.tensor([0, 0, 0, 1, 1])
    )
    assert useless["ece"] == pytest.approx(0, abs=1e-6)
    assert useless["brier"] == pytest.approx(0.48, rel=1e-5)


def two_classes(confidence: Any, right: Any) -> tuple[Categorical, Tensor]:
    """Predictions of class 0 with these confidences (above a half), right or wrong."""
    p = torch.as_tensor(confidence, dtype=torch.float64)
    probs = torch.stack([p, 1 - p], dim=1)
    return Categorical(probs.log()), (~torch.as_tensor(right)).long()


def test_adaptive_calibration_error_is_that_of_quantile_bins() -> None:
    g = np.random.default_rng(0)
    confidence = 0.5 + 0.5 * g.permutation(1500) / 1501 + 1e-4
    right = g.random(1500) < confidence**2
    prediction, y = two_classes(confidence, right)
    share, mean = calibration_curve(right, confidence, n_bins=15, strategy="quantile")
    assert len(share) == 15  # bins of 100 each
    assert adaptive_ece(prediction, y) == pytest.approx(np.abs(share - mean).mean(), rel=1e-5)
    assert metrics.figures(prediction, y)["adaptive_ece"] == adaptive_ece(prediction, y)
    overall = abs(right.mean() - confidence.mean())
    assert adaptive_ece(prediction, y, bins=1) == pytest.approx(overall, rel=1e-5)


def test_ece_is_that_of_torchmetrics_and_bins_of_equal_mass_are_others() -> None:
    prediction, y = classified(5, 4000)
    figures = metrics.figures(prediction, y)
    exact = calibration_error(
        prediction.probs, y, task="multiclass", num_classes=5, n_bins=15, norm="l1"
    )
    assert figures["ece"] == pytest.approx(float(exact), rel=1e-5)
    assert 0.5 < figures["adaptive_ece"] / figures["ece"] < 2
    assert figures["adaptive_ece"] != pytest.approx(figures["ece"], rel=1e-3)


def test_ece_by_hand() -> None:
    # Bins of [0.6, 0.67), [0.8, 0.87) and [0.93, 1]: off by 0.6 - 1, (0.8 + 0.85 - 1) and 0.95.
    prediction, y = two_classes([0.6, 0.82, 0.85, 0.95], [True, True, False, False])
    wanted = (0.4 + abs(0.82 + 0.85 - 1) + 0.95) / 4
    assert metrics.ece(prediction, y) == pytest.approx(wanted, rel=1e-5)
    assert metrics.ece(prediction, y, bins=1) == pytest.approx(abs(3.22 - 2) / 4, rel=1e-5)
    sure = Categorical.from_probs(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert metrics.ece(sure, torch.tensor([0, 0])) == pytest.approx(0.5)


def test_the_last_bin_of_the_ece_holds_certain_answers_too() -> None:
    """Ten answers of 0.95, of which nine are right, and ten of 1, all right: 97.5 and 95 %."""
    prediction, y = two_classes([0.95] * 10 + [1.0] * 10, [True] * 9 + [False] + [True] * 10)
    assert metrics.ece(prediction, y) == pytest.approx(0.025, abs=1e-6)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=1, max_size=40))
def test_ece_equals_a_second_implementation(answers: list[tuple[int, bool]]) -> None:
    """With confidences of 1/2 to 1 in steps of 1/60, often on edges, certain or tied."""
    confidences = [0.5 + part / 60 for part, _ in answers]
    prediction, y = two_classes(confidences, [right for _, right in answers])
    given_back = prediction.probs.max(-1).values.double().tolist()
    choices = prediction.probs.argmax(-1).tolist()
    total = 0.0
    for number in range(15):
        inside = [
            (choice == label) - confidence
            for confidence, choice, label in zip(given_back, choices, y.tolist(), strict=True)
            if number / 15 < confidence <= (number + 1) / 15
        ]
        total += abs(sum(inside))
    assert metrics.ece(prediction, y) == pytest.approx(total / len(answers), abs=1e-6)


def test_figures_need_no_library_that_takes_seconds_to_import() -> None:
    """Every process of a run would pay for it, in time and in memory."""
    code = (
        "import sys, torch\n"
        "from extracurricular.distributions import Categorical, Gaussian\n"
        "from extracurricular.evaluation.metrics import figures\n"
        "figures(Categorical(torch.zeros(3, 2)), torch.zeros(3, dtype=torch.int64))\n"
        "figures(Gaussian(torch.zeros(3, 2), torch.zeros(3, 2)), torch.zeros(3, 2))\n"
        "print(*({'torchmetrics', 'matplotlib', 'scipy', 'sklearn'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_with_fewer_examples_than_bins_each_is_one() -> None:
    prediction, y = two_classes([0.6, 0.9, 0.7], [True, False, True])
    assert adaptive_ece(prediction, y) == pytest.approx((0.4 + 0.9 + 0.3) / 3, rel=1e-5)


def test_aurc_by_hand() -> None:
    # Most confident first: right, wrong, right, wrong.
    prediction, y = two_classes([0.6, 0.9, 0.7, 0.8], [False, True, True, False])
    assert aurc(prediction, y) == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)
    # Confidence that orders perfectly leaves only the tail; turned round, it is far worse.
    best, y = two_classes([0.9, 0.8, 0.7, 0.6], [True, True, False, False])
    assert aurc(best, y) == pytest.approx((1 / 3 + 2 / 4) / 4)
    worst, y = two_classes([0.6, 0.7, 0.8, 0.9], [True, True, False, False])
    assert aurc(worst, y) == pytest.approx((1 + 1 + 2 / 3 + 2 / 4) / 4)


def test_aurc_of_one_confidence_for_all_is_the_error_rate() -> None:
    prediction, y = two_classes([0.7] * 40, [True] * 30 + [False] * 10)
    assert aurc(prediction, y) == pytest.approx(0.25)


@given(st.lists(st.tuples(st.sampled_from([0.6, 0.7, 0.8]), st.booleans()), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_equal_confidences_count_as_the_mean_over_their_orders(
    examples: list[tuple[float, bool]],
) -> None:
    prediction, y = two_classes(*zip(*examples, strict=True))
    areas = []
    for order in itertools.permutations(examples):
        if all(a[0] >= b[0] for a, b in itertools.pairwise(order)):
            wrong = np.array([not right for _, right in order])
            areas.append((wrong.cumsum() / np.arange(1, len(wrong) + 1)).mean())
    assert aurc(prediction, y) == pytest.approx(np.mean(areas))


@given(
    st.lists(
        st.tuples(st.sampled_from([0.55, 0.6, 0.7, 0.9]), st.booleans()), min_size=2, max_size=40
    ),
    st.randoms(use_true_random=False),
)
@settings(max_examples=50, deadline=None)
def test_no_figure_depends_on_the_order_of_the_examples(
    examples: list[tuple[float, bool]], random: Any
) -> None:
    shuffled = examples[:]
    random.shuffle(shuffled)
    one, other = (
        metrics.figures(*two_classes(*zip(*e, strict=True))) for e in (examples, shuffled)
    )
    assert one == pytest.approx(other, abs=1e-6)
    for name in ("aurc", "adaptive_ece"):
        assert 0 <= one[name] <= 1


def test_half_precision_logits_give_the_figures_of_single() -> None:
    prediction, y = classified()
    half = Categorical(prediction.logits.bfloat16())
    single = Categorical(half.logits.float())
    assert metrics.figures(half, y, teacher=half) == metrics.figures(single, y, teacher=single)


# Regression


def test_regression_figures() -> None:
    prediction, y = predicted()
    figures = metrics.figures(prediction, y)
    assert set(figures) == {"rmse", "mae", "nll", "crps", "coverage90", "sharpness90"}
    error = (prediction.mean - y).double()
    assert figures["rmse"] == pytest.approx(float(error.square().mean().sqrt()), rel=1e-5)
    scale = (0.5 * prediction.log_var.double()).exp()
    log_density = torch.distributions.Normal(prediction.mean.double(), scale).log_prob(y.double())
    assert figures["nll"] == pytest.approx(float(-log_density.sum(1).mean()), rel=1e-5)
    assert figures["coverage90"] == pytest.approx(0.9, abs=0.005)


def test_mae_is_that_of_torchmetrics() -> None:
    prediction, y = predicted(500)
    exact = mean_absolute_error(prediction.mean, y)
    assert metrics.figures(prediction, y)["mae"] == pytest.approx(float(exact), rel=1e-5)


def test_coverage_and_sharpness_in_closed_form() -> None:
    """Of standard normal predictions z deviations off: inside or not, 2 z of the mass wide."""
    count = 1000
    quantiles = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    y = torch.special.ndtri(quantiles).float()[:, None]
    normal = Gaussian(torch.zeros(count, 1), torch.zeros(count, 1))
    for mass in (0.5, 0.9, 0.95):
        assert coverage(normal, y, mass) == pytest.approx(mass, abs=1e-3)
        width = 2 * float(torch.special.ndtri(torch.tensor((1 + mass) / 2).double()))
        assert sharpness(normal, mass) == pytest.approx(width, rel=1e-5)
        tripled = Gaussian(normal.mean + 7, normal.log_var + 2 * math.log(3))
        assert sharpness(tripled, mass) == pytest.approx(3 * width, rel=1e-5)
    figures = metrics.figures(normal, y)
    assert figures["coverage90"] == coverage(normal, y)
    assert figures["sharpness90"] == sharpness(normal)
    assert metrics.figures(Gaussian.point(y), y)["sharpness90"] == 0


def test_coverage_tells_overconfidence_from_doubt() -> None:
    prediction, y = predicted()
    narrow = Gaussian(prediction.mean, prediction.log_var - 2)
    wide = Gaussian(prediction.mean, prediction.log_var + 2)
    assert metrics.figures(narrow, y)["coverage90"] < 0.6
    assert metrics.figures(wide, y)["coverage90"] > 0.99
    calibrated = metrics.figures(prediction, y)
    for worse in (narrow, wide):  # both proper scores see that too
        assert metrics.figures(worse, y)["crps"] > calibrated["crps"]
        assert metrics.figures(worse, y)["nll"] > calibrated["nll"]


def test_crps_of_the_standard_normal_at_its_mean() -> None:
    zero = torch.zeros(1, 1)
    expected = (math.sqrt(2) - 1) / math.sqrt(math.pi)  # 0.2337
    assert float(crps(Gaussian(zero, zero), zero)) == pytest.approx(expected, rel=1e-5)


@given(st.floats(-4, 4), st.floats(-4, 4), st.floats(-6, 6))
@settings(max_examples=50, deadline=None)
def test_crps_is_its_integral(mean: float, log_var: float, y: float) -> None:
    """Integral of (F(t) - 1[t >= y])² dt, over both sides of y apart."""
    std = math.exp(log_var / 2)
    reach = 10 * std

    def area(low: float, high: float, target: float) -> float:
        t = np.linspace(low, high, 20_001)
        z = torch.from_numpy((t - mean) / (std * math.sqrt(2)))
        return float(np.trapezoid((0.5 * (1 + torch.erf(z).numpy()) - target) ** 2, t))

    exact = area(min(mean, y) - reach, y, 0) + area(y, max(mean, y) + reach, 1)
    prediction = Gaussian(torch.tensor([[mean]]), torch.tensor([[log_var]]))
    got = crps(prediction, torch.tensor([[y]]))
    assert got.shape == (1, 1)
    assert float(got) == pytest.approx(exact, rel=1e-3, abs=1e-5)


def test_crps_of_a_point_prediction_is_the_absolute_error() -> None:
    y = torch.tensor([[1.0, -2.0, 0.5]])
    for log_var in (-math.inf, -1e4):
        prediction = Gaussian(torch.zeros(1, 3), torch.full((1, 3), log_var))
        torch.testing.assert_close(crps(prediction, y), y.abs(), rtol=1e-5, atol=1e-7)
    exact = crps(Gaussian.point(y), y)
    assert bool(torch.isfinite(exact).all())
    assert float(exact.abs().max()) < 1e-7


# Gaze


def test_gaze_vectors_are_unit_vectors_in_the_convention_of_mpiigaze() -> None:
    angles = (torch.rand(100, 2, dtype=torch.float64) - 0.5) * 3
    torch.testing.assert_close(gaze_vector(angles).norm(dim=1), torch.ones(100).double())
    ahead, up, left = torch.tensor([[0.0, 0.0], [0.3, 0.0], [0.0, 0.3]], dtype=torch.float64)
    # Ahead is -z; a positive pitch looks to -y, a positive yaw to -x.
    expected = torch.tensor(
        [[0, 0, -1], [0, -math.sin(0.3), -math.cos(0.3)], [-math.sin(0.3), 0, -math.cos(0.3)]],
        dtype=torch.float64,
    )
    torch.testing.assert_close(gaze_vector(torch.stack([ahead, up, left])), expected)
    # And back: the angles are recovered from the vector.
    x, y, z = gaze_vector(angles).unbind(1)
    torch.testing.assert_close(torch.stack([torch.asin(-y), torch.atan2(-x, -z)], 1), angles)


def test_angular_error_in_closed_form() -> None:
    angles = torch.tensor([[0.0, 0.0], [0.4, -0.7], [-1.2, 2.0]])
    assert float(angular_error(angles, angles).max()) < 1e-6
    yaw = torch.tensor([[0.0, 0.0], [0.0, 0.5], [0.0, math.pi]])
    level = torch.zeros(3, 2)
    expected = torch.tensor([0, math.degrees(0.5), 180], dtype=torch.float64)
    torch.testing.assert_close(angular_error(yaw, level), expected, rtol=1e-6, atol=1e-6)
    pitch = torch.tensor([[0.25, 0.9]])
    other = torch.tensor([[-0.25, 0.9]])
    assert float(angular_error(pitch, other)) == pytest.approx(math.degrees(0.5), rel=1e-6)
    # Looking straight up, the yaw means nothing.
    zenith = torch.tensor([[math.pi / 2, 0.0]], dtype=torch.float64)
    turned = torch.tensor([[math.pi / 2, 1.0]], dtype=torch.float64)
    assert float(angular_error(zenith, turned)) < 1e-6
    # Otherwise a yaw counts by the cosine of the pitch.
    a = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    b = torch.tensor([[1.0, 1e-3]], dtype=torch.float64)
    assert float(angular_error(a, b)) == pytest.approx(math.degrees(1e-3) * math.cos(1), rel=1e-4)


@pytest.mark.parametrize("difference", [1e-2, 1e-4, 1e-6, 1e-8])
def test_small_angles_are_precise(difference: float) -> None:
    a = torch.tensor([[0.0, 0.3]], dtype=torch.float64)
    b = torch.tensor([[0.0, 0.3 + difference]], dtype=torch.float64)
    expected = math.degrees(difference)
    assert float(angular_error(a, b)) == pytest.approx(expected, rel=1e-5, abs=1e-12)
    assert float(angular_error(b, a)) == pytest.approx(expected, rel=1e-5, abs=1e-12)
    assert float(angular_error(a.float(), a.float())) < 1e-6


def test_angular_error_is_that_of_the_arc_cosine() -> None:
    a, b = (torch.rand(2, 200, 2, dtype=torch.float64) - 0.5) * 2.5
    dot = (gaze_vector(a) * gaze_vector(b)).sum(1)
    torch.testing.assert_close(angular_error(a, b), torch.rad2deg(dot.acos()), rtol=1e-6, atol=1e-6)
    prediction = Gaussian(a.float(), torch.zeros(200, 2))
    figures = metrics.figures(prediction, b.float(), angular=True)
    assert figures["angular_error"] == pytest.approx(float(angular_error(a, b).mean()), rel=1e-5)
    assert "angular_error" not in metrics.figures(prediction, b.float())


# Telling two groups apart


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=30),
    st.lists(st.integers(0, 6), min_size=1, max_size=30),
)
@settings(max_examples=100, deadline=None)
def test_auroc_and_false_alarms_are_those_of_scikit_learn(
    positive: list[int], negative: list[int]
) -> None:
    p, n = torch.tensor(positive).float(), torch.tensor(negative).float()
    truth = [1] * len(positive) + [0] * len(negative)
    assert auroc(p, n) == pytest.approx(roc_auc_score(truth, positive + negative))
    assert auroc(p, n) == pytest.approx(1 - auroc(n, p))
    for rate in (0.5, 0.95, 1.0):
        fpr, tpr, _ = roc_curve(truth, positive + negative, drop_intermediate=False)
        assert fpr_at_tpr(p, n, rate) == pytest.approx(fpr[tpr >= rate - 1e-9].min())


def test_auroc_of_two_normals_in_closed_form() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 40_000, generator=g)
    exact = float(torch.special.ndtr(torch.tensor(1 / math.sqrt(2))))  # one deviation apart
    assert auroc(a + 1, b) == pytest.approx(exact, abs=0.005)
    assert auroc(b + 1e6, b) == 1
    assert fpr_at_tpr(b + 1e6, b) == 0


# Fidelity


def test_agreement_of_classes_is_the_share_of_equal_choices() -> None:
    a = Categorical(torch.eye(4))
    b = Categorical(torch.eye(4)[[0, 1, 2, 0]] * 9)
    assert agreement(a, b) == 0.75
    assert agreement(a, a) == 1
    assert agreement(a, Categorical(-torch.eye(4) + torch.arange(4.0) * 0.01)) < 0.5


def test_agreement_of_reals_is_the_share_within_the_interval_of_the_teacher() -> None:
    teacher = Gaussian(torch.zeros(2, 2), torch.tensor([[0.0, 0.0], [2 * math.log(10), 0.0]]))
    student = Gaussian(torch.tensor([[1.6, 1.7], [16.0, -1.7]]), torch.zeros(2, 2))
    assert agreement(student, teacher) == 0.5  # half the width is 1.645 deviations
    assert agreement(teacher, teacher) == 1


def test_fidelity_to_itself_is_perfect() -> None:
    for prediction, y in (classified(), predicted(100)):
        figures = metrics.figures(prediction, y, teacher=prediction)
        assert figures["kl_to_teacher"] == pytest.approx(0, abs=1e-6)
        assert figures["agreement"] == 1
        assert not {"kl_to_teacher", "agreement"} & set(metrics.figures(prediction, y))


def test_kl_to_teacher_is_the_forward_one() -> None:
    student, y = classified()
    teacher = Categorical(student.logits.flip(1) * 0.3)
    figures = metrics.figures(student, y, teacher=teacher)
    assert figures["kl_to_teacher"] == pytest.approx(float(teacher.kl(student).mean()), rel=1e-5)
    reverse = float(student.kl(teacher).mean())
    assert figures["kl_to_teacher"] != pytest.approx(reverse, rel=0.01)


# Gap closed


def test_the_error_of_figures() -> None:
    assert error_of({"angular_error": 4.0, "rmse": 2.0, "nll": 1.0}) == 4
    assert error_of({"nll": 1.0, "rmse": 2.0}) == 2
    assert error_of({"accuracy": 0.75, "nll": 9.0}) == pytest.approx(0.25)


def test_gap_closed_by_hand() -> None:
    # Means 0.5, 0.4, 0.3: half of the gap.
    got = gap_closed([0.45, 0.55, 0.5], [0.42, 0.38, 0.4], [0.29, 0.3, 0.31])
    assert got is not None
    assert set(got) == {"value", "ci95"}
    assert got["value"] == pytest.approx(0.5)
    low, high = got["ci95"]
    assert low < 0.5 < high
    assert type(low) is type(high) is type(got["value"]) is float


def test_gap_closed_is_a_ratio_of_means_not_a_mean_of_ratios() -> None:
    kd, student, teacher = [1.0, 0.2], [0.5, 0.2], [0.0, 0.1]
    got = gap_closed(kd, student, teacher)
    assert got is not None
    assert got["value"] == pytest.approx(0.5 / 1.1)  # the mean of ratios is 0.25


def test_gap_closed_is_0_for_kd_1_for_the_teacher_and_beyond_either() -> None:
    kd, teacher = [0.5, 0.52, 0.48], [0.3, 0.33, 0.31]
    for student, value in ((kd, 0.0), (teacher, 1.0)):
        got = gap_closed(kd, student, teacher)
        assert got is not None
        assert got["value"] == pytest.approx(value)
        assert got["ci95"] == pytest.approx([value, value])
    worse = gap_closed(kd, [v + 0.1 for v in kd], teacher)
    better = gap_closed(kd, [v - 0.1 for v in teacher], teacher)
    assert worse is not None
    assert better is not None
    assert worse["value"] < 0
    assert worse["ci95"][1] < 0
    assert better["value"] > 1
    assert better["ci95"][0] > 1


@pytest.mark.parametrize("teacher", [[0.5, 0.5], [0.6, 0.5], [math.nan, 0.1]])
def test_no_gap_is_none(teacher: list[float]) -> None:
    assert gap_closed([0.5, 0.5], [0.4, 0.4], teacher) is None


def test_one_seed_gives_no_interval() -> None:
    got = gap_closed([0.5], [0.4], [0.3])
    assert got is not None
    assert got["value"] == pytest.approx(0.5)
    assert got["ci95"] == [None, None]


def test_resamples_without_a_gap_leave_the_ends_open() -> None:
    # A gap in one seed of three: 30 % of the resamples have none, or a negative one.
    got = gap_closed([0.5, 0.3, 0.3], [0.4, 0.3, 0.3], [0.3, 0.3, 0.3])
    assert got is not None
    assert got["value"] == pytest.approx(0.5)
    assert got["ci95"] == [None, None]
    # Seven seeds of eight have one: 1/8^8 of the resamples have none, and the bounds are finite.
    got = gap_closed([0.5] * 7 + [0.3], [0.4] * 8, [0.3] * 8)
    assert got is not None
    assert None not in got["ci95"]


def test_the_bootstrap_keeps_the_seeds_together_and_repeats() -> None:
    # The student is halfway for each seed; pairing makes the interval a point.
    kd, teacher = [0.9, 0.5, 0.7, 0.3], [0.5, 0.2, 0.1, 0.2]
    half = [(k + t) / 2 for k, t in zip(kd, teacher, strict=True)]
    paired = gap_closed(kd, half, teacher)
    assert paired is not None
    assert paired["ci95"] == pytest.approx([0.5, 0.5])
    noisy = [0.6, 0.4, 0.5, 0.2]
    assert gap_closed(kd, noisy, teacher) == gap_closed(kd, noisy, teacher)
    other_seeds = {str(gap_closed(kd, noisy, teacher, seed=k, resamples=30)) for k in range(5)}
    assert len(other_seeds) > 1


def test_the_interval_is_about_as_wide_as_the_delta_method_says() -> None:
    g = np.random.default_rng(0)
    count = 40
    kd, student = 0.5 + 0.01 * g.normal(size=count), 0.4 + 0.01 * g.normal(size=count)
    teacher = np.full(count, 0.3)
    got = gap_closed(list(kd), list(student), list(teacher))
    assert got is not None
    residual = (kd - student) - got["value"] * (kd - teacher)
    error = residual.std() / math.sqrt(count) / (kd - teacher).mean()
    low, high = got["ci95"]
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=6)
)
@settings(max_examples=50, deadline=None)
def test_whatever_the_errors_the_result_is_in_order(errors: list[tuple[float, ...]]) -> None:
    kd, student, teacher = (list(v) for v in zip(*errors, strict=True))
    got = gap_closed(kd, student, teacher, resamples=500)
    if got is None:
        assert np.mean(kd) - np.mean(teacher) <= 1e-15
        return
    assert math.isfinite(got["value"])
    low, high = got["ci95"]
    assert low is None or math.isfinite(low)
    assert high is None or math.isfinite(high)
    if low is not None and high is not None:
        assert low <= high
