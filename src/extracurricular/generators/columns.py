"""Split rows of mixed columns into numbers and codes, and join them again.

A generator of tables models real numbers and a few choices among values. A row that is joined from
any such numbers and choices is valid: its integers are whole, its categories and one-hot patterns
occur in the training rows, and its numbers keep to the bounds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from extracurricular.data.base import Data
from extracurricular.inputs import Inputs, leaves, tree_map

KINDS = ("real", "integer", "category")
# A category has more rows than this for each of its values.
_ROWS_PER_VALUE = 5


def flat(x: Inputs) -> Tensor:
    """Put vectors side by side, in the order of the input: float32, [N, D]."""
    return torch.cat(
        [v.reshape(len(v), math.prod(v.shape[1:])).float() for v in leaves(x).values()], dim=1
    )


def structured(rows: Tensor, like: Inputs) -> Inputs:
    """Undo :func:`flat`: give rows [B, D] the structure and shapes of ``like``."""
    sizes = [math.prod(v.shape[1:]) for v in leaves(like).values()]
    parts = iter(torch.split(rows, sizes, dim=1))
    return tree_map(lambda v: next(parts).reshape(len(rows), *v.shape[1:]), like)


def training_rows(data: Data, name: str) -> Tensor:
    """Return the training rows of vectors, float32, [N, D], on the CPU.

    Raises:
        ValueError: The data have images, or units that float32 cannot hold, which the generator
            ``name`` cannot make.
    """
    for key, leaf in leaves(data.train.x).items():
        which = f"x[{key!r}]" if key else "x"
        if leaf.dtype == torch.float64:
            raise ValueError(
                f"{name} makes values in float32, which cannot hold {which} of data {data.name!r}; "
                "give it less its mean, in units of its deviation"
            )
        if leaf.ndim > 2:
            raise ValueError(
                f"{name} is for vectors, but {which} of data {data.name!r} has shape "
                f"{tuple(leaf.shape[1:])}; images need another generator"
            )
    return flat(data.train.x).cpu()


def check_columns(columns: Mapping[str, str]) -> None:
    """Check a setting ``columns``: kinds of columns by position, from 0.

    Raises:
        ValueError: A position is no number, or a kind is unknown.
    """
    for position, kind in columns.items():
        if not (position.isascii() and position.isdigit()):
            raise ValueError(f"columns has {position!r}; it must name columns by position, as '0'")
        if kind not in KINDS:
            raise ValueError(
                f"columns.{position} is {kind!r}; it must be one of {', '.join(KINDS)}"
            )


@dataclass(frozen=True)
class Columns:
    """The kinds of a table's columns, as :func:`find_columns` finds them.

    A row is ``numbers`` [d], one for each real or integer column, and ``codes`` [V], one for each
    *variable*. A variable decides the value of a category (a constant column is one, with a single
    value), the values of all columns of a one-hot group, or whether a real or integer column has
    its atom (code 0) or its number (code 1).

    Args:
        numeric: Positions of the real and integer columns, int64, [d].
        whole: Whether each of them is an integer, bool, [d].
        low, high: Their bounds, float32, [d].
        coded: Positions of the columns that a variable decides, int64, [M].
        variable: The variable of each of these columns, int64, [M].
        levels: The value of each code, float32, [M, L]; NaN stands for the number.
        sizes: Number of codes of each variable, int64, [V].
        atoms: Whether each variable is an atom, bool, [V].
    """

    numeric: Tensor
    whole: Tensor
    low: Tensor
    high: Tensor
    coded: Tensor
    variable: Tensor
    levels: Tensor
    sizes: Tensor
    atoms: Tensor

    @cached_property
    def width(self) -> int:
        """Number D of columns."""
        # Computed once, as it waits for the device.
        return int(torch.cat([self.numeric, self.coded]).max()) + 1

    def join(self, numbers: Tensor, codes: Tensor) -> Tensor:
        """Make valid rows, float32, [B, D], of any numbers [B, d] and codes [B, V]."""
        rows = numbers.new_zeros(len(numbers), self.width)
        numbers = torch.where(self.whole, numbers.round(), numbers)
        rows[:, self.numeric] = numbers.clamp(self.low, self.high)
        index = torch.arange(len(self.coded), device=rows.device)
        values = self.levels[index, codes[:, self.variable]]
        rows[:, self.coded] = torch.where(values.isnan(), rows[:, self.coded], values)
        return rows

    def state(self) -> dict[str, Tensor]:
        """Return the tensors by name, for a file."""
        return {f"columns.{f.name}": getattr(self, f.name) for f in fields(self)}

    @staticmethod
    def of(state: dict[str, Tensor]) -> Columns:
        """Undo :meth:`state`."""
        return Columns(**{f.name: state[f"columns.{f.name}"] for f in fields(Columns)})


@dataclass(frozen=True)
class Rows:
    """Rows that are split into numbers and codes.

    Args:
        numbers: Values of the real and integer columns, float64, [N, d].
        codes: Codes of the variables, int64, [N, V].
        sizes: Number of codes of each variable, int64, [V]; P in all. Each code has a *place* among
            all P.
    """

    numbers: Tensor
    codes: Tensor
    sizes: Tensor

    def places(self) -> Tensor:
        """Return the place of each code, int64, [N, V]."""
        return self.codes + (self.sizes.cumsum(0) - self.sizes)

    def count(self, share: Tensor) -> Tensor:
        """Sum K shares of the rows, [N, K], over the rows at each place, to [P, K]."""
        counts = share.new_zeros(int(self.sizes.sum()), share.shape[1])
        for places in self.places().unbind(1):
            counts.index_add_(0, places, share)
        return counts

    def frequencies(self) -> Tensor:
        """Return the part of the rows at each place, [P]."""
        return self.count(self.numbers.new_ones(len(self.numbers), 1))[:, 0] / len(self.numbers)

    def padded(self, tables: Tensor) -> Tensor:
        """Turn tables by place, [K, P], into tables by code, [K, V, L], padded with zeros."""
        most = int(self.sizes.max()) if len(self.sizes) else 1
        parts = torch.split(tables, self.sizes.tolist(), dim=1)
        padded = [F.pad(part, (0, most - part.shape[1])) for part in parts]
        return torch.stack(padded, dim=1) if padded else tables.new_zeros(len(tables), 0, most)


def find_columns(
    rows: Tensor,
    given: Mapping[str, str],
    *,
    most_categories: int,
    atom: float,
    widen: float,
) -> tuple[Columns, Rows]:
    """Find the kinds of columns from training rows.

    - Neighbouring columns of zeros and ones with exactly one 1 in every row are a one-hot group.
    - A column with at most ``most_categories`` values, and more than five rows for each, is a
      category, whether its values are whole or not. So is a column with one value.
    - Any other column is an integer if all its values are whole, else real.

    Integers keep to the range of the training rows. Reals may go beyond it by ``widen`` of the
    range, but not past 0 unless a training row does, and not past an atom at the bound.

    Args:
        rows: Training rows, float32, [N, D].
        given: Kinds of columns by position, which override the kinds found.
        most_categories: Most values of a category.
        atom: Share of the rows that makes the most frequent value of a real or integer column an
            atom: a value with a probability of its own, such as an additive of 0.
        widen: Part of the range by which reals may go beyond it.

    Returns:
        The columns, and the split rows.

    Raises:
        ValueError: ``given`` names a column that does not exist, or calls one with fractions an
            integer.
    """
    count, width = rows.shape
    for position in given:
        if int(position) >= width:
            raise ValueError(
                f"columns has {position!r}; the data have columns '0' to '{width - 1}'"
            )
    chosen = {int(position): kind for position, kind in given.items()}
    groups = one_hot_groups(rows, chosen)
    grouped = {column for group in groups for column in group}
    # Levels [columns, codes] and codes [N] of each variable.
    variables = [(group, *_levels(rows[:, group])) for group in groups]
    atoms = [False] * len(groups)
    numeric: list[tuple[int, bool, float, float]] = []
    for column in range(width):
        if column in grouped:
            continue
        values = rows[:, column]
        distinct, counts = torch.unique(values, return_counts=True)
        kind = chosen.get(column) or _kind(distinct, count, most_categories)
        if kind == "category" or len(distinct) == 1:
            variables.append(([column], *_levels(values[:, None])))
            atoms.append(False)
            continue
        if kind == "integer" and not _whole(distinct):
            value = float(distinct[distinct != distinct.round()][0])
            raise ValueError(f"columns.{column} is 'integer'; it has the value {value:g}")
        low, high = float(distinct[0]), float(distinct[-1])
        edge = math.nan
        if int(counts.max()) >= max(atom * count, _ROWS_PER_VALUE):
            edge = float(distinct[counts.argmax()])
            levels = torch.tensor([[edge, math.nan]])
            variables.append(([column], levels, (values != edge).long()))
            atoms.append(True)
        if kind == "real":
            low, high = _widened(low, high, widen, edge)
        numeric.append((column, kind == "integer", low, high))
    most = max([levels.shape[1] for _, levels, _ in variables], default=1)
    table = torch.full((sum(len(group) for group, *_ in variables), most), math.nan)
    coded = [column for group, *_ in variables for column in group]
    variable = [k for k, (group, *_) in enumerate(variables) for _ in group]
    for k, (_, levels, _) in enumerate(variables):
        table[torch.tensor(variable) == k, : levels.shape[1]] = levels
    columns = Columns(
        numeric=torch.tensor([n[0] for n in numeric], dtype=torch.int64),
        whole=torch.tensor([n[1] for n in numeric], dtype=torch.bool),
        low=torch.tensor([n[2] for n in numeric]),
        high=torch.tensor([n[3] for n in numeric]),
        coded=torch.tensor(coded, dtype=torch.int64),
        variable=torch.tensor(variable, dtype=torch.int64),
        levels=table,
        sizes=torch.tensor([levels.shape[1] for _, levels, _ in variables], dtype=torch.int64),
        atoms=torch.tensor(atoms, dtype=torch.bool),
    )
    codes = [codes for *_, codes in variables]
    empty = torch.zeros(count, 0, dtype=torch.int64)
    return columns, Rows(
        numbers=rows[:, columns.numeric].double(),
        codes=torch.stack(codes, dim=1) if codes else empty,
        sizes=columns.sizes,
    )


def one_hot_groups(rows: Tensor, chosen: Mapping[int, str]) -> list[list[int]]:
    """Return the longest runs, from the left, of binary columns that sum to 1 in every row."""
    width = rows.shape[1]
    binary = ((rows == 0) | (rows == 1)).all(0).tolist()
    varied = (rows != rows[:1]).any(0).tolist()
    groups = []
    start = 0
    while start < width:
        total, found = torch.zeros(len(rows)), 0
        for end in range(start, width):
            if not binary[end] or end in chosen:
                break
            total = total + rows[:, end]
            if bool((total > 1).any()):
                break
            if bool((total == 1).all()):
                found = end + 1
        group = list(range(start, found))
        # A column of ones is not a group by itself, nor with columns of zeros.
        if sum(varied[column] for column in group) >= 2:
            groups.append(group)
            start = found
        else:
            start += 1
    return groups


def _levels(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the different rows of [N, m] values, as [m, L], and each row's code, int64, [N]."""
    levels, codes = torch.unique(values, dim=0, return_inverse=True)
    return levels.T.contiguous(), codes


def _kind(distinct: Tensor, count: int, most: int) -> str:
    if len(distinct) <= most and len(distinct) * _ROWS_PER_VALUE < count:
        return "category"
    return "integer" if _whole(distinct) else "real"


def _whole(values: Tensor) -> bool:
    return bool((values == values.round()).all())


def _widened(low: float, high: float, widen: float, edge: float) -> tuple[float, float]:
    """Return the bounds of a real column with values from low to high and an atom at ``edge``."""
    room = widen * (high - low)
    # A column without negative values is likely to be a quantity that cannot be negative.
    below = low if edge == low else max(low - room, 0.0) if low >= 0 else low - room
    above = high if edge == high else min(high + room, 0.0) if high <= 0 else high + room
    return below, above
