"""Draws of each sampler that students learned from, with the teacher's answers, kept for the page.

``draws.json`` says whose they are, and ``draws.safetensors`` has them: pictures as they are shown,
and other examples in the units of the data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from extracurricular.data.base import Data
from extracurricular.data.images.contact_sheet import to_bytes
from extracurricular.distributions import Distribution, usual_of
from extracurricular.errors import StorageError, XclError
from extracurricular.files import (
    curing,
    load_weights,
    read_sealed,
    save_weights,
    sha256,
    write_sealed,
)
from extracurricular.inputs import Batch, leaves
from extracurricular.run.network import NetworkStage
from extracurricular.run.workspace import Made, Workspace, records
from extracurricular.samplers import is_pure
from extracurricular.samplers.uncertain import Uncertain
from extracurricular.teachers import Teacher
from extracurricular.teachers.base import on_draws

SCHEMA = 1
DRAWS = 36
FILE = "draws.json"
TENSORS = "draws.safetensors"
# Largest width and height of a picture in pixels; larger ones would make a page of megabytes.
MOST = 64


@dataclass(frozen=True)
class Drawn:
    """Draws of one sampler.

    Args:
        students: The students that learned from it.
        sampler: The chain of the sampler.
        seen: Number of draws that one student saw.
        note: A remark on these draws, or the reason for having none.
        large: Whether pictures were made smaller.
        tensors: ``ids`` int64, [B]; ``pixels`` uint8, [B, C, H, W], or raw values ``x/NAME``; and
            ``said``, the parameters of the teacher's answers. Empty where there are no draws.
    """

    students: list[str]
    sampler: Any
    seen: int
    note: str = ""
    large: bool = False
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


def keep_draws(
    workspace: Workspace, students: Mapping[str, NetworkStage], teacher: Made[Teacher]
) -> None:
    """Write draws of each sampler, unless those of the same stages are there already.

    Args:
        workspace: The workspace of the run, with its data.
        students: The students of the first seed by name, trained.
        teacher: The teacher of that seed.
    """
    of = _made_from(workspace, students)
    if _is_there(workspace, of):
        return
    found = drawn_again(workspace, students, teacher)
    tensors = {
        f"{place}/{name}": value
        for place, one in enumerate(found)
        for name, value in one.tensors.items()
    }
    checksum = save_weights(workspace.folder / TENSORS, tensors)
    write_sealed(
        workspace.folder / FILE,
        {
            "schema": SCHEMA,
            "of": of,
            "sha256": checksum,
            "samplers": [
                {key: getattr(one, key) for key in ("students", "sampler", "seen", "note", "large")}
                for one in found
            ],
        },
    )


def drawn_again(
    workspace: Workspace, students: Mapping[str, NetworkStage], teacher: Made[Teacher]
) -> list[Drawn]:
    """Return draws of each sampler, as :func:`keep_draws` keeps them."""
    groups: dict[str, list[str]] = {}
    for name, stage in students.items():
        # Students that learn from a record see its draws, not those of other students.
        key = json.dumps([stage.sampler, stage.record is not None], sort_keys=True)
        groups.setdefault(key, []).append(name)
    return [_draws_of(workspace, students[n[0]], teacher, n) for n in groups.values()]


def read_draws(workspace: Workspace) -> list[Drawn] | None:
    """Read the draws that a run keeps; None where a version before this kept none.

    Raises:
        StorageError: A file is missing, damaged or of a later version.
    """
    file = workspace.folder / FILE
    if not file.is_file():
        return None
    with curing("`xcl run` makes it anew"):
        found = read_sealed(file)
        if found.get("schema") != SCHEMA:
            raise StorageError(f"the file {str(file)!r} is not of schema {SCHEMA}")
        tensors = load_weights(workspace.folder / TENSORS, found.get("sha256"))
    return [
        Drawn(
            **known,
            tensors={
                name.partition("/")[2]: value
                for name, value in tensors.items()
                if name.partition("/")[0] == str(place)
            },
        )
        for place, known in enumerate(found["samplers"])
    ]


def _draws_of(
    workspace: Workspace, stage: NetworkStage, teacher: Made[Teacher], names: list[str]
) -> Drawn:
    """Return draws of a stage's sampler, evenly spaced among those that its student saw."""
    seen = stage.length
    empty = Drawn(names, stage.sampler, seen)
    count = min(DRAWS, workspace.recipe.keep, seen)
    if not count:
        return replace(empty, note="The recipe says keep: 0, so none are kept.")
    ids = (torch.arange(count) * seen) // count
    try:
        batch, said, note = _draw(workspace, stage, teacher, ids.to(workspace.device))
    except (XclError, ValueError) as error:
        # A page without these draws is better than none: a record may have been deleted since.
        return replace(empty, note=f"They cannot be drawn again: {error}.")
    return shown(replace(empty, note=note), workspace.data(stage.data), batch, said)


def shown(drawn: Drawn, data: Data, batch: Batch, said: Distribution) -> Drawn:
    """Return draws as they are kept, with the teacher's distributions on them.

    Args:
        drawn: What is known of the sampler.
        data: The data set, for scales.
        batch: The draws.
        said: The teacher's distributions, in the units that networks see.
    """
    raw = {name: data.x_scale[name].undo(values).cpu() for name, values in leaves(batch.x).items()}
    tensors = {"ids": batch.ids.cpu(), "said": usual_of(said).parameters.cpu()}
    image = next((name for name, values in raw.items() if values.ndim == 4), None)
    if image is None:
        return replace(drawn, tensors=tensors | {f"x/{name}": v for name, v in raw.items()})
    pixels = _pixels(leaves(data.train.x)[image], raw[image])
    small = [_small(one) for one in pixels]
    large = max(pixels.shape[2:]) > MOST
    return replace(drawn, large=large, tensors=tensors | {"pixels": torch.stack(small)})


def _pixels(stored: Tensor, values: Tensor) -> Tensor:
    low, high = (0.0, 255.0) if stored.dtype == torch.uint8 else map(float, stored.aminmax())
    return to_bytes(values, low, high if high > low else low + 1)


def _small(image: Tensor) -> Tensor:
    """Return a picture [C, H, W] of three channels or of its first, at most 64 pixels high."""
    own = image if len(image) == 3 else image[:1]
    if max(own.shape[1:]) <= MOST:
        return own
    picture = Image.fromarray(own.permute(1, 2, 0).numpy() if len(own) == 3 else own[0].numpy())
    picture.thumbnail((MOST, MOST))
    array = np.array(picture)
    return torch.from_numpy(array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0).copy())


@torch.no_grad()
def _draw(
    workspace: Workspace, stage: NetworkStage, source: Made[Teacher], ids: Tensor
) -> tuple[Batch, Distribution, str]:
    """Return draws with these ids, the teacher's distributions on them, and a note."""
    if stage.record is not None:
        replay, recorded = stage.record.replay(workspace, stage.seed)
        batch = replay(ids)
        return batch, recorded(batch), "The teacher's answers are read out of the record."
    note = ""
    sampler = stage.draws(workspace, stage.trained(workspace))
    if not is_pure(sampler):
        note = "These draws depend on the student in training; the finished student is used here."
    teacher = workspace.made(source)
    if isinstance(sampler, Uncertain) and sampler.teacher is teacher:
        choice = sampler.choose(ids)
        return choice.batch, choice.prediction, note
    batch = sampler(ids)
    if batch.weak is not None:
        note = "The student sees these draws; the teacher's answers are on weaker ones of the same."
    return batch, on_draws(teacher, sampler)(batch.taught), note


def _made_from(workspace: Workspace, students: Mapping[str, NetworkStage]) -> str:
    """Return a checksum of all that the draws depend on: the stages, and how many are kept."""
    paths = {one.path for stage in students.values() for one in (stage, *stage.needs)}
    depends = [list(students), records(workspace.folder, sorted(paths)), workspace.recipe.keep]
    return sha256(json.dumps(depends, sort_keys=True).encode())[:32]


def _is_there(workspace: Workspace, of: str) -> bool:
    try:
        found = read_sealed(workspace.folder / FILE)
        return found["of"] == of and read_draws(workspace) is not None
    except (StorageError, KeyError, TypeError):
        return False
