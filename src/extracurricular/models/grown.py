"""The trees of fitted scikit-learn estimators, as numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from extracurricular.models.trees import Array, Tree

KNOWN = (
    "DecisionTreeRegressor, ExtraTreeRegressor, RandomForestRegressor, ExtraTreesRegressor, "
    "BaggingRegressor of trees, GradientBoostingRegressor, HistGradientBoostingRegressor"
)
"""Estimators whose trees :func:`grown` finds."""


def grown(estimator: Any) -> tuple[list[Tree], Array]:
    """Return the trees of a fitted regressor, and what is added to the sum of their values, [W].

    Raises:
        ValueError: It is no regressor of trees that is known here.
    """
    from sklearn import ensemble, tree

    forests = (ensemble.RandomForestRegressor, ensemble.ExtraTreesRegressor)
    if isinstance(estimator, ensemble.HistGradientBoostingRegressor):
        [[trees, bias]] = boosted(estimator)
        return trees, np.array([bias])
    if isinstance(estimator, ensemble.GradientBoostingRegressor):
        return _stages(estimator)
    if isinstance(estimator, tree.BaseDecisionTree):
        one = _of_tree(estimator.tree_)
        return [one], np.zeros(one.value.shape[1])
    trees_alone = isinstance(estimator, ensemble.BaggingRegressor) and all(
        isinstance(one, tree.BaseDecisionTree) for one in estimator.estimators_
    )
    if isinstance(estimator, forests) or trees_alone:
        members, part = estimator.estimators_, 1 / len(estimator.estimators_)
        seen = getattr(estimator, "estimators_features_", [None] * len(members))
        found = [_of_tree(m.tree_, part, columns) for m, columns in zip(members, seen, strict=True)]
        return found, np.zeros(found[0].value.shape[1])
    raise ValueError(f"is a {type(estimator).__name__}, whose trees are not known; use {KNOWN}")


def boosted(estimator: Any) -> list[tuple[list[Tree], float]]:
    """Return the trees of each raw output of a HistGradientBoosting estimator, and its start."""
    rounds = estimator._predictors
    starts = np.ravel(estimator._baseline_prediction)
    return [
        ([_of_nodes(one[place].nodes) for one in rounds], float(start))
        for place, start in enumerate(starts)
    ]


def _of_tree(tree: Any, part: float = 1.0, columns: Array | None = None) -> Tree:
    """Return the arrays of scikit-learn's ``Tree``, its values times ``part``."""
    inner = tree.children_left >= 0
    feature = tree.feature[inner]
    return Tree(
        feature if columns is None else np.asarray(columns)[feature],
        tree.threshold[inner],
        _renumbered(inner, np.stack([tree.children_left, tree.children_right], 1)),
        tree.value[~inner, :, 0] * part,
    )


def _of_nodes(nodes: Any) -> Tree:
    """Return the arrays of a tree of HistGradientBoosting; a leaf's value has its shrinkage."""
    inner = nodes["is_leaf"] == 0
    pair = np.stack([nodes["left"], nodes["right"]], 1).astype(np.int64)
    return Tree(
        nodes["feature_idx"][inner],
        nodes["num_threshold"][inner],
        _renumbered(inner, pair),
        nodes["value"][~inner][:, None],
    )


def _stages(estimator: Any) -> tuple[list[Tree], Array]:
    """Return the trees of a GradientBoostingRegressor, which starts at a constant or at 0."""
    constant = getattr(estimator.init_, "constant_", None)
    if constant is None and estimator.init_ != "zero":
        raise ValueError("starts at another estimator's answers; leave init out")
    trees = [_of_tree(one.tree_, estimator.learning_rate) for [one] in estimator.estimators_]
    return trees, np.zeros(1) if constant is None else np.ravel(constant).astype(np.float64)


def _renumbered(inner: Array, children: Array) -> Array:
    """Return the children of the splits alone: ``k`` the k-th split, ``-1 - k`` the k-th leaf."""
    numbers = np.where(inner, np.cumsum(inner) - 1, -np.cumsum(~inner))
    found: Array = numbers[children[inner]]
    return found
