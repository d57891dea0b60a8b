"""A share of extended draws: draws have ids of their own, and the share decides which are drawn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from extracurricular.errors import RecipeError
from extracurricular.inputs import static_shapes
from extracurricular.matching.course import Course, read_course
from extracurricular.recipe.read import parse_recipe
from extracurricular.samplers import Empirical, Mixup, Share, build_sampler
from extracurricular.samplers.build import requirements, share_is_auto
from tests.conftest import image_data, small_recipe, table_data

IMAGES = image_data()
PLAIN, MIXED = Empirical(IMAGES, seed=1), Mixup(Empirical(IMAGES, seed=2), seed=3)
SHARE = Share(PLAIN, MIXED, seed=4)


def test_even_ids_are_plain_draws_and_odd_ids_extended_ones() -> None:
    ids = torch.tensor([0, 1, 7, 2, 90, 91, 2**41 + 1])
    for static in (False, True):
        with static_shapes(static):
            found = SHARE(ids)
            assert torch.equal(found.ids, ids)
            for place, number in enumerate(ids.tolist()):
                child = MIXED if number % 2 else PLAIN
                alone = child(torch.tensor([number // 2]))
                assert torch.equal(found.x[place], alone.x[0])
    assert found.y is not None
    assert found.y.shape == (7, 4)  # mixed labels are soft, so all are


@given(st.floats(0, 1), st.integers(0, 1000))
def test_the_ids_of_slots_have_the_share_that_is_wanted(share: float, first: int) -> None:
    slots = torch.arange(first * 1000, first * 1000 + 1000)
    ids = SHARE.ids(slots, torch.tensor([share]))
    assert torch.equal(ids // 2, slots)
    count = int((ids % 2).sum())
    assert abs(count - 1000 * share) <= 6 * (1000 * share * (1 - share)) ** 0.5 + 1e-3


def test_a_larger_share_only_adds_extended_draws() -> None:
    """So a share that moves moves no draw that is extended at both."""
    slots = torch.arange(2000)
    few, many = (SHARE.ids(slots, torch.tensor([s])) % 2 == 1 for s in (0.25, 0.5))
    assert bool((many | ~few).all())
    assert int(many.sum()) > int(few.sum())


def test_no_share_is_plain_and_a_whole_share_is_extended() -> None:
    slots = torch.arange(500)
    assert bool((SHARE.ids(slots, torch.tensor([0.0])) % 2 == 0).all())
    assert bool((SHARE.ids(slots, torch.tensor([1.0])) % 2 == 1).all())


def test_held_out_examples_are_never_drawn() -> None:
    from dataclasses import replace

    kept = torch.tensor([3, 4, 5, 30, 59])
    sampler = Empirical(replace(IMAGES, drawn=kept), seed=1)
    ids = torch.arange(50)
    found = sampler.index(ids)
    assert sorted(found[:5].tolist()) == kept.tolist()
    assert set(found.tolist()) == set(kept.tolist())
    with static_shapes():
        assert torch.equal(sampler.index(ids), found)


# Recipes


def chain(**settings: Any) -> list[Any]:
    return [{"share": {"extended": ["empirical", "mixup"], **settings}}]


def test_a_chain_builds_a_share() -> None:
    found = build_sampler(chain(), IMAGES, 0)
    assert isinstance(found, Share)
    assert found.of is None
    assert isinstance(found.plain, Empirical)
    assert isinstance(found.extended, Mixup)
    assert share_is_auto(chain())
    assert not share_is_auto(chain(of=0.5))
    assert not share_is_auto(["empirical"])
    nested = chain(plain=["empirical", {"uncertain": {}}], extended=[{"pool": {"generator": "g"}}])
    assert requirements(nested).teacher
    assert requirements(nested).generators == ("g",)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["empirical", *chain()], "must stand alone"),
        ([*chain(), "mixup"], "must stand alone"),
        ([{"blend": {"a": {"weight": 1.0, "sampler": chain()}}}], "must stand alone"),
        ([{"share": {"plain": ["empirical"]}}], "must be {of: auto, extended"),
        (chain(off=1), "must be {of: auto, extended"),
        (chain(of=1.5), "of is 1.5; it must be between 0 and 1"),
        (chain(of="often"), "is 'often'; it must be a number, {linear: [FIRST, LAST]}"),
        (chain(of={"linear": [0]}), "it must be [FIRST, LAST]"),
        (chain(of={"finish": {"value": 1}}), "{value: FIRST, then: LAST, at: 0.8}"),
        (chain(of={"finish": {"value": 1, "then": 0, "at": 2}}), "has 2; it must be a number"),
    ],
)  # fmt: skip
def test_a_wrong_share_is_one_clear_sentence(given: Any, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        build_sampler(given, IMAGES, 0)
    assert said in str(caught.value)
    assert str(caught.value).startswith("sampler")


def test_a_share_can_name_chains() -> None:
    recipe = small_recipe({"digits": {}}, {"mlp": {"hidden": [4]}})
    recipe["chains"] = {"near": ["empirical", {"noise": {"std": 0.1}}]}
    recipe["students"]["xcl"]["sampler"] = [
        {"share": {"of": 0.5, "extended": ["near", "mixup"], "plain": ["near"]}}
    ]
    found = parse_recipe(recipe).students["xcl"].sampler
    near = ["empirical", {"noise": {"std": 0.1}}]
    assert found == [{"share": {"of": 0.5, "extended": [*near, "mixup"], "plain": near}}]


# Courses


def course(spec: Any) -> Course:
    found = read_course(spec)
    assert isinstance(found, Course)
    return found


def test_courses_in_closed_form() -> None:
    assert read_course(0.3) == 0.3
    assert course({"linear": [0, 1]}).values(5) == [0, 0.25, 0.5, 0.75, 1]
    cosine = course({"cosine": [1, 0]})
    assert cosine.values(3) == pytest.approx([1, 0.5, 0])
    assert cosine.value(0.25) == pytest.approx(1 - (0.5 - 0.5 * 2**-0.5))
    finish = course({"finish": {"value": 0.8, "then": 0}})
    assert finish == Course("finish", 0.8, 0.0, 0.8)
    assert finish.values(11) == [0.8] * 8 + [0.0] * 3
    assert course({"finish": {"value": 1, "then": 0, "at": 0.5}}).values(1) == [1.0]
    for spec in ({"linear": [2.0, 0.5]}, {"finish": {"value": 0.5, "then": 0.0, "at": 0.7}}):
        assert course(spec).plain() == spec


def test_tables_have_shares_too() -> None:
    found = build_sampler(chain(of=0.5), table_data(), 0)
    batch = found(torch.arange(20))
    assert batch.x.shape == (20, 5)
