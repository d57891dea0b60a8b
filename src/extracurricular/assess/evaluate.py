"""Evaluate any trained model: figures, fidelity, robustness, detection of foreign data.

:func:`assess` is a function of a predictor and data. :func:`evaluate` finds both by the user's
names for them, for all seeds of a run's student, and combines the seeds.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from extracurricular.assess.assess import SCHEMA, Settings, Tell, assess
from extracurricular.assess.fitting import (
    aligned,
)
from extracurricular.data.base import Data
from extracurricular.distributions import (
    Distribution,
)
from extracurricular.errors import (
    OldWordWarning,
    RecipeError,
    StorageError,
    TrustError,
    XclError,
    shorten,
)
from extracurricular.evaluation import metrics
from extracurricular.evaluation.labels import over_seeds
from extracurricular.predictors.given import read_data
from extracurricular.predictors.load import from_run, load
from extracurricular.predictors.predictor import Predictor
from extracurricular.predictors.saved import FILE
from extracurricular.recipe.overrides import override
from extracurricular.run.finished import Finished, open_run

# Keys of a result that differ between seeds whose data differ.
_APART = ("labels", "classes", "without")


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
