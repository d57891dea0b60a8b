"""Trees as tensors: as scikit-learn's own, saved without code, and one operator of ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn import ensemble, tree
from sklearn.linear_model import Ridge

from extracurricular.distributions import Bernoulli, Categorical, Distribution, Gaussian
from extracurricular.errors import RecipeError, StorageError
from extracurricular.models import parameter_count
from extracurricular.models.estimators import ESTIMATORS, LEAST_VARIANCE, apart
from extracurricular.models.grown import grown
from extracurricular.models.trees import Block, Tree, Trees, planted, restored


def rows(count: int = 300, columns: int = 3) -> Any:
    return np.random.default_rng(3).normal(size=(count, columns)).astype(np.float32)


def curve(x: Any) -> Any:
    return np.sin(2 * x[:, 0]) + 0.5 * x[:, 1] * x[:, 2]


def asked(module: Trees, x: Any) -> Any:
    with torch.no_grad():
        return module(torch.from_numpy(x)).numpy()


REGRESSORS = [
    tree.DecisionTreeRegressor(max_depth=5),
    tree.ExtraTreeRegressor(random_state=0),
    ensemble.RandomForestRegressor(7, random_state=0),
    ensemble.ExtraTreesRegressor(7, random_state=0),
    ensemble.BaggingRegressor(n_estimators=5, max_features=0.7, random_state=0),
    ensemble.GradientBoostingRegressor(n_estimators=20),
    ensemble.GradientBoostingRegressor(n_estimators=5, init="zero"),
    ensemble.HistGradientBoostingRegressor(max_iter=20),
]


@pytest.mark.parametrize("estimator", REGRESSORS, ids=lambda one: type(one).__name__)
def test_trees_answer_as_the_estimator_does(estimator: Any) -> None:
    x, fresh = rows(), rows(1000)
    estimator.fit(x, curve(x))
    trees, bias = grown(estimator)
    module = planted([Block(trees, bias)])
    np.testing.assert_allclose(asked(module, fresh)[:, 0], estimator.predict(fresh), atol=2e-6)


def test_a_forest_of_several_targets_has_one_block() -> None:
    x = rows()
    y = np.stack([curve(x), x[:, 1], -x[:, 2]], 1)
    forest = ensemble.RandomForestRegressor(5, random_state=0).fit(x, y)
    module = planted([Block(*grown(forest))])
    np.testing.assert_allclose(asked(module, x), forest.predict(x), atol=2e-6)


def test_a_value_on_a_threshold_goes_left_though_float32_cannot_hold_the_threshold() -> None:
    # 0.1 in float32 is above 0.1 in float64, so it is no value of at most this threshold.
    one = Tree(np.array([0]), np.array([0.1]), np.array([[-1, -2]]), np.array([[1.0], [2.0]]))
    module = planted([Block([one], np.zeros(1))])
    near = np.float32(0.1)
    assert float(near) > 0.1
    below = np.nextafter(near, np.float32(0))
    assert asked(module, np.array([[near], [below]], np.float32))[:, 0].tolist() == [2.0, 1.0]


def test_readings_are_the_logarithm_and_the_log_odds_of_the_sum() -> None:
    stump = Tree(np.array([0]), np.array([0.0]), np.array([[-1, -2]]), np.array([[0.2], [0.0]]))
    x = np.array([[-1.0], [1.0]], np.float32)
    blocks = [Block([stump], np.zeros(1), reading, 0.01) for reading in ("log", "logit")]
    found = asked(planted(blocks), x)
    np.testing.assert_allclose(found[0], [np.log(0.2), np.log(0.2 / 0.8)], rtol=1e-5)
    np.testing.assert_allclose(found[1], [np.log(0.01), np.log(0.01 / 0.99)], rtol=1e-5)


def test_a_constant_has_one_leaf_and_no_split() -> None:
    x = rows(50)
    forest = ensemble.RandomForestRegressor(3, random_state=0).fit(x, np.full(50, 4.0))
    module = planted([Block(*grown(forest))])
    assert asked(module, x)[:, 0] == pytest.approx(np.full(50, 4.0))
    assert np.array_equal(asked(restored(module.spec, module.state_dict()), x), asked(module, x))


def test_trees_are_restored_from_tensors_and_numbers_alone() -> None:
    x = rows()
    boosted = ensemble.HistGradientBoostingRegressor(max_iter=5).fit(x, curve(x))
    module = planted([Block(*grown(boosted))])
    again = restored(module.spec, module.state_dict())
    assert np.array_equal(asked(again, x), asked(module, x))
    leaves, splits = module.value.numel(), module.threshold.numel()
    assert parameter_count(module) == leaves + splits + 1


@pytest.mark.parametrize(
    "change", [{"depth": 10**9}, {"splits": 3}, {"blocks": [[10**12, 1, "value"]]}, {"depth": "5"}]
)
def test_sizes_that_are_not_those_of_the_tensors_are_refused(change: dict[str, Any]) -> None:
    x = rows()
    module = planted([Block(*grown(tree.DecisionTreeRegressor().fit(x, curve(x))))])
    with pytest.raises(StorageError, match="no trees"):
        restored({**module.spec, **change}, module.state_dict())


def test_a_child_that_leads_out_of_the_trees_is_refused() -> None:
    x = rows()
    module = planted([Block(*grown(tree.DecisionTreeRegressor().fit(x, curve(x))))])
    state = module.state_dict()
    state["below"][0, 0] = 10**6
    with pytest.raises(StorageError, match="leads nowhere"):
        restored(module.spec, state)


def test_trees_that_lead_in_a_circle_are_refused() -> None:
    x = rows()
    module = planted([Block(*grown(tree.DecisionTreeRegressor().fit(x, curve(x))))])
    state = module.state_dict()
    state["below"][1, 0] = 0
    with pytest.raises(StorageError, match="leads back"):
        restored(module.spec, state)


def test_an_estimator_without_trees_is_refused_with_those_that_have_some() -> None:
    with pytest.raises(ValueError, match=r"is a Ridge, whose trees are not known.*RandomForest"):
        grown(Ridge())


# Fits


def target_of(kind: str, x: Any) -> Distribution:
    mean = torch.from_numpy(np.stack([curve(x), x[:, 0]], 1)).float()
    if kind == "regression":
        return Gaussian(mean, torch.from_numpy(x[:, :2]).clamp(-1, 1) - 4)
    if kind == "classification":
        return Categorical.from_output(torch.cat([mean, mean.sum(1, keepdim=True)], 1))
    return Bernoulli.from_output(mean)


SMALL = {
    "gradient_boosting": {"rounds": 40, "columns": 0.7},
    "random_forest": {"trees": 20},
    "extra_trees": {"trees": 20},
    "sklearn": {"estimator": "tests.models.test_trees:own"},
}


def own() -> Any:
    return tree.DecisionTreeRegressor(max_depth=8)


@pytest.mark.parametrize("kind", ["regression", "classification", "multilabel"])
@pytest.mark.parametrize("name", SMALL)
def test_an_estimator_learns_a_teachers_distributions(name: str, kind: str) -> None:
    x = rows(800)
    target = target_of(kind, x)
    fitted = ESTIMATORS.build({name: SMALL[name]}, key="estimator")
    module = fitted.fit(x, target, np.ones(len(x)), 1)
    said = torch.from_numpy(asked(module, x))
    if isinstance(target, Gaussian):
        student: Distribution = Gaussian(*said.chunk(2, 1))
        assert float((student.mean - target.mean).abs().mean()) < 0.2
        # The variance has the teacher's in it, and the student's own error.
        assert float(student.log_var.mean()) > float(target.log_var.mean()) - 0.1
        assert float(student.log_var.max()) < 4
    else:
        student = type(target).from_output(said)
        assert float((student.mean - target.mean).abs().mean()) < 0.08
    again = fitted.fit(x, target, np.ones(len(x)), 1)
    assert np.array_equal(asked(again, x), said.numpy())


def test_boosted_trees_of_classes_take_soft_labels_as_they_are() -> None:
    """One column of two values: the leaves must have the teacher's probabilities."""
    x = np.repeat(np.array([[-1.0], [1.0]], np.float32), 100, axis=0)
    x += np.linspace(0, 1e-3, 200, dtype=np.float32)[:, None]
    probs = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]).repeat_interleave(100, 0)
    fitted = ESTIMATORS.build({"gradient_boosting": {"rounds": 200}}, key="k")
    module = fitted.fit(x, Categorical.from_probs(probs), np.ones(200), 0)
    said = Categorical.from_output(torch.from_numpy(asked(module, x))).probs
    torch.testing.assert_close(said, probs, atol=0.01, rtol=0)


def test_a_class_that_no_draw_has_gets_no_chance_and_one_class_all() -> None:
    x = rows(60)
    fitted = ESTIMATORS.build({"gradient_boosting": {"rounds": 5}}, key="k")
    for likely in ([0.5, 0.5, 0.0], [0.0, 1.0, 0.0]):
        target = Categorical.from_probs(torch.tensor([likely]).expand(60, 3))
        module = fitted.fit(x, target, np.ones(60), 0)
        said = Categorical.from_output(torch.from_numpy(asked(module, x))).probs
        torch.testing.assert_close(said[0], torch.tensor(likely), atol=1e-4, rtol=0)


def test_the_variance_of_a_sure_teacher_is_the_error_of_the_student() -> None:
    x = rows(2000)
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.5, len(x)).astype(np.float32)
    target = Gaussian.point(torch.from_numpy(curve(x) + noise)[:, None].float())
    fitted = ESTIMATORS.build({"gradient_boosting": {"rounds": 60}}, key="k")
    spread = np.exp(asked(fitted.fit(x, target, np.ones(len(x)), 0), x)[:, 1]).mean()
    assert 0.25 < spread < 0.40
    assert spread > LEAST_VARIANCE


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"gradient_boosting": {"rate": 0.0}}, "rate is 0.0; it must be above 0"),
        ({"gradient_boosting": {"folds": 1}}, "folds is 1; it should be at least 2"),
        ({"random_forest": {"columns": 2.0}}, "columns is 2.0"),
        ({"gradient_boosting": {"columns": 0.0}}, "columns is 0.0; it must be above 0"),
        ({"sklearn": {"estimator": "here"}}, "it must be package.module:function"),
        ({"sklearns": {}}, "sklearn"),
    ],
)
def test_a_wrong_setting_is_named(spec: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        ESTIMATORS.build(spec, key="estimator")


def test_no_threshold_stands_on_the_value_of_a_draw_and_no_draw_changes_its_leaf() -> None:
    x = rows(1999)
    boosted = ensemble.HistGradientBoostingRegressor(max_iter=30, max_bins=16).fit(x, curve(x))
    trees, bias = grown(boosted)
    column = np.unique(x[:, 0])
    on = [np.isin(one.threshold[one.feature == 0], column).any() for one in trees]
    assert any(on), "such trees do split at values"
    moved = apart(trees, x)
    for one in moved:
        assert not np.isin(one.threshold[one.feature == 0].astype(np.float32), column).any()
    before, after = (planted([Block(some, bias)]) for some in (trees, moved))
    assert np.array_equal(asked(after, x), asked(before, x))
    near = np.nextafter(x, np.float32(np.inf))
    assert np.array_equal(asked(after, near), asked(after, x))


def test_boosted_trees_choose_each_split_from_a_part_of_the_columns() -> None:
    """The last column says nothing where the first is known, so only chance takes it."""
    x = rows(600, 4)
    x[:, -1] = x[:, 0] + 0.5 * np.random.default_rng(0).normal(size=len(x)).astype(np.float32)
    target = Gaussian.point(torch.from_numpy(curve(x))[:, None].float())
    used = []
    for part in (1.0, 1 / x.shape[1]):
        settings = {"gradient_boosting": {"rounds": 10, "columns": part}}
        module = ESTIMATORS.build(settings, key="k").fit(x, target, np.ones(len(x)), 0)
        used.append(float((module.feature == x.shape[1] - 1).float().mean()))
    assert used[0] < used[1]


def test_fewer_draws_than_folds_are_refused() -> None:
    x = rows(2)
    fitted = ESTIMATORS.build("extra_trees", key="k")
    with pytest.raises(ValueError, match="folds is 3, but there are 2 draws"):
        fitted.fit(x, target_of("regression", x), np.ones(2), 0)


@pytest.mark.parametrize("name", ["gradient_boosting", "random_forest"])
def test_rows_on_a_grid_between_the_draws_take_the_same_way_however_they_are_rounded(
    name: str,
) -> None:
    rng = np.random.default_rng(3)
    grid = np.arange(0, 400, dtype=np.float64) / 10  # as tables have them, with one decimal
    seen = rng.choice(grid, 120, replace=False)
    x = ((seen - grid.mean()) / grid.std()).astype(np.float32)[:, None]
    fitted = {
        "gradient_boosting": ensemble.HistGradientBoostingRegressor(
            max_iter=30, min_samples_leaf=2
        ),
        "random_forest": ensemble.RandomForestRegressor(n_estimators=10, random_state=0),
    }[name].fit(x, np.sin(x[:, 0] * 3))
    trees = grown(fitted)[0]
    wanted = (grid - grid.mean()) / grid.std()
    nearest = [
        np.abs(np.concatenate([one.threshold for one in some])[:, None] - wanted).min()
        for some in (trees, apart(trees, x))
    ]
    assert nearest[0] < 1e-6, "such trees do split on the grid"
    assert nearest[1] > 1e-4
