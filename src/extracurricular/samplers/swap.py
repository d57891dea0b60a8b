"""Give some columns of a row the values of another row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from extracurricular import rng
from extracurricular.data.base import Data
from extracurricular.generators.columns import flat, structured
from extracurricular.inputs import Batch
from extracurricular.samplers.base import SAMPLERS, Sampler, Seeded, announce, check_child
from extracurricular.samplers.table_columns import column_groups, table_rows


def swap_batch(first: Batch, second: Batch, taken: Tensor) -> Batch:
    """Give some inputs of a batch the values of another one.

    Args:
        first, second: Batches of the same structure, B examples of vectors, D inputs in all.
        taken: Whether each input takes the value of the second, bool, [B, D].

    Returns:
        The first batch with those values, and its own labels.
    """
    rows = torch.where(taken, flat(second.x), flat(first.x))
    return replace(first, x=structured(rows, first.x))


@SAMPLERS.register("swap")
@dataclass(frozen=True)
class Swap(Seeded):
    """Give each column of a table's row the value of another draw with probability ``p``.

    All columns that a draw swaps come from one other draw of the same child, so values that
    depend on each other may go together. A category's inputs go together, as do all inputs that
    one column becomes. Each value is one of the child's, so whole numbers stay whole.

    AutoGluon's distillation calls a kin of it spunge (Fakoor et al. 2020, "Fast, accurate, and
    simple models for tabular data via augmented distillation"): there each value comes from a row
    of its own. A row keeps its own label, as under ``noise``; if ``p`` is large the label no
    longer belongs to the row, so let such draws be matched to a teacher.

    Args:
        child: The sampler that draws both rows.
        data: The data set, whose columns decide which inputs go together.
        p: Probability that a column takes the other row's value, in [0, 1].
        seed: Seed of partners and columns.

    Raises:
        ValueError: ``p`` is out of its range, or the data have images.
    """

    child: Sampler
    data: Data
    p: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings, and find the columns."""
        check_child(self.child)
        if not 0 <= self.p <= 1:
            raise ValueError(f"p is {self.p}; it must be a probability between 0 and 1")
        _ = self._columns  # finding them asks the device, which no draw may

    @cached_property
    def _groups(self) -> Tensor:
        return column_groups(self.data, table_rows(self.data, "swap"))

    @cached_property
    def _columns(self) -> int:
        return int(self._groups.max()) + 1

    @property
    def asks(self) -> float:
        """How many times a teacher is asked for one draw, on average."""
        return 2 * super().asks

    def announce(self, ids: Tensor) -> None:
        """Prepare for draws with these ids, which come soon."""
        for own in (ids, self._partners(ids)):
            announce(self.child, own)

    def _partners(self, ids: Tensor) -> Tensor:
        return self.derived(self.seed, ids, "partner")

    def __call__(self, ids: Tensor) -> Batch:
        """Draw examples."""
        number = rng.uniform(self.seed, ids, self.stream("columns"), (self._columns,))
        taken = (number < self.p).index_select(1, self._groups)
        return swap_batch(self.child(ids), self.child(self._partners(ids)), taken)
