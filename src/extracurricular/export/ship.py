"""Export a student: trace, verify, and only then write."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import nn

from extracurricular.data.base import Data
from extracurricular.data.transformed import metadata_of
from extracurricular.distributions import Calibration, Distribution
from extracurricular.errors import ExportError, OldWordWarning, RecipeError, StorageError
from extracurricular.evaluation.predict import predict
from extracurricular.export.card import card
from extracurricular.export.formats import (
    OPSET,
    check_onnx,
    to_onnx,
    to_torch,
    trace,
    with_metadata,
)
from extracurricular.export.graph import Exported, input_names
from extracurricular.export.quantise import DRAWS, quantise, raw_draws
from extracurricular.export.raw_rows import raw_inputs, row_runner, with_raw_rows
from extracurricular.export.rows import Row
from extracurricular.export.subject import Subject, own_network, student_of, without_folders
from extracurricular.export.timing import side_by_side
from extracurricular.export.verify import Runner, check, enforce, onnx_runner, torch_runner
from extracurricular.export.verify import figures as figures_of
from extracurricular.files import read_json, write_atomic
from extracurricular.inputs import leaves
from extracurricular.models import parameter_count
from extracurricular.models.trees import Trees
from extracurricular.recipe.read import parse_recipe
from extracurricular.samplers import Batch, Sampler
from extracurricular.training.simulated import Ranges

Format: TypeAlias = Literal["onnx", "pt2"]
SUFFIXES: dict[str, str] = {"onnx": ".onnx", "pt2": ".pt2"}
SCHEMA = 1
LIMIT = 1e-4
"""Largest difference that an exported model may have from its student."""
# Seconds to spend on timing each model, for each batch size.
_SECONDS = 0.5


@dataclass(frozen=True)
class Shipped:
    """The result of an export.

    Args:
        files: The model, its 8-bit version if asked for, ``metadata.json`` and ``README.md``.
        metadata: Content of ``metadata.json``.
        rows: Rows of the comparison: teacher, student, and each file.
        title: Title of the exported student.
    """

    files: list[Path]
    metadata: dict[str, Any]
    rows: list[Row]
    title: str


@dataclass
class _File:
    """A file to write; ``encode`` returns its bytes with the metadata inside."""

    path: Path
    runner: Runner
    encode: Callable[[str], bytes]
    says: dict[str, Any] = field(default_factory=dict)
    open: Callable[[bytes], Runner] = onnx_runner
    # Turning inputs back into raw rows would be timed too.
    timed: bool = True


def export_run(
    folder: str | Path,
    out: str | Path | None = None,
    *,
    student: str | None = None,
    seed: int | None = None,
    format: Format = "onnx",
    int8: bool = False,
    limit: float = LIMIT,
    trust: bool = False,
) -> Shipped:
    """Export a student of a finished run, verified on the examples that the run keeps.

    No data are read. If the run keeps no examples, the file is not verified, and says so.

    Args:
        folder: The run.
        out: The file; ``FOLDER/export/STUDENT.onnx`` or ``.pt2`` where None.
        student: Its name; the recipe's subject where None.
        seed: Its seed; the recipe's first where None.
        format: ``onnx``, or ``pt2`` for a program of ``torch.export``.
        int8: Also write an ONNX file quantised to 8 bits, calibrated on the training examples
            that the run keeps.
        limit: Largest allowed difference from the student (:func:`.verify.differences`).
        trust: Whether code that the run names (``module:attribute``) may be imported.

    Raises:
        XclError: There is nothing to export, the verification failed, or the place holds files of
            another student or run. Nothing is written then.
    """
    format = _format(format)
    subject = student_of(Path(folder), student, seed, trust)
    if out is None:
        out = Path(folder) / "export" / f"{subject.name}{SUFFIXES.get(format, '')}"
    return ship(subject, Path(out), format=format, int8=int8, limit=limit)


def export_module(
    module: nn.Module,
    data: Data,
    out: str | Path,
    *,
    format: Format = "onnx",
    sampler: Sampler | None = None,
    int8: bool = False,
    limit: float = LIMIT,
    ranges: Ranges | None = None,
    calibration: Calibration | None = None,
) -> Shipped:
    """Export any network, verified on the test split of its data set.

    Args:
        module: Maps normalised inputs to raw outputs [N, data.task.outputs]; it is copied.
        data: Its data set, for the scales.
        out: The file; its name without the suffix is the student's.
        format: ``onnx``, or ``pt2`` for a program of ``torch.export``.
        sampler: Source of the draws that calibrate 8 bits; training examples where None.
        int8: Also write an ONNX file quantised to 8 bits.
        limit: Largest allowed difference from the network.
        ranges: The ``ranges`` of :class:`~extracurricular.training.TrainingResult`, where it was
            trained with simulated 8 bits.
        calibration: The calibration of its distributions; None for none.

    Raises:
        XclError: As for :func:`export_run`.
    """
    format = _format(format)
    subject = own_network(
        module, data, sampler=sampler, name=Path(out).stem, ranges=ranges, calibration=calibration
    )
    return ship(subject, Path(out), format=format, int8=int8, limit=limit)


def _format(format: str) -> Format:
    """Return the current name of a format."""
    if format == "torch":
        warnings.warn("the format torch is called pt2 now", OldWordWarning, stacklevel=3)
        return "pt2"
    return cast(Format, format)


def ship(
    subject: Subject,
    out: Path,
    *,
    format: Format = "onnx",
    int8: bool = False,
    limit: float = LIMIT,
) -> Shipped:
    """Export a :class:`Subject`; see :func:`export_run`."""
    _check_options(out, format, int8, limit)
    if int8 and isinstance(subject.network.module, Trees):
        raise RecipeError("--int8", f"is for networks, but {subject.name} has trees")
    beside = [_int8_beside(out)] if int8 else []
    beside += [_rows_beside(out)] if format == "onnx" and _takes_rows(subject.data) else []
    known = _check_place(subject, [out, *beside])
    model = Exported(subject.network.module, subject.data, subject.calibration)
    if not subject.verifiable and subject.measured is None:
        raise ExportError(
            f"the {subject.split_name} split has no labelled examples to verify the export on"
        )
    original = predict(subject.asked, subject.data, subject.split)
    files = _build(subject, model, out, format, int8)
    if subject.verifiable:
        rows = _verified(subject, files, original, limit)
    else:
        rows = _unverified(subject, files)

    metadata = _metadata(subject, model, files, known)
    text = json.dumps(metadata, allow_nan=False, ensure_ascii=False)
    contents = {file.path: file.encode(text) for file in files}
    for file, row in zip(files, rows[2:], strict=True):
        row.size = len(contents[file.path])
        _same(file, contents[file.path], subject)
    _time(subject, files, rows)
    shown = json.dumps(metadata, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    contents[out.with_name("metadata.json")] = shown.encode()
    contents[out.with_name("README.md")] = card(subject, metadata, rows).encode()
    for path, content in contents.items():
        _write(path, content)
    return Shipped(list(contents), metadata, rows, subject.title)


def _verified(
    subject: Subject, files: list[_File], original: Distribution, limit: float
) -> list[Row]:
    """Compare files with the student; return the rows of teacher, student and files.

    Raises:
        ExportError: A file is too far from the student.
    """
    rows = [
        _teacher_row(subject),
        _student_row(subject, figures_of(original, subject.data, subject.split)),
    ]
    for file in files:
        known = subject.calibration
        stated = None if known is None else known.conformal
        checked = check(file.runner, subject.data, subject.split, original, stated)
        # The difference of 8 bits has no limit: users judge it by the figures.
        most = limit if file.says["precision"] == "float32" else math.inf
        enforce(checked, most, subject.split_name)
        file.says |= {
            "verified": True,
            "difference": checked.difference,
            "split": subject.split_name,
            "examples": len(subject.split),
            "metrics": _finite(checked.metrics),
            **({} if checked.coverage is None else {"coverage": checked.coverage}),
        }
        rows.append(Row(file.path.name, difference=checked.difference, metrics=checked.metrics))
    return rows


def _unverified(subject: Subject, files: list[_File]) -> list[Row]:
    """Try files on an empty example, and say that they are not verified."""
    for file in files:
        file.runner(_raw(subject, 2))
        file.says |= {
            "verified": False,
            "difference": None,
            "split": subject.split_name,
            "examples": 0,
            "metrics": {},
        }
    student = _student_row(subject, subject.measured or {})
    return [_teacher_row(subject), student, *(Row(file.path.name) for file in files)]


def _build(subject: Subject, model: Exported, out: Path, format: Format, int8: bool) -> list[_File]:
    for part in model.modules():
        if isinstance(part, Trees):
            part.in_onnx = format == "onnx"
    program = trace(model)
    if format == "pt2":
        says: dict[str, Any] = {"format": "torch.export", "precision": "float32"}
        runner = torch_runner(to_torch(program, ""))
        return [_File(out, runner, lambda text: to_torch(program, text), says, torch_runner)]
    proto = to_onnx(model, program)
    says = {"format": "onnx", "opset": OPSET, "precision": "float32"}
    files = [
        _File(out, onnx_runner(proto.SerializeToString()), lambda t: with_metadata(proto, t), says)
    ]
    if int8:
        small = quantise(proto, raw_draws(subject.sampler(), subject.data), subject.ranges)
        says = {"format": "onnx", "opset": OPSET, "precision": "int8", "calibration": DRAWS}
        runner = onnx_runner(small.SerializeToString())
        files.append(_File(_int8_beside(out), runner, lambda t: with_metadata(small, t), says))
    fields = subject.data.fields
    if fields is not None and _takes_rows(subject.data):
        rows = with_raw_rows(proto, fields)
        opener = partial(row_runner, fields=fields)
        says = {"format": "onnx", "opset": OPSET, "precision": "float32"}
        says |= {"rows": raw_inputs(fields)}
        runner = opener(rows.SerializeToString())
        beside = _rows_beside(out)
        files.append(_File(beside, runner, lambda t: with_metadata(rows, t), says, opener, False))
    return files


def _takes_rows(data: Data) -> bool:
    """Return whether the one input is made of a table's columns, none called as an output is."""
    if data.fields is None or input_names(data) != {"": "x"}:
        return False
    own = () if data.task.family is None else data.task.family.more
    return not set(own) & set(data.fields.names)


def _same(file: _File, content: bytes, subject: Subject) -> None:
    """Refuse a file that answers differently, with its metadata, from the verified one."""
    raw = _raw(subject, 7)
    before, after = file.runner(raw), file.open(content)(raw)
    if any(not torch.equal(before[name], after[name]) for name in before):
        raise ExportError(
            "the file answers differently once its metadata are in it; nothing was written"
        )


# -- checks ---------------------------------------------------------------------------------------


def _check_options(out: Path, format: str, int8: bool, limit: float) -> None:
    if format not in SUFFIXES:
        raise RecipeError("--format", f"is {format!r}; it must be onnx or pt2")
    if out.suffix != SUFFIXES[format]:
        raise RecipeError(
            "--out", f"is {str(out)!r}; a file of the format {format} ends in {SUFFIXES[format]}"
        )
    if not 0 < limit < math.inf:
        raise RecipeError("--limit", f"is {limit}; it must be above 0 and finite")
    if int8 and format != "onnx":
        raise RecipeError("--int8", "is for --format onnx alone, since onnxruntime quantises")
    if format == "onnx":
        check_onnx()


def _check_place(subject: Subject, targets: list[Path]) -> dict[str, Any]:
    """Refuse to overwrite anything but an earlier export of the same; return its metadata."""
    out, file = targets[0], targets[0].with_name("metadata.json")
    known = _earlier(subject, file) if file.exists() else {}
    if not known:
        targets = [*targets, out.with_name("README.md")]
    for path in targets:
        if path.exists() and path.name not in known.get("files", {}):
            raise StorageError(
                f"{str(path)!r} is there already and belongs to no export; give another --out"
            )
    return known


def _earlier(subject: Subject, file: Path) -> dict[str, Any]:
    """Return the metadata of an earlier export, which must be of the same student."""
    try:
        found = read_json(file)
    except (StorageError, OSError):
        found = None
    usable = isinstance(found, dict) and isinstance(found.get("files"), dict)
    if not usable or found.get("schema") != SCHEMA:
        raise StorageError(
            f"{str(file)!r} belongs to no export that this version knows; give another --out"
        )
    for key, value in subject.identity.items():
        known = found.get(key)
        if (without_folders(_in_todays_words(known)) if key == "recipe" else known) != value:
            what = "another run" if key == "recipe" else f"the {key} {found.get(key)!r}"
            raise StorageError(
                f"{str(file.parent)!r} holds an export of {what}; give another --out for this one, "
                "in a folder of its own"
            )
    return dict(found)


def _in_todays_words(recipe: Any) -> Any:
    """Return the recipe of an earlier export as this version writes it."""
    try:
        return parse_recipe(recipe, quiet=True).dump() if recipe else recipe
    except RecipeError:
        return recipe


def _int8_beside(out: Path) -> Path:
    return out.with_name(f"{out.stem}.int8.onnx")


def _rows_beside(out: Path) -> Path:
    return out.with_name(f"{out.stem}.rows.onnx")


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"cannot write to {str(path.parent)!r}: {error.strerror or error}"
        ) from error
    write_atomic(path, content)


# -- metadata, rows and times ---------------------------------------------------------------------


def _finite(figures: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def _metadata(
    subject: Subject, model: Exported, files: list[_File], known: dict[str, Any]
) -> dict[str, Any]:
    data, target = subject.data, subject.data.y_scale
    folder = files[0].path.parent
    earlier = {k: v for k, v in known.get("files", {}).items() if (folder / k).is_file()}
    inputs = {}
    for key, name in input_names(data).items():
        leaf, scale = leaves(data.train.x)[key], data.x_scale[key]
        inputs[name] = {
            "shape": list(leaf.shape[1:]),
            "dtype": str(leaf.dtype).removeprefix("torch."),
            "shift": scale.shift.flatten().tolist(),
            "scale": scale.scale.flatten().tolist(),
        }
    return {
        "schema": SCHEMA,
        "task": data.task.kind,
        **({} if data.task.family is None else {"distribution": data.task.family.spec}),
        "classes": list(data.classes),
        "outputs": list(data.outputs),
        "columns": list(data.columns),
        "reading": dict(data.reading),
        "angular": data.angular,
        "inputs": inputs,
        "target": None
        if target is None
        else {"shift": target.shift.tolist(), "scale": target.scale.tolist()},
        **metadata_of(data.y_transform),
        **({} if subject.calibration is None else {"calibration": subject.calibration.dump()}),
        **subject.identity,
        "model": subject.model,
        "parameters": parameter_count(subject.network.module),
        "metrics": _on_the_whole_split(subject, files[0].says["metrics"]),
        "files": earlier | {file.path.name: file.says for file in files},
        "versions": _versions(),
    }


def _on_the_whole_split(
    subject: Subject, figures: dict[str, float | None]
) -> dict[str, float | None]:
    """Return the student's figures as the run measured them, or those of the file without a run."""
    if subject.measured is None:
        return figures
    return {k: v for k, v in subject.measured.items() if k in figures or not figures}


def _versions() -> dict[str, str]:
    versions = {"extracurricular": version("extracurricular"), "torch": torch.__version__}
    for name in ("onnx", "onnxruntime"):
        try:
            versions[name] = __import__(name).__version__
        except ImportError:
            continue
    return versions


def _teacher_row(subject: Subject) -> Row:
    row = Row("teacher", parameters=subject.teacher_parameters)
    if subject.teacher is not None and subject.verifiable:
        answers = predict(subject.teacher, subject.data, subject.split)
        row.metrics = figures_of(answers, subject.data, subject.split)
    return row


def _student_row(subject: Subject, figures: dict[str, float]) -> Row:
    count = parameter_count(subject.network.module)
    return Row(subject.name, parameters=count, metrics=figures)


def _raw(subject: Subject, count: int) -> dict[str, torch.Tensor]:
    """Return ``count`` real examples, by the names of the file's inputs."""
    index = torch.arange(count) % len(subject.split)
    names = input_names(subject.data)
    return {names[key]: leaf[index] for key, leaf in leaves(subject.split.x).items()}


def _time(subject: Subject, files: list[_File], rows: list[Row]) -> None:
    """Time teacher, student and files, with normalisation and distribution, on real examples."""
    for count in (1, 32):
        index = torch.arange(count) % len(subject.split)
        x, raw = subject.split[index].x, _raw(subject, count)

        def asked(teacher: Any, x: Any = x, index: torch.Tensor = index) -> Callable[[], object]:
            # Reading the parameters is part of the answer: probabilities, or a mean and variance.
            return lambda: teacher(Batch(index, subject.data.inputs(x))).mean

        calls: dict[int, Callable[[], object]] = {1: asked(subject.asked)}
        if subject.teacher is not None:
            calls[0] = asked(subject.teacher)
        for place, file in enumerate(files):
            if file.timed:
                calls[2 + place] = partial(file.runner, raw)
        for place, seconds in side_by_side(calls, _SECONDS).items():
            rows[place].seconds[count] = seconds
