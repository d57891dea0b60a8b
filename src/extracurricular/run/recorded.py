"""A recorded teacher of a run: asked once on the draws of a sampler, then replayed.

``teacher: {record: {draws: N}}`` makes a record for each sampler, whose draws do not depend on the
student's seed, so that all seeds and students with that sampler share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from extracurricular.data.images.stream import left_out_of_draws
from extracurricular.errors import RecipeError, XclError
from extracurricular.knowledge import (
    Recorded,
    RecordOptions,
    Replay,
    Report,
    build_codec,
    open_knowledge,
    price_lines,
    record,
)
from extracurricular.run.network import NetworkStage
from extracurricular.run.settings import data_settings, recorded_chain
from extracurricular.run.stages import Checks, Price, Stage, begun
from extracurricular.run.workspace import Workspace
from extracurricular.samplers import Sampler
from extracurricular.teachers import Teacher


@dataclass(frozen=True)
class RecordStage(Stage):
    """A teacher to record on the draws of one sampler, for all students that draw from it.

    Args:
        student: The stage of a student that draws from that sampler and asks the teacher itself.
        seed: Seed of the sampler.
        draws: Draws to record.
        codec: Codec of the answers; None for float16.
    """

    student: NetworkStage
    seed: int
    draws: int
    codec: Any

    @property
    def steps(self) -> int:
        """The number of training steps with as many draws."""
        return -(-self.draws // self.student.training.batch_size)

    @property
    def needs(self) -> tuple[Stage, ...]:
        """The stages that teacher and generators are made of."""
        return self.student.needs

    @property
    def settings(self) -> dict[str, Any]:
        """All that the result depends on but the content of the data, as plain values.

        The number of draws is not among them, since more can be added to fewer.
        """
        return {
            "data": data_settings(self.data),
            "sampler": self.student.sampler,
            "seed": self.seed,
            "codec": self.codec,
            "precision": self.student.precision,
            "upstream": self.student.upstream,
        }

    def is_finished(self, record: dict[str, Any]) -> bool:
        """Return whether a ``stage.json`` is that of a record with enough draws."""
        return bool(record.get("done")) and record.get("draws", 0) >= self.draws

    def blame(self, error: ValueError) -> XclError:
        """Return the error to raise for draws that cannot be recorded."""
        return RecipeError(f"{self.key}.sampler", str(error))

    def check(self, workspace: Workspace, checks: Checks) -> None:
        """Build the codec."""
        task = workspace.data(self.data).task
        build_codec(self.codec or "float16", task, "teacher.record.codec")

    def price(self, workspace: Workspace, checks: Checks) -> Price:
        """Return the cost of the recording."""
        task = workspace.data(self.data).task
        codec = build_codec(self.codec or "float16", task, "teacher.record.codec")
        return Price(self.steps, self.draws, self.draws, bytes=self.draws * codec.bytes_per_draw)

    def do(self, workspace: Workspace) -> None:
        """Record the teacher; an interrupted recording goes on where it stopped."""
        if self.is_done(workspace):
            return
        size = self.student.training.batch_size
        with begun(workspace, self) as outcome:
            report = self._record(
                workspace, lambda done: workspace.watcher.advance(self.title, done // size, None)
            )
            outcome |= {"draws": report.draws, "bytes_per_draw": report.bytes_per_draw}
            outcome["price"] = report.price.model_dump(mode="json")
            outcome["seconds"] = round(report.seconds, 3)
            known = (
                workspace.answering.get(self.student.teacher.path) if self.student.teacher else None
            )
            outcome |= {"teacher": known} if known else {}
        for left_out in left_out_of_draws(workspace.data(self.data)):
            workspace.watcher.tell(left_out)
        price = "; ".join(price_lines(report))
        workspace.watcher.tell(f"{self.title}: {report.bytes_per_draw} bytes a draw, {price}")

    def _record(self, workspace: Workspace, on_progress: Any) -> Report:
        teacher = self.student.teacher
        assert teacher is not None
        return record(
            self.student.draws(workspace, seed=self.seed),
            workspace.made(teacher),
            workspace.data(self.data),
            self.draws,
            workspace.folder / self.path,
            codec=self.codec,
            temperature=float(self.student.matching.get("temperature", 1.0)),
            options=RecordOptions(
                description=description(self.student),
                seed=self.seed,
                fabric=workspace.fabric,
                on_progress=on_progress,
            ),
        )

    def open(self, workspace: Workspace) -> Recorded:
        """Return the recorded teacher.

        Raises:
            StorageError: The record is missing, damaged, or one of other draws or another teacher.
        """
        teacher = self.student.teacher
        assert teacher is not None
        return open_knowledge(
            workspace.folder / self.path,
            data=workspace.data(self.data),
            sampler=description(self.student),
            seed=self.seed,
            teacher=workspace.made(teacher),
        )

    def replay(self, workspace: Workspace, seed: int) -> tuple[Sampler, Teacher]:
        """Return the recorded draws in the order of a student's seed, and the recorded teacher."""
        known = self.open(workspace)
        choices = known.choices if known.manifest.origin.choice else None
        child = self.student.draws(workspace, seed=self.seed)
        # Seeds share the draws, but each goes through them in an order of its own.
        return Replay(child, self.draws, seed, choices, start=1), known


def description(student: NetworkStage) -> dict[str, Any]:
    """Return all that a student's draws depend on, but for the data, the teacher and the seed."""
    used = [generator.settings for generator in student.generators]
    return {"chain": recorded_chain(student.sampler), "generators": used}
