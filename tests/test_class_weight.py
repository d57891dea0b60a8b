"""Weights of classes in what a loss takes from labels."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from extracurricular.data.base import Data
from extracurricular.distributions import Categorical
from extracurricular.errors import RecipeError
from extracurricular.files import read_json
from extracurricular.inputs import soft_labels
from extracurricular.matching import Matching, describe
from extracurricular.matching.class_weight import ClassWeights
from extracurricular.recipe.read import parse_recipe, read_recipe
from extracurricular.run.execute import execute
from extracurricular.run.finished import open_run
from extracurricular.samplers import Batch
from extracurricular.teachers import Labels
from tests.conftest import image_data, small_recipe, table_data

Y = torch.tensor([0] * 20 + [1] * 8 + [2] * 2)


def imbalanced(names: tuple[str, ...] = ("a", "b", "c", "d")) -> Data:
    data = image_data(count=30, classes=4)
    return replace(data, train=replace(data.train, y=Y), classes=names)


def weights(value: Any, data: Data | None = None) -> tuple[float, ...]:
    found = Matching(class_weight=value).for_data(data or imbalanced(), from_labels=True)
    assert isinstance(found.class_weight, ClassWeights)
    return found.class_weight.values


def given(seed: int = 0) -> tuple[Categorical, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return Categorical(torch.randn(12, 4, generator=g)), torch.randint(0, 4, (12,), generator=g)


def point(y: Tensor) -> Categorical:
    found = Labels()(Batch(torch.arange(len(y)), torch.zeros(len(y), 1), y, 4))
    assert isinstance(found, Categorical)
    return found


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=Y.numpy())
    # n / (K · n_c) of the classes that have examples; the last has none.
    assert weights("balanced") == pytest.approx((*wanted, 1.0))
    assert wanted.tolist() == pytest.approx([30 / (3 * 20), 30 / (3 * 8), 30 / (3 * 2)])
    table = torch.tensor(weights("balanced"))
    assert float(table[Y].mean()) == pytest.approx(1)
    kept = replace(imbalanced(), drawn=torch.arange(10, 30))
    assert weights("balanced", kept)[0] == pytest.approx(20 / (3 * 10))


def test_weights_are_given_by_the_names_of_classes() -> None:
    assert weights({"c": 5, "a": 0.5}) == (0.5, 1.0, 5.0, 1.0)
    # YAML reads bare numbers and words as other things than texts.
    assert weights({1: 2.0}, imbalanced(())) == (1.0, 2.0, 1.0, 1.0)
    assert weights({True: 2.0}, imbalanced(("True", "b", "c", "d"))) == (2.0, 1.0, 1.0, 1.0)


def test_the_loss_from_labels_is_the_weighted_cross_entropy_of_torch() -> None:
    student, y = given()
    table = torch.tensor([0.5, 1.0, 5.0, 2.0])
    value = dict(zip("abcd", table.tolist(), strict=True))
    loss = Matching(class_weight=value).for_data(imbalanced(), from_labels=True)
    wanted = F.cross_entropy(student.logits, y, weight=table, reduction="none").mean()
    assert float(loss(student, point(y), y)) == pytest.approx(float(wanted), rel=1e-5)
    # Weights of examples multiply them.
    each = torch.rand(12)
    wanted = (F.cross_entropy(student.logits, y, weight=table, reduction="none") * each).mean()
    assert float(loss(student, point(y), y, each)) == pytest.approx(float(wanted), rel=1e-5)
    # Equal weights change nothing.
    equal = Matching(class_weight=dict.fromkeys("abcd", 1.0)).for_data(imbalanced(), True)
    assert torch.equal(equal(student, point(y), y), Matching()(student, point(y), y))


def test_of_a_student_of_the_teacher_the_label_term_alone_is_weighed() -> None:
    student, y = given()
    teacher, _ = given(1)
    table = torch.tensor([0.5, 1.0, 5.0, 2.0])
    value = dict(zip("abcd", table.tolist(), strict=True))
    settings: dict[str, Any] = {"label_weight": 0.3, "temperature": 2.0}
    loss = Matching(class_weight=value, **settings).for_data(imbalanced(), from_labels=False)
    matched = Matching(temperature=2.0)(student, teacher, y)
    term = F.cross_entropy(student.logits, y, weight=table, reduction="none").mean()
    wanted = 0.7 * matched + 0.3 * term
    assert float(loss(student, teacher, y)) == pytest.approx(float(wanted), rel=1e-5)


def test_an_example_of_soft_labels_has_their_mean_weight() -> None:
    student, y = given()
    table = ClassWeights((0.5, 1.0, 5.0, 2.0))
    assert torch.equal(table.of(soft_labels(y, 4)), table.of(y))
    mixed = 0.25 * soft_labels(y, 4) + 0.75 * soft_labels(y.flip(0), 4)
    wanted = 0.25 * table.of(y) + 0.75 * table.of(y.flip(0))
    assert torch.allclose(table.of(mixed), wanted)
    loss = replace(Matching(), class_weight=ClassWeights(table.values, whole=True))
    each = Matching()(student, Categorical.from_probs(mixed), mixed, wanted)
    assert float(loss(student, Categorical.from_probs(mixed), mixed)) == pytest.approx(float(each))


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("heavy", "class_weight is 'heavy'; it must be balanced, or {CLASS: weight, …}"),
        ({}, "it must be balanced, or {CLASS: weight, …}"),
        ({"a": -1.0}, "class_weight of 'a' is -1.0; it must be a finite number of at least 0"),
        ({"a": float("inf")}, "it must be a finite number"),
        ({"a": True}, "it must be a finite number"),
        ({"aa": 1.0}, "class_weight has 'aa', which is no class; did you mean 'a'"),
    ],
)
def test_wrong_weights_are_refused(value: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        weights(value)


def test_weights_without_anything_to_weigh_are_refused() -> None:
    with pytest.raises(ValueError, match="but label_weight is 0; set label_weight"):
        Matching(class_weight="balanced").for_data(imbalanced(), from_labels=False)
    with pytest.raises(ValueError, match="class_weight is for classes"):
        Matching(class_weight="balanced").for_data(table_data(), from_labels=True)
    student, y = given()
    with pytest.raises(ValueError, match="resolve it with for_data"):
        Matching(class_weight="balanced")(student, point(y), y)


def test_settings_of_a_loss_without_weights_are_as_before() -> None:
    assert set(describe(Matching())) == {"divergence", "temperature", "label_weight", "beta"}
    assert describe(Matching(class_weight={"a": 2.0}))["class_weight"] == {"a": 2.0}
    found = Matching(class_weight={"a": 2.0}).for_data(imbalanced(), True)
    assert describe(found)["class_weight"] == [2.0, 1.0, 1.0, 1.0]


def test_a_recipe_weighs_classes_of_teacher_and_students(tmp_path: Path) -> None:
    recipe = small_recipe({"digits": {"train": 100}}, {"mlp": {"hidden": [4]}})
    recipe["seeds"] = [0]
    recipe["teacher"] |= {"matching": {"class_weight": "balanced"}, "members": 1}
    recipe["students"] = {
        "erm": {"learns_from": "labels", "matching": {"class_weight": {3: 4.0}}},
        "kd": {"matching": {"label_weight": 0.5, "class_weight": "balanced"}},
        "even": {"sampler": [{"balanced": {"of": 0.8}}]},
    }
    execute(parse_recipe(recipe), tmp_path / "run")
    stage = read_json(tmp_path / "run" / "students" / "erm" / "seed-0" / "stage.json")
    assert stage["settings"]["matching"]["class_weight"] == {"3": 4.0}
    # It is the same recipe when it is read again, though JSON has texts for keys.
    found = open_run(tmp_path / "run")
    assert found.recipe.students["erm"].matching == {"class_weight": {"3": 4.0}}
    execute(read_recipe(str(tmp_path / "run" / "recipe.yaml")), tmp_path / "run")
    assert read_json(tmp_path / "run" / "students" / "erm" / "seed-0" / "stage.json") == stage
    wrong = {**recipe, "students": {"kd": {"matching": {"class_weight": "balanced"}}}}
    with pytest.raises(
        RecipeError, match=r"students.kd.matching: class_weight weighs what comes fr"
    ):
        execute(parse_recipe(wrong), tmp_path / "wrong")
