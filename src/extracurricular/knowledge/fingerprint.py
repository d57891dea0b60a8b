"""Fingerprints of data, samplers and teachers, so that a record serves only what it was made from.

A fingerprint is a SHA-256 in hexadecimal, cut to 32 digits. It depends on contents alone: not on
names of files, devices, or places in memory.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from typing import Any

import torch
from torch import Tensor, nn

from extracurricular.data.base import Data
from extracurricular.data.images.stream import Streamed
from extracurricular.errors import shorten
from extracurricular.inputs import as_bytes, leaves
from extracurricular.knowledge.answers import StoredTeacher
from extracurricular.teachers import DropoutTeacher, EnsembleTeacher, LabelTeacher, NetworkTeacher
from extracurricular.teachers.apart import Apart
from extracurricular.teachers.calibrated import Calibrated
from extracurricular.teachers.order import Reordered
from extracurricular.teachers.raw import RawTeacher
from extracurricular.teachers.sharded import Sharded

_DIGITS = 32


def plain(value: Any) -> Any:
    """Return a value as JSON gives it back: tuples become lists, keys become strings.

    Raises:
        ValueError: The value holds more than plain values.
    """
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{shorten(value)} is not made of plain values: {error}") from None


def canonical(value: Any) -> bytes:
    """Return a plain value as JSON in its one canonical form, for hashing."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def data_fingerprint(data: Data) -> str:
    """Return the fingerprint of a data set's training split, scales, task and classes.

    Streamed images enter it by the names and sizes of their files.
    """
    scales = {key: [scale.shift, scale.scale] for key, scale in data.x_scale.items()}
    if data.y_scale is not None:
        scales["y"] = [data.y_scale.shift, data.y_scale.scale]
    return _digest(
        {
            "task": describe(data.task),
            "classes": list(data.classes),
            "x": {key: describe(leaf) for key, leaf in leaves(data.train.x).items()},
            "y": describe(data.train.y),
            "scales": {key: [describe(t) for t in pair] for key, pair in scales.items()},
            **({} if data.y_transform is None else {"transform": data.y_transform.dump()}),
        }
    )


def teacher_fingerprint(teacher: Any) -> str:
    """Return the fingerprint of a teacher: the weights of its networks, and how they are combined.

    Raises:
        ValueError: The teacher is of no kind of this package, so its owner must identify it.
    """
    try:
        return _digest(describe(teacher))
    except ValueError:
        raise ValueError(
            f"the teacher is a {type(teacher).__name__}, whose weights cannot be found; "
            "give teacher_id, a text that identifies it"
        ) from None


def describe(thing: Any) -> Any:
    """Describe a sampler or teacher as plain values, with fingerprints in place of large values.

    A dataclass becomes its name, its seed, and the settings that differ from their defaults. A
    tensor, a module or a data set becomes a fingerprint.

    Raises:
        ValueError: It holds something that has no description.
    """
    if thing is None or isinstance(thing, bool | int | str):
        return thing
    if isinstance(thing, float):
        return thing if math.isfinite(thing) else str(thing)
    if isinstance(thing, list | tuple):
        return [describe(part) for part in thing]
    if isinstance(thing, dict):
        return {str(key): describe(part) for key, part in thing.items()}
    if isinstance(thing, torch.dtype | torch.device):
        return str(thing)
    if isinstance(thing, Streamed):
        return thing.identity()
    if isinstance(thing, Tensor):
        return _tensor(thing)
    if isinstance(thing, Data):
        return {"data": data_fingerprint(thing)}
    if isinstance(thing, nn.Module):
        return {"weights": state_fingerprint(thing)}
    if isinstance(thing, LabelTeacher):
        return "labels"
    if isinstance(thing, NetworkTeacher):
        return {"network": state_fingerprint(thing.module), "task": describe(thing.task)}
    if isinstance(thing, Apart):
        return {"apart": describe(thing.teacher)}
    if isinstance(thing, EnsembleTeacher):
        return {"ensemble": describe(thing.teachers)}
    if isinstance(thing, RawTeacher | StoredTeacher):
        return {"outside": thing.identity()}
    if isinstance(thing, Calibrated):
        return {"calibrated": describe(thing.teacher), "by": thing.calibration.dump()}
    if isinstance(thing, Reordered):
        return {"reordered": describe(thing.teacher), "order": thing.order}
    if isinstance(thing, DropoutTeacher):
        inner = describe(thing.network)
        return {"mc_dropout": inner, "passes": thing.passes, "seed": thing.seed}
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        return {type(thing).__name__: _settings(thing)}
    raise ValueError(
        f"a {type(thing).__name__} cannot be identified by its settings; "
        "describe the sampler yourself, as plain values"
    )


def _settings(thing: Any) -> dict[str, Any]:
    given = {}
    for field in dataclasses.fields(thing):
        value = getattr(thing, field.name)
        name = field.metadata.get("recorded_as", field.name)
        if name is None:
            continue  # it changes no draw
        # Defaults are left out, so that a setting which a later version adds, with the old
        # behaviour as its default, changes no description.
        simple = value is None or isinstance(value, bool | int | float | str)
        if simple and field.name != "seed" and value == field.default:
            continue
        # A setting that has another name now keeps the one that older records have.
        given[name] = describe(value)
    return given


def _tensor(tensor: Tensor) -> str:
    """Return the fingerprint of a tensor: of its type, shape and bytes."""
    found = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    found.update(as_bytes(tensor.cpu()).numpy().data)
    return found.hexdigest()[:_DIGITS]


def state_fingerprint(module: nn.Module) -> str:
    """Return the fingerprint of a network's weights; a sharded one knows its own."""
    if isinstance(module, Sharded):
        return module.fingerprint
    return _digest({name: describe(value) for name, value in module.state_dict().items()})


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical(value)).hexdigest()[:_DIGITS]
