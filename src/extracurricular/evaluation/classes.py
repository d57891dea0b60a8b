"""Figures of each class, and those over all classes in which every class counts the same.

Accuracy is the figure of the common classes: with 95 % of the examples in one class, it is 95 % for
whoever names that class alone. The figures here tell how a rare class fares.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from extracurricular.distributions import Categorical, Distribution, Filed
from extracurricular.evaluation.words import WORDS, Words, figure_text
from extracurricular.inputs import hard_labels

EACH = ("support", "recall", "precision", "f1", "auroc", "auprc")
"""Figures of one class."""
IMBALANCED = 3
"""Classes are imbalanced where the largest has more than so many times the smallest's examples."""
MOST = 100
"""Classes of which a table shows all; of more it shows the worst and the best few."""
# The worst, and the best, of more.
_FEW = 5
# Columns that are sorted at once: some megabytes for any number of classes.
_BLOCK = 32
# Numbers of a file of answers that are in memory at once.
_AT_ONCE = 2**21

Array: TypeAlias = NDArray[np.float64]
_Columns: TypeAlias = Callable[[int, int], Tensor]


@dataclass(frozen=True)
class ByClass:
    """The figures of C classes, float64, [C]; NaN where a class has none.

    Args:
        support: Number of examples of the class.
        recall: Share of these that are right.
        precision: Share of right ones among the examples that the class was predicted for.
        f1: 2 TP / (2 TP + FP + FN).
        auroc, auprc: How well the probability of the class tells its examples from all others.
    """

    support: Array
    recall: Array
    precision: Array
    f1: Array
    auroc: Array
    auprc: Array


def by_class(prediction: Categorical, y: Tensor, ranks: bool = True) -> ByClass:
    """Compute the figures of each class.

    Args:
        prediction: Distributions for N examples, N at least 1, over C classes.
        y: Class indices [N], or soft labels [N, C], of which the most probable class counts.
        ranks: Whether ``auroc`` and ``auprc`` are among them, which sort all probabilities.
    """
    columns, size, width = _columns_of(prediction)
    truth = hard_labels(y).cpu().long()
    said = prediction.top()[1].cpu()
    support, named, right = (
        torch.bincount(of, minlength=size).numpy().astype(np.float64)
        for of in (truth, said, truth[said == truth])
    )
    none = np.full(size, np.nan)
    auroc, auprc = _ranked(columns, width, truth.numpy(), support) if ranks else (none, none)
    return ByClass(
        support=support,
        recall=_ratio(right, support),
        precision=_ratio(right, named),
        f1=_ratio(2 * right, support + named),
        auroc=auroc,
        auprc=auprc,
    )


def _ratio(a: Array, b: Array) -> Array:
    return np.divide(a, b, out=np.full_like(a, np.nan), where=b > 0)


def _columns_of(prediction: Categorical) -> tuple[_Columns, int, int]:
    """Return the probabilities by columns, the number of columns, and how many to take at once."""
    if isinstance(prediction, Filed):
        size = prediction[:1].logits.shape[1]
        # Each call reads the whole file.
        return prediction.columns, size, max(_BLOCK, _AT_ONCE // max(1, len(prediction)))
    probs = prediction.probs.detach().cpu()
    return lambda first, last: probs[:, first:last], probs.shape[1], _BLOCK


def _ranked(
    columns: _Columns, width: int, truth: NDArray[np.int64], support: Array
) -> tuple[Array, Array]:
    """Return AUROC and average precision of each class against the rest.

    With v over the scores of the class's P examples, AUROC is the mean of the share of the others
    below v, ties counted half (Mann and Whitney 1947), and average precision the mean of the
    precision among all scores from v on, which is the step-wise area under the curve of precision
    and recall.
    """
    count, size = len(truth), len(support)
    auroc, auprc = np.full(size, np.nan), np.full(size, np.nan)
    own = np.argsort(truth, kind="stable")
    ends = np.searchsorted(truth[own], np.arange(size + 1))
    for start in range(0, size, width):
        block = columns(start, min(start + width, size)).T.contiguous().numpy()
        for k, scores in enumerate(block, start):
            positive = int(support[k])
            # A probability that is not finite ranks nothing; NaN then stands for the figure.
            if not 0 < positive < count or not np.isfinite(scores).all():
                continue
            mine = np.sort(scores[own[ends[k] : ends[k + 1]]])
            every = np.sort(scores)
            below = np.searchsorted(every, mine)
            not_above = np.searchsorted(every, mine, side="right")
            mine_below = np.searchsorted(mine, mine)
            mine_not_above = np.searchsorted(mine, mine, side="right")
            others = (below - mine_below) + (not_above - mine_not_above)
            auroc[k] = others.mean() / 2 / (count - positive)
            auprc[k] = ((positive - mine_below) / (count - below)).mean()
    return auroc, auprc


def over_classes(found: ByClass) -> dict[str, float]:
    """Return the figures in which every class counts the same.

    Returns:
        ``balanced_accuracy``, the mean recall over the classes that have examples; ``macro_f1``
        over those that have any or are predicted; ``macro_auroc`` and ``macro_auprc`` over those
        that some examples have and others have not. A figure that no class has is left out; one is
        NaN where a probability is.
    """
    several = (found.support > 0) & (found.support < found.support.sum())
    parts = {
        "balanced_accuracy": found.recall[found.support > 0],
        "macro_f1": found.f1[np.isfinite(found.f1)],
        "macro_auroc": found.auroc[several],
        "macro_auprc": found.auprc[several],
    }
    return {name: float(values.mean()) for name, values in parts.items() if len(values)}


def each_class(
    prediction: Distribution, y: Tensor, names: Sequence[str] = ()
) -> dict[str, dict[str, float]]:
    """Return the figures of each class by its name; empty for other predictions.

    A figure that a class does not have is left out; :func:`without` says why.

    Args:
        prediction: Distributions for N examples.
        y: Class indices [N], or soft labels [N, C].
        names: Names of the classes; their numbers if unknown.
    """
    if not isinstance(prediction, Categorical):
        return {}
    found = by_class(prediction, y)
    columns = {name: getattr(found, name).tolist() for name in EACH}
    several = (found.support > 0) & (found.support < found.support.sum())

    def has(figure: str, k: int) -> bool:
        # NaN of a class that has such a figure is the figure's: a probability is not finite.
        ranked = figure in ("auroc", "auprc") and bool(several[k])
        return ranked or math.isfinite(columns[figure][k])

    return {
        name: {figure: columns[figure][k] for figure in EACH if has(figure, k)}
        for k, name in enumerate(class_names(names, len(several)))
    }


def class_names(names: Sequence[str], size: int) -> list[str]:
    """Return a name for each class: its own, or its number if there are none or two alike."""
    own = [str(name) for name in names]
    return own if len(own) == size == len(set(own)) else [str(k) for k in range(size)]


def without(
    figures: Mapping[str, Any], each: Mapping[str, Mapping[str, Any]], task: str
) -> dict[str, str]:
    """Return what could not be computed, and why: ``{figure: reason}``.

    Args:
        figures: The figures over all examples.
        each: The figures of each class or label, which are told as ``NAME: figure``; may be empty.
        task: ``classification``, ``regression`` or ``multilabel``.
    """
    kind = {"classification": "classes", "multilabel": "labels"}.get(task, "real targets")
    found = {
        words.name: words.needs
        for words in WORDS.values()
        if words.needs and words.name not in figures and kind in words.group
    }
    for name, own in each.items() if kind == "classes" else ():
        for figure in EACH:
            if figure not in own:
                found[f"{name}: {figure}"] = WORDS[figure].needs
    return found


def absent_notes(found: Mapping[str, str]) -> list[str]:
    """Return a sentence for each reason why figures over all examples are absent.

    Args:
        found: What :func:`without` returned.
    """
    reasons: dict[str, list[str]] = {}
    for name, why in found.items():
        if name in WORDS:
            reasons.setdefault(why, []).append(WORDS[name].title)
    return [
        f"there is no {' and no '.join(titles)}: that {why}." for why, titles in reasons.items()
    ]


def counted(y: Tensor, names: Sequence[str], size: int) -> dict[str, int]:
    """Return the number of examples of each class by its name.

    Args:
        y: Class indices [N], or soft labels [N, C].
        names: Names of the classes; their numbers if unknown.
        size: Number of classes, C.
    """
    counts = torch.bincount(hard_labels(y).long(), minlength=size).tolist()
    return dict(zip(class_names(names, size), counts, strict=True))


def imbalanced(counts: Mapping[str, int]) -> bool:
    """Return whether the largest class has more than three times the examples of the smallest.

    Classes without any example do not count.
    """
    some = [count for count in counts.values() if count]
    return bool(some) and max(some) > IMBALANCED * min(some)


# Tables


def shown_classes(classes: Mapping[str, Any]) -> tuple[list[str], str | None]:
    """Return the classes that a table shows, and a sentence on those that it does not.

    Args:
        classes: Figures of each class by name, as ``summary.json`` has them: those of the model
            whose worst and best classes are shown where there are too many to show all.
    """
    names = list(classes)
    if len(names) <= MOST:
        return names, None

    def rank(name: str) -> float:
        found = classes[name].get("f1") or {}
        mean = found.get("mean") if isinstance(found, Mapping) else found
        return 2.0 if mean is None else float(mean)

    known = sorted((name for name in names if rank(name) <= 1), key=rank)
    shown = known if len(known) <= 2 * _FEW else [*known[:_FEW], *known[-_FEW:]]
    return shown, (
        f"the {_FEW} classes of lowest and of highest F1, of {len(names):,}; the JSON has all"
    )


def class_text(words: Words, figure: Any) -> str:
    """Write a figure of a class; a dash where the class lacks it in some seed."""
    lacks = isinstance(figure, Mapping) and figure["mean"] is None
    return figure_text(words, None if lacks else figure)


def class_rows(classes: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return the headings of a table of classes, and its rows as texts.

    Args:
        classes: Figures of each class by name, as ``summary.json`` has them.
    """
    shown = [WORDS[name] for name in EACH]
    rows = [
        [name, *(class_text(words, classes[name].get(words.name)) for words in shown)]
        for name in shown_classes(classes)[0]
    ]
    return ["class", *(words.heading for words in shown)], rows
