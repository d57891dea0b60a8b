"""What is exported: a student of a finished run, or any network with its data set."""

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
from extracurricular.run.finished import Finished, open_run
from extracurricular.run.pipeline import Run
from extracurricular.samplers import Context, Empirical, Sampler
from extracurricular.samplers.build import requirements
from extracurricular.teachers import NetworkTeacher, Teacher


@dataclass(frozen=True)
class Subject:
    """A network to export, with all that the export tells about it.

    Args:
        network: The network, on the CPU.
        data: Its data set, on the CPU.
        split: The examples that the exported model is compared on.
        split_name: What these are called.
        name: The student's name.
        seed: Its seed.
        recipe: The run's recipe as plain values; empty where there was none.
        model: Spec of the network; None where it is somebody's own.
        sampler: Gives the sampler whose draws calibrate 8 bits; called only for that.
        teacher: The teacher, to be timed; None where it is no network, or not at hand.
        teacher_parameters: How many numbers it is made of, if known.
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
        """What a person calls it: of which run, and which student."""
        return f"{self.recipe['name']} {self.name}" if self.recipe else self.name

    @property
    def identity(self) -> dict[str, Any]:
        """What tells it from another student or run."""
        return {"student": self.name, "seed": self.seed, "recipe": self.recipe}


def student_of(folder: Path, name: str | None = None, seed: int | None = None) -> Subject:
    """Open a run and choose a student of it.

    Args:
        folder: The run.
        name: The student; where None, as :meth:`Finished.chosen_student` says.
        seed: Its seed; the recipe's first where None, never the one that was best on test data.

    Raises:
        XclError: The run is not finished, or there is no such student or seed.
    """
    opened = open_run(folder)
    name = opened.chosen_student(name)
    # Files are written and timed on the CPU, in float32, wherever the student was trained.
    device = opened.recipe.device.model_copy(update={"accelerator": "cpu", "precision": "32-true"})
    run = Run(opened.recipe.model_copy(update={"device": device}), folder)
    found = Finished(folder, run, opened.summary)
    seed = run.recipe.seeds[0] if seed is None else seed
    network = found.student(name, seed)
    data = run.data_for(seed)
    said = found.summary["teacher"]
    # As it was written, but with the defaults of what an older version did not know.
    recipe = opened.recipe.plain()
    recipe["device"] |= found.summary["recipe"].get("device", {})
    place = run.recipe.seeds.index(seed)
    return Subject(
        network=network,
        data=data,
        split=run.split_of(data),
        split_name=run.recipe.evaluation.split,
        name=name,
        seed=seed,
        recipe=recipe,
        model=run.recipe.students[name].model,
        sampler=lambda: _sampler(run, name, seed, network.module),
        teacher=_teacher(found, seed),
        teacher_parameters=said["parameters"],
        teacher_metrics={k: v["per_seed"][place] for k, v in said["metrics"].items()},
    )


def _sampler(run: Run, name: str, seed: int, module: nn.Module) -> Sampler:
    """The sampler that the student was trained with."""
    stage = run.student_stage(name, seed)
    asked = requirements(stage.sampler).teacher
    generators = {s.name: run.generator(s) for s in run.generators_of(stage)}
    context = Context(run.teacher(seed) if asked else None, module, generators)
    return run.sampler(stage, context)


def _teacher(found: Finished, seed: int) -> Teacher | None:
    # One from outside would have to be fitted again, which may take minutes.
    if found.recipe.teacher.outside is not None:
        return None
    try:
        return found.teacher(seed)
    except XclError:
        # A student can be shipped without its teacher, of which the weights may be gone.
        return None


def own_network(
    module: nn.Module, data: Data, *, sampler: Sampler | None = None, name: str = "student"
) -> Subject:
    """Take a copy of a network that was trained outside of a run."""
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
