"""Combinations of settings: how ``--over`` is read, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from extracurricular.errors import RecipeError
from extracurricular.recipe.over import (
    check_different,
    combinations,
    read_combinations,
    read_overs,
    short_names,
)
from extracurricular.recipe.read import parse_recipe
from tests.recipe.small import small

T = "students.kd.matching.temperature"


def values(text: str) -> tuple[Any, ...]:
    [over] = read_overs([text])
    return over.values


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a=1,2.5,true", (1, 2.5, True)),
        ("a=1e-3", (0.001,)),
        ("a=[32, 64],[64]", ([32, 64], [64])),
        ("a=[1, 2]", ([1, 2],)),
        ("a=mlp,{mlp: {hidden: [4, 4]}}", ("mlp", {"mlp": {"hidden": [4, 4]}})),
        ("a='x, y',\"z\"", ("x, y", "z")),
        ("a=null,don't", (None, "don't")),
    ],
)
def test_values_are_split_at_commas_outside_brackets_and_quotes(
    text: str, found: tuple[Any, ...]
) -> None:
    assert values(text) == found


def test_values_of_python_are_those_of_the_command_line() -> None:
    lists = [2, 1e-5, "forward_kl", "1", [1, "a"], {"mlp": {"hidden": [4]}}, None]
    [over] = read_overs({"a.b": lists})
    assert list(over.values) == lists
    assert over.texts[2] == "forward_kl"
    assert over.texts[3] == '"1"'
    assert [value for text in over.texts for value in values(f"a={text}")] == lists


def test_the_cross_product_changes_the_last_key_fastest() -> None:
    some = combinations(read_overs(["a.x=1,2", "b.y=p,q"]))
    assert [one.label for one in some] == ["x=1, y=p", "x=1, y=q", "x=2, y=p", "x=2, y=q"]
    assert some[2].overrides == ["a.x=2", "b.y=p"]
    assert len({one.folder for one in some}) == 4


def test_folders_have_readable_names_and_differ() -> None:
    plain, odd, other = combinations(read_overs(["a.lr=1e-3,{mlp: {hidden: [4]}},[mlp hidden 4]"]))
    assert plain.folder == "lr=1e-3"
    assert odd.folder.startswith("lr=-mlp-hidden-4-")
    assert odd.folder != other.folder
    long = combinations(read_overs({"a": ["x" * 300]}))[0]
    assert len(long.folder) < 100


def test_short_names_are_the_fewest_parts_that_tell_keys_apart() -> None:
    keys = ["students.kd.training.lr", "students.xcl.training.lr", "teacher.members"]
    assert list(short_names(keys).values()) == ["kd.training.lr", "xcl.training.lr", "members"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([], "--over: is needed"),
        (["abc"], "should be like"),
        (["a="], "should be like"),
        (["a=1,,2"], "a: .* a value is missing"),
        (["a=[1,2"], "a: .* ']' is missing"),
        (["a=1],2"], "a: .* closes nothing"),
        (["a=1,1"], "a: is varied over 1 twice"),
        (["a=1", "a=2"], "a: is varied twice"),
        (["a=1", "a.b=2"], "a.b: is a part of a"),
        (["seeds=1,2"], "seeds: are never varied: .* intervals"),
        (["budget=tiny,full"], "budget: cannot be varied"),
        (["device.threads=1,2"], "device.threads: cannot be varied"),
        (["evaluation.split=test,validation"], "evaluation.split: cannot be varied"),
        ({"a": "xy"}, "a: .* list of values"),
        ({"a": [object()]}, "a: .* no plain value"),
        ({"a": []}, "a: is varied over no values"),
    ],
)
def test_what_cannot_be_varied_is_refused_in_a_sentence(given: Any, sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        read_overs(given)


def test_a_cross_product_too_large_to_be_meant_is_refused() -> None:
    overs = read_overs({"a": list(range(20)), "b": list(range(6))})
    with pytest.raises(RecipeError, match=r"20 × 6 = 120 combinations, .* --most 120"):
        combinations(overs)
    assert len(combinations(overs, 120)) == 120


def recipes(*texts: str, overrides: tuple[str, ...] = ()) -> list[Any]:
    some = combinations(read_overs(texts))
    return list(read_combinations(parse_recipe(small()), overrides, some))


def test_each_combination_has_the_recipe_of_its_overrides() -> None:
    found = recipes(f"{T}=1,2", "teacher.members=1,2", overrides=("seeds=[3]",))
    assert [one.students["kd"].matching["temperature"] for one in found] == [1, 1, 2, 2]
    assert [one.teacher.members for one in found] == [1, 2, 1, 2]
    overrides = ["seeds=[3]", f"{T}=2", "teacher.members=1"]
    assert found[2] == parse_recipe(parse_recipe(small()).dump(), overrides)


@pytest.mark.parametrize(
    ("texts", "overrides", "sentence"),
    [
        (["students.nobody.matching.temperature=1,2"], (), "students has no 'nobody'; known: erm"),
        (["students.kd.matchin.temperature=1,2"], (), "matchin.*of the combination temperature=1"),
        (["students.kd.training.steps=5,many"], (), "training.steps.* combination steps=many"),
        ([f"{T}=1,2"], (f"{T}=3",), "temperature: is set by .* varied by --over"),
        ([f"{T}=1,2"], ("students.kd.matching={}",), "matching: is set by .* varied by --over"),
    ],
)
def test_a_combination_that_is_refused_is_named(
    texts: list[str], overrides: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(RecipeError, match=sentence):
        recipes(*texts, overrides=overrides)


def test_combinations_that_make_the_same_are_refused() -> None:
    some = combinations(read_overs(["a=1,2,3"]))
    with pytest.raises(RecipeError, match="--over: a=1 and a=3 make the same recipe"):
        check_different(
            zip(some, ({"x": 1}, {"x": 2}, {"x": 1}), strict=True), "make the same recipe"
        )
