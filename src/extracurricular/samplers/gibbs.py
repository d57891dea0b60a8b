"""Draw columns of a row anew, one after the other, given all other columns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from extracurricular import rng
from extracurricular.data.base import Data
from extracurricular.generators.columns import flat, structured
from extracurricular.inputs import Batch
from extracurricular.samplers.base import SAMPLERS, Sampler, Seeded, check_child
from extracurricular.samplers.table_columns import column_groups, distance_weights, table_rows

# Distances that are held at once: 4 MiB stay near a CPU, and other devices take 64 MiB.
_AT_ONCE = 2**20


def nearest_but(rows: Tensor, stored: Tensor, weights: Tensor, rank: Tensor, count: int) -> Tensor:
    """Return the number of a near stored row of each row, int64, [B].

    Args:
        rows: [B, D]
        stored: [N, D]
        weights: Weight of each input in the squared distance, 0 for none, [B, D].
        rank: The place of the wanted row among the nearest, 0 for the nearest, int64, [B].
        count: Greater than each rank.
    """
    found = []
    # A product of matrices would be faster, but its last bits depend on the number of rows.
    most = _AT_ONCE if stored.device.type == "cpu" else 16 * _AT_ONCE
    some = max(1, most // len(stored))
    parts = (torch.split(part, some) for part in (rows, weights.sqrt(), rank))
    for own, scale, place in zip(*parts, strict=True):
        distance = own.new_zeros(len(own), len(stored))
        for k in range(stored.shape[1]):
            gap = own[:, k, None] - stored[:, k]
            gap.mul_(scale[:, k, None])
            distance.addcmul_(gap, gap)
        near = distance.topk(count, dim=1, largest=False).indices
        found.append(near.gather(1, place.unsqueeze(1)).squeeze(1))
    return torch.cat(found)


@SAMPLERS.register("gibbs")
@dataclass(frozen=True)
class Gibbs(Seeded):
    """Draw some columns of a row anew, one after the other, given all its other columns.

    Each of ``steps`` steps picks a column at random, seeks the ``count`` training rows that are
    nearest in all other columns, and takes the column's value from one of them: a step of Gibbs
    sampling, with conditional distributions of nearest rows. So a value fits the rest of its row,
    where ``swap`` breaks dependences; few steps stay near the data, many leave it for the
    distribution of all rows.

    FAST-DAD (Fakoor et al. 2020, "Fast, accurate, and simple models for tabular data via augmented
    distillation") draws such steps from conditionals that a network with attention has learned.
    Nearest rows are our choice: nothing is fitted, and whole numbers, grids and categories stay so.
    The row itself may be among the nearest, and then the column stays.

    The distance is that of ``neighbours``. Each step compares each draw with all training rows, so
    large tables need a GPU. A row keeps its own label, as under ``noise``.

    Args:
        child: The sampler that draws the rows to start from.
        data: The data set, a table.
        steps: Columns that are drawn anew, at least 0; one may be picked twice.
        count: Rows that a value is taken from, at least 1.
        seed: Seed of columns and rows.

    Raises:
        ValueError: A setting is out of its range, or the data have images.
    """

    child: Sampler
    data: Data
    steps: int = 2
    count: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings, and find the columns."""
        check_child(self.child)
        if self.steps < 0:
            raise ValueError(f"steps is {self.steps}; it must be at least 0")
        rows = len(self.data.train) if self.data.drawn is None else len(self.data.drawn)
        if not 1 <= self.count <= rows:
            raise ValueError(
                f"count is {self.count}; it must be at least 1 and at most the number of training "
                f"rows, {rows}"
            )
        _ = self._columns, self._weights  # finding them asks the device, which no draw may

    @cached_property
    def _groups(self) -> Tensor:
        return column_groups(self.data, table_rows(self.data, "gibbs"))

    @cached_property
    def _columns(self) -> int:
        return int(self._groups.max()) + 1

    @cached_property
    def _rows(self) -> Tensor:
        """The training rows that are drawn, as networks see them, float32, [N, D]."""
        rows = flat(self.data.inputs(self.data.train.x))
        return rows if self.data.drawn is None else rows[self.data.drawn]

    @cached_property
    def _weights(self) -> Tensor:
        return distance_weights(self._rows, self._groups)

    def __call__(self, ids: Tensor) -> Batch:
        """Draw examples."""
        batch = self.child(ids)
        rows = flat(batch.x)
        for k in range(self.steps):
            column = rng.integer(self._columns, self.seed, ids, self.stream(f"column.{k}"))
            rank = rng.integer(self.count, self.seed, ids, self.stream(f"row.{k}"))
            here = self._groups == column.unsqueeze(1)
            weights = self._weights.masked_fill(here, 0.0)
            near = nearest_but(rows, self._rows, weights, rank, self.count)
            rows = torch.where(here, self._rows.index_select(0, near), rows)
        return replace(batch, x=structured(rows, batch.x))
