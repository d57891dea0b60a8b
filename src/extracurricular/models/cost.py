"""The cost of a network: counted multiply-adds, and measured seconds on this machine."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from extracurricular.errors import RecipeError
from extracurricular.inputs import Inputs
from extracurricular.models.base import Shapes, build_model, parameter_count, parts_of


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

    On the device ``meta`` nothing is computed. The module keeps its mode. Sums, norms and
    activations are not counted, as in the literature.
    """
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    training = module.training
    module.eval()
    try:
        with FlopCounterMode(display=False) as counter:
            module(example_inputs(inputs, 1, str(device)))
    finally:
        module.train(training)
    # The counter counts a multiplication and an addition as two.
    return int(counter.get_total_flops()) // 2


@torch.inference_mode()
def latency(module: nn.Module, inputs: Shapes, batch: int, seconds: float = 1.0) -> float:
    """Return the median time of a call in evaluation mode, in seconds.

    Args:
        module: The network, on the CPU.
        inputs: Shape of one example.
        batch: Number of examples in a call.
        seconds: Time to spend, after two calls to warm up; at least three calls are timed.
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


@dataclass(frozen=True)
class Cost:
    """The cost of a network on this machine.

    Args:
        parameters: Number of trainable parameters.
        multiply_adds: Multiply-adds for one example.
        seconds: Seconds of a call, by the number of examples in it.
    """

    parameters: int
    multiply_adds: int
    seconds: dict[int, float]


def cost(
    spec: object,
    *,
    inputs: Shapes,
    outputs: int,
    batches: Sequence[int] = (1, 32),
    each: float = 1.0,
) -> Cost:
    """Build a network and measure its cost.

    Args:
        spec: ``name`` or ``{name: {setting: value}}``.
        inputs: Shape of one example, as for :func:`~extracurricular.models.build_model`.
        outputs: Number of raw outputs.
        batches: Numbers of examples per call to time.
        each: Seconds to spend on each of them.

    Raises:
        RecipeError: The name or a setting is wrong, or the network does not take such inputs.
    """
    module = build_model(spec, inputs=inputs, outputs=outputs, key="")
    try:
        count = multiply_adds(module, inputs)
    except RuntimeError as error:
        # An image can be too small for a network that halves it again and again.
        text = " ".join(str(error).split())
        raise RecipeError("--input", f"the network does not take it: {text}") from error
    seconds = {batch: latency(module, inputs, batch, each) for batch in batches}
    return Cost(parameter_count(module), count, seconds)


def read_shapes(texts: Sequence[str]) -> Shapes:
    """Read shapes as the command line has them: ``3x32x32``, or ``NAME=3x32x32`` each.

    Raises:
        RecipeError: A text is not of that form, or one of several has no name of its own.
    """
    found: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, equals, sizes = text.rpartition("=")
        if not re.fullmatch(r"[1-9][0-9]*(x[1-9][0-9]*)*", sizes) or (equals and not name):
            raise RecipeError("--input", f"is {text!r}; it should be like 3x32x32, or NAME=3x32x32")
        if name in found:
            which = f"{name!r} twice" if name else "two shapes without names"
            raise RecipeError("--input", f"has {which}; give each a name, as NAME=3x32x32")
        found[name] = tuple(int(size) for size in sizes.split("x"))
    if "" in found and len(found) > 1:
        raise RecipeError(
            "--input", "has a shape without a name; give each a name, as NAME=3x32x32"
        )
    return found.get("", found)
