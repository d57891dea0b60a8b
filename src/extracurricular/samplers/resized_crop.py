"""Draw random parts of streamed images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from extracurricular import rng
from extracurricular.data.base import Data
from extracurricular.data.images.decode import Crop
from extracurricular.data.images.stream import streamed
from extracurricular.inputs import Batch
from extracurricular.samplers.base import SAMPLERS, Seeded
from extracurricular.samplers.stored import STREAMED, Empirical


@SAMPLERS.register("resized_crop")
@dataclass(frozen=True)
class ResizedCrop(Seeded):
    """Draw random parts of the training images, bring them to one size, and mirror half of them.

    Images come in the order of :class:`~extracurricular.samplers.Empirical` with the same seed. The
    worker that decodes an image draws its part, as only the worker knows its size
    (:func:`extracurricular.data.images.decode.random_box`); it uses bits that are a function of the
    draw's id.

    Args:
        data: A data set of streamed images.
        scale: Smallest and largest part of an image's area, in (0, 1].
        ratio: Smallest and largest width of the part as a multiple of its height, above 0.
        flip: Mirror half of the images left to right.
        seed: Seed of orders and parts.

    Raises:
        ValueError: A setting is out of its range, or the images are in memory, at one size.
    """

    data: Data
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings and the data."""
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(
                f"scale is {list(self.scale)}; it must be two parts in (0, 1], the smaller first"
            )
        if not 0 < self.ratio[0] <= self.ratio[1] < float("inf"):
            raise ValueError(
                f"ratio is {list(self.ratio)}; it must be two numbers above 0, the smaller first"
            )
        if streamed(self.data.train.x) is None:
            raise ValueError(
                f"resized_crop is for images that are streamed from their files, and those of data "
                f"{self.data.name!r} are in memory, at one size already; set stream: true in an "
                "imagefolder, or use augment"
            )

    @property
    def obstacle(self) -> str | None:
        """The reason why a CUDA graph cannot hold the draws, as a clause."""
        return STREAMED

    def __call__(self, ids: Tensor) -> Batch:
        """Draw examples."""
        return self._images.take(ids, self._crop, self._words(ids))

    def announce(self, ids: Tensor) -> None:
        """Prepare for draws with these ids, which come soon."""
        self._images.prepare(ids, self._crop, self._words(ids))

    @cached_property
    def _images(self) -> Empirical:
        return Empirical(self.data, self.seed)

    @cached_property
    def _crop(self) -> Crop:
        return Crop(self.scale, self.ratio, self.flip)

    def _words(self, ids: Tensor) -> Tensor:
        return rng.bits(self.seed, ids, self.stream("part"))
