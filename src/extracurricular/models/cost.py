"""What a network costs: multiply-adds, counted, and seconds on this machine, measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from extracurricular.models.base import Shapes, parts_of
from extracurricular.tree import Inputs


def example_inputs(inputs: Shapes, batch: int, device: str = "cpu") -> Inputs:
    """Return zeros of the given shapes for ``batch`` examples."""

    def zeros(shape: tuple[int, ...]) -> Tensor:
        return torch.zeros(batch, *shape, device=device)

    parts = parts_of(inputs)
    if parts is None:
        return zeros(tuple(inputs))  # type: ignore[arg-type]
    if isinstance(inputs, Mapping):
        return {str(name): zeros(shape) for name, shape in parts.items()}
    return tuple(zeros(shape) for shape in parts.values())


@torch.no_grad()
def multiply_adds(module: nn.Module, inputs: Shapes) -> int:
    """Return the multiply-adds of convolutions and matrix products for one example.

    Nothing is computed where the module is on the device ``meta``; it is left in its mode. Sums,
    norms and activations are not counted, as in the literature.
    """
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    training = module.training
    module.eval()
    try:
        with FlopCounterMode(display=False) as counter:
            module(example_inputs(inputs, 1, str(device)))
    finally:
        module.train(training)
    # It counts a multiplication and an addition as two.
    return int(counter.get_total_flops()) // 2


@torch.inference_mode()
def latency(module: nn.Module, inputs: Shapes, batch: int, seconds: float = 1.0) -> float:
    """Return the median time of a call in evaluation mode, in seconds.

    Args:
        module: The network, on the CPU.
        inputs: Shape of one example.
        batch: Examples in a call.
        seconds: Time to spend, after two calls to warm up; at least three calls count.
    """
    module.eval()
    x = example_inputs(inputs, batch)
    for _ in range(2):
        module(x)
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        started = time.perf_counter()
        module(x)
        times.append(time.perf_counter() - started)
    return statistics.median(times)
