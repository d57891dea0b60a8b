"""Finding the data set that a person names."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from extracurricular.errors import RecipeError
from extracurricular.recipe.lookup import find_data
from tests.recipe.small import SMALL


def test_data_are_found_by_name_spec_and_recipe(tmp_path: Path) -> None:
    assert len(find_data("digits").train) == 600
    assert len(find_data("digits", ["train=50", "seed=3"]).train) == 50
    assert len(find_data("{digits: {train: 40}}").train) == 40
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(SMALL))
    assert find_data(str(file)).name == "digits"
    assert len(find_data(str(file), ["data={digits: {train: 30}}"]).train) == 30
    for what, changes, says in (
        ("digit", [], "there is no data set, and no recipe, 'digit'; did you mean 'digits'"),
        ("digits", ["tran=3"], "data.digits.tran: unknown key 'tran'; did you mean 'train'"),
        ("digits", ["train"], "'train' is not of the form key.path=value"),
        ("{digits", [], "'{digits' is not valid YAML"),
        ("{a: 1, b: 2}", [], "a data set is given as NAME or as"),
    ):
        with pytest.raises(RecipeError, match=says):
            find_data(what, changes)
