"""The schema: the teacher, the roles of students, and what is said of wrong recipes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from extracurricular.errors import RecipeError
from extracurricular.recipe.read import parse_recipe
from extracurricular.recipe.schema import ROLES, TeacherSection
from tests.recipe.small import SMALL, small


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
        ("seeds=[]", "seeds", "at least one entry"),
        ("seeds=[1, 1]", "", "each may occur only once"),
        ("schema=2", "schema", "is 2; it should be 1"),
        ("teacher.members=0", "teacher.members", "is 0; it should be greater than or equal to 1"),
        ("teacher.model=[]", "teacher", "empty list"),
        ("students={}", "students", "at least one entry"),
        ("students.a/b={model: mlp}", "", "a student is called 'a/b'"),
        ("data=3", "data", "is given as NAME or as {NAME"),
        ("device.precision=64", "device.precision", "is 64; it should be"),
        ("device.capture=on", "device.capture", "is True; it should be 'auto' or 'off'"),
        ("device.together=0", "device.together", "is 0; it should be a whole number of at least 1"),
        ("device.devices=0", "device.devices", "is 0; it should be a whole number of at least 1"),
        ("device.nodes=0", "device.nodes", "should be greater than or equal to 1"),
        ("device.strategy=dp", "device.strategy", "'auto', 'ddp' or 'fsdp'"),
        ("device.together=all", "device.together", "is 'all'; it should be a whole number"),
        ("device.together=true", "device.together", "is True; it should be a whole number"),
        ("device.compile=1", "device.compile", "is 1; it should be"),
        ("device.tf23=true", "device.tf23", "did you mean 'tf32'"),
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


def test_the_device_is_read_as_it_is_written() -> None:
    assert parse_recipe(SMALL).dump()["device"] == {
        "accelerator": "auto",
        "precision": "auto",
        "tf32": False,
        "capture": "auto",
        "compile": False,
        "together": "auto",
        "threads": 1,
        "devices": 1,
        "nodes": 1,
        "strategy": "auto",
        "sync_batchnorm": True,
    }
    # YAML reads a bare off as false.
    for text in ("off", "'off'"):
        assert parse_recipe(SMALL, [f"device.capture={text}"]).device.capture == "off"
    changed = parse_recipe(SMALL, ["device.together=3", "device.precision=bf16-mixed"])
    assert (changed.device.together, changed.device.precision) == (3, "bf16-mixed")
    assert parse_recipe(changed.dump()) == changed


# The teacher


@pytest.mark.parametrize(
    ("teacher", "fitted", "key"),
    [
        ({"model": "mlp"}, None, "teacher"),
        ({"estimator": "random_forest"}, {"random_forest": {}}, "teacher.estimator"),
        ({"estimator": {"random_forest": None}}, {"random_forest": {}}, "teacher.estimator"),
        (
            {"estimator": {"random_forest": {"trees": 3}}},
            {"random_forest": {"trees": 3}},
            "teacher.estimator",
        ),
        ({"onnx": "/a.onnx"}, {"onnx": {"path": "/a.onnx"}}, "teacher"),
        (
            {"onnx": {"path": "/a.onnx", "output": "probs"}},
            {"onnx": {"path": "/a.onnx", "output": "probs"}},
            "teacher",
        ),
        ({"function": "a:f"}, {"function": {"function": "a:f"}}, "teacher"),
        (
            {"function": {"function": "a:f", "output": "probs"}},
            {"function": {"function": "a:f", "output": "probs"}},
            "teacher",
        ),
    ],
)
def test_a_teacher_is_networks_or_fitted(
    teacher: dict[str, Any], fitted: dict[str, Any] | None, key: str
) -> None:
    section = parse_recipe(small(teacher=teacher)).teacher
    assert (section.fitted, section.fitted_key) == (fitted, key)
    assert section.networks == (["mlp"] if fitted is None else [])
    assert TeacherSection(**teacher) == section


@pytest.mark.parametrize(
    ("teacher", "key", "problem"),
    [
        ({}, "teacher", "has neither model nor estimator, onnx, function or answers"),
        ({"estimator": "a", "onnx": "b"}, "teacher", "has both estimator and onnx; it needs only"),
        ({"onnx": "a", "function": "b:c"}, "teacher", "has both onnx and function; it needs only"),
        ({"estimator": "a", "model": "mlp"}, "teacher", "model is for networks, but estimator is"),
        ({"onnx": "a", "members": 2}, "teacher", "members is for networks, but onnx is set; rem"),
        ({"function": "a:b", "sampler": ["mixup"]}, "teacher", "sampler is for networks, but func"),
        ({"estimator": "a", "training": {"steps": 5}}, "teacher", "training is for networks, but"),
        ({"estimator": "a", "weights": "w"}, "teacher", "weights is for networks, but estimator"),
        ({"estimator": "a", "mc_dropout": 3}, "teacher", "mc_dropout is for networks, but est"),
        ({"estimator": ["a"]}, "teacher.estimator", "a choice is given as NAME or as {NAME"),
        ({"estimator": {"onnx": {"path": "a"}}}, "teacher.estimator",
         "is 'onnx', which has a word of its own: set teacher.onnx"),
        ({"estimator": "function"}, "teacher.estimator", "set teacher.function"),
        ({"onnx": 3}, "teacher.onnx", "is 3; it should be a text or {setting: value}"),
        ({"function": ["a:b"]}, "teacher.function", "it should be a text or {setting: value}"),
        ({"model": "mlp", "record": "many"}, "teacher.record",
         "is 'many'; it should be {draws: N, codec: …}, or null"),
        ({"model": "mlp", "record": 1.5}, "teacher.record", "is 1.5; it should be {draws: N"),
        ({"model": "mlp", "record": True}, "teacher.record", "is True; it should be {draws: N"),
        ({"model": "mlp", "record": {"draws": 0}}, "teacher.record.draws", "is 0; it should be gr"),
        ({"model": "mlp", "record": {}}, "teacher.record.draws", "is missing"),
        ({"model": "mlp", "record": {"draw": 5}}, "teacher.record.draw",
         "unknown key 'draw'; did you mean 'draws'? Known: codec, draws"),
        ({"model": "mlp", "record": {"codec": "uint8"}}, "teacher.record",
         "codec says how a record is stored, but draws, its size, is not set"),
    ],
)  # fmt: skip
def test_a_wrong_teacher_is_told_in_one_line(
    teacher: dict[str, Any], key: str, problem: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(small(teacher=teacher))
    assert caught.value.key == key
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


# The roles of students


def students(*names: str) -> dict[str, Any]:
    """Students by name; one that ends in an asterisk learns from labels."""
    return {
        name.strip("*"): {"learns_from": "labels"} if name.endswith("*") else {} for name in names
    }


@pytest.mark.parametrize(
    ("names", "given", "expected"),
    [
        (("erm*", "kd", "xcl"), {}, ("kd", "erm", "xcl")),
        (("erm*", "kd", "mixed", "xcl"), {}, ("kd", "erm", "mixed")),
        # Who learns from labels is subject only where nobody else can be.
        (("erm*", "augmented*", "kd", "xcl"), {}, ("kd", "erm", "xcl")),
        (("erm*", "augmented*", "kd"), {}, ("kd", "erm", "augmented")),
        (("mine",), {}, (None, None, "mine")),
        (("kd",), {}, ("kd", None, "kd")),
        (("erm*",), {}, (None, "erm", "erm")),
        (("erm*", "kd"), {}, ("kd", "erm", "kd")),
        (("a", "b", "c"), {"reference": "a"}, ("a", None, "b")),
        (("a*", "b", "c"), {"reference": "b", "plain": "a"}, ("b", "a", "c")),
        (("erm*", "kd", "xcl"), {"reference": "xcl"}, ("xcl", "erm", "kd")),
        (("erm*", "kd", "xcl"), {"reference": None}, (None, "erm", "kd")),
        (("erm*", "kd", "xcl"), {"plain": None}, ("kd", None, "xcl")),
        (("erm*", "kd", "xcl"), {"subject": "erm"}, ("kd", "erm", "erm")),
        (("erm*", "kd", "xcl"), {"subject": None}, ("kd", "erm", "xcl")),
    ],
)
def test_students_have_roles(
    names: tuple[str, ...], given: dict[str, Any], expected: tuple[str | None, ...]
) -> None:
    recipe = parse_recipe(small(students=students(*names), **given))
    assert (recipe.reference, recipe.plain, recipe.subject) == expected
    assert tuple(recipe.dump()[role] for role in ROLES) == expected
    assert parse_recipe(recipe.dump()) == recipe


def test_students_that_learn_from_labels_by_default_are_no_subject_first() -> None:
    labels = {"model": "mlp", "learns_from": "labels"}
    recipe = small(students={"a": {}, "b": {"learns_from": "teacher"}}, defaults=labels)
    assert parse_recipe(recipe).subject == "b"


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("value", ["kdd", 3, ["kd"], ""])
def test_a_role_that_is_no_student_is_refused(role: str, value: Any) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(small(**{role: value}))
    assert caught.value.key == role
    if isinstance(value, str):
        assert f"is {value!r}, which is no student; " in caught.value.problem
        assert "nown: erm, kd" in caught.value.problem


CHANGES = [
    "students={erm: {learns_from: labels}, other: {}}",
    "students={a: {}, b: {}, erm: {}}",
    "students={a: {}, kd: {}}",
    "students.kd=null",
    "students.new.learns_from=labels",
    "students.new={}",
    "students.xcl={}",
    "reference=xcl",
    "reference=null",
    "plain=kd",
    "plain=null",
    "subject=kd",
    "subject=null",
]


@settings(max_examples=200, deadline=None)
@drawn(
    st.sampled_from([("erm*", "kd", "xcl"), ("a", "b*"), ("erm*", "a*", "kd", "b"), ("kd",)]),
    st.lists(st.sampled_from(CHANGES)),
    st.sampled_from([{}, {"reference": "kd"}, {"reference": None}, {"subject": "kd"}]),
)
def test_a_kept_recipe_is_changed_as_its_file_is(
    names: tuple[str, ...], changes: list[str], given: dict[str, Any]
) -> None:
    """The roles that a run keeps are those of its students; other students have others."""
    if "kd" not in names:
        given = {}
    # All is filled in, but for the roles; so changes of students mean the same in both.
    file = parse_recipe(small(students=students(*names), **given)).dump()
    filled = {key: value for key, value in file.items() if key not in ROLES} | given
    changes = [*changes, "defaults.model=mlp"]

    def outcome(loaded: dict[str, Any]) -> Any:
        try:
            return parse_recipe(loaded, changes)
        except RecipeError as error:
            return str(error)

    assert outcome(filled) == outcome(file)


def test_a_budget_may_remove_students() -> None:
    few = {"few": {"students": {"erm": {"learns_from": "labels"}, "mine": {}}}}
    recipe = small(students=students("erm*", "kd", "xcl"), budgets=few)
    assert [getattr(parse_recipe(recipe), role) for role in ROLES] == ["kd", "erm", "xcl"]
    read = parse_recipe(recipe, ["budget=few"])
    assert [getattr(read, role) for role in ROLES] == [None, "erm", "mine"]
    # A role that the recipe gives to a student of its own is not passed on in silence.
    with pytest.raises(RecipeError, match="reference: is 'xcl', which is no student; known: erm"):
        parse_recipe(recipe | {"reference": "xcl"}, ["budget=few"])
