"""The steps of one student: forward, loss, backward, optimiser, moving average."""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from extracurricular import rng
from extracurricular.distributions import Distribution, Task
from extracurricular.errors import RecipeError
from extracurricular.inputs import Batch, channels_last, tree_map
from extracurricular.matching import Matching
from extracurricular.teachers.base import Faults
from extracurricular.training.additions import Added
from extracurricular.training.frozen import Frozen
from extracurricular.training.optimizer import Schedule, Temperature, average, make_optimizer
from extracurricular.training.optimizers import obstacle_of
from extracurricular.training.settings import Training
from extracurricular.training.simulated import Ranges
from extracurricular.training.synchronised import Synchronised

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Steps:
    """A student, its optimiser and its moving average, which each step changes.

    Args:
        student: The network; it is trained in place, and moved to the device of ``fabric``.
        task: How its raw outputs are read.
        matching: The loss.
        settings: Optimiser and schedule.
        seed: Seed of its dropout.
        fabric: Device and precision.
        added: What there is besides the loss; nothing where None.
        sync: Whether batch norms take their statistics over the batch of all processes.
    """

    def __init__(
        self,
        student: nn.Module,
        task: Task,
        matching: Matching,
        settings: Training,
        seed: int,
        fabric: Fabric,
        added: Added | None = None,
        sync: bool = True,
    ) -> None:
        self.added = added
        self.student, self.task, self.matching = student, task, matching
        self.settings, self.seed, self.fabric = settings, seed, fabric
        relates = matching.relates or (added is not None and added.relates)
        if relates and (settings.accumulate > 1 or fabric.world_size > 1):
            what = f"accumulate is {settings.accumulate}"
            what = what if settings.accumulate > 1 else f"there are {fabric.world_size} devices"
            raise RecipeError(
                "training.accumulate" if settings.accumulate > 1 else "device",
                f"{matching.divergence_name if matching.relates else 'features: similarity'} "
                f"relates the examples of a batch, which would be cut into parts, as {what}",
            )
        self.frozen = Frozen(student, settings.freeze)
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
        trained = nn.ModuleList([student] if added is None else [student, added.projector])
        optimizer = make_optimizer(trained, settings, fused, self.schedule.rate)
        self.temperature = Temperature(matching.temperature, settings.steps, fabric.device)
        self.synchronised = Synchronised(student, fabric.world_size if sync else 1)
        self.model, self.optimizer = fabric.setup(student, optimizer)
        self.ema = copied(student) if settings.ema is not None else None
        self.faults = Faults(fabric.device)

    @property
    def obstacle(self) -> str | None:
        """The reason why a CUDA graph cannot hold the optimiser, as a clause; None if it can."""
        return obstacle_of(unwrapped(self.optimizer))

    def wake(self) -> None:
        """Put the student in training mode, but for the layers that are frozen."""
        self.model.train()
        self.frozen.hold()

    def seek(self, step: int) -> None:
        """Make ``step`` the next step of the schedules."""
        self.schedule.seek(step)
        self.temperature.seek(step)

    def seed_step(self, step: int) -> None:
        """Seed torch's generators, so that dropout, too, is a function of the step.

        Rounding to 8 bits, which sets in at a step, follows it too.
        """
        if self.added is not None:
            self.added.at(step, self.settings.steps)
        seed = rng.fold(self.seed, "step", step, self.fabric.global_rank) >> 1
        _seed(seed, self.fabric.device)

    def forth_and_back(self, batch: Batch, target: Distribution) -> Tensor:
        """Compute the loss of a batch, a scalar, and its gradients."""
        self.optimizer.zero_grad()
        parts = self.settings.accumulate
        if parts == 1:
            return self._backward(batch, target, 1)
        size, losses = len(batch) // parts, []
        for number in range(parts):
            part = slice(number * size, (number + 1) * size)
            # Gradients are exchanged once, when all are there.
            waits = self.fabric.world_size > 1 and number < parts - 1
            held = self.fabric.no_backward_sync(self.model) if waits else nullcontext()
            with held:
                losses.append(self._backward(batch[part], target[part], parts))
        return torch.stack(losses).sum()

    def _backward(self, batch: Batch, target: Distribution, parts: int) -> Tensor:
        """Add the gradients of one of so many parts of a batch, and return its part of the loss."""
        x = tree_map(channels_last, batch.x) if self.images else batch.x
        prediction = self.task.distribution(self.model(x))
        loss = self.matching(prediction, target, batch.y, batch.weight, self.temperature.now)
        if self.added is not None:
            more = self.added.loss(x, batch.weight, self.fabric.autocast())
            loss = loss if more is None else loss + more
        loss = loss if parts == 1 else loss / parts
        self.fabric.backward(loss)
        return loss.detach()

    def learn(self, batch: Batch, target: Distribution) -> Tensor:
        """Make one step on a batch, and return its loss, a scalar."""
        self.schedule.advance()
        self.temperature.advance()
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate
        loss = self.forth_and_back(batch, target)
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
        return loss

    # -- state ------------------------------------------------------------------------------------

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors that a step changes: weights, buffers, average, the optimiser's state."""
        states = (entry.values() for entry in self.optimizer.state.values())
        added = [] if self.added is None else self.added.tensors
        found = itertools.chain(
            self.student.parameters(),
            self.student.buffers(),
            (self.ema or {}).values(),
            added,
            *states,
        )
        return [value for value in found if isinstance(value, Tensor)]

    def state(self) -> dict[str, Any]:
        """Return all that a checkpoint needs."""
        return {
            "model": self.student.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema,
            "precision": self.fabric.strategy.precision.state_dict(),
            **({} if self.added is None else self.added.state()),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over the state of a checkpoint."""
        self.student.load_state_dict(state["model"])
        own = [group.get("capturable") for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        # The checkpoint may be of another device.
        for group, capturable in zip(self.optimizer.param_groups, own, strict=True):
            if capturable is not None:
                group["capturable"] = capturable
        if self.ema is not None:
            self.ema = {k: v.to(self.fabric.device) for k, v in state["ema"].items()}
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        if self.added is not None:
            self.added.restore(state)

    def stop(self) -> None:
        """Leave the student's layers as they were, however the training ended."""
        self.synchronised.stop()
        if self.added is not None:
            self.added.stop()

    def finish(self) -> Ranges | None:
        """Leave the student in evaluation mode, with its average where there is one.

        Returns:
            The ranges of its layers, where 8 bits were simulated.
        """
        self.frozen.thaw()
        self.synchronised.stop()
        ranges = None if self.added is None else self.added.stop()
        if self.ema is not None:
            self.student.load_state_dict(self.ema)
        self.student.eval()
        if self.images:
            _lay_out(self.student, torch.contiguous_format)
        return ranges


class Kept:
    """A copy of all tensors that a step changes, to be put back in place.

    Args:
        steps: The steps.
    """

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._kept = [(value, value.detach().clone()) for value in steps.tensors]

    @torch.no_grad()
    def put_back(self) -> None:
        """Give each tensor its old value; those that the optimiser has added since become 0."""
        self._steps.optimizer.zero_grad()
        known = {id(value) for value, _ in self._kept}
        for value, old in self._kept:
            value.copy_(old)
        for value in self._steps.tensors:
            if id(value) not in known:
                value.zero_()


def unwrapped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return an optimiser without what Lightning Fabric puts around it."""
    found: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return found


def copied(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a module's state."""
    return {k: v.detach().clone() for k, v in module.state_dict().items()}


def _lay_out(module: nn.Module, layout: torch.memory_format) -> None:
    """Bring the weights of a network into another layout in memory, in place."""
    module.to(memory_format=layout)  # type: ignore[call-overload]


def _seed(seed: int, device: torch.device) -> None:
    """Seed torch's generators for one step."""
    if device.type == "cpu":
        # torch.manual_seed also notes who called it, for a GPU that is not in use yet, which takes
        # as long as the step of a small network.
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)
