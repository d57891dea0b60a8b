"""A fully connected network on periodic embeddings of numbers, for tables."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from extracurricular.errors import known_names
from extracurricular.models.base import MODELS, Shapes, check_at_least, check_dropout, parts_of
from extracurricular.models.heads import Head, head_layers
from extracurricular.models.mlp import ACTIVATIONS, FlattenParts, FlattenTensor

HIDDEN = [52, 44]


class Periodic(nn.Module):
    """A layer that puts an embedding of each number of ``[B, width]`` beside the numbers.

    A number x becomes ReLU(A · [sin 2πcx, cos 2πcx] + b), with trained frequencies c of its own and
    a linear map that all numbers share.

    Args:
        width: Numbers of an example.
        frequencies: Frequencies of each number.
        size: Numbers of an embedding.
        scale: Standard deviation of the first frequencies, in periods for each standard deviation
            of the input.
    """

    def __init__(self, width: int, frequencies: int, size: int, scale: float) -> None:
        super().__init__()
        self.width, self.size = width, width * (1 + size)
        # One row, so that weight decay, which is for matrices, leaves them alone.
        self.frequencies = nn.Parameter(torch.randn(width * frequencies) * scale)
        self.embedding = nn.Linear(2 * frequencies, size)

    def forward(self, x: Tensor) -> Tensor:
        """Return the numbers and their embeddings, [B, size]."""
        angle = 2 * math.pi * self.frequencies.reshape(self.width, -1) * x[..., None]
        waves = torch.cat([angle.sin(), angle.cos()], dim=-1)
        return torch.cat([x, F.relu(self.embedding(waves)).flatten(1)], dim=1)


@MODELS.register("periodic_mlp")
def periodic_mlp(
    inputs: Shapes,
    outputs: int,
    *,
    hidden: list[int] = HIDDEN,
    frequencies: int = 8,
    size: int = 4,
    scale: float = 0.3,
    activation: str = "silu",
    dropout: float = 0.0,
    head: Head = "moments",
) -> nn.Module:
    """Build a multilayer perceptron on periodic embeddings, for tables that trees learn better.

    A plain network is smooth in its columns and learns steps slowly. Embeddings of each number give
    it fine structure at once (Gorishniy, Rubachev and Babenko 2022, "On Embeddings for Numerical
    Features in Tabular Deep Learning", Sec. 3.3, in their form PLR with one map for all columns).

    Args:
        inputs: Any shape, or dict or tuple of shapes.
        outputs: Number of outputs.
        hidden: Units of each hidden layer.
        frequencies: Frequencies of each number.
        size: Numbers of an embedding.
        scale: Standard deviation of the first frequencies, in periods for each standard deviation
            of a column; larger for finer structure.
        activation: ``relu``, ``gelu``, ``silu`` or ``tanh``.
        dropout: Share of units dropped after each hidden layer.
        head: ``moments``, or ``natural`` for a regression by natural parameters
            (:mod:`~extracurricular.models.heads`).

    Raises:
        ValueError: The input is an empty dict, or a setting is out of range.
    """
    check_at_least(1, outputs=outputs, frequencies=frequencies, size=size)
    check_dropout(dropout)
    if any(units < 1 for units in hidden):
        raise ValueError(f"hidden is {list(hidden)}; every layer should have at least 1 unit")
    if not 0 < scale < math.inf:
        raise ValueError(f"scale is {scale}; it should be above 0 and finite")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}; {known_names(activation, ACTIVATIONS)}")
    parts: Any = parts_of(inputs)
    if parts == {}:
        raise ValueError("takes at least one tensor, but the input is {}")
    flatten: FlattenParts | FlattenTensor
    flatten = FlattenTensor(inputs) if parts is None else FlattenParts(parts)  # type: ignore[arg-type]
    embedded = Periodic(flatten.size, frequencies, size, scale)
    layers: list[nn.Module] = [flatten, embedded]
    width = embedded.size
    for units in hidden:
        layers += [nn.Linear(width, units), ACTIVATIONS[activation]()]
        layers += [nn.Dropout(dropout)] if dropout else []
        width = units
    layers.append(nn.Linear(width, outputs))
    return nn.Sequential(*layers, *head_layers(head, outputs))
