"""Evaluate any trained model: figures, fidelity, robustness, detection of foreign data.

:func:`assess` is a function of a predictor and data. :func:`evaluate` finds both by the user's
names for them, for all seeds of a run's student, and combines the seeds.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

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
from extracurricular.data.base import Data
from extracurricular.data.several import alike
from extracurricular.data.transformed import inner_of
from extracurricular.distributions import (
    Distribution,
    Filed,
    Gaussian,
    concatenate,
)
from extracurricular.errors import (
    DataError,
    OldWordWarning,
    RecipeError,
    StorageError,
    TrustError,
    XclError,
    shorten,
)
from extracurricular.evaluation import metrics
from extracurricular.evaluation.classes import each_class, without
from extracurricular.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from extracurricular.evaluation.labels import each_label, over_seeds
from extracurricular.evaluation.targets import by_target
from extracurricular.evaluation.words import error_measure
from extracurricular.predictors.given import read_data
from extracurricular.predictors.load import from_run, load
from extracurricular.predictors.predictor import Predictor, named_inputs
from extracurricular.predictors.saved import FILE
from extracurricular.recipe.overrides import override
from extracurricular.run.finished import Finished, open_run
from extracurricular.samplers.scores import SCORES, needs

SCHEMA = 1
SPLITS = ("test", "validation", "train")
# Levels beside the 0.9 that every evaluation has.
_LEVELS = (0.5, 0.95)
# Keys of a result that differ between seeds whose data differ.
_APART = ("labels", "classes", "without")
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

    Raises:
        RecipeError: A name is unknown, or the score needs more than a prediction.
    """

    split: str = "test"
    corruptions: Sequence[str] = ()
    ood: Data | None = None
    score: str = "entropy"

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


def evaluate(
    source: str | Path | Predictor,
    data: Any = None,
    settings: Settings | None = None,
    *,
    student: str | None = None,
    seed: int | None = None,
    teacher: bool = False,
    model: Any = None,
    key: str | None = None,
    against: str | Path | Predictor | None = None,
    changed: Literal["refuse", "accept"] = "refuse",
    trust: bool = False,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Evaluate a trained model, as ``xcl evaluate`` does.

    Args:
        source: A predictor; or the path of a run, of a saved student, of an ONNX file, of the
            folder of an exported model, or of weights.
        data: The data set in any form that :func:`extracurricular.distill` takes; a run's own where
            None, and ``path=PLACE`` for a run's own at another place. Arrays ``(x, y)`` are split
            as ``distill`` splits them, so that the test split has the examples that a student of
            the same arrays did not learn from.
        settings: The measurements; figures on the test split alone where None.
        student, seed, teacher, model, key: As for :func:`extracurricular.load`. Without ``seed``
            all seeds of the run are evaluated.
        against: The teacher to measure fidelity by: a predictor, the path of a run (its teacher) or
            of a file. It is the run's own teacher where None.
        changed: Whether a run's data are refused if they are not those that it was made with, or
            accepted: the run's students are then evaluated on them as they are now.
        trust: Whether code that a folder names may be imported, as for
            :func:`extracurricular.load`. Without it, a run whose teacher is such code has no
            figures of fidelity.
        tell: As for :func:`assess`.

    Returns:
        The result of :func:`assess`, each figure as ``{"mean", "std", "per_seed"}`` with null for
        one that is not finite; and ``source``, ``model``, ``parameters``, ``task``, ``seeds``
        (None unless ``source`` is a run), ``data``, ``split``. It can be written as JSON.

    Raises:
        XclError: Something cannot be read, or does not fit; the message is one sentence.
    """
    given: Any = source
    if isinstance(given, Distribution):
        return _old_figures(given, data)
    settings = settings or Settings()
    if isinstance(source, Predictor):
        if data is None:
            raise RecipeError("data", "is needed: a predictor does not keep the data set")
        data, _ = read_data(data, source.task)
        judge = None if against is None else _judge(against, data, trust)
        rows = [assess(source, data, settings, against=judge, tell=tell)]
        return _found(source.name, source.name, source, None, data, settings, judge, rows)
    if not isinstance(source, str | Path):
        raise RecipeError("source", f"is {shorten(source)}; it must be a predictor or a path")
    if not (Path(source) / "recipe.yaml").is_file():
        given = {"student": student, "seed": seed, "teacher": teacher, "model": model, "key": key}
        given["trust"] = trust
        task = None
        if _is_saved(source):
            # The data are for the evaluation, as the folder has all that loading needs.
            predictor = load(source, **given)
            task = predictor.task
        data = None if data is None else read_data(data, task)[0]
        if not _is_saved(source):
            predictor = load(source, **given, data=data)
        if data is None:
            raise RecipeError("DATA", f"is needed: {source!r} is not a run with its own data")
        judge = None if against is None else _judge(against, data, trust)
        rows = [assess(predictor, data, settings, against=judge, tell=tell)]
        return _found(source, predictor.name, predictor, None, data, settings, judge, rows)
    if model is not None:
        raise RecipeError("model", f"is of no use here: the run {source!r} knows its own")
    if key is not None:
        raise RecipeError("key", f"is of no use here: the run {source!r} knows its own")
    if changed not in ("refuse", "accept"):
        raise RecipeError("--data-changed", f"is {shorten(changed)}; it must be refuse or accept")
    place = _place(data)
    run = open_run(Path(source), accepts=changed == "accept", place=place, trust=trust)
    data = None if place else data
    with run.reading():
        task = run.described.task
    data = None if data is None else read_data(data, task)[0]
    rows = []
    seeds = _seeds(run, seed, teacher)
    for one in seeds:
        predictor = from_run(run, student=student, seed=one, teacher=teacher)
        used = data_of_run(run, one) if data is None else data
        judge = None if against is None else _judge(against, used, trust)
        notes: list[str] = []
        if against is None and not teacher:
            judge, notes = _own_judge(run, one, given=data is not None)
        prefix = f"seed {one}: " if len(seeds) > 1 else ""
        row = assess(predictor, used, settings, against=judge, tell=_after(prefix, tell))
        rows.append(row | {"notes": [*row["notes"], *notes]})
    title = f"{'teacher' if teacher else run.chosen_student(student)} of {source}"
    found = _found(source, title, predictor, seeds, used, settings, judge, rows)
    if judge is not None:
        found["against"] = _name_of(source if against is None else against)
    return found


def _place(data: Any) -> dict[str, Any] | None:
    """Return the settings of a run's own data, where data are given as ``path=PLACE``."""
    given = [data] if isinstance(data, str) else data if isinstance(data, list) else []
    texts = [text for text in given if isinstance(text, str) and "=" in text]
    if not texts or len(texts) < len(given) or texts[0].lstrip().startswith("{"):
        return None
    found: dict[str, Any] = {}
    for text in texts:
        override(found, text.removeprefix("data."))
    return found


def data_of_run(run: Finished, seed: int) -> Data:
    """Return a run's own data, with labels in the order of the run's classes.

    Raises:
        XclError: They are not where they were, or not those of the run.
    """
    try:
        with run.reading():
            data = run.workspace.data_of(seed)
    except RecipeError as error:
        raise StorageError(
            f"the data of the run {str(run.folder)!r} cannot be read where they were: {error}; "
            "give their place now as path=…, or other data"
        ) from None
    return aligned(data, run.workspace.described_of(seed).classes)


def _own_judge(run: Finished, seed: int, *, given: bool) -> tuple[Predictor | None, list[str]]:
    """Return a run's teacher, and notes; None for one that cannot be fitted again without its data.

    Where other data are given, the figures of the student are worth more than none. Stored answers
    cannot be asked for, so there is none either; nor of a teacher whose code is not imported.
    """
    if run.recipe.teacher.answers is not None:
        return None, []
    try:
        return from_run(run, seed=seed, teacher=True), []
    except TrustError as error:
        return None, [f"the fidelity to the teacher is not measured: {error}"]
    except XclError:
        if run.recipe.teacher.fitted is not None and (given or run.workspace.accepts):
            return None, []
        raise


def _found(
    source: str | Path,
    title: str,
    predictor: Predictor,
    seeds: list[int] | None,
    data: Data,
    settings: Settings,
    judge: Predictor | None,
    rows: list[dict[str, Any]],
) -> dict[str, Any]:
    absent = {key: why for row in rows for key, why in row.get("without", {}).items()}
    return {
        "schema": SCHEMA,
        "source": str(source),
        "model": title,
        "parameters": predictor.parameters,
        "task": predictor.task.kind,
        "seeds": seeds,
        "data": data.name,
        "split": settings.split,
        "against": None if judge is None else judge.name,
        **together([{k: v for k, v in row.items() if k not in _APART} for row in rows]),
        **{
            key: over_seeds([row[key] for row in rows], partly=key == "classes")
            for key in ("labels", "classes")
            if key in rows[0]
        },
        **({"without": absent} if absent else {}),
    }


def _old_figures(prediction: Any, y: Any) -> dict[str, Any]:
    """Answer as ``xcl.evaluate`` did when it was called with a prediction and labels."""
    warnings.warn(
        "xcl.evaluate(prediction, y) is called xcl.figures now; xcl.evaluate takes a model or a "
        "run, and data",
        OldWordWarning,
        stacklevel=3,
    )
    return dict(metrics.figures(prediction, y))


def _after(prefix: str, tell: Tell | None) -> Tell | None:
    return None if tell is None else lambda text: tell(prefix + text)


def _seeds(run: Finished, seed: int | None, teacher: bool) -> list[int]:
    if seed is not None:
        return [seed]
    seeds = run.recipe.seeds
    return seeds[:1] if teacher and not run.recipe.teacher.per_seed else seeds


def _judge(source: str | Path | Predictor, data: Data, trust: bool) -> Predictor:
    if isinstance(source, Predictor):
        return source
    is_run = (Path(source) / "recipe.yaml").is_file()
    used = None if is_run or _is_saved(source) else data
    found = load(source, teacher=is_run, data=used, trust=trust)
    return replace(found, name=_name_of(source))


def _is_saved(source: str | Path) -> bool:
    return (Path(source) / FILE).is_file()


def _name_of(source: str | Path | Predictor) -> str:
    if isinstance(source, Predictor):
        return source.name
    return f"teacher of {source}" if (Path(source) / "recipe.yaml").is_file() else str(source)


def together(rows: Sequence[Any]) -> Any:
    """Combine the results of all seeds: figures as mean, sample deviation and list."""
    first = rows[0]
    if isinstance(first, dict):
        # A figure that a seed's split does not allow is left out.
        whole = [key for key in first if all(key in row for row in rows)]
        return {key: together([row[key] for row in rows]) for key in whole}
    if not isinstance(first, float):
        return first
    finite = all(math.isfinite(value) for value in rows)
    return {
        "mean": statistics.fmean(rows) if finite else None,
        "std": (statistics.stdev(rows) if len(rows) > 1 else 0.0) if finite else None,
        "per_seed": [value if math.isfinite(value) else None for value in rows],
    }
