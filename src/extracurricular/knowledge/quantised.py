"""Codecs that store log-probabilities in codes of a few bits, with a scale for each row."""

from __future__ import annotations

import heapq
import itertools
import math
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

# Scales of a row, in nats: 0, then 16 to an octave from 2^-6 to 2^9.9.
_SCALES = torch.tensor([0.0, *(2.0 ** (k / 16 - 6) for k in range(255))])
# Share of the scale that the first sixteenth of the codes covers. Where a few classes stand far
# above the others, a large share leaves nearly all the codes to the crowd below.
_KNEES = torch.tensor(
    [0.03, 0.06, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8]
)
_HEAD = 1 / 16
# Distances of classes that are off the scale, in nats, 2 to an octave from 2^4 to 2^11; the first
# stands for a row without such classes. Deeper ones have no probability at any useful temperature.
_FAR = torch.tensor([0.0, *(2.0 ** (4 + k / 2) for k in range(15))])
_MOST_REFINEMENT = 8
# Scales that the search tries for a row with classes off its scale: two to an octave, from 1 nat.
_STRIDE = 8
_FIRST = 97
# Below this the exponential of an error is not taken of the error alone, as it could overflow.
_SMALLEST_ERROR = -20.0


@dataclass(frozen=True)
class _Quantised:
    """Distances from the largest log-probability, in codes of a few bits, with a per-row scale.

    A row is: scale (1 byte), knee and far distance (4 bits each), a code of ``bits`` bits for each
    class, ``refine`` bytes of refinement. The codes are ranked, smallest distance first, and the
    classes of the first ranks get further bits, more of them for the earlier ranks. Reader and
    writer rank the same codes, so a row need not say which classes these are.

    Where the far distance is not 0, the largest code is that of the classes off the scale, which
    all get this distance: masked classes leave the other codes to the others. Rows of format 1 have
    none, and are read as they were.

    A search finds the scale, knee and far distance with the smallest KL at T = 1 plus KL at T = 4.
    """

    task: Task
    bits: ClassVar[int]
    format: ClassVar[int] = 2

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
        scale, knee, far = self._search(depth)
        code, finer = self._quantise(depth, scale, knee)
        parts = [scale.unsqueeze(1), (far * 16 + knee).unsqueeze(1), self._pack(code)]
        if self._ladder:
            parts.append(_pack_fields(finer, self._ladder))
        return torch.cat([part.to(torch.uint8) for part in parts], dim=1)

    def decode(self, rows: Tensor) -> Distribution:
        """Read the codes back as logits."""
        code = self._unpack(rows[:, 2 : 2 + self._packed])
        finer = None
        if self._ladder:
            finer = _unpack_fields(rows[:, 2 + self._packed :], self._ladder)
        scale, second = rows[:, 0].long(), rows[:, 1].long()
        knee, far = second % 16, second // 16
        return Categorical(-self._dequantise(code, finer, scale, knee, far))

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
        self, code: Tensor, finer: Tensor | None, scale: Tensor, knee: Tensor, far: Tensor
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
        distance = distance * _on(_SCALES, code.device)[scale].unsqueeze(1)
        off = _on(_FAR, code.device)[far].unsqueeze(1)
        return torch.where((code == 2**self.bits - 1) & (off > 0), off, distance)

    def _search(self, depth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Find scale, knee and far distance of each row by trial: the scale, the knee, both."""
        deepest = depth.amax(1)
        longest = torch.bucketize(deepest, _on(_SCALES, depth.device)).clamp(max=255)
        # At each temperature the logarithms of the probabilities, and these.
        weights = [(t, (-depth / t).log_softmax(1)) for t in (1.0, 4.0)]
        pairs = [(t, logs, logs.exp()) for t, logs in weights]
        best = torch.full_like(deepest, torch.inf)
        scale, knee, far = longest.clone(), torch.zeros_like(longest), torch.zeros_like(longest)

        def attempt(s: Tensor, k: Tensor, f: Tensor) -> None:
            code, finer = self._quantise(depth, s, k)
            stored = self._dequantise(code, finer if self._ladder else None, s, k, f)
            cost = sum((_cost(stored - depth, *pair) for pair in pairs), torch.zeros_like(best))
            better = cost < best
            best[better], scale[better], knee[better] = cost[better], s[better], k[better]
            far[better] = f[better]

        none = torch.zeros_like(longest)
        # Classes off the scale: the cell of the largest code begins where the others end.
        last = int(longest.max()) if len(longest) else 0
        for length in range(_FIRST, last + 2 * _STRIDE, _STRIDE):
            s = torch.full_like(longest, min(length, 255))
            begins = _SCALES[min(length, 255)] * (1 - _widest(self.bits))
            off = depth.masked_fill(depth < begins, torch.inf).amin(1)
            attempt(s, none, _nearest_far(off))
        attempt((longest - 2).clamp_min(0), none, none)
        for number in range(len(_KNEES)):
            start = torch.where(far > 0, scale, (longest - 2).clamp_min(0))
            attempt(start, torch.full_like(knee, number), far.clone())
        found, chosen = knee.clone(), far.clone()
        middle = scale.clone()
        for shorter in range(10):
            near = torch.where(chosen > 0, middle + 4 - shorter, longest - shorter)
            attempt(near.clamp(0, 255), found, chosen)
        return scale, knee, far


def _cost(error: Tensor, temperature: float, logs: Tensor, probs: Tensor) -> Tensor:
    """Return a bound on KL(p ‖ q), [B], where log q is log p less an error, up to a constant.

    It is the error's mean under p, and the mean of exp(-error) less 1, which is never less than its
    logarithm. A class of no probability that is stored as one of some has a finite part in it.
    """
    e = error / temperature
    small = e.clamp_min(_SMALLEST_ERROR)
    plain = probs * (small + torch.expm1(-small))
    return torch.where(e < _SMALLEST_ERROR, probs * (e - 1) + (logs - e).exp(), plain).sum(1)


def _widest(bits: int) -> float:
    """Return the width of the widest cell with the smallest knee, as a part of the scale."""
    return (1 - float(_KNEES[0])) / (1 - _HEAD) * 2.0**-bits


def _nearest_far(depth: Tensor) -> Tensor:
    """Return for each depth [B] the far distance that is nearest by ratio; 0 for infinity."""
    edges = (_FAR[1:-1] * _FAR[2:]).sqrt().to(depth.device)
    return torch.where(depth.isinf(), 0, 1 + torch.bucketize(depth, edges))


def bound(bits: int, depth: float) -> float:
    """Return a bound in nats on KL(teacher ‖ stored) at T = 1 plus that at T = 4.

    It holds for a row whose unmasked classes are at most ``depth`` nats below the likeliest one,
    while all others are masked: 1,500 nats or more below. The unmasked ones fit into all codes but
    the last of a scale that the search tries, whose cells are no wider than ``2 h``. An error of at
    most h costs at most exp(h) - 1 - h.

    Args:
        bits: Bits of a code.
        depth: Nats, at least 0.
    """
    cell = _widest(bits)
    # Two scales to an octave, from 1 nat.
    scale = max(1.0, depth / (1 - cell) * 2 ** (_STRIDE / 16))
    h = scale * cell / 2
    return sum(math.expm1(h / t) - h / t for t in (1.0, 4.0))


@CODECS.register("uint8")
@dataclass(frozen=True)
class Uint8(_Quantised):
    """Log-probabilities in codes of 8 bits and a scale for each row: C + 2 bytes.

    Args:
        task: What is predicted; classes.
    """

    dtype: ClassVar[str] = "uint8"
    most: ClassVar[float] = 1e-2
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
    most: ClassVar[float] = 5e-2
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
