"""Replay a recorded teacher, which looks its distributions up by draw id and computes nothing.

A record holds draws 0 … N - 1. A training that takes more goes through them again, each time in
another order. :class:`Replay` around the sampler permutes the *draws*: the sampler draws the very
example whose row is read, so the recorded output belongs to the example the student sees (law 2).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from extracurricular import rng
from extracurricular.data.base import Data
from extracurricular.distributions import Distribution, Task, mixture, reader_of
from extracurricular.errors import NoteWarning, StorageError
from extracurricular.inputs import Batch, Capturable, is_static, obstacle
from extracurricular.knowledge.codecs import build_codec
from extracurricular.knowledge.cost import too_dear
from extracurricular.knowledge.fingerprint import (
    data_fingerprint,
    describe,
    plain,
    teacher_fingerprint,
)
from extracurricular.knowledge.manifest import Manifest, check_origin, read_manifest
from extracurricular.knowledge.store import Store
from extracurricular.models.families import read_family
from extracurricular.samplers.base import Sampler, Seeded, announce
from extracurricular.samplers.share import Share, Slots


@runtime_checkable
class Chooser(Protocol):
    """A sampler that chooses among candidate draws, and can repeat its choices."""

    def choose(self, ids: Tensor) -> Any:
        """Draw; the result has the ``batch``, and the chosen candidates as ``index``, [B]."""
        ...

    def replay(self, ids: Tensor, index: Tensor) -> Batch:
        """Draw the candidates that were chosen for ``ids`` before."""
        ...


def cycled_ids(ids: Tensor, draws: int, seed: int = 0) -> Tensor:
    """Map any ids, int64, [B], to recorded ids, [0, draws); a pass has each of them once.

    Ids [p · draws, (p + 1) · draws) are pass p. Pass 0 keeps the order; every other pass has its
    own.
    """
    later = rng.permuted(draws, seed, ids, "knowledge.pass", is_static(ids))
    return torch.where(ids < draws, ids, later)


@dataclass(frozen=True)
class Replay(Seeded):
    """Repeat the recorded draws, pass after pass.

    The batch's ids are those of the recorded draws, so that a :class:`Recorded` teacher finds its
    rows.

    Args:
        child: The sampler that was recorded.
        draws: Number of recorded draws, N.
        seed: Seed of the orders.
        choices: Maps draw ids to their recorded choices, [B], if ``child`` is a :class:`Chooser`,
            which then does not score its candidates again.
        start: The first pass: 0 begins with the draws in order, 1 with an order of the seed's own.
    """

    child: Sampler
    draws: int
    seed: int = 0
    choices: Callable[[Tensor], Tensor] | None = None
    start: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.draws < 1:
            raise ValueError(f"draws is {self.draws}; it must be at least 1")
        if self.start < 0:
            raise ValueError(f"start is {self.start}; it must be at least 0")
        if self.choices is not None and not isinstance(self.child, Chooser):
            raise ValueError(
                "choices were recorded, but the sampler does not choose among candidates"
            )

    @property
    def obstacle(self) -> str | None:
        """The reason why a CUDA graph cannot hold the draws, as a clause; None if it can."""
        if self.choices is None:
            return obstacle(self.child)
        # A child that repeats its choices asks nobody but its own child.
        inner = getattr(self.child, "child", self.child)
        return obstacle(inner) or obstacle(getattr(self.choices, "__self__", self.choices))

    def announce(self, ids: Tensor) -> None:
        """Learn that draws with these ids come soon."""
        ids = self._recorded(ids)
        if self.choices is None:
            announce(self.child, ids)
        elif hasattr(self.child, "announce_replay"):
            self.child.announce_replay(ids, self.choices(ids))

    def _recorded(self, ids: Tensor) -> Tensor:
        return cycled_ids(ids + self.start * self.draws, self.draws, self.seed)

    def __call__(self, ids: Tensor) -> Batch:
        """Draw examples."""
        ids = self._recorded(ids)
        if self.choices is not None and isinstance(self.child, Chooser):
            batch = self.child.replay(ids, self.choices(ids))
        else:
            batch = self.child(ids)
        return replace(batch, ids=ids)


# Most bytes of a record that are kept on a device, and the part of its memory that they may take.
_MOST_ON_DEVICE = 2**32
_PART_OF_DEVICE = 4


class Recorded(Capturable):
    """A record as a teacher.

    Args:
        store: The record, opened and checked.
    """

    _table: Tensor | None = None

    def __init__(self, store: Store) -> None:
        origin = store.manifest.origin
        self.store = store
        self.task = Task(origin.kind, origin.size, read_family(origin.family))
        self.codec = build_codec(origin.codec, self.task)
        stored = max(1, origin.members) * self.codec.bytes_per_draw + int(origin.choice)
        if stored != store.manifest.bytes_per_draw:
            raise StorageError(
                f"{str(store.folder)!r} has bytes_per_draw = {store.manifest.bytes_per_draw}, but "
                f"its codec and members need {stored}"
            )

    @property
    def manifest(self) -> Manifest:
        """The manifest of the record."""
        return self.store.manifest

    @property
    def draws(self) -> int:
        """Number of recorded draws."""
        return len(self.store)

    @property
    def note(self) -> str | None:
        """A sentence, where the answers cost more to store than their codec should."""
        return too_dear(self.manifest.price, self.codec)

    def __call__(self, batch: Batch) -> Distribution:
        """Return the teacher's distribution on draws ``batch.ids``.

        Raises:
            StorageError: A draw was not recorded.
        """
        stored = self._members(batch)
        return stored[0] if len(stored) == 1 else mixture(stored)

    @property
    def obstacle(self) -> str | None:
        """The reason why a CUDA graph cannot hold the answers, as a clause; None if it can."""
        return "a record is read by the host" if self._table is None else None

    def hold(self, device: torch.device) -> None:
        """Keep all rows on a device, where a draw's row is then found without the host."""
        self._table = self.store.rows(torch.arange(len(self.store))).to(device)

    def _rows(self, ids: Tensor) -> Tensor:
        if self._table is None or not is_static(ids):
            return self.store.rows(ids.cpu()).to(ids.device)
        return self._table.index_select(0, ids.clamp(0, len(self._table) - 1))

    def _members(self, batch: Batch) -> list[Distribution]:
        rows = self._rows(batch.ids)
        width, count = self.codec.bytes_per_draw, max(1, self.manifest.origin.members)
        stored = [self.codec.decode(rows[:, k * width : (k + 1) * width]) for k in range(count)]
        if self._table is None or not is_static(batch.ids):
            return stored
        # A draw that is not in the record shows as NaN, for which the loop looks.
        wrong = ((batch.ids < 0) | (batch.ids >= len(self._table))).unsqueeze(1)
        return [reader_of(one)(one.parameters.masked_fill(wrong, torch.nan)) for one in stored]

    def choices(self, ids: Tensor) -> Tensor:
        """Return the candidates that the sampler chose for draws ``ids``, int64, [B].

        Raises:
            StorageError: Choices, or these draws, were not recorded.
        """
        if not self.manifest.origin.choice:
            raise StorageError(f"{str(self.store.folder)!r} has choice = False: it has no choices")
        return self._rows(ids)[:, -1].long()

    def replay(self, sampler: Sampler, seed: int = 0) -> Replay | Share:
        """Return the draws of a training from the sampler that was recorded.

        It is put into a :class:`Replay`. A share that is ``auto`` stays as it is: its draws have
        the ids of the recorded ones, for a training of half as many draws as the record has rows.
        """
        if self.note is not None:
            warnings.warn(f"{str(self.store.folder)!r}: {self.note}", NoteWarning, stacklevel=2)
        form = recorded_form(sampler)
        if isinstance(form, Share):
            return form
        choices = self.choices if self.manifest.origin.choice else None
        return Replay(form, self.draws, seed, choices)


class RecordedEnsemble(Recorded):
    """A record of every member of an ensemble, which keeps the epistemic uncertainty."""

    def members(self, batch: Batch) -> list[Distribution]:
        """Return each member's distribution on draws ``batch.ids``."""
        return self._members(batch)


def open_knowledge(
    folder: Path | str,
    *,
    data: Data | None = None,
    sampler: Any = None,
    seed: int | None = None,
    teacher: Any = None,
) -> Recorded:
    """Open a record as a teacher, after checking every shard and the record's origin.

    Args:
        folder: The record.
        data: The data set that was recorded: same training split, scales, task and order of
            classes. This and the following are not checked where None. If the data are on a GPU,
            the record is kept there too, unless it is large.
        sampler: The sampler that was recorded, or its description as plain values.
        seed: Seed of that sampler; read from the sampler where None.
        teacher: The teacher that was recorded, or the text that names it.

    Raises:
        StorageError: The record is damaged, empty, or of something else; the sentence names the
            field and both values.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    wanted: dict[str, Any] = {}
    if data is not None:
        wanted |= of_data(data)
    if sampler is not None:
        seed = getattr(sampler, "seed", None) if seed is None else seed
    if seed is not None:
        wanted["seed"] = seed
    if sampler is not None:
        wanted["sampler"] = of_sampler(sampler)
    if teacher is not None:
        wanted["teacher"] = teacher if isinstance(teacher, str) else teacher_fingerprint(teacher)
    check_origin(folder, manifest.origin.model_dump(mode="json"), wanted)
    if manifest.draws == 0:
        raise StorageError(f"{str(folder)!r} holds no draws yet; record some")
    store = Store.open(folder, manifest)
    known = RecordedEnsemble(store) if manifest.origin.members else Recorded(store)
    if data is not None and _fits(manifest, data.device):
        known.hold(data.device)
    return known


def _fits(manifest: Manifest, device: torch.device) -> bool:
    """Return whether a record is kept on a device: on a GPU, unless it is large."""
    if device.type != "cuda":
        return False
    memory = torch.cuda.get_device_properties(device).total_memory
    size = manifest.draws * manifest.bytes_per_draw
    return size <= min(_MOST_ON_DEVICE, memory // _PART_OF_DEVICE)


def of_data(data: Data) -> dict[str, Any]:
    """Return the fields of a record's origin that its data decide."""
    return {
        "kind": data.task.kind,
        "size": data.task.size,
        "classes": list(data.classes),
        "data": data_fingerprint(data),
    }


def of_sampler(sampler: Any) -> Any:
    """Return a sampler as plain values; anything else must be such a description already."""
    return describe(recorded_form(sampler)) if callable(sampler) else plain(sampler)


def recorded_form(sampler: Sampler) -> Sampler:
    """Return the sampler whose draws 0, 1, … are recorded for a sampler.

    That of a share is its slots. If the share is ``auto``, nobody knows which draws a training will
    take; then it is the share itself, with a plain and an extended draw for each slot.
    """
    return Slots(sampler) if isinstance(sampler, Share) and sampler.of is not None else sampler


def rows_of(sampler: Sampler, draws: int) -> int:
    """Return the number of recorded draws that a training of so many draws needs."""
    return draws * (2 if isinstance(recorded_form(sampler), Share) else 1)
