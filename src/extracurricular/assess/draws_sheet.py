"""Draws of samplers for a person to look at: contact sheets of images, rows of tables."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import torch
from torch import Tensor

from extracurricular.assess.draws import Ranked
from extracurricular.data.base import Data
from extracurricular.data.images.contact_sheet import Block, contact_sheet, to_bytes
from extracurricular.distributions import Bernoulli, Categorical
from extracurricular.evaluation.predict import own_units
from extracurricular.files import write_atomic
from extracurricular.inputs import images, leaves

_DOWN, _ACROSS = 5, 10
_ROWS = 12
_COLUMNS = 64


def write_draws(ranked: Ranked, data: Data, folder: Path) -> Path:
    """Write draws of one sampler into a folder, those of lowest entropy first.

    Returns:
        The file: a contact sheet for images, else a table of a few rows in the data's own units.
    """
    name = re.sub(r"[^\w.-]+", "-", ranked.candidate.name).strip("-") or "sampler"
    pictured = bool(images(ranked.draws.x))
    file = folder / f"{name}.{'png' if pictured else 'csv'}"
    write_atomic(file, sheet(ranked, data) if pictured else rows(ranked, data).encode())
    return file


def sheet(ranked: Ranked, data: Data) -> bytes:
    """Draw a contact sheet whose rows go from low to high entropy of the teacher's answers.

    Returns:
        A PNG.
    """
    entropy = ranked.answers.entropy()
    order = _spaced(entropy, _DOWN * _ACROSS)
    name, drawn = next((k, v) for k, v in leaves(ranked.draws.x).items() if v.ndim == 4)
    stored = leaves(data.train.x)[name]
    low, high = (0.0, 255.0) if stored.dtype == torch.uint8 else map(float, stored.aminmax())
    pictures = to_bytes(_raw(drawn[order], data, name), low, max(high, low + 1e-6))
    block = Block("draws", pictures.view(-1, _ACROSS, *pictures.shape[1:]))
    means = entropy[order].view(-1, _ACROSS).mean(1).tolist()
    image = contact_sheet(
        f"{ranked.candidate.name}: draws for {data.name}",
        [block],
        [f"{value:.2f} nats" for value in means],
        "rows by the entropy of the teacher's answers, on average",
    )
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def rows(ranked: Ranked, data: Data) -> str:
    """Return a few draws and the teacher's answers on them as CSV, in the data's own units."""
    entropy = ranked.answers.entropy()
    order = _spaced(entropy, _ROWS)
    header: list[str] = []
    columns: list[list[str]] = []
    for name, leaf in leaves(ranked.draws.x).items():
        values = _raw(leaf[order], data, name).flatten(1)[:, :_COLUMNS].T.tolist()
        named = data.columns if len(data.columns) == len(values) else range(len(values))
        header += [f"{name} {column}".strip() for column in named]
        columns += [[f"{value:.6g}" for value in column] for column in values]
    answers = own_units(ranked.answers[order], data)
    if isinstance(answers, Categorical):
        probability, label = answers.probs.max(1)
        header += ["answer", "probability"]
        columns.append([data.classes[k] if data.classes else str(k) for k in label.tolist()])
        columns.append([f"{value:.4f}" for value in probability.tolist()])
    elif isinstance(answers, Bernoulli):
        for k in range(data.task.size):
            header.append(f"p {data.outputs[k] if data.outputs else k}")
            columns.append([f"{value:.4f}" for value in answers.probs[:, k].tolist()])
    else:
        targets = data.outputs or tuple(f"target {k}" for k in range(data.task.size))
        for k, target in enumerate(targets):
            header += [f"{target}: mean", f"{target}: deviation"]
            columns.append([f"{value:.6g}" for value in answers.mean[:, k].tolist()])
            columns.append([f"{value:.6g}" for value in answers.std[:, k].tolist()])
    header.append("entropy")
    columns.append([f"{value:.4f}" for value in entropy[order].tolist()])
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(zip(*columns, strict=True))
    return buffer.getvalue()


def _raw(standardised: Tensor, data: Data, name: str) -> Tensor:
    scale = data.x_scale[name]
    return standardised * scale.scale + scale.shift


def _spaced(entropy: Tensor, count: int) -> Tensor:
    """Return places of draws spread evenly from the lowest entropy to the highest."""
    order = entropy.argsort(stable=True)
    places = torch.linspace(0, len(order) - 1, count, dtype=torch.float64, device=order.device)
    return order[places.long()]
