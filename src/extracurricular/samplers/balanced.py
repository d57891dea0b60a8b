"""Draw training examples of every class equally often, however rare it is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from extracurricular import rng
from extracurricular.data.base import Data
from extracurricular.inputs import hard_labels, is_static
from extracurricular.samplers.base import SAMPLERS
from extracurricular.samplers.moving import Moving, at, extremes
from extracurricular.samplers.stored import Empirical


@SAMPLERS.register("balanced")
@dataclass(frozen=True)
class Balanced(Empirical):
    """Draw each class equally often, and within it an example at random.

    Of K classes with training examples, draws [e·K, (e + 1)·K) have one of each, in an order of
    their own. Within a class examples are drawn with replacement, so one of a rare class comes
    again and again: draws that differ each time (augment, mixup, noise) should follow.

    Args:
        data: The data set, on the device where batches are wanted.
        seed: Seed of the choices.
        of: Share of the draws that are balanced, in [0, 1]; the others come as ``empirical`` draws
            them. It may move over the training.

    Raises:
        ValueError: The share is out of its range, or the data have no classes or no labels.
    """

    data: Data
    seed: int = 0
    of: float | Moving = 1.0

    def __post_init__(self) -> None:
        """Check the settings, and sort the examples by their class."""
        if not all(0 <= value <= 1 for value in extremes(self.of)):
            raise ValueError(f"of is {self.of}; it must be a share between 0 and 1")
        if self.data.task.kind != "classification":
            raise ValueError("balanced draws classes equally often, and these data have none")
        if self.data.train.y is None:
            raise ValueError("balanced draws classes equally often, which needs training labels")
        _ = self._sorted  # sorting asks the device, which no draw may

    @cached_property
    def _sorted(self) -> tuple[Tensor, Tensor, Tensor]:
        """The examples by class; and of each class that has any, the first place and the number."""
        y, drawn = self.data.train.y, self.data.drawn
        assert y is not None
        labels = hard_labels(y if drawn is None else y.index_select(0, drawn))
        order = labels.argsort(stable=True)
        counts = torch.bincount(labels, minlength=self.data.task.size)
        counts = counts[counts > 0]
        return order if drawn is None else drawn[order], counts.cumsum(0) - counts, counts

    def index(self, ids: Tensor) -> Tensor:
        """Return the number of each draw's training example, int64, [B]."""
        order, starts, counts = self._sorted
        static = is_static(ids) and self.capturable
        group = rng.permuted(len(counts), self.seed, ids, self.stream("class"), static)
        place = rng.derive(self.seed, ids, self.stream("example")) % counts.index_select(0, group)
        found = order.index_select(0, starts.index_select(0, group) + place)
        if not isinstance(self.of, Moving) and self.of == 1:
            return found
        even = rng.uniform(self.seed, ids, self.stream("even")) < at(self.of, ids)
        return torch.where(even, found, super().index(ids))
