"""``xcl.draws`` gives the draws of a training by their number, and ``xcl.matching`` its loss."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader

import extracurricular as xcl
from extracurricular.errors import RecipeError
from extracurricular.predictors import draws as module
from extracurricular.predictors.draws import Drawn, Draws
from extracurricular.training.draw import draws as drawn_by_the_loop
from extracurricular.training.loop import cpu_fabric

CHAIN = ["empirical", {"noise": {"std": 0.1}}, "mixup"]
STEPS, SIZE = 10, 6


class Right(nn.Module):
    """A teacher of standardised inputs that knows the class."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * x[:, :3]


def arrays() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    return x, x[:, :3].argmax(1)


def made(chain: Any = CHAIN, **settings: Any) -> Draws:
    own = {"batch_size": SIZE, "steps": STEPS, "seed": 3, "raw": False}
    return xcl.draws(arrays(), chain, Right(), **own | settings)


def same(one: Drawn, other: Drawn) -> bool:
    pairs = [(one.x, other.x), (one.ids, other.ids), (one.y, other.y)]
    pairs.append((one.teacher.parameters, other.teacher.parameters))
    return all(torch.equal(a, b) for a, b in pairs)


def in_worker(monkeypatch: pytest.MonkeyPatch, number: int, count: int) -> None:
    info = SimpleNamespace(id=number, num_workers=count)
    monkeypatch.setattr(module, "get_worker_info", lambda: info)


@pytest.mark.parametrize(
    "chain",
    [CHAIN, [{"share": {"of": {"linear": [0.2, 0.9]}, "extended": ["empirical", "mixup"]}}],
     ["empirical", {"mixup": {"alpha": {"linear": [0.5, 2.0]}}}]],
    ids=["chain", "share", "course"],
)  # fmt: skip
def test_they_are_the_draws_of_distill(chain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []

    class Watched(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if self.training and torch.is_grad_enabled():
                seen.append(x.clone())
            return super().forward(x)

    training = {"batch_size": SIZE, "lr": 0.01}
    data = xcl.from_arrays(*arrays())
    xcl.distill(
        Right(), Watched(4, 3), data, sampler=chain, steps=STEPS, seed=3, raw=False,
        training=training,
    )  # fmt: skip
    given = xcl.draws(data, chain, Right(), batch_size=SIZE, steps=STEPS, seed=3, raw=False)
    # distill tries a step before the first.
    for batch, x in zip(given, seen[-STEPS:], strict=True):
        assert torch.equal(batch.x, x)


def test_a_batch_is_inputs_answer_and_ids() -> None:
    given = made()
    x, teacher, ids = next(iter(given))
    assert x.shape == (SIZE, 4)
    assert torch.equal(teacher.logits, 3 * x[:, :3])
    assert ids.tolist() == list(range(SIZE))
    assert len(given) == STEPS
    assert len(next(iter(given))) == SIZE


def test_the_answers_are_those_that_the_loop_gets() -> None:
    given = made()
    settings = xcl.Training(steps=STEPS, batch_size=SIZE, lr=0.1)
    theirs = drawn_by_the_loop(given.sampler, given.teacher, settings, 4, fabric=cpu_fabric())
    batch, answer = next(theirs)
    assert torch.equal(given.batch(4).x, batch.x)
    assert torch.allclose(given.batch(4).teacher.probs, answer.probs)


@pytest.mark.parametrize("stop", [0, 1, 7, STEPS])
def test_a_new_process_goes_on_from_a_number(stop: int) -> None:
    whole = list(made())
    first = made()
    for _ in zip(range(stop), first, strict=False):
        pass
    state = first.state_dict()
    assert state == {"step": stop, "batch_size": SIZE}
    second = made()
    second.load_state_dict(state)
    assert second.state_dict() == state
    rest = list(second)
    assert len(rest) == STEPS - stop
    assert all(map(same, rest, whole[stop:]))
    # One iteration is one training, and the next begins anew.
    assert len(list(second)) == STEPS


def test_a_batch_does_not_hang_on_those_before() -> None:
    whole = list(made())
    assert same(made().batch(6), whole[6])


def test_the_number_of_workers_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(made())
    given = made()
    given.load_state_dict({"step": 3})
    parts = []
    for number in range(4):
        in_worker(monkeypatch, number, 4)
        parts.append(list(pickle.loads(pickle.dumps(given))))
    turns = [part[k] for k in range(2) for part in parts if k < len(part)]
    assert all(map(same, turns, whole[3:]))
    assert len(turns) == STEPS - 3


def test_each_worker_has_a_state_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a loader has it that asks each worker for its state after each of its batches."""
    whole = list(made())
    for number, seen, left in ((0, 2, [4, 6, 8]), (1, 1, [3, 5, 7, 9]), (1, 5, [])):
        in_worker(monkeypatch, number, 2)
        first, second = made(), made()
        for _ in zip(range(seen), first, strict=False):
            pass
        second.load_state_dict(first.state_dict())
        rest = list(second)
        assert [int(batch.ids[0]) // SIZE for batch in rest] == left
        assert all(same(batch, whole[k]) for batch, k in zip(rest, left, strict=True))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_loader_takes_it() -> None:
    loader = DataLoader(made(), batch_size=None, num_workers=2)
    assert len(loader) == STEPS
    assert all(map(same, loader, made()))


def test_processes_share_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(made())
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 3)
    parts = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
        kept = pickle.dumps(made())
        # A worker process is no member of the group.
        with monkeypatch.context() as inner:
            inner.setattr(distributed, "is_initialized", lambda: False)
            parts.append(list(pickle.loads(kept)))
    for step, batch in enumerate(whole):
        assert torch.equal(torch.cat([part[step].x for part in parts]), batch.x)
        assert torch.equal(torch.cat([part[step].ids for part in parts]), batch.ids)


def test_a_batch_moves_as_a_whole() -> None:
    moved = made().batch(0).to("meta")
    assert moved.x.is_meta
    assert moved.ids.is_meta
    assert moved.teacher.logits.is_meta
    assert moved.y is not None
    assert moved.y.is_meta


def refused(**given: Any) -> str:
    with pytest.raises(RecipeError) as error:
        made(**given)
    return str(error.value)


def test_what_needs_the_loop_is_refused() -> None:
    auto = [{"share": {"of": "auto", "extended": ["empirical", "mixup"]}}]
    assert refused(chain=auto) == (
        "sampler: has a share of 'auto', which follows what xcl.distill measures of the student in "
        "training; set of to a number, such as 0.5"
    )
    unsure = ["empirical", {"uncertain": {"score": "divergence"}}]
    assert "student" in refused(chain=unsure)


def test_wrong_arguments_are_told() -> None:
    assert refused(steps=0) == "steps: is 0; it must be a whole number of at least 1"
    assert refused(batch_size=2.5).startswith("batch_size: is 2.5")
    assert refused(chain=5).startswith("sampler: is a int; it must be a sampler")
    given = made()
    for state, said in (
        ({"step": 11}, "step: is 11; it must be a whole number from 0 to 10"),
        ({}, "step: is None; it must be a whole number from 0 to 10"),
        ({"step": 1, "batch_size": 7},
         "batch_size: is 6, but the state is of batches of 7, which have other draws; set it to 7"),
    ):  # fmt: skip
        with pytest.raises(RecipeError) as error:
            given.load_state_dict(state)
        assert str(error.value) == said


def test_workers_make_no_draws_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    in_worker(monkeypatch, 0, 2)
    given = made()
    given.device = torch.device("cuda")
    with pytest.raises(RecipeError, match="num_workers: is 2, but draws are made on cuda"):
        next(iter(given))


def outputs(kind: str) -> tuple[Tensor, xcl.Distribution, xcl.Distribution]:
    generator = torch.Generator().manual_seed(0)
    raw, told = torch.randn(2, 5, 4, generator=generator)
    task = xcl.Task(kind, 2 if kind == "regression" else 4)  # type: ignore[arg-type]
    return raw.requires_grad_(), task.distribution(raw), task.distribution(told)


@pytest.mark.parametrize("kind", ["classification", "regression", "multilabel"])
@pytest.mark.parametrize("settings", [{}, {"temperature": 3}, {"divergence": "reverse_kl"}])
def test_the_function_is_the_loss_of_a_recipe(kind: str, settings: dict[str, Any]) -> None:
    raw, student, teacher = outputs(kind)
    found, wanted = xcl.matching(raw, teacher, **settings), xcl.Matching(**settings)
    assert torch.equal(found, wanted(student, teacher))
    assert torch.equal(xcl.matching(student, teacher, **settings), found)
    [gradient] = torch.autograd.grad(found, raw)
    assert gradient.abs().sum() > 0


def test_the_function_takes_labels_and_weights() -> None:
    raw, student, teacher = outputs("classification")
    y, weight = torch.arange(5) % 4, torch.tensor([2.0, 0, 1, 1, 1])
    found = xcl.matching(raw, teacher, y, weight, label_weight=0.5)
    assert torch.equal(found, xcl.Matching(label_weight=0.5)(student, teacher, y, weight))


def test_mistakes_in_the_function_are_told() -> None:
    raw, _, teacher = outputs("classification")
    with pytest.raises(RecipeError, match="temperatur: unknown key 'temperatur'; did you mean"):
        xcl.matching(raw, teacher, temperatur=2)
    with pytest.raises(RecipeError, match="teacher: is 'Tensor'; it must be a distribution"):
        xcl.matching(raw, raw)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="classification needs 4 logits"):
        xcl.matching(raw[:, :3], teacher)
    with pytest.raises(ValueError, match="give the temperature of the step"):
        xcl.matching(raw, teacher, temperature={"linear": [4, 1]})


def test_the_name_of_the_room_is_the_function_too() -> None:
    import extracurricular.matching as room

    raw, _, teacher = outputs("classification")
    assert torch.equal(room(raw, teacher), room.matching(raw, teacher))  # type: ignore[operator]
