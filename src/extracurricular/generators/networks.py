"""The two networks of the conditional GAN, for one image of 8×8 to 64×64.

Neither has batch norm, which would make an example depend on the others of its batch.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

_SLOPE = 0.2


def _patches(shape: tuple[int, int, int], patch: int) -> tuple[int, int]:
    return -(-shape[1] // patch), -(-shape[2] // patch)


def levels_of(height: int, width: int) -> tuple[int, tuple[int, int]]:
    """Return how often a small grid is doubled to cover an image, and the size of that grid."""
    levels = max(1, int(math.log2(min(height, width) / 4)))
    return levels, (-(-height // 2**levels), -(-width // 2**levels))


def condition_embedding(size: int, features: int, discrete: bool) -> nn.Module:
    """Map conditions [B, K] to [B, features].

    Classes have one vector each. The map is linear in the one-hot label, so a convex combination of
    two classes has the same combination of their vectors. Real conditions pass two layers.
    """
    if discrete:
        return nn.Linear(size, features, bias=False)
    return nn.Sequential(nn.Linear(size, features), nn.SiLU(), nn.Linear(features, features))


class ModulatedNorm(nn.Module):
    """Group norm whose scale and shift are functions of latent and condition (FiLM)."""

    def __init__(self, channels: int, style: int) -> None:
        super().__init__()
        groups = math.gcd(channels, 4)
        self.norm = nn.GroupNorm(groups, channels, affine=False)
        self.style = nn.Linear(style, 2 * channels)
        nn.init.normal_(self.style.weight, std=0.1)
        nn.init.zeros_(self.style.bias)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Return the modulated activations, [B, C, H, W]."""
        scale, shift = self.style(style)[:, :, None, None].chunk(2, 1)
        y: Tensor = self.norm(x) * (1 + scale) + shift
        return y


class GeneratorNet(nn.Module):
    """Map (latent [B, Z], condition [B, K]) to an image in [-1, 1], [B, C, H, W].

    A linear map gives a small grid, which nearest neighbours double level by level. Each level is a
    residual block of two 3×3 convolutions with modulated norms.

    Args:
        latent: Z.
        condition: K.
        shape: (C, H, W).
        channels: Channels at full size; twice as many a level down, up to four times.
        patch: Side of the squares of pixels that are one position to the network, 1 or more: 2 is
            four times as fast.
        embedding: Size of the condition's embedding.
        discrete: Whether conditions are class labels.
    """

    def __init__(
        self,
        latent: int,
        condition: int,
        shape: tuple[int, int, int],
        channels: int,
        patch: int,
        embedding: int,
        discrete: bool,
    ) -> None:
        super().__init__()
        self.shape, self.patch = shape, patch
        levels, self.grid = levels_of(*_patches(shape, patch))
        widths = [channels * min(4, 2**k) for k in range(levels, -1, -1)]
        self.embed = condition_embedding(condition, embedding, discrete)
        style = latent + embedding
        self.start = nn.Linear(style, widths[0] * math.prod(self.grid))
        self.blocks = nn.ModuleList(_UpBlock(a, b, style) for a, b in pairwise(widths))
        self.norm = ModulatedNorm(widths[-1], style)
        self.image = nn.Conv2d(widths[-1], shape[0] * patch**2, 3, padding=1)

    def forward(self, latent: Tensor, condition: Tensor) -> Tensor:
        """Return the images."""
        style = torch.cat([latent, self.embed(condition)], dim=1)
        x = self.start(style).view(len(style), -1, *self.grid)
        for block in self.blocks:
            x = block(x, style)
        x = F.pixel_shuffle(self.image(F.silu(self.norm(x, style))), self.patch)
        x = torch.tanh(x)
        _, height, width = self.shape
        top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
        y: Tensor = x[:, :, top : top + height, left : left + width]
        return y


class _UpBlock(nn.Module):
    def __init__(self, channels_in: int, channels: int, style: int) -> None:
        super().__init__()
        self.norm1 = ModulatedNorm(channels_in, style)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.norm2 = ModulatedNorm(channels, style)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.shortcut = nn.Conv2d(channels_in, channels, 1)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Return twice the height and width."""
        # The 1×1 convolution commutes with the doubling, and is four times cheaper before it.
        shortcut = _double(self.shortcut(x))
        y = self.conv1(_double(F.silu(self.norm1(x, style))))
        y = self.conv2(F.silu(self.norm2(y, style)))
        total: Tensor = y + shortcut
        return total


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class DiscriminatorNet(nn.Module):
    """Map (image [B, C, H, W], condition [B, K]) to a score [B], which is large for real images.

    Every map has spectral norm (Miyato et al. 2018). The condition enters by projection (Miyato and
    Koyama 2018, equation 3). One channel is the deviation over the batch, which shows a lack of
    variety (Karras et al. 2018, section 3). The features keep positions in the image, as a gaze
    shows in them.

    Args:
        condition: K.
        shape: (C, H, W).
        channels: Channels at full size.
        patch: As in :class:`GeneratorNet`.
        discrete: Whether conditions are class labels.
    """

    def __init__(
        self,
        condition: int,
        shape: tuple[int, int, int],
        channels: int,
        patch: int,
        discrete: bool,
    ) -> None:
        super().__init__()
        self.patch = patch
        height, width = _patches(shape, patch)
        # Zeros on the right and below fill the image up to a whole number of patches.
        self.pad = (0, width * patch - shape[2], 0, height * patch - shape[1])
        levels, grid = levels_of(height, width)
        widths = [channels * min(4, 2**k) for k in range(levels + 1)]
        features = 4 * channels
        self.stem = spectral_norm(nn.Conv2d(shape[0] * patch**2, widths[0], 3, padding=1))
        self.blocks = nn.ModuleList(_DownBlock(a, b) for a, b in pairwise(widths))
        self.mix = spectral_norm(nn.Conv2d(widths[-1] + 1, widths[-1], 3, padding=1))
        self.features = spectral_norm(nn.Linear(widths[-1] * math.prod(grid), features))
        self.score = spectral_norm(nn.Linear(features, 1))
        self.project = condition_embedding(condition, features, discrete)
        for part in self.project.modules():
            if isinstance(part, nn.Linear):
                spectral_norm(part)
        # Reads the condition off the image, as the projection says little on real-valued ones.
        self.read = None if discrete else nn.Linear(features, condition)

    def forward(self, image: Tensor, condition: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the scores, and the conditions read off the images (None for classes)."""
        x = self.stem(F.pixel_unshuffle(F.pad(image, self.pad), self.patch))
        for block in self.blocks:
            x = block(x)
        spread = (x.var(0, correction=0) + 1e-8).sqrt().mean()
        x = torch.cat([x, spread.expand(len(x), 1, *x.shape[2:])], dim=1)
        x = F.leaky_relu(self.mix(F.leaky_relu(x, _SLOPE)), _SLOPE)
        features = F.leaky_relu(self.features(x.flatten(1)), _SLOPE)
        match = (features * self.project(condition)).sum(1)
        score: Tensor = self.score(features).squeeze(1) + match
        return score, None if self.read is None else self.read(features)


class _DownBlock(nn.Module):
    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.conv1 = spectral_norm(nn.Conv2d(channels_in, channels, 3, padding=1))
        self.conv2 = spectral_norm(nn.Conv2d(channels, channels, 3, padding=1))
        self.shortcut = spectral_norm(nn.Conv2d(channels_in, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return half the height and width, rounded up."""
        shortcut = self.shortcut(_halve(x))
        y = self.conv1(F.leaky_relu(x, _SLOPE))
        y = _halve(self.conv2(F.leaky_relu(y, _SLOPE)))
        total: Tensor = y + shortcut
        return total


def _halve(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
