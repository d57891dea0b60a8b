"""A teacher whose answers on the stored examples are asked once, before the first step.

Draws of a bare ``empirical`` are the stored examples themselves, again in every epoch, and so are
the teacher's answers on them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from extracurricular.data.images.stream import streamed
from extracurricular.distributions import Distribution, reader_of
from extracurricular.inputs import Batch, Capturable
from extracurricular.samplers.base import Sampler
from extracurricular.samplers.stored import Empirical
from extracurricular.samplers.weak import seen_by_teacher
from extracurricular.teachers.apart import Apart
from extracurricular.teachers.base import Teacher
from extracurricular.teachers.calibrated import Calibrated
from extracurricular.teachers.networks import DropoutTeacher, EnsembleTeacher, NetworkTeacher
from extracurricular.teachers.raw import RawTeacher
from extracurricular.training.settings import Training

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# Examples that the teacher is asked about at once, and the most that its answers may take.
_BLOCK = 256
_MOST_BYTES = 2**26


class RememberedTeacher(Capturable):
    """The answers of a teacher on all training examples, found again by the draw's id.

    Args:
        answers: Raw distribution parameters of the N training examples, [N, K].
        read: Reads such parameters as distributions.
        sampler: The sampler whose draws are these examples.
    """

    def __init__(
        self, answers: Tensor, read: Callable[[Tensor], Distribution], sampler: Empirical
    ) -> None:
        self.answers, self.read, self.sampler = answers, read, sampler

    def __call__(self, batch: Batch) -> Distribution:
        """Return the answers on the examples of a batch."""
        rows = self.sampler.index(batch.ids)
        return self.read(self.answers.index_select(0, rows))


def pays(teacher: Teacher, sampler: Sampler, settings: Training) -> bool:
    """Whether a teacher's answers are worth remembering: fixed by the settings, never by timing."""
    sampler = seen_by_teacher(sampler)
    if type(sampler) is not Empirical or streamed(sampler.data.train.x) is not None:
        return False
    if not _by_example_alone(teacher):
        return False
    count = len(sampler.data.train)
    twice = settings.steps * settings.batch_size >= 2 * count
    return twice and 4 * count * sampler.data.task.outputs <= _MOST_BYTES


@torch.no_grad()
def remembered(teacher: Teacher, sampler: Sampler, settings: Training, fabric: Fabric) -> Teacher:
    """Return a teacher that has been asked about every stored example, where that pays.

    Args:
        teacher: The teacher.
        sampler: The sampler of the training.
        settings: The budget of the training.
        fabric: Device and precision of the answers.
    """
    if not pays(teacher, sampler, settings):
        return teacher
    sampler = seen_by_teacher(sampler)
    assert isinstance(sampler, Empirical)
    train, parts = sampler.data.train, []
    for start in range(0, len(train), _BLOCK):
        raw = train[start : start + _BLOCK]
        ids = torch.arange(start, start + len(raw), device=fabric.device)
        with fabric.autocast():
            parts.append(teacher(Batch(ids, sampler.data.inputs(raw.x))))
    answers = torch.cat([part.parameters for part in parts])
    return RememberedTeacher(answers, reader_of(parts[0]), sampler)


def _by_example_alone(teacher: Teacher) -> bool:
    """Whether a teacher is of a kind whose answer depends on the example alone."""
    if isinstance(teacher, Apart):
        return _by_example_alone(teacher.teacher)
    if isinstance(teacher, EnsembleTeacher):
        return all(map(_by_example_alone, teacher.teachers))
    if isinstance(teacher, Calibrated):
        return _by_example_alone(teacher.teacher)
    return isinstance(teacher, NetworkTeacher | DropoutTeacher | RawTeacher)
