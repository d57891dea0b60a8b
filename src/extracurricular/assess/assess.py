"""Measure one model on one data set: figures, fidelity, robustness, detection of foreign data."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from extracurricular.assess.fitting import (
    aligned,
    asked,
    fitting,
    foreign_inputs,
    in_order,
    split_of,
)
from extracurricular.assess.slices import slices
from extracurricular.data.base import Data
from extracurricular.data.several import alike
from extracurricular.data.transformed import inner_of
from extracurricular.distributions import (
    Calibration,
    Distribution,
    Filed,
    Gaussian,
    concatenate,
)
from extracurricular.errors import (
    DataError,
    RecipeError,
)
from extracurricular.evaluation import metrics
from extracurricular.evaluation.calibrated import calibration_figures
from extracurricular.evaluation.classes import each_class, without
from extracurricular.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from extracurricular.evaluation.labels import each_label
from extracurricular.evaluation.targets import by_target
from extracurricular.evaluation.words import error_measure
from extracurricular.predictors.predictor import Predictor, named_inputs
from extracurricular.samplers.scores import SCORES, needs

SCHEMA = 1
SPLITS = ("test", "validation", "train")
# Levels beside the 0.9 that every evaluation has.
_LEVELS = (0.5, 0.95)
# Number of image values to corrupt at once: some of that work is in float64.
_MOST_VALUES = 1 << 22

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """The choice of what to measure, and on which examples.

    Args:
        split: Split of the data: ``test``, ``validation`` or ``train``.
        corruptions: Names of the corruptions to measure robustness by; may be empty.
        ood: Foreign data; the model should be less certain on their split of the same name.
        score: Name of the uncertainty, of ``SCORES``, that detects foreign data.
        by: Column by whose groups figures are measured too; None for none.

    Raises:
        RecipeError: A name is unknown, or the score needs more than a prediction.
    """

    split: str = "test"
    corruptions: Sequence[str] = ()
    ood: Data | None = None
    score: str = "entropy"
    by: str | None = None

    def __post_init__(self) -> None:
        """Check the names, so that a mistake does not show after minutes."""
        if self.split not in SPLITS:
            raise RecipeError("split", f"is {self.split!r}; it must be one of {', '.join(SPLITS)}")
        for name in self.corruptions:
            CORRUPTIONS.find(name, key="corruptions")
        asked = needs(SCORES.find(self.score, key="score")[0])
        if asked != {"prediction"}:
            able = [name for name in SCORES.names() if needs(SCORES.entry(name)) == {"prediction"}]
            raise RecipeError(
                "score",
                f"is {self.score!r}, which needs more than one prediction; "
                f"it must be one of {', '.join(able)}",
            )


def assess(
    predictor: Predictor,
    data: Data,
    settings: Settings | None = None,
    *,
    against: Predictor | None = None,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Evaluate a model on a data set.

    Args:
        predictor: The model.
        data: The data set; its examples and labels have the form of the training data.
        settings: The measurements; figures on the test split alone where None.
        against: The teacher to measure fidelity by; fidelity is left out where None.
        tell: Called with a few words on each measurement as it begins.

    Returns:
        ``metrics``: the figures of :func:`extracurricular.evaluation.metrics.figures`, for real
        targets also ``coverage50`` and ``coverage95``. ``targets``: the figures of each by name, if
        there are several. ``labels`` and ``classes``: the figures of each of several labels, or of
        each class, by name (:func:`extracurricular.evaluation.labels.each_label`,
        :func:`extracurricular.evaluation.classes.each_class`); not there for other tasks.
        ``without``: what could not be computed, and why; not there where there is nothing.
        ``by``: the figures of each group (:func:`extracurricular.assess.slices.slices`), where they
        are asked for. ``conformal``: coverage and width of the intervals, or size of the sets, that
        the model was calibrated to
        (:func:`extracurricular.evaluation.calibrated.calibration_figures`), and the coverage
        ``stated``; not there for other models.
        ``fidelity``, ``corruptions`` and ``ood``:
        where asked for, else None, as ``docs/evaluate.md`` describes them. ``examples``, and
        ``notes`` that a person should read.

    Raises:
        DataError: The data do not fit the model; or the split has no examples or no labels; or
            there is no image to corrupt; or the score does not fit the task.
        TrainingError: The model, or the one it is compared with, gave NaN or infinity.
    """
    settings = settings or Settings()
    if set(data.classes) <= set(predictor.classes):
        data = aligned(data, predictor.classes)
    notes = fitting(predictor, data)
    split = split_of(data, settings.split)
    x, y = named_inputs(split.x), split.y
    if y is None:
        raise DataError(f"the {settings.split} split of {data.name!r} has no labels")
    y = y.cpu()
    _say(tell, "predicting")
    prediction = asked(predictor, x, data, split)
    measured = _figures(prediction, y, data)
    found: dict[str, Any] = {"examples": len(split), "metrics": measured}
    if predictor.conformal is not None:
        stated = Calibration(conformal=predictor.conformal)
        found["conformal"] = {
            "stated": predictor.conformal.coverage,
            **calibration_figures(stated, prediction, y),
        }
    if settings.by is not None:
        found["by"] = slices(prediction, y, data, split, settings.by)
    each = by_target(prediction, y, data)
    found |= {"targets": each} if each else {}
    labels = each_label(prediction, y, data.outputs)
    notes += alike(y.numpy(), list(labels), settings.split) if labels else []
    classes = each_class(prediction, y, data.classes)
    absent = without(measured, classes, data.task.kind)
    found |= {"fidelity": None, "corruptions": None, "ood": None}
    if against is not None:
        against = in_order(against, data.classes)
        fitting(against, data)
        _say(tell, f"asking {against.name}")
        found["fidelity"] = _fidelity(prediction, asked(against, x, data, split))
    if settings.corruptions:
        clean = metrics.figures(prediction, y, angular=data.angular)
        names = settings.corruptions
        found["corruptions"] = _robustness(predictor, data, x, y, clean, names, tell)
    if settings.ood is not None:
        foreign, note = foreign_inputs(predictor, settings.ood, settings.split)
        notes += [note] if note else []
        _say(tell, f"predicting {settings.ood.name}")
        theirs = _scores(predictor.filed(foreign), settings.score, data)
        own = _scores(prediction, settings.score, data)
        found["ood"] = {
            "data": settings.ood.name,
            "score": settings.score,
            "examples": len(theirs),
            "auroc": metrics.auroc(theirs, own),
            "fpr95": metrics.fpr_at_tpr(theirs, own),
        }
    more = {"labels": labels, "classes": classes, "without": absent}
    return {**found, "notes": notes, **{key: value for key, value in more.items() if value}}


def _say(tell: Tell | None, text: str) -> None:
    if tell is not None:
        tell(text)


def _figures(prediction: Distribution, y: Tensor, data: Data) -> dict[str, float]:
    figures = metrics.figures(prediction, y, angular=data.angular)
    if isinstance(prediction, Gaussian):
        for level in _LEVELS:
            name = f"coverage{round(100 * level)}"
            figures[name] = metrics.coverage(prediction, y, level)
    return figures


def _fidelity(student: Distribution, teacher: Distribution) -> dict[str, float]:
    return {
        "kl_to_teacher": float(teacher.kl(student).mean()),  # type: ignore[arg-type]
        "js_to_teacher": float(teacher.js(student).mean()),  # type: ignore[arg-type]
        "agreement": metrics.agreement(student, teacher),
    }


def _scores(prediction: Distribution, score: str, data: Data) -> Tensor:
    """Return the uncertainty of each prediction, [N]; variances are in standardised units."""
    if isinstance(prediction, Gaussian) and data.y_scale is not None:
        if data.y_transform is not None:
            prediction = inner_of(prediction, data.y_transform)
        factor = data.y_scale.scale.cpu().reciprocal()
        prediction = prediction.scaled(factor, -data.y_scale.shift.cpu() * factor)
    rate = SCORES.find(score)[0]
    try:
        if isinstance(prediction, Filed):
            return prediction.each(lambda part, _: rate(part))
        return rate(prediction)
    except ValueError as error:
        raise DataError(str(error)) from None


# Robustness


def _robustness(
    predictor: Predictor,
    data: Data,
    x: dict[str, Tensor],
    y: Tensor,
    clean: dict[str, float],
    names: Sequence[str],
    tell: Tell | None,
) -> dict[str, Any]:
    images = [name for name, leaf in x.items() if leaf.ndim == 4 and leaf.dtype == torch.uint8]
    if not images:
        raise DataError(f"the data {data.name!r} have no images of bytes that could be corrupted")
    base = {"error": metrics.error_of(clean), "nll": clean["nll"]}
    by_name: dict[str, Any] = {}
    for name in names:
        by_name[name] = {"error": {}, "nll": {}}
        for severity in SEVERITIES:
            _say(tell, f"{name} {severity}")
            prediction = _corrupted(predictor, x, images, name, severity)
            figures = metrics.figures(prediction, y, angular=data.angular)
            by_name[name]["error"][str(severity)] = metrics.error_of(figures)
            by_name[name]["nll"][str(severity)] = figures["nll"]
        for measure in base:
            values = list(by_name[name][measure].values())
            by_name[name][measure]["mean"] = statistics.fmean(values)
    mean = {
        measure: {
            strength: statistics.fmean(one[measure][strength] for one in by_name.values())
            for strength in [*map(str, SEVERITIES), "mean"]
        }
        for measure in base
    }
    whole = {measure: mean[measure]["mean"] for measure in base}
    return {
        "measure": error_measure(clean),
        "clean": base,
        "mean": mean,
        "increase": {measure: whole[measure] - base[measure] for measure in base},
        "ratio": whole["error"] / base["error"] if base["error"] else math.nan,
        "by_name": by_name,
    }


def _corrupted(
    predictor: Predictor, x: dict[str, Tensor], images: list[str], name: str, severity: int
) -> Distribution:
    """Predict corrupted examples; they are corrupted in parts, to bound memory."""
    count = len(next(iter(x.values())))
    largest = max(math.prod(x[image].shape[1:]) for image in images)
    size = max(1, min(predictor.batch_size, _MOST_VALUES // largest))
    parts = []
    for start in range(0, count, size):
        part = {key: leaf[start : start + size] for key, leaf in x.items()}
        for image in images:
            ids = torch.arange(start, start + len(part[image]), device=part[image].device)
            part[image] = corrupt(part[image], name, severity, ids)
        parts.append(predictor.distribution(part))
    return concatenate(parts)


# Sources by name
