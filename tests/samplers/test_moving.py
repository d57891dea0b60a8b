"""Settings that follow a course: the place of a draw in the training is in its id."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from extracurricular import rng
from extracurricular.errors import RecipeError
from extracurricular.inputs import static_shapes
from extracurricular.matching.course import Course
from extracurricular.samplers import (
    Blend,
    Context,
    CutMix,
    Empirical,
    Mixup,
    Share,
    Uncertain,
    build_sampler,
)
from extracurricular.samplers.build import moves
from extracurricular.samplers.moving import PLACES, Moving, mean, placed, places
from tests.conftest import image_data, small_context
from tests.test_laws import same

IMAGES = image_data()
RISING = Course("linear", 0.0, 1.0)
DRAWS = 5000
IDS = torch.arange(DRAWS)


def built(*chain: Any, draws: int | None = DRAWS) -> Any:
    return build_sampler(
        list(chain), IMAGES, 3, context=replace(small_context(IMAGES), draws=draws)
    )


# Places


@pytest.mark.parametrize("draws", [1, 2, 700, 1024, 5000, 12_000_000])
def test_places_are_whole_parts_of_the_training(draws: int) -> None:
    some = torch.tensor([0, 1, 17, draws // 3, draws // 2, draws - 1]).clamp_max(draws - 1)
    expected = [int(k) * (PLACES - 1) // max(1, draws - 1) for k in some]
    assert places(some, draws).tolist() == expected
    assert places(torch.tensor([0, draws - 1]), draws).tolist() == [
        0,
        PLACES - 1 if draws > 1 else 0,
    ]
    # Beyond the last draw there is the end.
    beyond = torch.tensor([draws, 2 * draws, 2**61])
    assert places(beyond, max(2, draws)).tolist() == [PLACES - 1] * 3


def test_hashed_ids_keep_their_place_however_often_they_are_hashed() -> None:
    ids = IDS
    for use in ("a", "b", "c"):
        ids = placed(rng.derive(3, ids, use), ids, DRAWS)
        assert torch.equal(places(ids, DRAWS), places(IDS, DRAWS))
        assert len(ids.unique()) == DRAWS
        assert bool((ids >= 0).all())
    # What is hashed is the id, not only its place.
    assert len((ids & 0xFFFF).unique()) > 4000


def test_a_moving_number_in_closed_form() -> None:
    for course in (RISING, Course("cosine", 2.0, 0.5), Course("finish", 0.7, 0.0, 0.8)):
        found = Moving(course, DRAWS).at(IDS)
        done = [k * 1023 // (DRAWS - 1) / 1023 for k in range(DRAWS)]
        assert torch.equal(found, torch.tensor([course.value(d) for d in done]))
        assert found[0] == torch.tensor(course.first)
        assert found[-1] == torch.tensor(course.last)
    finish = Moving(Course("finish", 0.7, 0.0, 0.8), DRAWS)
    assert int((finish.at(IDS) == 0).sum()) == pytest.approx(0.2 * DRAWS, abs=DRAWS / PLACES + 1)
    assert mean(finish) == pytest.approx(0.56, abs=1e-3)
    assert mean(Moving(RISING, 7)) == pytest.approx(0.5)


# Samplers


def chosen(sampler: Blend, ids: Tensor) -> Tensor:
    return sampler._choice(ids)


def test_weights_of_a_blend_move() -> None:
    children = {"a": Empirical(IMAGES, seed=1), "b": Empirical(IMAGES, seed=2)}
    blend = Blend(children, {"a": 1.0, "b": Moving(Course("linear", 0.0, 3.0), DRAWS)}, seed=4)
    number = rng.uniform(4, IDS, blend.stream("choice")).double()
    weight = torch.tensor([3 * (k * 1023 // (DRAWS - 1) / 1023) for k in range(DRAWS)])
    edge = (1 / (1 + weight.double())).float().double()
    assert torch.equal(chosen(blend, IDS), (number >= edge).long())
    share = chosen(blend, IDS).float().view(10, -1).mean(1)
    assert share[0] < 0.2
    assert 0.7 < share[-1] < 0.8


def test_constant_weights_choose_as_they_always_did() -> None:
    """Records and unfinished trainings depend on it."""
    children = {"a": Empirical(IMAGES, seed=1), "b": Empirical(IMAGES, seed=2)}
    constant = Blend(children, {"a": 0.3, "b": 0.4}, seed=4)
    still = Moving(Course("linear", 0.4, 0.4), DRAWS)
    moving = Blend(children, {"a": 0.3, "b": still}, seed=4)
    number = rng.uniform(4, IDS, "Blend.2.choice")
    edge = (torch.tensor([0.3, 0.7], dtype=torch.float64) / 0.7)[0].float().item()
    assert torch.equal(chosen(constant, IDS), (number >= edge).long())
    assert constant.depth == moving.depth == 2
    assert torch.equal(chosen(constant, IDS), chosen(moving, IDS))


@pytest.mark.parametrize("kind", [Mixup, CutMix])
def test_alpha_moves_and_ends_with_plain_draws(kind: Any) -> None:
    child = Empirical(IMAGES, seed=1)
    moving = Moving(Course("finish", 1.0, 0.0, 0.5), DRAWS)
    sampler, usual = kind(child, moving, seed=4), kind(child, 1.0, seed=4)
    first, last = IDS[:2000], IDS[-2000:]
    assert same(sampler(first), usual(first))
    assert torch.equal(sampler(last).x, child(last).x)
    labels = torch.nn.functional.one_hot(child(last).y, 4).float()
    assert torch.equal(sampler(last).y, labels)


def test_shares_of_beta_numbers_are_those_of_one_alpha_at_a_time() -> None:
    alphas = torch.tensor([0.2, 1.0, 4.0]).double().repeat_interleave(20)
    ids = torch.arange(60)
    found = rng.beta(alphas, 1, ids, "s")
    for alpha in (0.2, 1.0, 4.0):
        rows = alphas == alpha
        assert torch.equal(found[rows], rng.beta(alpha, 1, ids, "s")[rows])
    none = rng.beta(torch.zeros(1000), 1, torch.arange(1000), "s")
    assert set(none.tolist()) == {0.0, 1.0}


def test_plain_share_moves() -> None:
    context = small_context(IMAGES)
    sampler = Uncertain(
        Empirical(IMAGES), context.teacher, candidates=3, plain_share=Moving(RISING, DRAWS), seed=4
    )  # fmt: skip
    number = rng.uniform(4, IDS, sampler.stream("plain"))
    assert torch.equal(sampler._plain(IDS), number < Moving(RISING, DRAWS).at(IDS))
    assert sampler.asks == pytest.approx(2.0)
    index = sampler.choose(IDS).index
    assert bool((index[sampler._plain(IDS)] == 0).all())
    # No course in the child: the candidates are those of a share that stays.
    still = replace(sampler, plain_share=0.0)
    assert torch.equal(still._derived(IDS, 1), sampler._derived(IDS, 1))


# The place of a draw within others


class Marks:
    """A source that gives the value of a course as the example itself."""

    capturable = True

    def __init__(self) -> None:
        self.moving = Moving(RISING, DRAWS)
        self.span = DRAWS

    def __call__(self, ids: Tensor) -> Any:
        batch = Empirical(IMAGES)(ids)
        return replace(batch, x=self.moving.at(ids).view(-1, 1, 1, 1).expand(-1, 1, 8, 8))


VALUE = Moving(RISING, DRAWS).at(IDS)
NESTS: dict[str, Any] = {
    "mixup": lambda: Mixup(Marks(), seed=1),
    "mixup of mixup": lambda: Mixup(Mixup(Marks(), seed=1), seed=2),
    "cutmix": lambda: CutMix(Mixup(Marks(), seed=1), seed=2),
    "blend": lambda: Blend({"a": Mixup(Marks()), "b": Marks()}, {"a": 1.0, "b": 1.0}),
    "uncertain": lambda: Uncertain(
        Mixup(Marks()), small_context(IMAGES).teacher, candidates=4, tau=0.1, plain_share=0.2
    ),
}  # fmt: skip


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("nest", NESTS)
def test_a_course_within_others_stands_where_the_draw_stands(nest: str, static: bool) -> None:
    """Partners and candidates have hashed ids, and keep the place."""
    with static_shapes(static):
        found = NESTS[nest]()(IDS).x[:, 0, 0, 0]
    assert torch.allclose(found, VALUE, atol=1e-6)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("nest", NESTS)
def test_a_course_within_a_share_stands_where_the_slot_stands(nest: str, static: bool) -> None:
    """A share gives ids of its own to the draws, and to its children the slots."""
    share = Share(Marks(), NESTS[nest](), of=0.5, seed=7)
    ids = share.ids(IDS)
    assert 2300 < int((ids & 1).sum()) < 2700
    with static_shapes(static):
        found = share(ids).x[:, 0, 0, 0]
    assert torch.allclose(found, VALUE, atol=1e-6)


def test_a_share_moves_with_the_slots() -> None:
    share = Share(Marks(), Marks(), of=Moving(RISING, DRAWS), seed=7)
    number = rng.uniform(7, IDS, share.stream("choice"))
    assert torch.equal(share.ids(IDS), 2 * IDS + (number < VALUE).long())


def test_a_draw_is_a_function_of_its_id_and_the_length_of_the_training() -> None:
    chain = ["empirical", {"mixup": {"alpha": {"linear": [0.1, 5]}}}, {"uncertain": {"tau": 1.0}}]
    sampler = built(*chain)
    whole = sampler(IDS[:600])
    order = torch.randperm(600)
    assert same(sampler(order), whole[order])
    assert same(built(*chain)(IDS[:600]), whole)
    assert not same(built(*chain, draws=700)(IDS[:600]), whole)


# Recipes


def test_chains_know_whether_they_move() -> None:
    course = {"linear": [0, 1]}
    assert moves(["empirical", {"mixup": {"alpha": course}}])
    assert moves([{"blend": {"a": {"weight": course, "sampler": ["empirical"]}}}])
    assert moves({"share": {"of": 0.5, "extended": ["empirical", {"cutmix": {"alpha": course}}]}})
    assert not moves(["empirical", {"mixup": {"alpha": 1.0}}])
    assert not moves([{"blend": {"linear": {"weight": 1.0, "sampler": ["empirical"]}}}])
    assert not moves([{"share": {"of": "auto", "extended": ["empirical", "mixup"]}}])


@pytest.mark.parametrize(
    ("spec", "key", "said"),
    [
        ({"mixup": {"alpha": {"linear": [1]}}}, "sampler.1.mixup.alpha",
         "has linear: [1]; it must be [FIRST, LAST]"),
        ({"mixup": {"alpha": {"linear": [1, -1]}}}, "sampler.1.mixup",
         "alpha is {'linear': [1.0, -1.0]}; no value may be below 0"),
        ({"cutmix": {"alpha": {"steps": [1, 0]}}}, "sampler.1.cutmix.alpha",
         "is {'steps': [1, 0]}; it must be a number, {linear: [FIRST, LAST]}"),
        ({"cutmix": {"alpha": "much"}}, "sampler.1.cutmix.alpha", "is 'much'; it must be a number"),
        ({"uncertain": {"plain_share": {"linear": [0, 2]}}}, "sampler.1.uncertain",
         "plain_share is {'linear': [0.0, 2.0]}; it must be between 0 and 1"),
        ({"uncertain": {"candidates": {"linear": [1, 4]}}}, "sampler.1.uncertain.candidates",
         "is {'linear': [1, 4]}; it should be a valid integer"),
    ],
)  # fmt: skip
def test_a_wrong_course_is_one_clear_sentence(spec: Any, key: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        built("empirical", spec)
    assert caught.value.key == key
    assert said in caught.value.problem


def test_wrong_weights_are_one_clear_sentence() -> None:
    def blend(*weights: Any) -> Any:
        return {
            "blend": {
                str(k): {"weight": w, "sampler": ["empirical"]} for k, w in enumerate(weights)
            }
        }

    for weights, said in [
        (({"linear": [0, -1]}, 1), "is {'linear': [0, -1]}; it must be a number of at least 0"),
        (({"linear": [0, 1]}, 0), "the weights are all 0"),
        (({"linear": [0, 1]}, {"finish": {"value": 0, "then": 1}}), "the weights are all 0"),
    ]:
        with pytest.raises(RecipeError, match=r"^sampler\.0") as caught:
            built(blend(*weights))
        assert said in str(caught.value)


def test_a_course_needs_a_training() -> None:
    with pytest.raises(RecipeError, match="over the draws of a training, but here there is none"):
        build_sampler(["empirical", {"mixup": {"alpha": {"linear": [1, 0]}}}], IMAGES, 0,
                      context=Context())  # fmt: skip
