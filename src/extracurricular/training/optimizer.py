"""The optimiser, and the numbers that change from step to step: rate, average, temperature."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from extracurricular.errors import TrainingError
from extracurricular.matching.course import Course
from extracurricular.training.optimizers import Groups, build_optimizer
from extracurricular.training.settings import Training


def learning_rate(settings: Training, step: int) -> float:
    """Return the learning rate of a step: linear warm-up, then the schedule of the settings.

    ``cosine`` and ``linear`` go from the end of the warm-up to the end of the training.
    ``milestones`` are parts of the whole training, warm-up included: with ``steps``, step s has the
    rate ``lr`` · ``decay`` ^ (number of milestones ≤ s / ``steps``).
    """
    if step < settings.warmup:
        return settings.rate * (step + 1) / settings.warmup
    if settings.schedule == "constant":
        return settings.rate
    if settings.schedule == "steps":
        # The quotient, not the product, is exact where a milestone falls on a step.
        passed = sum(step / settings.steps >= part for part in settings.milestones)
        return settings.rate * settings.decay**passed
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    if settings.schedule == "linear":
        return settings.rate * max(0.0, 1 - done)
    return settings.rate * 0.5 * (1 + math.cos(math.pi * done))


def ema_decay(settings: Training, step: int) -> float:
    """Return the decay of the moving average at a step, in (0, 1); 0 if there is no average."""
    # The average forgets fast at first, as early weights are not worth keeping.
    return min(settings.ema or 0.0, (1 + step) / (10 + step))


# The runs that precede a capture may go a little beyond the last step.
_BEYOND = 8


class Schedule:
    """The numbers of each step: learning rate, and how much the moving average forgets.

    On a CPU they are Python numbers, since its optimisers would read a tensor, and round it to
    float32. Elsewhere they and the counter of steps are tensors on the device, so that a step in a
    CUDA graph finds its own numbers there.

    Args:
        settings: Settings of the training.
        device: Device of the tensors; None for numbers.
    """

    def __init__(self, settings: Training, device: torch.device | None) -> None:
        self.settings = settings
        self.rate: float | Tensor = settings.rate
        self.forget: float | Tensor = 1.0
        self.step = 0
        self._count = self._tables = None
        if device is not None:
            steps = range(settings.steps + _BEYOND)
            rates = [learning_rate(settings, step) for step in steps]
            forgets = [1 - ema_decay(settings, step) for step in steps]
            self._tables = torch.tensor([rates, forgets], device=device)
            self._count = torch.zeros(1, dtype=torch.int64, device=device)
            now = torch.zeros(2, device=device)
            self.rate, self.forget = now[0], now[1]
            self._now = now

    def seek(self, step: int) -> None:
        """Make ``step`` the next step."""
        self.step = step
        if self._count is not None:
            self._count.fill_(step)

    def advance(self) -> None:
        """Go to the next step."""
        if self._tables is None or self._count is None:
            self.rate = learning_rate(self.settings, self.step)
            self.forget = 1 - ema_decay(self.settings, self.step)
        else:
            # An index without dimensions would be read by the host.
            self._now.copy_(self._tables.index_select(1, self._count).squeeze(1))
            self._count += 1
        self.step += 1


class Temperature:
    """The temperature of the loss at each step.

    It is a number where it stays the same. Where it follows a course, it is a scalar on the device,
    with a counter of steps beside it, so that a step in a CUDA graph finds its own there.

    Args:
        temperature: A number or a course.
        steps: Steps of the training.
        device: Device of the training.
    """

    def __init__(self, temperature: float | Course, steps: int, device: torch.device) -> None:
        self._table: Tensor | None = None
        if not isinstance(temperature, Course):
            self.now: float | Tensor = temperature
            return
        values = temperature.values(steps) + [temperature.last] * _BEYOND
        self._table = torch.tensor(values, device=device)
        self._count = torch.zeros(1, dtype=torch.int64, device=device)
        self._now = self.now = self._table[0].clone()

    def seek(self, step: int) -> None:
        """Make ``step`` the next step."""
        if self._table is not None:
            self._count.fill_(step)

    def advance(self) -> None:
        """Go to the next step."""
        if self._table is not None:
            # An index without dimensions would be read by the host.
            self._now.copy_(self._table.index_select(0, self._count).squeeze(0))
            self._count += 1


def make_optimizer(
    module: nn.Module, settings: Training, fused: bool, rate: float | Tensor | None = None
) -> torch.optim.Optimizer:
    """Make the optimiser, with weight decay only on tensors of two or more dimensions.

    Args:
        module: The network to train.
        settings: Settings of the training.
        fused: Whether one kernel does the whole step.
        rate: The learning rate, maybe as a tensor on the device of the network;
            ``settings.rate`` if None.
    """
    lr = settings.rate if rate is None else rate
    trainable = [p for p in module.parameters() if p.requires_grad]
    if not trainable:
        raise TrainingError("the student has no trainable parameters")
    groups: Groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": settings.shrinkage},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    spec = settings.optimizer or "sgd"
    return build_optimizer(spec, groups, lr, momentum=settings.momentum, fused=fused)


@torch.no_grad()
def average(kept: dict[str, Tensor], module: nn.Module, forget: float | Tensor) -> None:
    """Move an average of a module's state by a part ``forget`` towards its present state."""
    state = module.state_dict()
    reals = [k for k, v in kept.items() if v.is_floating_point()]
    mine, present = [kept[k] for k in reals], [state[k] for k in reals]
    if isinstance(forget, Tensor):
        # There is no lerp of many tensors by one number on the device.
        moves = torch._foreach_sub(present, mine)
        torch._foreach_mul_(moves, forget)
        torch._foreach_add_(mine, moves)
    else:
        torch._foreach_lerp_(mine, present, forget)
    for name, value in kept.items():
        if not value.is_floating_point():
            value.copy_(state[name])
