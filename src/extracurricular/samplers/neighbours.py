"""Draw rows between a table's row and one of its nearest neighbours."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from extracurricular import rng
from extracurricular.data.base import Data
from extracurricular.generators.columns import structured
from extracurricular.inputs import Batch
from extracurricular.samplers.base import SAMPLERS, Seeded
from extracurricular.samplers.stored import Empirical
from extracurricular.samplers.table_columns import (
    Grid,
    column_groups,
    distance_weights,
    grid,
    table_rows,
)

# Distances that are held at once, 128 MiB of them.
_AT_ONCE = 2**24
# The latest searches. A run builds its samplers to check, to train and to report.
_KEPT = 4
_found: dict[tuple[str, int, str], Tensor] = {}


def nearest(points: Tensor, count: int) -> Tensor:
    """Return the numbers of the ``count`` nearest other points, nearest first, int64, [N, count].

    The distance is Euclid's, in float64. The work grows with N², the memory with N.

    Args:
        points: [N, D], more than ``count`` of them.
        count: Neighbours of each.
    """
    # Of the devices, mps has no float64.
    points = points.float() if points.device.type == "mps" else points.double()
    norms = points.square().sum(1)
    found = []
    for start in range(0, len(points), max(1, _AT_ONCE // len(points))):
        part = points[start : start + max(1, _AT_ONCE // len(points))]
        # Less |a|², which orders nothing.
        distance = torch.addmm(norms, part, points.T, alpha=-2)
        own = torch.arange(len(part), device=points.device)
        distance[own, own + start] = torch.inf
        found.append(distance.topk(count, largest=False).indices)
    return torch.cat(found)


def remembered(points: Tensor, count: int) -> Tensor:
    """Return :func:`nearest`, without another search where these points were searched before."""
    content = hashlib.sha256(points.cpu().contiguous().numpy().tobytes()).hexdigest()
    key = (content, count, str(points.device))
    if key not in _found:
        _found[key] = nearest(points, count)
        for old in list(_found)[:-_KEPT]:
            del _found[old]
    return _found[key]


def between(own: Tensor, other: Tensor, taken: Tensor, noise: Tensor, s: float, at: Grid) -> Tensor:
    """Return rows whose inputs are their own or drawn about another row's, [B, D].

    Args:
        own, other: The rows and their neighbours, in raw units, [B, D].
        taken: Whether an input is drawn about the other's, bool, [B, D].
        noise: Standard normal numbers, [B, D].
        s: Such a draw has the deviation |own - other| / s.
        at: The values that the inputs may have.
    """
    drawn = at.put(other + noise * (own - other).abs() / s)
    whole = at.choice | (own == at.atom) | (other == at.atom)
    return torch.where(taken, torch.where(whole, other, drawn), own)


@SAMPLERS.register("neighbours")
@dataclass(frozen=True)
class Neighbours(Seeded):
    """Draw rows between each training row and a near one (MUNGE).

    Rows come in the order of :class:`~extracurricular.samplers.Empirical` with the same seed. With
    probability ``p`` a column of a row is drawn about its neighbour's value: a number from the
    normal distribution whose mean is the neighbour's value b and whose deviation is |a - b| / s,
    where a is the row's own; a category is the neighbour's (Bucila, Caruana and Niculescu-Mizil
    2006, "Model compression"). The paper changes all rows in place, and again and
    again; here each draw starts from a stored row, so that it is a function of its id.

    Four choices are ours. Numbers stay within the training rows' range. A column whose training
    values all lie on a grid (whole numbers, hundredths) stays on it. A column with at most 20
    values, or one that becomes several inputs, takes the neighbour's value as it is. So does any
    column where one of the two has a value that 5 % of the rows share, such as the 0 of an additive
    that many mixtures lack.

    The distance counts 1 for categories that differ, and scales other columns to [0, 1]. Neighbours
    are sought once, among the rows that are drawn; the time grows with the square of their number.
    A row keeps its own label, as under ``noise``.

    Args:
        data: A table, on the device where batches are wanted.
        p: Probability that a column is drawn about the neighbour's value, in [0, 1].
        s: Numbers are drawn with the deviation |a - b| / s, above 0: the greater, the nearer to b.
        count: Each draw takes one of this many nearest rows, at least 1; the paper takes 1.
        seed: Seed of orders, neighbours and values.

    Raises:
        ValueError: A setting is out of its range, or the data have images or too few rows.
    """

    data: Data
    p: float = 0.5
    s: float = 2.0
    count: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings, and seek the neighbours."""
        if not 0 <= self.p <= 1:
            raise ValueError(f"p is {self.p}; it must be a probability between 0 and 1")
        if not self.s > 0:
            raise ValueError(f"s is {self.s}; it must be greater than 0")
        rows = len(self.data.train) if self.data.drawn is None else len(self.data.drawn)
        if not 1 <= self.count < rows:
            raise ValueError(
                f"count is {self.count}; it must be at least 1 and less than the number of "
                f"training rows, {rows}"
            )
        _ = self._near, self._grid, self._columns  # seeking asks the device, which no draw may

    @cached_property
    def _stored(self) -> Empirical:
        return Empirical(self.data, self.seed)

    @cached_property
    def _rows(self) -> Tensor:
        return table_rows(self.data, "neighbours")

    @cached_property
    def _groups(self) -> Tensor:
        return column_groups(self.data, self._rows)

    @cached_property
    def _columns(self) -> int:
        return int(self._groups.max()) + 1

    @cached_property
    def _grid(self) -> Grid:
        return grid(self._rows, self._groups)

    @cached_property
    def _near(self) -> Tensor:
        """Numbers of the nearest rows of each training row, int64, [N, count]."""
        drawn, rows = self.data.drawn, self._rows
        # Less the least value, so that the squares keep their digits.
        points = (rows - rows.amin(0)) * distance_weights(rows, self._groups).sqrt()
        if drawn is None:
            return remembered(points, self.count)
        near = drawn.new_zeros(len(rows), self.count)
        near[drawn] = drawn[remembered(points[drawn], self.count)]
        return near

    def __call__(self, ids: Tensor) -> Batch:
        """Draw examples."""
        data, task = self.data, self.data.task
        index = self._stored.index(ids)
        which = rng.integer(self.count, self.seed, ids, self.stream("neighbour"))
        other = self._near.index_select(0, index).gather(1, which.unsqueeze(1)).squeeze(1)
        number = rng.uniform(self.seed, ids, self.stream("columns"), (self._columns,))
        taken = (number < self.p).index_select(1, self._groups)
        noise = rng.normal(self.seed, ids, self.stream("noise"), (len(self._groups),))
        own, near = (self._rows.index_select(0, row) for row in (index, other))
        x = structured(between(own, near, taken, noise, self.s, self._grid), data.train.x)
        y = None if data.train.y is None else data.targets(data.train.y.index_select(0, index))
        return Batch(ids, data.inputs(x), y, task.classes, binary=task.binary)
