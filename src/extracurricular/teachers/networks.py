"""Teachers of torch: labels, a network, an ensemble, a network with dropout.

A teacher is a callable from :class:`~extracurricular.samplers.Batch` to a distribution. It is never
part of the student, so it never reaches the student's checkpoint. Networks are always run in
evaluation mode and without gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from extracurricular import rng
from extracurricular.distributions import (
    Categorical,
    Distribution,
    Gaussian,
    Task,
    epistemic,
    mixture,
)
from extracurricular.samplers.base import Batch, soft_labels


@runtime_checkable
class Teacher(Protocol):
    """Anything that maps a batch to the teacher's predictive distribution on its examples."""

    def __call__(self, batch: Batch) -> Distribution:
        """Return the distribution for the B examples of ``batch``."""
        ...


@runtime_checkable
class HasMembers(Teacher, Protocol):
    """A teacher whose uncertainty has an epistemic part, because it has several members."""

    def members(self, batch: Batch) -> list[Distribution]:
        """Return each member's distribution for the B examples of ``batch``."""
        ...


@dataclass(frozen=True)
class LabelTeacher:
    """The labels as a teacher, so that training without one is matching too (ERM).

    Classes become the (possibly soft) label as a distribution, real targets a point mass.
    """

    def __call__(self, batch: Batch) -> Distribution:
        """Return the labels' distribution.

        Raises:
            ValueError: The examples have no labels.
        """
        if batch.y is None:
            raise ValueError(
                "the teacher is 'labels', but the sampler gives examples without labels"
            )
        if batch.classes is not None:
            return Categorical.from_probs(soft_labels(batch.y, batch.classes))
        return Gaussian.point(batch.y)


class NetworkTeacher:
    """One trained network.

    Args:
        module: Maps the inputs of a batch to raw outputs [B, task.outputs]. It is switched to
            evaluation mode, and back to it if something else switches it to training.
        task: How raw outputs are read.
    """

    def __init__(self, module: nn.Module, task: Task) -> None:
        self.module = module
        self.task = task

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Distribution:
        """Return the network's distribution."""
        if any(part.training for part in self.module.modules()):
            self.module.eval()
        return self.task.distribution(self.module(batch.x))


class EnsembleTeacher:
    """Several teachers as one: probabilities are averaged, Gaussian moments are matched.

    Args:
        teachers: One or more teachers of the same task.
    """

    def __init__(self, teachers: Sequence[Teacher]) -> None:
        if not teachers:
            raise ValueError("an ensemble needs at least one member")
        self.teachers = list(teachers)

    def members(self, batch: Batch) -> list[Distribution]:
        """Return each member's distribution."""
        return [teacher(batch) for teacher in self.teachers]

    def __call__(self, batch: Batch) -> Distribution:
        """Return the mixture's distribution."""
        return mixture(self.members(batch))


_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


class DropoutTeacher:
    """A network with dropout as an ensemble of thinned networks (Gal and Ghahramani 2016).

    Each pass has its own dropout masks, drawn once from (seed, pass, layer) and shared by all
    examples. So it is a function of the example, whatever batch that is in, as law 1 asks; the
    network itself stays in evaluation mode. Only dropout *layers* are seen, not calls of
    ``torch.nn.functional.dropout``.

    Args:
        module: A network with at least one active dropout layer.
        task: How raw outputs are read.
        passes: Number of thinned networks, at least 1.
        seed: Seed of the masks.

    Raises:
        ValueError: No dropout layer with a probability above 0, or passes < 1.
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
            layer = torch.tensor([number], device=output.device)
            draw = rng.uniform(self.seed, layer, f"mc_dropout.{name}", shape)
            # A layer that drops everything gives zeros, not 0/0.
            keep = (draw >= p).to(output.dtype) / max(1 - p, torch.finfo(torch.float32).tiny)
            return output * keep.view(1, *shape, *[1] * (output.ndim - 1 - len(shape)))

        return hook

    def __call__(self, batch: Batch) -> Distribution:
        """Return the mixture over the thinned networks."""
        return mixture(self.members(batch))


def epistemic_uncertainty(teacher: HasMembers, batch: Batch) -> Tensor:
    """Disagreement of a teacher's members: mutual information [B], or variance of means [B, D]."""
    return epistemic(teacher.members(batch))


# Short names, as they are used in Python and in the documentation.
Network = NetworkTeacher
Ensemble = EnsembleTeacher
Labels = LabelTeacher
MCDropout = DropoutTeacher
