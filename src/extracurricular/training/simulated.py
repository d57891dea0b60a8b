"""Simulated 8-bit arithmetic in training: what is exported is what was trained.

The scheme is that of the exporter (:mod:`extracurricular.export.quantise`): weights by output
channel and symmetric, the inputs and outputs of convolutions and linear layers by tensor, all
other operators in floating point. Rounding passes gradients on as they are, and none where a value
is cut off (Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", section 3). It is made of torch's own ``fake_quantize``
operators; the network, its names and its weights stay as they are.

Rounding sets in halfway: the first half of the training is that of the same student in floating
point, to the last bit, in which ranges are only watched. A network that is rounded from its first
step on, while its values still grow, learns worse (our choice).
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

# A range widens at once, and narrows by so much of the way at each step. A mean over steps, as in
# the paper, section 3.1, would cut off what grows.
_NARROW = 0.01
HALFWAY = 0.5
"""The part of the training before rounding sets in."""
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
        self.student = student
        self.layers = {n: part for n, part in student.named_modules() if isinstance(part, _LAYERS)}
        device = next(student.parameters()).device
        parts = dict(student.named_modules())
        # The ranges of inputs and outputs, [2, 2], and whether any value was seen.
        self.ranges = {name: torch.zeros(2, 2, device=device) for name in self.layers}
        self.seen = {name: torch.zeros(2, device=device) for name in self.layers}
        self.on = torch.ones((), device=device)
        self._hooks: list[Any] = []
        for name, layer in self.layers.items():
            self._hooks.append(layer.register_forward_pre_hook(self._input_hook(name)))
            last = parts[folded[name]] if name in folded else layer
            self._hooks.append(last.register_forward_hook(self._output_hook(name)))
            # It hides the method of the class until it is taken away.
            layer.__dict__["forward"] = _with_rounded_weights(layer, self.on)

    def _input_hook(self, name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, given: tuple[Any, ...]) -> Any:
            return (self._rounded(given[0], name, 0), *given[1:])

        return hook

    def _output_hook(self, name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, given: Any, output: Tensor) -> Tensor:
            return self._rounded(output, name, 1)

        return hook

    def _rounded(self, values: Tensor, name: str, side: int) -> Tensor:
        """Return values as 8 bits hold them, after the range has moved towards them."""
        real = values.float()
        # A layer that is frozen is in evaluation mode, but its range is watched.
        if self.student.training:
            with torch.no_grad():
                low, high = real.aminmax()
                kept, known = self.ranges[name][side], self.seen[name][side]
                # The first values set the range. No step asks the device which these are.
                near = kept + (1 - known + known * _NARROW) * (torch.stack([low, high]) - kept)
                kept[0] = torch.minimum(low, near[0])
                kept[1] = torch.maximum(high, near[1])
                self.seen[name][side] = 1.0
        scale, zero = scale_of(self.ranges[name][side])
        done = torch.fake_quantize_per_tensor_affine(real, scale, zero, LOWEST, HIGHEST)
        rounds = (self.on > 0) & (self.seen[name][side] > 0)
        return torch.where(rounds, done, real).to(values.dtype)

    def at(self, step: int, steps: int) -> None:
        """Say which step of a training comes next; rounding sets in halfway."""
        self.on.fill_(float(step >= HALFWAY * steps))

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


def _with_rounded_weights(layer: nn.Module, on: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the forward function of a layer, with weights as 8 bits hold them where it is on."""

    def forward(x: Tensor) -> Tensor:
        own: Tensor = layer.weight  # type: ignore[assignment]
        weight = torch.where(on > 0, rounded_weights(own), own)
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
