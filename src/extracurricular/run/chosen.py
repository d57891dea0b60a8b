"""A student that is chosen among candidates: successive halving by held-out KL.

All candidates are trained to a part of their steps; then the worse half stops, and so on, and the
best one is trained to the end (:mod:`~extracurricular.run.halving`). They are compared by
KL(teacher ‖ student) on training examples that none of them draws before the choice: no label and
no test example takes part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from extracurricular.data.base import Data
from extracurricular.errors import RecipeError, StorageError
from extracurricular.files import Checkpoints
from extracurricular.run.expense import spent
from extracurricular.run.halving import Halving, Results
from extracurricular.run.judged import tell_of_teachers
from extracurricular.run.network import NetworkStage, keep_network, train_network
from extracurricular.run.stages import LOG, Checks, Price, begun
from extracurricular.run.workspace import Workspace, sampler_seed
from extracurricular.samplers import Sampler
from extracurricular.teachers import Teacher
from extracurricular.training.mastery import HELD_OUT, kept_out, known, mismatch

if TYPE_CHECKING:
    from lightning_fabric import Fabric

FILE = "choice.json"
"""The file that keeps the held-out KL of candidates."""


@dataclass(frozen=True)
class ChosenStage(NetworkStage):
    """The training of a student whose draws or loss are chosen among candidates.

    Args:
        candidates: A stage for each, below the folder of this one, by name.
        after: The parts of the training after which the worse half stops, rising, in (0, 1).
    """

    candidates: tuple[tuple[str, NetworkStage], ...] = ()
    after: tuple[float, ...] = (0.5,)

    @property
    def halving(self) -> Halving:
        """The rounds of the choice."""
        names = tuple(name for name, _ in self.candidates)
        return Halving(names, self.training.steps, self.after)

    @property
    def steps(self) -> int:
        """Steps of all candidates together."""
        return self.halving.total

    @property
    def settings(self) -> dict[str, Any]:
        """All that the result depends on but the content of the data, as plain values."""
        among = {
            name: {"sampler": stage.sampler, "matching": stage.matching}
            for name, stage in self.candidates
        }
        return {**super().settings, "choose": {"after": list(self.after), "among": among}}

    @property
    def leaves(self) -> tuple[str, ...]:
        """The logs of the candidates, and how they were judged."""
        return (FILE, *(f"{name}/{LOG}" for name, _ in self.candidates))

    @property
    def trainings(self) -> tuple[str, ...]:
        """Its own folder, and those of the candidates."""
        return (self.path, *(stage.path for _, stage in self.candidates))

    def chosen(self, workspace: Workspace) -> NetworkStage:
        """Return the candidate that was chosen; the first where none is yet."""
        name = workspace.record(self.path).get("chosen") if self.is_done(workspace) else None
        return dict(self.candidates).get(str(name), self.candidates[0][1])

    def draws(
        self, workspace: Workspace, student: nn.Module | None = None, seed: int | None = None
    ) -> Sampler:
        """Return the sampler of the candidate that was chosen."""
        return self.chosen(workspace).draws(workspace, student, seed)

    # -- doing ------------------------------------------------------------------------------------

    def do(self, workspace: Workspace) -> None:
        """Train the candidates, choose, and train the best one to the end."""
        if self.is_done(workspace):
            return
        stages, halving = dict(self.candidates), self.halving
        tell_of_teachers(workspace, self.networks)
        with begun(workspace, self) as outcome:
            results = self._results(workspace)

            def judge(name: str, stop: int, spent: int) -> tuple[float, float]:
                return self._judge(stages[name], workspace, stop, spent)

            name, before = halving.choose(judge, results)
            # Round by round, as it was judged, so that the log of a training that begins anew, its
            # results being known, is that of one that does not.
            for stop in (*(stop for stop, _ in halving.rounds), None):
                student, result = train_network(
                    stages[name], workspace, self._advance(workspace, before), halving.until, stop
                )
            outcome |= keep_network(self, workspace, student, result)
            seconds = results.seconds(name) + result.seconds
            outcome |= {"chosen": name, "steps": self.steps, "seconds": round(seconds, 3)}
            outcome["held_out_kl"] = results.plain()
            done = results.steps() | {name: self.training.steps}
            outcome["multiply_adds"] = self._spent(workspace, student, done)
        told = results.told(halving.names, halving.until)
        workspace.watcher.tell(f"{self.title}: chose {name} by held-out KL ({told})")

    def _results(self, workspace: Workspace) -> Results:
        """Return what was measured so far; nothing where the file of it is damaged."""
        file = workspace.folder / self.path / FILE
        try:
            return Results(file, self.bound(workspace))
        except StorageError as error:
            workspace.watcher.tell(f"{self.title}: {error}; the candidates are judged again")
            file.unlink()
            return Results(file, self.bound(workspace))

    def _judge(
        self, stage: NetworkStage, workspace: Workspace, stop: int, spent: int
    ) -> tuple[float, float]:
        """Train a candidate up to a step; return its held-out KL in nats, and its seconds."""
        advance = self._advance(workspace, spent)
        student, result = train_network(stage, workspace, advance, self.halving.until, stop)
        if result.steps != stop:
            # It went on to a later round, and its result of this one is lost.
            Checkpoints(workspace.folder / stage.path).clear()
            student, result = train_network(stage, workspace, advance, self.halving.until, stop)
        assert self.teacher is not None
        kl = held_out_kl(
            student,
            self.examples(workspace),
            workspace.made(self.teacher),
            workspace.fabric,
            sampler_seed(self.seed),
        )
        return kl, result.seconds

    def _advance(self, workspace: Workspace, spent: int) -> Any:
        return lambda step, loss: workspace.watcher.advance(self.title, spent + step, loss)

    def _spent(
        self, workspace: Workspace, student: nn.Module, done: Mapping[str, int]
    ) -> int | None:
        """Return the multiply-adds of all candidates together; None where they are unknown."""
        until, total = self.halving.until, 0
        for name, stage in self.candidates:
            part = spent(stage, workspace, student, done[name], until)
            if part is None:
                return None
            total += part
        return total

    # -- checking ---------------------------------------------------------------------------------

    def check(self, workspace: Workspace, checks: Checks) -> None:
        """Check each candidate as a student of its own."""
        if self.learns_from == "labels":
            raise RecipeError(
                f"{self.key}.choose", "compares students with a teacher, but they learn from labels"
            )
        for _, stage in self.candidates:
            stage.check(workspace, checks)

    def price(self, workspace: Workspace, checks: Checks) -> Price:
        """Return the cost of all candidates."""
        size = self.training.batch_size
        prices = [stage.price(workspace, checks) for _, stage in self.candidates]
        part = self.steps / (self.training.steps * len(prices))
        asked = round(part * sum(price.questions for price in prices))
        return replace(prices[0], steps=self.steps, draws=self.steps * size, questions=asked)


def held_out_kl(
    student: nn.Module, data: Data, teacher: Teacher, fabric: Fabric, seed: int
) -> float:
    """Return the mean KL(teacher ‖ student) in nats on examples that no candidate drew.

    Args:
        student: The student; it is put into evaluation mode.
        data: The data set, on the device.
        teacher: The teacher.
        fabric: Device and precision.
        seed: Seed of the student's sampler.
    """
    out, _ = kept_out(data, HELD_OUT, seed)
    with torch.no_grad():
        asked = known(data, out, teacher, fabric)
        return mismatch(asked, student.eval(), data.task, fabric)


def chosen_stage(stage: NetworkStage, choose: Any, generators: Mapping[str, Any]) -> ChosenStage:
    """Return the stage of a student that is chosen.

    Args:
        stage: The student as it would be without a choice.
        choose: The section ``choose`` of the recipe.
        generators: The generators of the student's seed, by name.
    """
    candidates = []
    for name, given in choose.among.items():
        candidates.append(
            (
                name,
                replace(
                    stage,
                    path=f"{stage.path}/{name}",
                    title=f"{stage.title}, {name}",
                    key=f"{stage.key}.choose.among.{name}",
                    sampler=stage.sampler if given.sampler is None else given.sampler,
                    matching={**stage.matching, **given.matching},
                    generators=tuple(generators.values()),
                    held_out=HELD_OUT,
                ),
            )
        )
    own = {name: getattr(stage, name) for name in NetworkStage.__dataclass_fields__}
    own["held_out"] = HELD_OUT
    return ChosenStage(**own, candidates=tuple(candidates), after=tuple(choose.after))
