"""A setting of a sampler that changes over the draws of a training.

A draw stays a pure function of its id: the id says where in the training the draw stands. An id
below the number of draws is the number of a draw. A sampler that hashes ids for its child, as
mixup does for partners, keeps the place of the draw in the hashed id (:func:`placed`), so that the
child meets the course where its parent does.

Places are whole numbers, and the values at them are a table made on the CPU. So the rounding of a
device moves no draw.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from extracurricular.matching.course import Course, ends

PLACES = 1024
"""Places of a training at which a setting can change."""

# A hashed id that keeps its place has bit 62, the place in bits 52 to 61, and the hash below.
_HASHED, _SHIFT = 1 << 62, 52


def places(ids: Tensor, draws: int) -> Tensor:
    """Return the places of draws in a training, from 0, the first draw, to 1023, the last.

    Args:
        ids: Draw ids, int64, [B]; those beyond the last draw stand where the last does.
        draws: Draws in the training, below 2^52.
    """
    last = max(1, draws - 1)
    direct = torch.div(ids.clamp(0, last) * (PLACES - 1), last, rounding_mode="floor")
    return torch.where(ids < _HASHED, direct, (ids >> _SHIFT) & (PLACES - 1))


def placed(hashed: Tensor, ids: Tensor, draws: int) -> Tensor:
    """Return hashed ids that stand in the training where ``ids`` do, int64, [B]."""
    kept = hashed & ((1 << _SHIFT) - 1)
    return kept | (places(ids, draws) << _SHIFT) | _HASHED


class Table:
    """Numbers at the places of a training, which are copied to a device at the first draw there.

    Args:
        values: One number for each place, or a row of them, on the CPU.
    """

    def __init__(self, values: list[float] | Tensor) -> None:
        made = values if isinstance(values, Tensor) else torch.tensor(values, dtype=torch.float64)
        self._on = {torch.device("cpu"): made.float()}

    def at(self, ids: Tensor, draws: int) -> Tensor:
        """Return the numbers of some draws, float32, [B] or [B, K]."""
        table = self._on.get(ids.device)
        if table is None:
            table = self._on[ids.device] = self._on[torch.device("cpu")].to(ids.device)
        return table.index_select(0, places(ids, draws))


@dataclass(frozen=True)
class Moving:
    """A number that follows a course over the draws of a training.

    Args:
        course: The course.
        draws: Draws in the training, at least 1.
    """

    course: Course
    draws: int

    @cached_property
    def values(self) -> list[float]:
        """The number at each place of the training."""
        return self.course.values(PLACES)

    @cached_property
    def _table(self) -> Table:
        return Table(self.values)

    def at(self, ids: Tensor) -> Tensor:
        """Return the number of each draw, float32, [B]."""
        return self._table.at(ids, self.draws)

    def __str__(self) -> str:
        return str(self.course)


def at(value: float | Moving, ids: Tensor) -> float | Tensor:
    """Return a setting at some draws: the number, or one for each, float32, [B]."""
    return value.at(ids) if isinstance(value, Moving) else value


def mean(value: float | Moving) -> float:
    """Return the mean of a setting over the training."""
    return sum(value.values) / PLACES if isinstance(value, Moving) else value


def extremes(value: float | Moving) -> tuple[float, ...]:
    """Return the first and the last value of a setting, between which all others lie."""
    return ends(value.course if isinstance(value, Moving) else value)
