"""Steps that are captured once and replayed, so that Python launches no operation of its own.

There are two graphs. One makes the draws of several steps, with the teacher's answers, from a draw
counter on the device, and puts them into buffers. The other takes the examples of one step from
the buffers and trains the student on them: forward, loss, backward, optimiser, moving average. So
checkpoints, lines of the log and interruptions may fall between any two steps. Where a sampler or
a teacher cannot be captured, its draws are made as ever and copied into the buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from extracurricular.distributions import Distribution, reader_of
from extracurricular.inputs import Batch, Inputs, leaves, obstacle, static_shapes, tree_map
from extracurricular.matching import Matching
from extracurricular.samplers.base import Sampler
from extracurricular.teachers.base import Teacher
from extracurricular.teachers.networks import LabelTeacher
from extracurricular.training.draw import Chunk, Rhythm, Shared, chunks, draw, ids_in
from extracurricular.training.graphs import Graph
from extracurricular.training.steps import Kept, Steps
from extracurricular.training.together import pass_on

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def step_obstacle(student: nn.Module, matching: Matching, fabric: Fabric) -> str | None:
    """Return the reason why a student's steps cannot be captured, as a clause; None if they can.

    A module of your own says so by ``capturable = False``, or by ``obstacle``, which is a clause.
    """
    if fabric.world_size > 1:
        return "several processes exchange gradients"
    if getattr(fabric.strategy.precision, "scaler", None) is not None:
        return "the gradient scaling of 16-mixed reads a value at each step"
    for name, part in student.named_modules():
        said = getattr(part, "obstacle", None)
        if said is None and getattr(part, "capturable", True) is False:
            said = f"{type(part).__name__} says that it is not capturable"
        if said is not None:
            return f"{name or 'the student'}: {said}"
    return matching.obstacle


def draw_obstacle(sampler: Sampler, teacher: Teacher) -> str | None:
    """Return the reason why draws and answers cannot be captured, as a clause; None if they can."""
    return obstacle(sampler) or obstacle(teacher)


class Captured:
    """The draws and steps of one training as graphs.

    Args:
        steps: The training.
        sampler, teacher: Its source of examples, and of answers on them.
        start: The first step.
        new_graph: Makes an empty graph.
        shared: The draws of a cohort, of which this training is one.
        shares, end: As :func:`~extracurricular.training.draw.draws` takes them.

    Raises:
        RuntimeError: The device refuses to capture the steps. The training is as it was.
    """

    def __init__(
        self,
        steps: Steps,
        sampler: Sampler,
        teacher: Teacher,
        start: int,
        new_graph: Callable[[], Graph],
        shared: Shared | None = None,
        shares: Tensor | None = None,
        end: int | None = None,
    ) -> None:
        self.steps, self.start = steps, start
        self.rhythm = Rhythm.of(sampler, steps.settings, start, steps.fabric.device, end)
        self.source: _Fed | Drawn
        if draw_obstacle(sampler, teacher) is not None:
            self.source = _Fed(steps, sampler, teacher, start, self.rhythm, shared, shares)
        else:

            def make() -> Drawn:
                return Drawn(steps, sampler, teacher, self.rhythm, new_graph, shares)

            self.source = make() if shared is None else shared.source(make)
            steps.faults = self.source.faults
        self.place = torch.zeros(1, dtype=torch.int64, device=steps.fabric.device)
        self.loss = torch.zeros((), device=steps.fabric.device)
        self.graph = new_graph()
        before = Kept(steps)
        try:
            self.graph.capture(self._body)
        finally:
            before.put_back()
            steps.seek(start)

    def _body(self) -> None:
        steps = self.steps
        # A run before the capture must not go beyond the last step.
        batch, target = self.source.slots.take(self.place)
        self.loss.copy_(steps.learn(batch, target))
        self.place.add_(1).remainder_(self.rhythm.together)

    def losses(self) -> Iterator[Tensor]:
        """Do the steps from ``start`` on, and yield the loss of each."""
        for first in self.rhythm.starts:
            self.source.fill(first, self.rhythm.length(first))
            begin = max(first, self.start)
            self.place.fill_(begin - first)
            for step in range(begin, first + self.rhythm.length(first)):
                self.steps.seed_step(step)
                self.graph.replay()
                yield self.loss.clone()


class Slots:
    """Buffers of fixed addresses for the examples of several steps.

    Args:
        batch, target: Examples and answers of the kind that they hold.
        steps: Number of steps, T.
        size: Examples a step, B.
        images: Whether images [B, C, H, W] are kept in channels last.
    """

    def __init__(
        self, batch: Batch, target: Distribution, steps: int, size: int, images: bool
    ) -> None:
        self.read, self.size = reader_of(target), size
        self.classes, self.binary = batch.classes, batch.binary
        self._form: Inputs = batch.x
        self._last = {name for name, leaf in leaves(batch.x).items() if images and leaf.ndim == 4}
        self._kept = {
            name: torch.zeros(steps, size, *value.shape[1:], dtype=value.dtype, device=value.device)
            for name, value in self._flat(batch, target).items()
        }

    def _flat(self, batch: Batch, target: Distribution) -> dict[str, Tensor]:
        flat = {f"x.{name}": leaf for name, leaf in leaves(batch.x).items()}
        for name in self._last:
            flat[f"x.{name}"] = flat[f"x.{name}"].permute(0, 2, 3, 1)
        flat |= {"ids": batch.ids, "target": target.parameters}
        flat |= {} if batch.y is None else {"y": batch.y}
        return flat | ({} if batch.weight is None else {"weight": batch.weight})

    def fill(self, batch: Batch, target: Distribution) -> None:
        """Put in the examples and answers of some steps, from the first slot on."""
        for name, value in self._flat(batch, target).items():
            kept = self._kept[name]
            kept.view(-1, *kept.shape[2:])[: len(value)].copy_(value)

    def take(self, place: Tensor) -> tuple[Batch, Distribution]:
        """Return the examples and answers of the step in slot ``place``, int64, [1]."""
        # An index without dimensions would be read by the host.
        flat = {name: kept.index_select(0, place)[0] for name, kept in self._kept.items()}
        for name in self._last:
            flat[f"x.{name}"] = flat[f"x.{name}"].permute(0, 3, 1, 2)
        names = iter(leaves(self._form))
        x = tree_map(lambda _: flat[f"x.{next(names)}"], self._form)
        y, weight = flat.get("y"), flat.get("weight")
        batch = Batch(flat["ids"], x, y, self.classes, weight, self.binary)
        return batch, self.read(flat["target"])


class Drawn:
    """Draws and answers that a graph makes.

    Args:
        steps: The training; of a cohort, the first.
        sampler, teacher: Its source of examples, and of answers on them.
        rhythm: The chunks.
        new_graph: Makes an empty graph.
        shares: As :func:`~extracurricular.training.draw.draws` takes them.
    """

    def __init__(
        self,
        steps: Steps,
        sampler: Sampler,
        teacher: Teacher,
        rhythm: Rhythm,
        new_graph: Callable[[], Graph],
        shares: Tensor | None = None,
    ) -> None:
        self.shares = shares
        self.fabric, self.sampler, self.teacher = steps.fabric, sampler, teacher
        self.faults, self.size = steps.faults, steps.settings.batch_size
        self.together = rhythm.together
        device = steps.fabric.device
        self.ids = torch.arange(rhythm.together * self.size, device=device)
        self.counter = torch.zeros(1, dtype=torch.int64, device=device)
        self.counter.fill_(rhythm.begin * self.size)
        batch, target = self._draw(self.counter + self.ids)
        self.slots = Slots(batch, target, rhythm.together, self.size, steps.images)
        self.graph = new_graph()
        self._held: tuple[int, int] | None = None
        try:
            self.graph.capture(lambda: self._fill(self.ids))
        finally:
            self.faults.clear()

    def fill(self, first: int, count: int) -> None:
        """Fill the slots with the draws of ``count`` steps from step ``first`` on."""
        pass_on()
        if self._held == (first, count):
            return
        self.counter.fill_(first * self.size)
        if count == self.together:
            self.graph.replay()
        else:
            # The last chunk, which is shorter: its draws are made as they are without a graph.
            self._fill(self.ids[: count * self.size])
        self._held = (first, count)

    def _fill(self, ids: Tensor) -> None:
        batch, target = self._draw(self.counter + ids)
        if not isinstance(self.teacher, LabelTeacher):
            self.faults.add(target, batch.ids)
        self.slots.fill(batch, target)

    def _draw(self, slots: Tensor) -> tuple[Batch, Distribution]:
        with static_shapes():
            ids = ids_in(self.sampler, slots, self.size, self.shares)
            return draw(self.sampler, self.teacher, ids, self.fabric)


class _Fed:
    """Draws and answers that Python makes and copies into the slots."""

    def __init__(
        self,
        steps: Steps,
        sampler: Sampler,
        teacher: Teacher,
        start: int,
        rhythm: Rhythm,
        shared: Shared | None,
        shares: Tensor | None,
    ) -> None:
        self._chunks = chunks(
            sampler, teacher, steps.settings, start, fabric=steps.fabric, faults=steps.faults,
            shared=shared, shares=shares, end=rhythm.end,
        )  # fmt: skip
        first = next(self._chunks)
        size = steps.settings.batch_size
        self.slots = Slots(first.batch, first.target, rhythm.together, size, steps.images)
        self.slots.fill(first.batch, first.target)
        self._waiting: Chunk | None = first

    def fill(self, first: int, count: int) -> None:
        """Fill the slots with the next chunk, which has ``count`` steps from step ``first`` on."""
        chunk = self._waiting or next(self._chunks)
        self._waiting = None
        assert (chunk.first, len(chunk.batch)) == (first, count * self.slots.size)
        self.slots.fill(chunk.batch, chunk.target)
