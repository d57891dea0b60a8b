"""Paths: relative to the recipe's file, or to the shell's folder, and absolute once read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from extracurricular.errors import XclError
from extracurricular.recipe.lookup import data_spec, find_data
from extracurricular.recipe.paths import absolute
from extracurricular.recipe.read import parse_recipe, read_recipe
from tests.recipe.small import small

TABLE = {"table": {"path": "t.csv", "cache": "kept"}}


def written(folder: Path, name: str = "r.yaml", **changes: Any) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(yaml.safe_dump(small(**changes)))
    return str(folder / name)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shell").mkdir()
    monkeypatch.chdir(tmp_path / "shell")


def test_a_path_in_a_file_is_relative_to_the_file(tmp_path: Path) -> None:
    file = written(
        tmp_path / "project",
        data=TABLE,
        teacher={"model": {"timm:x": {"weights": "../w.pt"}}, "weights": "t.pt"},
        budgets={"tiny": {"data.table.path": "small.csv", "teacher.weights": "other.pt"}},
    )
    recipe = read_recipe(file)
    own = str(tmp_path / "project")
    assert recipe.data == {"table": {"path": f"{own}/t.csv", "cache": f"{own}/kept"}}
    assert recipe.teacher.weights == f"{own}/t.pt"
    assert recipe.teacher.model == {"timm:x": {"weights": str(tmp_path / "w.pt")}}
    small_one = read_recipe(file, ["budget=tiny"])
    assert small_one.data["table"]["path"] == f"{own}/small.csv"
    assert small_one.teacher.weights == f"{own}/other.pt"


def test_an_override_is_relative_to_the_shell(tmp_path: Path) -> None:
    file = written(tmp_path / "project", data=TABLE)
    found = read_recipe(file, ["data.path=new.csv"]).data
    assert found["table"]["path"] == str(tmp_path / "shell" / "new.csv")
    assert found["table"]["cache"] == str(tmp_path / "project" / "kept")
    onnx = read_recipe(file, ["teacher={onnx: a.onnx}"]).teacher.onnx
    assert onnx == {"path": str(tmp_path / "shell" / "a.onnx")}


def test_a_shipped_recipe_and_plain_values_are_relative_to_the_shell(tmp_path: Path) -> None:
    for recipe in (read_recipe("uci"), parse_recipe(small(data={"uci": {"path": "concrete"}}))):
        assert recipe.data_of(0)["uci"]["path"] == str(tmp_path / "shell" / "concrete")
    assert data_spec("table", ["path=t.csv"]) == {
        "table": {"path": str(tmp_path / "shell" / "t.csv")}
    }
    assert data_spec("table:t.csv") == {f"table:{tmp_path}/shell/t.csv": {}}


def test_what_a_run_of_an_earlier_version_keeps_is_relative_to_the_shell(tmp_path: Path) -> None:
    file = written(tmp_path / "run", "recipe.yaml", data=TABLE)
    (tmp_path / "run" / "environment.json").write_text("{}")
    assert read_recipe(file).data["table"]["path"] == str(tmp_path / "shell" / "t.csv")


def test_home_and_variables_are_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DISK", "/disk")
    base = Path("/base")
    assert absolute("~/t.csv", base) == "/home/me/t.csv"
    assert absolute("$DISK/t.csv", base) == absolute("${DISK}/t.csv", base) == "/disk/t.csv"
    assert absolute("../t.csv", base) == "/t.csv"
    assert absolute("~nobody-of-this-name/t.csv", base) == "/base/~nobody-of-this-name/t.csv"


def test_a_name_on_the_hub_stays_unless_such_a_folder_is_there(tmp_path: Path) -> None:
    hub = {"data": {"hf": {"path": "owner/name"}}}
    assert parse_recipe(small(**hub)).data == {"hf": {"path": "owner/name"}}
    (tmp_path / "shell" / "owner" / "name").mkdir(parents=True)
    assert parse_recipe(small(**hub)).data == {"hf": {"path": f"{tmp_path}/shell/owner/name"}}
    near = parse_recipe(small(data={"hf": {"path": "./mine"}}))
    assert near.data == {"hf": {"path": f"{tmp_path}/shell/mine"}}


@pytest.mark.parametrize("kind", ["table", "imagefolder", "arrays", "uci"])
def test_a_missing_path_is_told_with_where_it_was_looked_for(tmp_path: Path, kind: str) -> None:
    with pytest.raises(XclError, match=str(tmp_path / "shell" / "gone")):
        find_data(kind, ["path=gone.csv" if kind == "table" else "path=gone"])


def test_a_recipe_that_is_read_again_stays_as_it_is(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path / "project", data=TABLE))
    assert parse_recipe(recipe.dump()).dump() == recipe.dump()
