"""Figures of several labels: against scikit-learn's, and what has none."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics as sk
import torch

from extracurricular.distributions import Bernoulli, Categorical
from extracurricular.evaluation import metrics
from extracurricular.evaluation.labels import each_label, label_rows, over_seeds
from extracurricular.evaluation.words import WORDS, error_measure

NAMES = ("cat", "dog", "emu")


def answers(seed: int = 0, count: int = 80) -> tuple[Bernoulli, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, 3, generator=rng) * 2
    y = (torch.rand(count, 3, generator=rng) < (0.7 * logits).sigmoid()).float()
    return Bernoulli(logits), y


def test_the_figures_are_those_of_scikit_learn() -> None:
    prediction, y = answers()
    found = metrics.figures(prediction, y)
    p, truth = prediction.probs.numpy(), y.numpy()
    said = p >= 0.5
    assert found["hamming"] == pytest.approx(sk.hamming_loss(truth, said))
    assert found["subset_accuracy"] == pytest.approx(sk.accuracy_score(truth, said))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(truth, said, average="macro"))
    assert found["macro_auroc"] == pytest.approx(sk.roc_auc_score(truth, p, average="macro"))
    average = sk.average_precision_score(truth, p, average="macro")
    assert found["macro_auprc"] == pytest.approx(average)
    each = [sk.log_loss(truth[:, k], p[:, k]) for k in range(3)]
    assert found["nll"] == pytest.approx(sum(each), rel=1e-5)
    briers = [sk.brier_score_loss(truth[:, k], p[:, k]) for k in range(3)]
    assert found["brier"] == pytest.approx(np.mean(briers), rel=1e-5)
    assert metrics.error_of(found) == found["hamming"]
    assert error_measure(found) == "hamming"
    assert set(found) <= set(WORDS)


def test_calibration_is_that_of_all_pairs() -> None:
    prediction, y = answers(1)
    found = metrics.figures(prediction, y)
    logits = prediction.logits.flatten()
    two = Categorical(torch.stack([torch.zeros_like(logits), logits], 1))
    wanted = metrics.figures(two, y.flatten().long())
    for name in ("ece", "adaptive_ece", "aurc"):
        assert found[name] == pytest.approx(wanted[name])
    assert 1 - found["hamming"] == pytest.approx(wanted["accuracy"])
    # Brier of two classes counts both of them.
    assert found["brier"] == pytest.approx(wanted["brier"] / 2, rel=1e-5)


def test_each_label_has_figures_of_its_own() -> None:
    prediction, y = answers(2)
    found = each_label(prediction, y, NAMES)
    assert list(found) == list(NAMES)
    whole = metrics.figures(prediction, y)
    for k, name in enumerate(NAMES):
        alone = metrics.figures(Bernoulli(prediction.logits[:, k : k + 1]), y[:, k : k + 1])
        assert found[name]["accuracy"] == pytest.approx(1 - alone["hamming"])
        for figure in ("nll", "brier", "macro_f1", "macro_auroc", "macro_auprc"):
            assert found[name][figure] == pytest.approx(alone[figure]), figure
    assert sum(one["nll"] for one in found.values()) == pytest.approx(whole["nll"], rel=1e-5)
    for figure in ("macro_f1", "macro_auroc", "brier"):
        mean = np.mean([one[figure] for one in found.values()])
        assert whole[figure] == pytest.approx(mean, rel=1e-5)
    assert list(each_label(prediction, y)) == ["0", "1", "2"]
    assert each_label(Categorical(torch.zeros(2, 3)), torch.zeros(2)) == {}


def test_a_label_with_one_value_has_no_auroc() -> None:
    prediction, y = answers(3)
    y[:, 1] = 0
    prediction = Bernoulli(
        torch.cat([prediction.logits[:, :1], -prediction.logits[:, 1:].abs()], 1)
    )
    found = each_label(prediction, y, NAMES)
    assert set(found["dog"]) == {"accuracy", "nll", "brier"}  # it neither occurs nor is predicted
    assert "macro_auroc" in found["cat"]
    whole = metrics.figures(prediction, y)
    own = [one["macro_auroc"] for one in found.values() if "macro_auroc" in one]
    assert whole["macro_auroc"] == pytest.approx(np.mean(own))
    constant = metrics.figures(prediction, torch.zeros_like(y))
    assert "macro_auroc" not in constant
    headings, rows = label_rows(over_seeds([found]))
    assert headings == ["label", "accuracy %", "F1", "AUROC", "AUPRC", "NLL", "Brier score"]
    [dog] = [row for row in rows if row[0] == "dog"]
    assert dog[2:5] == ["–", "–", "–"]


def test_seeds_are_put_together() -> None:
    rows = [each_label(*answers(seed), NAMES) for seed in (0, 1)]
    del rows[1]["emu"]["macro_auroc"]
    found = over_seeds(rows)
    values = [row["cat"]["nll"] for row in rows]
    assert found["cat"]["nll"]["per_seed"] == values
    assert found["cat"]["nll"]["mean"] == pytest.approx(np.mean(values))
    assert found["cat"]["nll"]["std"] == pytest.approx(np.std(values, ddof=1))
    assert "macro_auroc" not in found["emu"]
    rows[0]["cat"]["nll"] = math.nan
    assert over_seeds(rows)["cat"]["nll"]["mean"] is None
    assert over_seeds([{}, {}]) == {}


def test_agreement_and_divergence_from_a_teacher() -> None:
    prediction, y = answers(4)
    teacher, _ = answers(5)
    found = metrics.figures(prediction, y, teacher=teacher)
    same = ((prediction.probs >= 0.5) == (teacher.probs >= 0.5)).float().mean()
    assert found["agreement"] == pytest.approx(float(same))
    assert found["kl_to_teacher"] == pytest.approx(float(teacher.kl(prediction).mean()))
    assert metrics.figures(teacher, y, teacher=teacher)["kl_to_teacher"] == 0


def test_soft_labels_are_judged_by_their_most_probable_class_and_by_the_whole() -> None:
    g = torch.Generator().manual_seed(0)
    prediction = Categorical(torch.randn(40, 3, generator=g))
    hard = torch.randint(0, 3, (40,), generator=g)
    one_hot = torch.nn.functional.one_hot(hard, 3).float()
    assert metrics.figures(prediction, one_hot) == pytest.approx(metrics.figures(prediction, hard))
    soft = torch.softmax(torch.randn(40, 3, generator=g), 1)
    found = metrics.figures(prediction, soft)
    assert found["accuracy"] == metrics.figures(prediction, soft.argmax(1))["accuracy"]
    assert found["nll"] == pytest.approx(float(-(soft * prediction.log_probs).sum(1).mean()))
    assert found["brier"] == pytest.approx(float((soft - prediction.probs).square().sum(1).mean()))
    # No prediction is better than the soft labels themselves.
    best = metrics.figures(Categorical.from_probs(soft), soft)
    assert best["nll"] < found["nll"]
    assert best["brier"] == pytest.approx(0, abs=1e-9)
