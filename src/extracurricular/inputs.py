"""The inputs of networks, batches of examples, and batches of one fixed size.

Inputs are one tensor, or a tuple or dict of tensors, whose first dimension counts the examples. A
:class:`Batch` holds inputs with their ids and labels.

The last bits of a matrix product depend on how many rows are multiplied at once, since libraries
choose their kernels by shape. If a draw goes through a network (a generated example, or one
chosen by a teacher), law 1 demands that those bits depend on the example alone. So such networks
see batches of one size only, filled up with zeros, which :func:`fixed_batches` cuts.

A step that a CUDA graph holds asks the host nothing and has static shapes (law 8). A static shape
may cost more work, so some functions have two selections of the same draws (:func:`is_static`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeGuard

import torch
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


def channels_last(x: Tensor) -> Tensor:
    """Return images [B, C, H, W] in channels last, and anything else as it is."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


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
        y: Labels, or None: class indices [B] int64, soft labels [B, C], real targets [B, D], or
            several labels in [0, 1], [B, L].
        classes: Number of classes; None where there are none.
        weight: Weight of each example in the loss, [B]; None for equal weights.
        binary: Whether ``y`` has several labels of 0 and 1, each on its own (multi-label).
        weak: The inputs that the teacher sees instead of ``x``; None where both see the same.
    """

    ids: Tensor
    x: Inputs
    y: Tensor | None = None
    classes: int | None = None
    weight: Tensor | None = None
    binary: bool = False
    weak: Inputs | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def taught(self) -> Batch:
        """The examples as the teacher sees them."""
        return self if self.weak is None else replace(self, x=self.weak, weak=None)

    @property
    def learned(self) -> Batch:
        """The examples as the student sees them."""
        return self if self.weak is None else replace(self, weak=None)

    def __getitem__(self, index: slice | Tensor) -> Batch:
        return Batch(
            self.ids[index],
            tree_map(lambda v: v[index], self.x),
            None if self.y is None else self.y[index],
            self.classes,
            None if self.weight is None else self.weight[index],
            self.binary,
            None if self.weak is None else tree_map(lambda v: v[index], self.weak),
        )


def soft_labels(y: Tensor, classes: int | None) -> Tensor:
    """Return labels that can be mixed: indices [B] become one-hot [B, C], others stay.

    Mixed labels of 0 and 1 are probabilities of each label on its own.

    Raises:
        ValueError: Indices are given without the number of classes.
        RuntimeError: An index is not in [0, classes).
    """
    if y.is_floating_point():
        return y
    if classes is None:
        raise ValueError("class indices cannot be mixed without knowing the number of classes")
    # Unlike one_hot, this checks the range without a look at the values from the host.
    return torch.zeros(len(y), classes, device=y.device).scatter_(1, y.unsqueeze(1), 1.0)


def hard_labels(y: Tensor) -> Tensor:
    """Return class indices [B] of labels: soft ones [B, C] become their most probable class."""
    return y.argmax(-1) if y.is_floating_point() else y


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


# Law 8: static shapes, and nothing asked of the host

_forced: ContextVar[bool | None] = ContextVar("static_shapes", default=None)


@contextmanager
def static_shapes(on: bool = True) -> Iterator[None]:
    """Force one selection while a block runs: the masked one, or with False the gathered one."""
    before = _forced.set(on)
    try:
        yield
    finally:
        _forced.reset(before)


def is_static(like: Tensor) -> bool:
    """Return whether to take the masked selection, for tensors on the device of ``like``.

    The gathered selection computes only what is needed, so its shapes depend on data. The masked
    one computes everything at static shapes and masks the rest, and asks the host nothing. Both
    give the same bits. A CPU takes the gathered one, other devices the masked one, unless
    :func:`static_shapes` says otherwise.
    """
    forced = _forced.get()
    return like.device.type != "cpu" if forced is None else forced


def is_deferred() -> bool:
    """Return whether a check of values is put off, as :func:`static_shapes` is in force.

    Then wrong values become NaN. Whoever forced static shapes looks for NaN later, and makes the
    draws at fault again without, to get the error.
    """
    return _forced.get() is True


class Capturable:
    """Base of samplers, teachers and losses that say whether a CUDA graph can hold them."""

    @property
    def obstacle(self) -> str | None:
        """The reason why a CUDA graph cannot hold this, as a clause; None if it can."""
        return None

    @property
    def capturable(self) -> bool:
        """Whether a CUDA graph can hold this, since it obeys law 8 in the masked selection."""
        return self.obstacle is None


def as_bytes(tensor: Tensor) -> Tensor:
    """Return the bytes of a tensor in order, uint8, [count of elements · bytes of an element].

    They are a view where the tensor lies so in memory.
    """
    # Flattened, since a tensor without dimensions cannot be viewed as bytes.
    flat = tensor.detach().contiguous().flatten()
    if flat.stride() != (1,):
        # Any stride counts as contiguous where there are fewer than two elements.
        flat = flat.clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8)


def obstacle(thing: object) -> str | None:
    """Return the reason why a CUDA graph cannot hold something, as a clause; None if it can.

    Something of your own can say so itself: by ``capturable = True``, or by ``obstacle``, which is
    such a clause or None. If it says neither, that is the reason.
    """
    if hasattr(thing, "obstacle"):
        found: str | None = thing.obstacle
        return found
    if getattr(thing, "capturable", False) is True:
        return None
    name = getattr(thing, "__name__", type(thing).__name__)
    return f"{name} does not say that it is capturable"
