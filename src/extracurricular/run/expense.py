"""The multiply-adds of a training: passes through the student, and through the teacher it asks.

A step on an example counts as three forward passes of the student, one forward and about two
backward. The teacher's forward passes are counted for each answer: those on draws, those on
candidates among which ``uncertain`` chooses, and once those that are recorded or remembered.
Measurements of mastery count, and evaluations, which train nothing, do not. The count is that of
the method, however a device batches it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from extracurricular.data.base import Data
from extracurricular.files import read_lines
from extracurricular.models.cost import multiply_adds
from extracurricular.run.sources import RecordSource, TeacherSource
from extracurricular.run.workspace import Workspace
from extracurricular.samplers import Sampler, Share, Uncertain, is_pure
from extracurricular.samplers.build import share_is_auto
from extracurricular.samplers.moving import mean
from extracurricular.teachers import Teacher
from extracurricular.training import Training
from extracurricular.training.mastery import EARLY, MOST, UNTIL, stride

# Forward passes that a step on an example counts as, for the student.
PASSES = 3


@dataclass(frozen=True)
class Expense:
    """All that a training computes.

    Args:
        student: Multiply-adds of a forward pass of the student, for one example.
        teacher: Those of the teacher; None where they cannot be counted.
        draws: Draws of the training.
        asked: Answers of the teacher.
        looked: Forward passes of the student beside those of its steps.
    """

    student: int
    teacher: int | None
    draws: int
    asked: float = 0.0
    looked: float = 0.0

    @property
    def multiply_adds(self) -> int | None:
        """Multiply-adds of the training; None where the teacher's are needed and unknown."""
        if self.asked and self.teacher is None:
            return None
        own = (PASSES * self.draws + self.looked) * self.student
        return round(own + self.asked * (self.teacher or 0))


class Trained(Protocol):
    """A training, as a stage of a network is one."""

    @property
    def path(self) -> str:
        """Folder of its log, relative to the run."""
        ...

    @property
    def data(self) -> Any:
        """Spec of the data set."""
        ...

    @property
    def sampler(self) -> Any:
        """Chain of the sampler."""
        ...

    @property
    def training(self) -> Training:
        """Settings of the training."""
        ...

    @property
    def learns_from(self) -> str:
        """``labels`` or ``teacher``."""
        ...

    @property
    def held_out(self) -> float | None:
        """Part of the training examples that is kept out; None where nothing asks for it."""
        ...

    @property
    def teacher(self) -> TeacherSource | None:
        """The source of its teacher."""
        ...

    @property
    def record(self) -> RecordSource | None:
        """The record that it learns from; None where there is none."""
        ...

    @property
    def asks_teacher(self) -> bool:
        """Whether the teacher is needed at all."""
        ...

    def draws(self, workspace: Workspace, student: nn.Module | None = None) -> Sampler:
        """Return its sampler."""
        ...

    def asks_once(self, teacher: Teacher, sampler: Sampler) -> bool:
        """Whether the loop asks the teacher once about each stored example."""
        ...


def forward_cost(module: nn.Module, data: Data) -> int | None:
    """Return the multiply-adds of a network for one example; None where they cannot be counted."""
    try:
        return multiply_adds(module, data.shapes)
    except Exception:  # a module of the user's own raises what it likes, and is no worse for it
        return None


def questions(sampler: Sampler, learns_from: str, share: float | None = None) -> float:
    """Return how many times the teacher is asked for each of a student's draws, on average.

    Args:
        sampler: The sampler.
        learns_from: ``labels`` or ``teacher``.
        share: The mean share of extended draws, for a sampler that has one; where None, the one
            that asks more counts.
    """
    inside: float = getattr(sampler, "asks", 0.0)
    if isinstance(sampler, Share) and share is not None:
        plain, extended = (
            getattr(child, "asks", 0.0) for child in (sampler.plain, sampler.extended)
        )
        inside = (1 - share) * plain + share * extended
    # The loop reuses the answers that such a sampler has asked for.
    taken_over = isinstance(sampler, Uncertain) or learns_from == "labels"
    return inside if taken_over else 1 + inside


def looks_of(sampler: Sampler, share: float | None = None) -> float:
    """Return the student's forward passes for each draw, on average: those that choose draws."""
    return 0.0 if is_pure(sampler) else questions(sampler, "labels", share)


def measured(count: int, part: float, steps: int, until: int | None, auto: bool) -> tuple[int, int]:
    """Return the examples that mastery is measured on, and how often.

    Args:
        count: Training examples.
        part: Part of them that is kept out.
        steps: Steps of the training.
        until: The step up to which it is measured; None for the rule's.
        auto: Whether the share of extended draws follows.
    """
    out = min(MOST, max(1, round(part * count)))
    every = stride(steps)
    end = until or (int(UNTIL * steps) // every * every if auto else 0) or steps
    return out + min(MOST, count - out), min(end, steps) // every


def mean_share(
    sampler: Sampler, lines: Iterable[Mapping[str, Any]] | None, steps: int
) -> float | None:
    """Return the mean share of extended draws over a training; None without one, or unknown.

    Args:
        sampler: The sampler.
        lines: The lines of the log, which know a share that follows mastery; None before there
            are any.
        steps: Steps of the training.
    """
    if not isinstance(sampler, Share):
        return None
    if sampler.of is not None:
        return mean(sampler.of)
    if lines is None:
        return None
    total, since, share = 0.0, 0, 0.0
    for line in lines:
        found = (line.get("mastery") or {}).get("share")
        if found is not None:
            total += share * (line["step"] - since)
            since, share = line["step"], found
    return (total + share * (steps - since)) / steps


def expense(
    stage: Trained,
    workspace: Workspace,
    student: nn.Module,
    sampler: Sampler,
    teacher: Teacher | None,
    *,
    done: int | None = None,
    until: int | None = None,
    share: float | None = None,
) -> Expense | None:
    """Return all that a training computes; None where the student's passes cannot be counted.

    Args:
        stage: The training.
        workspace: The workspace of the run.
        student: The student, trained or not.
        sampler: Its sampler, which asks the teacher itself.
        teacher: The teacher, trained or not; None where it is not asked.
        done: Steps that were done; all where None.
        until: The step up to which mastery is measured; None for the rule's.
        share: The mean share of extended draws; see :func:`questions`.
    """
    data, steps = workspace.data(stage.data), stage.training.steps
    pass_ = forward_cost(student, data)
    if pass_ is None:
        return None
    draws = (steps if done is None else done) * stage.training.batch_size
    asks = questions(sampler, stage.learns_from, share)
    looked, asked = looks_of(sampler, share) * draws, asks * draws
    auto = share_is_auto(stage.sampler)
    mastery = (stage.held_out is not None or auto) and stage.learns_from == "teacher"
    if stage.record is not None:
        asked = asks * stage.record.rows
    elif teacher is not None and stage.asks_once(teacher, sampler):
        # Once with the held-out examples kept out, and once with all.
        asked = float(len(data.train) * (2 if mastery and (until or auto) else 1))
    if mastery:
        part = EARLY if stage.held_out is None else stage.held_out
        examples, times = measured(len(data.train), part, steps, until, auto)
        looked, asked = looked + examples * times, asked + examples
    cost = None if stage.teacher is None else stage.teacher.forward_cost(workspace)
    return Expense(pass_, cost, draws, asked, looked)


def spent(
    stage: Trained,
    workspace: Workspace,
    student: nn.Module,
    done: int | None = None,
    until: int | None = None,
) -> int | None:
    """Return the multiply-adds of a training that has been done; None where they are unknown.

    Args:
        stage: The training; its log is in its folder.
        workspace: The workspace of the run.
        student: The student.
        done, until: As for :func:`expense`.
    """
    sampler = stage.draws(workspace, student)
    lines = read_lines(workspace.folder / stage.path / "log.jsonl")
    share = mean_share(sampler, lines, stage.training.steps if done is None else done)
    asks = stage.teacher is not None and stage.asks_teacher
    teacher = workspace.made(stage.teacher) if asks and stage.teacher is not None else None
    found = expense(
        stage, workspace, student, sampler, teacher, done=done, until=until, share=share
    )
    return None if found is None else found.multiply_adds
