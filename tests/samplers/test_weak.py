"""A weak draw for the teacher and a strong one for the student: two views of one id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import extracurricular as xcl
from extracurricular.distributions import Categorical, Distribution
from extracurricular.errors import RecipeError
from extracurricular.inputs import Batch
from extracurricular.samplers import Empirical, Weak, build_sampler
from extracurricular.samplers.build import Context
from extracurricular.samplers.weak import NOT_AFTER, seen_by_teacher
from extracurricular.teachers import Network
from extracurricular.training import Training, train
from extracurricular.training.loop import cpu_fabric
from extracurricular.training.remembered import RememberedTeacher, pays, remembered
from tests.conftest import image_data
from tests.test_laws import Watch, linear

IMAGES = image_data()
CHAIN: list[Any] = ["empirical", {"augment": {"pad": 1}}, "weak", {"noise": {"std": 0.3}}, "cutout"]
IDS = torch.arange(40)


def inputs(batch: Batch) -> Tensor:
    assert isinstance(batch.x, Tensor)
    return batch.x


def test_both_views_are_functions_of_the_id() -> None:
    """Law 1, of the weak view too: batches, order and what was drawn before change nothing."""
    sampler = build_sampler(CHAIN, IMAGES, 3)
    whole = sampler(IDS)
    assert isinstance(whole.weak, Tensor)
    for ids in (IDS[:1], IDS[7:9], IDS.flip(0), torch.tensor([5, 5])):
        part = build_sampler(CHAIN, IMAGES, 3)(ids)
        assert torch.equal(inputs(part.taught), whole.weak[ids])
        assert torch.equal(inputs(part.learned), inputs(whole)[ids])
        assert torch.equal(part.ids, ids)


def test_the_teacher_sees_the_chain_up_to_weak_and_the_student_all_of_it() -> None:
    sampler = build_sampler(CHAIN, IMAGES, 3)
    before = build_sampler(CHAIN[:2], IMAGES, 3)
    plain = build_sampler([CHAIN[0], CHAIN[1], *CHAIN[3:]], IMAGES, 3)
    batch = sampler(IDS)
    assert torch.equal(inputs(batch.taught), inputs(before(IDS)))
    assert batch.taught.weak is batch.learned.weak is None
    assert not torch.equal(inputs(batch.taught), inputs(batch.learned))
    assert inputs(batch.learned).shape == inputs(plain(IDS)).shape
    assert torch.equal(batch.y, before(IDS).y)  # type: ignore[arg-type]


class Sees:
    """A teacher that remembers what it saw."""

    def __init__(self) -> None:
        self.seen: dict[int, Tensor] = {}

    def __call__(self, batch: Batch) -> Distribution:
        for k, i in enumerate(batch.ids.tolist()):
            self.seen[i] = inputs(batch)[k].clone()
        return Categorical(torch.zeros(len(batch), 4))


def test_a_training_shows_each_side_its_view() -> None:
    teacher, student = Sees(), Watch()
    sampler = build_sampler(CHAIN, IMAGES, 3)
    train(
        student, sampler, teacher, IMAGES.task, settings=Training(steps=10, batch_size=6, lr=0.01)
    )
    ids = torch.arange(60)
    assert torch.equal(
        torch.stack([teacher.seen[i] for i in range(60)]), inputs(sampler(ids).taught)
    )
    assert torch.equal(torch.cat(student.seen), inputs(sampler(ids)))


def test_a_teacher_that_sees_stored_examples_is_asked_once_about_each() -> None:
    sampler = build_sampler(["empirical", "weak", {"noise": {"std": 0.3}}], IMAGES, 3)
    teacher = Network(linear(64, 4), IMAGES.task)
    settings = Training(steps=30, batch_size=8)
    assert pays(teacher, sampler, settings)
    known = remembered(teacher, sampler, settings, cpu_fabric())
    assert isinstance(known, RememberedTeacher)
    batch = sampler(IDS)
    torch.testing.assert_close(known(batch.taught).mean, teacher(batch.taught).mean)
    assert seen_by_teacher(Empirical(IMAGES)).data is IMAGES


def test_a_record_holds_the_answers_on_the_weak_draws(tmp_path: Path) -> None:
    sampler = build_sampler(CHAIN, IMAGES, 3)
    teacher = Network(linear(64, 4), IMAGES.task)
    xcl.record(sampler, teacher, IMAGES, 60, tmp_path / "record")
    known = xcl.open_knowledge(tmp_path / "record")
    batch = sampler(IDS)
    torch.testing.assert_close(known(batch).mean, teacher(batch.taught).mean, atol=2e-3, rtol=0)
    assert float((known(batch).mean - teacher(batch.learned).mean).abs().max()) > 0.05


@pytest.mark.parametrize("name", [*NOT_AFTER, "weak"])
def test_what_makes_another_example_cannot_follow(name: str) -> None:
    with pytest.raises(
        RecipeError, match=f"sampler.2: is '{name}', which cannot stand after 'weak'"
    ):
        build_sampler(
            ["empirical", "weak", name], IMAGES, 0, context=Context(Sees(), nn.Identity())
        )


def test_it_stands_in_no_other_chain() -> None:
    inner = ["empirical", "weak", "cutout"]
    for chain in (
        [{"blend": {"a": {"weight": 1.0, "sampler": inner}}}],
        [{"share": {"of": 0.5, "extended": inner}}],
    ):
        with pytest.raises(RecipeError, match="is 'weak', which cannot stand inside of another ch"):
            build_sampler(chain, IMAGES, 0)
    assert isinstance(build_sampler(["empirical", "weak"], IMAGES, 0), Weak)
