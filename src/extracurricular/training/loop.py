"""The loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from extracurricular import rng
from extracurricular.distributions import Distribution, Task
from extracurricular.errors import TrainingError
from extracurricular.files import Checkpoints, JsonLines
from extracurricular.inputs import Batch, channels_last, static_shapes, tree_map
from extracurricular.matching import Matching
from extracurricular.samplers.base import Sampler
from extracurricular.teachers.base import Faults, Teacher
from extracurricular.training.draw import draws
from extracurricular.training.optimizer import (
    Schedule,
    average,
    learning_rate,
    make_optimizer,
)
from extracurricular.training.remembered import remembered
from extracurricular.training.settings import Training

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
        self.student, self.task, self.matching = student, task, matching
        self.settings, self.seed, self.fabric = settings, seed, fabric
        self.evaluate: Callable[[nn.Module], dict[str, float]] | None = None
        self.on_progress: Callable[[int, float], None] | None = None
        self.on_log: Callable[[dict[str, Any]], None] | None = None
        self.checkpoints = None if folder is None else Checkpoints(folder)
        # Gradient scaling and an optimiser that fuses its step do not go together.
        scaled = getattr(fabric.strategy.precision, "scaler", None) is not None
        fused = fabric.device.type in ("cpu", "cuda") and not scaled
        student.to(fabric.device)
        self.images = any(isinstance(part, nn.Conv2d) for part in student.modules())
        if self.images:
            # Convolutions are faster in this layout, on CPUs and GPUs alike.
            _lay_out(student, torch.channels_last)
        on_device = fused and fabric.device.type != "cpu"
        self.schedule = Schedule(settings, fabric.device if on_device else None)
        optimizer = make_optimizer(student, settings, fused, self.schedule.rate)
        self.model, self.optimizer = fabric.setup(student, optimizer)
        self.ema = _copy(student) if settings.ema is not None else None
        self.faults = Faults(fabric.device)
        self.step, self.seconds, self.loss = 0, 0.0, math.nan
        state = self.checkpoints.newest() if self.checkpoints else None
        if state is not None:
            self._restore(state)
        self.schedule.seek(self.step)
        writes = folder is not None and fabric.is_global_zero
        self.log = JsonLines(folder / "log.jsonl", self.step) if folder and writes else None

    def run(self, sampler: Sampler, teacher: Teacher) -> TrainingResult:
        settings = self.settings
        log_every = max(1, settings.steps // 50)
        losses: list[Tensor] = []
        started = time.perf_counter()
        self.model.train()
        teacher = remembered(teacher, sampler, settings, self.fabric)
        for batch, target in draws(
            sampler, teacher, settings, self.step, fabric=self.fabric, faults=self.faults
        ):
            losses.append(self._one_step(batch, target))
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

    def _one_step(self, batch: Batch, target: Distribution) -> Tensor:
        # Dropout, too, is a function of the step, wherever the training was interrupted.
        seed = rng.fold(self.seed, "step", self.step, self.fabric.global_rank) >> 1
        _seed(seed, self.fabric.device)
        self.schedule.advance()
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate
        x = tree_map(channels_last, batch.x) if self.images else batch.x
        prediction = self.task.distribution(self.model(x))
        loss = self.matching(prediction, target, batch.y, batch.weight)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        if self.settings.clip_norm is not None:
            self.fabric.clip_gradients(
                self.model,
                self.optimizer,
                max_norm=self.settings.clip_norm,
                error_if_nonfinite=False,
            )
        self.optimizer.step()
        if self.ema is not None:
            average(self.ema, self.student, self.schedule.forget)
        return loss.detach()

    def _read(self, losses: list[Tensor], sampler: Sampler, teacher: Teacher) -> float:
        """Read from the device what gathered since the last line of the log; return the loss."""
        first = self.step - len(losses)
        try:
            self.faults.check()
            self.faults.clear()
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
            with _using(self.student, self.ema):
                self.student.eval()
                line["evaluation"] = self.evaluate(self.student)
            self.model.train()
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
            "model": self.student.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema,
            "precision": self.fabric.strategy.precision.state_dict(),
        }
        self.checkpoints.save(self.step, state)

    def _restore(self, state: dict[str, Any]) -> None:
        self.student.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.ema = {k: v.to(self.fabric.device) for k, v in state["ema"].items()}
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.loss = state["loss"]

    def close(self) -> None:
        if self.log is not None:
            self.log.close()

    def _finish(self) -> TrainingResult:
        if self.ema is not None:
            self.student.load_state_dict(self.ema)
        self.student.eval()
        if self.images:
            _lay_out(self.student, torch.contiguous_format)
        return TrainingResult(self.step, self.seconds, self.loss)


def _lay_out(module: nn.Module, layout: torch.memory_format) -> None:
    """Bring the weights of a network into another layout in memory, in place."""
    module.to(memory_format=layout)  # type: ignore[call-overload]


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in module.state_dict().items()}


def _seed(seed: int, device: torch.device) -> None:
    """Seed torch's generators for one step."""
    if device.type == "cpu":
        # torch.manual_seed also notes who called it, for a GPU that is not in use yet, which takes
        # as long as the step of a small network.
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


@contextmanager
def _using(module: nn.Module, state: dict[str, Tensor] | None) -> Iterator[None]:
    """Put another state into a module while a block runs."""
    if state is None:
        yield
        return
    own = _copy(module)
    module.load_state_dict(state)
    try:
        yield
    finally:
        module.load_state_dict(own)
