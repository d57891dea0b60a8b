"""Draw from several samplers in given proportions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from extracurricular import rng
from extracurricular.inputs import Batch, is_static, leaves, soft_labels, tree_map
from extracurricular.samplers.base import Sampler, Seeded, announce, looked_up
from extracurricular.samplers.moving import PLACES, Moving, Table, extremes


@dataclass(frozen=True)
class Blend(Seeded):
    """Take each draw from one of several samplers, which the draw's id chooses.

    Args:
        children: Samplers by name. They must give inputs of the same shapes.
        weights: Share of the draws of each, by the same names, in any unit: at least 0, not all 0.
            They may move over the training.
        seed: Seed of the choice.

    Batches have labels where every child gives them (soft labels if any child's are soft), and no
    labels otherwise, so their fields do not depend on which children were chosen.
    """

    children: dict[str, Sampler]
    weights: dict[str, float | Moving]
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
        shares = (self._table / self._table.sum(1, keepdim=True)).mean(0).tolist()
        parts = zip(self.children.values(), shares, strict=True)
        return float(sum(share * getattr(child, "asks", 0.0) for child, share in parts))

    def announce(self, ids: Tensor) -> None:
        """Prepare for draws with these ids, which come soon."""
        for child, place in zip(self.children.values(), self._places(ids), strict=True):
            announce(child, ids[place])

    @cached_property
    def _table(self) -> Tensor:
        return weight_table([self.weights[name] for name in self.children])

    @cached_property
    def _edges(self) -> list[float] | Table:
        edges = (self._table.cumsum(1) / self._table.sum(1, keepdim=True))[:, :-1]
        return Table(edges) if len(edges) > 1 else edges[0].float().tolist()

    def _choice(self, ids: Tensor) -> Tensor:
        """Return the number of the child that each id chooses, int64, [B]."""
        number = rng.uniform(self.seed, ids, self.stream("choice"))
        # Numbers, as a tensor of edges would have to be copied to the device.
        choice = torch.zeros_like(ids)
        edges = self._edges
        if isinstance(edges, Table):
            assert self.span is not None
            return choice + (number.unsqueeze(1) >= edges.at(ids, self.span)).sum(1)
        for edge in edges:
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
        return gathered(self.children, ids, ids, self._places(ids))

    def look_up(self, ids: Tensor, table: Callable[[Sampler], Tensor]) -> Tensor:
        """Return what tables of stored examples have of each draw's, [B, …]."""
        parts = [looked_up(child, ids, table) for child in self.children.values()]
        return masked(self._choice(ids))(*parts)


def gathered(
    children: Mapping[str, Sampler], ids: Tensor, inner: Tensor, places: list[Tensor]
) -> Batch:
    """Draw each example from one of several samplers.

    Args:
        children: The samplers by name.
        ids: Ids of the batch, int64, [B].
        inner: The ids by which the samplers draw, int64, [B].
        places: For each sampler, the places in the batch that it fills.
    """
    # A child that gives no example still draws an empty batch, which shows its fields and shapes.
    parts = [child(inner[place]) for child, place in zip(children.values(), places, strict=True)]
    check_shapes(children, parts)
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


def weight_table(weights: Sequence[float | Moving]) -> Tensor:
    """Return K weights at the places of a training, float64, [P, K], on the CPU.

    P is 1 if no weight moves, since all places are alike then.
    """
    moves = any(isinstance(weight, Moving) for weight in weights)
    rows = [
        weight.values if isinstance(weight, Moving) else [weight] * (PLACES if moves else 1)
        for weight in weights
    ]
    return torch.tensor(rows, dtype=torch.float64).T


def check_weights(weights: Mapping[str, float | Moving]) -> None:
    """Refuse weights that are not proportions.

    Raises:
        ValueError: A weight is negative or not finite, or none is positive,
            somewhere in the training.
    """
    for name, weight in weights.items():
        if not all(0 <= value < float("inf") for value in extremes(weight)):
            raise ValueError(f"the weight of {name!r} is {weight}; it must be at least 0")
    if not bool((weight_table(list(weights.values())).sum(1) > 0).all()):
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
        parts[0].binary,
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
