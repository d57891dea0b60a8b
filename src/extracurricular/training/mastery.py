"""Mastery of the stored examples, and the share of extended draws that follows it.

Mastery is m = 1 - KL on drawn examples / KL on held-out ones, both of the teacher from the student.
It is about 0 while the student does alike on both, so that plain draws still teach it all they can,
and nears 1 where it knows the drawn examples by heart. The held-out examples are some that the
teacher was trained on; on examples new to the teacher, m would read low.

The rule of ``share: auto`` is our choice. Extended draws pay where the student masters the stored
examples early, with most of its training still to come. So some examples are kept out for the first
part of the training alone, in which m less its standard error sets the share; then they are drawn
like the others, and the share stays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from extracurricular import rng
from extracurricular.data.base import Data
from extracurricular.distributions import Distribution, Task, concatenate
from extracurricular.inputs import Batch, leaves
from extracurricular.matching import forward_kl
from extracurricular.samplers.base import Sampler
from extracurricular.samplers.build import Context, build_sampler, share_is_auto
from extracurricular.teachers.base import Teacher, on_split
from extracurricular.training.settings import Training

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# The rule: share 0 up to LOW, 1 from HIGH on, measured in the first part UNTIL of the training.
# Chosen on digits, concrete, energy and kin8nm (docs/method.md says how).
LOW, HIGH, UNTIL = 0.10, 0.25, 0.3
# Standard errors that are taken off the mastery first: a few held-out rows that are hard by chance
# look like mastery.
MARGIN = 1.0
# Part of the previous value that a new measurement keeps.
KEEP = 0.5
# Shares are multiples of this, so that rounding on another device does not move draws.
GRAIN = 64
# Part of the training examples that the rule keeps out: many, since they soon come back.
EARLY = 0.2
# Part that is kept out to judge candidates.
HELD_OUT = 0.1
# A KL over so many examples is exact enough, and more would cost time.
MOST = 512
# Measurements come at multiples of so many steps; chunks of draws never go across these.
STRIDE = 16

_BATCH = 256


def share_of(mastery: float) -> float:
    """Return the share of extended draws for a mastery, a multiple of 1/64 in [0, 1]."""
    part = (mastery - LOW) / (HIGH - LOW)
    return round(min(1.0, max(0.0, part)) * GRAIN) / GRAIN


def held_out_rows(count: int, part: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the numbers of the training examples that are kept out, and of those that are drawn.

    Args:
        count: Number of training examples, N.
        part: Part of them to keep out, in (0, 1); at most 512 examples.
        seed: Seed of the choice.

    Returns:
        Two int64 tensors, sorted, which together are 0 to N - 1.

    Raises:
        ValueError: There are too few examples to keep some out.
    """
    wanted = min(MOST, max(1, round(part * count)))
    if wanted >= count:
        raise ValueError(
            f"is {part:g}, which keeps out {wanted} of {count} training examples; "
            "some must be left to draw"
        )
    order = rng.permuted(count, seed, torch.arange(count), "mastery")
    return order[:wanted].sort().values, order[wanted:].sort().values


def kept_out(data: Data, part: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return :func:`held_out_rows` of the training examples that a data set's samplers draw."""
    if data.drawn is None:
        return held_out_rows(len(data.train), part, seed)
    out, rest = held_out_rows(len(data.drawn), part, seed)
    rows = data.drawn.cpu()
    return rows[out], rows[rest]


def drawing(data: Data, rows: Tensor) -> Data:
    """Return a data set whose samplers draw only some of the training examples."""
    first = next(iter(leaves(data.train.x).values()))
    return replace(data, drawn=rows.to(first.device))


@dataclass(frozen=True)
class Known:
    """Some examples, and the teacher's distribution on them."""

    batch: Batch
    target: Distribution


class Mastery:
    """Measures the mastery of a student in training, and sets the share of extended draws.

    Args:
        early: Sampler without the held-out examples, for the first part of the training.
        held_out, drawn: Examples that ``early`` never draws, and some that it draws.
        temperature: Temperature of the KL, as in the loss.
        steps: Steps of the training.
        sets_share: Whether the share follows (``share: auto``), in the first 30 % of the training.
        until: The step up to which the held-out examples are kept out, and mastery is measured, a
            multiple of ``every``; where None, that of the share, or to the end.

    Attributes:
        every: Steps between two measurements.
    """

    def __init__(
        self,
        early: Sampler,
        held_out: Known,
        drawn: Known,
        temperature: float,
        steps: int,
        sets_share: bool = True,
        until: int | None = None,
    ) -> None:
        self.early, self.held_out, self.drawn = early, held_out, drawn
        self.temperature, self.sets_share = temperature, sets_share
        self.every = stride(steps)
        self._share_until = int(UNTIL * steps) // self.every * self.every if sets_share else 0
        self.until = until or self._share_until or steps
        self.mastery, self.share = 0.0, 0.0
        self.last: dict[str, float] | None = None

    def is_due(self, step: int) -> bool:
        """Return whether mastery is measured after ``step`` steps."""
        return step % self.every == 0 and step <= self.until

    def measure(
        self, student: nn.Module, task: Task, fabric: Fabric, step: int
    ) -> dict[str, float]:
        """Measure the student, which is in evaluation mode, after a number of steps.

        Returns:
            ``drawn`` and ``held_out``, the mean KL(teacher ‖ student) on both in nats; ``mastery``,
            smoothed; ``se``, its standard error; and ``share``, if it follows.
        """
        kl = {
            name: mismatches(known, student, task, fabric, self.temperature)
            for name, known in (("drawn", self.drawn), ("held_out", self.held_out))
        }
        found = {name: float(values.mean()) for name, values in kl.items()}
        now, error = mastery_with_error(kl["drawn"], kl["held_out"])
        self.mastery = KEEP * self.mastery + (1 - KEEP) * now
        found |= {"mastery": self.mastery, "se": error}
        if self.sets_share:
            if step <= self._share_until:
                self.share = share_of(self.mastery - MARGIN * error)
            found["share"] = self.share
        self.last = {name: round(value, 6) for name, value in found.items()}
        return self.last

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {"mastery": self.mastery, "share": self.share, "last": self.last}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over the state of a checkpoint."""
        self.mastery, self.share, self.last = state["mastery"], state["share"], state["last"]


def mastery_with_error(drawn: Tensor, held_out: Tensor) -> tuple[float, float]:
    """Return the mastery m and its standard error, from the KL of each example.

    The error is that of a ratio of two independent means, to first order (the delta method). It
    is about other held-out and drawn examples for the same student.

    Args:
        drawn, held_out: KL(teacher ‖ student) of each example, in nats, float64, [N] and [M].

    Returns:
        m in [-1, 1], and the error in [0, 1]; 1, which says nothing, for fewer than two examples.
    """
    ratio = float(drawn.mean()) / max(float(held_out.mean()), 1e-12)
    mastery = min(1.0, max(-1.0, 1 - ratio))
    if min(len(drawn), len(held_out)) < 2:
        return mastery, 1.0
    parts = [
        float(kl.var()) / len(kl) / max(float(kl.mean()), 1e-12) ** 2 for kl in (drawn, held_out)
    ]
    return mastery, min(1.0, ratio * math.sqrt(sum(parts)))


def stride(steps: int) -> int:
    """Return the number of steps between two measurements in a training of so many steps."""
    return STRIDE * max(1, round(steps / 40 / STRIDE))


def mismatch(
    known: Known, student: nn.Module, task: Task, fabric: Fabric, temperature: float = 1.0
) -> float:
    """Return the mean of :func:`mismatches`."""
    return float(mismatches(known, student, task, fabric, temperature).mean())


@torch.no_grad()
def mismatches(
    known: Known, student: nn.Module, task: Task, fabric: Fabric, temperature: float = 1.0
) -> Tensor:
    """Return KL(teacher ‖ student) of each example in nats, float64, [N], on the CPU.

    Args:
        known: The examples, and the teacher's distribution on them.
        student: The student, in evaluation mode.
        task: How its raw outputs are read.
        fabric: Device and precision.
        temperature: Temperature of both sides.
    """
    with fabric.autocast():
        parts = [
            task.distribution(student(known.batch[k : k + _BATCH].x))
            for k in range(0, len(known.batch), _BATCH)
        ]
    said, wanted = concatenate(parts), known.target
    kl = forward_kl(wanted.tempered(temperature), said.tempered(temperature))
    return kl.double().cpu()


def mastery_of(
    chain: Any,
    data: Data,
    teacher: Teacher,
    settings: Training,
    fabric: Fabric,
    *,
    seed: int,
    temperature: float = 1.0,
    part: float | None = None,
    until: int | None = None,
    context: Context | None = None,
) -> Mastery | None:
    """Return what measures the mastery of a student, where its draws or its recipe ask for that.

    Args:
        chain: The chain of the student's sampler, as a recipe writes it.
        data: The data set, on the device.
        teacher: The teacher that the student learns from.
        settings: The training.
        fabric: Device and precision.
        seed: Seed of the student's sampler.
        temperature: Temperature of the loss.
        part: Part of the training examples to keep out, in (0, 1); None for a fifth, if the share
            is ``auto``, and else to measure nothing.
        until: As :class:`Mastery` takes it.
        context: Teacher, student and generators, where the chain needs them.

    Raises:
        ValueError: There are too few examples.
    """
    auto = share_is_auto(chain)
    if part is None and not auto:
        return None
    out, drawn = kept_out(data, EARLY if part is None else part, seed)
    early = build_sampler(chain, drawing(data, drawn), seed, context=context or Context())
    order = rng.permuted(len(drawn), seed, torch.arange(min(MOST, len(drawn))), "mastery.drawn")
    return Mastery(
        early,
        known(data, out, teacher, fabric),
        known(data, drawn[order].sort().values, teacher, fabric),
        temperature,
        settings.steps,
        sets_share=auto,
        until=until,
    )


@torch.no_grad()
def known(data: Data, rows: Tensor, teacher: Teacher, fabric: Fabric) -> Known:
    """Ask a teacher about some training examples.

    Args:
        data: The data set, on the device.
        rows: Numbers of the examples, int64, [N], on the CPU.
        teacher: The teacher.
        fabric: Device and precision.
    """
    split = data.train[rows.to(fabric.device)]
    batch = Batch(rows.to(fabric.device), data.inputs(split.x))
    teacher = on_split(teacher, "train")
    with fabric.autocast():
        parts = [teacher(batch[k : k + _BATCH]) for k in range(0, len(batch), _BATCH)]
    return Known(batch, concatenate(parts))
