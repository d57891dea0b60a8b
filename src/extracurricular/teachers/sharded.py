"""A teacher's network whose weights are spread over the processes of a run, for answers alone.

Each process holds a part of every tensor. A block of layers gets the others' parts right before it
computes and gives them back afterwards, so that no device ever holds more than its share and one
block (FSDP2, ``torch.distributed.fsdp.fully_shard``). So all processes must ask at the same time,
each about examples of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from extracurricular.inputs import Inputs

# A block is gathered as a whole where it has at most this part of all weights.
_BLOCK = 1 / 16


class Sharded(nn.Module):
    """A network, of each of whose tensors this process holds a part.

    Args:
        module: The network on the CPU, in evaluation mode; it is sharded in place, onto the
            device of the processes.
        device: That device, of the same kind in all processes.
        world: Number of processes.
        fingerprint: That of the whole network, which no process can compute later.
        before: Called before each answer, to see to it that the others ask too.
    """

    def __init__(
        self,
        module: nn.Module,
        device: torch.device,
        world: int,
        fingerprint: str,
        before: Callable[[], None],
    ) -> None:
        super().__init__()
        self.inner = _sharded(module.eval(), device, world)
        self.fingerprint = fingerprint
        self.before = before

    def forward(self, x: Inputs) -> Tensor:
        """Return the raw outputs [B, K]; B may differ between processes."""
        self.before()
        found: Tensor = self.inner(x)
        return found

    @property
    def held(self) -> int:
        """Count of the weights that this process holds."""
        return sum(_local(weight).numel() for weight in self.inner.parameters())


def _local(weight: Any) -> Tensor:
    found: Tensor = weight.to_local() if hasattr(weight, "to_local") else weight
    return found


def _sharded(module: nn.Module, device: torch.device, world: int) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import Shard

    mesh = init_device_mesh(device.type, (world,))

    def place(weight: nn.Parameter) -> Shard | None:
        # By default the first dimension is cut, which leaves a single row to one process alone.
        even = [dim for dim, size in enumerate(weight.shape) if size and size % world == 0]
        return Shard(even[0]) if even and even[0] else None

    module.requires_grad_(requires_grad=False)
    for block in [*blocks(module), module]:
        fully_shard(block, mesh=mesh, reshard_after_forward=True, shard_placement_fn=place)
    return module


def blocks(module: nn.Module) -> list[nn.Module]:
    """Return the parts of a network to gather one after the other; no weight is in two of them.

    They are the largest modules of at most a sixteenth of all weights, and single layers.
    Attention reads the weights of its own layers, so it stays whole.
    """
    most = _BLOCK * sum(weight.numel() for weight in module.parameters())
    found: list[nn.Module] = []
    taken: set[int] = set()

    def visit(part: nn.Module) -> None:
        weights = {id(weight): weight.numel() for weight in part.parameters()}
        if not weights or taken & set(weights):
            return  # tied weights stay with the block that has them, or with the whole
        whole = isinstance(part, nn.MultiheadAttention) or not list(part.children())
        lists = isinstance(part, nn.ModuleList | nn.ModuleDict)
        if whole or (sum(weights.values()) <= most and not lists):
            found.append(part)
            taken.update(weights)
            return
        for child in part.children():
            visit(child)

    for child in module.children():
        visit(child)
    return found
