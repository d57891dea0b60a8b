"""The stored examples themselves."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from extracurricular import rng
from extracurricular.data.base import Data
from extracurricular.samplers.base import SAMPLERS, Batch, Seeded
from extracurricular.tree import tree_map


@SAMPLERS.register("empirical")
@dataclass(frozen=True)
class Empirical(Seeded):
    """Training examples, each once an epoch, in an order of its own for each epoch.

    Ids [e·N, (e + 1)·N) are a permutation of the N examples, and still each id alone decides its
    example (:func:`extracurricular.rng.permuted`).

    Args:
        data: The data set; its tensors lie where batches are wanted.
        seed: Seed of the orders.
    """

    data: Data
    seed: int = 0

    def __call__(self, ids: Tensor) -> Batch:
        """Draw examples."""
        train = self.data.train
        index = rng.permuted(len(train), self.seed, ids, self.stream("order"))
        x = self.data.inputs(tree_map(lambda v: v.index_select(0, index), train.x))
        y = None if train.y is None else self.data.targets(train.y.index_select(0, index))
        task = self.data.task
        return Batch(ids, x, y, task.size if task.kind == "classification" else None)
