"""The one training loop.

ERM, mixup training, KD and XCL are settings of the same line

    minimise over θ    E_{x ~ p̂(x)} [ w(x) · D( q_T(y|x) ‖ q_S(y|x; θ) ) ]

so they run through the same function with the same number of student steps. A draw is a pure
function of its id, so the state of a training is one integer, the step, plus the states of student
and optimiser. Step s draws ids [s·B, (s + 1)·B) and seeds everything else that is random (dropout).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from lightning_fabric import Fabric
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from extracurricular import rng
from extracurricular.distributions import Distribution, Task
from extracurricular.errors import TrainingError
from extracurricular.files import Checkpoints, JsonLines
from extracurricular.inputs import Batch, leaves
from extracurricular.matching import Matching
from extracurricular.samplers.base import Sampler, announced, is_pure
from extracurricular.samplers.uncertain import Uncertain
from extracurricular.teachers.base import Teacher, check_answer
from extracurricular.teachers.networks import LabelTeacher

# Several steps are drawn at once, to pay the fixed cost of small operations once. This bounds the
# memory they take; students see the same examples whatever the bound.
_DRAW_BYTES = 2 * 2**20
_MAX_DRAW_STEPS = 16
# Draws are announced to the sampler ahead of time: at most so many bytes of network inputs, which
# take four times the space of image bytes, and at most so many steps.
_AHEAD_BYTES = 2**29
_MAX_AHEAD = 64


class Training(BaseModel):
    """Settings of a training.

    Args:
        steps: Optimiser steps.
        batch_size: Examples a step, over all devices.
        optimizer: ``sgd`` (with Nesterov momentum) or ``adamw``.
        lr: Peak learning rate; it rises linearly for ``warmup`` steps, then falls as a cosine to 0.
        momentum: Momentum of ``sgd``.
        weight_decay: Applied to weights (matrices and kernels), not to biases and norms.
        warmup: Steps of the linear rise.
        clip_norm: Largest norm of the gradient; null for no limit.
        ema: Decay of an exponential moving average of the weights, which becomes the result; null
            for none.
        evaluate_every: Steps between evaluations on the validation split; 0 for only one at the
            end.
        checkpoint_every: Steps between checkpoints.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    steps: Annotated[int, Field(ge=1)] = 2000
    batch_size: Annotated[int, Field(ge=1)] = 64
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5e-4
    warmup: Annotated[int, Field(ge=0)] = 0
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    evaluate_every: Annotated[int, Field(ge=0)] = 0
    checkpoint_every: Annotated[int, Field(ge=1)] = 500


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


def learning_rate(settings: Training, step: int) -> float:
    """Return the learning rate of a step: linear warm-up, then cosine to 0."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * done))


def make_optimizer(module: nn.Module, settings: Training, fused: bool) -> torch.optim.Optimizer:
    """Make the optimiser, with weight decay only on tensors of two or more dimensions."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    if not trainable:
        raise TrainingError("the student has no trainable parameters")
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr, fused=fused)
    nesterov = settings.momentum > 0
    return torch.optim.SGD(
        groups, lr=settings.lr, momentum=settings.momentum, nesterov=nesterov, fused=fused
    )


def step_ids(step: int, steps: int, batch_size: int, rank: int = 0, world: int = 1) -> Tensor:
    """Return the draw ids of one process for some steps, int64, [steps · B / world].

    The steps are [step, step + steps). Every step's ids are cut into ``world`` equal slices, so
    that all devices together see the examples that one device would see.

    Raises:
        ValueError: The batch cannot be cut into ``world`` equal slices.
    """
    if batch_size % world:
        raise ValueError(
            f"batch_size is {batch_size}; it must be a multiple of the {world} devices"
        )
    ids = torch.arange(step * batch_size, (step + steps) * batch_size)
    return ids.view(steps, world, -1)[:, rank].reshape(-1)


def draw_steps(sampler: Sampler, batch_size: int, device: torch.device) -> int:
    """Return the number of steps to draw at once, within a bound on memory."""
    return _together_and_ahead(sampler, batch_size, device)[0]


def _together_and_ahead(sampler: Sampler, batch_size: int, device: torch.device) -> tuple[int, int]:
    """Return the steps to draw at once, and the steps by which draws are announced ahead."""
    example = sampler(torch.zeros(1, dtype=torch.int64, device=device))
    size = sum(leaf.numel() * leaf.element_size() for leaf in leaves(example.x).values())
    size = max(1, size * batch_size)
    together = max(1, min(_MAX_DRAW_STEPS, _DRAW_BYTES // size))
    return together, max(together, min(_MAX_AHEAD, _AHEAD_BYTES // size))


def draws(
    sampler: Sampler,
    teacher: Teacher,
    settings: Training,
    start: int,
    *,
    fabric: Fabric,
) -> Iterator[tuple[Batch, Distribution]]:
    """Yield the examples of each step from ``start`` on, with the teacher's distribution on them.

    Several steps are drawn at once. The grouping depends on the step alone, never on where a
    training was interrupted, so a resumed training meets the same numbers to the last bit. Draws
    are announced to the sampler some steps ahead, so that it may prepare them.
    """
    # Draws that depend on the student must see it as it is at their own step.
    together, ahead = 1, 2
    if is_pure(sampler):
        together, ahead = _together_and_ahead(sampler, settings.batch_size, fabric.device)
    begin = start - start % together
    rank, world, end = fabric.global_rank, fabric.world_size, settings.steps
    chunks = (
        step_ids(first, min(together, end - first), settings.batch_size, rank, world)
        for first in range(begin, end, together)
    )
    size = settings.batch_size // world
    drawn = announced(sampler, chunks, ahead // together)
    for first, ids in zip(range(begin, end, together), drawn, strict=True):
        batch, target = _draw(sampler, teacher, ids.to(fabric.device), fabric)
        if not isinstance(teacher, LabelTeacher):
            check_answer(target, batch.ids)
        for k in range(max(0, start - first), len(ids) // size):
            part = slice(k * size, (k + 1) * size)
            yield batch[part], target[part]


def _draw(
    sampler: Sampler, teacher: Teacher, ids: Tensor, fabric: Fabric
) -> tuple[Batch, Distribution]:
    if isinstance(sampler, Uncertain) and sampler.teacher is teacher:
        # The sampler has asked the teacher about these very examples already, in full precision,
        # so that its choice does not depend on the precision of the training.
        choice = sampler.choose(ids)
        return choice.batch, choice.prediction
    batch = sampler(ids)
    with fabric.autocast():
        return batch, teacher(batch)


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
        task: How raw outputs are read.
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
    fabric = fabric or Fabric(accelerator="cpu", devices=1)
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
        self.model, self.optimizer = fabric.setup(student, make_optimizer(student, settings, fused))
        self.ema = _copy(student) if settings.ema is not None else None
        self.step, self.seconds, self.loss = 0, 0.0, math.nan
        state = self.checkpoints.newest() if self.checkpoints else None
        if state is not None:
            self._restore(state)
        writes = folder is not None and fabric.is_global_zero
        self.log = JsonLines(folder / "log.jsonl", self.step) if folder and writes else None

    def run(self, sampler: Sampler, teacher: Teacher) -> TrainingResult:
        settings = self.settings
        log_every = max(1, settings.steps // 50)
        losses: list[Tensor] = []
        started = time.perf_counter()
        self.model.train()
        for batch, target in draws(sampler, teacher, settings, self.step, fabric=self.fabric):
            losses.append(self._one_step(batch, target))
            self.step += 1
            last = self.step == settings.steps
            checkpoint = last or self.step % settings.checkpoint_every == 0
            evaluate = last or (
                settings.evaluate_every > 0 and self.step % settings.evaluate_every == 0
            )
            if self.step % log_every == 0 or checkpoint or evaluate:
                self.loss = self._mean_loss(losses)
                losses.clear()
                self.seconds += time.perf_counter() - started
                self._report(evaluate)
                if checkpoint:
                    self._save()
                started = time.perf_counter()
        return self._finish()

    def _one_step(self, batch: Batch, target: Distribution) -> Tensor:
        # Dropout, too, is a function of the step, wherever the training was interrupted.
        torch.manual_seed(rng.fold(self.seed, "step", self.step, self.fabric.global_rank) >> 1)
        rate = learning_rate(self.settings, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        prediction = self.task.distribution(self.model(batch.x))
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
        if self.ema is not None and self.settings.ema is not None:
            # The memory is short at first, as early weights are not worth keeping.
            decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
            _average(self.ema, self.student, decay)
        return loss.detach()

    def _mean_loss(self, losses: list[Tensor]) -> float:
        loss = float(torch.stack(losses).mean())
        if not math.isfinite(loss):
            first = self.step - len(losses) + 1
            raise TrainingError(
                f"the loss became {loss} between steps {first} and {self.step}; "
                f"a smaller lr (it is {self.settings.lr}) or a clip_norm may help"
            )
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
        return TrainingResult(self.step, self.seconds, self.loss)


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in module.state_dict().items()}


@torch.no_grad()
def _average(average: dict[str, Tensor], module: nn.Module, decay: float) -> None:
    """Move an average of a module's state towards its present state."""
    state = module.state_dict()
    reals = [k for k, v in average.items() if v.is_floating_point()]
    torch._foreach_lerp_([average[k] for k in reals], [state[k] for k in reals], 1 - decay)
    for name, value in average.items():
        if not value.is_floating_point():
            value.copy_(state[name])


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
