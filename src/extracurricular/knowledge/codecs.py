"""Codecs turn a teacher's distributions into rows of bytes, [B, bytes_per_draw] uint8, and back.

Every row is independent of the others and has the same length, so a draw is found by its id alone.
Decoding is elementwise arithmetic on whole batches: a row gives the same bits in any batch.

``docs/knowledge.md`` has each codec's cost in bytes and in KL.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from extracurricular.distributions import (
    FAMILIES,
    Bernoulli,
    Categorical,
    Distribution,
    Task,
    usual_of,
)
from extracurricular.errors import TrainingError
from extracurricular.registry import Registry

# Deepest log-probability below the largest that float16 can hold, with room to spare.
_DEEPEST = 60000.0


@runtime_checkable
class Codec(Protocol):
    """Anything that stores distributions as rows of bytes; a dataclass of a task and settings."""

    dtype: ClassVar[str]
    """Type of the stored numbers, for people who read the manifest."""

    format: ClassVar[int]
    """Format of the records that it writes; it reads those of all formats before."""

    most: ClassVar[float]
    """Mean KL(teacher ‖ stored) in nats above which a record is said to cost too much."""

    @property
    def bytes_per_draw(self) -> int:
        """Length of a row."""
        ...

    def encode(self, distribution: Distribution) -> Tensor:
        """Turn B distributions into rows, uint8, [B, bytes_per_draw]."""
        ...

    def decode(self, rows: Tensor) -> Distribution:
        """Turn rows back into distributions, on the device of ``rows``."""
        ...


CODECS: Registry[Codec] = Registry("codec")


def default_codec(task: Task) -> str:
    """Return the codec for a task: float16, or 8 bits where there are more than 256 classes."""
    return "uint8" if task.kind == "classification" and task.size > 256 else "float16"


def build_codec(spec: Any, task: Task, key: str = "codec") -> Codec:
    """Build the codec that ``spec`` names, such as ``uint8`` or ``{topk: {k: 20}}``.

    Raises:
        RecipeError: The name or a setting is wrong, or the codec does not go with the task.
    """
    return CODECS.build(spec, key=key, task=task)


@dataclass(frozen=True)
class _Floats:
    """The numbers themselves: centred log-probabilities, log-odds, or means and log variances."""

    task: Task
    format: ClassVar[int] = 1
    most: ClassVar[float] = 1e-3
    _type: ClassVar[torch.dtype]

    @property
    def bytes_per_draw(self) -> int:
        return self.task.outputs * self._type.itemsize

    def encode(self, distribution: Distribution) -> Tensor:
        """Store the parameters.

        Raises:
            TrainingError: The type cannot hold a mean, which is too large.
        """
        if distribution.family != self.task.family:
            # Of a family that the record was not made for, mean and variance are kept.
            distribution = usual_of(distribution)
        if self.task.family is not None:
            values = distribution.parameters.float()
        elif isinstance(distribution, Categorical):
            values = -depths(distribution)
        elif isinstance(distribution, Bernoulli):
            # A label given for certain has log-odds of ±87, and infinite ones are as good.
            values = distribution.logits.float().clamp(-_DEEPEST, _DEEPEST)
        else:
            values = distribution.parameters.float()
        stored = values.to(self._type)
        if bool((torch.isinf(stored) & torch.isfinite(values)).any()):
            largest = float(values.abs().max())
            raise TrainingError(
                f"the teacher gave {largest:.4g}, and float16 holds numbers up to 65504; "
                "use the codec 'float32'"
            )
        return stored.contiguous().view(torch.uint8)

    def decode(self, rows: Tensor) -> Distribution:
        """Read the parameters, as float32."""
        values = _read(rows, self._type).float()
        if self.task.family is not None:
            return self.task.family.stored(values)  # type: ignore[no-any-return]
        return FAMILIES[self.task.kind].from_output(values)


@CODECS.register("float16")
@dataclass(frozen=True)
class Float16(_Floats):
    """Log-probabilities, log-odds of labels, or means and log variances, in float16.

    Log-probabilities are stored as distances from the largest, so the most probable classes have
    the finest steps. A row takes 2 C bytes, 2 L, or 4 D.

    Args:
        task: What the teacher predicts.
    """

    dtype: ClassVar[str] = "float16"
    _type: ClassVar[torch.dtype] = torch.float16


@CODECS.register("float32")
@dataclass(frozen=True)
class Float32(_Floats):
    """Log-probabilities, log-odds, or means and log variances, in float32: 4 bytes a number."""

    dtype: ClassVar[str] = "float32"
    _type: ClassVar[torch.dtype] = torch.float32


@CODECS.register("topk")
@dataclass(frozen=True)
class TopK:
    """The k most probable classes in float16; the remaining mass is spread equally over the others.

    A row takes 4 k + 2 bytes, or 3 k + 2 where there are at most 256 classes. At T > 1 the tail
    holds much of the mass, and an equal spread approximates it poorly.

    Args:
        task: What the teacher predicts, which must be classes.
        k: Classes to keep, from 1 to C.
    """

    task: Task
    k: int = 10
    dtype: ClassVar[str] = "float16"
    format: ClassVar[int] = 1
    most: ClassVar[float] = 5e-2

    def __post_init__(self) -> None:
        """Check the settings."""
        need_classes(self.task, "topk")
        if not 1 <= self.k <= self.task.size:
            raise ValueError(
                f"k is {self.k}; it must be from 1 to {self.task.size}, the number of classes"
            )

    @property
    def _index_type(self) -> torch.dtype:
        return torch.uint8 if self.task.size <= 256 else torch.int16

    @property
    def bytes_per_draw(self) -> int:
        """Length of a row."""
        return self.k * (self._index_type.itemsize + 2) + 2

    def encode(self, distribution: Distribution) -> Tensor:
        """Store the largest, and the logarithm of the remaining mass."""
        assert isinstance(distribution, Categorical)
        values, index = distribution.log_probs.topk(self.k, dim=1)
        rest = distribution.log_probs.scatter(1, index, -torch.inf)
        left = rest.logsumexp(1, keepdim=True).clamp_min(-_DEEPEST)
        stored = torch.cat([values.clamp_min(-_DEEPEST), left], dim=1).half()
        return torch.cat(
            [
                index.to(self._index_type).contiguous().view(torch.uint8),
                stored.contiguous().view(torch.uint8),
            ],
            dim=1,
        )

    def decode(self, rows: Tensor) -> Distribution:
        """Put the largest in their places, and equal parts of the rest everywhere else."""
        cut = self.k * self._index_type.itemsize
        # Unsigned 16 bits, read from a signed type that torch can convert. The modulo keeps the
        # index in range even for bytes that were never a row.
        index = _read(rows[:, :cut], self._index_type).long() % 65536 % self.task.size
        stored = _read(rows[:, cut:], torch.float16).float()
        others = max(1, self.task.size - self.k)
        each = stored[:, -1:] - _log(others)
        logits = each.expand(-1, self.task.size).clone()
        return Categorical(logits.scatter_(1, index, stored[:, :-1]))


@lru_cache(maxsize=64)
def _log(count: int) -> float:
    """Return the logarithm of a number as float32 has it."""
    return torch.tensor(float(count)).log().item()


def _read(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Return bytes [B, n] as numbers; a copy, since numbers inside a row may be unaligned."""
    return rows.clone(memory_format=torch.contiguous_format).view(dtype)


def depths(distribution: Categorical) -> Tensor:
    """Return how far each log-probability is below the largest, float32, [B, C], at least 0."""
    logs = distribution.log_probs
    return (logs.amax(1, keepdim=True) - logs).clamp(0, _DEEPEST)


def need_classes(task: Task, name: str) -> None:
    """Refuse a task that a codec of classes cannot store.

    Raises:
        ValueError: The task has no classes, or more than 65536 classes.
    """
    if task.kind != "classification":
        what = "regression" if task.kind == "regression" else "labels of 0 and 1"
        raise ValueError(
            f"the codec {name!r} is for classes; for {what} use 'float16' or 'float32'"
        )
    if task.family is not None:
        raise ValueError(
            f"the codec {name!r} keeps probabilities alone; for {task.family.noun} use 'float16' "
            "or 'float32'"
        )
    if task.size > 65536:
        raise ValueError(f"the codec {name!r} holds up to 65536 classes, not {task.size}")
