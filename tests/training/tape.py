"""A graph for CPUs, as strict as a CUDA graph: it takes operations down and does them again.

Each operation is repeated on the very tensors, and with the very Python values, that it had when it
was taken down, and writes its results to the very memory. So a number that Python changes from step
to step, or a tensor that a step makes anew, is as wrong here as it would be in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.entries: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func._schema.name
        assert name not in ("aten::_local_scalar_dense", "aten::nonzero"), f"{name} is captured"
        out = func(*args, **(kwargs or {}))
        mine = {v.untyped_storage().data_ptr() for v in tensors((args, kwargs))}
        # Views and results in place lie in memory that is written anyway.
        new = [v for v in tensors(out) if v.untyped_storage().data_ptr() not in mine]
        changes = func._schema.is_mutable
        if new or changes:
            self.entries.append((func, args, kwargs or {}, new))
        return out


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class TapeGraph:
    """A graph whose replay repeats the operations of the capture."""

    replays = 0

    def __init__(self, device: torch.device | None = None) -> None:
        self.tape = _Tape()

    def capture(self, body: Callable[[], None]) -> None:
        for _ in range(2):
            body()
        with self.tape:
            body()

    @torch.no_grad()
    def replay(self) -> None:
        TapeGraph.replays += 1
        for func, args, kwargs, out in self.tape.entries:
            found = func(*args, **kwargs)
            if out:
                made = [v for v in tensors(found) if not any(v is old for old in out)]
                for old, new in zip(out, made, strict=True):
                    old.copy_(new)
