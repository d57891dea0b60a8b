"""The subject of an export: a student of a finished run, or any network with its data set."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from extracurricular.data.base import Data, Split
from extracurricular.errors import XclError
from extracurricular.recipe.schema import DeviceSection
from extracurricular.run.finished import Finished, open_run
from extracurricular.samplers import Empirical, Sampler
from extracurricular.teachers import NetworkTeacher, Teacher


@dataclass(frozen=True)
class Subject:
    """A network to export, with all that the export reports about it.

    Args:
        network: The network, on the CPU.
        data: Its data set, on the CPU.
        split: The examples that the exported model is compared on.
        split_name: Name of that split.
        name: The student's name.
        seed: Its seed.
        recipe: The run's recipe as plain values; empty without a run.
        model: Spec of the network; None for a module of the user's own.
        sampler: Returns the sampler whose draws calibrate 8 bits; called only for that.
        teacher: The teacher, to be timed; None where it is no network, or not at hand.
        teacher_parameters: Number of its parameters, if known.
        teacher_metrics: Its figures on the split, if known.
    """

    network: NetworkTeacher
    data: Data
    split: Split
    split_name: str
    name: str
    seed: int
    sampler: Callable[[], Sampler]
    recipe: dict[str, Any]
    model: Any = None
    teacher: Teacher | None = None
    teacher_parameters: int | None = None
    teacher_metrics: dict[str, float] | None = None

    @property
    def title(self) -> str:
        """The title for readers: the recipe's name and the student's."""
        return f"{self.recipe['name']} {self.name}" if self.recipe else self.name

    @property
    def identity(self) -> dict[str, Any]:
        """The values that distinguish it from another student or run."""
        return {"student": self.name, "seed": self.seed, "recipe": self.recipe}


def student_of(folder: Path, name: str | None = None, seed: int | None = None) -> Subject:
    """Open a run and choose a student of it.

    Args:
        folder: The run.
        name: The student; the recipe's subject where None.
        seed: Its seed; the recipe's first where None, never the one that was best on test data.

    Raises:
        XclError: The run is not finished, or there is no such student or seed.
    """
    # Files are written and timed on the CPU, in float32, wherever the student was trained.
    found = open_run(folder, DeviceSection(accelerator="cpu", precision="32-true"))
    name = found.chosen_student(name)
    workspace, recipe = found.workspace, found.recipe
    seed = recipe.seeds[0] if seed is None else seed
    stage = found.stage(name, seed)
    network = stage.as_teacher(workspace)
    data = workspace.data_of(seed)
    entry = found.summary["teacher"]
    place = recipe.seeds.index(seed)
    return Subject(
        network=network,
        data=data,
        split=workspace.evaluated(data),
        split_name=recipe.evaluation.split,
        name=name,
        seed=seed,
        recipe=found.summary["recipe"],
        model=stage.model,
        sampler=lambda: stage.draws(workspace, network.module),
        teacher=_teacher(found, seed),
        teacher_parameters=entry["parameters"],
        teacher_metrics={k: v["per_seed"][place] for k, v in entry["metrics"].items()},
    )


def _teacher(found: Finished, seed: int) -> Teacher | None:
    # A teacher that is no network would have to be fitted again, which may take minutes.
    if found.recipe.teacher.fitted is not None:
        return None
    try:
        return found.teacher(seed)
    except XclError:
        # A student can be shipped without its teacher, whose weights may be gone.
        return None


def own_network(
    module: nn.Module, data: Data, *, sampler: Sampler | None = None, name: str = "student"
) -> Subject:
    """Return a copy of a network that was trained outside a run, ready to export."""
    data = data.to(torch.device("cpu"))
    return Subject(
        network=NetworkTeacher(copy.deepcopy(module).cpu().float().eval(), data.task),
        data=data,
        split=data.test,
        split_name="test",
        name=name,
        seed=0,
        sampler=lambda: sampler or Empirical(data),
        recipe={},
    )
