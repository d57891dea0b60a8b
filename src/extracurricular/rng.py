"""Random numbers that are pure functions of (seed, ids, stream).

There is no generator and no state: number ``j`` of draw ``id`` is a 64-bit hash of seed, stream, id
and j. So a draw does not depend on the batch it is in, on what was drawn before, or on how many
devices draw; the same integers come out on every device.

The hash applies the finaliser of SplitMix64 (Steele, Lea and Flood 2014, section 3; constants of
Stafford's variant 13) to a Weyl sequence, keyed twice. It is for statistics, not for secrets.

Every function takes ``seed`` (any Python integer), ``ids`` (int64 tensor [B], on the device where
the numbers are wanted) and ``stream`` (a word that tells one use from another), and returns [B] or,
where ``shape`` is given, [B, *shape].
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache

import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def _signed(value: int) -> int:
    """Return an unsigned 64-bit integer in two's complement, as torch's int64 holds it."""
    return value - (1 << 64) if value >> 63 else value


def _shift(x: Tensor, k: int) -> Tensor:
    """Shift right and fill with zeros; torch's own shift keeps the sign bit."""
    return (x >> k) & ((1 << (64 - k)) - 1)


def _mix(x: Tensor) -> Tensor:
    # The work is in place after the first step, as noise takes tensors as large as the images.
    x = x ^ _shift(x, 30)
    x *= _signed(_MIX_1)
    x ^= _shift(x, 27)
    x *= _signed(_MIX_2)
    x ^= _shift(x, 31)
    return x


@lru_cache(maxsize=4096)
def fold(*parts: int | str) -> int:
    """Hash integers and words to one unsigned 64-bit key, the same on every machine."""
    text = "\x1f".join(f"{type(p).__name__}:{p}" for p in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _keys(seed: int, ids: Tensor, stream: str) -> Tensor:
    key = fold(seed, stream)
    # The key enters before and after a mix, so that streams are not shifted copies of each other.
    return _mix(_mix(ids * _signed(_GOLDEN) + _signed(key)) ^ _signed(fold(key)))


def bits(seed: int, ids: Tensor, stream: str, shape: tuple[int, ...] = ()) -> Tensor:
    """Return 64 random bits for each id, int64, [B, *shape]."""
    keys = _keys(seed, ids, stream)
    if not shape:
        return keys
    count = math.prod(shape)
    steps = torch.arange(1, count + 1, device=ids.device) * _signed(_GOLDEN)
    return _mix(keys.unsqueeze(1) + steps).view(len(ids), *shape)


def derive(seed: int, ids: Tensor, stream: str) -> Tensor:
    """Return ids for a child sampler: random integers in [0, 2^63), int64, [B]."""
    return _shift(_keys(seed, ids, stream), 1)


def uniform(seed: int, ids: Tensor, stream: str, shape: tuple[int, ...] = ()) -> Tensor:
    """Return uniform numbers in the open interval (0, 1), float32, multiples of 2^-24."""
    # Odd multiples of 2^-24 are exact in float32 and never round to 0 or 1.
    high = _shift(bits(seed, ids, stream, shape), 41)
    return (high.float() + 0.5) * 2.0**-23


def integer(high: int, seed: int, ids: Tensor, stream: str, shape: tuple[int, ...] = ()) -> Tensor:
    """Return integers in [0, high), int64, for 1 <= high < 2^40 (the bias is below 2^-22)."""
    if not 1 <= high < 1 << 40:
        raise ValueError(f"high is {high}; it must be at least 1 and below 2^40")
    return _shift(bits(seed, ids, stream, shape), 1) % high


def normal(seed: int, ids: Tensor, stream: str, shape: tuple[int, ...] = ()) -> Tensor:
    """Return standard normal numbers, float32, by the polar form of Box and Muller (1958)."""
    count = math.prod(shape)
    half = (count + 1) // 2
    word = bits(seed, ids, stream, (half,))
    # One 64-bit word gives both uniforms: 23 bits for the radius, 23 others for the angle.
    radius = ((_shift(word, 41).float() + 0.5) * 2.0**-23).log_().mul_(-2).sqrt_()
    angle = ((word & 0x7FFFFF).float() + 0.5) * (2 * math.pi * 2.0**-23)
    pair = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
    return pair[:, :count].reshape(len(ids), *shape)


def beta(alpha: float | Tensor, seed: int, ids: Tensor, stream: str) -> Tensor:
    """Return Beta(alpha, alpha) numbers in [0, 1], float32, [B], for any alpha > 0.

    Alpha is one number, or one for each id, [B]; such may also be 0, which gives 0 or 1.

    Nothing is rejected, so the work is the same for every id: Bailey's polar method (1994) gives a
    Student t number with 2 alpha degrees of freedom, and t / sqrt(2 alpha + t²) is, up to scale, a
    symmetric beta number (Devroye 1996, "Random variate generation in one line of code").
    """
    if isinstance(alpha, Tensor):
        alpha = alpha.double()
    elif not alpha > 0:
        raise ValueError(f"alpha is {alpha}; it must be greater than 0")
    pair = uniform(seed, ids, stream, (2,))
    # This needs float64: u^(-1/alpha) spans hundreds of orders of magnitude for small alpha.
    radius = torch.expm1(-pair[:, 0].double().log() / alpha)
    cosine = torch.cos(2 * math.pi * pair[:, 1].double())
    odds = radius * cosine.square()
    # (1 - ratio) / 2 with ratio = sqrt(odds / (1 + odds)), without cancellation near 0.
    small = 0.5 / ((1 + odds) * (1 + torch.rsqrt(1 + 1 / odds)))
    return torch.where(cosine < 0, small, 1 - small).float()


def permuted(count: int, seed: int, ids: Tensor, stream: str, static: bool = False) -> Tensor:
    """Return a position in [0, count) for each id, such that every epoch is a permutation.

    Ids [e·count, (e + 1)·count) form epoch e. A generalised Feistel network on a × b ≥ count cells
    (Black and Rogaway 2002, section 5), keyed by the epoch, permutes the cells. A result beyond
    count is permuted again, it *walks*, until it is within. Fewer than b cells are beyond, so this
    is rare.

    Args:
        count: Number of positions, at least 1 and below 2^40.
        seed, ids, stream: As everywhere in this module.
        static: Walk :func:`walks` times with all cells, instead of as often as needed with those
            that are beyond. It gives the same positions, and never asks the device.
    """
    if not 1 <= count < 1 << 40:
        raise ValueError(f"count is {count}; it must be at least 1 and below 2^40")
    epoch = torch.div(ids, count, rounding_mode="floor")
    a, b = _cells(count)
    keys = _round_keys(_keys(seed, epoch, stream))
    cell = _feistel(ids - epoch * count, keys, a, b)
    if static:
        for _ in range(walks(count)):
            cell = torch.where(cell < count, cell, _feistel(cell, keys, a, b))
        # The one cell in 2^60 that is still beyond shall be an index that exists.
        return cell.clamp_max_(count - 1)
    beyond = cell >= count
    while beyond.any():
        cell[beyond] = _feistel(cell[beyond], keys[:, beyond], a, b)
        beyond = cell >= count
    return cell


@lru_cache(maxsize=4096)
def walks(count: int) -> int:
    """Return a number of walks after which no cell is beyond, but for a chance below 2^-60.

    The cells form cycles. A walk goes one cell along, and the cells beyond on the way all differ,
    so as many walks as there are cells beyond are always enough. The chance that W cells in a row
    are beyond is at most (beyond / cells)^W, as for a random permutation, which the network
    imitates: each further cell on the way is drawn from fewer cells beyond than the one before.
    """
    a, b = _cells(count)
    cells = a * b
    beyond = cells - count
    enough = 0
    while enough < beyond and beyond**enough << 60 >= cells**enough:
        enough += 1
    return enough


def _cells(count: int) -> tuple[int, int]:
    """Return rows a and columns b of the cells, with count <= a · b < count + a."""
    a = math.isqrt(count - 1) + 1
    return a, -(-count // a)


_ROUNDS = 4


def _round_keys(key: Tensor) -> Tensor:
    """Return the keys of all half rounds, [2 · rounds, B], times the first factor of a round."""
    added = [k * _GOLDEN + half for k in range(_ROUNDS) for half in (0, _MIX_1)]
    keys = torch.stack([key + _signed(some & _MASK) for some in added])
    return keys.mul_(_signed(_MIX_1))


def _feistel(cell: Tensor, keys: Tensor, a: int, b: int) -> Tensor:
    left = torch.div(cell, b, rounding_mode="floor")
    right = cell - left * b
    for first, second in zip(keys[::2], keys[1::2], strict=True):
        left = _round(right, first).add_(left).remainder_(a)
        right = _round(left, second).add_(right).remainder_(b)
    return torch.add(right, left, alpha=b)


def _round(half: Tensor, key: Tensor) -> Tensor:
    """Hash to 31 bits in fewer steps than :func:`_mix`, as several rounds follow each other."""
    # (half + key) · factor, where the key has its factor already.
    x = torch.add(key, half, alpha=_signed(_MIX_1))
    x ^= _shift(x, 32)
    x *= _signed(_MIX_2)
    return _shift(x, 33)
