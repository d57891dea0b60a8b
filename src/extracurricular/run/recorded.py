"""A recorded teacher of a run: asked once on the draws of a sampler, then replayed.

``teacher: {record: {draws: N}}`` makes a record for each sampler, whose draws do not depend on the
student's seed, so that all seeds and students with that sampler share it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
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
    recorded_form,
)
from extracurricular.run.families import asks_members
from extracurricular.run.network import NetworkStage, context_of, mastery_in
from extracurricular.run.settings import data_settings, recorded_chain
from extracurricular.run.stages import Checks, Price, Stage, begun
from extracurricular.run.workspace import Workspace
from extracurricular.samplers import Sampler, Share
from extracurricular.samplers.build import is_share, moves, share_is_auto
from extracurricular.samplers.share import in_phases
from extracurricular.teachers import HasMembers, Teacher


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
    def rows(self) -> int:
        """The number of answers; for a share that is ``auto``, two for each draw of a training."""
        return self.draws * (2 if share_is_auto(self.student.sampler) else 1)

    @property
    def needs(self) -> tuple[Stage, ...]:
        """The stages that teacher and generators are made of."""
        return self.student.needs

    @property
    def settings(self) -> dict[str, Any]:
        """All that the result depends on but the content of the data, as plain values.

        The number of draws is among them only where the draws belong to one training, since else
        more can be added to fewer.
        """
        return {
            "data": data_settings(self.data),
            "sampler": self.student.sampler,
            "seed": self.seed,
            "codec": self.codec,
            "precision": self.student.precision,
            "upstream": self.student.upstream,
            **belongs_to(self.student),
            **({"members": True} if asks_members(self.student.distribution) else {}),
        }

    def is_finished(self, record: dict[str, Any]) -> bool:
        """Return whether a ``stage.json`` is that of a record with enough draws."""
        return bool(record.get("done")) and record.get("draws", 0) >= self.rows

    def blame(self, error: ValueError) -> XclError:
        """Return the error to raise for draws that cannot be recorded."""
        return RecipeError(f"{self.key}.sampler", str(error))

    def check(self, workspace: Workspace, checks: Checks) -> None:
        """Build the codec, and compare the number of draws with that of the training.

        Raises:
            RecipeError: The codec is wrong, or the draws belong to a training of another length.
        """
        check_length(self.student, self.draws, "teacher.record.draws")
        task = workspace.data(self.data).task
        build_codec(self.codec or "float16", task, "teacher.record.codec")

    def price(self, workspace: Workspace, checks: Checks) -> Price:
        """Return the cost of the recording."""
        task = workspace.data(self.data).task
        codec = build_codec(self.codec or "float16", task, "teacher.record.codec")
        return Price(self.steps, self.rows, self.rows, bytes=self.rows * codec.bytes_per_draw)

    def do(self, workspace: Workspace) -> None:
        """Record the teacher; an interrupted recording goes on where it stopped."""
        if self.is_done(workspace):
            return
        with begun(workspace, self) as outcome:
            ranks = workspace.ranks
            if ranks is not None and not ranks.shards:
                ranks.tell("record", path=self.path, content=workspace.content(self.data))
            report = self.record(
                workspace,
                lambda done: workspace.watcher.advance(
                    self.title, done * self.steps // self.rows, None
                ),
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
        if report.note is not None:
            workspace.watcher.tell(f"{self.title}: {report.note}")

    def record(
        self, workspace: Workspace, on_progress: Callable[[int], None] | None = None
    ) -> Report:
        """Record the teacher, together with others that do the same in this folder."""
        teacher = self.student.teacher
        assert teacher is not None
        asked = workspace.made(teacher)
        return record(
            recorded_draws(self.student, workspace, self.seed, self.draws),
            asked,
            workspace.data(self.data),
            self.draws,
            workspace.folder / self.path,
            codec=self.codec,
            members=asks_members(self.student.distribution) and isinstance(asked, HasMembers),
            temperature=self.student.last_temperature,
            options=RecordOptions(
                description=description(self.student, self.draws),
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
            sampler=description(self.student, self.draws),
            seed=self.seed,
            teacher=workspace.made(teacher),
        )

    def replay(self, workspace: Workspace, seed: int) -> tuple[Sampler, Teacher]:
        """Return the recorded draws in the order of a student's seed, and the recorded teacher."""
        known = self.open(workspace)
        if known.note is not None:
            workspace.watcher.tell(f"students learn from {self.title}: {known.note}")
        form = recorded_form(_sampler(self.student, workspace, self.seed, self.draws))
        if isinstance(form, Share):
            return form, known
        choices = known.choices if known.manifest.origin.choice else None
        # Seeds share the draws, but each goes through them in an order of its own; unless the
        # draws have their place in the training.
        start = 0 if belongs_to(self.student) else 1
        return Replay(form, self.draws, seed, choices, start), known


def belongs_to(student: NetworkStage) -> dict[str, Any]:
    """Return the training that a student's recorded draws belong to; {} if they go with any.

    Draws with a course over the training have their place in it. Those of a share that is ``auto``
    leave out the held-out examples in the first part of the training.
    """
    training = student.training
    length = {"steps": training.steps, "batch_size": training.batch_size}
    if share_is_auto(student.sampler):
        held = {} if student.held_out is None else {"held_out": student.held_out}
        return {"follows": length | held}
    return {"follows": length} if moves(student.sampler) else {}


def check_length(student: NetworkStage, draws: int, key: str) -> None:
    """Refuse to record other draws than those of the training that they belong to.

    Raises:
        RecipeError: Their number is another.
    """
    if draws != student.length and belongs_to(student):
        raise RecipeError(
            key, f"is {draws}, but the draws of {student.key} follow its training, which has "
            f"{student.training.steps} steps of {student.training.batch_size}; "
            f"set it to {student.length}"
        )  # fmt: skip


def recorded_draws(student: NetworkStage, workspace: Workspace, seed: int, draws: int) -> Sampler:
    """Return the sampler whose draws are recorded for a student.

    Args:
        student: The student, which asks the teacher itself.
        workspace: The workspace of the run.
        seed: Seed of the sampler.
        draws: Draws to record.
    """
    sampler = _sampler(student, workspace, seed, draws)
    if not (isinstance(sampler, Share) and sampler.of is None):
        return sampler
    mastery = mastery_in(student, workspace, seed=seed)
    assert mastery is not None
    assert isinstance(mastery.early, Share)
    edge = min(mastery.until, student.training.steps) * student.training.batch_size
    return in_phases(mastery.early, sampler, edge)


def _sampler(student: NetworkStage, workspace: Workspace, seed: int, draws: int) -> Sampler:
    """Return a student's sampler, whose settings move over the draws to record."""
    if not moves(student.sampler):
        return student.draws(workspace, seed=seed)
    context = replace(context_of(student, workspace), draws=draws)
    return student.build_sampler(workspace, context, seed)


def description(student: NetworkStage, draws: int) -> dict[str, Any]:
    """Return all that a student's draws depend on, but for the data, the teacher and the seed.

    Args:
        student: The student.
        draws: Draws to record, over which the settings of its sampler move.
    """
    used = [generator.settings for generator in student.generators]
    found = {"chain": recorded_chain(student.sampler), "generators": used}
    if moves(student.sampler):
        found["draws"] = draws
    if share_is_auto(student.sampler):
        return found | {"rows": "both"} | belongs_to(student)
    return found | ({"rows": "slots"} if is_share(student.sampler) else {})
