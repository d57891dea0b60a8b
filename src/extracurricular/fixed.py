"""Arithmetic on examples that does not depend on the batch they are in.

The last bits of a matrix product depend on how many rows are multiplied at once, since libraries
choose their kernels by shape. Where a draw goes through a network (a generated example, or one
chosen by a teacher), law 1 asks that those bits depend on the example alone. So such networks see
batches of one size only, filled up with zeros.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from extracurricular.tree import Inputs, batch_size, tree_map

FIXED = 64


def fixed_batches(tree: Inputs, size: int = FIXED) -> Iterator[tuple[Inputs, int]]:
    """Cut inputs [B, ...] into batches of ``size`` examples.

    Yields:
        A batch, its last rows zeros where examples ran out, and the number of true rows. One batch
        without true rows for B = 0, so that the structure of what comes of it is known.
    """
    count = batch_size(tree)
    for start in range(0, max(count, 1), size):
        true = min(size, count - start)

        def part(leaf: Tensor, start: int = start, true: int = true) -> Tensor:
            rows = leaf[start : start + true]
            if true == size:
                return rows
            return torch.cat([rows, rows.new_zeros(size - true, *leaf.shape[1:])])

        yield tree_map(part, tree), true


def join(parts: list[Inputs]) -> Inputs:
    """Concatenate inputs of the same structure."""
    return tree_map(lambda *leaves: torch.cat(leaves), *parts)
