"""Codecs that store log-probabilities in codes of a few bits, with a scale for each row."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from extracurricular.distributions import Categorical, Distribution, Task
from extracurricular.inputs import is_static
from extracurricular.knowledge.codecs import CODECS, depths, need_classes

# Scales of a row, in nats: 0, then 16 to an octave from 2^-6 to 2^9.9. Deeper classes are clipped
# to the end of the scale, where their probability is negligible at any useful temperature.
_SCALES = torch.tensor([0.0, *(2.0 ** (k / 16 - 6) for k in range(255))])
# Share of the scale that the first sixteenth of the codes covers. Where a few classes stand far
# above the others, a large share leaves nearly all the codes to the crowd below.
_KNEES = torch.tensor(
    [0.03, 0.06, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8]
)
_HEAD = 1 / 16
_MOST_REFINEMENT = 8


@dataclass(frozen=True)
class _Quantised:
    """Distances from the largest log-probability, in codes of a few bits, with a per-row scale.

    A row is: scale (1 byte), knee (1 byte), a code of ``bits`` bits for each class, ``refine``
    bytes of refinement. The codes are ranked, smallest distance first, and the classes of the first
    ranks get further bits, more of them for the earlier ranks. Reader and writer rank the same
    codes, so a row need not say which classes these are.

    A search finds the scale and knee with the smallest KL at T = 1 plus KL at T = 4.
    """

    task: Task
    bits: ClassVar[int]

    def __post_init__(self) -> None:
        """Check the settings."""
        need_classes(self.task, f"uint{self.bits}")
        if not 0 <= self.refinement <= self.task.size:
            raise ValueError(
                f"refine is {self.refinement}; it must be from 0 to {self.task.size}, the number "
                "of classes"
            )

    @property
    def refinement(self) -> int:
        """Bytes of refinement."""
        return 0

    @property
    def _packed(self) -> int:
        return -(-self.task.size * self.bits // 8)

    @property
    def bytes_per_draw(self) -> int:
        return 2 + self._packed + self.refinement

    @cached_property
    def _ladder(self) -> tuple[int, ...]:
        return refinement_bits(self.task.size, 8 * self.refinement)

    def encode(self, distribution: Distribution) -> Tensor:
        """Quantise, which takes longer than decoding, as it searches for scale and knee."""
        assert isinstance(distribution, Categorical)
        depth = depths(distribution)
        scale, knee = self._search(depth, distribution)
        code, finer = self._quantise(depth, scale, knee)
        parts = [scale.unsqueeze(1), knee.unsqueeze(1), self._pack(code)]
        if self._ladder:
            parts.append(_pack_fields(finer, self._ladder))
        return torch.cat([part.to(torch.uint8) for part in parts], dim=1)

    def decode(self, rows: Tensor) -> Distribution:
        """Read the codes back as logits."""
        code = self._unpack(rows[:, 2 : 2 + self._packed])
        finer = None
        if self._ladder:
            finer = _unpack_fields(rows[:, 2 + self._packed :], self._ladder)
        scale, knee = rows[:, 0].long(), rows[:, 1].long() % len(_KNEES)
        return Categorical(-self._dequantise(code, finer, scale, knee))

    def _pack(self, code: Tensor) -> Tensor:
        if self.bits == 8:
            return code
        even = F.pad(code, (0, code.shape[1] % 2))
        return even[:, ::2] * 16 + even[:, 1::2]

    def _unpack(self, packed: Tensor) -> Tensor:
        if self.bits == 8:
            return packed
        pairs = torch.stack([packed >> 4, packed & 15], dim=2).flatten(1)
        return pairs[:, : self.task.size]

    def _quantise(self, depth: Tensor, scale: Tensor, knee: Tensor) -> tuple[Tensor, Tensor]:
        """Return codes [B, C] and refinements [B, ranks], whole numbers as float32."""
        steps = 2.0**self.bits
        r = _on(_SCALES, depth.device)[scale].unsqueeze(1)
        place = _squeeze(
            (depth / r.clamp_min(1e-30)).clamp(0, 1), _on(_KNEES, depth.device)[knee].unsqueeze(1)
        )
        code = (place * steps).floor_().clamp_(0, steps - 1)
        if not self._ladder:
            return code, code[:, :0]
        first = _ranked(code, len(self._ladder))
        parts = 2.0 ** _numbers(self._ladder, depth.device)
        inside = place.gather(1, first) * steps - code.gather(1, first)
        return code, torch.minimum((inside * parts).floor_().clamp_(min=0), parts - 1)

    def _dequantise(
        self, code: Tensor, finer: Tensor | None, scale: Tensor, knee: Tensor
    ) -> Tensor:
        """Return the distances [B, C] of codes and refinements: the middle of each cell."""
        value = code.float()
        place = value + 0.5
        if finer is not None:
            first = _ranked(code, len(self._ladder))
            parts = 2.0 ** _numbers(self._ladder, code.device)
            place.scatter_(1, first, value.gather(1, first) + (finer + 0.5) / parts)
        # The most probable class is at distance 0, not in the middle of its cell.
        place = place.masked_fill(place == place.amin(1, keepdim=True), 0.0)
        kappa = _on(_KNEES, code.device)[knee].unsqueeze(1)
        distance = _stretch(place * 2.0**-self.bits, kappa)
        return distance * _on(_SCALES, code.device)[scale].unsqueeze(1)

    def _search(self, depth: Tensor, truth: Categorical) -> tuple[Tensor, Tensor]:
        """Find scale and knee of each row by trial: first the knee, then the scale."""
        deepest = depth.amax(1)
        longest = torch.bucketize(deepest, _on(_SCALES, depth.device)).clamp(max=255)
        weights = [(t, truth.tempered(t).probs) for t in (1.0, 4.0)]
        best = torch.full_like(deepest, torch.inf)
        scale, knee = longest.clone(), torch.zeros_like(longest)

        def attempt(s: Tensor, k: Tensor) -> None:
            code, finer = self._quantise(depth, s, k)
            error = self._dequantise(code, finer if self._ladder else None, s, k) - depth
            # KL(p ‖ q) where log q is log p less an error e, up to a constant: the error's mean
            # under p and the logarithm of the mean of exp(-e).
            cost = torch.zeros_like(best)
            for t, p in weights:
                e = error / t
                cost += (p * (e + torch.expm1(-e))).sum(1)
            better = cost < best
            best[better], scale[better], knee[better] = cost[better], s[better], k[better]

        for number in range(len(_KNEES)):
            attempt((longest - 2).clamp_min(0), torch.full_like(knee, number))
        found = knee.clone()
        for shorter in range(10):
            attempt((longest - shorter).clamp_min(0), found)
        return scale, knee


@CODECS.register("uint8")
@dataclass(frozen=True)
class Uint8(_Quantised):
    """Log-probabilities in codes of 8 bits and a scale for each row: C + 2 bytes.

    Args:
        task: What is predicted; classes.
    """

    dtype: ClassVar[str] = "uint8"
    bits: ClassVar[int] = 8


@CODECS.register("uint4")
@dataclass(frozen=True)
class Uint4(_Quantised):
    """Log-probabilities in codes of 4 bits, refined for the likeliest classes.

    About 0.61 C + 2 bytes: 63 for 100 classes.

    Args:
        task: What is predicted; classes.
        refine: Bytes of refinement, from 0 to C; about a ninth of C where None.
    """

    refine: int | None = None
    dtype: ClassVar[str] = "uint4"
    bits: ClassVar[int] = 4

    @property
    def refinement(self) -> int:
        """Bytes of refinement."""
        return -(-self.task.size * 11 // 100) if self.refine is None else self.refine


def _on(constant: Tensor, device: torch.device) -> Tensor:
    """Return a constant on a device; on a GPU copied once, as no graph can hold such a copy."""
    return _copy(constant, device) if device.type == "cuda" else constant.to(device)


@lru_cache(maxsize=64)
def _copy(constant: Tensor, device: torch.device) -> Tensor:
    return constant.to(device)


def _numbers(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """Return whole numbers as a tensor on a device, int64."""
    return _on(_tensor(numbers), device)


@lru_cache(maxsize=64)
def _tensor(numbers: tuple[int, ...]) -> Tensor:
    return torch.tensor(numbers)


def _squeeze(distance: Tensor, knee: Tensor) -> Tensor:
    """Map a share of the scale, 0 to 1, to its place on the code axis, 0 to 1."""
    head = distance * (_HEAD / knee)
    tail = _HEAD + (distance - knee) * ((1 - _HEAD) / (1 - knee))
    return torch.where(distance < knee, head, tail)


def _stretch(place: Tensor, knee: Tensor) -> Tensor:
    """Invert :func:`_squeeze`."""
    head = place * (knee / _HEAD)
    tail = knee + (place - _HEAD) * ((1 - knee) / (1 - _HEAD))
    return torch.where(place < _HEAD, head, tail)


def _ranked(code: Tensor, ranks: int) -> Tensor:
    """Return the classes of the first ranks, [B, ranks], by code, and then in class order."""
    classes = code.shape[1]
    # One number for code and class, so that any sorting algorithm gives the same order.
    key = code.to(torch.int32) * classes + torch.arange(
        classes, device=code.device, dtype=torch.int32
    )
    if not is_static(key):
        # Numpy sorts much faster than torch on CPUs, and decoding spends its time on rankings.
        ordered = torch.from_numpy(np.sort(key.numpy(), axis=1))
    else:
        ordered = key.sort(dim=1).values
    return ordered[:, :ranks].remainder(classes).long()


@lru_cache(maxsize=64)
def refinement_bits(classes: int, bits: int) -> tuple[int, ...]:
    """Return the number of refining bits of each rank; ranks beyond the last get none.

    A bit quarters a rank's squared error, so the next one always goes where weight · 4^-bits is
    largest. The weight (rank + 1)^-2 was chosen on outputs of teachers. A rank gets at most 8 bits.
    """
    given = [0] * classes
    gains = [(-((r + 1) ** -2.0), r) for r in range(classes)]
    for _ in range(min(bits, _MOST_REFINEMENT * classes)):
        gain, rank = gains[0]
        given[rank] += 1
        full = given[rank] == _MOST_REFINEMENT
        heapq.heapreplace(gains, (0.0 if full else gain / 4, rank))
    return tuple(itertools.takewhile(lambda b: b > 0, given))


def _pack_fields(fields: Tensor, widths: tuple[int, ...]) -> Tensor:
    """Pack whole numbers [B, F] of the given widths in bits, one after another, to bytes [B, n]."""
    number, shift = _bit_places(widths)
    bits = (fields.long()[:, list(number)] >> _numbers(shift, fields.device)) & 1
    bits = F.pad(bits, (0, -len(shift) % 8)).reshape(len(bits), -(-len(shift) // 8), 8)
    return (bits << torch.arange(7, -1, -1, device=fields.device)).sum(2)


def _unpack_fields(packed: Tensor, widths: tuple[int, ...]) -> Tensor:
    """Invert :func:`_pack_fields`, to float32, [B, F]."""
    number, shift = _bit_places(widths)
    device = packed.device
    each = torch.arange(7, -1, -1, device=device, dtype=torch.uint8)
    bits = ((packed.unsqueeze(2) >> each) & 1).flatten(1)[:, : len(shift)]
    valued = bits.float() * (2.0 ** _numbers(shift, device))
    fields = torch.zeros(len(packed), len(widths), device=device)
    return fields.index_add_(1, _numbers(number, device), valued)


@lru_cache(maxsize=64)
def _bit_places(widths: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return for each bit of a row its field, and its place in that field, highest first."""
    pairs = [(f, w - 1 - k) for f, w in enumerate(widths) for k in range(w)]
    return tuple(f for f, _ in pairs), tuple(s for _, s in pairs)
