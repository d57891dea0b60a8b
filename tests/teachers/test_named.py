"""Teachers that are no torch modules: raw values in, distributions out, and nothing executed."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.ensemble import (
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesRegressor,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.linear_model import BayesianRidge, LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import extracurricular as xcl
from extracurricular.data.base import Data, make_data
from extracurricular.distributions import Categorical, Gaussian
from extracurricular.errors import RecipeError
from extracurricular.knowledge.fingerprint import teacher_fingerprint
from extracurricular.samplers import Batch, Empirical
from extracurricular.teachers import HasMembers, Teacher, epistemic_uncertainty
from extracurricular.teachers.estimators import sklearn_teacher, training_table
from extracurricular.teachers.named import ENTRIES, few
from extracurricular.teachers.raw import FunctionTeacher, raw_arrays, read_answer
from tests.conftest import eye_data, image_data, pair_data, table_data


def first(data: Data, count: int = 8) -> Batch:
    return Batch(torch.arange(count), data.inputs(data.train.x)[:count])  # type: ignore[index]


def curve(count: int = 60, noise: float = 2.0) -> Data:
    """One target far from 0 and in a unit of its own, with noise of a known deviation."""
    rng = np.random.default_rng(5)
    x = rng.uniform(-3, 3, (count, 2)).astype(np.float32) * [1, 100]
    y = 1000 + 50 * np.sin(x[:, 0]) + rng.normal(0, noise, count)
    return make_data("curve", (x, y.astype(np.float32)), (x[:20], y[:20].astype(np.float32)))


def groups(labels: Any = (0, 1, 2), count: int = 60) -> Data:
    rng = np.random.default_rng(6)
    y = np.asarray(labels)[np.arange(count) % len(labels)]
    x = (rng.normal(0, 1, (count, 3)) + 3 * y[:, None]).astype(np.float32)
    task = xcl.Task("classification", 3)
    return make_data(
        "groups", (x, y), (x[:20], y[:20]), task=task, classes=("red", "green", "blue")
    )


# Raw values and answers


def test_raw_values_are_what_the_data_hold() -> None:
    for data in (image_data(), table_data(), curve()):
        raw = raw_arrays(data.inputs(data.train.x), data)
        assert isinstance(raw, np.ndarray)
        assert raw.dtype == np.float32
        np.testing.assert_allclose(raw, data.train.x.float().numpy(), rtol=1e-5, atol=1e-4)  # type: ignore[union-attr]
    eyes = raw_arrays(eye_data().inputs(eye_data().train.x), eye_data())
    assert isinstance(eyes, dict)
    assert eyes["eye"].shape == (40, 1, 12, 20)
    assert isinstance(raw_arrays(pair_data().inputs(pair_data().train.x), pair_data()), tuple)


def test_a_function_is_asked_in_raw_values_and_its_answer_is_standardised() -> None:
    data = curve()
    asked: list[Any] = []

    def say(x: Any) -> Any:
        asked.append(x)
        return 1000 + x[:, 0], np.full(len(x), 5.0)

    teacher = FunctionTeacher(say, data)
    assert isinstance(teacher, Teacher)
    said = teacher(first(data))
    assert isinstance(said, Gaussian)
    np.testing.assert_allclose(asked[0], data.train.x[:8], rtol=1e-5, atol=1e-4)  # type: ignore[index]
    prediction = xcl.predict(teacher, data, data.test)
    assert isinstance(prediction, Gaussian)
    torch.testing.assert_close(prediction.mean, 1000 + data.test.x[:, :1], rtol=1e-5, atol=1e-3)  # type: ignore[index]
    torch.testing.assert_close(prediction.std, torch.full((20, 1), 5.0))
    assert said.mean.dtype == torch.float32
    assert float(said.mean.abs().max()) < 5


@pytest.mark.parametrize(
    ("output", "spread"), [("mean_std", 3.0), ("mean_var", 9.0), ("mean_log_var", math.log(9))]
)
def test_spreads_are_read_as_they_are_meant(output: Any, spread: float) -> None:
    data = table_data()

    def say(x: Any) -> Any:
        return x[:, :2], np.full((len(x), 2), spread)

    two = xcl.predict(FunctionTeacher(say, data, output=output), data, data.test)
    joined = FunctionTeacher(lambda x: np.concatenate(say(x), 1), data, output=output)
    for prediction in (two, xcl.predict(joined, data, data.test)):
        assert isinstance(prediction, Gaussian)
        torch.testing.assert_close(prediction.std, torch.full((20, 2), 3.0))
    alone = FunctionTeacher(lambda x: x[:, :2], data, output="mean", std=[3.0, 4.0])
    told = xcl.predict(alone, data, data.test)
    torch.testing.assert_close(told.std, torch.tensor([[3.0, 4.0]]).expand(20, 2))  # type: ignore[union-attr]


def test_probabilities_and_logits_of_classes() -> None:
    data = groups()
    scores = np.random.default_rng(0).normal(size=(60, 3))

    def softmax(x: Any) -> Any:
        return np.exp(scores[: len(x)]) / np.exp(scores[: len(x)]).sum(1, keepdims=True)

    probs = FunctionTeacher(softmax, data)(first(data))
    logits = FunctionTeacher(lambda x: scores[: len(x)], data, output="logits")(first(data))
    assert isinstance(probs, Categorical)
    torch.testing.assert_close(probs.probs, logits.mean)


def test_a_deviation_of_nothing_is_no_point_mass() -> None:
    data = curve()
    said = FunctionTeacher(lambda x: (x[:, 0], np.zeros(len(x))), data)(first(data))
    assert isinstance(said, Gaussian)
    torch.testing.assert_close(said.std, torch.full((8, 1), 1e-3))


@pytest.mark.parametrize(
    ("answer", "output", "says"),
    [
        (np.zeros((4, 5)), "probs", "knows 5 classes, but the data have 3"),
        (np.full((4, 3), 0.5), "probs", "sums that miss 1 by 0.5; if they are logits, set output"),
        (np.array([[-0.5, 1.0, 0.5]]), "probs", "with one of -0.5"),
        (np.array([[0.0, np.nan, 1.0]]), "probs", "nan among its probabilities, for example 0"),
        (np.zeros(3), "logits", r"logits of shape \(3,\); it must be \[B, 3\]"),
        ("many", "probs", "gave a str for its probabilities; it must be an array"),
    ],
)
def test_answers_that_cannot_be(answer: Any, output: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_answer(answer, xcl.Task("classification", 3), output)


def test_answers_of_regression_that_cannot_be() -> None:
    task = xcl.Task("regression", 2)
    with pytest.raises(ValueError, match=r"means of shape \(4, 3\); it must be \[B, 2\]"):
        read_answer((np.zeros((4, 3)), np.ones((4, 3))), task, "mean_std")
    with pytest.raises(ValueError, match="a variance of -1; none can be below 0"):
        read_answer((np.zeros((4, 2)), -np.ones((4, 2))), task, "mean_var")
    with pytest.raises(ValueError, match="gave 3 arrays; 'mean_std' takes two"):
        read_answer([np.zeros((4, 2))] * 3, task, "mean_std")
    data = table_data()
    with pytest.raises(ValueError, match="output is 'probs'; regression needs one of mean_std"):
        FunctionTeacher(len, data, output="probs")
    with pytest.raises(ValueError, match="no variance; give std, in the target's units"):
        FunctionTeacher(len, data, output="mean")
    with pytest.raises(ValueError, match="1 answers for 8 examples"):
        FunctionTeacher(lambda x: (x[:1, :2], np.ones((1, 2))), data)(first(data))


# scikit-learn


def fitted(estimator: Any, data: Data) -> Any:
    return clone(estimator).fit(*training_table(data))


def test_classes_stand_where_the_data_have_them() -> None:
    data = groups()
    x, y = training_table(data)
    names = np.array(data.classes)[y.astype(int)]
    by_index = sklearn_teacher(LogisticRegression().fit(x, y), data)(first(data))
    by_name = LogisticRegression().fit(x, names)
    assert list(by_name.classes_) == ["blue", "green", "red"]
    named = sklearn_teacher(by_name, data)(first(data))
    torch.testing.assert_close(by_index.mean, named.mean, atol=1e-3, rtol=0)
    assert torch.equal(by_index.mean.argmax(1), data.train.y[:8])  # type: ignore[index]


@pytest.mark.parametrize("kind", [RandomForestClassifier, BaggingClassifier, LogisticRegression])
def test_a_class_that_was_never_seen_has_no_probability(kind: Any) -> None:
    data = groups((2, 1))
    estimator = kind().fit(*training_table(data))
    said = sklearn_teacher(estimator, data)(first(data))
    assert float(said.mean[:, 0].max()) < 1e-6
    wanted = estimator.predict_proba(training_table(data)[0][:8])
    np.testing.assert_allclose(said.mean[:, 1:], wanted, atol=1e-6)


@pytest.mark.parametrize("kind", [RandomForestClassifier, BaggingClassifier])
def test_a_forest_is_an_ensemble_of_its_trees(kind: Any) -> None:
    data = groups()
    forest = fitted(kind(n_estimators=7, max_features=2, random_state=0), data)
    teacher = sklearn_teacher(forest, data)
    assert isinstance(teacher, HasMembers)
    batch = Batch(torch.arange(8), torch.randn(8, 3))
    assert len(teacher.members(batch)) == 7
    wanted = forest.predict_proba(raw_arrays(batch.x, data))
    np.testing.assert_allclose(teacher(batch).mean, wanted, atol=1e-6)
    assert float(epistemic_uncertainty(teacher, batch).max()) > 0


@pytest.mark.parametrize("data", [curve(), table_data()], ids=["one", "two"])
@pytest.mark.parametrize("kind", [RandomForestRegressor, ExtraTreesRegressor, BaggingRegressor])
def test_a_forest_has_both_parts_of_the_variance(kind: Any, data: Data) -> None:
    settings = {} if kind is BaggingRegressor else {"min_samples_leaf": 5}
    forest = fitted(kind(n_estimators=6, random_state=0, **settings), data)
    teacher = sklearn_teacher(forest, data)
    assert isinstance(teacher, HasMembers)
    x, y = training_table(data)
    said = xcl.predict(teacher, data, data.train)
    assert isinstance(said, Gaussian)
    np.testing.assert_allclose(said.mean, forest.predict(x).reshape(said.mean.shape), rtol=1e-4)
    # By hand: errors inside the leaves of each tree, and the spread of the trees.
    within, means = [], []
    for tree in forest.estimators_:
        leaf, guess = tree.apply(x), tree.predict(x).reshape(said.mean.shape)
        error = np.square(y.reshape(guess.shape) - guess)
        within.append(np.stack([error[leaf == one].mean(0) for one in leaf]))
        means.append(guess)
    least = 1e-6 * data.y_scale.scale.numpy() ** 2  # type: ignore[union-attr]
    wanted = np.maximum(within, least).mean(0) + np.var(means, axis=0)
    np.testing.assert_allclose(said.var, wanted, rtol=1e-3)
    spread = epistemic_uncertainty(teacher, first(data))
    assert bool((spread <= teacher(first(data)).var * 1.001).all())  # type: ignore[union-attr]


def test_bagging_of_other_members_needs_their_deviation() -> None:
    data = curve()
    bagged = fitted(
        BaggingRegressor(KNeighborsRegressor(3), 5, max_features=0.5, random_state=0), data
    )
    with pytest.raises(ValueError, match="members of the BaggingRegressor give no variance"):
        sklearn_teacher(bagged, data)
    teacher = sklearn_teacher(bagged, data, std=4.0)
    prediction = xcl.predict(teacher, data, data.test)
    guess = bagged.predict(data.test.x.numpy())  # type: ignore[union-attr]
    np.testing.assert_allclose(prediction.mean[:, 0], guess, rtol=1e-4)
    assert float(prediction.std.min()) >= 4.0 * 0.999  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "estimator",
    [
        GaussianProcessRegressor(RBF([1, 100]) + WhiteKernel(), normalize_y=True),
        make_pipeline(StandardScaler(), GaussianProcessRegressor(RBF(), alpha=0.1)),
        BayesianRidge(),
    ],
    ids=["process", "pipeline", "ridge"],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_return_std_is_the_deviation(estimator: Any) -> None:
    data = curve()
    estimator = fitted(estimator, data)
    prediction = xcl.predict(sklearn_teacher(estimator, data), data, data.test)
    mean, std = estimator.predict(data.test.x.numpy(), return_std=True)  # type: ignore[union-attr]
    np.testing.assert_allclose(prediction.mean[:, 0], mean, rtol=1e-3)
    np.testing.assert_allclose(prediction.std[:, 0], std, rtol=1e-2)  # type: ignore[union-attr]


def test_estimators_that_cannot_teach_are_refused() -> None:
    data, classes = curve(), groups()
    with pytest.raises(ValueError, match="LinearRegression gives no variance; give std"):
        sklearn_teacher(fitted(LinearRegression(), data), data)
    with pytest.raises(ValueError, match="GradientBoostingRegressor is not fitted; fit it first"):
        sklearn_teacher(GradientBoostingRegressor(), data)
    with pytest.raises(ValueError, match="fitted on 2 columns, but the data have 3"):
        sklearn_teacher(fitted(LogisticRegression(), classes), classes) and sklearn_teacher(
            LogisticRegression().fit(np.eye(2), [0, 1]), classes
        )
    with pytest.raises(ValueError, match="LinearRegression has no predict_proba"):
        sklearn_teacher(LinearRegression(), classes)
    odd = LogisticRegression().fit(np.eye(3), [0, 1, 7])
    with pytest.raises(ValueError, match="knows the class 7, but the data have red, green, blue"):
        sklearn_teacher(odd, classes)
    named = LogisticRegression().fit(np.eye(3), ["red", "green", "pink"])
    with pytest.raises(ValueError, match="knows the class 'pink'"):
        sklearn_teacher(named, classes)


# By name, fitted here


OWN = """
import numpy as np
from sklearn.linear_model import Ridge
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

def net():
    return make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(4,), max_iter=5))

def ridge():
    return Ridge()

def nothing():
    return 3

def say(x):
    return 1000 + 50 * np.sin(x[:, 0]), np.full(len(x), 2.0)
"""


@pytest.fixture(autouse=True)
def _own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_teachers.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_teachers", raising=False)


FOREST = {"random_forest": {"trees": 20}}
SPECS: list[Any] = [
    FOREST,
    {"gradient_boosting": {"rounds": 20, "leaves": 8}},
    {"gaussian_process": {"rows": 40}},
    {"sklearn": {"estimator": "my_teachers:ridge"}},
    {"sklearn": {"estimator": "my_teachers:net"}},
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("data", [curve(), table_data()], ids=["one", "two"])
def test_fitting_again_gives_the_same_teacher(spec: Any, data: Data) -> None:
    teacher, again = (ENTRIES.build(spec).fit(data, seed=2**40 + 3) for _ in range(2))
    assert torch.equal(teacher(first(data)).parameters, again(first(data)).parameters)
    assert teacher_fingerprint(teacher) == teacher_fingerprint(again)
    if "forest" in str(spec) or "net" in str(spec):
        assert teacher_fingerprint(ENTRIES.build(spec).fit(data, 4)) != teacher_fingerprint(teacher)
    ENTRIES.build(spec).fit(few(data), 0)(first(data))


@pytest.mark.parametrize("spec", SPECS[:3], ids=str)
def test_they_learn(spec: Any) -> None:
    data = curve(200)
    said = xcl.predict(ENTRIES.build(spec).fit(data, 0), data, data.test)
    figures = xcl.figures(said, data.test.y)
    # The targets deviate by 35, of which 2 is noise; a Gaussian of that deviation has NLL 5.
    assert figures["rmse"] < 7
    assert figures["nll"] < 3.8
    classes = groups()
    answer = xcl.predict(ENTRIES.build(spec).fit(classes, 0), classes, classes.test)
    assert xcl.figures(answer, classes.test.y)["accuracy"] > 0.8


def test_a_regressor_without_variance_gets_that_of_errors_left_out() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2)).astype(np.float32)
    y = (3 * x[:, :1] + rng.normal(0, [[2.0]], (400, 1))).astype(np.float32)
    data = make_data("line", (x, y), (x[:20], y[:20]))
    teacher = ENTRIES.build({"sklearn": {"estimator": "my_teachers:ridge"}}).fit(data, 0)
    prediction = xcl.predict(teacher, data, data.test)
    assert float(prediction.std[0]) == pytest.approx(2.0, rel=0.1)  # type: ignore[union-attr]


def test_images_and_several_inputs_become_one_table() -> None:
    for data in (image_data(), eye_data(), pair_data()):
        teacher = ENTRIES.build(FOREST).fit(data, 0)
        batch = Empirical(data)(torch.arange(6))
        assert len(teacher(batch)) == 6


def test_few_has_every_class() -> None:
    data = image_data(classes=4)
    small = few(data).train.y
    assert small is not None
    assert sorted(set(small.tolist())) == [0, 1, 2, 3]
    assert len(small) == 16


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("forest", "unknown teacher 'forest'"),
        ({"random_forest": {"trees": 0}}, "trees is 0; it should be at least 1"),
        ({"random_forest": {"columns": 2.0}}, "columns is 2.0; it must be above 0"),
        ({"gradient_boosting": {"rate": 0.0}}, "rate is 0.0; it must be above 0"),
        ({"gaussian_process": {"rows": 1}}, "rows is 1; it should be at least 2"),
        ({"sklearn": {"estimator": "ridge"}}, "is 'ridge'; it must be package.module:function"),
        ({"function": {"function": "f"}}, "is 'f'; it must be package.module:function"),
        ({"onnx": {}}, "path: is missing"),
    ],
)
def test_settings_are_checked(spec: Any, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        ENTRIES.build(spec, key="teacher.estimator")


def test_what_a_factory_must_give() -> None:
    entry = ENTRIES.build({"sklearn": {"estimator": "my_teachers:nothing"}})
    with pytest.raises(ValueError, match="which gives a int; it must give a scikit-learn estim"):
        entry.fit(curve(), 0)
    with pytest.raises(RecipeError, match="cannot import the estimator 'my_teachers:absent'"):
        ENTRIES.build({"sklearn": {"estimator": "my_teachers:absent"}}).fit(curve(), 0)
