"""Every figure against a second implementation, on random and on degenerate predictions.

Degenerate are predictions that are certain or tied, one class, one example. A figure that one of
these does not have is absent, and never NaN.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics as sk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from extracurricular.distributions import Bernoulli, Categorical, Gaussian
from extracurricular.evaluation import metrics
from extracurricular.evaluation.classes import EACH, by_class, each_class, without
from extracurricular.evaluation.labels import over_seeds
from extracurricular.evaluation.summary import summarise

BINS = 15

# Probabilities before they are normalised: of few values, so that many are tied, or certain.
values = st.sampled_from([0.0, 0.1, 0.1, 0.25, 0.5, 1.0, 1.0])


@st.composite
def classified(draw: Any) -> tuple[Categorical, Tensor]:
    """Answers on 1 to 25 examples of 2 to 5 classes, of which the split may have one alone."""
    size = draw(st.integers(2, 5))
    count = draw(st.integers(1, 25))
    certain = draw(st.booleans())
    rows = []
    for _ in range(count):
        row = [draw(values) for _ in range(size)]
        if certain or not any(row):
            row = [0.0] * size
            row[draw(st.integers(0, size - 1))] = 1.0
        rows.append(row)
    probs = torch.tensor(rows, dtype=torch.float64)
    found = draw(st.integers(0, size - 1))
    alone = draw(st.booleans())
    y = [found if alone else draw(st.integers(0, size - 1)) for _ in range(count)]
    return Categorical.from_probs(probs / probs.sum(1, keepdim=True)), torch.tensor(y)


def plain(prediction: Categorical, y: Tensor) -> tuple[list[list[float]], list[int], list[int]]:
    """Probabilities, labels and predicted classes as lists."""
    return prediction.probs.double().tolist(), y.tolist(), prediction.probs.argmax(1).tolist()


def bins_of_equal_width(p: list[list[float]], y: list[int], said: list[int]) -> float:
    total = 0.0
    for k in range(BINS):
        inside = [
            (said[n] == y[n]) - max(p[n])
            for n in range(len(y))
            if k / BINS < max(p[n]) <= (k + 1) / BINS
        ]
        total += abs(sum(inside))
    return total / len(y)


def shared(p: list[list[float]], y: list[int], said: list[int]) -> list[tuple[float, float]]:
    """Confidence and rightness, ascending; examples of one confidence share their mean."""
    pairs = [(max(row), float(a == b)) for row, a, b in zip(p, said, y, strict=True)]
    return [
        (one, float(np.mean([right for other, right in pairs if other == one])))
        for one, _ in sorted(pairs)
    ]


def bins_of_equal_mass(p: list[list[float]], y: list[int], said: list[int]) -> float:
    pairs = shared(p, y, said)
    count = len(pairs)
    bins = min(BINS, count)
    total = 0.0
    for k in range(bins):
        part = pairs[k * count // bins : (k + 1) * count // bins]
        total += abs(sum(right - confidence for confidence, right in part))
    return total / count


def area_of_risk(p: list[list[float]], y: list[int], said: list[int]) -> float:
    wrong = [1 - right for _, right in reversed(shared(p, y, said))]
    return float(np.mean([np.mean(wrong[: k + 1]) for k in range(len(wrong))]))


def macro(
    score: Callable[[Any, Any], float],
) -> Callable[[list[list[float]], list[int], list[int]], float | None]:
    def mean(p: list[list[float]], y: list[int], said: list[int]) -> float | None:
        some = [k for k in range(len(p[0])) if 0 < y.count(k) < len(y)]
        each = [score([label == k for label in y], [row[k] for row in p]) for k in some]
        return float(np.mean(each)) if each else None

    return mean


Second = Callable[[list[list[float]], list[int], list[int]], float | None]
CLASSES: dict[str, Second] = {
    "accuracy": lambda p, y, said: sk.accuracy_score(y, said),
    "balanced_accuracy": lambda p, y, said: float(
        np.mean([np.mean([s == k for s, t in zip(said, y, strict=True) if t == k]) for k in set(y)])
    ),
    "macro_f1": lambda p, y, said: sk.f1_score(y, said, average="macro", zero_division=0),
    "macro_auroc": macro(sk.roc_auc_score),
    "macro_auprc": macro(sk.average_precision_score),
    "nll": lambda p, y, said: float(
        # The smallest normal number of float32 stands for 0.
        np.mean([-math.log(max(row[k], 2**-126)) for row, k in zip(p, y, strict=True)])
    ),
    "brier": lambda p, y, said: float(
        np.mean(
            [sum((q - (k == t)) ** 2 for k, q in enumerate(r)) for r, t in zip(p, y, strict=True)]
        )
    ),
    "ece": bins_of_equal_width,
    "adaptive_ece": bins_of_equal_mass,
    "aurc": area_of_risk,
}


@settings(max_examples=80, deadline=None)
@given(classified())
def test_figures_of_classes_equal_a_second_implementation(case: tuple[Categorical, Tensor]) -> None:
    found = metrics.figures(*case)
    lists = plain(*case)
    wanted = {name: second(*lists) for name, second in CLASSES.items()}
    assert found == pytest.approx(
        {k: v for k, v in wanted.items() if v is not None}, abs=2e-6, rel=1e-5
    )
    assert all(math.isfinite(value) for value in found.values())
    # What is absent is told, and nothing else.
    missing = set(without(found, {}, "classification"))
    assert missing == {name for name, value in wanted.items() if value is None}


@settings(max_examples=80, deadline=None)
@given(classified())
def test_figures_of_each_class_equal_those_of_scikit_learn(
    case: tuple[Categorical, Tensor],
) -> None:
    p, y, said = plain(*case)
    size = len(p[0])
    found = each_class(*case)
    assert list(found) == [str(k) for k in range(size)]
    precision, recall, _, support = sk.precision_recall_fscore_support(
        y, said, labels=range(size), zero_division=np.nan
    )
    for k, own in enumerate(found.values()):
        wanted = {"support": float(support[k])}
        if support[k]:
            wanted["recall"] = recall[k]
        if k in said:
            wanted["precision"] = precision[k]
        if support[k] or k in said:
            wanted["f1"] = sk.f1_score([t == k for t in y], [s == k for s in said], zero_division=0)
        if 0 < support[k] < len(y):
            true, score = [t == k for t in y], [row[k] for row in p]
            wanted["auroc"] = sk.roc_auc_score(true, score)
            wanted["auprc"] = sk.average_precision_score(true, score)
        assert own == pytest.approx(wanted), k
        assert set(without({}, found, "classification")) >= {
            f"{k}: {n}" for n in set(EACH) - set(own)
        }


def test_many_classes_equal_those_of_scikit_learn() -> None:
    """More classes than are sorted at once, some of them without an example."""
    g = torch.Generator().manual_seed(0)
    logits, y = torch.randn(400, 77, generator=g), torch.randint(0, 70, (400,), generator=g)
    logits[torch.arange(400), y] += 1.5
    prediction = Categorical(logits)
    found, p = by_class(prediction, y), prediction.probs.numpy()
    for k in range(77):
        true = y.numpy() == k
        if not true.any():
            assert np.isnan(found.auroc[k])
            continue
        assert found.auroc[k] == pytest.approx(sk.roc_auc_score(true, p[:, k]))
        assert found.auprc[k] == pytest.approx(sk.average_precision_score(true, p[:, k]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # predictions of classes without an example
        balanced = sk.balanced_accuracy_score(y.numpy(), p.argmax(1))
    assert metrics.figures(prediction, y)["balanced_accuracy"] == pytest.approx(balanced)


@settings(max_examples=60, deadline=None)
@given(classified(), st.integers(0, 2**31))
def test_divergence_and_agreement_equal_a_second_implementation(
    case: tuple[Categorical, Tensor], seed: int
) -> None:
    prediction, y = case
    g = torch.Generator().manual_seed(seed)
    teacher = Categorical(torch.randn(prediction.probs.shape, generator=g))
    found = metrics.figures(prediction, y, teacher=teacher)
    p, q = teacher.probs.double().numpy(), prediction.log_probs.double().exp().numpy()
    wanted = scipy.stats.entropy(p, np.maximum(q, 2.0**-126), axis=1).mean()
    assert found["kl_to_teacher"] == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    assert found["agreement"] == pytest.approx(np.mean(p.argmax(1) == q.argmax(1)))


small = st.floats(-50, 50, width=32)


@st.composite
def predicted(draw: Any) -> tuple[Gaussian, Tensor]:
    """Answers on 1 to 12 examples of 1 or 2 targets, some of them right to the last digit."""
    count, size = draw(st.integers(1, 12)), draw(st.integers(1, 2))
    shape = (count, size)
    mean = torch.tensor([draw(small) for _ in range(count * size)]).view(shape)
    log_var = torch.tensor([draw(st.floats(-8, 8, width=32)) for _ in range(count * size)]).view(
        shape
    )
    away = torch.tensor([draw(st.sampled_from([0.0, 0.3, -7.0])) for _ in range(count * size)])
    return Gaussian(mean, log_var), mean + away.view(shape)


@settings(max_examples=100, deadline=None)
@given(predicted())
def test_figures_of_reals_equal_a_second_implementation(case: tuple[Gaussian, Tensor]) -> None:
    prediction, y = case
    found = metrics.figures(prediction, y)
    mean, std = prediction.mean.double().numpy(), prediction.std.double().numpy()
    true = y.double().numpy()
    normal = scipy.stats.norm(mean, std)
    low, high = normal.interval(0.9)
    z = (true - mean) / std
    flat = scipy.stats.norm
    crps = std * (z * (2 * flat.cdf(z) - 1) + 2 * flat.pdf(z) - 1 / math.sqrt(math.pi))
    wanted = {
        "rmse": sk.root_mean_squared_error(true.ravel(), mean.ravel()),
        "mae": sk.mean_absolute_error(true.ravel(), mean.ravel()),
        "nll": -normal.logpdf(true).sum(1).mean(),
        "crps": crps.mean(),
        "coverage90": np.mean((true >= low) & (true <= high)),
        "sharpness90": (high - low).mean(),
    }
    assert found == pytest.approx(wanted, rel=1e-4, abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(values, st.booleans()), min_size=2, max_size=2), min_size=1))
def test_figures_of_labels_equal_those_of_scikit_learn(
    rows: list[list[tuple[float, bool]]],
) -> None:
    p = torch.tensor([[probability for probability, _ in row] for row in rows])
    y = torch.tensor([[float(label) for _, label in row] for row in rows])
    prediction = Bernoulli.from_probs(p)
    found = metrics.figures(prediction, y)
    said = prediction.probs.numpy() >= 0.5
    truth, scores = y.numpy() > 0, prediction.probs.numpy()
    assert found["hamming"] == pytest.approx(sk.hamming_loss(truth, said))
    assert found["subset_accuracy"] == pytest.approx(sk.accuracy_score(truth, said))
    some = [k for k in range(2) if 0 < truth[:, k].sum() < len(truth)]
    for name, score in (
        ("macro_auroc", sk.roc_auc_score),
        ("macro_auprc", sk.average_precision_score),
    ):
        each = [score(truth[:, k], scores[:, k]) for k in some]
        assert (name in found) == bool(each)
        assert not each or found[name] == pytest.approx(np.mean(each))
    assert all(math.isfinite(value) for value in found.values())
    assert set(without(found, {}, "multilabel")) == {
        name for name in ("macro_f1", "macro_auroc", "macro_auprc") if name not in found
    }


def test_every_figure_of_classes_has_a_second_implementation() -> None:
    g = torch.Generator().manual_seed(0)
    some = Categorical(torch.randn(9, 3, generator=g))
    found = metrics.figures(some, torch.arange(9) % 3, teacher=some)
    assert set(found) == {*CLASSES, "kl_to_teacher", "agreement"}


@settings(max_examples=40, deadline=None)
@given(classified())
def test_a_summary_of_degenerate_answers_is_valid_json(case: tuple[Categorical, Tensor]) -> None:
    figures, classes = metrics.figures(*case), each_class(*case)
    row = {"metrics": figures, "classes": classes, "steps": 1, "seconds": 1.0, "parameters": 1}
    row["without"] = without(figures, classes, "classification")
    recipe = {"evaluation": {"split": "test"}, "students": {}}
    found = summarise(recipe, "classification", [0], [row], {"a": [row]}, {"0": 9, "1": 1})
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_probabilities_that_are_not_finite_rank_nothing() -> None:
    """Where a figure is there by its labels, it is told as not finite, which is no absence."""
    logits = torch.tensor([[0.0, 1.0], [math.nan, 0.0], [2.0, 0.0]])
    y = torch.tensor([1, 0, 0])
    found = metrics.figures(Categorical(logits), y)
    assert math.isnan(found["macro_auroc"])
    assert math.isnan(found["macro_auprc"])
    each = each_class(Categorical(logits), y)
    assert math.isnan(each["0"]["auroc"])
    assert over_seeds([each])["0"]["auroc"]["mean"] is None
    assert without(found, each, "classification") == {}
