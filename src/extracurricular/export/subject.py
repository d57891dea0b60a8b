"""The subject of an export: a student of a finished run, or any network with its data set."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from extracurricular.data.base import Data, Split
from extracurricular.distributions import Calibration
from extracurricular.errors import RecipeError, XclError
from extracurricular.evaluation.calibrated import calibration_figures
from extracurricular.evaluation.entries import is_imbalanced
from extracurricular.evaluation.predict import predict
from extracurricular.recipe.schema import DeviceSection
from extracurricular.run.families import shaped
from extracurricular.run.finished import Finished, open_run
from extracurricular.samplers import Empirical, Sampler
from extracurricular.teachers import NetworkTeacher, Teacher
from extracurricular.teachers.calibrated import calibrated
from extracurricular.training.simulated import Ranges


@dataclass(frozen=True)
class Subject:
    """A network to export, with all that the export reports about it.

    Args:
        network: The network, on the CPU.
        data: Its data set, on the CPU; of a run, the description with the examples that it keeps.
        split: The examples that the exported model is compared on. Without labels they are none:
            an empty example, on which the model is only tried.
        split_name: Name of that split.
        name: The student's name.
        seed: Its seed.
        recipe: The run's recipe as plain values; empty without a run.
        model: Spec of the network; None for a module of the user's own.
        sampler: Returns the sampler whose draws calibrate 8 bits; called only for that.
        teacher: The teacher, to be timed; None where it is no network, or not at hand.
        teacher_parameters: Number of its parameters, if known.
        measured: The student's figures on the whole split, as the run measured them; None without a
            run.
        examples: Number of examples of the whole split.
        classes: The student's figures of each class by name, on the whole split; empty without.
        imbalanced: Whether the classes of its training examples are imbalanced.
        ranges: The ranges of its layers, where it was trained with simulated 8 bits.
        calibration: The calibration of the network's distributions; None for none.
        calibrated: The entry of the summary about it; empty without.
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
    measured: dict[str, float] | None = None
    examples: int = 0
    classes: dict[str, dict[str, float]] = field(default_factory=dict)
    imbalanced: bool = False
    ranges: Ranges | None = None
    calibration: Calibration | None = None
    calibrated: dict[str, Any] = field(default_factory=dict)

    @property
    def asked(self) -> Teacher:
        """The student as it answers: the network, calibrated."""
        return calibrated(self.network, self.calibration)

    @property
    def verifiable(self) -> bool:
        """Whether there are examples to compare the exported model on."""
        return len(self.split) > 0 and self.split.y is not None

    @property
    def title(self) -> str:
        """The title for readers: the recipe's name and the student's."""
        return f"{self.recipe['name']} {self.name}" if self.recipe else self.name

    @property
    def identity(self) -> dict[str, Any]:
        """The values that distinguish it from another student or run."""
        recipe = without_folders(self.recipe)
        return {"student": self.name, "seed": self.seed, "recipe": recipe}


def student_of(
    folder: Path, name: str | None = None, seed: int | None = None, trust: bool = False
) -> Subject:
    """Open a run and choose a student of it.

    Args:
        folder: The run.
        name: The student; the recipe's subject where None.
        seed: Its seed; the recipe's first where None, never the one that was best on test data.
        trust: Whether code that the run names may be imported.

    Raises:
        XclError: The run is not finished, or there is no such student or seed.
    """
    # Files are written and timed on the CPU, in float32, wherever the student was trained.
    found = open_run(folder, DeviceSection(accelerator="cpu", precision="32-true"), trust=trust)
    with found.reading():
        return _student_of(found, found.chosen_student(name), seed)


def _student_of(found: Finished, name: str, seed: int | None) -> Subject:
    workspace, recipe = found.workspace, found.recipe
    seed = recipe.seeds[0] if seed is None else seed
    stage = found.stage(name, seed)
    data = workspace.examples(recipe.data_of(seed))
    kept, place = workspace.kept, recipe.seeds.index(seed)
    split = workspace.evaluated(data)
    whole = 0 if kept is None else kept.count(recipe.data_of(seed), recipe.evaluation.split)
    return Subject(
        network=stage.as_teacher(workspace),
        data=shaped(stage, data),
        split=split,
        split_name=recipe.evaluation.split,
        name=name,
        seed=seed,
        recipe=found.summary["recipe"],
        model=stage.model,
        sampler=partial(_to_calibrate, data),
        teacher=_teacher(found, seed),
        teacher_parameters=found.summary["teacher"]["parameters"],
        measured=_measured(found.summary["students"][name]["metrics"], place),
        examples=whole or len(split),
        classes={
            one: _measured(figures, place)
            for one, figures in found.summary["students"][name].get("classes", {}).items()
        },
        imbalanced=is_imbalanced(found.summary),
        ranges=workspace.record(stage.path).get("ranges"),
        calibration=found.calibration(name, seed),
        calibrated=found.summary["students"][name].get("calibration", {}),
    )


def _measured(figures: dict[str, Any], place: int) -> dict[str, float]:
    """Return the figures of one seed that are finite."""
    values = {name: figure["per_seed"][place] for name, figure in figures.items()}
    return {name: value for name, value in values.items() if value is not None}


def _to_calibrate(data: Data) -> Sampler:
    """Return the source of the examples that calibrate 8 bits: the kept training examples.

    Raises:
        RecipeError: The run keeps none.
    """
    if data.train.y is None:
        raise RecipeError(
            "--int8", "needs examples to calibrate on, and the run keeps none (keep: 0)"
        )
    return Empirical(data)


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
    module: nn.Module,
    data: Data,
    *,
    sampler: Sampler | None = None,
    name: str = "student",
    ranges: Ranges | None = None,
    calibration: Calibration | None = None,
) -> Subject:
    """Return a copy of a network that was trained outside a run, ready to export."""
    data = data.to(torch.device("cpu"))
    network = NetworkTeacher(copy.deepcopy(module).cpu().float().eval(), data.task)
    return Subject(
        network=network,
        data=data,
        split=data.test,
        split_name="test",
        name=name,
        seed=0,
        sampler=lambda: sampler or Empirical(data),
        recipe={},
        ranges=ranges,
        calibration=calibration,
        calibrated=_worth(network, data, calibration),
    )


def _worth(network: NetworkTeacher, data: Data, calibration: Calibration | None) -> dict[str, Any]:
    """Return what a summary says of a calibration, on the test examples; {} without any."""
    split = data.test
    if calibration is None or split.y is None or not len(split):
        return {}
    said = predict(calibrated(network, calibration), data, split)
    figures = calibration_figures(calibration, said, split.y)
    return {"fitted": [calibration.dump()], "figures": figures}


def without_folders(value: Any) -> Any:
    """Return a setting without the folders of its absolute paths, which are private."""
    if isinstance(value, dict):
        return {key: without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_folders(inner) for inner in value]
    if not isinstance(value, str):
        return value
    # A data set may be named with its path, NAME:PATH.
    name, colon, path = value.partition(":")
    if colon and Path(path).is_absolute():
        return f"{name}:{Path(path).name}"
    return Path(value).name if Path(value).is_absolute() or value.startswith("~") else value
