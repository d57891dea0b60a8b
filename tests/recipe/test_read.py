"""Reading: shipped recipes, files, defaults, and what is shared in YAML."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from extracurricular.errors import RecipeError
from extracurricular.recipe.read import parse_recipe, read_recipe
from extracurricular.recipe.ships import shipped_recipes
from tests.recipe.small import SMALL


def test_every_shipped_recipe_is_sound() -> None:
    assert {"digits", "gaze"} <= set(shipped_recipes())
    for name in shipped_recipes():
        recipe = read_recipe(name)
        assert recipe.name == name
        assert recipe.about
        again = parse_recipe(yaml.safe_load(yaml.safe_dump(recipe.dump())))
        assert again == recipe, "what a run keeps is a recipe again"


def test_defaults_are_merged_key_by_key() -> None:
    recipe = parse_recipe(SMALL)
    erm, kd = recipe.students["erm"], recipe.students["kd"]
    assert (erm.training.steps, erm.training.lr) == (7, 0.05)
    assert (kd.training.steps, kd.training.lr) == (7, 0.2)
    assert kd.matching == {"label_weight": 0.1, "temperature": 4.0}
    assert erm.learns_from == "labels"


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
