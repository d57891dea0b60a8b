"""The inputs of networks, batches of examples, and batches of one fixed size.

Inputs are one tensor, or a tuple or dict of tensors, whose first dimension counts the examples. A
:class:`Batch` holds inputs with their ids and labels.

The last bits of a matrix product depend on how many rows are multiplied at once, since libraries
choose their kernels by shape. If a draw goes through a network (a generated example, or one
chosen by a teacher), law 1 demands that those bits depend on the example alone. So such networks
see batches of one size only, filled up with zeros, which :func:`fixed_batches` cuts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor


class Deferred:
    """The base of stand-ins for a tensor of examples, which make the examples when indexed."""

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        raise NotImplementedError


Inputs: TypeAlias = Tensor | tuple[Tensor, ...] | dict[str, Tensor]


def is_leaf(tree: Any) -> TypeGuard[Tensor]:
    """Return whether inputs are one tensor, or a stand-in for one."""
    return isinstance(tree, Tensor | Deferred)


def tree_map(function: Callable[..., Tensor], tree: Inputs, *others: Inputs) -> Inputs:
    """Apply ``function`` to corresponding tensors of inputs of the same structure."""
    if is_leaf(tree):
        return function(tree, *others)
    if isinstance(tree, dict):
        return {k: function(v, *(_item(o, k) for o in others)) for k, v in tree.items()}
    return tuple(function(v, *(_item(o, i) for o in others)) for i, v in enumerate(tree))


def leaves(tree: Inputs) -> dict[str, Tensor]:
    """Return the tensors by name: a dict's keys, a tuple's positions, or ``""`` for one tensor."""
    if is_leaf(tree):
        return {"": tree}
    if isinstance(tree, dict):
        return dict(tree)
    return {str(i): v for i, v in enumerate(tree)}


def batch_size(tree: Inputs) -> int:
    """Return the number of examples."""
    return len(next(iter(leaves(tree).values())))


def images(tree: Inputs) -> list[Tensor]:
    """Return the tensors that are images, [B, C, H, W]."""
    return [leaf for leaf in leaves(tree).values() if leaf.ndim == 4]


def _item(tree: Any, key: str | int) -> Tensor:
    return tree[key]  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Batch:
    """Examples as both student and teacher see them.

    Args:
        ids: The draw ids, int64, [B].
        x: Network inputs, float32: [B, ...], or a tuple or dict of such tensors.
        y: Labels, or None: class indices [B] int64, soft labels [B, C], or real targets [B, D].
        classes: Number of classes; None for regression.
        weight: Weight of each example in the loss, [B]; None for equal weights.
    """

    ids: Tensor
    x: Inputs
    y: Tensor | None = None
    classes: int | None = None
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: slice | Tensor) -> Batch:
        return Batch(
            self.ids[index],
            tree_map(lambda v: v[index], self.x),
            None if self.y is None else self.y[index],
            self.classes,
            None if self.weight is None else self.weight[index],
        )


def soft_labels(y: Tensor, classes: int | None) -> Tensor:
    """Return labels that can be mixed: indices [B] become one-hot [B, C], others stay.

    Raises:
        ValueError: Indices are given without the number of classes.
    """
    if y.is_floating_point():
        return y
    if classes is None:
        raise ValueError("class indices cannot be mixed without knowing the number of classes")
    return F.one_hot(y, classes).float()


# Batches of one size

FIXED = 64


def fixed_batches(tree: Inputs, size: int = FIXED) -> Iterator[tuple[Inputs, int]]:
    """Cut inputs [B, ...] into batches of ``size`` examples.

    Yields:
        A batch, with zeros as its last rows if examples ran out, and the number of true rows. For
        B = 0 there is one batch without true rows, so that results have their structure.
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
