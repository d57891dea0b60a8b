"""The figures of a training of evidence.py, and the students that it releases."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from extracurricular.data.base import Data
from extracurricular.evaluation import metrics
from extracurricular.files import load_weights, read_json, write_json
from extracurricular.models import parameter_count
from extracurricular.predictors.saved import save_network
from extracurricular.run.workspace import Workspace, sampler_seed
from extracurricular.samplers import build_sampler
from extracurricular.teachers import NetworkTeacher, Teacher

SIZES = ("tiny", "short", "full", "long")
SCHEMA = 1

MOST_RELEASED = 4_000_000
"""Most bytes of the weights of a released student."""
# Draws on which the students to release are compared, far beyond those of any training.
_FIRST_DRAW, _DRAWS, _AT_ONCE = 2**40, 1024, 256


@dataclass(frozen=True)
class Asked:
    """A teacher, and what is known of it.

    Args:
        network: Its network, in evaluation mode on the device.
        teacher: The same as its students ask it.
        facts: Network, checksum, accuracy and source, for the figures of its students.
    """

    network: nn.Module
    teacher: Teacher
    facts: dict[str, Any]


def labels(workspace: Workspace, data: Data) -> Tensor:
    """Return the labels of the images that figures are measured on."""
    y = workspace.evaluated(data).y
    assert y is not None
    return y.cpu()


def measured(
    workspace: Workspace, data: Data, module: nn.Module, asked: Asked | None
) -> dict[str, float]:
    """Return the figures of a network, beside its teacher's answers where it has one."""
    split = workspace.evaluated(data)
    said = workspace.predict(NetworkTeacher(module, data.task), data, split)
    answers = None
    if asked is not None:
        answers = workspace.predict(NetworkTeacher(asked.network, data.task), data, split)
    found = metrics.figures(said, labels(workspace, data), teacher=answers)
    return {name: round(value, 6) for name, value in found.items()}


def figures(
    workspace: Workspace,
    data: Data,
    module: nn.Module,
    settings: dict[str, Any],
    job: dict[str, Any],
    asked: Asked | None,
) -> dict[str, Any]:
    """Return all that is told of a finished training, but for its name.

    Args:
        workspace, data: The device, and the data on it.
        module: The trained network.
        settings: The settings of its training.
        job: What the trainings in several parts have noted.
        asked: Its teacher; None for a teacher itself.
    """
    training = settings["training"]
    found = {
        "schema": SCHEMA,
        "recipe": workspace.recipe.name,
        "settings": settings,
        "teacher": None if asked is None else asked.facts,
        "parameters": parameter_count(module),
        "last_epoch": round(training["steps"] * training["batch_size"] / settings["images"], 2),
        "split": workspace.recipe.evaluation.split,
        "figures": measured(workspace, data, module, asked),
        "seconds": job["seconds"],
        "precision": job["precision"],
        "rounded_checkpoints": job["rounded"],
        "mastery": job.get("mastery"),
        "trained": job["trained"],
        "date": time.strftime("%Y-%m-%d"),
    }
    if asked is not None:
        found["kl_on_training_draws"] = round(_kl_on_draws(workspace, data, module, asked), 6)
    return found


@torch.no_grad()
def _kl_on_draws(workspace: Workspace, data: Data, module: nn.Module, asked: Asked) -> float:
    """Return the mean KL from the teacher on shifted training images, in nats."""
    chain = workspace.recipe.teacher.sampler
    sampler = build_sampler(chain, data, sampler_seed(0), "teacher.sampler")
    student, parts = NetworkTeacher(module, data.task), []
    for first in range(_FIRST_DRAW, _FIRST_DRAW + _DRAWS, _AT_ONCE):
        batch = sampler(torch.arange(first, first + _AT_ONCE, device=workspace.device))
        with workspace.exact(), workspace.fabric.autocast():
            answers: Any = asked.teacher(batch)
            parts.append(answers.kl(student(batch)).float())
    return float(torch.cat(parts).mean())


def release(
    folder: Path, workspace: Workspace, data: Data, module: nn.Module, found: dict[str, Any]
) -> str | None:
    """Release a student, unless a better one of its pair is.

    Args:
        folder: The folder of the evidence.
        workspace, data: The device, and the data on it.
        module: The trained network.
        found: Its figures.

    Returns:
        A sentence, or None where a better one stays.
    """
    model = found["settings"]["model"]
    name = f"cifar100-{model}"
    place = folder / "students" / name
    note = place / "evidence.json"
    rank = [SIZES.index(found["size"]), -found["kl_on_training_draws"]]
    if note.is_file() and read_json(note)["rank"] >= rank:
        return None
    state = module.state_dict().values()
    size = sum(v.numel() * (2 if v.is_floating_point() else 8) for v in state)
    # Names and shapes take a little, too.
    if size >= 0.99 * MOST_RELEASED:
        return f"{name}: its weights of {size / 1e6:.1f} MB are too large to be released"
    save_network(place, module, data, model=model, name=name, replace=True, half=True)
    rounded = workspace.network(model, data, 0, "model")
    rounded.load_state_dict(load_weights(place / "weights.safetensors"))
    again = measured(workspace, data, rounded.to(workspace.device).eval(), None)
    figure = {"accuracy_in_float16": again["accuracy"], "split": found["split"]}
    write_json(note, {"figures_of": found["name"], "rank": rank, **figure})
    return f"{name}: released"
