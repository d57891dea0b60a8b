"""Teachers of torch: labels, a network, an ensemble, a network with dropout.

A teacher is never part of the student, so it never reaches the student's checkpoint. Networks
always run in evaluation mode and without gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from extracurricular import rng
from extracurricular.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Gaussian,
    Task,
    mixture,
)
from extracurricular.errors import RecipeError, shorten
from extracurricular.inputs import Batch, Capturable, obstacle, soft_labels
from extracurricular.matching.smoothing import spread
from extracurricular.teachers.base import Teacher, check_teacher


@dataclass(frozen=True)
class LabelTeacher(Capturable):
    """A teacher that repeats the labels, so that ERM is matching too.

    A class, or a soft label, becomes a categorical distribution; several labels of 0 and 1 become
    Bernoullis; a real target a point mass.

    Args:
        smoothing: Part of each label that is spread evenly over the classes, in [0, 1); see
            ``label_smoothing`` of :class:`~extracurricular.matching.Matching`.
    """

    smoothing: float = 0.0

    def __call__(self, batch: Batch) -> Distribution:
        """Return the labels as a distribution.

        Raises:
            ValueError: The examples have no labels.
        """
        if batch.y is None:
            raise ValueError(
                "the teacher is 'labels', but the sampler gives examples without labels"
            )
        if batch.classes is not None:
            hot = soft_labels(batch.y, batch.classes)
            return Categorical.from_probs(spread(hot, self.smoothing, batch.classes))
        if batch.binary:
            return Bernoulli.from_probs(spread(batch.y, self.smoothing, 2))
        return Gaussian.point(batch.y)


class NetworkTeacher(Capturable):
    """One trained network.

    Args:
        module: Maps the inputs of a batch to raw outputs [B, task.outputs]. Every call that it
            answers puts it in evaluation mode first.
        task: How raw outputs are read.
        fast: A copy in evaluation mode that answers instead
            (:func:`~extracurricular.teachers.prepared.prepare`); the network itself where None.
    """

    def __init__(self, module: nn.Module, task: Task, fast: nn.Module | None = None) -> None:
        if not isinstance(module, nn.Module):
            raise RecipeError("module", f"is {shorten(module)}; it must be a torch module")
        if not isinstance(task, Task):
            raise RecipeError("task", f"is {shorten(task)}; it must be a Task, such as data.task")
        self.module = module
        self.task = task
        self.fast = fast

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Distribution:
        """Return the network's distribution."""
        if self.fast is not None:
            return self.task.distribution(self.fast(batch.x))
        if any(part.training for part in self.module.modules()):
            self.module.eval()
        return self.task.distribution(self.module(batch.x))


class EnsembleTeacher(Capturable):
    """Several teachers as one, which averages probabilities or matches Gaussian moments.

    Args:
        teachers: One or more teachers of the same task.
    """

    def __init__(self, teachers: Sequence[Teacher]) -> None:
        if isinstance(teachers, nn.Module) or not isinstance(teachers, Sequence):
            raise RecipeError("teachers", f"is {shorten(teachers)}; it must be a list of teachers")
        if not teachers:
            raise ValueError("an ensemble needs at least one member")
        for teacher in teachers:
            check_teacher(teacher)
        self.teachers = list(teachers)

    @property
    def obstacle(self) -> str | None:
        """The reason why a CUDA graph cannot hold the members, as a clause; None if it can."""
        return next(filter(None, map(obstacle, self.teachers)), None)

    def members(self, batch: Batch) -> list[Distribution]:
        """Return each member's distribution."""
        return [teacher(batch) for teacher in self.teachers]

    def __call__(self, batch: Batch) -> Distribution:
        """Return the mixture's distribution."""
        return mixture(self.members(batch))


_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


class DropoutTeacher(Capturable):
    """A network with dropout as an ensemble of thinned networks (Gal and Ghahramani 2016).

    Each pass has its own dropout masks, drawn once from (seed, pass, layer) and shared by all
    examples. So the answer is a function of the example alone, as law 1 asks, and the network
    stays in evaluation mode. Masks act on dropout *layers*, not on calls of
    ``torch.nn.functional.dropout``.

    Args:
        module: A network with at least one active dropout layer.
        task: How raw outputs are read.
        passes: Number of thinned networks, at least 1.
        seed: Seed of the masks.

    Raises:
        ValueError: The network has no dropout layer with p above 0, or passes is below 1.
    """

    def __init__(self, module: nn.Module, task: Task, passes: int = 8, seed: int = 0) -> None:
        if passes < 1:
            raise ValueError(f"passes is {passes}; it must be at least 1")
        self.network = NetworkTeacher(module, task)
        self.passes = passes
        self.seed = seed
        self._dropouts = {
            name: part
            for name, part in module.named_modules()
            if isinstance(part, _DROPOUTS) and part.p > 0
        }
        if not self._dropouts:
            raise ValueError("MC dropout needs a network with a dropout layer whose p is above 0")

    def members(self, batch: Batch) -> list[Distribution]:
        """Return the distribution of each thinned network."""
        results = []
        for number in range(self.passes):
            hooks = [
                part.register_forward_hook(self._mask_hook(name, number, part.p))
                for name, part in self._dropouts.items()
            ]
            try:
                results.append(self.network(batch))
            finally:
                for hook in hooks:
                    hook.remove()
        return results

    def _mask_hook(self, name: str, number: int, p: float) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            # Dropout1d to 3d drop whole channels; plain dropout drops single units.
            whole = not isinstance(module, nn.Dropout)
            shape = tuple(output.shape[1:2]) if whole else tuple(output.shape[1:])
            layer = torch.full((1,), number, device=output.device)
            draw = rng.uniform(self.seed, layer, f"mc_dropout.{name}", shape)
            # A layer that drops everything gives zeros, not 0/0.
            keep = (draw >= p).to(output.dtype) / max(1 - p, torch.finfo(torch.float32).tiny)
            return output * keep.view(1, *shape, *[1] * (output.ndim - 1 - len(shape)))

        return hook

    def __call__(self, batch: Batch) -> Distribution:
        """Return the mixture over the thinned networks."""
        return mixture(self.members(batch))


# Short names, which the documentation uses.
Network = NetworkTeacher
Ensemble = EnsembleTeacher
Labels = LabelTeacher
MCDropout = DropoutTeacher
