"""Record a teacher: ask it once about every draw, and store its answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from extracurricular import rng
from extracurricular.data.base import Data
from extracurricular.distributions import Distribution
from extracurricular.errors import StorageError
from extracurricular.inputs import Batch
from extracurricular.knowledge.answers import StoredTeacher
from extracurricular.knowledge.codecs import Codec, build_codec, default_codec
from extracurricular.knowledge.cost import too_dear
from extracurricular.knowledge.fingerprint import plain, teacher_fingerprint
from extracurricular.knowledge.manifest import Origin, Price
from extracurricular.knowledge.recorded import (
    Chooser,
    of_data,
    of_sampler,
    open_knowledge,
    recorded_form,
    rows_of,
)
from extracurricular.knowledge.store import Recording
from extracurricular.samplers.base import Sampler, announced, is_pure
from extracurricular.teachers import DropoutTeacher, EnsembleTeacher, NetworkTeacher
from extracurricular.teachers.base import HasMembers, Teacher, check_answer, check_teacher

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# A shard is written when it is full or this old, so that an interruption costs little.
_SHARD_SECONDS = 30.0
_SAMPLE = 1024
# Chunks that are announced to the sampler before they are drawn.
_AHEAD = 2


@dataclass(frozen=True)
class RecordOptions:
    """How :func:`record` works, and under which names.

    Args:
        description: The sampler as plain values; made from its settings where None.
        seed: Seed of the sampler; read from it where None.
        teacher_id: A text that identifies the teacher; a fingerprint of its weights where None.
        shard: Draws in a shard, at least 1.
        chunk: Draws that the teacher is asked about at once, at least 1.
        fabric: Device and precision; the device of the data in full precision where None.
        on_progress: Called now and then with the number of draws that the record holds.

    Raises:
        ValueError: ``shard`` or ``chunk`` is below 1.
    """

    description: Any = None
    seed: int | None = None
    teacher_id: str | None = None
    shard: int = 16384
    chunk: int = 256
    fabric: Fabric | None = None
    on_progress: Callable[[int], None] | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        for name in ("shard", "chunk"):
            _check_count(name, getattr(self, name))


@dataclass(frozen=True)
class Report:
    """The outcome of a recording.

    Args:
        draws: Draws in the record, its rows.
        recorded: Draws that this process has added.
        seconds: Time that this process took.
        bytes_per_draw: Length of a row.
        price: KL(teacher ‖ stored), measured.
        note: A sentence, where that is more than the codec should cost.
    """

    draws: int
    recorded: int
    seconds: float
    bytes_per_draw: int
    price: Price
    note: str | None = None


def record(
    sampler: Sampler,
    teacher: Teacher,
    data: Data,
    draws: int,
    folder: Path | str,
    *,
    codec: Any = None,
    members: bool = False,
    temperature: float = 1.0,
    options: RecordOptions | None = None,
) -> Report:
    """Record the teacher on draws 0 … draws - 1 of a sampler.

    Draws that the folder holds already are kept, so an interrupted recording goes on and a larger
    ``draws`` appends. Several processes with the same arguments share the work.

    Args:
        sampler: Where the examples come from. If it chooses among candidates (see
            :class:`~extracurricular.knowledge.recorded.Chooser`), its choices are recorded too.
        teacher: The teacher, on the same device.
        data: The data set, for its task, its classes and its fingerprint.
        draws: Draws that the record holds in the end, at least 1. Of a share that is ``auto`` it
            holds as many plain draws and as many extended ones, twice the rows.
        folder: Folder of the record, new or begun before.
        codec: How distributions are stored, such as ``uint4`` or ``{topk: {k: 20}}``; float16
            where None, and uint8 for more than 256 classes.
        members: Store every member of an ensemble, not only their mixture.
        temperature: Temperature at which students will match, for the price.
        options: Names, sizes, device and progress; the defaults where None.

    Raises:
        TrainingError: The teacher gave NaN or infinity; the sentence names the draws.
        StorageError: The folder holds another record, a shard in it is damaged, or it cannot be
            written to.
        ValueError: A setting is wrong, the draws are not functions of their ids, or the teacher's
            answers are stored already.
    """
    check_teacher(teacher)
    if isinstance(teacher, StoredTeacher):
        raise ValueError("the teacher's answers are stored already, and need no record")
    options = options or RecordOptions()
    _check_count("draws", draws)
    if not is_pure(sampler):
        raise ValueError(
            "the sampler's draws depend on the student in training, so they cannot be recorded"
        )
    draws = rows_of(sampler, draws)
    asker = _Asker(recorded_form(sampler), teacher, data, codec, members, options.fabric)
    origin = _origin(asker, data, options)
    started = time.perf_counter()
    used = asker.codec
    version: Literal[1, 2] = getattr(used, "format", 1)
    with Recording(Path(folder), origin, used.dtype, asker.width, version) as recording:
        recorded = _record_all(asker, recording, draws, options)
        seconds = time.perf_counter() - started
        with recording.pricing() as manifest:
            price = manifest.price
            known = price is not None and price.draws == manifest.draws
            if price is None or not known or str(float(temperature)) not in price.kl:
                price = _price(asker, Path(folder), manifest.draws, options.chunk, temperature)
                recording.set_price(price)
    note = too_dear(price, used)
    return Report(manifest.draws, recorded, seconds, asker.width, price, note)


def _check_count(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} is {value}; it must be at least 1")


def _origin(asker: _Asker, data: Data, options: RecordOptions) -> Origin:
    sampler, seed, name = asker.sampler, options.seed, options.teacher_id
    return Origin(
        **of_data(data),
        seed=getattr(sampler, "seed", 0) if seed is None else seed,
        sampler=of_sampler(sampler if options.description is None else options.description),
        teacher=teacher_fingerprint(asker.teacher) if name is None else name,
        codec=asker.spec,
        members=asker.members,
        choice=asker.choice,
        family=None if asker.family is None else asker.family.spec,
    )


def _record_all(asker: _Asker, recording: Recording, draws: int, options: RecordOptions) -> int:
    """Record every missing draw below ``draws``, and return how many this process added."""
    recorded = 0
    # The first round takes shards that no other process works on; the second waits for those that
    # one does, and takes over if it ended early.
    for wait in (False, True):
        for first in range(0, draws, options.shard):
            last = min(first + options.shard, draws)
            if not recording.missing(first, last):
                continue
            with recording.claim(first, last, wait=wait) as ours:
                gaps = recording.missing(first, last) if ours else []
                held = draws - sum(b - a for a, b in recording.missing(0, draws))
                for count in _record_gaps(asker, recording, gaps, options.chunk):
                    recorded, held = recorded + count, held + count
                    if options.on_progress is not None:
                        options.on_progress(held)
    return recorded


def _may_be_richer(teacher: Teacher) -> bool:
    """Return whether a network of a teacher gives distributions that are not the usual ones."""
    if isinstance(teacher, DropoutTeacher):
        teacher = teacher.network
    if isinstance(teacher, EnsembleTeacher):
        return any(map(_may_be_richer, teacher.teachers))
    return isinstance(teacher, NetworkTeacher) and teacher.task.family is not None


class _Asker:
    """Sampler, teacher and codec as one function from draw ids to rows."""

    def __init__(
        self,
        sampler: Sampler,
        teacher: Teacher,
        data: Data,
        codec: Any,
        members: bool,
        fabric: Fabric | None,
    ) -> None:
        self.sampler, self.teacher = sampler, teacher
        if fabric is None:
            from lightning_fabric import Fabric

            # The draws lie where the data do.
            where = data.device
            fabric = Fabric(
                accelerator=where.type, devices=1 if where.index is None else [where.index]
            )
        self.fabric = fabric
        self.spec = plain(codec or default_codec(data.task))
        self.family = None
        if _may_be_richer(teacher):
            batch, _ = self.draw(torch.arange(1))
            said = self._members(batch)[0] if members else self.ask(batch)
            self.family = said.family
        task = replace(data.task, family=self.family)
        self.codec: Codec = build_codec(self.spec, task)
        self.choice = isinstance(sampler, Chooser)
        self.members = len(self._members(self.draw(torch.arange(1))[0])) if members else 0
        self.width = max(1, self.members) * self.codec.bytes_per_draw + int(self.choice)

    def draw(self, ids: Tensor) -> tuple[Batch, Any]:
        """Draw examples, and return with them the sampler's choice; None if it does not choose."""
        ids = ids.to(self.fabric.device)
        if not isinstance(self.sampler, Chooser):
            return self.sampler(ids), None
        choice = self.sampler.choose(ids)
        if int(choice.index.max()) > 255:
            raise ValueError(f"candidate {int(choice.index.max())} was chosen; a record holds 256")
        return choice.batch, choice

    def ask(self, batch: Batch) -> Distribution:
        """Ask the teacher.

        Raises:
            TrainingError: The teacher gave NaN or infinity.
        """
        with torch.no_grad(), self.fabric.autocast():
            said = self.teacher(batch.taught)
        check_answer(said, batch.ids)
        return said

    def _members(self, batch: Batch) -> list[Distribution]:
        if not isinstance(self.teacher, HasMembers):
            raise ValueError("members is True, but the teacher has no members; it is one network")
        with torch.no_grad(), self.fabric.autocast():
            said = self.teacher.members(batch.taught)
        for member in said:
            check_answer(member, batch.ids)
        return said

    def rows(self, ids: Tensor) -> Tensor:
        """Draw, ask and encode: uint8, [B, width], on the CPU."""
        batch, choice = self.draw(ids)
        said = self._members(batch) if self.members else [self._said(batch, choice)]
        parts = [self.codec.encode(one) for one in said]
        if choice is not None:
            parts.append(choice.index.to(torch.uint8).unsqueeze(1))
        return torch.cat(parts, dim=1).cpu()

    def _said(self, batch: Batch, choice: Any) -> Distribution:
        # A sampler that chose by asking this very teacher has its answer already.
        same = getattr(self.sampler, "teacher", None) is self.teacher
        said: Distribution | None = getattr(choice, "prediction", None) if same else None
        if said is None:
            return self.ask(batch)
        check_answer(said, batch.ids)
        return said


def _record_gaps(
    asker: _Asker, recording: Recording, gaps: list[tuple[int, int]], chunk: int
) -> Iterator[int]:
    """Record ranges of draws, and yield the number of draws of each chunk."""
    for start, end in gaps:
        parts: list[Tensor] = []
        begun, since = start, time.monotonic()
        chunks = torch.split(torch.arange(start, end), chunk)
        for ids in announced(asker.sampler, chunks, _AHEAD):
            first, last = int(ids[0]), int(ids[-1]) + 1
            parts.append(asker.rows(ids))
            if last == end or time.monotonic() - since > _SHARD_SECONDS:
                recording.add(begun, torch.cat(parts))
                parts, begun, since = [], last, time.monotonic()
            yield last - first


def _price(asker: _Asker, folder: Path, draws: int, chunk: int, temperature: float) -> Price:
    """Compare the teacher with the stored distributions, on draws from all over the record.

    The teacher is asked anew, and the record is read as a student reads it, so rows at wrong places
    would show.
    """
    if draws == 0:
        raise StorageError(f"{str(folder)!r} lacks draw 0, so nothing of it can be read")
    stored = open_knowledge(folder)
    count = min(draws, _SAMPLE)
    sample = rng.permuted(draws, 0, torch.arange(count), "knowledge.price").sort().values
    found: dict[float, list[Tensor]] = {t: [] for t in dict.fromkeys([1.0, float(temperature)])}
    for ids in torch.split(sample, chunk):
        batch, _ = asker.draw(ids)
        said, kept = asker.ask(batch), stored(batch)
        for t, values in found.items():
            values.append(said.tempered(t).kl(kept.tempered(t)).cpu())  # type: ignore[arg-type]
    kl = {t: torch.cat(values) for t, values in found.items()}
    return Price(
        draws=draws,
        sample=count,
        kl={str(t): {"mean": float(v.mean()), "worst": float(v.max())} for t, v in kl.items()},
    )


def price_lines(report: Report) -> list[str]:
    """Return a line on the cost of storing for each temperature."""
    return [
        f"KL(teacher ‖ stored) at T = {float(t):g}: mean {kl['mean']:.2e}, worst {kl['worst']:.2e}"
        for t, kl in report.price.kl.items()
    ]
