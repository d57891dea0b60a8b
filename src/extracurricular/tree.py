"""Inputs of a network: one tensor, or a tuple or dict of tensors, with examples first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeGuard

from torch import Tensor


class Deferred:
    """Base of what stands for a tensor of examples in a data set, and makes them when indexed."""

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        raise NotImplementedError


Inputs: TypeAlias = Tensor | tuple[Tensor, ...] | dict[str, Tensor]


def is_leaf(tree: Any) -> TypeGuard[Tensor]:
    """Whether inputs are one tensor, or stand for one."""
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
