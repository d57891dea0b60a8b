"""Fit the section ``teacher`` of a first recipe to a file that a person has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import torch

from extracurricular.data.base import Data
from extracurricular.data.formats.columns import Reading
from extracurricular.data.formats.tables import TEXTS, kind_of_file, read_raw
from extracurricular.data.target_transform import transformed_errors
from extracurricular.errors import DataError, RecipeError
from extracurricular.evaluation.predict import own_units
from extracurricular.files import read_json
from extracurricular.inputs import Batch
from extracurricular.knowledge.answers_file import guessed
from extracurricular.predictors.of_data import Scaled
from extracurricular.predictors.saved import load_saved
from extracurricular.teachers.base import on_split
from extracurricular.teachers.named import ENTRIES
from extracurricular.teachers.raw import MeansAloneError, NotProbabilitiesError

# Tables of answers, by their endings.
ANSWERS = (*TEXTS, ".parquet")
# Examples on which the error of a teacher without a deviation is measured.
_SOME = 4096


def of_folder(folder: Path, data: Data) -> dict[str, Any]:
    """Return the section for the folder of a saved student that learned from the same data.

    A recipe's networks take inputs as its own data are standardised, so a student that learned from
    other data would see them at another scale.

    Raises:
        RecipeError: It holds no saved student, or one of other data.
    """
    file = folder / "predictor.json"
    way = "give the .onnx file that xcl export writes"
    if not file.is_file():
        if (folder / "recipe.yaml").is_file():
            raise RecipeError("--teacher", f"is the run {str(folder)!r}; {way} of its student")
        raise RecipeError("--teacher", f"is the folder {str(folder)!r}, which holds no teacher")
    found = read_json(file)
    found = found if isinstance(found, dict) else {}
    known, fitted = found.get("model"), found.get("calibration")
    calibrated = isinstance(fitted, dict) and not {"temperature", "variance"}.isdisjoint(fitted)
    if calibrated or found.get("trees") is not None:
        what = "answers calibrated, as its weights alone do not"
        if found.get("trees") is not None:
            what = "is made of trees"
        raise RecipeError("--teacher", f"is the student in {str(folder)!r}, which {what}; {way}")
    if known is None or not _same_scales(folder, data):
        raise RecipeError(
            "--teacher",
            f"is the student in {str(folder)!r}, which learned from other data, or is a network "
            f"of your own; {way}",
        )
    return {"model": known, "weights": str(folder / "weights.safetensors")}


def fixed_settings(given: str | None, model: str | None) -> dict[str, Any]:
    """Return the settings of the data that a network depends on: ``target_transform``.

    A network answers in units of what it learned; other teachers answer in the target's own.

    Args:
        given: The teacher as a person names it; None for none.
        model: The network of its weights.
    """
    if given is None:
        return {}
    file = Path(given).expanduser() / "predictor.json"
    if not file.is_file():
        return {} if model is None else {"target_transform": None}
    found = read_json(file)
    target = found.get("target") if isinstance(found, dict) else None
    rules = target.get("transform") if isinstance(target, dict) else None
    names = [rule.get("name") for rule in rules or ()]
    if len(set(names)) < 2:
        return {"target_transform": names[0] if names else None}
    return {"target_transform": dict(zip(found["outputs"], names, strict=False))}


def _same_scales(folder: Path, data: Data) -> bool:
    """Return whether a saved student takes and gives values as networks of these data do."""
    own = load_saved(folder)
    return own.task == data.task and isinstance(own.ask, Scaled) and own.ask.goes_with(data)


def is_answers(path: Path) -> bool:
    """Return whether a path is that of a file of a teacher's answers: arrays, or a table."""
    return path.is_file() and kind_of_file(path) in (".npz", *ANSWERS)


def shared_id(table: Path, answers: Path) -> str | None:
    """Return the column by which a table and a file of answers name the same rows; None for none.

    It is of the same name in both, different in each row of both, and most of the table's values
    are in the file.
    """
    if kind_of_file(answers) == ".npz" or kind_of_file(table) not in ANSWERS:
        return None
    own, other = (read_raw(file, Reading(index="keep")).frame for file in (table, answers))
    for name in own.columns:
        if name not in other.columns:
            continue
        mine, theirs = (frame[name].cast(pl.String, strict=False) for frame in (own, other))
        distinct = mine.is_unique().all() and theirs.is_unique().all()
        if distinct and mine.is_in(theirs.to_list()).mean() > 0.5:  # type: ignore[operator]
            return name
    return None


def of_answers(path: Path, data: Data) -> tuple[dict[str, Any], str]:
    """Return the section for a file of a teacher's answers, and what was found out about it.

    Raises:
        RecipeError: Its columns are not those of answers, or training examples have none.
    """
    try:
        settings = guessed(path, data)
        found = ENTRIES.build({"answers": settings}, key="teacher").fit(data, 0)
    except ValueError as error:
        raise RecipeError("--teacher", str(error)) from error
    by = f"the column {settings['id']!r}" if "id" in settings else "their order"
    known = "" if path.suffix == ".npz" else f"Its answers are found by {by}."
    return {"answers": settings}, " ".join([known, *getattr(found, "notes", ())]).strip()


def answered_pool(section: Mapping[str, Any] | None, data: Data) -> int:
    """Return the number of examples without a target that a teacher can be asked about."""
    count = 0 if data.unlabelled is None else len(data.unlabelled)
    if section is None or "answers" not in section or not count:
        return count
    found = ENTRIES.build({"answers": section["answers"]}, key="teacher").fit(data, 0)
    try:
        on_split(found, "unlabelled")
    except DataError:
        return 0
    return count


def asked(section: Mapping[str, Any], data: Data) -> tuple[dict[str, Any], str]:
    """Ask a teacher that is no network once, and add how its answers are read.

    Args:
        section: The section ``teacher``.
        data: The data set.

    Returns:
        The section, and a sentence on what was found out; empty where nothing was.

    Raises:
        RecipeError: The teacher does not go with the data.
    """
    kind = next((key for key in ("onnx", "function") if key in section), None)
    if kind is None:
        return dict(section), ""
    settings = section[kind] if isinstance(section[kind], dict) else {kind: section[kind]}
    try:
        _answer(kind, settings, data, 64)
    except NotProbabilitiesError:
        settings = {**settings, "output": "logits"}
        _answer(kind, settings, data, 64)
        return {kind: settings}, "Its answers are no probabilities, so they are read as logits."
    except MeansAloneError:
        error = _error({**settings, "output": "mean", "std": 1.0}, kind, data)
        told = (
            f"It gives means alone; their error on validation, {error:.4g}, stands for its "
            "deviation (`std`)."
        )
        return {kind: {**settings, "output": "mean", "std": float(f"{error:.4g}")}}, told
    return {kind: settings}, ""


def _answer(kind: str, settings: Mapping[str, Any], data: Data, count: int) -> Any:
    """Return a teacher's distribution for the first examples of validation, or of training."""
    split = data.validation if len(data.validation) else data.train
    some = split[:count]
    entry = ENTRIES.build({kind: dict(settings)}, key="teacher")
    try:
        teacher = entry.fit(data, 0)
        return teacher(Batch(torch.arange(len(some)), data.inputs(some.x)))
    except (NotProbabilitiesError, MeansAloneError):
        raise
    except ValueError as error:
        raise RecipeError("--teacher", str(error)) from error


def _error(settings: Mapping[str, Any], kind: str, data: Data) -> float:
    """Return the root of the mean squared error of a teacher's means, in the target's own units.

    Of a transformed target it is in units of the transform, as ``std`` is.
    """
    split = data.validation if len(data.validation) else data.train
    y = split[:_SOME].y
    assert y is not None
    assert data.y_scale is not None
    answer = _answer(kind, settings, data, _SOME)
    if data.y_transform is None:
        error = (answer.mean - data.targets(y)) * data.y_scale.scale
    else:
        error = transformed_errors(data, own_units(answer, data).mean, y.cpu())
    return float(error.double().square().mean().sqrt())
