"""Find the inputs of a table that are made of one column, and the values that a column may have."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from extracurricular.data.base import Data
from extracurricular.generators.columns import one_hot_groups
from extracurricular.inputs import Deferred, leaves

# A column with at most so many values, each of more than so many rows, is a choice among them.
_FEW, _ROWS_PER_VALUE = 20, 5
# A value of another column that this part of the rows share, such as the 0 of an additive, is an
# atom: a row has it or has not.
_ATOM = 0.05
# Steps of grids, coarsest first, as numerator and denominator: 1000, 500, …, 1, 1/2, 1/4, …
_STEPS = [
    *((whole * ten, 1) for ten in (100, 10) for whole in (10, 5, 2)),
    *((whole, 1) for whole in (10, 5, 2, 1)),
    *((1, part * ten) for ten in (1, 10, 100, 1000, 10_000, 100_000) for part in (2, 4, 5, 10)),
]
# Beyond this part of a step, the rounding of float32 would pass for a grid.
_COARSE = 0.02


def table_rows(data: Data, name: str) -> Tensor:
    """Return the training rows of a table side by side, in raw units, float32 or float64, [N, D].

    Raises:
        ValueError: The input has images, which the sampler ``name`` does not take.
    """
    for key, leaf in leaves(data.train.x).items():
        if isinstance(leaf, Deferred) or leaf.ndim > 2:
            which = f"x[{key!r}]" if key else "the input"
            raise ValueError(
                f"{name} is for the columns of tables, but {which} of data {data.name!r} has shape "
                f"{tuple(leaf.shape[1:])}; for images take augment, cutmix or trivial_augment"
            )
    parts = [leaf.reshape(len(leaf), -1) for leaf in leaves(data.train.x).values()]
    wide = any(part.dtype == torch.float64 for part in parts)
    return torch.cat([part.to(torch.float64 if wide else torch.float32) for part in parts], 1)


def column_groups(data: Data, rows: Tensor) -> Tensor:
    """Return the number of the column that each input is made of, int64, [D], on the device.

    The description of a table's columns (``data.fields``) says it. Where there is none, neighbours
    of zeros and ones with exactly one 1 in each training row are one column.

    Args:
        data: The data set.
        rows: Its training rows, [N, D].
    """
    width = rows.shape[1]
    fields = data.fields
    if fields is not None and len(fields.columns) == width:
        of = [k for k, field in enumerate(fields.inputs) for _ in field.labels]
        return torch.tensor(of, device=rows.device)
    starts = torch.ones(width, dtype=torch.int64)
    for group in one_hot_groups(rows.cpu().float(), {}):
        starts[group[1:]] = 0
    return (starts.cumsum(0) - 1).to(rows.device)


def distance_weights(rows: Tensor, groups: Tensor) -> Tensor:
    """Return the weight of each input in a squared distance between rows, [D].

    The range of a column counts 1, and so do two categories that differ.

    Args:
        rows: The training rows, in any units, [N, D].
        groups: The column of each input, [D].
    """
    low, high = rows.aminmax(dim=0)
    wide = torch.where(high > low, high - low, torch.ones_like(high))
    # Two categories differ in two of their inputs.
    several = torch.bincount(groups)[groups] > 1
    return wide.square().reciprocal() * (1 - 0.5 * several.to(rows.dtype))


@dataclass(frozen=True)
class Grid:
    """The values that each of D inputs may have.

    Args:
        choice: Whether an input only takes values that other rows have, bool, [D]: those of
            columns that become several inputs, or that have few values.
        up, down: The step of each other input's grid is up / down, [D]; 0 for reals.
        atom: The value of each other input that many rows share, [D]; NaN for none.
        low, high: Least and greatest training value, [D].
    """

    choice: Tensor
    up: Tensor
    down: Tensor
    atom: Tensor
    low: Tensor
    high: Tensor

    def put(self, values: Tensor) -> Tensor:
        """Bring values [B, D] to the grids of their inputs, and into the training values' range."""
        # Whole numbers above and below make the nearest number to, say, 37 hundredths.
        on = self.up > 0
        up = torch.where(on, self.up, torch.ones_like(self.up))
        stepped = (values * self.down / up).round() * up / self.down
        return torch.where(on, stepped, values).clamp(self.low, self.high)


def grid(rows: Tensor, groups: Tensor) -> Grid:
    """Find the grids of training rows [N, D], whose inputs are of columns ``groups`` [D]."""
    several = torch.bincount(groups)[groups] > 1
    few = torch.zeros_like(several)
    atom = torch.full_like(rows[0], torch.nan)
    for k, column in enumerate(rows.unbind(1)):
        values, counts = torch.unique(column, return_counts=True)
        few[k] = len(values) <= _FEW and len(values) * _ROWS_PER_VALUE < len(rows)
        if counts.amax() >= max(_ATOM * len(rows), _ROWS_PER_VALUE):
            atom[k] = values[counts.argmax()]
    up, down = rows.new_zeros(rows.shape[1]), rows.new_ones(rows.shape[1])
    reals = rows.double()
    error = torch.finfo(rows.dtype).eps
    for numerator, denominator in _STEPS:
        place = reals * denominator / numerator
        slack = place.abs() * error + 1e-9
        fits = ((place - place.round()).abs() <= slack).all(0) & (slack.amax(0) < _COARSE)
        new = fits & (up == 0)
        up[new], down[new] = numerator, denominator
    return Grid(several | few, up, down, atom, rows.amin(0), rows.amax(0))
