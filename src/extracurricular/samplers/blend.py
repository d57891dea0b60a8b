"""Draw from several samplers in given proportions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from extracurricular import rng
from extracurricular.inputs import Batch, leaves, soft_labels, tree_map
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

    def _places(self, ids: Tensor) -> list[Tensor]:
        """Return the places of the draws that each child gives."""
        weights = torch.tensor([self.weights[name] for name in self.children], dtype=torch.float64)
        edges = (weights.cumsum(0) / weights.sum())[:-1].float().to(ids.device)
        choice = torch.bucketize(
            rng.uniform(self.seed, ids, self.stream("choice")), edges, right=True
        )
        return [(choice == k).nonzero().squeeze(1) for k in range(len(self.children))]

    def __call__(self, ids: Tensor) -> Batch:
        """Draw examples."""
        places = self._places(ids)
        # A child that no id chose still draws an empty batch, which shows its fields and shapes.
        parts = [
            child(ids[place]) for child, place in zip(self.children.values(), places, strict=True)
        ]
        shapes = [{k: tuple(v.shape[1:]) for k, v in leaves(part.x).items()} for part in parts]
        for name, shape in zip(self.children, shapes, strict=True):
            if shape != shapes[0]:
                raise ValueError(
                    f"the samplers of a blend differ in the shape of examples: {name!r} gives "
                    f"{shape}, {next(iter(self.children))!r} gives {shapes[0]}"
                )
        order = torch.cat(places).argsort()

        def gathered(*tensors: Tensor) -> Tensor:
            return torch.cat(tensors).index_select(0, order)

        return Batch(
            ids,
            tree_map(gathered, parts[0].x, *(part.x for part in parts[1:])),
            _labels(parts, order),
            parts[0].classes,
            _weights(parts, order),
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


def _labels(parts: list[Batch], order: Tensor) -> Tensor | None:
    labels = [part.y for part in parts if part.y is not None]
    if len(labels) < len(parts):
        return None
    if any(y.is_floating_point() for y in labels):
        labels = [soft_labels(y, part.classes) for y, part in zip(labels, parts, strict=True)]
    return torch.cat(labels).index_select(0, order)


def _weights(parts: list[Batch], order: Tensor) -> Tensor | None:
    if all(part.weight is None for part in parts):
        return None
    weights = [
        torch.ones(len(part), device=order.device) if part.weight is None else part.weight
        for part in parts
    ]
    return torch.cat(weights).index_select(0, order)
