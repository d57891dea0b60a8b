"""A fully connected network for any input."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from extracurricular.errors import known_names
from extracurricular.models.base import (
    MODELS,
    Place,
    Shapes,
    check_at_least,
    check_dropout,
    parts_of,
)
from extracurricular.models.heads import Head, head_layers

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}
HIDDEN = [64, 64]


class FlattenTensor(nn.Module):
    """A layer that maps one tensor ``[B, *shape]`` to ``[B, size]``."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.size = math.prod(shape)

    def forward(self, x: Tensor) -> Tensor:
        """Return the flattened examples."""
        return x.reshape(x.shape[0], self.size)


class FlattenParts(nn.Module):
    """A layer that joins a dict or tuple of ``[B, *shape]`` to ``[B, size]``, in given order."""

    def __init__(self, shapes: Mapping[Place, tuple[int, ...]]) -> None:
        super().__init__()
        self.sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        self.size = sum(self.sizes.values())

    def forward(self, x: Any) -> Tensor:
        """Return the flattened and concatenated examples."""
        parts = [x[name].reshape(x[name].shape[0], size) for name, size in self.sizes.items()]
        return torch.cat(parts, dim=1)


@MODELS.register("mlp")
def mlp(
    inputs: Shapes,
    outputs: int,
    *,
    hidden: list[int] = HIDDEN,
    activation: str = "relu",
    dropout: float = 0.0,
    norm: bool = False,
    head: Head = "moments",
) -> nn.Module:
    """Build a multilayer perceptron; a dict or tuple is flattened and concatenated.

    Args:
        inputs: Any shape, or dict or tuple of shapes.
        outputs: Number of outputs.
        hidden: Units of each hidden layer; an empty list gives a linear model.
        activation: ``relu``, ``gelu``, ``silu`` or ``tanh``.
        dropout: Share of units dropped after each hidden layer.
        norm: Whether to put a layer norm (Ba et al. 2016) before each activation. It is no batch
            norm, so an example's output never depends on the others of its batch, nor on its size.
        head: ``moments``, or ``natural`` for a regression by natural parameters
            (:mod:`~extracurricular.models.heads`).

    Raises:
        ValueError: The input is an empty dict, or a setting is out of range.
    """
    check_at_least(1, outputs=outputs)
    check_dropout(dropout)
    if any(units < 1 for units in hidden):
        raise ValueError(f"hidden is {list(hidden)}; every layer should have at least 1 unit")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}; {known_names(activation, ACTIVATIONS)}")
    parts = parts_of(inputs)
    if parts == {}:
        raise ValueError("takes at least one tensor, but the input is {}")

    flatten: FlattenParts | FlattenTensor
    flatten = FlattenTensor(inputs) if parts is None else FlattenParts(parts)  # type: ignore[arg-type]
    layers: list[nn.Module] = [flatten]
    width = flatten.size
    for units in hidden:
        layers.append(nn.Linear(width, units))
        if norm:
            layers.append(nn.LayerNorm(units))
        layers.append(ACTIVATIONS[activation]())
        if dropout:
            layers.append(nn.Dropout(dropout))
        width = units
    layers.append(nn.Linear(width, outputs))
    return nn.Sequential(*layers, *head_layers(head, outputs))
