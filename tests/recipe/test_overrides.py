"""Overrides and budgets: what they reach, in which order, and what is said of wrong ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from extracurricular.errors import RecipeError
from extracurricular.recipe.read import parse_recipe
from tests.conftest import checked
from tests.recipe.small import SMALL


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("seeds=[3, 4]", ("seeds",), [3, 4]),
        ("defaults.training.lr=1e-3", ("students", "erm", "training", "lr"), 1e-3),
        ("students.kd.training.steps=9", ("students", "kd", "training", "steps"), 9),
        ("teacher.model.mlp.hidden=[8]", ("teacher", "model"), {"mlp": {"hidden": [8]}}),
        ("data.digits.train=500", ("data",), {"digits": {"train": 500}}),
        ("evaluation.split=validation", ("evaluation", "split"), "validation"),
        (
            "students.kd.sampler=[empirical, {mixup: {alpha: 0.3}}]",
            ("students", "kd", "sampler"),
            ["empirical", {"mixup": {"alpha": 0.3}}],
        ),
        ("students.new.learns_from=labels", ("students", "new", "learns_from"), "labels"),
    ],
)
def test_overrides(override: str, path: tuple[str, ...], value: object) -> None:
    found: Any = parse_recipe(SMALL, [override]).dump()
    for part in path:
        found = found[part]
    assert found == value


def test_overrides_reach_into_lists() -> None:
    base = ["students.kd.sampler=[empirical, mixup]", "students.kd.sampler.1.mixup.alpha=0.2"]
    assert parse_recipe(SMALL, base).students["kd"].sampler == [
        "empirical",
        {"mixup": {"alpha": 0.2}},
    ]


BUDGETED: dict[str, Any] = {
    **SMALL,
    "about": "Small.",
    "seeds": [0, 1, 2],
    "data": {"digits": {"train": 300}},
    "budgets": {
        "tiny": {
            "about": "Smaller.",
            "seeds": [0],
            "data.digits.train": 50,
            "teacher.training.steps": 2,
            "defaults.training.steps": 3,
        },
        "long": {"defaults.training.steps": 70},
    },
}


def test_a_budget_is_full_unless_another_is_chosen() -> None:
    recipe = parse_recipe(BUDGETED)
    assert (recipe.budget_name, recipe.folder_name) == ("full", "small")
    assert recipe.budget_changes == {}
    without = {key: value for key, value in BUDGETED.items() if key != "budgets"}
    assert recipe == parse_recipe(without)
    assert recipe == parse_recipe(BUDGETED, ["budget=full"])


@pytest.mark.parametrize("own", [True, False])
def test_a_budget_makes_its_changes(own: bool) -> None:
    recipe = parse_recipe(
        {**BUDGETED, "budget": "tiny"} if own else BUDGETED, [] if own else ["budget=tiny"]
    )
    assert (recipe.budget_name, recipe.folder_name) == ("tiny", "small-tiny")
    assert recipe.budget_changes == BUDGETED["budgets"]["tiny"]
    assert recipe.seeds == [0]
    assert recipe.about == "Smaller."
    assert recipe.data == {"digits": {"train": 50}}
    assert recipe.teacher.training.steps == 2
    assert {s.training.steps for s in recipe.students.values()} == {3}
    assert BUDGETED["seeds"] == [0, 1, 2], "what was given is as it was"


def test_overrides_have_the_last_word_in_any_order() -> None:
    words = ["defaults.training.steps=50", "data.train=60", "budget=tiny"]
    for changes in (words, words[::-1]):
        recipe = parse_recipe(BUDGETED, changes)
        assert {s.training.steps for s in recipe.students.values()} == {50}
        assert recipe.data == {"digits": {"train": 60}}
        assert recipe.seeds == [0]
    last = parse_recipe(BUDGETED, ["budget=tiny", "budget=long"])
    assert (last.budget_name, last.seeds) == ("long", [0, 1, 2])


def test_the_kept_recipe_of_a_budget_is_that_very_recipe() -> None:
    recipe = parse_recipe(BUDGETED, ["budget=tiny", "teacher.training.steps=4"])
    kept = yaml.safe_load(yaml.safe_dump(recipe.dump()))
    assert kept["budget"] == {"tiny": BUDGETED["budgets"]["tiny"]}
    assert "budgets" not in kept
    assert parse_recipe(kept) == recipe
    assert parse_recipe(kept, ["budget=tiny"]) == recipe
    for other in ("full", "long"):
        with pytest.raises(RecipeError, match=rf"budget: is '{other}', but 'tiny' is applied"):
            parse_recipe(kept, [f"budget={other}"])


def test_what_a_budget_changed_is_not_shared_with_the_settings() -> None:
    chain = ["empirical", {"mixup": {"alpha": 0.5}}]
    recipe = parse_recipe(
        {**SMALL, "budgets": {"mixed": {"students.kd.sampler": chain}}},
        ["budget=mixed", "students.kd.sampler.1.mixup.alpha=2.0"],
    )
    assert recipe.students["kd"].sampler[1] == {"mixup": {"alpha": 2.0}}
    assert recipe.budget_changes["students.kd.sampler"] == chain


@pytest.mark.parametrize(
    ("budgets", "override", "key", "problem"),
    [
        ({"tiny": {}}, "budget=tinny", "budget", "is 'tinny', which the recipe does not have; did "
         "you mean 'tiny'? Known: full, tiny"),
        (None, "budget=tiny", "budget", "known: full"),
        ({"tiny": {}}, "budget=3", "budget", "is 3, which the recipe does not have"),
        ({"tiny": {}}, "budget=[tiny]", "budget", "is ['tiny'], which the recipe does not have"),
        ({"tiny": {}}, "budgets.tiny.seeds=[1]", "budgets.tiny.seeds", "override the setting its"),
        ({"tiny": {}}, "budget.tiny=3", "budget.tiny", "override the setting itself"),
        ([], "budget=full", "budgets", "it should be {NAME: {key.path: value}}"),
        ({"full": {}}, "budget=full", "budgets", "'full' is the recipe as it is written"),
        ({"a/b": {}}, "budget=full", "budgets", "one is called 'a/b'"),
        ({"tiny": 3}, "budget=full", "budgets.tiny", "is 3; it should be {key.path: value}"),
        ({"tiny": {"students.kdd.training.steps": 3}}, "budget=tiny",
         "budgets.tiny.students.kdd.training.steps", "did you mean 'kd'"),
        ({"tiny": {"seeds.7": 3}}, "budget=tiny", "budgets.tiny.seeds.7", "no position"),
        ({"tiny": {"teacher.stps": 3}}, "budget=tiny", "teacher.stps", "unknown key 'stps'"),
    ],
)  # fmt: skip
def test_a_wrong_budget_is_told_in_one_line(
    budgets: Any, override: str, key: str, problem: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe({**SMALL, "seeds": [0], "budgets": budgets}, [override])
    assert caught.value.key == key
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", ["digits", {"digits": None}, {"digits": {"seed": 1}}])
def test_a_setting_of_the_data_needs_no_name_of_the_data_set(data: Any) -> None:
    for override in ("data.train=500", "data.digits.train=500"):
        [(name, settings)] = parse_recipe({**SMALL, "data": data}, [override]).data.items()
        assert (name, settings["train"]) == ("digits", 500)
    assert parse_recipe({**SMALL, "data": data}, ["data=uci", "data.path=/a"]).data == {
        "uci": {"path": "/a"}
    }
    again = parse_recipe({**SMALL, "data": data}, ["data.digits={train: 9}"]).data
    assert again == {"digits": {"train": 9}}


def test_a_wrong_setting_of_the_data_is_told_with_both_names() -> None:
    recipe = parse_recipe({**SMALL, "data": "uci"}, ["data.pth=a"])
    with pytest.raises(
        RecipeError, match=r"data\.uci\.pth: unknown key 'pth'; did you mean 'path'"
    ):
        checked(recipe, Path("nowhere"))
