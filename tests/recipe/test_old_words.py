"""The words of the previous release: read with a note, in files, budgets, overrides and runs."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from extracurricular.errors import OldWordWarning, RecipeError
from extracurricular.recipe.old_words import Notes, upgrade
from extracurricular.recipe.read import parse_recipe, read_recipe
from extracurricular.recipe.schema import Recipe
from extracurricular.recipe.students import StudentSection
from extracurricular.training import Training
from tests.recipe.small import SMALL, small

BEFORE = Path(__file__).parent / "before"
UNSURE: list[Any] = ["empirical", {"uncertain": {"candidates": 2, "plain": 0.3}}]
SURE: list[Any] = ["empirical", {"uncertain": {"candidates": 2, "plain_share": 0.3}}]
FOREST = {"random_forest": {"trees": 5}}


def blend(chain: Any) -> Any:
    return [{"blend": {"plain": {"weight": 1, "sampler": chain}}}]


def read(loaded: Any, *overrides: str) -> tuple[Recipe, list[str]]:
    """Read a recipe; return its notes too."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        recipe = parse_recipe(loaded, overrides)
    assert all(warning.category is OldWordWarning for warning in caught)
    assert all(warning.filename == __file__ for warning in caught)
    return recipe, [str(warning.message) for warning in caught]


# In a file


@pytest.mark.parametrize(
    ("old", "new", "note"),
    [
        ({"defaults": {"model": "mlp", "matching": {"hard": 0.1}}},
         {"defaults": {"model": "mlp", "matching": {"label_weight": 0.1}}},
         "defaults.matching.hard is called label_weight now"),
        ({"defaults": {"model": "mlp", "sampler": UNSURE}},
         {"defaults": {"model": "mlp", "sampler": SURE}},
         "defaults.sampler.1.uncertain.plain is called plain_share now"),
        ({"defaults": {"model": "mlp", "sampler": blend(UNSURE)}},
         {"defaults": {"model": "mlp", "sampler": blend(SURE)}},
         "defaults.sampler.0.blend.plain.sampler.1.uncertain.plain is called plain_share now"),
        ({"chains": {"unsure": UNSURE}, "defaults": {"model": "mlp", "sampler": ["unsure"]}},
         {"defaults": {"model": "mlp", "sampler": SURE}},
         "chains.unsure.1.uncertain.plain is called plain_share now"),
        ({"teacher": {"outside": FOREST}}, {"teacher": {"estimator": FOREST}},
         "teacher.outside is called teacher.estimator now"),
        ({"teacher": {"outside": "random_forest"}}, {"teacher": {"estimator": "random_forest"}},
         "teacher.outside is called teacher.estimator now"),
        ({"teacher": {"outside": {"onnx": {"path": "a.onnx", "output": "probs"}}}},
         {"teacher": {"onnx": {"path": "a.onnx", "output": "probs"}}},
         "teacher.outside is called teacher.onnx now"),
        ({"teacher": {"outside": {"function": {"function": "a:f"}}}},
         {"teacher": {"function": "a:f"}},
         "teacher.outside is called teacher.function now"),
        ({"teacher": {"model": "mlp", "outside": None}}, {"teacher": {"model": "mlp"}},
         "teacher.outside is called teacher.estimator now"),
        ({"teacher": {"model": "mlp", "record": 64}},
         {"teacher": {"model": "mlp", "record": {"draws": 64}}},
         "teacher.record is called teacher.record.draws now"),
        ({"teacher": {"model": "mlp", "record": {"draws": 64}, "codec": "uint8"}},
         {"teacher": {"model": "mlp", "record": {"draws": 64, "codec": "uint8"}}},
         "teacher.codec is called teacher.record.codec now"),
        ({"teacher": {"model": "mlp", "record": None, "codec": None}},
         {"teacher": {"model": "mlp"}},
         "teacher.codec is called teacher.record.codec now"),
    ],
)  # fmt: skip
def test_an_old_word_is_read_with_a_note(
    old: dict[str, Any], new: dict[str, Any], note: str
) -> None:
    recipe, notes = read(small(**old))
    assert notes == [f"recipe: {note}; the next release reads only the new word"]
    assert (recipe, []) == read(small(**new))
    assert read(recipe.dump()) == (recipe, [])
    assert parse_recipe(small(**old), quiet=True) == recipe


def test_a_record_and_its_codec_become_one_section() -> None:
    recipe, notes = read(small(teacher={"model": "mlp", "record": 64, "codec": {"topk": {"k": 3}}}))
    assert recipe.teacher.record is not None
    assert (recipe.teacher.record.draws, recipe.teacher.record.codec) == (64, {"topk": {"k": 3}})
    assert len(notes) == 2


def test_a_word_that_occurs_often_is_noted_once() -> None:
    students = {name: {"sampler": UNSURE, "matching": {"hard": 0.1}} for name in "abc"}
    _, notes = read(small(students=students))
    end = "; the next release reads only the new word"
    assert notes == [
        f"recipe: students.a.matching.hard and 2 more are called label_weight now{end}",
        f"recipe: students.a.sampler.1.uncertain.plain and 2 more are called plain_share now{end}",
    ]


def test_a_file_is_noted_where_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "old.yaml"
    file.write_text(yaml.safe_dump(small(teacher={"outside": "random_forest"})))
    says = "teacher.outside is called teacher.estimator"
    with pytest.warns(OldWordWarning, match=says) as caught:
        recipe = read_recipe(str(file))
    assert [warning.filename for warning in caught] == [__file__]
    assert read_recipe(str(file), quiet=True) == recipe


# Two words for one thing


@pytest.mark.parametrize(
    ("changes", "key", "old", "new"),
    [
        ({"defaults": {"model": "mlp", "matching": {"hard": 0.1, "label_weight": 0.1}}},
         "defaults.matching", "hard", "label_weight"),
        ({"defaults": {"sampler": [{"uncertain": {"plain": 0.1, "plain_share": 0.2}}]}},
         "defaults.sampler.0.uncertain", "plain", "plain_share"),
        ({"teacher": {"outside": FOREST, "estimator": FOREST}}, "teacher", "outside", "estimator"),
        ({"teacher": {"outside": FOREST, "onnx": "a.onnx"}}, "teacher", "outside", "onnx"),
        ({"teacher": {"model": "mlp", "record": {"draws": 5, "codec": "uint8"}, "codec": "uint4"}},
         "teacher", "codec", "record.codec"),
    ],
)  # fmt: skip
def test_both_words_in_one_place_are_refused(
    changes: dict[str, Any], key: str, old: str, new: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(small(**changes))
    assert caught.value.key == key
    assert caught.value.problem == (
        f"has both {old} and {new}, the old and the new word for one setting; keep {new}"
    )


# In overrides and budgets: the last word wins, whichever words came before.

RECORD = {"model": "mlp", "record": {"draws": 100, "codec": "uint4"}}
LAST: list[tuple[dict[str, Any], list[str], tuple[str, ...], Any]] = [
    ({"teacher": RECORD}, ["teacher.codec=uint8"], ("record",), {"draws": 100, "codec": "uint8"}),
    ({"teacher": RECORD}, ["teacher.record=512"], ("record",), {"draws": 512, "codec": "uint4"}),
    ({"teacher": RECORD}, ["teacher.codec=null"], ("record",), {"draws": 100, "codec": None}),
    ({"teacher": RECORD}, ["teacher.record=null"], ("record",), None),
    ({"teacher": RECORD}, ["teacher.record=null", "teacher.codec=null"], ("record",), None),
    ({"teacher": RECORD}, ["teacher.codec=uint8", "teacher.record.codec=float16"], ("record",),
     {"draws": 100, "codec": "float16"}),
    ({"teacher": RECORD}, ["teacher.record.codec=float16", "teacher.codec.topk.k=3"], ("record",),
     {"draws": 100, "codec": {"float16": {}, "topk": {"k": 3}}}),
    ({}, ["teacher.codec=uint8", "teacher.record=512"], ("record",),
     {"draws": 512, "codec": "uint8"}),
    ({}, ["teacher.record=512"], ("record",), {"draws": 512, "codec": None}),
    ({"teacher": {"estimator": FOREST}}, ["teacher.outside.random_forest.trees=7"], ("estimator",),
     {"random_forest": {"trees": 7}}),
    ({"teacher": {"estimator": "random_forest"}}, ["teacher.outside.random_forest.trees=7"],
     ("estimator",), {"random_forest": {"trees": 7}}),
    ({"teacher": {"estimator": FOREST}}, ["teacher.outside={onnx: {path: /a.onnx}}"], ("onnx",),
     {"path": "/a.onnx"}),
    ({"teacher": {"estimator": FOREST}}, ["teacher.outside=null", "teacher.model=mlp"],
     ("model",), "mlp"),
    ({"teacher": {"onnx": "/a.onnx"}}, ["teacher.outside.onnx.path=/b.onnx"], ("onnx",),
     {"path": "/b.onnx"}),
    ({"teacher": {"onnx": "/a.onnx"}}, ["teacher.onnx.output=probs"], ("onnx",),
     {"path": "/a.onnx", "output": "probs"}),
    ({"teacher": {"outside": {"onnx": {"path": "/a"}}}}, ["teacher.onnx=/b"], ("onnx",),
     {"path": "/b"}),
    ({"teacher": {"function": "a:f"}}, ["teacher.outside.function.output=probs"], ("function",),
     {"function": "a:f", "output": "probs"}),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "overrides", "path", "value"), LAST)
def test_the_last_word_on_the_teacher_wins(
    changes: dict[str, Any], overrides: list[str], path: tuple[str, ...], value: Any
) -> None:
    recipe, _ = read(small(**changes), *overrides)
    assert recipe.dump()["teacher"][path[0]] == value
    # A budget says the same, and so do overrides of the recipe that a run kept.
    made = {text.partition("=")[0]: yaml.safe_load(text.partition("=")[2]) for text in overrides}
    budget, _ = read(small(**changes, budgets={"b": made}), "budget=b")
    assert budget.teacher == recipe.teacher
    kept, _ = read(parse_recipe(small(**changes), quiet=True).dump(), *overrides)
    assert kept.teacher == recipe.teacher


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("students.kd.matching.hard=0.3", ("matching", "label_weight"), 0.3),
        ("students.kd.matching={hard: 0.4}", ("matching", "label_weight"), 0.4),
        ("defaults.matching.hard=0.2", ("matching", "label_weight"), 0.2),
        ("students.kd.sampler.1.uncertain.plain=0.5",
         ("sampler", 1, "uncertain", "plain_share"), 0.5),
        ("students.kd.sampler=[{blend: {a: {weight: 1, sampler: [{uncertain: {plain: 0.6}}]}}}]",
         ("sampler", 0, "blend", "a", "sampler", 0, "uncertain", "plain_share"), 0.6),
    ],
)  # fmt: skip
def test_the_last_word_on_students_wins(override: str, path: tuple[Any, ...], value: Any) -> None:
    recipe = small()
    recipe["students"]["kd"]["sampler"] = SURE
    read_one, notes = read(recipe, override)
    found = read_one.dump()["students"]["kd"]
    assert len(notes) == 1
    assert set(found["matching"]) <= {"label_weight", "temperature"}
    for part in path:
        found = found[part]
    assert found == value


def test_old_words_reach_into_blends_and_chains() -> None:
    blend = [{"blend": {"a": {"weight": 1, "sampler": ["unsure", "noise"]},
                        "b": {"weight": 1, "sampler": SURE}}}]  # fmt: skip
    recipe = small(chains={"unsure": SURE}, defaults={"model": "mlp", "sampler": blend})
    found, notes = read(
        recipe,
        "chains.unsure.1.uncertain.plain=0.7",
        "defaults.sampler.0.blend.b.sampler.1.uncertain.plain=0.8",
    )
    assert len(notes) == 1
    parts = found.students["kd"].sampler[0]["blend"]
    assert parts["a"]["sampler"][1] == {"uncertain": {"candidates": 2, "plain_share": 0.7}}
    assert parts["b"]["sampler"][1] == {"uncertain": {"candidates": 2, "plain_share": 0.8}}


def test_the_notes_of_overrides_name_what_was_written() -> None:
    end = "; the next release reads only the new word"
    _, notes = read(SMALL, "teacher.record=64", "teacher.codec=uint8", "defaults.matching.hard=0")
    assert notes == [
        f"recipe: teacher.record is called teacher.record.draws now{end}",
        f"recipe: teacher.codec is called teacher.record.codec now{end}",
        f"recipe: defaults.matching.hard is called label_weight now{end}",
    ]


# What runs of the previous release kept


@pytest.mark.parametrize("name", ["digits", "gaze", "words"])
def test_the_recipe_of_an_old_run_is_read_quietly(name: str) -> None:
    kept = yaml.safe_load((BEFORE / f"run-{name}.yaml").read_text(encoding="utf-8"))
    recipe = parse_recipe(kept, quiet=True)
    assert (recipe.reference, recipe.plain, recipe.subject) == ("kd", "erm", "xcl")
    assert read(recipe.dump()) == (recipe, [])
    assert read_recipe(str(BEFORE / f"run-{name}.yaml"), quiet=True) == recipe
    # Nothing but words has changed, and what came later has its default.
    usual = Training().model_dump(mode="json")
    came = {
        name: field.get_default(call_default_factory=True)
        for name, field in StudentSection.model_fields.items()
    }
    for student, section in recipe.dump()["students"].items():
        old = kept["students"][student]
        same = {"sampler": section["sampler"], "matching": section["matching"]}
        later = {"training": usual | old["training"]}
        assert section == came | old | same | later


def test_the_words_of_an_old_run() -> None:
    recipe = read_recipe(str(BEFORE / "run-words.yaml"), quiet=True)
    assert recipe.teacher.fitted == {"random_forest": {"trees": 5}}
    assert recipe.dump()["teacher"]["record"] == {"draws": 256, "codec": "uint8"}
    assert recipe.students["kd"].matching == {"label_weight": 0.1, "beta": 0.0}
    digits = read_recipe(str(BEFORE / "run-digits.yaml"), quiet=True)
    assert digits.students["xcl"].sampler[-1] == {
        "uncertain": {"score": "entropy", "candidates": 2, "plain_share": 0.3}
    }
    assert digits.teacher.record is None


@pytest.mark.parametrize("name", ["digits", "gaze", "words"])
def test_a_run_from_before_beta_was_trained_without(name: str) -> None:
    kept = yaml.safe_load((BEFORE / f"run-{name}.yaml").read_text())
    recipe = parse_recipe(kept, quiet=True)
    assert {student.matching["beta"] for student in recipe.students.values()} == {0.0}
    assert recipe.teacher.matching == ({} if name == "words" else {"beta": 0.0})
    # A run of today says nothing of beta where its recipe did not, and that means the default.
    today = recipe.dump()
    for student in today["students"].values():
        del student["matching"]["beta"]
    today["teacher"]["matching"] = {}
    found, notes = read(today)
    assert not notes
    assert all("beta" not in student.matching for student in found.students.values())
    # So does a recipe that a person wrote, and one with a beta keeps it.
    del kept["log"]
    assert "beta" not in parse_recipe(kept, quiet=True).students["kd"].matching
    own = read_recipe(
        str(BEFORE / f"run-{name}.yaml"), ["students.kd.matching.beta=0.25"], quiet=True
    )
    assert own.students["kd"].matching["beta"] == 0.25


# Whatever a recipe says in old words, it says in new ones.


UNSURELY = st.fixed_dictionaries({}, optional={"plain": st.floats(0, 1), "candidates": st.just(2)})
STEPS = st.sampled_from(["mixup", {"noise": {"std": 0.1}}]) | UNSURELY.map(
    lambda settings: {"uncertain": settings}
)
CHAINS = st.lists(STEPS, max_size=2).map(lambda rest: ["empirical", *rest])
BLENDS = st.dictionaries(
    st.sampled_from(["plain", "uncertain"]),
    st.fixed_dictionaries({"weight": st.just(1.0), "sampler": CHAINS}),
    min_size=1,
)
BLENDED = st.tuples(BLENDS, st.lists(STEPS, max_size=2)).map(
    lambda both: [{"blend": both[0]}, *both[1]]
)


def in_new_words(value: Any) -> Any:
    """Rename every share that is called plain; a part of a blend may be called so too."""
    if isinstance(value, list):
        return [in_new_words(part) for part in value]
    if isinstance(value, dict):
        return {
            "plain_share" if key == "plain" and isinstance(part, float) else key: in_new_words(part)
            for key, part in value.items()
        }
    return value


@st.composite
def recipes(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """A recipe in old and in new words, and nothing else different."""
    old, new = small(), small()
    for name in draw(st.sets(st.sampled_from(["kd", "erm"]))):
        chain = draw(CHAINS | BLENDED)
        old["students"][name]["sampler"] = chain
        new["students"][name]["sampler"] = in_new_words(chain)
    if draw(st.booleans()):
        weight = draw(st.floats(0, 1))
        old["students"]["kd"]["matching"] = {"temperature": 2.0, "hard": weight}
        new["students"]["kd"]["matching"] = {"temperature": 2.0, "label_weight": weight}
        del old["defaults"]["matching"], new["defaults"]["matching"]
    name = draw(st.sampled_from(["", "random_forest", "sklearn", "onnx", "function"]))
    if name:
        given = draw(st.sampled_from([{}, {"path": "a"}, {"function": "a:b"}]))
        own = name in ("onnx", "function")
        old["teacher"] = {"outside": {name: given}}
        new["teacher"] = {name: given} if own else {"estimator": {name: given}}
    draws, codec = draw(st.none() | st.integers(1, 9)), draw(st.sampled_from([None, "uint8"]))
    if draws is not None:
        old["teacher"] |= {"record": draws, "codec": codec}
        new["teacher"]["record"] = {"draws": draws, "codec": codec}
    return old, new


@settings(max_examples=150, deadline=None)
@given(recipes())
def test_old_and_new_words_say_the_same(both: tuple[dict[str, Any], dict[str, Any]]) -> None:
    old, new = both
    before = copy.deepcopy(old)
    recipe = parse_recipe(old, quiet=True)
    assert old == before
    assert read(new) == (recipe, [])
    # What is read is a recipe again, and an upgraded recipe has nothing to upgrade.
    assert read(recipe.dump()) == (recipe, [])
    upgrade(old, Notes())
    once, notes = copy.deepcopy(old), Notes()
    upgrade(old, notes)
    assert (old, notes.sentences()) == (once, [])
