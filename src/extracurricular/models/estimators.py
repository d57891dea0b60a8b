"""Students that are no networks: trees of scikit-learn, fitted to a teacher's distributions.

An entry holds only settings. Its ``fit`` gets draws and the teacher's distribution of each, and
returns :class:`~extracurricular.models.trees.Trees`, which answer as a network does. What is fitted
minimises the divergence KL(teacher ‖ student) of the loss, as far as trees can:

- real targets: one fit to the teacher's means μ, another to σ² + (μ - m)², where σ² is the
  teacher's variance and m the student's own mean for a draw that it was not fitted on. This is the
  variance with the least KL from the teacher, given m;
- classes: boosted trees take each draw once for each class, weighted by its probability, whose
  logarithmic loss is that of soft labels; the leaves of a forest hold mean probabilities;
- several labels: the same for each label.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from extracurricular.distributions import Bernoulli, Categorical, Distribution, Gaussian
from extracurricular.errors import RecipeError
from extracurricular.models.base import check_at_least
from extracurricular.models.grown import boosted, grown
from extracurricular.models.trees import Array, Block, Reading, Tree, Trees, planted
from extracurricular.registry import Registry

# Classes of which the teacher is as good as sure that they are wrong are not learned from a draw.
_LEAST_PART = 1e-3
# The log-odds of a class or label that no draw has, and the probability that no answer is below.
_NEVER, LEAST_PROBABILITY = -14.0, 1e-6
# No variance is below this, of a target whose own is 1.
LEAST_VARIANCE = 1e-6
# Where a threshold stands between two draws: near the half, and far from all small fractions
# (1 / (2 + 1 / (2 + φ)), φ the golden ratio), which is where values on a grid lie.
_PART = 0.4393
# A squared error says little of a variance, so leaves of variances hold more draws.
_LEAF_OF_VARIANCES = 20


@runtime_checkable
class StudentEstimator(Protocol):
    """Settings of a student that is no network."""

    def fit(self, x: Array, target: Distribution, weight: Array, seed: int) -> Trees:
        """Fit it.

        Args:
            x: Draws, standardised, float32, [N, K]; no two are alike.
            target: The teacher's distributions of them.
            weight: How many draws each row stands for, [N].
            seed: Seed of everything in it.

        Raises:
            ValueError: The settings do not go with the draws.
        """
        ...


ESTIMATORS: Registry[StudentEstimator] = Registry(
    "estimator", fits=lambda value: isinstance(value, StudentEstimator)
)
# It holds no entries: it only imports what a recipe names as module:function.
_FACTORIES: Registry[Any] = Registry("estimator")


@ESTIMATORS.register("gradient_boosting")
@dataclass(frozen=True)
class BoostedStudent:
    """Boosted trees on binned columns (Friedman 2001; Ke et al. 2017).

    Args:
        rounds: Number of trees, for each class or target. Trees of variances end earlier, once they
            get no better on a tenth of the draws.
        rate: Shrinkage of each tree.
        leaves: Most leaves of a tree.
        leaf: Fewest draws in a leaf.
        columns: Part of the columns that a split chooses from, in (0, 1].
        folds: Folds of the cross-validation in which the errors of the means are found.
    """

    rounds: int = 300
    rate: float = 0.1
    leaves: int = 31
    leaf: int = 20
    columns: float = 1.0
    folds: int = 3

    def __post_init__(self) -> None:
        """Check the settings."""
        check_at_least(1, rounds=self.rounds, leaf=self.leaf)
        check_at_least(2, leaves=self.leaves, folds=self.folds)
        if self.rate <= 0:
            raise ValueError(f"rate is {self.rate}; it must be above 0")
        _check_columns(self.columns)

    def fit(self, x: Array, target: Distribution, weight: Array, seed: int) -> Trees:
        """Fit it."""
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        settings: dict[str, Any] = {
            "max_iter": self.rounds,
            "learning_rate": self.rate,
            "max_leaf_nodes": self.leaves,
            "min_samples_leaf": self.leaf,
            "max_features": self.columns,
            "early_stopping": False,
            "random_state": _state(seed),
        }
        if isinstance(target, Gaussian):

            def of_means() -> Any:
                return HistGradientBoostingRegressor(**settings)

            def of_variances() -> Any:
                # Its deviance is the KL between Gaussians, up to a factor and a constant.
                changes = {"loss": "gamma", "early_stopping": len(x) >= 10 * _LEAF_OF_VARIANCES}
                return HistGradientBoostingRegressor(**settings | changes)

            return _gaussian(x, target, weight, of_means, of_variances, "value", self.folds, seed)
        blocks = []
        make = HistGradientBoostingClassifier
        if isinstance(target, Bernoulli):
            for chance in target.probs.numpy().T:
                pair = np.stack([1 - chance, chance], 1)
                blocks.append(_of_classes(make(**settings), x, pair, weight)[1])
        else:
            blocks = _of_classes(make(**settings), x, target.mean.numpy(), weight)
        return planted(blocks)


@dataclass(frozen=True)
class _Forest:
    """A forest whose trees have the teacher's means, or probabilities, as their targets.

    Args:
        trees: Number of trees.
        leaf: Fewest draws in a leaf.
        columns: Part of the columns that a split chooses from, in (0, 1].
        folds: Folds of the cross-validation in which the errors of the means are found.
    """

    trees: int = 100
    leaf: int = 2
    columns: float = 1.0
    folds: int = 3

    def __post_init__(self) -> None:
        """Check the settings."""
        check_at_least(1, trees=self.trees, leaf=self.leaf)
        check_at_least(2, folds=self.folds)
        _check_columns(self.columns)

    def fit(self, x: Array, target: Distribution, weight: Array, seed: int) -> Trees:
        """Fit it."""

        def make(leaf: int = self.leaf) -> Any:
            return self._kind(
                n_estimators=self.trees,
                min_samples_leaf=leaf,
                max_features=self.columns,
                random_state=_state(seed),
            )

        def of_variances() -> Any:
            return make(max(self.leaf, _LEAF_OF_VARIANCES))

        return _of_regressors(x, target, weight, make, of_variances, self.folds, seed)

    @property
    def _kind(self) -> Any:
        raise NotImplementedError


@ESTIMATORS.register("random_forest")
@dataclass(frozen=True)
class ForestStudent(_Forest):
    """A random forest (Breiman 2001).

    Args:
        trees: Number of trees.
        leaf: Fewest draws in a leaf.
        columns: Part of the columns that a split chooses from, in (0, 1].
        folds: Folds of the cross-validation in which the errors of the means are found.
    """

    @property
    def _kind(self) -> Any:
        from sklearn.ensemble import RandomForestRegressor

        return RandomForestRegressor


@ESTIMATORS.register("extra_trees")
@dataclass(frozen=True)
class ExtraTreesStudent(_Forest):
    """A forest of extremely randomised trees (Geurts et al. 2006), on all draws.

    Args:
        trees: Number of trees.
        leaf: Fewest draws in a leaf.
        columns: Part of the columns that a split chooses from, in (0, 1].
        folds: Folds of the cross-validation in which the errors of the means are found.
    """

    @property
    def _kind(self) -> Any:
        from sklearn.ensemble import ExtraTreesRegressor

        return ExtraTreesRegressor


@ESTIMATORS.register("sklearn")
@dataclass(frozen=True)
class OwnStudent:
    """A scikit-learn regressor of trees of your own.

    Args:
        estimator: ``package.module:function``, which is called without arguments and returns an
            unfitted regressor of trees. A ``random_state`` of None is set from the seed.
        folds: Folds of the cross-validation in which the errors of the means are found.
    """

    estimator: str
    folds: int = 3

    def __post_init__(self) -> None:
        """Check the settings."""
        check_at_least(2, folds=self.folds)
        if ":" not in self.estimator:
            problem = f"is {self.estimator!r}; it must be package.module:function"
            raise RecipeError("estimator", problem)

    def fit(self, x: Array, target: Distribution, weight: Array, seed: int) -> Trees:
        """Fit it."""
        factory, _ = _FACTORIES.find(self.estimator, key="estimator")

        def make() -> Any:
            made = factory()
            if not hasattr(made, "fit") or not hasattr(made, "get_params"):
                kind = type(made).__name__
                raise ValueError(
                    f"estimator is {self.estimator!r}, which gives a {kind}; "
                    "it must give a scikit-learn regressor"
                )
            open_states = {
                name: _state(seed)
                for name, value in made.get_params().items()
                if value is None and name.rpartition("__")[2] == "random_state"
            }
            return made.set_params(**open_states)

        try:
            return _of_regressors(x, target, weight, make, make, self.folds, seed)
        except ValueError as error:
            if not str(error).startswith(("is a ", "starts at ")):
                raise
            raise ValueError(f"estimator is {self.estimator!r}, which {error}") from error


# Real targets


def _of_regressors(
    x: Array,
    target: Distribution,
    weight: Array,
    make: Callable[[], Any],
    of_variances: Callable[[], Any],
    folds: int,
    seed: int,
) -> Trees:
    """Return the trees of regressors that are fitted to means, variances and probabilities."""
    if isinstance(target, Gaussian):
        return _gaussian(x, target, weight, make, of_variances, "log", folds, seed)
    reading: Reading = "log" if isinstance(target, Categorical) else "logit"
    found = _fits(make, x, target.mean.numpy().astype(np.float64), weight)
    return planted([Block(*one, reading, LEAST_PROBABILITY) for one in _grown(found, x)])


def _gaussian(
    x: Array,
    target: Gaussian,
    weight: Array,
    make: Callable[[], Any],
    of_variances: Callable[[], Any],
    reading: Reading,
    folds: int,
    seed: int,
) -> Trees:
    """Return trees of means, and trees of log variances, or of variances to be read by ``log``."""
    mean, var = target.mean.double().numpy(), target.var.double().numpy()
    if len(x) < folds:
        raise ValueError(f"folds is {folds}, but there are {len(x)} draws that differ")
    own = np.empty_like(mean)
    for part in np.array_split(np.random.default_rng(_state(seed)).permutation(len(x)), folds):
        rest = np.setdiff1d(np.arange(len(x)), part)
        for place, one in _fits(make, x[rest], mean[rest], weight[rest]):
            own[part, place] = one.predict(x[part]).reshape(len(part), -1)
    wanted = np.maximum(var + np.square(mean - own), LEAST_VARIANCE)
    means = [Block(*one) for one in _grown(_fits(make, x, mean, weight), x)]
    spreads = _grown(_fits(of_variances, x, wanted, weight), x)
    return planted([*means, *(Block(*one, reading, LEAST_VARIANCE) for one in spreads)])


def _fits(make: Callable[[], Any], x: Array, y: Array, weight: Array) -> list[tuple[slice, Any]]:
    """Return fitted regressors with the columns of ``y`` that each predicts.

    One predicts them all if it can; else there is one for each.
    """
    first = make()
    several = getattr(first, "__sklearn_tags__", None)
    at_once = (
        y.shape[1] > 1 and several is not None and first.__sklearn_tags__().target_tags.multi_output
    )
    parts = [slice(None)] if at_once else [slice(k, k + 1) for k in range(y.shape[1])]
    found = []
    for part in parts:
        one, own = make(), y[:, part]
        own = own[:, 0] if own.shape[1] == 1 else own
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append((part, one.fit(x, own, sample_weight=weight)))
    return found


def _grown(fitted: list[tuple[slice, Any]], x: Array) -> Iterator[tuple[list[Tree], Array]]:
    for _, one in fitted:
        trees, bias = grown(one)
        yield apart(trees, x), bias


def apart(trees: list[Tree], x: Array) -> list[Tree]:
    """Return trees whose thresholds part the same draws, and stand on no value that rows have.

    Boosted trees split at values of draws, and forests halfway between two, where another row may
    lie if values are whole or on a grid. A row with such a value, standardised elsewhere, may
    differ in its last bit and would go the other way. No draw changes its leaf.
    """
    known = [np.unique(column).astype(np.float64) for column in x.T]
    found = []
    for tree in trees:
        threshold = tree.threshold.astype(np.float64)
        for column in np.unique(tree.feature):
            values, own = known[column], tree.feature == column
            above = np.searchsorted(values, threshold[own], side="right")
            low = values[np.maximum(above - 1, 0)]
            high = values[np.minimum(above, len(values) - 1)]
            inside = (low <= threshold[own]) & (high > low)
            threshold[own] = np.where(inside, low + _PART * (high - low), threshold[own])
        found.append(tree._replace(threshold=threshold))
    return found


# Classes


def _of_classes(estimator: Any, x: Array, probs: Array, weight: Array) -> list[Block]:
    """Return the blocks of the logits of each class, of boosted trees on soft labels.

    Each draw becomes one for each class that is likely enough, weighted by its probability.
    """
    row, label = np.nonzero(probs >= _LEAST_PART)
    known = np.unique(label)
    never = {k: Block([], np.array([_NEVER])) for k in range(probs.shape[1])}
    if len(known) == 1:
        return list((never | {int(known[0]): Block([], np.zeros(1))}).values())
    estimator.fit(x[row], label, sample_weight=probs[row, label] * weight[row])
    found = [Block(apart(trees, x), np.array([start])) for trees, start in boosted(estimator)]
    # Of two classes it has the log-odds of the second.
    found = [Block([], np.zeros(1)), *found] if len(found) == 1 else found
    return list((never | dict(zip(known.tolist(), found, strict=True))).values())


def _check_columns(part: float) -> None:
    """Refuse a part of the columns that is none."""
    if not 0 < part <= 1:
        raise ValueError(f"columns is {part}; it must be above 0, and at most 1")


def _state(seed: int) -> int:
    """Return a seed in scikit-learn's range, [0, 2^32)."""
    return seed % 2**32
