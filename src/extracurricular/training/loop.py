"""The loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from extracurricular.distributions import Task
from extracurricular.errors import RecipeError, TrainingError
from extracurricular.files import Checkpoints, JsonLines
from extracurricular.inputs import static_shapes
from extracurricular.matching import Matching
from extracurricular.samplers.base import Sampler, is_pure
from extracurricular.samplers.share import Share
from extracurricular.teachers.base import Teacher, on_draws
from extracurricular.teachers.networks import LabelTeacher
from extracurricular.training.additions import Added, Additions
from extracurricular.training.arguments import check_arguments
from extracurricular.training.compiled import as_written
from extracurricular.training.defaults import decided
from extracurricular.training.draw import Shared, draws
from extracurricular.training.launch import Launcher
from extracurricular.training.mastery import Mastery
from extracurricular.training.optimizer import learning_rate
from extracurricular.training.ranks import gather_faults, mean_over_ranks, read_by_first
from extracurricular.training.remembered import remembered
from extracurricular.training.settings import Execution, Training
from extracurricular.training.simulated import Ranges
from extracurricular.training.steps import Steps, copied

if TYPE_CHECKING:
    from lightning_fabric import Fabric


# Steps by which a captured chunk of draws may reach beyond the last step.
_SPARE = 64


@dataclass(frozen=True)
class TrainingResult:
    """The outcome of a training.

    Args:
        steps: Optimiser steps in all, fewer than the settings have if it ended early.
        seconds: Time in the loop over all interruptions, without evaluations.
        loss: Mean loss of the last logged steps, as it is trained.
        mastery: The last measurement of mastery (:meth:`Mastery.measure`); None where there is
            none.
        ranges: The least and largest value of each layer's input and output, by its name, where
            8-bit arithmetic was simulated; an export to 8 bits takes them. None elsewhere.
    """

    steps: int
    seconds: float
    loss: float
    mastery: dict[str, float] | None = None
    ranges: Ranges | None = None


def cpu_fabric() -> Fabric:
    """Return the CPU in full precision, as one process."""
    # Fabric takes as long to import as torch, and looking at a recipe needs none.
    from lightning_fabric import Fabric

    return Fabric(accelerator="cpu", devices=1)


def train(
    student: nn.Module,
    sampler: Sampler,
    teacher: Teacher,
    task: Task,
    *,
    matching: Matching | None = None,
    settings: Training | None = None,
    seed: int = 0,
    fabric: Fabric | None = None,
    folder: Path | None = None,
    bound: str = "",
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    on_progress: Callable[[int, float], None] | None = None,
    on_log: Callable[[dict[str, Any]], None] | None = None,
    execution: Execution | None = None,
    shared: Shared | None = None,
    mastery: Mastery | None = None,
    stop: int | None = None,
    tell: Callable[[str], None] | None = None,
    interrupted: Callable[[], bool] | None = None,
    additions: Additions | None = None,
) -> TrainingResult:
    """Train a student to match a teacher on draws from a sampler.

    Args:
        student: Maps inputs to raw outputs [B, task.outputs]. It is trained in place, and left in
            evaluation mode on the device of ``fabric``.
        sampler: Source of the examples, on the device of ``fabric``.
        teacher: Gives q_T; :class:`~extracurricular.teachers.LabelTeacher` trains on labels.
        task: Turns raw outputs into distributions.
        matching: The loss; forward KL at temperature 1 where None.
        settings: Optimiser, schedule and budget.
        seed: Seed of the student's own randomness (dropout).
        fabric: Device, precision and processes; one CPU process where None.
        folder: Folder of checkpoints and ``log.jsonl``; nothing is kept where None. An interrupted
            training goes on from the newest checkpoint there.
        bound: All that the training depends on, as a text: only checkpoints that were written with
            the same are taken.
        evaluate: Called with the student every ``evaluate_every`` steps and at the end; its figures
            go to the log and decide nothing.
        on_progress: Called now and then with (steps done, loss).
        on_log: Called with each line of the log.
        execution: Whether steps are captured and the student is compiled.
        shared: The draws of a cohort, of which this training is one: all have the same sampler,
            seed, teacher and batch size. Draws that depend on the student are not shared.
        mastery: Measures mastery at lines of the log, and sets the share of a sampler's draws that
            follows it; needed if the sampler has such a share.
        stop: End after this step, with a checkpoint from which the training goes on when it is
            called again without; None to train to the end.
        tell: Gets a sentence where something is not captured, or was compiled.
        interrupted: Asked after each step whether to end early, for want of time. A checkpoint is
            then written, and a later call goes on from there, to the same weights.
        additions: Features to match, and simulated 8-bit arithmetic; nothing where None.

    Raises:
        RecipeError: An argument is of another kind.
        TrainingError: The teacher gave NaN or infinity, or the loss stopped being finite.
    """
    check_arguments(student, sampler, teacher, task, matching, settings)
    matching = matching or Matching()
    settings = decided(settings or Training(), task, student)
    if isinstance(teacher, LabelTeacher) and matching.label_smoothing:
        teacher = replace(teacher, smoothing=matching.label_smoothing)
    fabric = fabric or cpu_fabric()
    devices = [fabric.device] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        checkpoints = None if folder is None else Checkpoints(folder, bound)
        student.to(fabric.device)
        added = Added(additions or Additions(), student, sampler, teacher, seed)
        _check_added(additions, fabric, execution)
        execution = execution or Execution()
        loop = _Loop(
            student, task, matching, settings, seed, fabric, checkpoints, mastery, added, execution
        )
        loop.evaluate, loop.on_progress, loop.on_log = evaluate, on_progress, on_log
        loop.shared = shared
        loop.tell, loop.stop = tell or loop.tell, settings.steps if stop is None else stop
        loop.interrupted = interrupted
        try:
            return loop.run(sampler, teacher)
        finally:
            loop.close()


class _Loop:
    """The state of one training."""

    def __init__(
        self,
        student: nn.Module,
        task: Task,
        matching: Matching,
        settings: Training,
        seed: int,
        fabric: Fabric,
        checkpoints: Checkpoints | None,
        mastery: Mastery | None,
        added: Added,
        execution: Execution,
    ) -> None:
        self.task, self.mastery, self.execution = task, mastery, execution
        sync = execution.sync_batchnorm
        self.steps = Steps(student, task, matching, settings, seed, fabric, added, sync)
        self.student, self.settings, self.fabric = student, settings, fabric
        self.evaluate: Callable[[nn.Module], dict[str, float]] | None = None
        self.on_progress: Callable[[int, float], None] | None = None
        self.on_log: Callable[[dict[str, Any]], None] | None = None
        self.shared: Shared | None = None
        self.tell: Callable[[str], None] = _nothing
        self.stop = settings.steps
        self.interrupted: Callable[[], bool] | None = None
        self.checkpoints = checkpoints
        self.step, self.seconds, self.loss = 0, 0.0, math.nan
        state = None if checkpoints is None else read_by_first(checkpoints.newest, fabric)
        if state is not None:
            self.steps.restore(state)
            self.step, self.seconds = state["step"], state["seconds"]
            self.loss = state["loss"]
            if mastery is not None:
                mastery.restore(state["mastery"])
        self.steps.seek(self.step)
        self.log: JsonLines | None = None
        if checkpoints is not None and fabric.is_global_zero:
            kept = [] if state is None else state.get("log", [])
            self.log = JsonLines(checkpoints.folder / "log.jsonl", kept)

    def run(self, sampler: Sampler, teacher: Teacher) -> TrainingResult:
        settings = self.settings
        log_every = max(1, settings.steps // 50)
        losses: list[Tensor] = []
        started = time.perf_counter()
        self.steps.wake()
        if not is_pure(sampler):
            self.shared = None
        self.source, self.asked, self.shares = sampler, teacher, self._shares(sampler)
        for loss in self._losses(sampler, teacher):
            losses.append(loss)
            self.step += 1
            last = self.step == self.stop
            cut = not last and self.interrupted is not None and self.interrupted()
            checkpoint = last or cut or self.step % settings.checkpoint_every == 0
            evaluate = last or (
                settings.evaluate_every > 0 and self.step % settings.evaluate_every == 0
            )
            measure = self.mastery is not None and self.mastery.is_due(self.step)
            if self.step % log_every == 0 or checkpoint or evaluate or measure:
                self.loss = self._read(losses)
                losses.clear()
                self.seconds += time.perf_counter() - started
                self._report(evaluate, self._measure() if measure else None)
                if checkpoint:
                    self._save()
                started = time.perf_counter()
            if last or cut:
                break
        return self._finish()

    def _losses(self, sampler: Sampler, teacher: Teacher) -> Iterator[Tensor]:
        """Do the steps that are left, and yield the loss of each."""
        phases = [(sampler, self.settings.steps)]
        if self.mastery is not None:
            # The examples that mastery is measured on are kept out of the first draws.
            phases.insert(0, (self.mastery.early, self.mastery.until))
        launcher = Launcher(self.steps, self.execution, self.tell)
        launcher.shared, launcher.shares = self.shared, self.shares
        for source, end in phases:
            bound = on_draws(teacher, source)
            while self.step < min(end, self.stop):
                share = self._settled()
                part = source.one_sided(share) if isinstance(source, Share) else source
                # Answers are remembered by the order in which this very sampler draws.
                asked = remembered(bound, part, self.settings, self.fabric)
                self.source, self.asked = part, asked
                for loss in launcher.losses(part, asked, self.step, end):
                    yield loss
                    # A share that has moved may need another graph.
                    if self._settled() != share:
                        break

    def _settled(self) -> float:
        """Return the share that follows mastery where it is 0 or 1; 0.5, for both sides, else."""
        if self.shares is None or self.mastery is None:
            return 0.5
        return self.mastery.share if self.mastery.share in (0.0, 1.0) else 0.5

    def _shares(self, sampler: Sampler) -> Tensor | None:
        """Return the share of extended draws at each step, if it follows mastery."""
        if not isinstance(sampler, Share) or sampler.of is not None:
            return None
        if self.mastery is None or not self.mastery.sets_share:
            raise ValueError("the sampler's share is auto, but no mastery is measured")
        # A captured chunk may reach beyond the last step.
        count = self.settings.steps + _SPARE
        return torch.full((count,), self.mastery.share, device=self.fabric.device)

    def _measure(self) -> dict[str, float]:
        """Measure mastery, and set the share from here on."""
        mastery = self.mastery
        assert mastery is not None
        self.student.eval()
        found = mastery.measure(self.student, self.task, self.fabric, self.step)
        # Another kind of device may have rounded otherwise, and so have come to other draws.
        mastery.restore(read_by_first(mastery.state, self.fabric))
        self.steps.wake()
        if self.shares is not None and mastery.sets_share:
            self.shares[self.step :] = mastery.share
        return found

    def _read(self, losses: list[Tensor]) -> float:
        """Read from the device what gathered since the last line of the log; return the loss."""
        first = self.step - len(losses)
        try:
            gather_faults(self.steps.faults, self.fabric)
            self.steps.faults.check()
            self.steps.faults.clear()
            loss = float(mean_over_ranks(torch.stack(losses).mean(), self.fabric))
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss became {loss} between steps {first + 1} and {self.step}; "
                    f"a smaller lr (it is {self.settings.rate:g}) or a clip_norm may help"
                )
        except TrainingError:
            # The same draws again, each looked at: an error there is closer to the cause.
            with static_shapes(False):
                again = draws(
                    self.source, self.asked, self.settings, first,
                    fabric=self.fabric, shares=self.shares, whole=True,
                )  # fmt: skip
                for _ in zip(range(first, self.step), again, strict=False):
                    pass
            raise
        return loss

    def _report(self, evaluate: bool, mastery: dict[str, float] | None) -> None:
        line: dict[str, Any] = {
            "step": self.step,
            "loss": self.loss,
            "lr": learning_rate(self.settings, self.step - 1),
            "seconds": round(self.seconds, 3),
            "examples_per_second": round(
                self.step * self.settings.batch_size / max(self.seconds, 1e-9), 1
            ),
        }
        if evaluate and self.evaluate is not None:
            with _using(self.student, self.steps.ema):
                self.student.eval()
                line["evaluation"] = self.evaluate(self.student)
            self.steps.wake()
        if mastery is not None:
            line["mastery"] = mastery
        if self.log is not None:
            self.log.write(line)
        if self.on_log is not None and self.fabric.is_global_zero:
            self.on_log(line)
        if self.on_progress is not None:
            self.on_progress(self.step, self.loss)

    def _save(self) -> None:
        if self.checkpoints is None or self.log is None:
            return
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "loss": self.loss,
            "log": self.log.kept,
            **({} if self.mastery is None else {"mastery": self.mastery.state()}),
            **self.steps.state(),
        }
        self.checkpoints.save(self.step, state)

    def close(self) -> None:
        if self.execution.compile:
            as_written(self.student)
        self.steps.stop()
        if self.log is not None:
            self.log.close()

    def _finish(self) -> TrainingResult:
        ranges = self.steps.finish()
        measured = None if self.mastery is None else self.mastery.last
        return TrainingResult(self.step, self.seconds, self.loss, measured, ranges)


def _check_added(additions: Additions | None, fabric: Fabric, execution: Execution | None) -> None:
    """Refuse additions that cannot be carried out so.

    Raises:
        RecipeError: The student is compiled, or there are several devices.
    """
    if additions is None or additions == Additions():
        return
    what = "features" if additions.features is not None else "quantise"
    if execution is not None and execution.compile:
        raise RecipeError(
            "device.compile", f"is true, but {what} is set, which listens to layers that compiling "
            "would melt into one; set it to false"
        )  # fmt: skip
    if fabric.world_size > 1:
        raise RecipeError(
            "device", f"has {fabric.world_size} processes, but {what} is for one alone"
        )


def _nothing(_: str) -> None:
    """Say nothing, as nobody listens."""


@contextmanager
def _using(module: nn.Module, state: dict[str, Tensor] | None) -> Iterator[None]:
    """Put another state into a module while a block runs."""
    if state is None:
        yield
        return
    own = copied(module)
    module.load_state_dict(state)
    try:
        yield
    finally:
        module.load_state_dict(own)
