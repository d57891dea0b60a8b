"""A network made ready for answering: batch norms inside the convolutions, channels last.

Its answers differ from those of the network by rounding alone, and come in half of the time on a
CPU. A network that cannot be prepared, or would answer otherwise, is asked as it is.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from extracurricular.distributions.outputs import raw_output
from extracurricular.inputs import Inputs, channels_last, leaves, tree_map

PROBE = 64
"""Training examples on which a prepared network must answer as it did."""

# Most that a prepared network's outputs may be off, as a part of the largest of the network's own.
_TOLERANCE = 1e-3


class Prepared(nn.Module):
    """A faster copy of a network; see :func:`prepare`.

    Args:
        module: The copy, in channels last.
        dtype: The type in which it computes, whatever autocast says; None to leave that to
            autocast.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.inner = module
        self.dtype = dtype

    def forward(self, x: Inputs) -> Tensor:
        """Return the raw outputs [B, K]; float32 where the copy has a type of its own."""
        x = tree_map(channels_last, x)
        if self.dtype is None:
            return raw_output(self.inner(x))
        device = next(iter(leaves(x).values())).device.type
        with torch.autocast(device, enabled=False):
            return raw_output(self.inner(tree_map(self._cast, x))).float()

    def _cast(self, leaf: Tensor) -> Tensor:
        return leaf.to(self.dtype) if leaf.is_floating_point() else leaf


@torch.no_grad()
def prepare(module: nn.Module, probe: Inputs, dtype: torch.dtype | None = None) -> Prepared | None:
    """Return a faster copy of a trained network, for answers alone.

    Args:
        module: The network, in evaluation mode; it is not changed.
        probe: Inputs of some examples, on which the copy must answer as the network does.
        dtype: The type in which the copy computes. In bfloat16 it need only give finite answers on
            the probe: how far they are off is for the caller to measure. If None, or float32, it
            must answer as the network does, but for rounding.

    Returns:
        None where the copy answers otherwise, or dtype is None and there is nothing to gain (no
        convolutions).
    """
    if dtype is None and not any(isinstance(part, nn.Conv2d) for part in module.modules()):
        return None
    wanted = raw_output(module(probe))
    for copied in _copies(module):
        copied.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        fast = Prepared(copied.to(dtype), dtype).eval()
        try:
            found = fast(probe)
        except Exception:  # a traced network may hold a size that its example had, or a type
            continue
        if _agree(found, wanted, finite_is_enough=dtype not in (None, torch.float32)):
            return fast
    return None


def _copies(module: nn.Module) -> Iterator[nn.Module]:
    """Yield a copy with its batch norms folded, where that can be done, and a plain copy."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.fx.experimental.optimization import fuse

        try:
            folded = fuse(_copy(module))
        except Exception:  # its flow depends on its input; its layout can still change
            folded = None
    if folded is not None:
        yield folded
    yield _copy(module)


def _copy(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).eval().requires_grad_(False)


def _agree(found: object, wanted: Tensor, *, finite_is_enough: bool) -> bool:
    if not isinstance(found, Tensor) or found.shape != wanted.shape:
        return False
    if finite_is_enough:
        return bool(found.isfinite().all())
    return bool((found - wanted).abs().max() <= _TOLERANCE * wanted.abs().max())
