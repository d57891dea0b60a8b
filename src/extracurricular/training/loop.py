"""The loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from extracurricular.distributions import Task
from extracurricular.errors import TrainingError
from extracurricular.files import Checkpoints, JsonLines
from extracurricular.inputs import static_shapes
from extracurricular.matching import Matching
from extracurricular.samplers.base import Sampler
from extracurricular.teachers.base import Teacher
from extracurricular.training.captured import Captured, draw_obstacle, step_obstacle
from extracurricular.training.compiled import as_written, compile_student, first_line
from extracurricular.training.draw import Shared, draws
from extracurricular.training.graphs import has_graphs, new_graph
from extracurricular.training.optimizer import learning_rate
from extracurricular.training.remembered import remembered
from extracurricular.training.settings import Execution, Training
from extracurricular.training.steps import Kept, Steps, copied

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class TrainingResult:
    """The outcome of a training.

    Args:
        steps: Optimiser steps in all.
        seconds: Time in the loop over all interruptions, without evaluations.
        loss: Mean loss of the last logged steps, in nats.
    """

    steps: int
    seconds: float
    loss: float


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
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    on_progress: Callable[[int, float], None] | None = None,
    on_log: Callable[[dict[str, Any]], None] | None = None,
    execution: Execution | None = None,
    shared: Shared | None = None,
    tell: Callable[[str], None] | None = None,
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
        evaluate: Called with the student every ``evaluate_every`` steps and at the end; its figures
            go to the log and decide nothing.
        on_progress: Called now and then with (steps done, loss).
        on_log: Called with each line of the log.
        execution: Whether steps are captured and the student is compiled.
        shared: The draws of a cohort, of which this training is one: all have the same sampler,
            seed, teacher and batch size.
        tell: Gets a sentence where something is not captured, or was compiled.

    Raises:
        TrainingError: The teacher gave NaN or infinity, or the loss stopped being finite.
    """
    matching = matching or Matching()
    settings = settings or Training()
    fabric = fabric or cpu_fabric()
    devices = [fabric.device] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        loop = _Loop(student, task, matching, settings, seed, fabric, folder)
        loop.evaluate, loop.on_progress, loop.on_log = evaluate, on_progress, on_log
        loop.execution, loop.shared = execution or Execution(), shared
        loop.tell = tell or loop.tell
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
        folder: Path | None,
    ) -> None:
        self.steps = Steps(student, task, matching, settings, seed, fabric)
        self.student, self.settings, self.fabric = student, settings, fabric
        self.evaluate: Callable[[nn.Module], dict[str, float]] | None = None
        self.on_progress: Callable[[int, float], None] | None = None
        self.on_log: Callable[[dict[str, Any]], None] | None = None
        self.execution = Execution()
        self.shared: Shared | None = None
        self.tell: Callable[[str], None] = _nothing
        self.checkpoints = None if folder is None else Checkpoints(folder)
        self.step, self.seconds, self.loss = 0, 0.0, math.nan
        state = self.checkpoints.newest() if self.checkpoints else None
        if state is not None:
            self.steps.restore(state)
            self.step, self.seconds = state["step"], state["seconds"]
            self.loss = state["loss"]
        self.steps.schedule.seek(self.step)
        writes = folder is not None and fabric.is_global_zero
        self.log = JsonLines(folder / "log.jsonl", self.step) if folder and writes else None

    def run(self, sampler: Sampler, teacher: Teacher) -> TrainingResult:
        settings = self.settings
        log_every = max(1, settings.steps // 50)
        losses: list[Tensor] = []
        started = time.perf_counter()
        self.steps.model.train()
        teacher = remembered(teacher, sampler, settings, self.fabric)
        for loss in self._losses(sampler, teacher):
            losses.append(loss)
            self.step += 1
            last = self.step == settings.steps
            checkpoint = last or self.step % settings.checkpoint_every == 0
            evaluate = last or (
                settings.evaluate_every > 0 and self.step % settings.evaluate_every == 0
            )
            if self.step % log_every == 0 or checkpoint or evaluate:
                self.loss = self._read(losses, sampler, teacher)
                losses.clear()
                self.seconds += time.perf_counter() - started
                self._report(evaluate)
                if checkpoint:
                    self._save()
                started = time.perf_counter()
        return self._finish()

    def _losses(self, sampler: Sampler, teacher: Teacher) -> Iterator[Tensor]:
        """Do the steps that are left, and yield the loss of each."""
        if self.step == self.settings.steps:
            return
        if self.execution.compile:
            self._compile(sampler, teacher)
        captured = self._capture(sampler, teacher)
        if captured is not None:
            yield from captured.losses()
            return
        steps = self.steps
        for batch, target in draws(
            sampler, teacher, self.settings, self.step,
            fabric=self.fabric, faults=steps.faults, shared=self.shared,
        ):  # fmt: skip
            steps.seed_step(self.step)
            yield steps.learn(batch, target)

    def _capture(self, sampler: Sampler, teacher: Teacher) -> Captured | None:
        """Return the training as graphs; None where there are none, or they do not serve."""
        steps, device = self.steps, self.fabric.device
        if self.execution.capture == "off" or not has_graphs(device):
            return None
        reason = step_obstacle(self.student, steps.matching, self.fabric)
        if reason is not None:
            self.tell(f"steps are not captured: {reason}")
            return None
        fed = draw_obstacle(sampler, teacher)
        if fed is not None:
            self.tell(f"steps are captured, draws are not: {fed}")
        graph = partial(new_graph, device)
        try:
            return Captured(steps, sampler, teacher, self.step, graph, self.shared)
        except RuntimeError as error:
            steps.faults.clear()
            self.tell(f"steps are not captured: {first_line(error)}")
            return None

    def _compile(self, sampler: Sampler, teacher: Teacher) -> None:
        before = Kept(self.steps)
        batch, target = next(draws(sampler, teacher, self.settings, self.step, fabric=self.fabric))
        run = partial(self.steps.forth_and_back, batch, target)
        compile_student(self.student, run, self.tell)
        before.put_back()

    def _read(self, losses: list[Tensor], sampler: Sampler, teacher: Teacher) -> float:
        """Read from the device what gathered since the last line of the log; return the loss."""
        first = self.step - len(losses)
        try:
            self.steps.faults.check()
            self.steps.faults.clear()
            loss = float(torch.stack(losses).mean())
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss became {loss} between steps {first + 1} and {self.step}; "
                    f"a smaller lr (it is {self.settings.lr}) or a clip_norm may help"
                )
        except TrainingError:
            # The same draws again, each looked at: an error there is closer to the cause.
            with static_shapes(False):
                again = draws(sampler, teacher, self.settings, first, fabric=self.fabric)
                for _ in zip(range(first, self.step), again, strict=False):
                    pass
            raise
        return loss

    def _report(self, evaluate: bool) -> None:
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
            self.steps.model.train()
        if self.log is not None:
            self.log.write(line)
        if self.on_log is not None and self.fabric.is_global_zero:
            self.on_log(line)
        if self.on_progress is not None:
            self.on_progress(self.step, self.loss)

    def _save(self) -> None:
        if self.checkpoints is None or not self.fabric.is_global_zero:
            return
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "loss": self.loss,
            **self.steps.state(),
        }
        self.checkpoints.save(self.step, state)

    def close(self) -> None:
        if self.execution.compile:
            as_written(self.student)
        if self.log is not None:
            self.log.close()

    def _finish(self) -> TrainingResult:
        self.steps.finish()
        return TrainingResult(self.step, self.seconds, self.loss)


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
