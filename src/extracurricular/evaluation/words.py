"""The words for figures: what each is called, how it is written, which way is better.

Every table that people read takes its words from :data:`WORDS`: the terminal, the page, the model
card, ``xcl evaluate``, ``xcl compare`` and ``docs/evaluate.md``. So a figure that is registered
once shows everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, Literal

from extracurricular.evaluation.wording import Words as Words

ABSENT = "–"
NOT_FINITE = "not finite"

# The errors that gaps are measured in, the most telling first; every task has the last or another.
_ERRORS = ("angular_error", "rmse", "hamming", "error_rate")
BALANCED = "balanced_error_rate"
"""The error that gaps between classifiers are measured in where classes are imbalanced."""
_BEGIN = "<!-- Figures: made by `python docs/tables.py` -->"
_END = "<!-- End of the figures -->"


WORDS: dict[str, Words] = {}


def register(words: Words) -> Words:
    """Make a figure known to every table, after those that are known already.

    The call stands in this file, or beside the function that computes the figure.

    Raises:
        ValueError: There is a figure of this name.
    """
    if words.name in WORDS:
        raise ValueError(f"the figure {words.name!r} is registered already")
    WORDS[words.name] = words
    return words


def known(names: Collection[str]) -> list[Words]:
    """Return the words for those of the figures ``names`` that have any, in the table's order."""
    return [words for name, words in WORDS.items() if name in names]


def small(
    names: Collection[str], table: Literal["runs", "exports"] = "runs", imbalanced: bool = False
) -> list[Words]:
    """Return the words for those of the figures ``names`` that a narrow table shows.

    Args:
        names: Names of the figures that there are.
        table: Which table.
        imbalanced: Whether classes are imbalanced. Several labels are by nature.
    """
    wanted = ["all"] if table == "exports" else ["all", "runs"]
    wanted += ["imbalanced"] if imbalanced or (table == "runs" and "hamming" in names) else []
    found = [words for words in known(names) if words.small in wanted]
    hidden = {words.hides for words in found}
    return [words for words in found if words.name not in hidden]


def error_measure(names: Collection[str]) -> str:
    """Return the name of the error that gaps are measured in.

    Args:
        names: Names of the figures that there are.

    Returns:
        ``angular_error``, ``rmse`` or ``hamming`` where there is such a figure, else
        ``error_rate``, which is 1 - accuracy; see
        :func:`extracurricular.evaluation.metrics.error_of`.
    """
    return next((name for name in _ERRORS if name in names), _ERRORS[-1])


def figure_text(words: Words, figure: Mapping[str, Any] | float | None, spread: bool = True) -> str:
    """Write a figure: a value, or mean ± standard deviation over seeds.

    Args:
        words: Its words.
        figure: A value; ``{"mean", "std", "per_seed"}`` as in ``summary.json``; or None where
            there is none.
        spread: Whether the deviation is written too.
    """
    if figure is None:
        return ABSENT
    if not isinstance(figure, Mapping):
        return words.number(figure) if math.isfinite(figure) else NOT_FINITE
    mean = figure["mean"]
    if mean is None:
        return NOT_FINITE
    text = words.number(mean)
    # A teacher that all seeds share is one teacher: it has no deviation.
    if spread and len(set(figure["per_seed"])) > 1:
        text += f" ± {words.number(figure['std'], like=mean)}"
    return text


def count_text(count: int | None) -> str:
    """Write a number of parameters; None where nobody can count them."""
    return ABSENT if count is None else f"{count:,}"


def amount_text(count: float | None) -> str:
    """Write a large number in short, with three digits: 1.23 G; None where it is unknown."""
    if count is None:
        return ABSENT
    # Rounded first: 999.9 k is 1 M, not 1e+03 k.
    count = float(f"{count:.3g}")
    for size, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.3g}"


# The docs


def markdown() -> str:
    """Return the table of all figures, as ``docs/evaluate.md`` has it."""
    arrows = {"higher": " ↑", "lower": " ↓", "neither": ""}
    lines = [
        "| figure | measured on | what it is | values | how to read it |",
        "|---|---|---|---|---|",
    ]
    for words in WORDS.values():
        said = f"`{words.name}`" if words.name == words.title else f"{words.title}, `{words.name}`"
        values = f"{words.range}{arrows[words.better]}"
        lines.append(f"| {said} | {words.group} | {words.about} | {values} | {words.remark} |")
    return "\n".join(lines)


def renewed(text: str) -> str:
    """Return a page of the docs with the table between its marks made anew.

    Raises:
        ValueError: The page has no such marks.
    """
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"the page has no marks {_BEGIN!r} and {_END!r}")
    return f"{before}{begin}\n\n{markdown()}\n\n{end}{after}"


# The figures, in the order of every table

_FIGURES = (
    Words(
        "accuracy",
        "accuracy",
        "share of examples whose most probable class is right",
        "classes",
        "higher",
        form="percent",
        range="0 to 1",
        small="all",
    ),
    Words(
        "error_rate",
        "error rate",
        "share of examples whose most probable class is wrong",
        "classes",
        "lower",
        form="percent",
        range="0 to 1",
        remark="gaps between classifiers, and their robustness, are measured in it",
    ),
    Words(
        "balanced_accuracy",
        "balanced accuracy",
        "mean over classes of the share of their examples whose most probable class is right",
        "classes",
        "higher",
        form="percent",
        range="0 to 1",
        remark="every class counts the same, however rare; classes without examples are left out; "
        "a constant prediction has 1 / C",
        small="imbalanced",
    ),
    Words(
        "balanced_error_rate",
        "balanced error rate",
        "1 less the balanced accuracy",
        "classes",
        "lower",
        form="percent",
        range="0 to 1",
        remark="gaps are measured in it where the largest class has more than three times the "
        "training examples of the smallest",
    ),
    Words(
        "hamming",
        "Hamming loss",
        "share of wrong labels, over all labels and examples; a label is predicted from 0.5 on",
        "labels",
        "lower",
        form="percent",
        range="0 to 1",
        remark="1 less the mean accuracy of the labels; labels that are rare are right by absence",
        small="all",
    ),
    Words(
        "subset_accuracy",
        "subset accuracy",
        "share of examples whose labels are all right",
        "labels",
        "higher",
        form="percent",
        range="0 to 1",
        remark="strict: one wrong label of many counts as an error",
    ),
    Words(
        "macro_f1",
        "macro F1",
        "mean over classes or labels of F1, 2 TP / (2 TP + FP + FN)",
        "classes, labels",
        "higher",
        form=".4f",
        range="0 to 1",
        remark="one that no example has counts as 0 if it is predicted, and not at all otherwise",
        small="imbalanced",
        needs="needs a label that occurs or is predicted",
    ),
    Words(
        "macro_auroc",
        "macro AUROC",
        "mean over classes or labels of the probability that an example with it has a higher "
        "probability of it than one without, ties counted half",
        "classes, labels",
        "higher",
        form=".4f",
        range="0 to 1",
        remark="those that all examples of the split have, or none, are left out; 0.5 is chance",
        needs="needs a class or label that some examples of the split have and others have not",
    ),
    Words(
        "macro_auprc",
        "macro AUPRC",
        "mean over classes or labels of the average precision: the precision among the examples of "
        "at least this probability, averaged over those that have the class or label",
        "classes, labels",
        "higher",
        form=".4f",
        range="0 to 1",
        remark="those that all examples of the split have, or none, are left out; chance is the "
        "share of the class",
        needs="needs a class or label that some examples of the split have and others have not",
    ),
    Words(
        "angular_error",
        "angular error",
        "mean angle between predicted and true gaze",
        "real targets",
        "lower",
        form=".2f",
        unit="°",
        range="degrees",
        remark="only for targets (pitch, yaw)",
        small="all",
        hides="rmse",
    ),
    Words(
        "rmse",
        "RMSE",
        "root of the mean squared error of the mean, over all outputs",
        "real targets",
        "lower",
        unit="target",
        range="units of the target",
        remark="among several targets the largest units decide",
        small="all",
    ),
    Words(
        "mae",
        "MAE",
        "mean absolute error of the mean, over all outputs",
        "real targets",
        "lower",
        unit="target",
        range="units of the target",
        remark="among several targets the largest units decide",
    ),
    Words(
        "nll",
        "NLL",
        "mean negative log-likelihood of the true class, target or labels, summed over outputs",
        "classes, real targets, labels",
        "lower",
        form=".3f",
        unit="nats",
        range="nats; from 0 for classes and labels",
        remark="a proper score; one sure mistake can decide it, and the unit of a target shifts it",
        small="all",
    ),
    Words(
        "brier",
        "Brier score",
        "mean squared distance of the probabilities from the one-hot label (Brier 1950); of "
        "several labels the mean over them",
        "classes, labels",
        "lower",
        form=".4f",
        range="0 to 2; 0 to 1 for labels",
        remark="a proper score; scikit-learn has half of it for two classes",
    ),
    Words(
        "crps",
        "CRPS",
        "continuous ranked probability score (Gneiting and Raftery 2007, Sec. 4.2)",
        "real targets",
        "lower",
        unit="target",
        range="units of the target",
        remark="a proper score; it is the absolute error where the deviation is 0",
    ),
    Words(
        "ece",
        "ECE",
        "distance of accuracy and confidence, in 15 bins of equal width of the confidence "
        "(Guo et al. 2017); of several labels over all pairs of example and label",
        "classes, labels",
        "lower",
        form="percent",
        range="0 to 1",
        remark="no proper score: predicting the shares of the classes for all has 0",
        small="runs",
    ),
    Words(
        "adaptive_ece",
        "adaptive ECE",
        "ECE in 15 bins of equally many examples (the bins of Nixon et al. 2019, who look at every "
        "class; this one looks at the most probable)",
        "classes, labels",
        "lower",
        form="percent",
        range="0 to 1",
        remark="no proper score; a sharp model leaves most bins of the ECE nearly empty, and none "
        "of these",
    ),
    Words(
        "aurc",
        "AURC",
        "mean over k of the error rate among the k most confident examples (Geifman, Uziel and "
        "El-Yaniv 2019)",
        "classes, labels",
        "lower",
        form=".4f",
        range="0 to 1",
        remark="it mixes accuracy and ranking: compare models of like accuracy",
    ),
    *(
        Words(
            f"coverage{level}",
            f"coverage of {level} %",
            f"share of targets in the central {level} % interval",
            "real targets",
            "neither",
            form="percent",
            range="0 to 1",
            remark=f"{level} % is right; intervals that are too wide here and too narrow there can "
            "have it too",
            short=f"cover {level} %",
            small="runs" if level == 90 else "none",
        )
        for level in (50, 90, 95)
    ),
    Words(
        "sharpness90",
        "width of 90 %",
        "mean width of the central 90 % interval (Gneiting, Balabdaoui and Raftery 2007)",
        "real targets",
        "lower",
        unit="target",
        range="units of the target",
        remark="it means nothing where the coverage is not right",
    ),
    Words(
        "kl_to_teacher",
        "KL to teacher",
        "mean KL(teacher ‖ student)",
        "teacher",
        "lower",
        form=".3f",
        unit="nats",
        range="nats, from 0",
        small="runs",
    ),
    Words(
        "js_to_teacher",
        "JS to teacher",
        "mean Jensen-Shannon divergence between teacher and student",
        "teacher",
        "lower",
        form=".4f",
        unit="nats",
        range="nats, from 0",
    ),
    Words(
        "agreement",
        "agreement",
        "share of examples with the teacher's most probable class, of labels that both predict or "
        "both do not, or of targets whose mean lies in the teacher's central 90 % interval",
        "teacher",
        "higher",
        form="percent",
        range="0 to 1",
        remark="the teacher may be wrong",
    ),
    Words(
        "support",
        "examples",
        "number of examples of the class in the split",
        "each class",
        "neither",
        form=",.0f",
        range="from 0",
        short="count",
    ),
    Words(
        "recall",
        "recall",
        "share of the class's examples that are right",
        "each class",
        "higher",
        form="percent",
        range="0 to 1",
        remark="the accuracy of the class; of few examples it is coarse",
        needs="needs an example of the class in the split",
    ),
    Words(
        "precision",
        "precision",
        "share of right ones among the examples that the class is predicted for",
        "each class",
        "higher",
        form="percent",
        range="0 to 1",
        remark="it depends on the shares of the classes in the split",
        needs="needs a prediction of the class",
    ),
    Words(
        "f1",
        "F1",
        "2 TP / (2 TP + FP + FN), the harmonic mean of recall and precision",
        "each class",
        "higher",
        form=".4f",
        range="0 to 1",
        needs="needs an example or a prediction of the class",
    ),
    Words(
        "auprc",
        "AUPRC",
        "average precision of telling the class's examples from all others by its probability: the "
        "precision among those of at least this probability, averaged over the class's",
        "each class",
        "higher",
        form=".4f",
        range="0 to 1",
        remark="chance is the share of the class",
        needs="needs examples of the class and of others in the split",
    ),
    Words(
        "auroc",
        "AUROC",
        "probability that a foreign example has a higher uncertainty than one of the model's own, "
        "or an example of the class a higher probability of it than another; ties counted half",
        "each class, other data",
        "higher",
        form=".4f",
        range="0 to 1",
        remark="0.5 is chance",
        needs="needs examples of the class and of others in the split",
        hint="0.5 is chance",
    ),
    Words(
        "fpr95",
        "false alarms",
        "share of the model's own examples that raise an alarm at the threshold that finds 95 % of "
        "the foreign ones",
        "other data",
        "lower",
        form="percent",
        range="0 to 1",
        remark="papers whose positive examples are the model's own have another figure",
        hint="where 95 % of the foreign ones are found",
    ),
)
for _words in _FIGURES:
    register(_words)
