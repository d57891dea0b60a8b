"""Draw the stored training examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from extracurricular import rng
from extracurricular.data.base import Data
from extracurricular.data.images.decode import Crop
from extracurricular.data.images.stream import streamed
from extracurricular.errors import RecipeError
from extracurricular.inputs import Batch, Inputs, is_static, tree_map
from extracurricular.samplers.base import SAMPLERS, Sampler, Seeded

# The obstacle of samplers whose images workers decode.
STREAMED = "its images are streamed from their files"


@SAMPLERS.register("empirical")
@dataclass(frozen=True)
class Empirical(Seeded):
    """Draw each training example once an epoch, in an order of its own for each epoch.

    If ``data.drawn`` names some training examples, only these are drawn.

    Ids [e·N, (e + 1)·N) are a permutation of the N examples, in which each id alone decides its
    example (:func:`extracurricular.rng.permuted`).

    Args:
        data: The data set, on the device where batches are wanted.
        seed: Seed of the orders.
    """

    data: Data
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the data."""
        if not isinstance(self.data, Data):
            raise RecipeError(
                "data", f"is a {type(self.data).__name__}; it must be a Data, such as "
                "xcl.from_arrays(x, y) makes"
            )  # fmt: skip

    @property
    def obstacle(self) -> str | None:
        """The reason why a CUDA graph cannot hold the draws, as a clause; None if it can."""
        return None if streamed(self.data.train.x) is None else STREAMED

    def __call__(self, ids: Tensor) -> Batch:
        """Draw examples."""
        return self.take(ids)

    def announce(self, ids: Tensor) -> None:
        """Prepare for draws with these ids, which come soon."""
        self.prepare(ids)

    def index(self, ids: Tensor) -> Tensor:
        """Return the number of each draw's training example, int64, [B]."""
        drawn, static = self.data.drawn, is_static(ids) and self.capturable
        count = len(self.data.train) if drawn is None else len(drawn)
        place = rng.permuted(count, self.seed, ids, self.stream("order"), static)
        return place if drawn is None else drawn.index_select(0, place)

    def look_up(self, ids: Tensor, table: Callable[[Sampler], Tensor]) -> Tensor:
        """Return what a table of the training examples has of each draw's, [B, …]."""
        return table(self).index_select(0, self.index(ids))

    def take(self, ids: Tensor, crop: Crop | None = None, words: Tensor | None = None) -> Batch:
        """Draw examples; with ``crop``, random parts of streamed images.

        An image that cannot be read and may be left out is replaced by another one, which the
        draw's id chooses, with its own label.

        Args:
            ids: The draw ids, [B].
            crop, words: As :meth:`extracurricular.data.images.stream.Streamed.read` takes them.
        """
        train, task = self.data.train, self.data.task
        index = self.index(ids)
        images = streamed(train.x)
        x: Inputs
        if images is None:
            x = self.data.inputs(tree_map(lambda v: v.index_select(0, index), train.x))
        else:
            scale = self.data.x_scale[""]
            x, index = images.read(
                index, crop, words, lambda bad, k: self._instead(ids, bad, k), scale
            )
        y = None if train.y is None else self.data.targets(train.y.index_select(0, index))
        return Batch(ids, x, y, task.classes, binary=task.binary)

    def prepare(self, ids: Tensor, crop: Crop | None = None, words: Tensor | None = None) -> None:
        """Let workers decode the images that :meth:`take` will give, where they are streamed."""
        images = streamed(self.data.train.x)
        if images is not None:
            images.announce(self.index(ids), crop, words)

    def _instead(self, ids: Tensor, bad: Tensor, k: int) -> Tensor:
        at_fault = ids[bad.to(ids.device)]
        drawn, stream = self.data.drawn, self.stream(f"instead.{k}")
        count = len(self.data.train) if drawn is None else len(drawn)
        place = rng.integer(count, self.seed, at_fault, stream)
        return place if drawn is None else drawn[place]
