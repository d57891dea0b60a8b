"""Draw a share of the examples from an extended sampler, and the others plainly.

The share may change from draw to draw: by a course that the recipe sets, or by the student's
mastery of the stored examples (``auto``; :mod:`extracurricular.training.mastery`). A draw stays a
pure function of its id, since plain and extended draws have ids of their own. The share decides
which ids are drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from extracurricular import rng
from extracurricular.inputs import Batch, is_static
from extracurricular.samplers.base import Sampler, Seeded, announce, looked_up
from extracurricular.samplers.blend import check_shapes, gathered, joined, masked
from extracurricular.samplers.moving import Moving, at, extremes


@dataclass(frozen=True)
class Share(Seeded):
    """Draw ``plain`` for even ids 2k and ``extended`` for odd ids 2k + 1, as their draw k.

    A training has a slot for each draw: slot s·B + i is the i-th draw of step s. The slot k takes
    the id 2k + 1 with a probability that is the share there, else 2k (:meth:`ids`).

    Args:
        plain: The sampler of plain draws.
        extended: The sampler of extended draws; inputs of the same shapes.
        of: The share, in [0, 1], which may move over the training; None for ``auto``.
        seed: Seed of the choice.
    """

    plain: Sampler
    extended: Sampler
    of: float | Moving | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.of is not None and not all(0 <= value <= 1 for value in extremes(self.of)):
            raise ValueError(f"of is {self.of}; it must be between 0 and 1")

    @property
    def asks(self) -> float:
        """How many times a teacher is asked for one draw, at most, on average."""
        return max(getattr(child, "asks", 0.0) for child in (self.plain, self.extended))

    def ids(self, slots: Tensor, share: Tensor | None = None) -> Tensor:
        """Return the ids that are drawn in some slots.

        Args:
            slots: Slots of a training, int64, [B].
            share: Share of extended draws at the step of each slot, float32, [B] or [1]; needed
                where it is ``auto``.
        """
        wanted = share if self.of is None else at(self.of, slots)
        assert wanted is not None
        number = rng.uniform(self.seed, slots, self.stream("choice"))
        return 2 * slots + (number < wanted).to(torch.int64)

    def announce(self, ids: Tensor) -> None:
        """Prepare for draws with these ids, which come soon."""
        for child, place in zip((self.plain, self.extended), _places(ids), strict=True):
            announce(child, ids[place] >> 1)

    def __call__(self, ids: Tensor) -> Batch:
        """Draw examples.

        In the masked selection both samplers make every draw, and one is kept.
        """
        children = {"plain": self.plain, "extended": self.extended}
        if is_static(ids) and self.capturable:
            parts = [child(ids >> 1) for child in children.values()]
            check_shapes(children, parts)
            return joined(ids, parts, masked(ids & 1))
        return gathered(children, ids, ids >> 1, _places(ids))

    def look_up(self, ids: Tensor, table: Callable[[Sampler], Tensor]) -> Tensor:
        """Return what tables of stored examples have of each draw's, [B, …]."""
        parts = [looked_up(child, ids >> 1, table) for child in (self.plain, self.extended)]
        return masked(ids & 1)(*parts)

    def one_sided(self, share: float) -> Share:
        """Return the same draws for a time in which the share is 0 or 1, at the cost of one side.

        Any other share returns this sampler itself.
        """
        if share not in (0.0, 1.0):
            return self
        return OneSided(self.plain, self.extended, self.of, self.seed, odd=share == 1.0)


@dataclass(frozen=True)
class OneSided(Share):
    """A share of which only one side is drawn, so that a masked selection makes no other draws.

    Args:
        odd: Whether that is the extended side.
    """

    odd: bool = False

    def __call__(self, ids: Tensor) -> Batch:
        """Draw examples, all of which have even ids, or with ``odd`` odd ones."""
        if not (is_static(ids) and self.capturable):
            return super().__call__(ids)
        child = self.extended if self.odd else self.plain
        return replace(child(ids >> 1), ids=ids)


@dataclass(frozen=True)
class Slots(Seeded):
    """The draws in the slots of a training, for a share that is known beforehand.

    Its ids are slots, so it can be recorded as any sampler. The examples are those of a training
    with the share.

    Args:
        child: The share, a number or one that moves; not ``auto``.
    """

    child: Share

    @property
    def seed(self) -> int:
        """The seed of the share."""
        return self.child.seed

    def announce(self, ids: Tensor) -> None:
        """Prepare for draws in these slots, which come soon."""
        announce(self.child, self.child.ids(ids))

    def __call__(self, ids: Tensor) -> Batch:
        """Draw examples."""
        return replace(self.child(self.child.ids(ids)), ids=ids)


@dataclass(frozen=True)
class Phases(Seeded):
    """Draw from one sampler for ids below ``edge``, and from another for the others.

    Both have the same form, so it passes for the later one where random streams are named.
    """

    early: Sampler
    late: Sampler
    edge: int

    @cached_property
    def depth(self) -> int:
        """The depth of the later sampler."""
        return int(getattr(self.late, "depth", 0))

    def announce(self, ids: Tensor) -> None:
        """Prepare for draws with these ids, which come soon."""
        announce(self.early, ids[ids < self.edge])
        announce(self.late, ids[ids >= self.edge])

    def __call__(self, ids: Tensor) -> Batch:
        """Draw examples."""
        before = ids < self.edge
        places = [before.nonzero().squeeze(1), (~before).nonzero().squeeze(1)]
        return gathered({"early": self.early, "late": self.late}, ids, ids, places)


def in_phases(early: Share, late: Share, edge: int) -> Share:
    """Return a share whose draws are those of ``early`` in slots below ``edge``, then of ``late``.

    Both have the same chains and seed, and draw from other examples.
    """
    return replace(
        late,
        plain=Phases(early.plain, late.plain, edge),
        extended=Phases(early.extended, late.extended, edge),
    )


def _places(ids: Tensor) -> list[Tensor]:
    odd = (ids & 1) == 1
    return [(~odd).nonzero().squeeze(1), odd.nonzero().squeeze(1)]
