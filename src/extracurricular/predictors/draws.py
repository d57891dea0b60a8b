"""The draws of a training with the teacher's answers on them, for a trainer of one's own.

A batch is a function of its number: the ids of its draws are, and a draw is a function of its id
(law 1). So a training that was interrupted goes on from the number of its step alone, and several
workers or devices share a training by taking different numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from extracurricular.data.base import Data
from extracurricular.data.images.stream import streamed
from extracurricular.distributions import Distribution
from extracurricular.errors import RecipeError, shorten
from extracurricular.inputs import Inputs, leaves, tree_map
from extracurricular.predictors.given import read_data, read_teacher
from extracurricular.run.workspace import sampler_seed
from extracurricular.samplers import Context, Sampler, build_sampler, is_pure
from extracurricular.samplers.base import announce, announced
from extracurricular.samplers.share import Share
from extracurricular.teachers import LabelTeacher, Teacher
from extracurricular.teachers.base import check_answer, on_draws
from extracurricular.training.arguments import check_sampler
from extracurricular.training.draw import draw, ids_in, step_ids

# Batches that are announced before they are drawn, to data that decode images ahead of time.
_AHEAD = 4


@dataclass(frozen=True)
class Drawn:
    """One batch: ``x, teacher, ids = batch``.

    Args:
        x: The inputs, float32, [B, ...], or a tuple or dict of such tensors.
        teacher: The teacher's distribution for these very inputs.
        ids: The ids of the draws, int64, [B].
        y: Labels where the draws have them, as :class:`~extracurricular.inputs.Batch` has them.
    """

    x: Inputs
    teacher: Distribution
    ids: Tensor
    y: Tensor | None = None

    def __iter__(self) -> Iterator[Any]:
        """Yield the inputs, the teacher's distribution, and the ids."""
        yield from (self.x, self.teacher, self.ids)

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.ids)

    def to(self, device: Any, non_blocking: bool = False) -> Drawn:
        """Return the batch on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Drawn:
        """Return the batch in pinned memory, from which a GPU copies faster."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Any) -> Drawn:
        y = None if self.y is None else change(self.y)
        return Drawn(tree_map(change, self.x), _each(self.teacher, change), change(self.ids), y)


def _each(thing: Distribution, change: Any) -> Distribution:
    """Return a distribution, which is a dataclass, with each of its tensors changed."""
    given = {field.name: getattr(thing, field.name) for field in fields(thing) if field.init}
    return replace(thing, **{k: change(v) for k, v in given.items() if isinstance(v, Tensor)})


class Draws(IterableDataset[Drawn]):
    """The batches of a training, each a function of its number; :func:`draws` makes them.

    One iteration is one training: it yields the batches from ``step``, 0 unless a state was loaded,
    to ``steps``. A ``DataLoader`` takes it with ``batch_size=None``; several workers take turns, so
    that the batches and their order stay. With several processes of ``torch.distributed``, each
    gets its slice of every batch.

    Args:
        sampler: The source of the examples, on ``device``.
        teacher: The teacher.
        batch_size: Examples a batch, over all processes.
        steps: Batches of the training.
        device: The device that makes the draws.
        data: The data set that they come from, for its scales; None where it is not known.
        rank, world: Number of this process, and of all; None to ask ``torch.distributed``.
    """

    def __init__(
        self,
        sampler: Sampler,
        teacher: Teacher,
        *,
        batch_size: int = 64,
        steps: int = 2000,
        device: torch.device | str = "cpu",
        data: Data | None = None,
        rank: int | None = None,
        world: int | None = None,
    ) -> None:
        super().__init__()
        self.sampler, self.teacher = sampler, on_draws(teacher, sampler)
        self.batch_size, self.steps = batch_size, steps
        self.device = torch.device(device)
        self.rank, self.world = rank, world
        self.data = data
        # The batch that comes next, and whether the next iteration begins there.
        self._position, self._loaded = 0, False

    def __len__(self) -> int:
        """Return the number of batches of a whole training."""
        return self.steps

    def batch(self, step: int) -> Drawn:
        """Return the batch of a step, in [0, steps), whatever was drawn before."""
        return self._drawn(self._slots(step))

    def __iter__(self) -> Iterator[Drawn]:
        """Yield the batches of this process and worker.

        Raises:
            RecipeError: Workers cannot make these draws.
            TrainingError: The teacher gave NaN or infinity.
        """
        worker, workers = self._worker()
        first = self._position = self._position if self._loaded else 0
        self._loaded = False
        turns = range(first + worker, self.steps, workers)
        slots = announced(self, map(self._slots, turns), _AHEAD if self.streams else 0)
        for step, some in zip(turns, slots, strict=True):
            found = self._drawn(some)
            # Each worker that begins there takes up its own turn.
            self._position = min(step - worker + workers, self.steps)
            yield found

    def state_dict(self) -> dict[str, int]:
        """Return the position: the number of the batch that comes next, and the size of batches."""
        return {"step": self._position, "batch_size": self.batch_size}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Let the next iteration begin at a position.

        Args:
            state: What :meth:`state_dict` gave; ``{"step": trainer.global_step}`` will do.

        Raises:
            RecipeError: It is no position of this training.
        """
        step = state.get("step")
        if not isinstance(step, int) or not 0 <= step <= self.steps:
            raise RecipeError(
                "step", f"is {shorten(step)}; it must be a whole number from 0 to {self.steps}"
            )
        size = state.get("batch_size", self.batch_size)
        if size != self.batch_size:
            raise RecipeError(
                "batch_size",
                f"is {self.batch_size}, but the state is of batches of {size}, which have other "
                f"draws; set it to {size}",
            )
        self._position, self._loaded = step, True

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for a worker process, which knows nothing of the other processes."""
        rank, world = self._place()
        return {**self.__dict__, "rank": rank, "world": world}

    @property
    def streams(self) -> bool:
        """Whether the images of the data are decoded as they are drawn."""
        if self.data is None:
            return False
        return any(streamed(leaf) is not None for leaf in leaves(self.data.train.x).values())

    def announce(self, slots: Tensor) -> None:
        """Prepare for the draws of some steps, which come soon."""
        announce(self.sampler, ids_in(self.sampler, slots, self.batch_size, None))

    def _slots(self, step: int) -> Tensor:
        rank, world = self._place()
        # On the CPU, where no announcement waits for a GPU.
        return step_ids(step, 1, self.batch_size, rank, world)

    def _drawn(self, slots: Tensor) -> Drawn:
        ids = ids_in(self.sampler, slots.to(self.device), self.batch_size, None)
        with torch.no_grad():
            batch, teacher = draw(self.sampler, self.teacher, ids, cast(Any, _InFull()))
        if not isinstance(self.teacher, LabelTeacher):
            check_answer(teacher, batch.ids)
        return Drawn(batch.x, teacher, batch.ids, batch.y)

    def _place(self) -> tuple[int, int]:
        if self.rank is not None and self.world is not None:
            return self.rank, self.world
        from torch import distributed

        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return 0, 1

    def _worker(self) -> tuple[int, int]:
        """Return the number of this worker of a loader, and of all."""
        info = get_worker_info()
        if info is None:
            return 0, 1
        reason = f"draws are made on {self.device}" if self.device.type != "cpu" else ""
        if self.streams:
            reason = "the data decode their images in processes of their own"
        if reason:
            raise RecipeError("num_workers", f"is {info.num_workers}, but {reason}; set it to 0")
        return info.id, info.num_workers


class _InFull:
    """Full precision, in place of a Fabric."""

    def autocast(self) -> AbstractContextManager[None]:
        return nullcontext()


def draws(
    data: Any,
    sampler: Any,
    teacher: Any,
    *,
    batch_size: int = 64,
    steps: int = 2000,
    seed: int = 0,
    raw: bool | None = None,
    device: torch.device | str = "cpu",
) -> Draws:
    """Return the draws of a training with the teacher's answers, for a trainer of one's own.

    They are the draws of ``xcl.distill`` with the same seed and batch size::

        for x, teacher, ids in xcl.draws((x, y), ["empirical", "mixup"], net):
            loss = xcl.matching(student(x), teacher, temperature=4)

    Args:
        data, teacher, raw: As :func:`extracurricular.distill` takes them. A module that is the
            teacher is moved to ``device`` and put into evaluation mode.
        sampler: Source of the examples: a chain as a recipe writes it, or a sampler.
        batch_size: Examples a batch, over all processes.
        steps: Batches of the training, over which a setting may follow a course.
        seed: Seed of everything random.
        device: The device that makes the draws, and on which they come.

    Raises:
        XclError: Something cannot be used; the message is one sentence.
    """
    for name, given in (("batch_size", batch_size), ("steps", steps)):
        if not isinstance(given, int) or given < 1:
            raise RecipeError(name, f"is {shorten(given)}; it must be a whole number of at least 1")
    read, _ = read_data(data)
    read = read.to(torch.device(device))
    asked = read_teacher(teacher, read, seed, raw)
    source = _sampler(sampler, read, asked, seed, steps * batch_size)
    return Draws(source, asked, batch_size=batch_size, steps=steps, device=device, data=read)


def _sampler(given: Any, data: Data, teacher: Teacher, seed: int, count: int) -> Sampler:
    """Return the sampler that a person gives.

    Raises:
        RecipeError: It is none, or its draws depend on a student in training.
    """
    found: Any = given
    if isinstance(given, str | dict | list):
        context = Context(teacher, draws=count)
        found = build_sampler(given, data, sampler_seed(seed), "sampler", context)
    check_sampler(found)
    if isinstance(found, Share) and found.of is None:
        raise RecipeError(
            "sampler", "has a share of 'auto', which follows what xcl.distill measures of the "
            "student in training; set of to a number, such as 0.5"
        )  # fmt: skip
    if not is_pure(found):
        raise RecipeError(
            "sampler", "chooses draws by the student in training, which only xcl.distill has; "
            "choose by the teacher's uncertainty alone"
        )  # fmt: skip
    source: Sampler = found
    on_draws(teacher, source)  # a teacher of stored answers may know none on its draws
    return source
