"""Examples in the vicinity of others: shifted, flipped, noisy, mixed.

Each method is a pure function of tensors (``mixup_batch``), and a sampler that feeds it numbers
derived from the draw ids (:class:`Mixup`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from extracurricular import rng
from extracurricular.inputs import images, leaves, tree_map
from extracurricular.samplers.base import (
    SAMPLERS,
    Batch,
    Sampler,
    Seeded,
    announce,
    merge_weights,
    soft_labels,
)


def crop_flip(image: Tensor, dy: Tensor, dx: Tensor, flip: Tensor | None, pad: int) -> Tensor:
    """Crop each image from its zero-padded self and mirror some of them.

    Args:
        image: [B, C, H, W].
        dy, dx: Corner of the crop in the padded image, int64, [B], in 0..2·pad.
        flip: Which images are mirrored left to right, bool, [B]; None for none of them.
        pad: Zeros added on each side, in pixels.

    Returns:
        [B, C, H, W]
    """
    count, channels, height, width = image.shape
    padded = F.pad(image, (pad, pad, pad, pad)) if pad else image.contiguous()
    tall, wide = height + 2 * pad, width + 2 * pad
    # A row of the crop is a run of `width` neighbours in memory, so rows are copied whole: several
    # times as fast as a gather of single pixels.
    plane = torch.arange(count * channels, device=image.device).view(count, channels, 1)
    row = dy.view(-1, 1, 1) + torch.arange(height, device=image.device)
    start = (plane * tall + row) * wide + dx.view(-1, 1, 1)
    flat = padded.flatten()
    runs = flat.as_strided((max(flat.numel() - width + 1, 0), width), (1, 1))
    crops = runs.index_select(0, start.flatten()).view(image.shape)
    return crops if flip is None else torch.where(flip.view(-1, 1, 1, 1), crops.flip(3), crops)


@SAMPLERS.register("augment")
@dataclass(frozen=True)
class Augment(Seeded):
    """Random crops with padding, and random mirroring, of every image in the input.

    Args:
        child: Where the examples come from.
        pad: Pixels of zero padding on each side; the crop moves by up to this much. At least 0.
        flip: Mirror half of the images left to right.
        seed: Seed of the crops.
    """

    child: Sampler
    pad: int = 4
    flip: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.pad < 0:
            raise ValueError(f"pad is {self.pad}; it must be at least 0")

    def __call__(self, ids: Tensor) -> Batch:
        """Draw examples."""
        batch = self.child(ids)
        if not images(batch.x):
            raise ValueError("augment needs images [B, C, H, W] in the input, and there are none")
        word = rng.bits(self.seed, ids, self.stream("crop"))
        # Disjoint bits of one word: 21 for each corner (any pad below 2^20), 1 for the mirror.
        span = 2 * self.pad + 1
        dy = (word & 0x1FFFFF) % span
        dx = ((word >> 21) & 0x1FFFFF) % span
        flip = ((word >> 42) & 1).bool() if self.flip else None

        def augmented(leaf: Tensor) -> Tensor:
            return crop_flip(leaf, dy, dx, flip, self.pad) if leaf.ndim == 4 else leaf

        return replace(batch, x=tree_map(augmented, batch.x))


@SAMPLERS.register("noise")
@dataclass(frozen=True)
class Noise(Seeded):
    """Gaussian noise on the inputs, in units of the standardised input.

    Args:
        child: Where the examples come from.
        std: Standard deviation, at least 0; or one for each input tensor by name (or position, for
            a tuple), where a name left out gets none.
        relative: Draw the deviation of each example uniformly from [0, std], instead of using std.
        seed: Seed of the noise.
    """

    child: Sampler
    std: float | dict[str, float] = 0.1
    relative: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        for std in self.std.values() if isinstance(self.std, Mapping) else [self.std]:
            if not std >= 0:
                raise ValueError(f"std is {std}; it must be at least 0")

    def __call__(self, ids: Tensor) -> Batch:
        """Draw examples."""
        batch = self.child(ids)
        tensors = leaves(batch.x)
        stds = self.std if isinstance(self.std, Mapping) else dict.fromkeys(tensors, self.std)
        unknown = sorted(set(stds) - set(tensors))
        if unknown:
            raise ValueError(f"std names the input {unknown[0]!r}; known: {sorted(tensors)}")
        share = rng.uniform(self.seed, ids, self.stream("share")) if self.relative else None
        noisy = {}
        for name, leaf in tensors.items():
            std = stds.get(name, 0.0)
            if std > 0:
                stream = self.stream(f"noise.{name}")
                noise = rng.normal(self.seed, ids, stream, tuple(leaf.shape[1:]))
                if share is not None:
                    noise = noise * share.view(-1, *[1] * (leaf.ndim - 1))
                leaf = torch.add(leaf, noise, alpha=std)
            noisy[name] = leaf
        if isinstance(batch.x, Tensor):
            return replace(batch, x=noisy[""])
        return replace(batch, x=noisy if isinstance(batch.x, dict) else tuple(noisy.values()))


def mixup_batch(first: Batch, second: Batch, share: Tensor) -> Batch:
    """Mix two batches: ``share`` of the first and the rest of the second, inputs and labels alike.

    Args:
        first, second: Batches of the same structure, B examples.
        share: Each example's share λ of the first, in [0, 1], float32, [B].

    Returns:
        The mixed batch with the ids of the first (Zhang et al. 2018, equation 1). Labels are mixed
        too where both have them.
    """

    def mix(a: Tensor, b: Tensor) -> Tensor:
        return torch.lerp(b, a, share.view(-1, *[1] * (a.ndim - 1)))

    return Batch(
        first.ids,
        tree_map(mix, first.x, second.x),
        _mixed_labels(first, second, share),
        first.classes,
        merge_weights(first, second, share),
    )


def _mixed_labels(first: Batch, second: Batch, share: Tensor) -> Tensor | None:
    if first.y is None or second.y is None:
        return None
    a = soft_labels(first.y, first.classes)
    b = soft_labels(second.y, second.classes)
    return torch.lerp(b, a, share[:, None])


@SAMPLERS.register("mixup")
@dataclass(frozen=True)
class Mixup(Seeded):
    """Convex combinations of pairs of examples, each pair with its own λ ~ Beta(α, α).

    Args:
        child: Where both examples of a pair come from.
        alpha: Parameter of the Beta distribution, greater than 0: near 0 hardly mixes, 1 is
            uniform.
        seed: Seed of partners and shares.
    """

    child: Sampler
    alpha: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        if not self.alpha > 0:
            raise ValueError(f"alpha is {self.alpha}; it must be greater than 0")

    @property
    def asks(self) -> float:
        """How many times a teacher is asked for one draw, on average."""
        return 2 * super().asks

    def announce(self, ids: Tensor) -> None:
        """Learn that draws with these ids come soon."""
        for own in (ids, rng.derive(self.seed, ids, self.stream("partner"))):
            announce(self.child, own)

    def __call__(self, ids: Tensor) -> Batch:
        """Draw examples."""
        first = self.child(ids)
        second = self.child(rng.derive(self.seed, ids, self.stream("partner")))
        return mixup_batch(
            first, second, rng.beta(self.alpha, self.seed, ids, self.stream("share"))
        )


def cutmix_batch(first: Batch, second: Batch, share: Tensor, centre: Tensor) -> Batch:
    """Paste a rectangle of the second batch's images into the first's, and mix labels by area.

    Args:
        first, second: Batches of the same structure with at least one image tensor.
        share: Area that the first should keep, in [0, 1], [B].
        centre: Centre (row, column) of the rectangle as a part of the height and width, [B, 2].

    Returns:
        The mixed batch (Yun et al. 2019, section 3.1). The rectangle is cut at the border, and λ is
        then the area that the first did keep. Several image tensors get the same relative
        rectangle; vectors, and labels, are mixed by the λ of the first image tensor.
    """
    cut = (1 - share).clamp_min(0).sqrt()

    def outside(size: int, part: Tensor) -> tuple[Tensor, Tensor]:
        middle = (part * size).floor()
        half = (cut * size).floor() / 2
        return (middle - half).clamp(0, size), (middle + half).clamp(0, size)

    def inside(image: Tensor) -> tuple[Tensor, Tensor]:
        height, width = image.shape[-2:]
        top, bottom = outside(height, centre[:, 0])
        left, right = outside(width, centre[:, 1])
        rows = torch.arange(height, device=image.device)
        columns = torch.arange(width, device=image.device)
        in_rows = (rows >= top[:, None]) & (rows < bottom[:, None])
        in_columns = (columns >= left[:, None]) & (columns < right[:, None])
        return in_rows, in_columns

    in_rows, in_columns = inside(images(first.x)[0])
    kept = 1 - in_rows.float().mean(1) * in_columns.float().mean(1)

    def cut_or_mix(a: Tensor, b: Tensor) -> Tensor:
        if a.ndim == 4:
            in_rows, in_columns = inside(a)
            return torch.where(in_rows[:, None, :, None] & in_columns[:, None, None, :], b, a)
        return torch.lerp(b, a, kept.view(-1, *[1] * (a.ndim - 1)))

    return Batch(
        first.ids,
        tree_map(cut_or_mix, first.x, second.x),
        _mixed_labels(first, second, kept),
        first.classes,
        merge_weights(first, second, kept),
    )


@SAMPLERS.register("cutmix")
@dataclass(frozen=True)
class CutMix(Seeded):
    """A rectangle of one image pasted into another, each pair with its own area ~ Beta(α, α).

    Args:
        child: Where both images of a pair come from.
        alpha: Parameter of the Beta distribution of the area, greater than 0; 1 is uniform.
        seed: Seed of partners, areas and places.
    """

    child: Sampler
    alpha: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        if not self.alpha > 0:
            raise ValueError(f"alpha is {self.alpha}; it must be greater than 0")

    @property
    def asks(self) -> float:
        """How many times a teacher is asked for one draw, on average."""
        return 2 * super().asks

    def announce(self, ids: Tensor) -> None:
        """Learn that draws with these ids come soon."""
        for own in (ids, rng.derive(self.seed, ids, self.stream("partner"))):
            announce(self.child, own)

    def __call__(self, ids: Tensor) -> Batch:
        """Draw examples."""
        first = self.child(ids)
        if not images(first.x):
            raise ValueError("cutmix needs images [B, C, H, W] in the input, and there are none")
        second = self.child(rng.derive(self.seed, ids, self.stream("partner")))
        share = rng.beta(self.alpha, self.seed, ids, self.stream("share"))
        centre = rng.uniform(self.seed, ids, self.stream("centre"), (2,))
        return cutmix_batch(first, second, share, centre)
