"""Answers in a file give the same figures as answers in memory, and are never read as a whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import extracurricular as xcl
from extracurricular.assess.assess import Settings, assess
from extracurricular.data.base import Data, make_data
from extracurricular.distributions import (
    Categorical,
    Filed,
    Gaussian,
    Task,
    concatenate,
    filed,
    gathered,
)
from extracurricular.evaluation import metrics
from extracurricular.export.verify import check, outputs_of
from extracurricular.predictors.of_data import of_data, with_scales
from extracurricular.run.answers import summed_up

COUNT, CLASSES = 70, 50


def logits(seed: int = 0, count: int = COUNT) -> Tensor:
    return 3 * torch.randn(count, CLASSES, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are large from 1,000 numbers on, and read 300 numbers at once."""
    monkeypatch.setattr(filed, "_MOST_NUMBERS", 1000)
    monkeypatch.setattr(filed, "_AT_ONCE", 300)


@pytest.fixture
def never_whole(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may read all of a file at once."""
    read = Filed._rows

    def bounded(self: Filed, start: int, stop: int) -> Tensor:
        assert (stop - start) * CLASSES <= 32 * CLASSES
        return read(self, start, stop)

    monkeypatch.setattr(Filed, "_rows", bounded)


def in_file(values: Tensor) -> Filed:
    found = gathered((Categorical(part) for part in values.split(16)), len(values))
    assert isinstance(found, Filed)
    return found


@pytest.mark.usefixtures("small")
def test_a_file_gives_what_memory_gives() -> None:
    values = logits()
    there, here = in_file(values), Categorical(values)
    other, teacher = Categorical(logits(1)), in_file(logits(1))
    y = torch.arange(COUNT) % CLASSES
    assert len(there) == COUNT
    assert torch.equal(there.logits, values)
    assert torch.equal(there.probs, here.probs)
    assert torch.equal(there[5:9].logits, values[5:9])
    assert torch.equal(there[::7].logits, values[::7])
    assert torch.equal(there[torch.tensor([3, 69, 3])].logits, values[[3, 69, 3]])
    assert torch.equal(there[y == 4].logits, values[y == 4])
    assert torch.equal(there.columns(3, 8), here.columns(3, 8))
    for name in ("top", "entropy"):
        mine, theirs = getattr(there, name)(), getattr(here, name)()
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    torch.testing.assert_close(there.nll(y), here.nll(y))
    soft = torch.softmax(logits(2), 1)
    torch.testing.assert_close(there.nll(soft), here.nll(soft))
    torch.testing.assert_close(there.kl(teacher), here.kl(other))
    torch.testing.assert_close(there.js(other), here.js(other))
    wanted = metrics.figures(here, y, teacher=other)
    found = metrics.figures(there, y, teacher=teacher)
    assert found == pytest.approx(wanted, rel=1e-6)
    kept, known = summed_up(there, y, teacher), summed_up(here, y, other)
    assert kept.keys() == known.keys()
    for name, value in known.items():
        torch.testing.assert_close(kept[name], value)


@pytest.mark.usefixtures("small")
def test_only_answers_over_many_classes_lie_in_a_file() -> None:
    few = gathered([Categorical(logits(count=4))], 4)
    assert type(few) is Categorical
    reals = [Gaussian(torch.zeros(2000, 1), torch.zeros(2000, 1))] * 2
    assert isinstance(gathered(reals, 4000), Gaussian)
    assert torch.equal(gathered(reals, 4000).parameters, concatenate(reals).parameters)
    with pytest.raises(ValueError, match="one or more"):
        gathered([], 0)
    assert len(Filed.collect([Categorical(logits(count=0))])) == 0


def many() -> Data:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(COUNT + CLASSES, 6, generator=generator)
    y = torch.arange(COUNT + CLASSES) % CLASSES
    return make_data(
        "many",
        (x[:CLASSES], y[:CLASSES]),
        (x[CLASSES:], y[CLASSES:]),
        task=Task("classification", CLASSES),
    )


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(6, CLASSES)


@pytest.mark.usefixtures("never_whole")
def test_prediction_evaluation_and_verification_read_parts_alone() -> None:
    data = many()
    student, teacher = (xcl.NetworkTeacher(network(k), data.task) for k in range(2))
    said, known = (xcl.predict(one, data, data.test, 16) for one in (student, teacher))
    assert isinstance(said, Filed)
    assert data.test.y is not None
    figures = metrics.figures(said, data.test.y, teacher=known)
    summed_up(said, data.test.y, known)
    mine, theirs = (
        replace(of_data(name, with_scales(one, data), data, None), batch_size=16)
        for name, one in (("s", student), ("t", teacher))
    )
    found = assess(mine, data, Settings(ood=data), against=theirs)
    assert found["metrics"]["nll"] == pytest.approx(figures["nll"])
    assert found["fidelity"]["kl_to_teacher"] == pytest.approx(figures["kl_to_teacher"])
    assert found["ood"]["auroc"] == pytest.approx(0.5)

    def run(raw: dict[str, Any]) -> dict[str, Tensor]:
        return outputs_of(mine.answer(raw))

    checked = check(run, data, data.test, said)
    assert checked.difference < 1e-6
    assert checked.metrics["nll"] == pytest.approx(figures["nll"], rel=1e-4)
