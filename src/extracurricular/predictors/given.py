"""Read the data and the teacher that a person gives in Python."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from extracurricular import rng
from extracurricular.data.base import Data
from extracurricular.data.sets.arrays import from_arrays, from_dataset, from_loader
from extracurricular.distributions import Distribution, Task
from extracurricular.errors import DataError, RecipeError, XclError, own_place, raised, shorten
from extracurricular.inputs import Batch, batch_size
from extracurricular.knowledge import Answers, StoredTeacher
from extracurricular.predictors.load import from_run, known_data, load
from extracurricular.predictors.of_data import Scaled, with_scales
from extracurricular.predictors.predictor import Predictor, input_forms, input_names
from extracurricular.predictors.units import module_teacher
from extracurricular.run.finished import open_run
from extracurricular.teachers import EnsembleTeacher, Teacher
from extracurricular.teachers.base import on_split
from extracurricular.teachers.estimators import EstimatorTeacher
from extracurricular.teachers.named import ENTRIES
from extracurricular.teachers.onnx import OnnxTeacher
from extracurricular.teachers.order import Reordered, class_order
from extracurricular.teachers.raw import (
    Arrays,
    FunctionTeacher,
    MeansAloneError,
    NotProbabilitiesError,
    RawTeacher,
    parts_of,
)


def read_data(given: Any, task: Task | None = None) -> tuple[Data, int | None]:
    """Return a data set, and the batch size of a loader.

    Args:
        given: A :class:`~extracurricular.data.base.Data`; arrays or lists ``(x, y)``; a torch
            ``Dataset`` or ``DataLoader``; or a spec as a recipe has it. Arrays and data sets of
            torch are split into 70 % to train on, 10 % to validate and 20 % to test, always in the
            same way.
        task: What is predicted; read from the labels if None.

    Raises:
        DataError: It cannot be read as a data set.
    """
    if isinstance(given, Data):
        return given, None
    if isinstance(given, DataLoader):
        return from_loader(given, task=task), given.batch_size
    if isinstance(given, Dataset):
        return from_dataset(given, task=task), None
    if isinstance(given, tuple | list) and len(given) == 2 and not isinstance(given[0], str):
        return from_arrays(*given, task=task), None
    if isinstance(given, str | dict | Path):
        return known_data(str(given) if isinstance(given, Path) else given), None
    hint = ""
    if hasattr(given, "columns") and hasattr(given, "shape"):
        hint = "; of a frame, xcl.from_frame(frame, target) makes one"
    elif isinstance(given, nn.Module):
        hint = "; the order is teacher, student, data"
    raise DataError(
        f"data is {shorten(given)}; it must be a Data, arrays (x, y), a Dataset, a DataLoader, or "
        f"the name of a data set{hint}"
    )


def read_teacher(given: Any, data: Data, seed: int = 0, raw: bool | None = None) -> Teacher:
    """Return the teacher for anything that ``distill`` takes as one, after one question.

    Args:
        given: The teacher, as :func:`extracurricular.distill` takes it.
        data: The data set, on its device. Modules are moved there, and put in evaluation mode.
        seed: Seed of a teacher that is fitted here.
        raw: Whether torch modules take raw values; found out where None, as
            :func:`~extracurricular.predictors.units.module_teacher` describes.

    Raises:
        RecipeError: It is no teacher, or does not go with the data.
    """
    if raw is not None and not any(isinstance(one, nn.Module) for one in _each(given)):
        raise RecipeError("raw", f"is {raw}, but the teacher is no torch module")
    probe = data.train[:2]
    batch = Batch(torch.arange(batch_size(probe.x), device=data.device), data.inputs(probe.x))
    try:
        found = _teacher(given, data, seed, raw)
        answer = on_split(found, "train")(batch)
    except XclError:
        raise
    except Exception as error:  # the code of a teacher raises what it likes
        raise RecipeError("teacher", _problem(error, given, data)) from error
    if not isinstance(answer, Distribution):
        raise RecipeError(
            "teacher",
            f"gives a {type(answer).__name__}; an object of your own must give a Distribution, "
            "and a function on arrays is xcl.FunctionTeacher(f, data)",
        )
    width = answer.parameters.shape[-1]
    if width != data.task.outputs:
        raise RecipeError(
            "teacher", f"gives {width} numbers for an example, but {data.task.kind} of "
            f"{data.task.size} needs {data.task.outputs}{_counted_from_one(data)}"
        )  # fmt: skip
    return found


def _each(given: Any) -> list[Any]:
    """Return a teacher, or the members of a list of them."""
    return [one for part in given for one in _each(part)] if _is_list(given) else [given]


def _is_list(given: Any) -> bool:
    return isinstance(given, list | tuple)


def modules_of(given: Any) -> list[nn.Module]:
    """Return the torch modules that a teacher of the user's holds."""
    if isinstance(given, nn.Module):
        return [given]
    if _is_list(given):
        return [module for one in given for module in modules_of(one)]
    parts = (getattr(given, name, None) for name in ("module", "network", "teachers"))
    return [module for part in parts if part is not None for module in modules_of(part)]


def _teacher(given: Any, data: Data, seed: int, raw: bool | None) -> Teacher:
    if isinstance(given, Predictor):
        return predictor_teacher(given, data)
    if isinstance(given, nn.Module):
        return module_teacher(given, data, raw)
    if isinstance(given, Answers):
        return given.fit(data, seed)
    if _is_list(given):
        members = [_teacher(one, data, seed, raw) for one in given]
        if any(isinstance(one, StoredTeacher) for one in members):
            raise RecipeError("teacher", "has stored answers in a list; they go alone, so average "
                              "them first")  # fmt: skip
        return EnsembleTeacher(members)
    if isinstance(given, dict):
        entry = ENTRIES.build(given, key="teacher")
        return entry.fit(data, rng.fold(seed, "teacher") >> 1)
    if isinstance(given, str | Path):
        return _teacher_at(Path(given), data)
    if hasattr(given, "predict") and hasattr(given, "get_params"):
        return EstimatorTeacher(given, data)
    if inspect.isroutine(given) or isinstance(given, partial):
        return FunctionTeacher(given, data)
    if callable(given) and not inspect.isclass(given):
        asked: Teacher = given
        return asked
    raise RecipeError(
        "teacher", f"is {shorten(given)}; it must be a network, an estimator, a function, an ONNX "
        "file, a finished run, or a list of these"
    )  # fmt: skip


def _teacher_at(path: Path, data: Data) -> Teacher:
    if (path / "recipe.yaml").is_file():
        run = open_run(path)
        seed = run.recipe.seeds[0]
        asked = run.teacher(seed)
        described = run.workspace.described_of(seed)
        if with_scales(asked, described).goes_with(data) and described.classes == data.classes:
            return asked
        return predictor_teacher(from_run(run, seed=seed, teacher=True), data)
    if path.is_dir():
        return predictor_teacher(load(path), data)
    if path.suffix.lower() == ".onnx":
        return OnnxTeacher(path, data)
    raise RecipeError(
        "teacher", f"is {str(path)!r}; a path must be that of an ONNX file or of a finished run"
    )


# Predictors


def predictor_teacher(predictor: Predictor, data: Data) -> Teacher:
    """Return a predictor as a teacher.

    Its network is asked directly where the data set is standardised as the network's own. Others
    are asked in raw values.

    Raises:
        RecipeError: It predicts something else, or takes other inputs.
    """
    if predictor.task != data.task:
        raise RecipeError(
            "teacher",
            f"predicts {predictor.task.size} {_nouns(predictor.task)}, but the data have "
            f"{data.task.size} {_nouns(data.task)}{_counted_from_one(data)}",
        )
    forms = input_forms(data)
    if forms != dict(predictor.inputs):
        wanted, found = (
            ", ".join(f"{name} {form.shape} {form.dtype}" for name, form in given.items())
            for given in (predictor.inputs, forms)
        )
        raise RecipeError("teacher", f"takes {wanted}, but the data have {found}")
    if predictor.classes and data.classes and not counted(predictor.classes):
        try:
            order = class_order(predictor.classes, data)
        except ValueError as error:
            if not counted(data.classes):
                problem = str(error).removeprefix("classes ")
                raise RecipeError("teacher", f"{problem}, by the names of classes") from None
        else:
            if order != list(range(len(order))):
                return Reordered(PredictorTeacher(predictor, data), order)
    asked = predictor.ask
    if isinstance(asked, Scaled) and asked.goes_with(data) and asked.scales.device == data.device:
        return asked.teacher
    return PredictorTeacher(predictor, data)


def counted(names: Sequence[str]) -> bool:
    """Return whether names of classes only count from 0, so that they say nothing."""
    return list(names) == [str(k) for k in range(len(names))]


class PredictorTeacher(RawTeacher):
    """A predictor that is asked in raw values.

    Args:
        predictor: The predictor.
        data: The data set.
    """

    def __init__(self, predictor: Predictor, data: Data) -> None:
        super().__init__(data)
        self.predictor = predictor

    @property
    def parameters(self) -> int | None:
        """Count of the numbers the predictor is made of."""
        return self.predictor.parameters

    def answer(self, x: Arrays) -> Distribution:
        """Ask the predictor."""
        names = input_names(self.data.train.x)
        parts = [torch.from_numpy(part) for part in parts_of(x).values()]
        return self.predictor.answer(dict(zip(names, parts, strict=True)))


# Errors


def _problem(error: Exception, given: Any, data: Data) -> str:
    """Return what is wrong with a teacher, with a remedy where one is known."""
    text = " ".join(str(error).split())
    if not isinstance(error, ValueError) or own_place(error) is not None:
        return f"cannot be asked about these data: {raised(error)}"
    return text + (_remedy(error, given) or _counted_from_one(data))


def _remedy(error: ValueError, given: Any) -> str:
    """Return the call that reads a teacher's answers rightly; nothing where none is known."""
    output = None
    if isinstance(error, NotProbabilitiesError):
        output = "output='logits'"
    elif isinstance(error, MeansAloneError):
        output = "output='mean', std=…"
    if output and isinstance(given, str | Path):
        return f"; give xcl.OnnxTeacher(path, data, {output})"
    if output and (inspect.isroutine(given) or isinstance(given, partial)):
        return f"; give xcl.FunctionTeacher(f, data, {output})"
    if hasattr(given, "get_params") and "give std" in str(error):
        return ": xcl.EstimatorTeacher(estimator, data, std=…)"
    return ""


def _counted_from_one(data: Data) -> str:
    """Return a remedy for labels that are counted from 1, as a clause."""
    y = data.train.y
    if data.task.kind != "classification" or y is None or not len(y) or int(y.min()) != 1:
        return ""
    return f"; the labels are 1 to {int(y.max())}, but classes are counted from 0, so give y - 1"


def _nouns(task: Task) -> str:
    nouns = {"classification": "classes", "regression": "real targets", "multilabel": "labels"}
    return nouns[task.kind]
