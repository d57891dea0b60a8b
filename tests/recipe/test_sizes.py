"""Sizes of a student become students of their own; the front and the limits of a recipe."""

from __future__ import annotations

from typing import Any

import pytest

from extracurricular.errors import RecipeError
from extracurricular.recipe.read import parse_recipe
from extracurricular.recipe.schema import Recipe
from extracurricular.recipe.sizes import slug


def mlp(*hidden: int) -> dict[str, Any]:
    return {"mlp": {"hidden": list(hidden)}}


def read(**changes: Any) -> Recipe:
    return parse_recipe(
        {
            "name": "sizes",
            "data": "digits",
            "teacher": {"model": "mlp"},
            "defaults": {"model": mlp(16), "training": {"steps": 70}},
            "students": {"kd": {}, "mine": {"sizes": [mlp(4), mlp(16), mlp(32, 8)]}},
        }
        | changes
    )


def test_each_size_is_a_student_that_differs_by_its_network() -> None:
    recipe = read()
    assert list(recipe.students) == ["kd", "mine", "mine-mlp-4", "mine-mlp-32-8"]
    assert recipe.front == ["mine", "mine-mlp-4", "mine-mlp-32-8"]
    # The student itself keeps its network and its roles.
    assert recipe.subject == "mine"
    assert recipe.reference == "kd"
    mine = recipe.students["mine"]
    assert mine.model == mlp(16)
    small = recipe.students["mine-mlp-4"]
    assert small == mine.model_copy(update={"model": mlp(4)})


def test_a_recipe_that_a_run_keeps_reads_the_same() -> None:
    for changes in ({"limit": {"ms": 2}}, {"students": {"kd": {}, "mine": {}}}):
        recipe = read(**changes)
        assert parse_recipe(recipe.dump()) == recipe


def test_without_a_network_the_first_size_is_its_own() -> None:
    students = {"mine": {"sizes": ["resnet8", "resnet14", "resnet8"]}}
    recipe = read(defaults={}, students=students)
    assert {name: one.model for name, one in recipe.students.items()} == {
        "mine": "resnet8",
        "mine-resnet14": "resnet14",
    }


def test_names_that_are_taken_get_a_number() -> None:
    students = {"mine": {"sizes": [mlp(4)]}, "mine-mlp-4": {}}
    assert list(read(students=students).students) == ["mine", "mine-mlp-4-2", "mine-mlp-4"]


def test_a_network_of_a_library_has_a_name_that_a_folder_may_have() -> None:
    assert slug("timm:vit/tiny patch") == "timm-vit-tiny-patch"
    assert slug({"wrn": {"depth": 16, "width": 0.5}}) == "wrn-16-0.5"


def test_a_limit_alone_is_for_all_students() -> None:
    recipe = read(students={"kd": {}, "mine": {}}, limit={"bytes": 500_000})
    assert recipe.front == ["kd", "mine"]
    assert read(students={"kd": {}, "mine": {}}).front == []
    given = read(students={"kd": {}, "mine": {}}, limit={"ms": 1.5}, front=["mine"])
    assert given.front == ["mine"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"limit": {}}, "limit: has no limit; set ms, bytes or multiply_adds"),
        ({"limit": {"mb": 2}}, "limit.mb: unknown key 'mb'"),
        ({"limit": {"ms": 0}}, "limit.ms: is 0; it should be greater than 0"),
        ({"front": ["them"]}, "front: is 'them', which is no student; known: kd, mine"),
        ({"students": {"mine": {"sizes": "mlp"}}},
         "students.mine.sizes: is 'mlp'; it must be a list of at most 100 networks"),
        ({"students": {"mine": {"sizes": [3]}}}, "students.mine.sizes.0: is 3"),
    ],
)  # fmt: skip
def test_mistakes_are_told(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as error:
        read(**changes)
    assert str(error.value).startswith(said)
