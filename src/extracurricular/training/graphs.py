"""Work on fixed memory that is captured once and replayed: a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

# Runs before a capture, in which libraries choose their kernels and buffers find their place.
_WARM_UP = 3


class Graph(Protocol):
    """A piece of work that can be done again without Python."""

    def capture(self, body: Callable[[], None]) -> None:
        """Take down the work of ``body``, which may run any number of times meanwhile.

        Args:
            body: Reads and writes tensors of fixed addresses, and asks the host nothing (law 8).

        Raises:
            RuntimeError: The device refuses to capture the work.
        """
        ...

    def replay(self) -> None:
        """Do the work once more; this may return before it is done."""
        ...


class CudaGraph:
    """A CUDA graph.

    Args:
        device: The CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._graph = torch.cuda.CUDAGraph()
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def capture(self, body: Callable[[], None]) -> None:
        """Run ``body`` some times on a stream of its own, then capture it there."""
        current = torch.cuda.current_stream(self._stream.device)
        # Casts of weights that autocast keeps would lie outside of the graph's memory. Contexts of
        # autocast that begin from here on inherit this.
        cached = torch.is_autocast_cache_enabled()
        torch.set_autocast_cache_enabled(False)
        try:
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                for _ in range(_WARM_UP):
                    body()
            current.wait_stream(self._stream)
            torch.cuda.synchronize(self._stream.device)
            # Other threads of the process may go on using the device.
            with torch.cuda.graph(
                self._graph, stream=self._stream, capture_error_mode="thread_local"
            ):
                body()
        finally:
            torch.set_autocast_cache_enabled(cached)

    def replay(self) -> None:
        """Launch the graph on the current stream."""
        self._graph.replay()


def has_graphs(device: torch.device) -> bool:
    """Return whether a device can capture work."""
    return device.type == "cuda"


def new_graph(device: torch.device) -> Graph:
    """Return an empty graph for a device that can capture work."""
    return CudaGraph(device)
