"""The description of a data set, as plain values: all that a model's users need of its data.

It has the task, the form and the scale of each input, the scale of the targets, the names of
classes, columns and targets, and how a raw example becomes an input. No example is in it. A run, a
saved student and an exported file carry it, so that none of them needs the data.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from extracurricular.data.base import Affine, Data, Split
from extracurricular.data.fields import Fields
from extracurricular.data.transform import Transform, load_transform
from extracurricular.distributions import Kind, Task
from extracurricular.errors import DataError, shorten
from extracurricular.inputs import Inputs, is_leaf, leaves
from extracurricular.models.families import with_family
from extracurricular.registry import explain_validation

_Count = Annotated[int, Field(ge=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class _Scale(_Strict):
    shift: Any
    scale: Any
    dtype: Literal["uint8", "float32", "float64"] = "float32"


class _Target(_Scale):
    transform: list[dict[str, Any]] | None = None


class _Input(_Scale):
    key: str
    shape: list[_Count]


class _Task(_Strict):
    kind: Kind
    size: _Count
    distribution: Any = None


class Description(_Strict):
    """The description of a data set, as :func:`describe_data` writes it.

    Args:
        data: Name of the data set.
        task: What is predicted.
        structure: Whether an example is one tensor, or a dict or tuple of them.
        inputs: Name, shape, type and scale of each tensor.
        target: Scale of real targets, and their transform if there is one; None for classes and
            labels.
        classes, columns, outputs, angular, reading: As for :class:`~extracurricular.data.Data`.
    """

    data: str
    task: _Task
    structure: Literal["one", "dict", "tuple"]
    inputs: Annotated[list[_Input], Field(min_length=1)]
    target: _Target | None
    classes: list[str]
    columns: list[str]
    outputs: list[str]
    angular: bool
    reading: dict[str, Any] = Field(default_factory=dict)


def describe_data(data: Data) -> dict[str, Any]:
    """Return the description of a data set; see :class:`Description`."""
    x = data.train.x
    return {
        "data": data.name,
        "task": _task(data.task),
        "structure": "one" if is_leaf(x) else "dict" if isinstance(x, dict) else "tuple",
        "inputs": [
            {
                "key": key,
                "shape": list(leaf.shape[1:]),
                "dtype": str(leaf.dtype).removeprefix("torch."),
                **affine(data.x_scale[key]),
            }
            for key, leaf in leaves(x).items()
        ],
        "target": _target(data),
        "classes": list(data.classes),
        "columns": list(data.columns),
        "outputs": list(data.outputs),
        "angular": data.angular,
        **({"reading": dict(data.reading)} if data.reading else {}),
    }


def _task(task: Task) -> dict[str, Any]:
    # Without a family of its own there is no such key, as in the files of earlier versions.
    own = {} if task.family is None else {"distribution": task.family.spec}
    return {"kind": task.kind, "size": task.size, **own}


def read_description(found: Any) -> Data:
    """Return a data set of one empty example, without a label, with what a description says.

    Raises:
        ValueError: It is damaged; the sentence says where.
    """
    try:
        return frame(Description.model_validate(found))
    except ValidationError as error:
        raise ValueError(str(explain_validation(error, "", Description.model_fields))) from None


def _target(data: Data) -> dict[str, Any] | None:
    if data.y_scale is None:
        return None
    transform = data.y_transform
    # Without one there is no such key, as in the files of earlier versions.
    more = {} if transform is None else {"transform": transform.dump()}
    return {**affine(data.y_scale), **more}


def affine(scale: Affine) -> dict[str, Any]:
    """Return a scale as plain values."""
    # Every float32 is a float64 of JSON, so that nothing is lost.
    double = {"dtype": "float64"} if scale.scale.dtype == torch.float64 else {}
    return {"shift": scale.shift.tolist(), "scale": scale.scale.tolist(), **double}


def frame(known: Description) -> Data:
    """Return a data set of one empty example, without a label, with what a description says.

    Raises:
        ValueError: Its parts do not go together.
    """
    parts: dict[str, Tensor] = {
        one.key: torch.zeros((), dtype=getattr(torch, one.dtype)).expand(1, *one.shape)
        for one in known.inputs
    }
    keys = [one.key for one in known.inputs]
    wanted = {"one": [""], "tuple": [str(k) for k in range(len(keys))]}.get(known.structure, keys)
    if keys != wanted or len(parts) != len(keys):
        raise ValueError(f"inputs are called {keys}, which does not go with {known.structure!r}")
    x: Inputs = parts
    if known.structure == "one":
        [x] = parts.values()
    elif known.structure == "tuple":
        x = tuple(parts.values())
    _check_names(known)
    split, target = Split(x), known.target
    data = Data(
        name=known.data,
        task=Task(known.task.kind, known.task.size),
        train=split,
        validation=split,
        test=split,
        x_scale={
            one.key: _read_affine(
                one, one.shape, f"the input {one.key!r}" if one.key else "the input"
            )
            for one in known.inputs
        },
        y_scale=None if target is None else _read_affine(target, [known.task.size], "the target"),
        classes=tuple(known.classes),
        angular=known.angular,
        columns=tuple(known.columns),
        outputs=tuple(known.outputs),
        reading=known.reading,
        fields=_fields(known.reading),
        y_transform=None if target is None else _transform(target, known.task.size),
    )
    return with_family(data, known.task.distribution)


def _transform(target: _Target, size: int) -> Transform | None:
    if target.transform is None:
        return None
    found = load_transform(target.transform)
    if len(found.rules) != size:
        raise ValueError(
            f"the target has {len(found.rules)} transforms, but the student predicts {size} targets"
        )
    return found


def _fields(reading: dict[str, Any]) -> Fields | None:
    """Return the columns of a table; None for other data."""
    if "columns" not in reading:
        return None
    try:
        return Fields.load(reading["columns"])
    except DataError as error:
        raise ValueError(str(error)) from error


def _check_names(known: Description) -> None:
    size, classes = known.task.size, known.task.kind == "classification"
    nouns = {"classification": "classes", "regression": "real targets", "multilabel": "labels"}
    # Of classes, the one output is the column that names them.
    for noun, names, count in (
        ("classes", known.classes, size if classes else 0),
        ("outputs", known.outputs, 1 if classes else size),
    ):
        if names and len(names) != count:
            raise ValueError(
                f"{noun} has {len(names)} names, but the student predicts {size} "
                f"{nouns[known.task.kind]}"
            )
    if (known.task.kind == "regression") != (known.target is not None):
        raise ValueError(f"target does not go with {known.task.kind}")


def _read_affine(found: _Scale, shape: list[int], what: str) -> Affine:
    """Return the scale of values of a shape.

    Raises:
        ValueError: It is no scale of such values.
    """
    read = {}
    dtype = torch.float64 if found.dtype == "float64" else torch.float32
    for name, given in (("shift", found.shift), ("scale", found.scale)):
        try:
            values = torch.tensor(given, dtype=dtype)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise ValueError(f"{name} of {what} is {shorten(given)}; it must be numbers") from None
        if not bool(torch.isfinite(values).all()):
            raise ValueError(f"{name} of {what} has a value that is not finite")
        try:
            fits = values.expand(shape).shape == tuple(shape)
        except RuntimeError:
            fits = False
        if not fits:
            raise ValueError(
                f"{name} of {what} has the shape {tuple(values.shape)}, which does not go with "
                f"values of shape {tuple(shape)}"
            )
        read[name] = values
    if not bool((read["scale"] > 0).all()):
        raise ValueError(f"scale of {what} has a value that is not above 0")
    return Affine(**read)
