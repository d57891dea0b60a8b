"""A predictor from an exported ONNX file, whose metadata describe its inputs and outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from extracurricular.data.transformed import own_kind, transform_of
from extracurricular.distributions import (
    OWN_LOG_VAR,
    WIDE_LOG_VAR,
    Calibration,
    Distribution,
    Gaussian,
    Kind,
    Task,
)
from extracurricular.errors import RecipeError, StorageError, shorten
from extracurricular.models.families import read_family
from extracurricular.predictors.predictor import Form, Predictor
from extracurricular.registry import first_complaint
from extracurricular.teachers.raw import read_answer

SCHEMA = 1
_OUTPUTS: dict[Kind, list[str]] = {
    "regression": ["mean", "variance"],
    "classification": ["probs"],
    "multilabel": ["probs"],
}


class _Strict(BaseModel):
    # Later versions may add to what they say.
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class _Input(_Strict):
    shape: list[Annotated[int, Field(ge=1)]]
    dtype: Literal["uint8", "float32", "float64"]


class _File(_Strict):
    rows: dict[str, str] = Field(default_factory=dict)


class Metadata(_Strict):
    """The part of the metadata by which a file is read.

    Args:
        task, classes, outputs, columns, angular, reading: As for
            :class:`~extracurricular.data.Data`; earlier versions wrote no columns and no reading.
        inputs: Shape of an example and type of each input.
        parameters: Number of parameters, if known.
        student, seed: Name and seed of the student.
        files: The files of the export by name; ``rows`` has the inputs of one for raw rows, by
            column.
        distribution: The family as a recipe writes it; None for the usual one.
        target_transform: As :func:`~extracurricular.data.transformed.transform_of` reads it.
        calibration: What the model was calibrated by, which its outputs know already, but for
            intervals and sets.
    """

    task: Kind
    classes: list[str]
    outputs: list[str]
    angular: bool
    parameters: int | None
    inputs: dict[str, _Input]
    student: str
    seed: int | None
    columns: list[str] = Field(default_factory=list)
    reading: dict[str, Any] = Field(default_factory=dict)
    files: dict[str, _File] = Field(default_factory=dict)
    distribution: Any = None
    target_transform: Any = None
    calibration: Any = None


def read_metadata(where: str, text: str) -> Metadata:
    """Read the metadata of an exported file.

    Raises:
        StorageError: They are damaged, or of another version.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{where} has damaged metadata: {error}") from None
    if not isinstance(found, dict):
        raise StorageError(f"{where} has damaged metadata: they are {shorten(found)}")
    if found.get("schema") != SCHEMA:
        raise StorageError(
            f"{where} has metadata of schema {shorten(found.get('schema'))}, and this version "
            f"reads {SCHEMA}"
        )
    try:
        return Metadata.model_validate(found)
    except ValidationError as error:
        first = first_complaint(error)
        key = ".".join(map(str, first["loc"]))
        value = "is missing" if first["type"] == "missing" else f"is {shorten(first['input'])}"
        raise StorageError(f"{where} has damaged metadata: {key} {value}") from None


def exported(path: Path, session: Any, text: str) -> Predictor:
    """Return the predictor that an exported file's metadata describe.

    Args:
        path: The file.
        session: The same, opened in onnxruntime.
        text: Its metadata.

    Raises:
        StorageError: The metadata are damaged, or do not go with the file.
    """
    where = f"the file {str(path)!r}"
    about = read_metadata(where, text)
    try:
        transform = transform_of(about.model_dump(include={"target_transform"}))
        fitted = None if about.calibration is None else Calibration.load(about.calibration)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{where} has damaged metadata: {error!r}") from None
    forms = {name: Form(tuple(one.shape), one.dtype) for name, one in about.inputs.items()}
    try:
        family = read_family(about.distribution)
    except RecipeError as error:
        raise StorageError(f"{where} has damaged metadata: {error}") from None
    wanted = [*_OUTPUTS[about.task], *(() if family is None else family.more)]
    if family is not None and family.kind != about.task:
        raise StorageError(
            f"{where} has damaged metadata: {about.distribution!r} is no {about.task}"
        )
    found = {one.name: one.shape for one in session.get_outputs()}
    takes = {one.name: one.type for one in session.get_inputs()}
    if _takes_rows(about, takes):
        raise StorageError(
            f"{where} takes raw rows in onnxruntime; load the file beside it, which takes them too"
        )
    if not set(wanted) <= set(found) or set(takes) != set(forms):
        raise StorageError(
            f"{where} takes {', '.join(takes)} and gives {', '.join(found)}, "
            f"but its metadata describe {about.task}"
        )
    size = found[wanted[0]][-1]
    names = about.classes or about.outputs
    task = Task(about.task, size if isinstance(size, int) else len(names))

    def ask(parts: dict[str, Tensor]) -> Distribution:
        feed = {name: _as_taken(part, forms[name]).numpy() for name, part in parts.items()}
        try:
            answers = session.run(wanted, feed)
        except Exception as error:  # onnxruntime has a class of its own for each way to fail
            problem = " ".join(str(error).split())
            raise StorageError(f"{where} cannot be run: {problem}") from None
        if family is not None:
            named = {name: torch.from_numpy(v) for name, v in zip(wanted, answers, strict=True)}
            limit = WIDE_LOG_VAR if answers[0].dtype == "float64" else OWN_LOG_VAR
            return family.from_named(named, limit)  # type: ignore[no-any-return]
        answer = answers[0] if len(wanted) == 1 else answers
        try:
            read = read_answer(answer, task, "probs" if len(wanted) == 1 else "mean_var")
        except ValueError as error:
            raise StorageError(f"{where}: {error}") from None
        if isinstance(read, Gaussian):
            # A file in units that float32 cannot hold answers in float64.
            double = answer[0].dtype == "float64"
            mean, log_var = (v if double else v.float() for v in (read.mean, read.log_var))
            read = Gaussian(mean, log_var, limit=WIDE_LOG_VAR if double else OWN_LOG_VAR)
            return own_kind(read, transform)
        return type(read).from_output(read.parameters.float())

    return Predictor(
        f"{about.student}, seed {about.seed}, of {path}", task, forms, ask, tuple(about.classes),
        tuple(about.outputs), about.angular, about.parameters,
        input_columns=tuple(about.columns), reading=about.reading,
        conformal=None if fitted is None else fitted.conformal,
    )  # fmt: skip


def _takes_rows(about: Metadata, takes: Mapping[str, str]) -> bool:
    """Return whether a file is that for raw rows, of which a column may be called x too."""
    rows = [set(one.rows.values()) for one in about.files.values() if one.rows]
    return set(takes) in rows and set(takes.values()) <= {"tensor(double)", "tensor(string)"}


def _as_taken(part: Tensor, form: Form) -> Tensor:
    """Return a raw tensor in the type that a file takes: a mixed image is rounded to bytes."""
    if form.dtype == "uint8" and part.is_floating_point():
        part = part.round().clamp(0, 255).to(torch.uint8)
    return part.cpu().contiguous()
