"""What the processes of one training tell each other besides their gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

from torch import Tensor

from extracurricular.teachers.base import Faults

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")


def mean_over_ranks(value: Tensor, fabric: Fabric) -> Tensor:
    """Return the mean of a tensor over all processes; each must call this."""
    if fabric.world_size == 1:
        return value
    # In float64, so that the mean of the slices is that of the whole batch.
    return _reduce(fabric, "mean", value.double())


def gather_faults(faults: Faults, fabric: Fabric) -> None:
    """Let each process know the faults of all; each must call this."""
    if fabric.world_size > 1:
        faults.gather(partial(_reduce, fabric, "sum"), partial(_reduce, fabric, "min"))


def _reduce(fabric: Fabric, by: str, value: Tensor) -> Tensor:
    return cast(Tensor, fabric.all_reduce(value, reduce_op=by))


def read_by_first(read: Callable[[], T], fabric: Fabric) -> T:
    """Return what the first process reads, which the others may see otherwise; each calls this."""
    if fabric.world_size == 1:
        return read()
    return fabric.broadcast(read() if fabric.is_global_zero else cast(T, None))
