"""The examples of docs/teachers.md with models of other libraries, which stand-ins play here."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from extracurricular.files import read_json
from extracurricular.recipe.read import parse_recipe
from extracurricular.run.execute import execute

PAGE = Path(__file__).parents[2] / "docs" / "teachers.md"
COLUMNS = ["rooms", "area", "age"]


def example(name: str) -> str:
    """Return the block of the page that is the file of this name."""
    blocks = re.findall(r"(?ms)^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"))
    [found] = [block for block in blocks if block.startswith(f"# {name}\n")]
    return str(found)


def settings() -> list[dict[str, Any]]:
    """Return the settings of the functions in the recipe beside them."""
    page = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"(?m)^ .*(\{function: \"\w+:predict\".*\})", page)
    return [yaml.safe_load(one) for one in found]


class Boosted:
    def __init__(self, loss_function: str) -> None:
        assert loss_function == "RMSEWithUncertainty"

    def load_model(self, path: str) -> None:
        assert path == "houses.cbm"

    def predict(self, x: Any) -> Any:
        return np.stack([price(x), np.full(len(x), 4.0)], 1)


class Automatic:
    @classmethod
    def load(cls, path: str) -> Automatic:
        assert path == "AutogluonModels/houses"
        return cls()

    def predict(self, rows: Any) -> Any:
        import pandas

        assert list(rows.columns) == COLUMNS
        return pandas.Series(price(rows.to_numpy()))


def price(x: Any) -> Any:
    return 50 * x[:, 0] + 2 * x[:, 1] - x[:, 2]


def test_the_page_has_both_examples() -> None:
    assert [one["function"] for one in settings()] == ["boosted:predict", "auto:predict"]


@pytest.mark.parametrize("place", [0, 1], ids=["catboost", "autogluon"])
def test_a_model_of_another_library_teaches_trees(
    place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == 1:
        pytest.importorskip("pandas")
    given = settings()[place]
    name = given["function"].partition(":")[0]
    (tmp_path / f"{name}.py").write_text(example(f"{name}.py"))
    catboost, tabular = types.ModuleType("catboost"), types.ModuleType("autogluon.tabular")
    catboost.CatBoostRegressor = Boosted  # type: ignore[attr-defined]
    tabular.TabularPredictor = Automatic  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "catboost", catboost)
    monkeypatch.setitem(sys.modules, "autogluon", types.ModuleType("autogluon"))
    monkeypatch.setitem(sys.modules, "autogluon.tabular", tabular)
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = np.random.default_rng(0).uniform(0, 10, (120, 3)).round(1)
    lines = [",".join(f"{v:g}" for v in (*r, t)) for r, t in zip(rows, price(rows), strict=True)]
    (tmp_path / "houses.csv").write_text("\n".join([",".join([*COLUMNS, "price"]), *lines]) + "\n")
    made = {
        "name": "houses",
        "data": {"table": {"path": str(tmp_path / "houses.csv"), "target": "price"}},
        "teacher": {"function": given, "record": {"draws": 300}},
        "students": {"trees": {"estimator": {"extra_trees": {"trees": 10}}, "draws": 300}},
    }
    execute(parse_recipe(made), tmp_path / "out")
    found = read_json(tmp_path / "out" / "summary.json")
    assert found["teacher"]["metrics"]["rmse"]["mean"] < 1
    assert found["students"]["trees"]["metrics"]["rmse"]["mean"] < 60
