"""Batch norms whose statistics are those of the whole batch, of which each process has a slice.

``torch.nn.SyncBatchNorm`` does the same on CUDA devices alone, and is another layer. Here the
layers stay what they are, and only their forward pass is another while the training lasts, so
weights and checkpoints are the same for any number of processes.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Synchronised:
    """The batch norms of a student in training, which exchange their statistics.

    Args:
        student: The student.
        world: Number of processes; with one there is nothing to do.
    """

    def __init__(self, student: nn.Module, world: int) -> None:
        self._parts = batch_norms(student) if world > 1 else []
        for part in self._parts:
            part.forward = partial(_forward, part, world)  # type: ignore[method-assign]

    def stop(self) -> None:
        """Give the layers their own forward pass again."""
        for part in self._parts:
            part.__dict__.pop("forward", None)


def batch_norms(student: nn.Module) -> list[_BatchNorm]:
    """Return the layers of a student whose output on an example depends on others of its batch."""
    return [part for part in student.modules() if isinstance(part, _BatchNorm)]


def _forward(part: _BatchNorm, world: int, x: Tensor) -> Tensor:
    """Normalise a slice [B / world, C, ...] by mean and variance of the whole batch [B, C, ...]."""
    if not part.training:
        return type(part).forward(part, x)
    part._check_input_dim(x)  # type: ignore[no-untyped-call]
    wide = x if x.dtype == torch.float64 else x.float()
    over, shape = [0, *range(2, x.ndim)], (1, -1, *[1] * (x.ndim - 2))
    # Slices are of one size, so the mean of their means is that of the whole.
    mean = _mean_over_ranks(wide.mean(over), world)
    centred = wide - mean.view(shape)
    variance = _mean_over_ranks(centred.square().mean(over), world)
    if part.track_running_stats:
        _follow(part, mean.detach(), variance.detach(), world * x.numel() // x.shape[1])
    found = centred * torch.rsqrt(variance + part.eps).view(shape)
    if part.affine:
        found = found * part.weight.view(shape) + part.bias.view(shape)
    return found.to(x.dtype)


def _mean_over_ranks(value: Tensor, world: int) -> Tensor:
    found: Tensor = _Sum.apply(value) / world  # type: ignore[no-untyped-call]
    return found


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes; its gradient is that of the sum of all losses."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _summed(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def _summed(value: Tensor) -> Tensor:
    found = value.detach().clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(found)
    return found


@torch.no_grad()
def _follow(part: _BatchNorm, mean: Tensor, variance: Tensor, count: int) -> None:
    """Move the running statistics, as torch does it: the variance without bias."""
    assert part.running_mean is not None
    assert part.running_var is not None
    forget = part.momentum
    if part.num_batches_tracked is not None:
        part.num_batches_tracked.add_(1)
        if forget is None:
            forget = 1.0 / float(part.num_batches_tracked)
    forget = 0.0 if forget is None else forget
    unbiased = variance * (count / max(1, count - 1))
    part.running_mean.lerp_(mean.to(part.running_mean.dtype), forget)
    part.running_var.lerp_(unbiased.to(part.running_var.dtype), forget)
