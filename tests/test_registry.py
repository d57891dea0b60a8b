"""Code of somebody's own, as a recipe names it: found, refused by a sentence, or not looked at."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import pytest

from extracurricular import registry
from extracurricular.data.sets import DATA
from extracurricular.errors import RecipeError, TrustError
from extracurricular.models.base import MODELS
from extracurricular.registry import check_settings, find_own_code_in, looking
from extracurricular.samplers.base import SAMPLERS

SOURCES = {
    "own_that_fails": "raise KeyError('no such thing')",
    "own_that_is_wrong": "def f(:",
    "own_of_odd_types": "def f(x: 'NoSuchType'): ...",
    "own_that_raises": "def f(): return 1 / 0",
    "own_that_gives_another": "def f(): return {'a': 1}",
    "own_value": "f = 3",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, source in SOURCES.items():
        (tmp_path / f"{name}.py").write_text(source + "\n")
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("own_that_fails:f", "cannot import the model 'own_that_fails:f': KeyError: 'no such"),
        ("own_that_is_wrong:f", "cannot import the model 'own_that_is_wrong:f': SyntaxError"),
        ("own_of_odd_types:f", "has settings that cannot be read: NameError"),
        ("own_that_raises:f", "own_that_raises:f: cannot be made: ZeroDivisionError: division"),
        ("own_that_gives_another:f", "gives a dict, which is no model"),
        ("own_value:f", "the model 'own_value:f' cannot be called"),
        ("..:f", "cannot import the model '..:f'"),
        ("no_such_module:f", "No module named 'no_such_module'"),
    ],
)
def test_own_code_that_cannot_be_used_is_refused_by_a_sentence(
    here: Path, name: str, said: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        MODELS.build(name, key="students.kd.model")
    assert said in str(caught.value)
    assert str(caught.value).startswith("students.kd.model")
    assert "\n" not in str(caught.value)


def test_each_kind_of_own_code_has_to_be_of_the_kind() -> None:
    for kind in (MODELS, SAMPLERS, DATA):
        with pytest.raises(RecipeError, match=r"gives a Counter, which is no "):
            kind.build("collections:Counter", key="x")


def test_nothing_is_imported_while_one_looks(here: Path) -> None:
    with (
        looking(lambda name, key: f"{key} names {name}"),
        pytest.raises(TrustError, match=r"^here names own_value:f$"),
    ):
        MODELS.find("own_value:f", key="here")
    assert "own_value" not in sys.modules
    with looking(lambda name, key: "never"):
        assert MODELS.is_barred("own_value:f")
        assert not MODELS.is_barred("mlp")
        MODELS.find("mlp")
    assert not MODELS.is_barred("own_value:f")


def test_the_working_directory_is_searched_once_code_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_of_the_folder.py").write_text("def f(): ...\n")
    monkeypatch.setattr(registry, "_own_places", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    find_own_code_in(tmp_path)
    MODELS.find("mlp")
    assert str(tmp_path) not in sys.path
    MODELS.find("own_of_the_folder:f")
    assert sys.path[-1] == str(tmp_path)


def _of_several_types(
    shift: float | tuple[float, ...] = 0.0,
    codec: Literal["auto"] | int = "auto",
    weights: dict[str, int | float] | None = None,
) -> None: ...


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"shift": "q"}, "a.shift: is 'q'; it should be a valid number or a valid list"),
        ({"shift": [1, "q"]}, "a.shift.1: is 'q'; it should be a valid number"),
        ({"codec": "b"}, "a.codec: is 'b'; it should be 'auto' or a valid integer"),
        ({"weights": {"int": "z"}}, "a.weights.int: is 'z'; it should be a valid integer or a va"),
        ({"weights": {"k": None}}, "a.weights.k: is None; it should be a valid integer or a valid"),
        ({"weights": 3}, "a.weights: is 3; it should be a valid dictionary"),
        ({"shft": 3}, "a.shft: unknown key 'shft'; did you mean 'shift'?"),
    ],
)
def test_a_value_of_several_types_is_named_by_its_own_key(given: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        check_settings(_of_several_types, given, "a")
    assert str(caught.value).startswith(said)
