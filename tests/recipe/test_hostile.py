"""Whatever a YAML file holds, it is a recipe or refused in one sentence."""

from __future__ import annotations

import copy
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from extracurricular.errors import RecipeError, XclError
from extracurricular.recipe.plain_values import DEEPEST, MOST_VALUES, unshared
from extracurricular.recipe.read import parse_recipe, read_recipe, shipped_recipes
from tests.run.test_run import TINY

BASE = yaml.safe_dump(TINY)


def refused(tmp_path: Path, text: str) -> str:
    file = tmp_path / "r.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError) as error:
        read_recipe(str(file))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 2000
    return str(error.value)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("zz: 2001-99-99", r"r.yaml' is not valid YAML: month must be in 1..12"),
        ("zz: &a [*a]", "zz.0.0: is nested more than"),
        ("zz: &a {b: *a}", "zz.b.b: is nested more than"),
        ("zz: " + "[" * 500 + "]" * 500, "nested"),
        ("zz: " + "[" * 20_000 + "]" * 20_000, "is nested too deeply"),
        ("zz: " + "9" * 5000, "is not valid YAML: Exceeds the limit"),
        ("zz: .inf", "zz: is inf; it should be a finite number"),
        ("zz: {a: [1, .nan]}", "zz.a.1: is nan; it should be a finite number"),
        ("zz: !!binary aGVsbG8=", "zz: is b'hello'; it must be a text"),
        ("zz: !!set {a, b}", "zz: is {"),
        ("zz: !!python/object/apply:os.system [true]", "is not valid YAML"),
        ("zz: \x00", "is not valid YAML"),
        ("? [a, b]\n: 1", "is not valid YAML"),
    ],
)
def test_what_no_recipe_holds_is_refused(more: str, said: str, tmp_path: Path) -> None:
    assert said in refused(tmp_path, f"{BASE}\n{more}\n")


def test_aliases_cannot_fill_the_memory(tmp_path: Path) -> None:
    lines = ["a0: &a0 [" + ", ".join(["x"] * 10) + "]"]
    lines += [f"a{k}: &a{k} [" + ", ".join([f"*a{k - 1}"] * 10) + "]" for k in range(1, 12)]
    assert f"has more than {MOST_VALUES:,} values" in refused(tmp_path, "\n".join([BASE, *lines]))


def test_merge_keys_are_read() -> None:
    text = BASE + "\nzz: &t {steps: 3}\n"
    loaded = yaml.safe_load(text)
    loaded.pop("zz")
    given = yaml.safe_load("base: &t {steps: 3, lr: 0.1}\nother: {<<: *t, lr: 0.2}")
    assert unshared(given)["other"] == {"steps": 3, "lr": 0.2}
    assert parse_recipe(loaded).name == TINY["name"]


def test_values_are_copied_and_shared_no_more() -> None:
    part = {"a": [1, 2]}
    found = unshared({"x": part, "y": part})
    found["x"]["a"][0] = 9
    assert found["y"]["a"] == part["a"] == [1, 2]
    deep: Any = 1
    for _ in range(DEEPEST - 1):
        deep = [deep]
    assert unshared({"a": deep}) == {"a": deep}


BAD_NAMES = [
    *("../../x", "/absolute", "a/b", "a\\b", "..", ".hidden", "", " a", "a\n", "a\x1b[31m"),
    *("x" * 101, "\u202ea"),
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_no_folder_can_have_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match="it names the run's folder"):
        parse_recipe({**TINY, "name": name})


def test_names_in_any_language_are_names() -> None:
    for name in ("digits", "Häuser 2026", "数字", "a.b-c_d"):
        assert parse_recipe({**TINY, "name": name}).name == name


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("defaults.training.batch_size=1000000000000", "batch_size"),
        ("defaults.training.steps=10000000000000000000000", "steps"),
        ("defaults.training.lr=.inf", "lr: is inf"),
        ("students.kd.sampler=[empirical, {noise: {std: .inf}}]", "sampler.1.noise.std: is inf"),
        ("about=2001-99-99", "about: '2001-99-99' is not valid YAML"),
        ("about=" + "[" * 20_000, "about: "),
    ],
)
def test_a_number_beyond_all_bounds_is_refused_by_its_key(change: str, key: str) -> None:
    with pytest.raises(RecipeError) as error:
        parse_recipe(TINY, [change])
    assert key in str(error.value)
    assert len(str(error.value)) < 500


# -- at random ------------------------------------------------------------------------------------

ODD = [
    None, True, -1, 0, 1.5, 1e308, float("nan"), float("inf"), 10**30, "", "x", "a\x1b[1m", "..",
    "[red]", "$seed", [], {}, [[]], {"": 1}, {1: 2}, "2001-99-99", b"x", ["empirical"] * 3,
]  # fmt: skip


def mutated(value: Any, chance: random.Random) -> Any:
    """Change one place of plain values: remove it, replace it, or put an odd key beside it."""
    found = copy.deepcopy(value)
    places: list[tuple[Any, Any]] = []

    def walk(part: Any) -> None:
        items = part.items() if isinstance(part, dict) else enumerate(part)
        for key, inner in list(items):
            places.append((part, key))
            if isinstance(inner, dict | list):
                walk(inner)

    walk(found)
    part, key = chance.choice(places)
    kind = chance.randrange(3)
    if kind == 0:
        del part[key]
    elif kind == 1 or isinstance(part, list):
        part[key] = copy.deepcopy(chance.choice(ODD))
    else:
        part[chance.choice(["zz", 3, "", "steps", "model"])] = copy.deepcopy(chance.choice(ODD))
    return found


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_mutated_recipes_are_recipes_or_refused_by_a_sentence(name: str) -> None:
    """Reading them; what needs data is checked by a drill."""
    chance = random.Random(name)
    whole = yaml.safe_load(shipped_recipes()[name])
    for _ in range(60):
        changed = whole
        for _ in range(chance.randint(1, 3)):
            changed = mutated(changed, chance)
        with suppress(XclError):
            parse_recipe(changed, quiet=True)
