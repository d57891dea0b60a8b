"""Entries of teachers that are no torch modules, by the names that recipes use.

An entry holds only settings. Its ``fit`` makes the teacher, from the training split where there is
something to fit. Fitting is a function of data, settings and seed, so a run keeps no estimator: it
fits again, and checks that the answers are the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from extracurricular.data.base import Affine, Data
from extracurricular.data.splits import split_indices
from extracurricular.data.target_transform import transformed_errors
from extracurricular.errors import RecipeError
from extracurricular.models.base import check_at_least
from extracurricular.registry import Registry
from extracurricular.teachers.base import Teacher
from extracurricular.teachers.estimators import (
    EstimatorTeacher,
    has_own_spread,
    training_table,
)
from extracurricular.teachers.networks import EnsembleTeacher
from extracurricular.teachers.onnx import OnnxTeacher
from extracurricular.teachers.order import reordered
from extracurricular.teachers.raw import LEAST_STD, Array, FunctionTeacher, Output


@runtime_checkable
class Entry(Protocol):
    """Settings of a teacher that is no torch module."""

    def fit(self, data: Data, seed: int) -> Teacher:
        """Make the teacher, the same one for the same data and seed.

        Raises:
            ValueError: The settings do not go with the data.
        """
        ...


ENTRIES: Registry[Entry] = Registry("teacher", fits=lambda value: isinstance(value, Entry))

# These hold no entries: they only import what a recipe names as module:function.
_FACTORIES: Registry[Any] = Registry("estimator")
_FUNCTIONS: Registry[Any] = Registry("function")

# Deviations of targets below this are too near to what trees take for none.
_TINY_UNIT = 1e-4

# Training rows to try a teacher on: of each class, or of a regression or several labels.
_FEW = {"classification": 4, "regression": 64}


def few(data: Data) -> Data:
    """Return the data set with a few training examples of each class, to try a teacher on."""
    y = data.train.y
    assert y is not None
    if data.task.kind != "classification" or y.ndim > 1:
        return replace(data, train=data.train[: _FEW["regression"]])
    places = [(y == k).nonzero()[: _FEW["classification"], 0] for k in range(data.task.size)]
    return replace(data, train=data.train[torch.cat(places)])


def moderate(data: Data) -> Data:
    """Return a data set whose real targets, if tiny or far from 0, are in a unit that is neither.

    The trees of scikit-learn stop to grow where a variance is below 2e-16, and take it from sums of
    squares, which lose it far from 0. The unit is a power of two, so that standardised answers stay
    what they are to the last bit.
    """
    y, scales = data.train.y, data.y_scale
    if y is None or scales is None:
        return data
    far = y.dtype == torch.float64  # units that float32 cannot hold
    if not far and float(scales.scale.min()) > _TINY_UNIT:
        return data
    factor = torch.exp2(-torch.log2(scales.scale).floor())
    if far:
        train = replace(data.train, y=((y - scales.shift) * factor).float())
        near = Affine(torch.zeros_like(scales.shift).float(), (scales.scale * factor).float())
        return replace(data, train=train, y_scale=near)
    train = replace(data.train, y=y * factor)
    return replace(data, train=train, y_scale=Affine(scales.shift * factor, scales.scale * factor))


def files_of(entry: Entry) -> list[Path]:
    """Return the files whose content decides a teacher's answers."""
    return list(getattr(entry, "files", []))


# scikit-learn


@ENTRIES.register("random_forest")
@dataclass(frozen=True)
class RandomForest:
    """A random forest (Breiman 2001), whose trees are members, so its uncertainty has two parts.

    Args:
        trees: Number of trees.
        leaf: Fewest training examples in a leaf.
        columns: Part of the columns that a split chooses from, in (0, 1]; scikit-learn's default
            where None (the square root of their number for classes, all for real targets).
    """

    trees: int = 200
    leaf: int = 2
    columns: float | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        check_at_least(1, trees=self.trees, leaf=self.leaf)
        if self.columns is not None and not 0 < self.columns <= 1:
            raise ValueError(f"columns is {self.columns}; it must be above 0, and at most 1")

    def fit(self, data: Data, seed: int) -> Teacher:
        """Fit it on the training split."""
        from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

        classes = data.task.kind == "classification"
        kind = RandomForestClassifier if classes else RandomForestRegressor
        usual = "sqrt" if classes else 1.0
        forest = kind(
            n_estimators=self.trees,
            min_samples_leaf=self.leaf,
            max_features=usual if self.columns is None else self.columns,
            random_state=_state(seed),
        )
        return _fitted(forest, data)


@ENTRIES.register("gradient_boosting")
@dataclass(frozen=True)
class GradientBoosting:
    """Boosted trees on binned columns (Friedman 2001; Ke et al. 2017).

    Each real target has one variance, that of the errors in cross-validation.

    Args:
        rounds: Number of trees, for each class or target.
        rate: Shrinkage of each tree.
        leaves: Most leaves of a tree.
        folds: Folds of the cross-validation.
    """

    rounds: int = 200
    rate: float = 0.1
    leaves: int = 31
    folds: int = 5

    def __post_init__(self) -> None:
        """Check the settings."""
        check_at_least(1, rounds=self.rounds)
        check_at_least(2, leaves=self.leaves, folds=self.folds)
        if self.rate <= 0:
            raise ValueError(f"rate is {self.rate}; it must be above 0")

    def fit(self, data: Data, seed: int) -> Teacher:
        """Fit it on the training split."""
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
        from sklearn.multioutput import MultiOutputRegressor

        classes = data.task.kind == "classification"
        kind = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor

        def make() -> Any:
            booster = kind(
                max_iter=self.rounds,
                learning_rate=self.rate,
                max_leaf_nodes=self.leaves,
                # Every fit takes all its rounds, whatever the number of examples.
                early_stopping=False,
                random_state=_state(seed),
            )
            return booster if classes or data.task.size == 1 else MultiOutputRegressor(booster)

        return _fitted(make(), data, make, self.folds, seed)


@ENTRIES.register("gaussian_process")
@dataclass(frozen=True)
class GaussianProcess:
    """A Gaussian process on standardised columns (Rasmussen and Williams 2006).

    The kernel is a squared exponential with a length for each column, and noise; maximum likelihood
    finds both. The time to fit grows as the cube of the number of examples.

    Args:
        rows: Most examples to fit on; the seed chooses them where there are more.
        restarts: Further starts of the search for the kernel.
    """

    rows: int = 1000
    restarts: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        check_at_least(2, rows=self.rows)
        check_at_least(0, restarts=self.restarts)

    def fit(self, data: Data, seed: int) -> Teacher:
        """Fit it on the training split."""
        from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        x, y = training_table(moderate(data))
        width = x.shape[1]
        # In standardised columns distances grow as the square root of their number.
        kernel = ConstantKernel(1.0, (1e-3, 1e4)) * RBF(np.full(width, width**0.5), (1e-2, 1e4))
        chosen = {"n_restarts_optimizer": self.restarts, "random_state": _state(seed)}
        if data.task.kind == "classification":
            # It solves a problem for each class, and searches each for one length only.
            shared = ConstantKernel(1.0, (1e-3, 1e4)) * RBF(width**0.5, (1e-2, 1e4))
            process: Any = GaussianProcessClassifier(
                shared, n_restarts_optimizer=self.restarts, random_state=_state(seed)
            )
        else:
            noisy = kernel + WhiteKernel(0.1, (1e-6, 1e1))
            process = GaussianProcessRegressor(noisy, normalize_y=True, **chosen)
        if len(x) > self.rows:
            [rows] = split_indices(len(x), [self.rows], _state(seed))
            x, y = x[rows], y[rows]
        return _fitted(make_pipeline(StandardScaler(), process), data, table=(x, y))


@ENTRIES.register("sklearn")
@dataclass(frozen=True)
class Estimator:
    """A scikit-learn estimator of your own, fitted here.

    Args:
        estimator: ``package.module:function``, which is called without arguments and returns an
            unfitted estimator. A ``random_state`` of None is set from the run's seed.
        folds: Folds of the cross-validation that finds the variance of a regressor without one.
    """

    estimator: str
    folds: int = 5

    def __post_init__(self) -> None:
        """Check the settings."""
        check_at_least(2, folds=self.folds)
        _check_path("estimator", self.estimator)

    def fit(self, data: Data, seed: int) -> Teacher:
        """Fit it on the training split."""
        factory, _ = _FACTORIES.find(self.estimator, key="estimator")

        def make() -> Any:
            made = factory()
            if not hasattr(made, "fit") or not hasattr(made, "get_params"):
                kind = type(made).__name__
                raise ValueError(
                    f"estimator is {self.estimator!r}, which gives a {kind}; "
                    "it must give a scikit-learn estimator"
                )
            open_states = {
                name: _state(seed)
                for name, value in made.get_params().items()
                if value is None and name.rpartition("__")[2] == "random_state"
            }
            return made.set_params(**open_states)

        return _fitted(make(), data, make, self.folds, seed)


@ENTRIES.register("mixed")
@dataclass(frozen=True)
class Mixed:
    """Several estimators as one, each fitted here: an ensemble of different kinds.

    Args:
        of: The estimators, as ``estimator`` names one: ``[gradient_boosting, random_forest]``. One
            that stands there twice is fitted from two seeds.
    """

    of: list[Any]

    def __post_init__(self) -> None:
        """Check the settings."""
        if not self.of:
            raise ValueError("of is an empty list; it needs at least one estimator")
        self._entries()

    def _entries(self) -> list[Entry]:
        return [ENTRIES.build(spec, key=f"of.{place}") for place, spec in enumerate(self.of)]

    @property
    def files(self) -> list[Path]:
        """The files that its members are in."""
        return [file for entry in self._entries() for file in files_of(entry)]

    def fit(self, data: Data, seed: int) -> Teacher:
        """Fit them on the training split."""
        made = [entry.fit(data, seed + place) for place, entry in enumerate(self._entries())]
        return EnsembleTeacher(made)


def _fitted(
    estimator: Any,
    data: Data,
    make: Callable[[], Any] | None = None,
    folds: int = 5,
    seed: int = 0,
    table: tuple[Array, Array] | None = None,
) -> Teacher:
    """Fit an estimator on the training split, and find the deviation of one that gives none."""
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    data = moderate(data)
    x, y = training_table(data) if table is None else table
    # On one thread sums have one order, so that fitting again gives the same estimator.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        # A length at its bound only says that a column does not matter.
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator.fit(x, y)
        std = None
        if data.task.kind == "regression" and not has_own_spread(estimator):
            assert make is not None
            std = _cross_validated_std(make, x, y, folds, seed, data)
    return EstimatorTeacher(estimator, data, std=std)


def _cross_validated_std(
    make: Callable[[], Any], x: Array, y: Array, folds: int, seed: int, data: Data
) -> Array:
    """Return the deviation of the errors on left-out examples, for each target, [D].

    Of transformed targets it is that of the transforms' errors.
    """
    count = len(x)
    if count < folds:
        raise ValueError(f"folds is {folds}, but there are {count} training examples")
    order = split_indices(count, [count], _state(seed))[0]
    squares = []
    for part in np.array_split(order, folds):
        rest = np.setdiff1d(order, part)
        said = make().fit(x[rest], y[rest]).predict(x[part])
        error = said - y[part]
        if data.y_transform is not None:
            pair = [torch.from_numpy(one.reshape(len(part), -1)) for one in (said, y[part])]
            error = transformed_errors(data, *pair).numpy()
        squares.append(np.square(error.reshape(len(part), -1)))
    least = LEAST_STD * y.reshape(count, -1).std(0)
    if data.y_transform is not None and data.y_scale is not None:
        least = LEAST_STD * data.y_scale.scale.cpu().numpy()
    found: Array = np.maximum(np.concatenate(squares).mean(0) ** 0.5, least)
    return found


# Functions and files


@ENTRIES.register("function")
@dataclass(frozen=True)
class Function:
    """A Python function of your own on NumPy arrays; see :class:`FunctionTeacher`.

    Args:
        function: ``package.module:function``, called with raw inputs.
        output: How to read its answer: ``probs`` or ``logits`` for classes; ``mean_std``,
            ``mean_var``, ``mean_log_var`` or ``mean`` for real targets. The first of these where
            None.
        std: The deviation for ``mean``, in the target's own units, or those of its transform.
        classes: Names of its classes in its own order; that of the data where None.
    """

    function: str
    output: Output | None = None
    std: float | None = None
    classes: list[Any] | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        _check_path("function", self.function)

    def fit(self, data: Data, seed: int) -> Teacher:
        """Find the function."""
        function, _ = _FUNCTIONS.find(self.function, key="function")
        found = FunctionTeacher(function, data, output=self.output, std=self.std)
        return reordered(found, self.classes, data)


@ENTRIES.register("onnx")
@dataclass(frozen=True)
class Onnx:
    """An ONNX file; see :class:`~extracurricular.teachers.onnx.OnnxTeacher`.

    Args:
        path: The file.
        output: As for ``function``.
        std: The deviation for ``mean``, in the target's own units, or those of its transform.
        inputs: The file's input for each tensor of the data, where their names differ.
        outputs: The file's outputs that are the answer; where empty, all that hold real numbers.
        raw: Whether the file takes raw values and answers in the target's own units; otherwise it
            takes and gives standardised values, as networks trained here do.
        shift, scale: The file takes ``(raw - shift) / scale``: one number, or one for each channel.
        input: How it takes an image, where the file leaves that open: ``{size: …, layout: …}``.
        classes: Names of its classes in its own order; that of the data where None.
    """

    path: str
    output: Output | None = None
    std: float | None = None
    inputs: dict[str, str] | None = None
    outputs: tuple[str, ...] = ()
    raw: bool = True
    shift: float | tuple[float, ...] = (0.0,)
    scale: float | tuple[float, ...] = (1.0,)
    input: dict[str, Any] | None = None
    classes: list[Any] | None = None

    def fit(self, data: Data, seed: int) -> Teacher:
        """Open the file."""
        settings = {k: v for k, v in vars(self).items() if k not in ("path", "classes")}
        return reordered(OnnxTeacher(self.path, data, **settings), self.classes, data)

    @property
    def files(self) -> list[Path]:
        """The file, and those that hold its tensors."""
        from extracurricular.teachers.onnx_format import read_layout

        path = Path(self.path)
        return [path, *read_layout(path).files]


def _state(seed: int) -> int:
    """Return a seed in scikit-learn's range, [0, 2^32)."""
    return seed % 2**32


def _check_path(name: str, value: str) -> None:
    if ":" not in value:
        raise RecipeError(name, f"is {value!r}; it must be package.module:function")
