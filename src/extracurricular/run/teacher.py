"""The teacher of a run: networks trained here, one read from a file, or another kind of model.

A teacher that is no network is fitted again in every process that asks it, and no estimator is
kept. ``stage.json`` of its folder keeps its identity instead, so that a teacher whose answers have
changed, for example by an update of a library, is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from extracurricular.data.base import Data
from extracurricular.errors import RecipeError, StorageError, XclError, own_place, raised
from extracurricular.inputs import Batch
from extracurricular.knowledge.fingerprint import teacher_fingerprint
from extracurricular.models import parameter_count
from extracurricular.models.weights import checksum, load_pretrained
from extracurricular.registry import split_spec
from extracurricular.run.answering import answering
from extracurricular.run.calibrated import CalibrationStage, calibrated_by
from extracurricular.run.expense import forward_cost
from extracurricular.run.families import shaped
from extracurricular.run.network import NetworkStage
from extracurricular.run.precision import teacher_dtype
from extracurricular.run.settings import data_settings
from extracurricular.run.stages import Checks, Stage, begun
from extracurricular.run.trial import try_answer
from extracurricular.run.workspace import Made, Workspace
from extracurricular.teachers import (
    DropoutTeacher,
    EnsembleTeacher,
    NetworkTeacher,
    Teacher,
)
from extracurricular.teachers.base import on_split
from extracurricular.teachers.named import ENTRIES, few, files_of
from extracurricular.teachers.order import reordered


@dataclass(frozen=True)
class FittedStage(Stage):
    """A teacher that is no torch module, to fit or to open.

    Args:
        spec: Spec of the teacher.
        seed: Seed of everything in it.
    """

    spec: Any
    seed: int

    @property
    def settings(self) -> dict[str, Any]:
        """All that the result depends on but the content of the data, as plain values."""
        entry = ENTRIES.build(self.spec, key=self.key)
        try:
            files = [checksum(file) for file in files_of(entry)]
        except ValueError as error:
            name, _ = split_spec(self.spec, "teacher", self.key)
            raise RecipeError(f"{self.key}.{name}", str(error)) from error
        return {
            "data": data_settings(self.data),
            "teacher": self.spec,
            "seed": self.seed,
            "files": files,
        }

    @property
    def is_stored(self) -> bool:
        """Whether its answers are in a file, so that it knows no others."""
        return split_spec(self.spec, "teacher", self.key)[0] == "answers"

    def build(self, data: Data) -> Teacher:
        """Fit or open the teacher, and ask it once.

        Raises:
            RecipeError: A setting does not go with the data.
        """
        entry = ENTRIES.build(self.spec, key=self.key)
        name, _ = split_spec(self.spec, "teacher", self.key)
        key = f"{self.key}.{name}"
        try:
            teacher = entry.fit(data, self.seed)
            probe = data.train[:2]
            ids = torch.arange(len(probe), device=data.device)
            batch = Batch(ids, data.inputs(probe.x))
            try_answer(on_split(teacher, "train"), batch, data.task, key)
        except RecipeError as error:
            if error.key == key:
                raise
            raise RecipeError(f"{key}.{error.key}".strip("."), error.problem) from error
        except XclError:
            raise
        except Exception as error:
            own = own_place(error) is not None
            if not own and not isinstance(error, ValueError):
                raise
            problem = f"cannot be made: {raised(error)}" if own else str(error)
            raise RecipeError(key, problem) from error
        return teacher

    def load(self, workspace: Workspace) -> Teacher:
        """Fit the teacher again, and check its answers against the identity in the run's folder.

        Raises:
            StorageError: It answers differently.
        """
        teacher = self.build(workspace.data(self.data))
        file = workspace.folder / self.path / "stage.json"
        known = workspace.record(self.path).get("identity") if file.exists() else None
        if known is not None and known != identity(teacher):
            raise StorageError(
                f"{self.path} of {str(workspace.folder)!r} does not answer as it did, perhaps "
                "because a library changed; choose another --out, or delete that folder and the "
                "students that learned from it"
            )
        return teacher

    def do(self, workspace: Workspace) -> None:
        """Fit the teacher, and record its cost and its identity."""
        if self.is_done(workspace):
            return
        with begun(workspace, self) as outcome:
            teacher = workspace.made(self)
            outcome |= {"identity": identity(teacher), "steps": self.steps}
            outcome["parameters"] = getattr(teacher, "parameters", None)
        for sentence in getattr(teacher, "notes", ()):
            workspace.watcher.tell(sentence)

    def check(self, workspace: Workspace, checks: Checks) -> None:
        """Check the settings; a student's check tries the teacher on a few examples."""
        _ = self.settings


@dataclass(frozen=True)
class TeacherPlan:
    """The teacher that students of one seed learn from.

    Args:
        path: Its folder, relative to the run.
        data: Spec of its data set.
        members: Its networks; empty for a teacher that is no network.
        weights: The file that holds the one network's weights, instead of a training.
        weights_key: Where the weights stand in that file; searched where None.
        classes: Names of that network's classes in its own order; that of the data where None.
        fitted: The stage of a teacher that is no network.
        mc_dropout: Passes of Monte Carlo dropout; None for none.
        calibration: The calibration of its answers; None for none.
    """

    path: str
    data: Any
    members: tuple[NetworkStage, ...] = ()
    weights: str | None = None
    weights_key: str | None = None
    classes: tuple[Any, ...] | None = None
    fitted: FittedStage | None = None
    mc_dropout: int | None = None
    calibration: CalibrationStage | None = None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages to do before it can be asked."""
        return self.trained if self.calibration is None else (*self.trained, self.calibration)

    @property
    def trained(self) -> tuple[Stage, ...]:
        """The stages that train or fit it; none where its weights are given."""
        if self.fitted is not None:
            return (self.fitted,)
        return () if self.weights is not None else self.members

    @property
    def title(self) -> str:
        """The teacher in words, for a person."""
        if self.fitted is not None:
            return self.fitted.title
        return "the teacher" if self.weights is None else f"the teacher {self.weights}"

    @property
    def needs_no_training(self) -> bool:
        """Whether it can be asked before the run has done anything."""
        if self.fitted is None:
            return self.weights is not None
        return split_spec(self.fitted.spec, "teacher", self.fitted.key)[0] in ("function", "onnx")

    @property
    def settings(self) -> list[dict[str, Any]]:
        """All that its answers depend on, as plain values."""
        parts: list[Stage] = list(self.members) if self.fitted is None else [self.fitted]
        known = [*(part.settings for part in parts), {"mc_dropout": self.mc_dropout}]
        # Intervals and sets change no answer.
        changes = {} if self.calibration is None else self.calibration.methods.changes
        return [*known, {"calibrate": changes}] if changes else known

    @property
    def is_stored(self) -> bool:
        """Whether its answers are in a file, so that it knows no others."""
        return self.fitted is not None and self.fitted.is_stored

    def load(self, workspace: Workspace) -> Teacher:
        """Return the trained teacher, with calibrated answers.

        Raises:
            XclError: A file is missing or damaged, or the teacher answers differently.
        """
        if self.calibration is None:
            return self.load_uncalibrated(workspace)
        found = workspace.made(Uncalibrated(self))
        return calibrated_by(found, self.calibration, workspace)[0]

    @property
    def uncalibrated(self) -> Made[Teacher]:
        """The teacher as it answers itself, which can be asked before it is calibrated."""
        return self if self.calibration is None else Uncalibrated(self)

    def load_uncalibrated(self, workspace: Workspace) -> Teacher:
        """Return the trained teacher as it answers itself; see :meth:`load`."""
        if self.fitted is not None:
            return workspace.made(self.fitted)
        device = self._begin_to_shard(workspace, preview=False)
        if self.weights is None:
            modules = [one.trained(workspace, device) for one in self.members]
            return self.of(modules, workspace, trained=True)
        module = self.members[0].untrained(workspace)
        data = workspace.described(self.data)
        noun = "classes" if data.task.kind == "classification" else "outputs"
        try:
            notes = load_pretrained(module, Path(self.weights), noun, self.weights_key)
        except StorageError as error:
            raise RecipeError("teacher.weights", str(error)) from error
        for note in notes:
            workspace.watcher.tell(note)
        found = self.of([module.to(device).eval()], workspace, trained=True)
        return self._ordered(found, data)

    def _ordered(self, teacher: Teacher, data: Data) -> Teacher:
        try:
            return reordered(teacher, self.classes, data)
        except ValueError as error:
            raise RecipeError("teacher.classes", str(error).removeprefix("classes ")) from error

    def preview(self, workspace: Workspace) -> Teacher:
        """Return the teacher as it will be, untrained, to check samplers and students by.

        Raises:
            RecipeError: It does not go with the data.
        """
        if self.fitted is not None:
            data = workspace.data(self.data)
            return self.fitted.build(data if self.fitted.is_stored else few(data))
        device = self._begin_to_shard(workspace, preview=True)
        modules = [one.untrained(workspace).to(device).eval() for one in self.members]
        return self._ordered(self.of(modules, workspace), workspace.described(self.data))

    def forward_cost(self, workspace: Workspace) -> int | None:
        """Return the multiply-adds of an answer on one example.

        Those of an estimator, an ONNX file or a function cannot be counted, which is None. Stored
        answers cost nothing.
        """
        if self.is_stored:
            return 0
        data = workspace.data(self.data)
        costs = [forward_cost(one.untrained(workspace), data) for one in self.members]
        known = [cost for cost in costs if cost is not None]
        if not costs or len(known) < len(costs):
            return None
        return sum(known) * (self.mc_dropout or 1)

    def of(
        self, modules: list[nn.Module], workspace: Workspace, *, trained: bool = False
    ) -> Teacher:
        """Return the teacher that these networks make.

        Raises:
            RecipeError: Monte Carlo dropout is asked of a network without dropout.
        """
        data, passes = shaped(self.members[0], workspace.described(self.data)), self.mc_dropout
        task, ranks = data.task, workspace.ranks
        if ranks is not None and ranks.shards:
            name = self.path if trained else f"preview/{self.path}"
            modules = [
                ranks.shard(f"{name}/{number}", one, workspace.device)
                for number, one in enumerate(modules)
            ]
        teachers: list[Teacher]
        if passes is not None:
            try:
                teachers = [DropoutTeacher(module, task, passes) for module in modules]
            except ValueError as error:
                raise RecipeError("teacher.mc_dropout", f"is {passes}, but {error}") from error
            if trained and workspace.recipe.device.compile:
                workspace.watcher.tell("the teacher is not compiled: it has mc_dropout")
        elif trained and not (ranks is not None and ranks.shards):
            return self._ready(modules, workspace)
        else:
            teachers = [NetworkTeacher(one, task) for one in modules]
        return teachers[0] if len(teachers) == 1 else EnsembleTeacher(teachers)

    def _begin_to_shard(self, workspace: Workspace, *, preview: bool) -> torch.device:
        """Return the device to load the networks on; the CPU where they are sharded from there."""
        if workspace.ranks is None or not workspace.ranks.shards:
            return workspace.device
        workspace.ranks.tell("shard", path=self.path, preview=preview)
        return torch.device("cpu")

    def _ready(self, modules: list[nn.Module], workspace: Workspace) -> Teacher:
        """Return the trained teacher as it answers, and tell how."""
        dtype = teacher_dtype(workspace.precision, workspace.hardware)
        with workspace.exact():
            data = shaped(self.members[0], workspace.examples(self.data))
            found = answering(modules, data, dtype, workspace.recipe.device.compile)
        workspace.answering[self.path] = found.facts
        for sentence in found.sentences:
            workspace.watcher.tell(sentence)
        return found.teacher

    def taken(self, workspace: Workspace) -> dict[str, Any]:
        """Return the steps, seconds and parameters that it took; numbers may be unknown."""
        if self.weights is not None:
            sizes = [parameter_count(one.untrained(workspace)) for one in self.members]
            nothing = {"steps": 0, "seconds": 0.0, "multiply_adds": None}
            return {**nothing, "parameters": sum(sizes)}
        records = [workspace.record(stage.path) for stage in self.trained]
        known = [record["parameters"] for record in records]
        spent = [record.get("multiply_adds") for record in records]
        return {
            "steps": sum(record["steps"] for record in records),
            "seconds": sum(record["seconds"] for record in records),
            "parameters": None if None in known else sum(known),
            "multiply_adds": None if None in spent else sum(spent),
        }


@dataclass(frozen=True)
class Uncalibrated:
    """A teacher as it answers before it is calibrated.

    Args:
        plan: The teacher.
    """

    plan: TeacherPlan

    @property
    def path(self) -> str:
        """The path that distinguishes it from the calibrated one."""
        return f"{self.plan.path}/uncalibrated"

    def load(self, workspace: Workspace) -> Teacher:
        """Return the trained teacher; see :meth:`TeacherPlan.load`."""
        return self.plan.load_uncalibrated(workspace)


def given_weights(
    file: str | None, key: str | None = None, classes: list[Any] | None = None
) -> list[dict[str, Any]]:
    """Return the checksum of a file of teacher weights: its content counts, not its name."""
    if file is None or not Path(file).is_file():
        return []
    how = {"key": key, "classes": classes}
    return [
        {
            "weights_sha256": checksum(Path(file)),
            **{name: value for name, value in how.items() if value is not None},
        }
    ]


def identity(teacher: Teacher) -> str | None:
    """Return the fingerprint of a teacher; None for a class of the user's own."""
    try:
        return teacher_fingerprint(teacher)
    except ValueError:
        return None
