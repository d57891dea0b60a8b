"""The examples of each step, with the teacher's distribution on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from extracurricular.distributions import Distribution
from extracurricular.inputs import Batch, leaves, obstacle, static_shapes
from extracurricular.samplers.base import Sampler, announced, is_pure
from extracurricular.samplers.uncertain import Uncertain
from extracurricular.teachers.base import Faults, Teacher, check_answer
from extracurricular.teachers.networks import LabelTeacher
from extracurricular.training.settings import Training

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# Several steps are drawn at once, to pay the fixed cost of small operations once. This bounds the
# memory they take; students see the same examples whatever the bound.
_DRAW_BYTES = 2 * 2**20
_MAX_DRAW_STEPS = 16
# Draws are announced to the sampler ahead of time, up to these limits: bytes of network inputs,
# which take four times the space of image bytes, and steps.
_AHEAD_BYTES = 2**29
_MAX_AHEAD = 64


def step_ids(
    step: int,
    steps: int,
    batch_size: int,
    rank: int = 0,
    world: int = 1,
    device: torch.device | None = None,
) -> Tensor:
    """Return the draw ids of one process for some steps, int64, [steps · B / world].

    The steps are [step, step + steps). Every step's ids are cut into ``world`` equal slices, so
    that all devices together see the examples that one device would see. They are made on
    ``device``, the CPU if None.

    Raises:
        ValueError: The batch cannot be cut into ``world`` equal slices.
    """
    if batch_size % world:
        raise ValueError(
            f"batch_size is {batch_size}; it must be a multiple of the {world} devices"
        )
    ids = torch.arange(step * batch_size, (step + steps) * batch_size, device=device)
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
    faults: Faults | None = None,
) -> Iterator[tuple[Batch, Distribution]]:
    """Yield the examples of each step from ``start`` on, with the teacher's distribution on them.

    Several steps are drawn at once. The grouping depends on the step alone, never on where a
    training was interrupted, so a resumed training meets the same numbers to the last bit. Draws
    are announced some steps ahead to a sampler that the host feeds, so that it may prepare them.

    Args:
        sampler, teacher, settings: As :func:`train` takes them.
        start: The first step.
        fabric: Device, precision and processes.
        faults: Takes note of answers with NaN or infinity, which nobody then waits for. If None,
            each answer is checked at once.

    Raises:
        TrainingError: The teacher gave NaN or infinity, and ``faults`` is None.
    """
    # Draws that depend on the student must see it as it is at their own step.
    together, ahead = 1, 2
    if is_pure(sampler):
        together, ahead = _together_and_ahead(sampler, settings.batch_size, fabric.device)
    begin = start - start % together
    rank, world, end = fabric.global_rank, fabric.world_size, settings.steps
    # A sampler that a CUDA graph can hold has nothing to prepare, and its ids need no copy.
    fed = obstacle(sampler) is not None
    device = torch.device("cpu") if fed else fabric.device
    chunks: Iterator[Tensor] = (
        step_ids(first, min(together, end - first), settings.batch_size, rank, world, device)
        for first in range(begin, end, together)
    )
    size = settings.batch_size // world
    drawn = announced(sampler, chunks, ahead // together) if fed else chunks
    # Checks of values are put off too, where they would wait for the device.
    deferred = faults is not None and fabric.device.type != "cpu"
    for first, ids in zip(range(begin, end, together), drawn, strict=True):
        with static_shapes() if deferred else nullcontext():
            batch, target = _draw(sampler, teacher, ids.to(fabric.device), fabric)
        # Labels are what they are; those of real targets have an infinite log variance.
        if not isinstance(teacher, LabelTeacher):
            if faults is None:
                check_answer(target, batch.ids)
            else:
                faults.add(target, batch.ids)
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
