"""The draws that students saw, with the teacher's answers, by sampler."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass, replace
from typing import Any

import torch
import yaml
from torch import Tensor

from extracurricular.data.base import Data
from extracurricular.data.images.contact_sheet import to_bytes
from extracurricular.distributions import Categorical, Distribution
from extracurricular.errors import XclError
from extracurricular.inputs import leaves
from extracurricular.run.finished import Finished
from extracurricular.run.network import NetworkStage
from extracurricular.samplers import Batch, is_pure
from extracurricular.samplers.uncertain import Uncertain

DRAWS = 36
_TOP = 3
_COLUMNS = 8
# Largest width and height of a picture in pixels; larger ones would make a page of megabytes.
_MOST = 64


@dataclass(frozen=True)
class Draw:
    """One draw of a sampler.

    Args:
        id: Its id.
        picture: A data URI of the example's image; None without an image.
        row: The first values of an example without an image, as text.
        said: The teacher's answer: the most probable classes, or each target with its deviation.
        entropy: The teacher's entropy in nats.
    """

    id: int
    picture: str | None
    row: list[str]
    said: list[tuple[str, str]]
    entropy: float


@dataclass(frozen=True)
class Gallery:
    """The draws of one sampler.

    Args:
        students: The students that learned from it.
        sampler: The sampler as the recipe writes it.
        ids: Number of draws that one student saw.
        draws: A few of them, highest entropy first.
        size: Width and height of a picture, in pixels; None for rows of values.
        columns: Names of the values of a row.
        note: A remark on these draws, or the reason for having none.
    """

    students: list[str]
    sampler: str
    ids: int
    draws: list[Draw]
    size: tuple[int, int] | None = None
    columns: tuple[str, ...] = ()
    note: str = ""


def galleries(finished: Finished, count: int = DRAWS) -> list[Gallery]:
    """Return draws of each sampler that students of the first seed learned from.

    Args:
        finished: The run.
        count: Draws of each sampler, evenly spaced among those that the student saw.
    """
    seed = finished.recipe.seeds[0]
    groups: dict[str, list[str]] = {}
    for name, section in finished.recipe.students.items():
        # Students that learn from a record see its draws, not those of other students.
        recorded = finished.stage(name, seed).record is not None
        key = json.dumps([section.sampler, recorded], sort_keys=True)
        groups.setdefault(key, []).append(name)
    return [_gallery(finished, names, seed, count) for names in groups.values()]


def _gallery(finished: Finished, names: list[str], seed: int, count: int) -> Gallery:
    workspace, stage = finished.workspace, finished.stage(names[0], seed)
    seen = stage.training.steps * stage.training.batch_size
    ids = (torch.arange(min(count, seen)) * seen) // min(count, seen)
    empty = Gallery(names, _written(stage.sampler), seen, [])
    try:
        batch, said, note = _draw(finished, stage, ids.to(workspace.device))
    except (XclError, ValueError) as error:
        # A page without these draws is better than none: a record may have been deleted since.
        return replace(empty, note=f"They cannot be drawn again: {error}.")
    return show(replace(empty, note=note), workspace.data(stage.data), batch, said)


def _written(chain: Any) -> str:
    """Return a sampler in one line, as a recipe writes it."""
    text: str = yaml.safe_dump(
        chain, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6
    )
    return text.removesuffix("\n...\n").strip()


@torch.no_grad()
def _draw(finished: Finished, stage: NetworkStage, ids: Tensor) -> tuple[Batch, Distribution, str]:
    """Return draws with these ids, the teacher's distributions on them, and a note."""
    workspace = finished.workspace
    if stage.record is not None:
        replay, recorded = stage.record.replay(workspace, stage.seed)
        batch = replay(ids)
        return batch, recorded(batch), "The teacher's answers are read out of the record."
    note = ""
    sampler = stage.draws(workspace, stage.trained(workspace))
    if not is_pure(sampler):
        note = "These draws depend on the student in training; the finished student is used here."
    teacher = finished.teacher(stage.seed)
    if isinstance(sampler, Uncertain) and sampler.teacher is teacher:
        choice = sampler.choose(ids)
        return choice.batch, choice.prediction, note
    batch = sampler(ids)
    return batch, teacher(batch), note


def show(gallery: Gallery, data: Data, batch: Batch, said: Distribution) -> Gallery:
    """Put draws and the teacher's distribution on them into a gallery, highest entropy first.

    Args:
        gallery: The gallery to fill.
        data: The data set, for scales and names.
        batch: The draws.
        said: The teacher's distributions, in the units that networks see.
    """
    entropy = said.entropy().cpu()
    order = entropy.argsort(descending=True, stable=True).tolist()
    texts = _texts(data, said)
    raw = {
        name: (values * data.x_scale[name].scale + data.x_scale[name].shift).cpu()
        for name, values in leaves(batch.x).items()
    }
    image = next((name for name, values in raw.items() if values.ndim == 4), None)
    columns: tuple[str, ...] = ()
    if image is None:
        columns, rows = _rows(data, raw)
        pictures: list[str | None] = [None] * len(order)
        size = None
    else:
        rows = [[] for _ in order]
        size, pictures = _pictures(data, image, raw[image])
    draws = [
        Draw(int(batch.ids[k]), pictures[k], rows[k], texts[k], float(entropy[k])) for k in order
    ]
    return replace(gallery, draws=draws, size=size, columns=columns)


def _texts(data: Data, said: Distribution) -> list[list[tuple[str, str]]]:
    """Return the teacher's answer on each draw, as names and figures."""
    if isinstance(said, Categorical):
        names = data.classes or tuple(map(str, range(data.task.size)))
        top = said.probs.cpu().topk(min(_TOP, data.task.size))
        return [
            [(names[k], _share(p)) for p, k in zip(ps, ks, strict=True)]
            for ps, ks in zip(top.values.tolist(), top.indices.tolist(), strict=True)
        ]
    own = said if data.y_scale is None else said.scaled(data.y_scale.scale, data.y_scale.shift)
    degrees, unit = (180 / torch.pi, "°") if data.angular else (1.0, "")
    form = ".1f" if data.angular else ".3g"
    names = outputs(data)
    means, deviations = (own.mean.cpu() * degrees).tolist(), (own.std.cpu() * degrees).tolist()
    return [
        [
            (name, f"{mean:{form}}{unit} ± {deviation:{form}}{unit}")
            for name, mean, deviation in zip(names, row, std, strict=True)
        ]
        for row, std in zip(means, deviations, strict=True)
    ]


def _share(probability: float) -> str:
    """Return a probability as a percentage that is never 0 % or 100 %."""
    text = f"{100 * probability:.0f} %"
    return {"0 %": "< 1 %", "100 %": "> 99 %"}.get(text, text)


def outputs(data: Data) -> tuple[str, ...]:
    """Return the names of real targets."""
    if data.angular:
        return ("pitch", "yaw")
    return data.outputs or tuple(f"target {k}" for k in range(data.task.size))


def _rows(data: Data, raw: dict[str, Tensor]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Return names and texts of the first values of each draw."""
    flat = torch.cat([values.flatten(1) for values in raw.values()], 1)
    known = len(data.columns) == flat.shape[1] and len(raw) == 1
    names = data.columns if known else tuple(f"column {k}" for k in range(flat.shape[1]))
    rows = [[f"{value:.4g}" for value in row] for row in flat[:, :_COLUMNS].tolist()]
    return names[:_COLUMNS], rows


def _pictures(data: Data, name: str, values: Tensor) -> tuple[tuple[int, int], list[str | None]]:
    """Return the size of the pictures and a data URI of each."""
    from PIL import Image

    stored = leaves(data.train.x)[name]
    low, high = (0.0, 255.0) if stored.dtype == torch.uint8 else map(float, stored.aminmax())
    found: list[str | None] = []
    size = (0, 0)
    for image in to_bytes(values, low, high if high > low else low + 1):
        pixels: Any = image.permute(1, 2, 0).numpy() if len(image) == 3 else image[0].numpy()
        picture = Image.fromarray(pixels)
        large = max(picture.size) > _MOST
        if large:
            picture.thumbnail((_MOST, _MOST))
        size = picture.size
        buffer = io.BytesIO()
        # Photographs as PNG take ten times the room, and small pictures need every pixel.
        picture.save(buffer, format="JPEG" if large else "PNG", quality=85)
        kind = "jpeg" if large else "png"
        coded = base64.b64encode(buffer.getvalue()).decode()
        found.append(f"data:image/{kind};base64,{coded}")
    return size, found
