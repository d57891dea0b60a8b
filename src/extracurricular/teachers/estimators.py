"""scikit-learn estimators as teachers.

A classifier answers by ``predict_proba``, a regressor by ``predict`` with ``return_std`` (a
Gaussian process) or by its members (a forest, a bagging ensemble). Estimators are fitted here or
handed over in Python. They are never read from disk, since unpickling a file runs its code.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from extracurricular.data.base import Data
from extracurricular.distributions import Distribution
from extracurricular.errors import shorten
from extracurricular.teachers.raw import (
    Array,
    Arrays,
    RawEnsemble,
    RawTeacher,
    gaussian,
    parts_of,
    raw_arrays,
    read_answer,
)


def flat(x: Arrays) -> Array:
    """Return raw inputs as the table [B, K] that estimators take, parts side by side, in order."""
    parts = [part.reshape(len(part), -1) for part in parts_of(x).values()]
    return np.concatenate(parts, axis=1)


def training_table(data: Data) -> tuple[Array, Array]:
    """Return the training split as estimators take it: inputs [N, K], and raw labels [N] or [N, D].

    The inputs are standardised and brought back, so they equal a sampler's to the last bit.
    """
    y = data.train.y
    assert y is not None
    _need_classes(data)
    labels: Array = y.cpu().numpy()
    one = labels.ndim == 2 and labels.shape[1] == 1
    table = flat(raw_arrays(data.inputs(data.train.x), data))
    return table, (labels[:, 0] if one else labels)


def sklearn_teacher(estimator: Any, data: Data, *, std: Any = None) -> RawTeacher:
    """Return a fitted scikit-learn estimator as a teacher.

    Its public name is ``EstimatorTeacher``.

    Args:
        estimator: A classifier with ``predict_proba``; or a regressor whose ``predict`` takes
            ``return_std``; or a forest or bagging ensemble, which becomes an ensemble of its
            members; or any other regressor, which needs ``std``. It was fitted on raw inputs
            [N, K] (:func:`training_table` gives them), a pipeline's own scaling included.
        data: The data set.
        std: The deviation of a regressor that gives only means, or of members that are no trees,
            in the target's own units, or those of its transform: one number, or one for each
            target.

    Raises:
        ValueError: The estimator is not fitted, cannot give a distribution, or was fitted on other
            columns or classes than the data have.
    """
    _check_fitted(estimator, data)
    if data.task.kind == "classification":
        order = class_order(estimator, data)
        if _has_members(estimator):
            return _ClassifierEnsemble(estimator, data, order)
        return _Classifier(estimator, data, order)
    if _has_members(estimator):
        return _RegressorEnsemble(estimator, data, std)
    if returns_std(estimator):
        return _Regressor(estimator, data, None)
    if std is None:
        raise ValueError(
            f"a {_name(estimator)} gives no variance; give std, the deviation of its errors in "
            "the target's units"
        )
    return _Regressor(estimator, data, std)


EstimatorTeacher = sklearn_teacher


def class_order(estimator: Any, data: Data) -> list[int]:
    """Return the data's class of each column of ``predict_proba``, by ``classes_``.

    Raises:
        ValueError: The estimator knows a class that the data lack.
    """
    order: list[int] = []
    for label in np.asarray(estimator.classes_).tolist():
        if isinstance(label, str):
            place = data.classes.index(label) if label in data.classes else -1
        else:
            place = int(label) if float(label).is_integer() else -1
        if not 0 <= place < data.task.size:
            raise ValueError(
                f"the {_name(estimator)} knows the class {shorten(label)}, but the data have "
                f"{', '.join(data.classes) or f'0 to {data.task.size - 1}'}"
            )
        order.append(place)
    return order


def returns_std(estimator: Any) -> bool:
    """Return whether an estimator's ``predict`` can give standard deviations."""
    last = estimator[-1] if hasattr(estimator, "steps") else estimator
    predict = getattr(last, "predict", None)
    return predict is not None and "return_std" in inspect.signature(predict).parameters


def has_own_spread(estimator: Any) -> bool:
    """Return whether a regressor gives variances itself, by ``return_std`` or by its trees."""
    if returns_std(estimator):
        return True
    return _has_members(estimator) and all(_is_tree(one) for one in estimator.estimators_)


def _has_members(estimator: Any) -> bool:
    """Return whether each member predicts the target itself; members of boosting add up to it."""
    from sklearn import ensemble

    kinds = (
        ensemble.RandomForestClassifier,
        ensemble.RandomForestRegressor,
        ensemble.ExtraTreesClassifier,
        ensemble.ExtraTreesRegressor,
        ensemble.BaggingClassifier,
        ensemble.BaggingRegressor,
    )
    return isinstance(estimator, kinds)


def _is_tree(estimator: Any) -> bool:
    from sklearn.tree import BaseDecisionTree

    return isinstance(estimator, BaseDecisionTree)


def _columns(ensemble: Any) -> list[Any]:
    """Return the columns that each member sees; bagging may show it only some of them."""
    every = slice(None)
    return list(getattr(ensemble, "estimators_features_", [every] * len(ensemble.estimators_)))


def _name(estimator: Any) -> str:
    return type(estimator).__name__


def _need_classes(data: Data) -> None:
    """Refuse labels that an estimator here cannot learn, nor answer.

    Raises:
        ValueError: An example has several labels, or probabilities of classes.
    """
    y = data.train.y
    soft = data.task.kind == "classification" and y is not None and y.ndim > 1
    if data.task.binary or soft:
        what = f"{data.task.size} labels of 0 and 1" if data.task.binary else "probabilities"
        raise ValueError(
            f"estimators learn one class or real targets, but each example of {data.name!r} has "
            f"{what}; use networks, an ONNX file or a function as the teacher"
        )


def _check_fitted(estimator: Any, data: Data) -> None:
    if data.task.binary:
        _need_classes(data)
    needed = "predict_proba" if data.task.kind == "classification" else "predict"
    if not hasattr(estimator, needed):
        raise ValueError(f"the {_name(estimator)} has no {needed}, which {data.task.kind} needs")
    width = flat(raw_arrays(data.inputs(data.train[:1].x), data)).shape[1]
    known = getattr(estimator, "n_features_in_", None)
    if known is None:
        raise ValueError(f"the {_name(estimator)} is not fitted; fit it first")
    if known != width:
        raise ValueError(
            f"the {_name(estimator)} was fitted on {known} columns, but the data have {width}"
        )


def _placed(scores: Array, order: list[int], size: int) -> Array:
    """Put columns of probabilities where their classes belong; other classes get 0."""
    placed = np.zeros((len(scores), size))
    placed[:, order] = scores
    return placed


class _Classifier(RawTeacher):
    """A classifier that answers by ``predict_proba``."""

    def __init__(self, estimator: Any, data: Data, order: list[int]) -> None:
        super().__init__(data)
        self.estimator = estimator
        self.order = order

    def answer(self, x: Arrays) -> Distribution:
        scores = np.asarray(self.estimator.predict_proba(flat(x)))
        return read_answer(_placed(scores, self.order, self.task.size), self.task, "probs")


class _ClassifierEnsemble(RawEnsemble):
    """A forest or bagging of classifiers."""

    def __init__(self, estimator: Any, data: Data, order: list[int]) -> None:
        super().__init__(data)
        self.estimator = estimator
        self.order = order

    @property
    def parameters(self) -> int | None:
        return _size(self.estimator)

    def answers(self, x: Arrays) -> list[Distribution]:
        table, result = flat(x), []
        columns = _columns(self.estimator)
        for member, seen in zip(self.estimator.estimators_, columns, strict=True):
            # A member numbers classes by their place in the ensemble's, and a member of a bagging
            # may have missed some.
            order = [self.order[int(place)] for place in member.classes_]
            scores = np.asarray(member.predict_proba(table[:, seen]))
            result.append(read_answer(_placed(scores, order, self.task.size), self.task, "probs"))
        return result


class _Regressor(RawTeacher):
    """A regressor that answers by ``predict``, with its own deviation if it has one."""

    def __init__(self, estimator: Any, data: Data, std: Any) -> None:
        super().__init__(data)
        self.estimator = estimator
        self.std = std

    @property
    def parameters(self) -> int | None:
        last = self.estimator[-1] if hasattr(self.estimator, "steps") else self.estimator
        # A Gaussian process keeps its examples, and the matrices that every prediction multiplies.
        names = ("X_train_", "alpha_", "L_")
        if not all(hasattr(last, name) for name in names):
            return None
        return sum(int(getattr(last, name).size) for name in names)

    def answer(self, x: Arrays) -> Distribution:
        if self.std is not None:
            said, transform = self.estimator.predict(flat(x)), self.data.y_transform
            return read_answer(said, self.task, "mean", self.std, transform)
        said = self.estimator.predict(flat(x), return_std=True)
        return read_answer(said, self.task, "mean_std")


class _RegressorEnsemble(RawEnsemble):
    """A forest or bagging of regressors.

    A tree's variance is the mean squared error of the training examples in the leaf. So the mixture
    has both the spread inside leaves and the spread between trees (Hutter et al. 2014, "Algorithm
    runtime prediction", Sec. 4.3.2). Members that are no trees all get ``std``.
    """

    def __init__(self, estimator: Any, data: Data, std: Any) -> None:
        super().__init__(data)
        self.estimator = estimator
        trees = all(_is_tree(member) for member in estimator.estimators_)
        if not trees and std is None:
            raise ValueError(
                f"the members of the {_name(estimator)} give no variance; give std, the deviation "
                "of a member's errors in the target's units"
            )
        self.spreads = self._leaf_variances() if trees else None
        self.std = std

    @property
    def parameters(self) -> int | None:
        return _size(self.estimator)

    def _leaf_variances(self) -> list[Array]:
        """Return the variance in each node of each tree, [nodes, D]; only leaves count."""
        table, y = training_table(self.data)
        targets = y.reshape(len(y), -1).astype(np.float64)
        found = []
        for tree, seen in zip(self.estimator.estimators_, _columns(self.estimator), strict=True):
            rows = np.ascontiguousarray(table[:, seen], dtype=np.float32)
            leaf = tree.tree_.apply(rows)
            error = np.square(targets - tree.tree_.value[leaf, :, 0])
            total = np.zeros((tree.tree_.node_count, self.task.size))
            count = np.zeros((tree.tree_.node_count, 1))
            np.add.at(total, leaf, error)
            np.add.at(count, leaf, 1)
            # A leaf that no training example reaches gets the spread of all examples.
            found.append(np.where(count > 0, total / np.maximum(count, 1), error.mean(0)))
        return found

    def answers(self, x: Arrays) -> list[Distribution]:
        table, result = flat(x), []
        columns = _columns(self.estimator)
        for place, (member, seen) in enumerate(
            zip(self.estimator.estimators_, columns, strict=True)
        ):
            rows = np.ascontiguousarray(table[:, seen], dtype=np.float32)
            if self.spreads is None:
                said, transform = member.predict(rows), self.data.y_transform
                result.append(read_answer(said, self.task, "mean", self.std, transform))
            else:
                leaf = member.tree_.apply(rows)
                result.append(gaussian(member.tree_.value[leaf, :, 0], self.spreads[place][leaf]))
        return result


def _size(ensemble: Any) -> int | None:
    """Count the numbers in an ensemble's trees: column and threshold of splits, values of leaves.

    The count is None where a member is no tree.
    """
    if not all(_is_tree(member) for member in ensemble.estimators_):
        return None
    total = 0
    for tree in (member.tree_ for member in ensemble.estimators_):
        leaves = int(tree.n_leaves)
        total += 2 * (tree.node_count - leaves) + leaves * tree.value[0].size
    return total
