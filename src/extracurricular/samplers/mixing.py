"""Mix pairs of examples: mixup and CutMix.

Each method is a pure function of two batches (:func:`mixup_batch`) and a sampler that feeds it
pairs and numbers derived from the draw ids (:class:`Mixup`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from extracurricular import rng
from extracurricular.inputs import Batch, images, soft_labels, tree_map
from extracurricular.samplers.base import SAMPLERS, Sampler, Seeded, announce, check_child
from extracurricular.samplers.moving import Moving, at, extremes


def mixup_batch(first: Batch, second: Batch, share: Tensor) -> Batch:
    """Mix two batches, inputs and labels alike (Zhang et al. 2018, equation 1).

    Args:
        first, second: Batches of the same structure, B examples.
        share: Each example's share λ of the first, in [0, 1], float32, [B].

    Returns:
        λ of the first batch and 1 - λ of the second, with the ids of the first. Labels are mixed
        where both have them.
    """
    return _mixed(first, second, share, lambda a, b: _weighted(a, b, share))


def cutmix_batch(first: Batch, second: Batch, share: Tensor, centre: Tensor) -> Batch:
    """Paste a rectangle of the second batch's images into the first's, and mix labels by area.

    Args:
        first, second: Batches of the same structure with at least one image tensor.
        share: Area that the first should keep, in [0, 1], [B].
        centre: Centre (row, column) of the rectangle as a part of the height and width, [B, 2].

    Returns:
        The mixed batch (Yun et al. 2019, section 3.1), with the ids of the first. The image's
        border cuts the rectangle, and λ is then the area that the first did keep. Several image
        tensors get the same relative rectangle. The λ of the first image tensor mixes vectors and
        labels.
    """
    cut = (1 - share).clamp_min(0).sqrt()

    def edges(size: int, part: Tensor) -> tuple[Tensor, Tensor]:
        middle = (part * size).floor()
        half = (cut * size).floor() / 2
        return (middle - half).clamp(0, size), (middle + half).clamp(0, size)

    def inside(image: Tensor) -> tuple[Tensor, Tensor]:
        height, width = image.shape[-2:]
        top, bottom = edges(height, centre[:, 0])
        left, right = edges(width, centre[:, 1])
        rows = torch.arange(height, device=image.device)
        columns = torch.arange(width, device=image.device)
        in_rows = (rows >= top[:, None]) & (rows < bottom[:, None])
        in_columns = (columns >= left[:, None]) & (columns < right[:, None])
        return in_rows, in_columns

    in_rows, in_columns = inside(images(first.x)[0])
    kept = 1 - in_rows.float().mean(1) * in_columns.float().mean(1)

    def pasted(a: Tensor, b: Tensor) -> Tensor:
        if a.ndim != 4:
            return _weighted(a, b, kept)
        in_rows, in_columns = inside(a)
        return torch.where(in_rows[:, None, :, None] & in_columns[:, None, None, :], b, a)

    return _mixed(first, second, kept, pasted)


def _mixed(
    first: Batch, second: Batch, share: Tensor, mix: Callable[[Tensor, Tensor], Tensor]
) -> Batch:
    """Mix inputs by ``mix``, and labels and weights by the share [B] of the first."""
    y = weight = None
    if first.y is not None and second.y is not None:
        a, b = soft_labels(first.y, first.classes), soft_labels(second.y, second.classes)
        y = _weighted(a, b, share)
    if first.weight is not None or second.weight is not None:
        ones = torch.ones_like(share)
        a, b = (ones if batch.weight is None else batch.weight for batch in (first, second))
        weight = _weighted(a, b, share)
    x = tree_map(mix, first.x, second.x)
    return Batch(first.ids, x, y, first.classes, weight, first.binary)


def _weighted(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Return ``share`` [B] of ``a`` and the rest of ``b``, both [B, ...]."""
    return torch.lerp(b, a, share.view(-1, *[1] * (a.ndim - 1)))


@dataclass(frozen=True)
class _Paired(Seeded):
    """Base of samplers that mix each example with a partner, in shares ~ Beta(α, α).

    The partner is another draw of the same child, whose id is derived from the draw's id.
    """

    child: Sampler
    alpha: float | Moving = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        check_child(self.child)
        if not isinstance(self.alpha, Moving):
            if not self.alpha > 0:
                raise ValueError(f"alpha is {self.alpha}; it must be greater than 0")
        elif min(extremes(self.alpha)) < 0:
            raise ValueError(f"alpha is {self.alpha}; no value may be below 0")

    @property
    def asks(self) -> float:
        """How many times a teacher is asked for one draw, on average."""
        return 2 * super().asks

    def announce(self, ids: Tensor) -> None:
        """Prepare for draws with these ids, which come soon."""
        for own in (ids, self._partners(ids)):
            announce(self.child, own)

    def _partners(self, ids: Tensor) -> Tensor:
        return self.derived(self.seed, ids, "partner")

    def _pairs(self, ids: Tensor) -> tuple[Batch, Batch, Tensor]:
        """Draw both examples of each pair, and the share of the first, float32, [B]."""
        alpha = at(self.alpha, ids)
        share = rng.beta(alpha, self.seed, ids, self.stream("share"))
        if isinstance(alpha, Tensor):
            # Of two examples mixed by α = 0 one is left; it shall be the draw's own.
            share = torch.where(alpha > 0, share, torch.ones_like(share))
        return self.child(ids), self.child(self._partners(ids)), share


@SAMPLERS.register("mixup")
@dataclass(frozen=True)
class Mixup(_Paired):
    """Convex combinations of pairs of examples, each pair with its own λ ~ Beta(α, α).

    Args:
        child: The sampler that draws both examples of a pair.
        alpha: Parameter of the Beta distribution, greater than 0: near 0 hardly mixes, 1 is
            uniform. It may move over the training; where it is 0 then, nothing is mixed.
        seed: Seed of partners and shares.
    """

    def __call__(self, ids: Tensor) -> Batch:
        """Draw examples."""
        return mixup_batch(*self._pairs(ids))


@SAMPLERS.register("cutmix")
@dataclass(frozen=True)
class CutMix(_Paired):
    """A rectangle of one image pasted into another, each pair with its own area ~ Beta(α, α).

    Args:
        child: The sampler that draws both images of a pair.
        alpha: Parameter of the Beta distribution of the area, greater than 0; 1 is uniform. It
            may move over the training; where it is 0 then, nothing is pasted.
        seed: Seed of partners, areas and places.
    """

    def __call__(self, ids: Tensor) -> Batch:
        """Draw examples."""
        first, second, share = self._pairs(ids)
        if not images(first.x):
            raise ValueError("cutmix needs images [B, C, H, W] in the input, and there are none")
        centre = rng.uniform(self.seed, ids, self.stream("centre"), (2,))
        return cutmix_batch(first, second, share, centre)
