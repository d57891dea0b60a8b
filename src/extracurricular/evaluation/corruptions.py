"""Common corruptions of images in five strengths, to measure how robust a model is.

The kinds are those of the fifteen of Hendrycks and Dietterich 2019, "Benchmarking neural network
robustness to common corruptions and perturbations", that need no pictures of frost and no further
library. The strengths are ours, so figures compare with each other and not with published ones.
Blur is in pixels of an image of 32, and grows with the root of the shorter side; pixelation is a
share of the side; noise, contrast and brightness are the same for images of all sizes.

A corruption is a function ``(images, severity, ids, seed)`` from images, uint8 [N, C, H, W], to
images of the same shape and type. Its noise is a function of seed and id alone (law 1), and the
same at all strengths but for its size. A new one is one function with a name in ``CORRUPTIONS``.
"""

from __future__ import annotations

import math
from io import BytesIO

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from extracurricular import rng
from extracurricular.errors import RecipeError
from extracurricular.registry import Registry

CORRUPTIONS: Registry[Tensor] = Registry("corruption")
SEVERITIES = (1, 2, 3, 4, 5)
_SIDE = 32


def corrupt(
    images: Tensor, name: str, severity: int, ids: Tensor | None = None, seed: int = 0
) -> Tensor:
    """Corrupt images.

    Args:
        images: uint8, [N, C, H, W].
        name: A name in ``CORRUPTIONS``, or ``module:function`` for one of your own.
        severity: Strength, 1 to 5.
        ids: The images' ids, int64 [N], which determine their noise; their places if None.
        seed: Seed of the noise.

    Returns:
        uint8, [N, C, H, W].

    Raises:
        RecipeError: There is no such corruption or strength.
        ValueError: The images are not bytes [N, C, H, W].
    """
    corruption, _ = CORRUPTIONS.find(name, key="corruptions")
    if severity not in SEVERITIES:
        raise RecipeError("severity", f"is {severity!r}; it must be 1, 2, 3, 4 or 5")
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(
            f"images are {images.dtype} of shape {tuple(images.shape)}; "
            "they must be bytes (uint8) [N, C, H, W]"
        )
    if ids is None:
        ids = torch.arange(len(images), device=images.device)
    return corruption(images, severity, ids, seed)


# Noise


@CORRUPTIONS.register("gaussian_noise")
def gaussian_noise(images: Tensor, severity: int, ids: Tensor, seed: int) -> Tensor:
    """Add noise of deviation 0.03, 0.06, 0.09, 0.13 or 0.18 of white to each value."""
    std = _at(severity, 0.03, 0.06, 0.09, 0.13, 0.18)
    noise = rng.normal(seed, ids, "corruption.gaussian_noise", tuple(images.shape[1:]))
    return _bytes(images + 255 * std * noise)


@CORRUPTIONS.register("shot_noise")
def shot_noise(images: Tensor, severity: int, ids: Tensor, seed: int) -> Tensor:
    """Make each value Poisson, where white is 250, 100, 50, 25 or 12 quanta on average."""
    white = _at(severity, 250, 100, 50, 25, 12)
    u = rng.uniform(seed, ids, "corruption.shot_noise", tuple(images.shape[1:])).double()
    # The inverse of the distribution function. One sorted list of (level + probability) serves
    # all 256 levels at once; far above the mean nothing is left of the probability.
    most = math.ceil(white + 10 * white**0.5) + 10
    counts = torch.arange(most, dtype=torch.float64, device=images.device)
    rate = torch.arange(256, dtype=torch.float64, device=images.device)[:, None] * (white / 255)
    log_p = torch.special.xlogy(counts, rate) - rate - torch.lgamma(counts + 1)
    ladder = log_p.exp().cumsum(1).clamp_max(1) + torch.arange(256, device=images.device)[:, None]
    place = torch.searchsorted(ladder.flatten(), images.double() + u)
    return _bytes((place - images.long() * most) * (255 / white))


@CORRUPTIONS.register("impulse_noise")
def impulse_noise(images: Tensor, severity: int, ids: Tensor, seed: int) -> Tensor:
    """Make 1, 3, 6, 10 or 15 % of the values black or white, both equally often."""
    share = _at(severity, 0.01, 0.03, 0.06, 0.1, 0.15)
    u = rng.uniform(seed, ids, "corruption.impulse_noise", tuple(images.shape[1:]))
    return images.masked_fill(u < share / 2, 0).masked_fill(u > 1 - share / 2, 255)


# Resolution


@CORRUPTIONS.register("blur")
def blur(images: Tensor, severity: int, ids: Tensor, seed: int) -> Tensor:
    """Blur by a Gaussian of deviation 0.4, 0.7, 1.0, 1.3 or 1.7 pixels, for images of 32."""
    side = min(images.shape[-2:])
    deviation = _at(severity, 0.4, 0.7, 1.0, 1.3, 1.7) * math.sqrt(side / _SIDE)
    reach = math.ceil(4 * deviation)
    # A pixel's weight is the integral over its area: values at middles are wrong if it is narrow.
    edges = torch.arange(-reach, reach + 2, dtype=torch.float64) - 0.5
    weights = torch.special.ndtr(edges / deviation).diff()
    weights = (weights / weights.sum()).tolist()
    values = F.pad(images.float(), (reach, reach, reach, reach), mode="replicate")
    for axis in (-1, -2):
        size = images.shape[axis]
        blurred = torch.zeros((), device=images.device)
        # The sum goes term by term: the last bits of a convolution depend on the batch, and the
        # rounding depends on them.
        for place, weight in enumerate(weights):
            blurred = blurred + values.narrow(axis, place, size) * weight
        values = blurred
    return _bytes(values)


@CORRUPTIONS.register("pixelate")
def pixelate(images: Tensor, severity: int, ids: Tensor, seed: int) -> Tensor:
    """Keep 85, 75, 60, 50 or 38 % of the rows and columns of pixels, each the mean of its area.

    The image is enlarged to its size by means of areas too, as nearest neighbours would shift edges
    if the sizes do not divide.
    """
    share = _at(severity, 0.85, 0.75, 0.6, 0.5, 0.38)
    height, width = images.shape[-2:]
    small = (max(1, round(share * height)), max(1, round(share * width)))
    values = images.double()
    for size in ((small[1], width), (small[0], height)):
        for count in size:
            values = _area_means(values, count)
        values = values.mT
    return _bytes(values)


def _area_means(values: Tensor, size: int) -> Tensor:
    """Return means over ``size`` equal parts of the last dimension, which may cut through values.

    They are differences of the integral, which is linear within each value.
    """
    count = values.shape[-1]
    edges = torch.arange(size + 1, dtype=torch.float64, device=values.device) * count / size
    whole = edges.long().clamp_max(count)
    padded = F.pad(values, (0, 1))
    integral = F.pad(values.cumsum(-1), (1, 0))[..., whole] + padded[..., whole] * (edges - whole)
    return integral.diff(dim=-1) * (size / count)


@CORRUPTIONS.register("jpeg")
def jpeg(images: Tensor, severity: int, ids: Tensor, seed: int) -> Tensor:
    """Compress by Pillow's JPEG of quality 60, 40, 25, 15 or 8.

    Three channels are compressed as colours, any other number one by one. The blocks of a JPEG have
    8×8 pixels whatever the size of the image.
    """
    quality = round(_at(severity, 60, 40, 25, 15, 8))
    given = images.cpu()
    layers = given if images.shape[1] == 3 else given.flatten(0, 1).unsqueeze(1)
    out = np.empty(tuple(layers.shape), np.uint8)
    for row, layer in zip(out, layers.numpy(), strict=True):
        colours = len(layer) == 3
        pixels = np.ascontiguousarray(np.moveaxis(layer, 0, -1)) if colours else layer[0]
        file = BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        values = np.asarray(Image.open(file, formats=["JPEG"]))
        row[...] = np.moveaxis(values, -1, 0) if colours else values[None]
    return torch.from_numpy(out).view(images.shape).to(images.device)


# Light


@CORRUPTIONS.register("contrast")
def contrast(images: Tensor, severity: int, ids: Tensor, seed: int) -> Tensor:
    """Bring each channel nearer to its mean: to 85, 70, 55, 40 or 25 % of the distance."""
    kept = _at(severity, 0.85, 0.7, 0.55, 0.4, 0.25)
    values = images.double()
    mean = values.mean((2, 3), keepdim=True)
    return _bytes(mean + kept * (values - mean))


@CORRUPTIONS.register("brightness")
def brightness(images: Tensor, severity: int, ids: Tensor, seed: int) -> Tensor:
    """Add 0.05, 0.1, 0.15, 0.22 or 0.3 of white to each value."""
    return _bytes(images + 255 * _at(severity, 0.05, 0.1, 0.15, 0.22, 0.3))


def _at(severity: int, *strengths: float) -> float:
    return strengths[severity - 1]


def _bytes(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)
