"""One stage of a run: what to train or fit, all that its result depends on, and who watches it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from extracurricular.files import first_difference as first_difference
from extracurricular.models.weights import checksum, files_of
from extracurricular.recipe.schema import Recipe
from extracurricular.training import Training


class Watcher(Protocol):
    """What wants to know how a run comes along."""

    def plan(self, steps: int, done: int) -> None:
        """Tell the student and teacher steps of the whole run, and those that are done already."""

    def begin(self, title: str, steps: int) -> None:
        """Tell that a stage begins."""

    def advance(self, step: int, loss: float | None) -> None:
        """Tell how many steps of the stage are done, and the loss if there is one."""

    def end(self, title: str, steps: int, seconds: float) -> None:
        """Tell that a stage has ended."""

    def tell(self, text: str) -> None:
        """Tell something that a person should know."""


@dataclass(frozen=True)
class Stage:
    """One network to train.

    Args:
        path: Its folder, relative to the run.
        title: What a person calls it.
        key: Where its settings stand in the recipe.
        data: Spec of the data set.
        model: Spec of the network.
        sampler: Chain of the sampler.
        training: How it is trained.
        seed: Seed of everything in it.
        matching: Settings of the loss.
        learns_from: ``labels`` or ``teacher``.
        upstream: Settings of the stages it depends on.

    The files of weights that the model's spec names are among the settings by their content.
    """

    path: str
    title: str
    key: str
    data: Any
    model: Any
    sampler: Any
    training: Training
    seed: int
    matching: dict[str, Any] = field(default_factory=dict)
    learns_from: str = "labels"
    upstream: tuple[dict[str, Any], ...] = ()

    @property
    def steps(self) -> int:
        """Steps that it takes."""
        return self.training.steps

    def settings(self, recipe: Recipe) -> dict[str, Any]:
        """All that the result depends on, as plain values."""
        training = self.training.model_dump(mode="json")
        for key in ("evaluate_every", "checkpoint_every"):
            del training[key]
        files = [checksum(file) for file in files_of(self.model)]
        return {
            "data": self.data,
            "model": self.model,
            **({"files": files} if files else {}),
            "sampler": self.sampler,
            "training": training,
            "matching": self.matching,
            "learns_from": self.learns_from,
            "seed": self.seed,
            "precision": recipe.device.precision,
            "upstream": list(self.upstream),
        }


@dataclass(frozen=True)
class OutsideStage:
    """A teacher that is no torch module, to fit or to open.

    Args:
        path: Its folder, relative to the run.
        title: What a person calls it.
        key: Where its settings stand in the recipe.
        data: Spec of the data set.
        spec: What it is.
        seed: Seed of everything in it.
        of: The recipe's seed whose teacher it is.
        files: Checksum of each file that it reads.
    """

    path: str
    title: str
    key: str
    data: Any
    spec: Any
    seed: int
    of: int
    files: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        """Fitting is a single act."""
        return 1

    def settings(self, recipe: Recipe) -> dict[str, Any]:
        """All that the result depends on, as plain values."""
        files = list(self.files)
        return {"data": self.data, "outside": self.spec, "seed": self.seed, "files": files}


@dataclass(frozen=True)
class GeneratorStage:
    """One generator to fit.

    Args:
        path: Its folder, relative to the run.
        title: What a person calls it.
        key: Where its settings stand in the recipe.
        name: Its name there.
        data: Spec of the data set.
        model: Spec of the generator.
        seed: Seed of everything in it.
        steps: Steps that it takes.
    """

    path: str
    title: str
    key: str
    name: str
    data: Any
    model: Any
    seed: int
    steps: int

    def settings(self, recipe: Recipe) -> dict[str, Any]:
        """All that the result depends on, as plain values."""
        return {"data": self.data, "model": self.model, "seed": self.seed}


@dataclass(frozen=True)
class KnowledgeStage:
    """A teacher to record on the draws of one sampler, for all students that draw from it.

    Args:
        path: Its folder, relative to the run.
        title: What a person calls it.
        key: Where its settings stand in the recipe.
        student: The stage of a student that learns from it.
        seed: Seed of the sampler.
        draws: Draws to record.
    """

    path: str
    title: str
    key: str
    student: Stage
    seed: int
    draws: int

    @property
    def data(self) -> Any:
        """Spec of the data set."""
        return self.student.data

    @property
    def steps(self) -> int:
        """Steps that it takes: as many as the student would ask the teacher in."""
        return -(-self.draws // self.student.training.batch_size)

    def settings(self, recipe: Recipe) -> dict[str, Any]:
        """All that the result depends on, as plain values; more draws can be added to fewer."""
        return {
            "data": self.data,
            "sampler": self.student.sampler,
            "seed": self.seed,
            "codec": recipe.teacher.codec,
            "precision": recipe.device.precision,
            "upstream": [part for part in self.student.upstream if "record" not in part],
        }


AnyStage: TypeAlias = Stage | OutsideStage | GeneratorStage | KnowledgeStage
