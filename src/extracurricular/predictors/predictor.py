"""A trained model as a function: raw arrays in, distributions out.

The arrays are in the units that the model's data had: bytes of images stay bytes, columns of tables
are not standardised. Answers are in the target's own units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from extracurricular.data.base import Data
from extracurricular.distributions import (
    Bernoulli,
    Categorical,
    Conformal,
    Distribution,
    Gaussian,
    Task,
    concatenate,
    gathered,
)
from extracurricular.errors import DataError, StorageError
from extracurricular.inputs import Inputs, is_leaf, leaves
from extracurricular.predictors.disagreement import disagreement
from extracurricular.predictors.forms import Array, read_input
from extracurricular.predictors.forms import Form as Form
from extracurricular.predictors.raw_rows import Intake, from_raw, intake_of


@dataclass(frozen=True, repr=False)
class Prediction:
    """Distributions for N examples, as NumPy arrays.

    Args:
        distribution: The distributions as tensors on the CPU, as the rest of the package has them.
        classes: Names of the classes or labels, if known.
        conformal: The intervals or sets that the model was calibrated to; None where it was not.
    """

    distribution: Distribution
    classes: tuple[str, ...] = ()
    conformal: Conformal | None = None

    def __len__(self) -> int:
        return len(self.distribution)

    def __repr__(self) -> str:
        kind = type(self.distribution).__name__
        return f"Prediction({kind}, {' × '.join(map(str, self.mean.shape))})"

    def __getitem__(self, index: slice) -> Prediction:
        return Prediction(self.distribution[index], self.classes, self.conformal)

    @property
    def probs(self) -> Array:
        """Probabilities of the classes [N, C], or of each label [N, L]; real targets have none."""
        return self._discrete("probs", "mean and std").probs.numpy()

    @property
    def labels(self) -> Array:
        """Indices of the most probable classes, int64, [N]; real targets have none.

        Several labels are 1 where their probability is at least 0.5, and else 0, [N, L].
        """
        found = self._discrete("labels", "mean")
        if isinstance(found, Bernoulli):
            return (found.probs >= 0.5).long().numpy()
        return found.probs.argmax(-1).numpy()

    @property
    def names(self) -> list[Any]:
        """Names of the most probable classes, a list of N; their indices if names are unknown.

        Of several labels, a tuple of the names of those that are predicted.
        """
        names = self.classes or tuple(map(str, range(self.probs.shape[1])))
        if isinstance(self.distribution, Bernoulli):
            return [tuple(names[k] for k in np.flatnonzero(row)) for row in self.labels]
        return [names[k] for k in self.labels]

    @property
    def mean(self) -> Array:
        """Means of real targets in their own units, [N, D]; else the probabilities."""
        return self.distribution.mean.numpy()

    @property
    def std(self) -> Array:
        """Standard deviations of real targets in their own units, [N, D]; others have none."""
        return self._gaussian("std").std.numpy()

    @property
    def entropy(self) -> Array:
        """Entropy in nats, [N]: Shannon's, summed over labels; differential for real targets."""
        return self.distribution.entropy().numpy()

    def interval(self, mass: float | None = None) -> tuple[Array, Array]:
        """Return the bounds [N, D] of an interval that holds ``mass`` of each target.

        A model with conformal intervals gives those, which have the coverage that it was calibrated
        to; any other gives the central interval of the distribution.

        Args:
            mass: The part of each target, between 0 and 1: the calibrated coverage, or else 0.9,
                where None.

        Raises:
            ValueError: ``mass`` is not between 0 and 1, or not the coverage of the intervals.
        """
        found = self._gaussian("interval")
        if self.conformal is not None:
            self._stated(mass, "distribution.interval(mass)")
            low, high = self.conformal.bounds(found)
            return low.numpy(), high.numpy()
        mass = 0.9 if mass is None else mass
        if not 0 < mass < 1:
            raise ValueError(f"mass is {mass}; it must be between 0 and 1")
        low, high = found.interval(mass)
        return low.numpy(), high.numpy()

    def in_set(self, coverage: float | None = None) -> Array:
        """Return whether each class is in the set of an example, bool, [N, C].

        Args:
            coverage: The coverage that the model was calibrated to, or None.

        Raises:
            ValueError: It is another coverage.
        """
        if self.conformal is None or not isinstance(self.distribution, Categorical):
            raise AttributeError(
                "a prediction has sets where its model was calibrated to them "
                "(calibrate: conformal), and gives classes"
            )
        self._stated(coverage, "probs")
        return self.conformal.contains(self.distribution).numpy()

    def sets(self, coverage: float | None = None) -> list[tuple[Any, ...]]:
        """Return the names of the classes in the set of each example; see :meth:`in_set`.

        A set may be empty: then no class is likely enough.
        """
        inside = self.in_set(coverage)
        names = self.classes or tuple(map(str, range(inside.shape[1])))
        return [tuple(names[k] for k in np.flatnonzero(row)) for row in inside]

    def _stated(self, asked: float | None, instead: str) -> None:
        assert self.conformal is not None
        stated = self.conformal.coverage
        if asked is not None and abs(asked - stated) > 1e-9:
            raise ValueError(
                f"the model was calibrated to a coverage of {stated:g}, and {asked:g} is asked "
                f"for; calibrate: {{conformal: {{coverage: {asked:g}}}}} gives that, and {instead} "
                "is without calibrated sets or intervals"
            )

    def _discrete(self, what: str, instead: str) -> Categorical | Bernoulli:
        if isinstance(self.distribution, Categorical | Bernoulli):
            return self.distribution
        raise AttributeError(f"a prediction of real targets has no {what}; it has {instead}")

    def _gaussian(self, what: str) -> Gaussian:
        if isinstance(self.distribution, Gaussian):
            return self.distribution
        noun = "labels" if isinstance(self.distribution, Bernoulli) else "classes"
        raise AttributeError(f"a prediction of {noun} has no {what}; it has probs and entropy")


class Keeper(Protocol):
    """Anything that can write a trained model to files."""

    def save(self, folder: str | Path, *, replace: bool = False) -> list[Path]:
        """Write the model to a folder, and return the files."""
        ...

    def export(self, out: str | Path, **options: Any) -> Any:
        """Write one verified file."""
        ...


@dataclass(frozen=True, eq=False)
class Predictor:
    """A trained model that is called with raw arrays.

    Args:
        name: Name of the model, for a person.
        task: What is predicted.
        inputs: Form of each input by name: ``x`` if there is one, ``x0``, ``x1``, … for a tuple,
            else the names that the data have.
        ask: Maps raw tensors [B, ...] by the names of ``inputs`` to the distribution, float32, on
            the CPU, in the target's own units.
        classes: Names of the classes, if known.
        outputs: Names of the real targets, or of several labels, if known.
        input_columns: Names of the columns of the one input, in order, if known.
        reading: How a raw example becomes an input; see :class:`~extracurricular.data.Data`.
        members: Maps raw tensors to the answers of an ensemble's members; None for one model.
        angular: Whether targets are (pitch, yaw) in radians.
        parameters: Number of parameters; None if unknown.
        batch_size: Number of examples that ``ask`` gets at once.
        keeper: Writes the model to files; None where it came from a file itself.
        conformal: The intervals or sets that it was calibrated to; None where it was not.
        choice: How it was chosen among candidates: ``{"chosen": NAME, "steps": those of all
            candidates, "held_out_kl": {STEP: {NAME: nats}}}``; None where it was not.

    A predictor never changes. Several threads may call it; they are answered one at a time.
    """

    name: str
    task: Task
    inputs: Mapping[str, Form]
    ask: Callable[[dict[str, Tensor]], Distribution] = field(repr=False)
    classes: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    angular: bool = False
    parameters: int | None = None
    batch_size: int = 1024
    keeper: Keeper | None = field(default=None, repr=False)
    choice: Mapping[str, Any] | None = field(default=None, repr=False)
    input_columns: tuple[str, ...] = ()
    members: Callable[[dict[str, Tensor]], list[Distribution]] | None = field(
        default=None, repr=False
    )
    reading: Mapping[str, Any] = field(default_factory=dict, repr=False)
    conformal: Conformal | None = None
    _lock: Any = field(default_factory=Lock, repr=False)

    @cached_property
    def intake(self) -> Intake:
        """How the input is made of raw rows or pictures; of several inputs this is not known."""
        if len(self.inputs) != 1:
            return Intake()
        [form] = self.inputs.values()
        return intake_of(self.reading, self.input_columns, form.shape, form.dtype)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that a raw row needs, in order, if known."""
        fields = self.intake.fields
        return () if fields is None else fields.names

    def __call__(self, x: Any, batch_size: int | None = None) -> Prediction:
        """Predict.

        Args:
            x: NumPy arrays or tensors [N, ...], raw; one example [...] is a batch of one. Several
                inputs are a dict, or a tuple if the data had one. Where the model knows its
                :attr:`columns`, rows: a data frame of pandas or polars, a dict of columns, one row
                as a dict, a list of these, or the path of a table. Images may be PIL images, names
                of files, or the path of a folder or a zip.
            batch_size: Number of examples at once; the predictor's own if None.

        Raises:
            DataError: The model does not take ``x``; the sentence says what it takes.
        """
        return Prediction(self.distribution(x, batch_size), self.names, self.conformal)

    predict = __call__

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes, or of several labels of 0 and 1; none of real targets."""
        return self.outputs if self.task.kind == "multilabel" else self.classes

    def distribution(self, x: Any, batch_size: int | None = None) -> Distribution:
        """Predict, and return the distribution as tensors on the CPU; arguments as for a call."""
        return self.answer(self.read(x), batch_size)

    def answer(self, x: dict[str, Tensor], batch_size: int | None = None) -> Distribution:
        """Predict raw tensors [N, ...] by name, which are not checked, in batches."""
        return concatenate(list(self._asked(self.ask, x, batch_size)))

    def filed(self, x: Any) -> Distribution:
        """Predict as :meth:`distribution` does; large answers over classes lie in a file."""
        parts = self.read(x)
        return gathered(self._asked(self.ask, parts, None), len(next(iter(parts.values()))))

    def epistemic(self, x: dict[str, Tensor], batch_size: int | None = None) -> Array | None:
        """Return the part of the uncertainty that is disagreement; None where nothing knows any.

        Returns:
            The mutual information in nats, summed over labels, [N]; for real targets the standard
            deviation of the members' means, in the target's own units, [N, D].
        """
        asked = partial(self._asked, self.members or self.ask)
        return disagreement(asked, x, batch_size, self.task)

    def _asked(
        self, ask: Callable[[Any], Any], x: dict[str, Tensor], size: int | None
    ) -> Iterator[Any]:
        """Return the answers to raw tensors, batch by batch."""
        size = self.batch_size if size is None else size
        if size < 1:
            raise DataError(f"batch_size is {size}; it must be at least 1")
        for start in range(0, len(next(iter(x.values()))), size):
            batch = {name: leaf[start : start + size] for name, leaf in x.items()}
            with self._lock, torch.no_grad():
                said = ask(batch)
            yield said

    def score(self, x: Any, y: Any) -> float:
        """Return how good the predictions are, as scikit-learn's ``score`` does; higher is better.

        Args:
            x: Raw inputs of N examples, as for a call.
            y: Class indices [N], labels [N, L], or real targets [N, D] (or [N] for one target).

        Returns:
            The accuracy, in [0, 1]; for several labels the share of examples whose labels are all
            right; for real targets R², the mean over targets, at most 1.
        """
        prediction = self(x)
        truth = np.asarray(y)
        if self.task.kind != "regression":
            labels = prediction.labels
            if truth.shape != labels.shape:
                wanted = len(prediction) if labels.ndim == 1 else labels.shape
                raise DataError(f"y has the shape {truth.shape}; it must be {wanted} labels")
            return float((labels == truth).reshape(len(labels), -1).all(1).mean())
        truth = truth.reshape(len(truth), -1)
        if truth.shape != prediction.mean.shape:
            raise DataError(f"y has the shape {truth.shape}; it must be {prediction.mean.shape}")
        left = np.square(truth - prediction.mean).sum(0)
        whole = np.square(truth - truth.mean(0)).sum(0)
        return float((1 - left / whole).mean())

    def save(self, folder: str | Path, *, replace: bool = False) -> list[Path]:
        """Write the model to a folder that :func:`extracurricular.load` reads.

        Args:
            folder: The folder, made where it is missing. It is empty, or holds a saved student.
            replace: Whether another student in it may be overwritten.

        Returns:
            The files that were written.

        Raises:
            StorageError: It came from a file itself; or the folder holds something else, or cannot
                be written to.
        """
        return self._kept("saved").save(folder, replace=replace)

    def export(self, out: str | Path, **options: Any) -> Any:
        """Write one verified file from raw values to a distribution, as ``xcl export`` does.

        Args:
            out: The file, such as ``student.onnx``.
            options: As for :func:`extracurricular.export_module`.

        Raises:
            XclError: It came from a file itself, or the verification failed.
        """
        return self._kept("exported").export(out, **options)

    def _kept(self, what: str) -> Keeper:
        if self.keeper is None:
            raise StorageError(
                f"{self.name} cannot be {what}: it was loaded, and its files are there already; "
                "xcl.export_run exports a student of a run"
            )
        return self.keeper

    def read(self, x: Any) -> dict[str, Tensor]:
        """Check ``x``, and return it as tensors [N, ...] of the model's types, by input.

        Raises:
            DataError: The model does not take ``x``.
        """
        given = dict(_parts(from_raw(self.intake, x), list(self.inputs)))
        read = {name: read_input(given[name], form, name) for name, form in self.inputs.items()}
        counts = {name: len(leaf) for name, leaf in read.items()}
        if len(set(counts.values())) > 1:
            raise DataError(f"the inputs have different numbers of examples: {counts}")
        return read


def input_names(x: Inputs) -> list[str]:
    """Return the inputs' names: ``x`` for one, ``x0``, ``x1``, … for a tuple, else the dict's."""
    if is_leaf(x):
        return ["x"]
    return list(x) if isinstance(x, dict) else [f"x{k}" for k in range(len(x))]


def named_inputs(x: Inputs) -> dict[str, Tensor]:
    """Return the tensors by the names of :func:`input_names`."""
    return dict(zip(input_names(x), leaves(x).values(), strict=True))


def input_forms(data: Data) -> dict[str, Form]:
    """Return the form of each input of a data set."""
    return {
        name: Form(tuple(leaf.shape[1:]), str(leaf.dtype).removeprefix("torch."))
        for name, leaf in named_inputs(data.train.x).items()
    }


def _parts(x: Any, names: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield each input with its name."""
    wanted = ", ".join(names)
    if isinstance(x, Mapping):
        if set(x) != set(names):
            found = ", ".join(map(str, x)) or "nothing"
            raise DataError(f"x has the inputs {found}; the model takes {wanted}")
        yield from x.items()
    elif len(names) == 1:
        yield names[0], x
    elif isinstance(x, tuple) and names == [f"x{k}" for k in range(len(x))]:
        yield from zip(names, x, strict=True)
    else:
        kind = f"tuple of {len(x)}" if isinstance(x, tuple) else type(x).__name__
        raise DataError(f"x is a {kind}; the model takes a dict of {wanted}")
