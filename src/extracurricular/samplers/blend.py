"""Draw from several samplers in given proportions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from extracurricular import rng
from extracurricular.inputs import Batch, is_static, leaves, soft_labels, tree_map
from extracurricular.samplers.base import Sampler, Seeded, announce


@dataclass(frozen=True)
class Blend(Seeded):
    """Take each draw from one of several samplers, which the draw's id chooses.

    Args:
        children: Samplers by name. They must give inputs of the same shapes.
        weights: Share of the draws of each, by the same names, in any unit: at least 0, not all 0.
        seed: Seed of the choice.

    Batches have labels where every child gives them (soft labels if any child's are soft), and no
    labels otherwise, so their fields do not depend on which children were chosen.
    """

    children: dict[str, Sampler]
    weights: dict[str, float]
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        if set(self.children) != set(self.weights):
            raise ValueError(
                f"weights are given for {sorted(self.weights)}, "
                f"but the samplers are {sorted(self.children)}"
            )
        check_weights(self.weights)

    @property
    def asks(self) -> float:
        """How many times a teacher is asked for one draw, on average."""
        total = sum(self.weights.values())
        parts = ((child, self.weights[name] / total) for name, child in self.children.items())
        return sum(share * getattr(child, "asks", 0.0) for child, share in parts)

    def announce(self, ids: Tensor) -> None:
        """Prepare for draws with these ids, which come soon."""
        for child, place in zip(self.children.values(), self._places(ids), strict=True):
            announce(child, ids[place])

    @cached_property
    def _edges(self) -> list[float]:
        weights = torch.tensor([self.weights[name] for name in self.children], dtype=torch.float64)
        edges: list[float] = (weights.cumsum(0) / weights.sum())[:-1].float().tolist()
        return edges

    def _choice(self, ids: Tensor) -> Tensor:
        """Return the number of the child that each id chooses, int64, [B]."""
        number = rng.uniform(self.seed, ids, self.stream("choice"))
        # Numbers, as a tensor of edges would have to be copied to the device.
        choice = torch.zeros_like(ids)
        for edge in self._edges:
            choice += number >= edge
        return choice

    def _places(self, ids: Tensor) -> list[Tensor]:
        """Return the places of the draws that each child gives."""
        choice = self._choice(ids)
        return [(choice == k).nonzero().squeeze(1) for k in range(len(self.children))]

    def __call__(self, ids: Tensor) -> Batch:
        """Draw examples.

        In the masked selection every child makes every draw, and the id's choice is kept.
        """
        if is_static(ids) and self.capturable:
            parts = [child(ids) for child in self.children.values()]
            check_shapes(self.children, parts)
            return joined(ids, parts, masked(self._choice(ids)))
        places = self._places(ids)
        # A child that no id chose still draws an empty batch, which shows its fields and shapes.
        parts = [
            child(ids[place]) for child, place in zip(self.children.values(), places, strict=True)
        ]
        check_shapes(self.children, parts)
        order = torch.cat(places).argsort()
        return joined(ids, parts, lambda *tensors: torch.cat(tensors).index_select(0, order))


def check_shapes(children: Mapping[str, Sampler], parts: list[Batch]) -> None:
    """Refuse samplers whose examples differ in shape.

    Raises:
        ValueError: They do; the sentence names two of them.
    """
    shapes = [{k: tuple(v.shape[1:]) for k, v in leaves(part.x).items()} for part in parts]
    for name, shape in zip(children, shapes, strict=True):
        if shape != shapes[0]:
            raise ValueError(
                f"the samplers of a blend differ in the shape of examples: {name!r} gives "
                f"{shape}, {next(iter(children))!r} gives {shapes[0]}"
            )


def check_weights(weights: Mapping[str, float]) -> None:
    """Refuse weights that are not proportions.

    Raises:
        ValueError: A weight is negative or not finite, or none is positive.
    """
    for name, weight in weights.items():
        if not 0 <= weight < float("inf"):
            raise ValueError(f"the weight of {name!r} is {weight}; it must be at least 0")
    if not sum(weights.values()) > 0:
        raise ValueError("the weights are all 0; at least one must be greater than 0")


def joined(ids: Tensor, parts: list[Batch], join: Callable[..., Tensor]) -> Batch:
    """Make one batch of those of the children, by a function of their tensors."""
    x = tree_map(join, parts[0].x, *(part.x for part in parts[1:]))
    y, weight = _labels(parts), _weights(parts)
    return Batch(
        ids,
        x,
        None if y is None else join(*y),
        parts[0].classes,
        None if weight is None else join(*weight),
    )


def masked(choice: Tensor) -> Callable[..., Tensor]:
    """Return a function that takes each row from the tensor that the row chooses."""

    def join(*tensors: Tensor) -> Tensor:
        kept = tensors[0]
        for k, other in enumerate(tensors[1:], 1):
            chosen = (choice == k).view(-1, *[1] * (other.ndim - 1))
            kept = torch.where(chosen, other, kept)
        return kept

    return join


def _labels(parts: list[Batch]) -> list[Tensor] | None:
    labels = [part.y for part in parts if part.y is not None]
    if len(labels) < len(parts):
        return None
    if any(y.is_floating_point() for y in labels):
        labels = [soft_labels(y, part.classes) for y, part in zip(labels, parts, strict=True)]
    return labels


def _weights(parts: list[Batch]) -> list[Tensor] | None:
    if all(part.weight is None for part in parts):
        return None
    return [
        torch.ones(len(part), device=part.ids.device) if part.weight is None else part.weight
        for part in parts
    ]
