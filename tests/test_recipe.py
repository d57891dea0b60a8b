"""Recipes: what they mean, and what is said of those that are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from extracurricular.errors import RecipeError
from extracurricular.recipe import parse_recipe, read_recipe, shipped_recipes

SMALL: dict[str, Any] = {
    "name": "small",
    "data": "digits",
    "teacher": {"model": "mlp", "training": {"steps": 5}},
    "defaults": {"model": "mlp", "training": {"steps": 7, "lr": 0.05}, "matching": {"hard": 0.1}},
    "students": {
        "erm": {"learns_from": "labels"},
        "kd": {"training": {"lr": 0.2}, "matching": {"temperature": 4.0}},
    },
}


def test_every_shipped_recipe_is_sound() -> None:
    assert {"digits", "gaze"} <= set(shipped_recipes())
    for name in shipped_recipes():
        recipe = read_recipe(name)
        assert recipe.name == name
        assert recipe.about
        again = parse_recipe(yaml.safe_load(yaml.safe_dump(recipe.plain())))
        assert again == recipe, "what a run keeps is a recipe again"


def test_defaults_are_merged_key_by_key() -> None:
    recipe = parse_recipe(SMALL)
    erm, kd = recipe.students["erm"], recipe.students["kd"]
    assert (erm.training.steps, erm.training.lr) == (7, 0.05)
    assert (kd.training.steps, kd.training.lr) == (7, 0.2)
    assert kd.matching == {"hard": 0.1, "temperature": 4.0}
    assert erm.learns_from == "labels"


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
    found: Any = parse_recipe(SMALL, [override]).plain()
    for part in path:
        found = found[part]
    assert found == value


def test_overrides_reach_into_lists() -> None:
    base = ["students.kd.sampler=[empirical, mixup]", "students.kd.sampler.1.mixup.alpha=0.2"]
    assert parse_recipe(SMALL, base).students["kd"].sampler == [
        "empirical",
        {"mixup": {"alpha": 0.2}},
    ]


@pytest.mark.parametrize(
    ("override", "key", "problem"),
    [
        ("sees=[1]", "sees", "unknown key 'sees'; did you mean 'seeds'"),
        ("teacher.modle=mlp", "teacher.modle", "did you mean 'model'"),
        ("students.kd.temperature=4", "students.kd.temperature", "unknown key 'temperature'"),
        ("defaults.trainig.lr=1", "defaults.trainig", "did you mean 'training'"),
        ("students.kd.training.step=4", "students.kd.training.step", "did you mean 'steps'"),
        ("students.kd.training.steps=-3", "students.kd.training.steps", "is -3; it should be g"),
        ("students.kd.training.steps=many", "students.kd.training.steps", "is 'many'; it should"),
        ("students.kd.training.lr=.nan", "students.kd.training.lr", "is nan; it should be"),
        ("students.kd.learns_from=books", "students.kd.learns_from", "'teacher' or 'labels'"),
        ("seeds=[]", "seeds", "at least 1 item"),
        ("seeds=[1, 1]", "", "each may occur only once"),
        ("schema=2", "schema", "is 2; it should be 1"),
        ("teacher.members=0", "teacher.members", "is 0; it should be greater than or equal to 1"),
        ("teacher.model=[]", "teacher", "empty list"),
        ("students={}", "students", "at least 1 item"),
        ("students.a/b={model: mlp}", "", "a student is called 'a/b'"),
        ("data=3", "data", "is given as NAME or as {NAME"),
        ("device.precision=64", "device.precision", "is 64; it should be"),
        ("seeds", "", "not of the form key.path=value"),
        ("seeds=[", "seeds", "not valid YAML"),
        ("students.kd.sampler.0=mixup", "students.kd.sampler", "a sampler is a list such as"),
    ],
)  # fmt: skip
def test_a_wrong_recipe_is_told_in_one_line(override: str, key: str, problem: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(SMALL, [override])
    assert caught.value.key == key
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [", "is not valid YAML"),
        ("- 1", "a recipe is a mapping"),
        ("name: a\nname: b", "the key 'name' is given twice"),
        ("name: a", "is missing"),
        ("defaults: 3", "it should be a mapping"),
        ("\x00", "is not valid YAML"),
    ],
)
def test_a_wrong_file_is_told_in_one_line(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError) as caught:
        read_recipe(str(file))
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_recipe() -> None:
    with pytest.raises(RecipeError, match=r"no recipe file 'digit', nor .* did you mean 'digits'"):
        read_recipe("digit")


def test_an_override_changes_one_of_the_places_that_share_an_alias() -> None:
    loaded = yaml.safe_load(
        """
        name: shared
        data: digits
        teacher: {model: mlp}
        students:
          a: {model: mlp, sampler: [empirical, {mixup: &mix {alpha: 0.5}}]}
          b: {model: mlp, sampler: [empirical, {mixup: *mix}]}
        """
    )
    recipe = parse_recipe(loaded, ["students.a.sampler.1.mixup.alpha=2.0"])
    assert recipe.students["a"].sampler[1] == {"mixup": {"alpha": 2.0}}
    assert recipe.students["b"].sampler[1] == {"mixup": {"alpha": 0.5}}
