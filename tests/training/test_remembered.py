"""A teacher that is asked once about every stored example gives the answers that it would give."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from extracurricular.distributions import Distribution
from extracurricular.inputs import Batch
from extracurricular.samplers import Empirical, Mixup, Noise
from extracurricular.teachers import EnsembleTeacher, LabelTeacher, NetworkTeacher
from extracurricular.training import Training, train
from extracurricular.training.loop import cpu_fabric
from extracurricular.training.remembered import RememberedTeacher, pays, remembered
from tests.conftest import eye_data, image_data, pair_data, small_teacher, table_data

LONG = Training(steps=100, batch_size=16)


@pytest.mark.parametrize("make", [image_data, table_data, eye_data, pair_data])
def test_its_answers_are_those_of_the_teacher(make: Any) -> None:
    data = make()
    teacher, sampler = small_teacher(data), Empirical(data, seed=3)
    found = remembered(teacher, sampler, LONG, cpu_fabric())
    assert isinstance(found, RememberedTeacher)
    for ids in (torch.arange(7), torch.arange(200), torch.tensor([10**9, 3, 3])):
        batch = sampler(ids)
        ours, theirs = found(batch), teacher(batch)
        assert type(ours) is type(theirs)
        torch.testing.assert_close(ours.parameters, theirs.parameters, rtol=1e-5, atol=1e-5)


def test_it_is_asked_once_about_each_example() -> None:
    data = image_data()
    inner = small_teacher(data)
    seen: list[int] = []
    modules = [one.module for one in inner.teachers]  # type: ignore[attr-defined]
    modules[0].register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    student = small_teacher(data, members=1, seed=1).teachers[0].module  # type: ignore[attr-defined]
    train(student, Empirical(data), inner, data.task, settings=LONG)
    assert sum(seen) == len(data.train)


class Own:
    """A teacher of a kind that nobody knows: it may look at more than the example."""

    def __init__(self, teacher: EnsembleTeacher) -> None:
        self.teacher = teacher

    def __call__(self, batch: Batch) -> Distribution:
        return self.teacher(batch)


def test_it_is_done_only_where_draws_are_stored_examples() -> None:
    data = image_data()
    teacher, stored = small_teacher(data), Empirical(data)
    assert pays(teacher, stored, LONG)
    assert not pays(teacher, Mixup(stored), LONG)
    assert not pays(teacher, Noise(stored, std=0.1), LONG)
    assert not pays(LabelTeacher(), stored, LONG)
    assert not pays(Own(teacher), stored, LONG)
    assert not pays(EnsembleTeacher([teacher, Own(teacher)]), stored, LONG)
    # An epoch or less is not worth it.
    assert not pays(teacher, stored, Training(steps=1, batch_size=16))
    assert isinstance(teacher.teachers[0], NetworkTeacher)
