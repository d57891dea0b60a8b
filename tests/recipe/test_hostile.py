"""Whatever a YAML file holds, it is a recipe or refused in one sentence."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from drills.mutations import mutated, mutated_text, written
from extracurricular.errors import RecipeError, XclError
from extracurricular.recipe.plain_values import DEEPEST, MOST_BYTES, MOST_VALUES, Loader, unshared
from extracurricular.recipe.read import parse_recipe, read_recipe
from extracurricular.recipe.ships import shipped_recipes
from extracurricular.run.check import check
from extracurricular.run.plan import plan
from extracurricular.run.workspace import Workspace
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
        ("zz: {null: 1}", "zz: has the key None; a key should be a text or a number"),
        ("zz: {a: {1: 2, b: 3}}", "zz.a: has the keys"),
        ("zz: .inf", "zz: is inf; it should be a finite number"),
        ("zz: {a: [1, .nan]}", "zz.a.1: is nan; it should be a finite number"),
        ("zz: !!binary aGVsbG8=", "zz: is b'hello'; it must be a text"),
        ("zz: !!set {a, b}", "zz: is {"),
        ("zz: 2001-01-01", "zz: is the date 2001-01-01; it must be a text, so put it in quotes"),
        ("zz: [1e300]", "zz.0: is 1e+300; it should be a number of at most 3.4e+38"),
        (f"zz: {2**63}", "zz: is 9223372036854775808; it should be a number of at most 64 bits"),
        ('zz: "\\ud800"', "has a character that no file can have"),
        ('zz: "a\\0b"', "has a character that no file can have"),
        ('"\\ud800": 1', "has a character that no file can have"),
        ("<<: 3", "expected a mapping or list of mappings"),
        ("<<: &m {<<: *m}", "nested too deeply"),
        ("zz: {a: 1, a: 2}", "the key 'a' is given twice"),
        ("budget: {../../x: {}}", "it names the run's folder"),
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


def test_merge_keys_cannot_fill_the_memory(tmp_path: Path) -> None:
    lines = ["m0: &m0 {" + ", ".join(f"k{k}: 1" for k in range(10)) + "}"]
    lines += [f"m{k}: &m{k} {{<<: [" + ", ".join([f"*m{k - 1}"] * 10) + "]}" for k in range(1, 12)]
    assert "merge keys give more than" in refused(tmp_path, "\n".join([BASE, *lines]))


def test_a_mapping_of_many_keys_is_read_in_no_time(tmp_path: Path) -> None:
    many = "zz: {" + ", ".join(f"k{k}: 1" for k in range(20_000)) + "}"
    assert "unknown key 'zz'" in refused(tmp_path, f"{BASE}\n{many}\n")


def test_chains_and_defaults_cannot_fill_the_memory() -> None:
    def twice(k: int) -> Any:
        part = {"weight": 1, "sampler": [f"c{k - 1}"]}
        return [{"blend": {"a": part, "b": dict(part)}}]

    chains = {"c0": ["empirical"], **{f"c{k}": twice(k) for k in range(1, 40)}}
    with pytest.raises(RecipeError, match=r"chains.c\d+: gives the recipe more than"):
        parse_recipe({**TINY, "chains": chains})
    deep: dict[str, Any] = {"c0": ["empirical"]}
    for k in range(1, 60):
        deep[f"c{k}"] = [{"share": {"extended": [f"c{k - 1}"]}}]
    with pytest.raises(RecipeError, match=r"chains.c\d+: is nested more than"):
        parse_recipe({**TINY, "chains": deep})
    students = {f"s{k}": {} for k in range(1000)}
    defaults = {**TINY["defaults"], "sampler": ["empirical", {"noise": {"std": [0.1] * 1000}}]}
    with pytest.raises(RecipeError, match="defaults: gives students more than"):
        parse_recipe({**TINY, "students": students, "defaults": defaults})


def test_a_file_that_is_too_large_for_a_recipe_is_not_read(tmp_path: Path) -> None:
    text = BASE + "# " + "x" * MOST_BYTES
    assert "which is no recipe" in refused(tmp_path, text)


def test_merge_keys_are_read() -> None:
    text = BASE + "\nzz: &t {steps: 3}\n"
    loaded = yaml.safe_load(text)
    loaded.pop("zz")
    text = "base: &t {steps: 3, lr: 0.1}\nother: &o {<<: *t, lr: 0.2}\nlast: {<<: [*o, *t], lr: 3}"
    given = unshared(yaml.load(text, Loader=Loader))
    assert given["other"] == {"steps": 3, "lr": 0.2}
    assert given["last"] == {"steps": 3, "lr": 3}
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
        ("teacher.members=1000000", "teacher.members: is 1000000"),
        ("teacher.mc_dropout=1000000000", "teacher.mc_dropout: is 1000000000"),
        (f"seeds={list(range(9000))}", "seeds are 9,000, which makes 45,000 trainings"),
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


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_mutated_recipes_are_recipes_or_refused_by_a_sentence(name: str, tmp_path: Path) -> None:
    """Reading and planning them; what needs data is checked by `python -m drills recipes`."""
    chance = random.Random(name)
    text = shipped_recipes()[name]
    whole = yaml.safe_load(text)
    file = tmp_path / "r.yaml"
    for _ in range(30):
        changed = whole
        for _ in range(chance.randint(0, 3)):
            changed = mutated(changed, chance)
        found = text if changed is whole else written(changed)
        file.write_text(mutated_text(found, chance) if chance.random() < 0.3 else found)
        try:
            plan(read_recipe(str(file), quiet=True))
        except XclError as error:
            said = str(error)
        else:
            continue
        assert said.isprintable(), said
        assert 0 < len(said) < 2500


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("students.xcl.sampler=[empirical, {augment: {pad: 1000000000000}}]", "students.xcl"),
        ("students.kd.model={mlp: {hidden: [3000000000, 3000000000]}}", "students.kd"),
    ],
)
def test_numbers_that_no_memory_holds_are_refused_by_the_check(
    change: str, key: str, tmp_path: Path
) -> None:
    recipe = parse_recipe(TINY, [change])
    with pytest.raises(RecipeError) as error:
        check(plan(recipe), Workspace(recipe, tmp_path / "out"))
    assert str(error.value).startswith(key)
    assert "\n" not in str(error.value)
