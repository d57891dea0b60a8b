"""Figures for several labels of 0 and 1 (multi-label): over all labels, and for each by name.

A label is predicted where its probability is at least 0.5. ``hamming`` is the error that gaps are
measured in; 1 less it is the mean accuracy of the labels.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from extracurricular.distributions import Bernoulli, Categorical, Distribution
from extracurricular.evaluation.words import WORDS, figure_text

EACH = ("accuracy", "macro_f1", "macro_auroc", "macro_auprc", "nll", "brier")
"""Figures of one label; macro figures of one label are its own."""


def flat_pairs(prediction: Bernoulli, y: Tensor) -> tuple[Categorical, Tensor]:
    """Return all pairs of example and label as predictions of two classes, and these, [N L]."""
    return Categorical(prediction.pairs.logits.flatten(0, 1)), y.flatten().long()


def label_figures(prediction: Bernoulli, y: Tensor) -> dict[str, float]:
    """Compute the figures over all labels.

    Args:
        prediction: Distributions for N examples, N at least 1.
        y: Labels of 0 and 1, [N, L].

    Returns:
        ``hamming``, ``subset_accuracy``, ``macro_f1``, ``brier`` in [0, 1]; ``nll`` in nats, summed
        over labels; ``macro_auroc`` and ``macro_auprc`` in [0, 1] unless no label has both values.
    """
    right = (prediction.probs >= 0.5) == (y >= 0.5)
    found = {
        "hamming": 1 - float(right.double().mean()),
        "subset_accuracy": float(right.all(1).double().mean()),
        "nll": float(prediction.nll(y).mean()),
        "brier": float((prediction.probs - y).square().mean()),
    }
    of_labels = [_each(prediction, y, k) for k in range(y.shape[1])]
    for name in ("macro_f1", "macro_auroc", "macro_auprc"):
        known = [one[name] for one in of_labels if name in one]
        if known:
            found[name] = statistics.fmean(known)
    return found


def each_label(
    prediction: Distribution, y: Tensor, names: Sequence[str] = ()
) -> dict[str, dict[str, float]]:
    """Return the figures of each label by its name; empty for other predictions.

    A label with one value among the examples has no AUROC or AUPRC, and one that neither occurs nor
    is predicted no F1: these figures are left out.

    Args:
        prediction: Distributions for N examples.
        y: Labels of 0 and 1, [N, L].
        names: Names of the labels; their numbers if unknown.
    """
    if not isinstance(prediction, Bernoulli):
        return {}
    names = names or tuple(map(str, range(y.shape[1])))
    return {name: _each(prediction, y, k) for k, name in enumerate(names)}


def _each(prediction: Bernoulli, y: Tensor, k: int) -> dict[str, float]:
    p, true = prediction.probs[:, k], y[:, k] >= 0.5
    said = p >= 0.5
    both, either = int((said & true).sum()), int(said.sum()) + int(true.sum())
    found = {"accuracy": float((said == true).double().mean())}
    if either:
        found["macro_f1"] = 2 * both / either
    if bool(true.any()) and not bool(true.all()):
        # A probability that is not finite ranks nothing.
        finite = bool(torch.isfinite(p).all())
        found["macro_auroc"] = auroc(p[true], p[~true]) if finite else math.nan
        found["macro_auprc"] = average_precision(p[true], p[~true]) if finite else math.nan
    found["nll"] = float(Bernoulli(prediction.logits[:, k : k + 1]).nll(y[:, k : k + 1]).mean())
    return found | {"brier": float((p - y[:, k]).square().mean())}


def auroc(positive: Tensor, negative: Tensor) -> float:
    """Return the area under the ROC curve of telling two groups apart by a score, in [0, 1].

    The area is the probability that a positive example has a higher score than a negative one, ties
    counted half (Mann and Whitney 1947). 0.5 is chance. In out-of-distribution detection the
    positive examples are the foreign ones, and the score is the model's uncertainty.

    Args:
        positive, negative: Scores [P] and [N], at least one of each.
    """
    negative = negative.sort().values
    below = torch.searchsorted(negative, positive.contiguous())
    not_above = torch.searchsorted(negative, positive.contiguous(), right=True)
    return float((below + not_above).double().mean()) / (2 * len(negative))


def average_precision(positive: Tensor, negative: Tensor) -> float:
    """Return the area under the curve of precision and recall, by steps, in [0, 1].

    It is the mean over the positive examples of the precision among all examples of at least their
    score; those of equal scores share a threshold.

    Args:
        positive, negative: Scores [P] and [N], at least one of each.
    """
    positive, negative = positive.sort().values, negative.sort().values
    found = len(positive) - torch.searchsorted(positive, positive)
    wrong = len(negative) - torch.searchsorted(negative, positive)
    return float((found.double() / (found + wrong)).mean())


def label_rows(labels: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return the headings of a table of labels, and its rows as texts.

    Args:
        labels: What :func:`over_seeds` returned.
    """
    shown = [WORDS[name] for name in EACH if any(name in one for one in labels.values())]
    headings = [words.heading.removeprefix("macro ") for words in shown]
    rows = [
        [name, *(figure_text(words, figures.get(words.name)) for words in shown)]
        for name, figures in labels.items()
    ]
    return ["label", *headings], rows


def over_seeds(
    rows: Sequence[Mapping[str, Mapping[str, float]]], partly: bool = False
) -> dict[str, Any]:
    """Put the figures of each label of all seeds together, as ``summary.json`` has figures.

    A figure that the label lacks for one of the seeds is left out.

    Args:
        rows: What :func:`each_label` returned for each seed.
        partly: Whether it is kept instead, with null for its mean and for that seed.
    """
    found: dict[str, Any] = {}
    for name in rows[0]:
        found[name] = {}
        every = [row.get(name, {}) for row in rows]
        for figure in dict.fromkeys(figure for own in every for figure in own):
            if not partly and not all(figure in own for own in every):
                continue
            values = [own.get(figure, math.nan) for own in every]
            finite = all(math.isfinite(value) for value in values)
            spread = statistics.stdev(values) if finite and len(values) > 1 else 0.0
            found[name][figure] = {
                "mean": statistics.fmean(values) if finite else None,
                "std": spread if finite else None,
                "per_seed": [value if math.isfinite(value) else None for value in values],
            }
    return found
