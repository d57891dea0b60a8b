"""A network made ready for answering: batch norms inside the convolutions, channels last.

Its answers differ from those of the network by rounding alone, and come in half of the time on a
CPU. A network that cannot be prepared, or would answer otherwise, is asked as it is.
"""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, nn

from extracurricular.inputs import Inputs, channels_last, tree_map

PROBE = 64
"""Training examples on which a prepared network must answer as it did."""

# Most that a prepared network's outputs may be off, as a part of the largest of the network's own.
_TOLERANCE = 1e-3


class Prepared(nn.Module):
    """A faster copy of a network; see :func:`prepare`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.inner = module

    def forward(self, x: Inputs) -> Tensor:
        """Return the raw outputs [B, K]."""
        found: Tensor = self.inner(tree_map(channels_last, x))
        return found


@torch.no_grad()
def prepare(module: nn.Module, probe: Inputs) -> nn.Module | None:
    """Return a faster copy of a trained network, for answers alone.

    Args:
        module: The network, in evaluation mode; it is not changed.
        probe: Inputs of some examples, on which the copy must answer as the network does.

    Returns:
        None where there is nothing to gain (no convolutions), or the copy answers otherwise.
    """
    if not any(isinstance(part, nn.Conv2d) for part in module.modules()):
        return None
    copied = copy.deepcopy(module).eval().requires_grad_(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torch.fx.experimental.optimization import fuse

            copied = fuse(copied)
    except Exception:
        # A network whose flow depends on its input cannot be traced; its layout can still change.
        copied = copy.deepcopy(module).eval().requires_grad_(False)
    copied.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fast = Prepared(copied).eval()
    wanted = module(probe)
    try:
        found = fast(probe)
    except Exception:  # a traced network may hold a size that its example had
        return None
    same = isinstance(found, Tensor) and found.shape == wanted.shape
    close = same and bool((found - wanted).abs().max() <= _TOLERANCE * wanted.abs().max())
    return fast if close else None
