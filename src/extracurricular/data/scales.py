"""The map between a person's units and those of a network, and the units that need float64.

Standardised values are float32 everywhere. A person's own units may be seconds since 1970, of which
float32 keeps the minutes, or joules of a photon, whose squares it cannot hold. Values in such units
stay in float64 until they are standardised, and answers become float64 when they leave.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# So many values stay in a processor's cache from one sum to the next.
_NEAR = 2**17
# Values that are this far from 0, in deviations, keep 8 bits or less of 24.
_FAR = 2.0**16
# Beyond these deviations, squares in float32 near its ends.
_TINY, _HUGE = 1e-14, 1e15


def wide(values: Tensor) -> bool:
    """Whether a column of values [N, D] is in units that float32 cannot hold.

    Its deviation is below 1e-14 or above 1e15, or it is 65,536 times as far from 0. A column of one
    value counts as any other number of it.
    """
    if not values.is_floating_point() or values.ndim != 2 or not len(values):
        return False
    reals = values.double()
    low, high = reals.aminmax(dim=0)
    deviation = reals.std(0, correction=0)
    near = torch.minimum(low.abs(), high.abs())
    odd = (deviation < _TINY) | (deviation > _HUGE) | (near > _FAR * deviation)
    return bool((odd & (high > low)).any()) or bool((reals.abs() > _HUGE).all(0).any())


@dataclass(frozen=True)
class Affine:
    """The map ``(raw - shift) / scale``, with tensors that broadcast over one example.

    Shift and scale are float64 where raw values are, as float32 cannot hold these (:func:`wide`).
    """

    shift: Tensor
    scale: Tensor

    def apply(self, raw: Tensor) -> Tensor:
        """Map raw values to standardised ones, float32."""
        if self.scale.dtype == torch.float64:
            return ((raw.double() - self.shift) / self.scale).float()
        # One multiply-add over the batch replaces a conversion, a difference and a quotient.
        factor = self.scale.reciprocal()
        reals = raw.float()
        # The result goes into the converted copy, if any: a fresh tensor costs as much again.
        out = None if reals is raw or reals.requires_grad else reals
        return torch.addcmul(-self.shift * factor, reals, factor, out=out)

    def writer(self) -> Callable[[Tensor, Tensor], None]:
        """Return a function that writes :meth:`apply` of images [N, C, H, W] to a CPU tensor."""
        factor = self.scale.reciprocal().flatten()
        # Numbers give the same sums as tensors that broadcast, twice as fast.
        planes = list(enumerate(zip(-self.shift.flatten() * factor, factor.tolist(), strict=True)))

        def write(images: Tensor, out: Tensor) -> None:
            some = max(1, _NEAR // images[0].numel())
            for raw, reals in zip(torch.split(images, some), torch.split(out, some), strict=True):
                reals.copy_(raw)
                for k, (low, times) in planes:
                    plane = reals[:, k]
                    torch.add(low, plane, alpha=times, out=plane)

        return write

    def undo(self, values: Tensor) -> Tensor:
        """Return the raw values of standardised ones, in the type of the scale."""
        return torch.addcmul(self.shift, values.to(self.scale.dtype), self.scale)

    def to(self, device: torch.device) -> Affine:
        """Return the map on a device."""
        return Affine(self.shift.to(device), self.scale.to(device))


def fitted(mean: Tensor, deviation: Tensor, double: bool) -> Affine:
    """Return the map to mean 0 and deviation 1, [D], in float64 for raw values in float64."""
    # A constant column carries nothing; it becomes 0 instead of being divided by 0.
    least = 1e-15 * mean.abs() if double else 1e-8 * mean.abs().clamp_min(1e-8)
    deviation = torch.where(deviation > least, deviation, torch.ones_like(deviation))
    dtype = torch.float64 if double else torch.float32
    return Affine(mean.to(dtype), deviation.to(dtype))


def moments_of_bytes(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation per channel, float64, without a float64 copy of all pixels."""
    counts = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    for start in range(0, len(images), 4096):
        for channel, total in enumerate(counts):
            total += images[start : start + 4096, channel].flatten().bincount(minlength=256).cpu()
    share = counts.double() / counts.sum(1, keepdim=True)
    levels = torch.arange(256, dtype=torch.float64)
    mean = (share * levels).sum(1)
    variance = (share * (levels - mean[:, None]).square()).sum(1)
    return mean.to(images.device), variance.sqrt().to(images.device)
