"""Records of a share: plain and extended draws have ids of their own, and a record holds both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extracurricular.distributions import Gaussian
from extracurricular.errors import StorageError
from extracurricular.inputs import Batch, static_shapes
from extracurricular.knowledge import Recorded, RecordOptions, open_knowledge, record
from extracurricular.models import build_model
from extracurricular.samplers import Context, Share, build_sampler
from extracurricular.samplers.base import announce
from extracurricular.samplers.share import Slots, in_phases
from extracurricular.training import (
    Execution,
    Mastery,
    Schedule,
    Training,
    cpu_fabric,
    launch,
    mastery,
    mastery_of,
    train,
)
from extracurricular.training import steps as the_steps
from tests.conftest import table_data
from tests.test_laws import same
from tests.training.tape import TapeGraph

DATA = table_data(count=200)
SETTINGS = Training(steps=160, batch_size=8, lr=0.01, checkpoint_every=50)
DRAWS = 1280
TOLD = RecordOptions(teacher_id="elementwise")
FORMS: dict[str, Any] = {
    "number": 0.4,
    "course": {"linear": [0, 1]},
    "finish": {"finish": {"value": 0.9, "then": 0}},
    "auto": "auto",
}


class Elementwise:
    """A teacher whose answers do not depend on the batch, to the last bit; it counts the asked."""

    capturable = True

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, batch: Batch) -> Gaussian:
        self.asked += len(batch)
        assert isinstance(batch.x, Tensor)
        return Gaussian(batch.x[:, :2] * 0.5, batch.x[:, 2:4] * 0.1 - 1)


def share(form: str) -> Share:
    extended = ["empirical", {"mixup": {"alpha": {"linear": [0.2, 2]}}}]
    found = build_sampler(chain(form, extended), DATA, 5, context=Context(draws=DRAWS))
    assert isinstance(found, Share)
    return found


def chain(form: str, extended: Any) -> Any:
    return [{"share": {"of": FORMS[form], "extended": extended}}]


def mastery_for(form: str) -> Mastery | None:
    extended = ["empirical", {"mixup": {"alpha": {"linear": [0.2, 2]}}}]
    return mastery_of(
        chain(form, extended), DATA, Elementwise(), SETTINGS, cpu_fabric(), seed=5,
        context=Context(draws=DRAWS),
    )  # fmt: skip


def recorded(form: str, folder: Path) -> Recorded:
    sampler, measured = share(form), mastery_for(form)
    if measured is not None:
        assert isinstance(measured.early, Share)
        sampler = in_phases(measured.early, sampler, measured.until * SETTINGS.batch_size)
    report = record(sampler, Elementwise(), DATA, DRAWS, folder, codec="float32", options=TOLD)
    assert report.draws == DRAWS * (2 if form == "auto" else 1)
    return open_knowledge(folder, data=DATA, sampler=sampler)


def trained(form: str, sampler: Any, teacher: Any, **more: Any) -> tuple[dict[str, Tensor], Any]:
    torch.manual_seed(0)
    student: nn.Module = build_model({"mlp": {"hidden": [8]}}, inputs=DATA.shapes, outputs=4)
    measured = mastery_for(form)
    train(
        student, sampler, teacher, DATA.task, settings=SETTINGS, mastery=measured, **more
    )  # fmt: skip
    return student.state_dict(), None if measured is None else measured.state()


@pytest.fixture(autouse=True)
def _a_share_that_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mastery, "LOW", -0.6)
    monkeypatch.setattr(mastery, "HIGH", 0.6)


@pytest.mark.parametrize("form", FORMS)
def test_a_training_from_the_record_equals_the_live_one_to_the_last_bit(
    form: str, tmp_path: Path
) -> None:
    live, measured = trained(form, share(form), Elementwise())
    known = recorded(form, tmp_path)
    found, again = trained(form, known.replay(share(form)), known)
    assert all(torch.equal(found[name], value) for name, value in live.items())
    assert again == measured
    if form == "auto":
        assert 0 < measured["share"] < 1


@pytest.mark.parametrize("form", ["course", "auto"])
def test_so_does_a_captured_one_from_a_record_on_the_device(
    form: str, tmp_path: Path, on_a_device: None
) -> None:
    live, _ = trained(form, share(form), Elementwise())
    with static_shapes(False):
        known = recorded(form, tmp_path)
    known.hold(torch.device("cpu"))
    before = TapeGraph.replays
    found, _ = trained(
        form, known.replay(share(form)), known, execution=Execution(capture="auto")
    )  # fmt: skip
    assert TapeGraph.replays > before + 160
    assert all(torch.equal(found[name], value) for name, value in live.items())


@pytest.fixture
def on_a_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    cpu = torch.device("cpu")
    monkeypatch.setattr(the_steps, "Schedule", lambda settings, device: Schedule(settings, cpu))
    monkeypatch.setattr(launch, "has_graphs", lambda device: True)
    monkeypatch.setattr(launch, "new_graph", TapeGraph)
    with static_shapes():
        yield


def test_a_record_of_a_known_share_holds_one_row_a_slot(tmp_path: Path) -> None:
    teacher = Elementwise()
    record(share("course"), teacher, DATA, 600, tmp_path, codec="float32", options=TOLD)
    assert teacher.asked == 600 + 600  # once for the rows, once for the price
    known = open_knowledge(tmp_path, data=DATA, sampler=share("course"))
    slots = torch.randperm(600)
    drawn = Slots(share("course"))(slots)
    assert torch.equal(drawn.ids, slots)
    assert torch.equal(drawn.x, share("course")(share("course").ids(slots)).x)
    assert torch.equal(known(drawn).parameters, teacher(drawn).parameters)
    # A longer training goes through the rows again.
    replay = known.replay(share("course"), 3)
    assert sorted(replay(torch.arange(600, 1200)).ids.tolist()) == list(range(600))


def test_a_record_of_an_auto_share_holds_a_plain_and_an_extended_draw_for_each_slot(
    tmp_path: Path,
) -> None:
    teacher = Elementwise()
    known = recorded("auto", tmp_path)
    assert known.draws == 2 * DRAWS
    measured, late = mastery_for("auto"), share("auto")
    assert measured is not None
    assert isinstance(measured.early, Share)
    slots = torch.randperm(DRAWS)
    ids = late.ids(slots, torch.tensor([0.5]))
    before = slots < measured.until * SETTINGS.batch_size
    for source, rows in ((measured.early, before), (late, ~before)):
        drawn = source(ids[rows])
        assert torch.equal(known(drawn).parameters, teacher(drawn).parameters)
    with pytest.raises(StorageError):
        known(late(torch.tensor([2 * DRAWS])))


def test_a_share_in_phases_draws_from_each_in_its_turn() -> None:
    early, late = (build_sampler(chain("auto", ["empirical", "mixup"]), DATA, s) for s in (1, 2))
    assert isinstance(early, Share)
    assert isinstance(late, Share)
    both = in_phases(early, late, 100)
    ids = torch.arange(400)
    found = both(ids)
    assert same(found[:200], early(ids[:200]))
    assert same(found[200:], late(ids[200:]))
    assert torch.equal(both.ids(ids, torch.tensor([0.3])), late.ids(ids, torch.tensor([0.3])))
    order = torch.randperm(400)
    assert same(both(order), found[order])
    announce(both, order)


def test_another_share_or_length_is_refused(tmp_path: Path) -> None:
    record(share("course"), Elementwise(), DATA, 50, tmp_path, options=TOLD)
    longer = build_sampler(
        chain("course", ["empirical", {"mixup": {"alpha": {"linear": [0.2, 2]}}}]), DATA, 5,
        context=Context(draws=DRAWS + 8),
    )  # fmt: skip
    for other in (share("number"), longer, replace(share("course"), of=0.5)):
        with pytest.raises(StorageError, match=r"was recorded with sampler\."):
            open_knowledge(tmp_path, sampler=other)
