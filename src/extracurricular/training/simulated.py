"""Simulated 8-bit arithmetic in training: what is exported is what was trained.

The scheme is that of the exporter (:mod:`extracurricular.export.quantise`): weights by output
channel and symmetric, the inputs and outputs of convolutions and linear layers by tensor, all
other operators in floating point. Rounding passes gradients on as they are, and none where a value
is cut off (Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", section 3). It is made of torch's own ``fake_quantize``
operators; the network, its names and its weights stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

LOWEST, HIGHEST = -128, 127
"""The numbers of 8 bits that activations take; weights leave out the lowest."""

# What a range keeps of itself at each step, as in the paper, section 3.1.
_KEEP = 0.99
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
Ranges = dict[str, dict[str, list[float]]]
"""The least and the largest value of each layer's ``input`` and ``output``, by the layer's name."""


class Simulated:
    """The layers of a student that compute as they will in 8 bits.

    Args:
        student: The network, on its device; its layers compute so until :meth:`stop`.
        folded: The layers whose batch norm the exporter folds into them, by name, each with the
            name of the norm (:func:`folded_norms`). Their output is that of the norm.
    """

    def __init__(self, student: nn.Module, folded: dict[str, str]) -> None:
        self.layers = {n: part for n, part in student.named_modules() if isinstance(part, _LAYERS)}
        device = next(student.parameters()).device
        parts = dict(student.named_modules())
        # The ranges of inputs and outputs, [2, 2], and whether any value was seen.
        self.ranges = {name: torch.zeros(2, 2, device=device) for name in self.layers}
        self.seen = {name: torch.zeros(2, device=device) for name in self.layers}
        self._hooks: list[Any] = []
        for name, layer in self.layers.items():
            self._hooks.append(layer.register_forward_pre_hook(self._input_hook(name)))
            last = parts[folded[name]] if name in folded else layer
            self._hooks.append(last.register_forward_hook(self._output_hook(name, layer)))
            # It hides the method of the class until it is taken away.
            layer.__dict__["forward"] = _with_rounded_weights(layer)

    def _input_hook(self, name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, given: tuple[Any, ...]) -> Any:
            return (self._rounded(given[0], name, 0, module.training), *given[1:])

        return hook

    def _output_hook(self, name: str, layer: nn.Module) -> Callable[..., Any]:
        def hook(module: nn.Module, given: Any, output: Tensor) -> Tensor:
            return self._rounded(output, name, 1, layer.training)

        return hook

    def _rounded(self, values: Tensor, name: str, side: int, learns: bool) -> Tensor:
        """Return values as 8 bits hold them, after the range has moved towards them."""
        real = values.float()
        if learns:
            with torch.no_grad():
                bounds = torch.stack(real.aminmax())
                # The first values set the range. No step asks the device which these are.
                keep = _KEEP * self.seen[name][side]
                self.ranges[name][side].mul_(keep).add_(bounds * (1 - keep))
                self.seen[name][side] = 1.0
        scale, zero = scale_of(self.ranges[name][side])
        done = torch.fake_quantize_per_tensor_affine(real, scale, zero, LOWEST, HIGHEST)
        return done.to(values.dtype)

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors that a step changes."""
        return [*self.ranges.values(), *self.seen.values()]

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Return what a checkpoint needs."""
        return {"ranges": self.ranges, "seen": self.seen}

    def restore(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Take over the state of a checkpoint."""
        for kind, own in (("ranges", self.ranges), ("seen", self.seen)):
            for name, value in own.items():
                value.copy_(state[kind][name])

    def found(self) -> Ranges:
        """Return the ranges as plain values, of the layers that were called."""
        return {
            name: dict(zip(("input", "output"), both.tolist(), strict=True))
            for name, both in self.ranges.items()
            if bool(self.seen[name].all())
        }

    def stop(self) -> None:
        """Let the layers compute in floating point again."""
        for hook in self._hooks:
            hook.remove()
        for layer in self.layers.values():
            layer.__dict__.pop("forward", None)


def scale_of(bounds: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scale and the number of 8 bits that stands for 0, for a range of activations.

    Args:
        bounds: Least and largest value, float32, [2]; the range is widened to hold 0.
    """
    low, high = bounds[0].clamp_max(0.0), bounds[1].clamp_min(0.0)
    scale = ((high - low) / (HIGHEST - LOWEST)).clamp_min(torch.finfo(torch.float32).tiny)
    zero = (LOWEST - low / scale).round().clamp(LOWEST, HIGHEST)
    return scale, zero.to(torch.int32)


def rounded_weights(weight: Tensor) -> Tensor:
    """Return weights [O, ...] as 8 bits hold them, with a scale for each output channel."""
    real = weight.float()
    most = real.detach().flatten(1).abs().amax(1)
    scale = (most / HIGHEST).clamp_min(torch.finfo(torch.float32).tiny)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(real, scale, zero, 0, -HIGHEST, HIGHEST).to(
        weight.dtype
    )


def _with_rounded_weights(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the forward function of a layer, with weights as 8 bits hold them."""

    def forward(x: Tensor) -> Tensor:
        weight = rounded_weights(layer.weight)  # type: ignore[arg-type]
        if isinstance(layer, nn.Linear):
            return F.linear(x, weight, layer.bias)
        return layer._conv_forward(x, weight, layer.bias)  # type: ignore[no-any-return, operator]

    return forward


@torch.no_grad()
def folded_norms(student: nn.Module, call: Callable[[], object]) -> dict[str, str]:
    """Return the layers whose output goes into a batch norm, with the name of that norm.

    Args:
        student: The network; its modes are put back.
        call: Calls it on some inputs.
    """
    outputs: dict[int, str] = {}
    kept: list[Tensor] = []  # an address is known only as long as its tensor lives
    found: dict[str, str] = {}
    hooks = []

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: Any, output: Tensor) -> None:
            kept.append(output)
            outputs[id(output)] = name

        return hook

    def look(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: tuple[Any, ...]) -> None:
            before = outputs.get(id(given[0]))
            if before is not None:
                found[before] = name

        return hook

    modes = [(part, part.training) for part in student.modules()]
    student.eval()
    try:
        for name, part in student.named_modules():
            if isinstance(part, _LAYERS):
                hooks.append(part.register_forward_hook(note(name)))
            elif isinstance(part, _BatchNorm):
                hooks.append(part.register_forward_pre_hook(look(name)))
        call()
    finally:
        for hook in hooks:
            hook.remove()
        for part, training in modes:
            part.training = training
    return found
