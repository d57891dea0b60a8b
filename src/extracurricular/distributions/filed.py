"""Answers over many classes for many examples, in a file instead of memory.

A few hundred thousand numbers at once are in memory, whatever the number of examples. The whole is
read only by who asks for ``logits`` or ``probs``.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from extracurricular.distributions.categorical import Categorical
from extracurricular.distributions.task import Distribution, concatenate

# Numbers that answers may have in memory, and that are read from a file at once.
_MOST_NUMBERS = 2**22
_AT_ONCE = 2**18


class Filed(Categorical):
    """Categorical answers in a temporary file, which goes when this object does.

    Args:
        file: Logits, float32, one example after another.
        count: Number of examples.
        classes: Number of classes.
    """

    def __init__(self, file: BinaryIO, count: int, classes: int) -> None:
        object.__setattr__(self, "_file", file)
        object.__setattr__(self, "_count", count)
        object.__setattr__(self, "_classes", classes)
        weakref.finalize(self, file.close)

    _file: BinaryIO
    _count: int
    _classes: int

    @classmethod
    def collect(cls, parts: Iterable[Categorical]) -> Filed:
        """Write batches of answers to a file, in order; there is at least one.

        Raises:
            OSError: The file cannot be written.
        """
        file: Any = tempfile.TemporaryFile(prefix="xcl-")  # noqa: SIM115 - it lives as long as this
        count, classes = 0, 0
        for part in parts:
            rows = part.logits.detach().float().cpu().contiguous()
            file.write(rows.numpy().data)
            count, classes = count + len(rows), rows.shape[1]
        file.flush()
        return cls(file, count, classes)

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"Filed({self._count} × {self._classes})"

    def __getitem__(self, index: slice | Tensor) -> Categorical:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._count)
            if step == 1:
                return Categorical(self._rows(start, max(start, stop)))
            index = torch.arange(start, stop, step)
        elif index.dtype == torch.bool:
            index = index.nonzero()[:, 0]
        rows = [self._rows(int(k), int(k) + 1) for k in index.cpu() % max(1, self._count)]
        return Categorical(torch.cat(rows) if rows else self._rows(0, 0))

    def _rows(self, start: int, stop: int) -> Tensor:
        found = np.empty((stop - start, self._classes), np.float32)
        if found.size:
            self._file.seek(start * self._classes * 4)
            self._file.readinto(found.reshape(-1).view(np.uint8))  # type: ignore[attr-defined]
        return torch.from_numpy(found)

    def chunks(self) -> Iterator[slice]:
        """Yield ranges of examples that are in memory at once."""
        size = max(1, _AT_ONCE // max(1, self._classes))
        for start in range(0, self._count, size):
            yield slice(start, min(start + size, self._count))

    def each(self, function: Callable[[Categorical, slice], Tensor]) -> Tensor:
        """Return what a function gives for each chunk and its range, joined."""
        if not self._count:
            return function(self[:0], slice(0, 0))
        found: Tensor | None = None
        for rows in self.chunks():
            part = function(self[rows], rows)
            if found is None:
                # All at once, as small pieces between large ones keep memory from its system.
                found = part.new_empty(self._count, *part.shape[1:])
            found[rows] = part
        assert found is not None
        return found

    # What needs all of it at once

    @property
    def logits(self) -> Tensor:
        """All logits, [B, C], in memory."""
        return self._rows(0, self._count)

    @property
    def log_probs(self) -> Tensor:
        """All log-probabilities, [B, C], in memory."""
        return Categorical(self.logits).log_probs

    @property
    def probs(self) -> Tensor:
        """All probabilities, [B, C], in memory."""
        return Categorical(self.logits).probs

    # What does not

    def top(self) -> tuple[Tensor, Tensor]:
        """Return the probability and the index of the most probable class, both [B]."""
        confidence, choice = torch.empty(self._count), torch.empty(self._count, dtype=torch.int64)
        for rows in self.chunks():
            confidence[rows], choice[rows] = self[rows].top()
        return confidence, choice

    def columns(self, first: int, last: int) -> Tensor:
        """Return the probabilities of classes [first, last), [B, last - first]."""
        return self.each(lambda part, _: part.probs[:, first:last].clone())

    def nll(self, y: Tensor) -> Tensor:
        """Return the cross-entropy of class indices [B] or soft labels [B, C], in nats, [B]."""
        return self.each(lambda part, rows: part.nll(y[rows]))

    def entropy(self) -> Tensor:
        """Return the Shannon entropy in nats, [B]."""
        return self.each(lambda part, _: part.entropy())

    def kl(self, other: Categorical) -> Tensor:
        """Return KL(self ‖ other) in nats, [B]."""
        return self.each(lambda part, rows: part.kl(other[rows]))

    def js(self, other: Categorical) -> Tensor:
        """Return the Jensen-Shannon divergence to ``other`` in nats, [B]."""
        return self.each(lambda part, rows: part.js(other[rows]))


def gathered(parts: Iterable[Distribution], count: int) -> Distribution:
    """Join batches of answers, in a file if all of them would take much memory.

    Args:
        parts: Batches, at least one.
        count: Number of examples in all of them.

    Raises:
        ValueError: There are no parts.
    """
    batches = iter(parts)
    first = next(batches, None)
    if first is None:
        return concatenate([])
    if isinstance(first, Categorical) and count * first.logits.shape[1] > _MOST_NUMBERS:
        return Filed.collect(chain([first], batches))  # type: ignore[arg-type]
    return concatenate([first, *batches])
