"""The draws that students saw, with the teacher's answers, by sampler."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, replace
from typing import Any

import torch
import yaml
from torch import Tensor

from extracurricular.data.base import Data
from extracurricular.distributions import FAMILIES, Bernoulli, Categorical, Distribution, Gaussian
from extracurricular.evaluation.predict import own_units
from extracurricular.evaluation.targets import target_names
from extracurricular.inputs import leaves
from extracurricular.run.drawn import Drawn, drawn_again, read_draws
from extracurricular.run.finished import Finished

_TOP = 3
_COLUMNS = 8


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


def galleries(finished: Finished) -> list[Gallery]:
    """Return draws of each sampler that students of the first seed learned from.

    They are those that the run keeps. Of a run of a version that kept none they are drawn again,
    from its data.
    """
    workspace, seed = finished.workspace, finished.recipe.seeds[0]
    drawn = read_draws(workspace)
    if drawn is None:
        students = {name: finished.stage(name, seed) for name in finished.students}
        drawn = drawn_again(workspace, students, finished.plan.teachers[seed])
    return [show(one, workspace.described_of(seed)) for one in drawn]


def _written(chain: Any) -> str:
    """Return a sampler in one line, as a recipe writes it."""
    text: str = yaml.safe_dump(
        chain, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6
    )
    return text.removesuffix("\n...\n").strip()


def show(drawn: Drawn, data: Data) -> Gallery:
    """Return draws and the teacher's distribution on them as a gallery, highest entropy first.

    Args:
        drawn: The draws.
        data: The description of the data set, for scales and names.
    """
    gallery = Gallery(drawn.students, _written(drawn.sampler), drawn.seen, [], note=drawn.note)
    if not drawn.tensors:
        return gallery
    said = FAMILIES[data.task.kind].from_output(drawn.tensors["said"])
    entropy = said.entropy()
    order = entropy.argsort(descending=True, stable=True).tolist()
    texts = _texts(data, said)
    columns: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    if "pixels" in drawn.tensors:
        rows: list[list[str]] = [[] for _ in order]
        size, pictures = _pictures(drawn.tensors["pixels"], drawn.large)
    else:
        raw = {name[2:]: v for name, v in drawn.tensors.items() if name.startswith("x/")}
        columns, rows = _rows(data, {name: raw[name] for name in leaves(data.train.x)})
        pictures = [None] * len(order)
    ids = drawn.tensors["ids"].tolist()
    draws = [Draw(ids[k], pictures[k], rows[k], texts[k], float(entropy[k])) for k in order]
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
    if isinstance(said, Bernoulli):
        names, probs = outputs(data), said.probs.cpu()
        top = probs.topk(min(_TOP, data.task.size))
        return [
            [(names[k], _share(p)) for p, k in zip(ps, ks, strict=True)]
            for ps, ks in zip(top.values.tolist(), top.indices.tolist(), strict=True)
        ]
    own = own_units(said, data)
    assert isinstance(own, Gaussian)
    degrees, unit = (180 / torch.pi, "°") if data.angular else (1.0, "")
    form = ".1f" if data.angular else ".3g"
    names = target_names(data)
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
    """Return the names of real targets, or of several labels."""
    if data.angular:
        return ("pitch", "yaw")
    noun = "label" if data.task.binary else "target"
    return data.outputs or tuple(f"{noun} {k}" for k in range(data.task.size))


def _rows(data: Data, raw: dict[str, Tensor]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Return names and texts of the first values of each draw."""
    flat = torch.cat([values.flatten(1) for values in raw.values()], 1)
    known = len(data.columns) == flat.shape[1] and len(raw) == 1
    names = data.columns if known else tuple(f"column {k}" for k in range(flat.shape[1]))
    rows = [[f"{value:.4g}" for value in row] for row in flat[:, :_COLUMNS].tolist()]
    return names[:_COLUMNS], rows


def _pictures(pixels: Tensor, large: bool) -> tuple[tuple[int, int], list[str | None]]:
    """Return the size of the pictures and a data URI of each."""
    from PIL import Image

    found: list[str | None] = []
    for image in pixels:
        array: Any = image.permute(1, 2, 0).numpy() if len(image) == 3 else image[0].numpy()
        picture = Image.fromarray(array)
        buffer = io.BytesIO()
        # Photographs as PNG take ten times the room, and small pictures need every pixel.
        picture.save(buffer, format="JPEG" if large else "PNG", quality=85)
        kind = "jpeg" if large else "png"
        coded = base64.b64encode(buffer.getvalue()).decode()
        found.append(f"data:image/{kind};base64,{coded}")
    height, width = pixels.shape[2:]
    return (width, height), found
