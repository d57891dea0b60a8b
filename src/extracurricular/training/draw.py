"""The examples of each step, with the teacher's distribution on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from extracurricular.distributions import Distribution
from extracurricular.inputs import Batch, leaves, obstacle, static_shapes
from extracurricular.samplers.base import Sampler, announce, announced, is_pure
from extracurricular.samplers.share import Share
from extracurricular.samplers.uncertain import Uncertain
from extracurricular.teachers.base import Faults, Teacher, check_answer
from extracurricular.teachers.networks import LabelTeacher
from extracurricular.training.settings import Training
from extracurricular.training.together import pass_on

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")

# Several steps are drawn at once, to pay the fixed cost of small operations once. This bounds the
# memory they take; students see the same examples whatever the bound. A CPU's is its cache.
_DRAW_BYTES = 2**21
_DRAW_BYTES_ON_DEVICE = 2**25
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
    parts: int = 1,
) -> Tensor:
    """Return the draw ids of one process for some steps, int64, [steps · B / world].

    The steps are [step, step + steps). Every step's ids are cut into ``world`` equal slices, so
    that all devices together see the examples that one device would see. Where gradients are
    accumulated, each of the ``parts`` is cut, so that all devices together work on the same part.
    They are made on ``device``, the CPU if None.

    Raises:
        ValueError: The batch cannot be cut into ``world`` equal slices of each part.
    """
    if batch_size % (world * parts):
        raise ValueError(
            f"batch_size is {batch_size}; it must be a multiple of {world * parts}, the {world} "
            "devices" + (f" times accumulate, {parts}" if parts > 1 else "")
        )
    ids = torch.arange(step * batch_size, (step + steps) * batch_size, device=device)
    return ids.view(steps * parts, world, -1)[:, rank].reshape(-1)


def ids_in(sampler: Sampler, slots: Tensor, batch_size: int, shares: Tensor | None) -> Tensor:
    """Return the ids that are drawn in some slots of a training, int64, [B].

    They are the slots themselves, unless the sampler has a share of draws with ids of their own.

    Args:
        sampler: The sampler.
        slots: Numbers of draws in the training, int64, [B].
        batch_size: Draws a step.
        shares: The share at each step; needed if the sampler has one that is ``auto``.
    """
    if not isinstance(sampler, Share):
        return slots
    if shares is None:
        return sampler.ids(slots)
    steps = torch.div(slots, batch_size, rounding_mode="floor")
    return sampler.ids(slots, shares.to(slots.device).index_select(0, steps))


def draw_steps(sampler: Sampler, batch_size: int, device: torch.device) -> int:
    """Return the number of steps to draw at once, within a bound on memory."""
    return _together_and_ahead(sampler, batch_size, device)[0]


def _together_and_ahead(sampler: Sampler, batch_size: int, device: torch.device) -> tuple[int, int]:
    """Return the steps to draw at once, and the steps by which draws are announced ahead."""
    example = sampler(torch.zeros(1, dtype=torch.int64, device=device))
    size = sum(leaf.numel() * leaf.element_size() for leaf in leaves(example.x).values())
    size = max(1, size * batch_size)
    most = _DRAW_BYTES if device.type == "cpu" else _DRAW_BYTES_ON_DEVICE
    together = max(1, min(_MAX_DRAW_STEPS, most // size))
    # A power of two, so that chunks end where a share of draws may change (every 16 steps).
    together = 1 << (together.bit_length() - 1)
    return together, max(together, min(_MAX_AHEAD, _AHEAD_BYTES // size))


@dataclass(frozen=True)
class Chunk:
    """The examples of some steps, with the teacher's distribution on them.

    Args:
        first: The first of the steps.
        batch: The examples of all steps, in order.
        target: The teacher's distribution on them.
    """

    first: int
    batch: Batch
    target: Distribution


@dataclass(frozen=True)
class Rhythm:
    """The cutting of a training's draws into chunks.

    It depends on the step alone, never on where a training was interrupted, so a resumed training
    meets the same numbers to the last bit.

    Args:
        together: Steps that are drawn at once.
        ahead: Steps by which draws are announced to a sampler that the host feeds.
        begin: The first step of the first chunk, at or before the step to start from.
        end: The step after the last.
    """

    together: int
    ahead: int
    begin: int
    end: int

    @classmethod
    def of(
        cls,
        sampler: Sampler,
        settings: Training,
        start: int,
        device: torch.device,
        end: int | None = None,
    ) -> Rhythm:
        """Return the rhythm of a training from step ``start`` to ``end``, its last where None."""
        # Draws that depend on the student must see it as it is at their own step.
        together, ahead = 1, 2
        if is_pure(sampler):
            together, ahead = _together_and_ahead(sampler, settings.batch_size, device)
        last = settings.steps if end is None else end
        return cls(together, ahead, start - start % together, last)

    @property
    def starts(self) -> range:
        """The first step of each chunk."""
        return range(self.begin, self.end, self.together)

    def length(self, first: int) -> int:
        """Return the number of steps of the chunk that begins with step ``first``."""
        return min(self.together, self.end - first)


def chunks(
    sampler: Sampler,
    teacher: Teacher,
    settings: Training,
    start: int,
    *,
    fabric: Fabric,
    faults: Faults | None = None,
    shared: Shared | None = None,
    shares: Tensor | None = None,
    end: int | None = None,
    whole: bool = False,
) -> Iterator[Chunk]:
    """Yield the draws of a training from the chunk of step ``start`` on; see :func:`draws`."""
    rhythm = Rhythm.of(sampler, settings, start, fabric.device, end)
    rank, world = (0, 1) if whole else (fabric.global_rank, fabric.world_size)
    # A sampler that a CUDA graph can hold has nothing to prepare, and its ids need no copy.
    fed = obstacle(sampler) is not None
    device = torch.device("cpu") if fed else fabric.device
    each: Iterator[Tensor] = (
        step_ids(
            first,
            rhythm.length(first),
            settings.batch_size,
            rank,
            world,
            device,
            settings.accumulate,
        )
        for first in rhythm.starts
    )
    to_ids = partial(ids_in, sampler, batch_size=settings.batch_size, shares=shares)
    # A share may change after its draws were announced, so the ids are found again when drawn.
    ahead = rhythm.ahead // rhythm.together
    drawn = announced(_Announced(sampler, to_ids), each, ahead) if fed else each
    # Checks of values are put off too, where they would wait for the device.
    deferred = faults is not None and fabric.device.type != "cpu"
    for first, slots in zip(rhythm.starts, drawn, strict=True):
        pass_on()
        ids = to_ids(slots)

        def make(first: int = first, ids: Tensor = ids) -> Chunk:
            with static_shapes() if deferred else nullcontext():
                return Chunk(first, *draw(sampler, teacher, ids.to(fabric.device), fabric))

        chunk = make() if shared is None or fed else shared.chunk(first, len(ids), make)
        # Labels are what they are; those of real targets have an infinite log variance.
        if not isinstance(teacher, LabelTeacher):
            if faults is None:
                check_answer(chunk.target, chunk.batch.ids)
            else:
                faults.add(chunk.target, chunk.batch.ids)
        yield chunk


@dataclass(frozen=True)
class _Announced:
    """Announces to a sampler the ids that are drawn in some slots."""

    sampler: Sampler
    to_ids: Callable[[Tensor], Tensor]

    def announce(self, slots: Tensor) -> None:
        announce(self.sampler, self.to_ids(slots))


def draws(
    sampler: Sampler,
    teacher: Teacher,
    settings: Training,
    start: int,
    *,
    fabric: Fabric,
    faults: Faults | None = None,
    shared: Shared | None = None,
    shares: Tensor | None = None,
    end: int | None = None,
    whole: bool = False,
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
        shared: The draws of a cohort, of which this training is one.
        shares: For a :class:`~extracurricular.samplers.share.Share` that is ``auto``: the share at
            each step, float32, [steps], on the device. It may change between chunks.
        end: The step after the last; that of the settings where None.
        whole: Whether this process draws the slices of all.

    Raises:
        TrainingError: The teacher gave NaN or infinity, and ``faults`` is None.
    """
    size = settings.batch_size // (1 if whole else fabric.world_size)
    for chunk in chunks(
        sampler, teacher, settings, start,
        fabric=fabric, faults=faults, shared=shared, shares=shares, end=end, whole=whole,
    ):  # fmt: skip
        for k in range(max(0, start - chunk.first), len(chunk.batch) // size):
            part = slice(k * size, (k + 1) * size)
            yield chunk.batch[part], chunk.target[part]


class Shared:
    """The newest draws of a cohort: trainings with the same sampler, seed, teacher and batch size.

    Whoever comes first draws and asks the teacher; the others find the chunk here. A training that
    is elsewhere draws for itself, since a draw is a function of its id, so the numbers are those of
    separate trainings in any case.
    """

    def __init__(self) -> None:
        self._newest: Chunk | None = None
        self._source: Any = None

    def chunk(self, first: int, count: int, make: Callable[[], Chunk]) -> Chunk:
        """Return the chunk of ``count`` draws from step ``first`` on; ``make`` draws it."""
        newest = self._newest
        if newest is None or newest.first != first or len(newest.batch) != count:
            newest = self._newest = make()
        return newest

    def source(self, make: Callable[[], T]) -> T:
        """Return the captured draws; ``make`` captures them."""
        if self._source is None:
            self._source = make()
        found: T = self._source
        return found


def draw(
    sampler: Sampler, teacher: Teacher, ids: Tensor, fabric: Fabric
) -> tuple[Batch, Distribution]:
    """Return the examples with these ids, and the teacher's distribution on them."""
    if isinstance(sampler, Uncertain) and sampler.teacher is teacher:
        # The sampler has asked the teacher about these very examples already, without autocast, so
        # that its choice depends on the teacher alone.
        choice = sampler.choose(ids)
        return choice.batch, choice.prediction
    batch = sampler(ids)
    with fabric.autocast():
        return batch.learned, teacher(batch.taught)
