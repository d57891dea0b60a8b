"""A teacher whose answers are in a file, or in arrays: one that can no longer be asked.

Answers are known by the ids of examples: names of files, values of a table's column, or numbers of
rows (:attr:`extracurricular.data.base.Data.ids`). So they serve draws of stored examples, and of
nothing else. A batch has the ids of draws, not of examples; :meth:`StoredTeacher.on_draws` binds
the answers to a sampler, which knows the example of each draw, and the lookup stays on the device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from torch import Tensor

from extracurricular.data.base import Data
from extracurricular.data.images.stream import streamed
from extracurricular.distributions import Categorical, Distribution
from extracurricular.errors import DataError, RecipeError, shorten
from extracurricular.inputs import Batch, Capturable
from extracurricular.samplers.base import Sampler, looked_up, sources
from extracurricular.samplers.pool import Pool
from extracurricular.samplers.stored import Empirical
from extracurricular.samplers.weak import seen_by_teacher
from extracurricular.teachers.raw import Array, gaussian, standardised

Missing = Literal["error", "drop"]

# Probabilities are rounded when they are written, and their sum with them.
_OFF = 1e-3


@dataclass(frozen=True)
class Answers:
    """Answers of a teacher, as arrays.

    Exactly one of ``probabilities``, ``logits`` and ``mean`` is given. Real targets are in their
    own units.

    Args:
        ids: The id of each row: names of files within the data's folder, or whatever else the
            data set's ``ids`` have. With None, row n is the answer on row n of the data's source.
        probabilities: Probabilities of the classes, [N, C], which sum to 1.
        logits: Their logarithms up to a constant, [N, C].
        mean: Means of real targets, [N] or [N, D].
        deviation: Their standard deviations, [N] or [N, D], or one number.
        classes: The class of each column; in the order of the data's classes where None.
        missing: What training examples without an answer do: ``error`` refuses them, ``drop``
            leaves them out of all draws of students that learn from this teacher.
        where: The place of the answers, for errors.
        place: Function from row n to its name in errors.
        notes: Sentences about how they were read.

    Raises:
        ValueError: The arrays do not go together, or hold values that are no answers.
    """

    ids: Sequence[Any] | Array | None = None
    probabilities: Any = None
    logits: Any = None
    mean: Any = None
    deviation: Any = None
    classes: Sequence[str] | None = None
    missing: Missing = "error"
    where: str = field(default="the answers", repr=False)
    place: Callable[[int], str] = field(default=lambda row: f"row {row}", repr=False)
    notes: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        """Check the arrays."""
        given = [n for n in ("probabilities", "logits", "mean") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(
                f"{self.where}: {' and '.join(given) if given else 'nothing'} is given; give "
                "probabilities or logits for classes, or mean and deviation for real targets"
            )
        if given == ["mean"] and self.deviation is None:
            raise ValueError(
                f"{self.where}: means alone do not say how sure the teacher is; give deviation, "
                "in the target's units"
            )
        if given != ["mean"] and self.deviation is not None:
            raise ValueError(f"{self.where}: deviation goes with mean, not with {given[0]}")
        if self.missing not in ("error", "drop"):
            raise ValueError(f"missing is {self.missing!r}; it must be error or drop")
        for name in (*given, *(["deviation"] if self.deviation is not None else [])):
            self._check(name, self.array(name))
        if self.ids is not None and len(self.ids) != len(self):
            raise ValueError(f"{self.where}: {len(self.ids)} ids for {len(self)} answers")

    def __len__(self) -> int:
        first = next(n for n in ("probabilities", "logits", "mean") if getattr(self, n) is not None)
        return len(self.array(first))

    def array(self, name: str) -> Array:
        """Return one of the arrays as float64, [N, K]; a number is repeated."""
        try:
            found = np.asarray(getattr(self, name), dtype=np.float64)
        except (TypeError, ValueError):
            kind = type(getattr(self, name)).__name__
            raise ValueError(f"{self.where}: {name} must be numbers, not a {kind}") from None
        if name == "deviation" and found.ndim == 0:
            return np.full(self.array("mean").shape, float(found))
        found = found[:, None] if found.ndim == 1 else found
        if found.ndim != 2 or (name == "deviation" and found.shape != self.array("mean").shape):
            raise ValueError(f"{self.where}: {name} has shape {found.shape}; it must be [N, K]")
        return found

    def _check(self, name: str, found: Array) -> None:
        """Refuse values that are no answers, with their row."""
        bad = ~np.isfinite(found)
        if name == "probabilities":
            bad |= found < 0
        if name == "deviation":
            bad |= found <= 0
        if bad.any():
            row, column = (int(k) for k in np.argwhere(bad)[0])
            least = {"probabilities": " and at least 0", "deviation": " and above 0"}.get(name, "")
            raise ValueError(
                f"{self.row(row)}: {name} has {found[row, column]:g}; every value must be "
                f"finite{least}"
            )
        if name == "probabilities":
            sums = found.sum(1)
            off = np.abs(sums - 1) > _OFF
            if off.any():
                row = int(np.flatnonzero(off)[0])
                raise ValueError(
                    f"{self.row(row)}: the probabilities sum to {sums[row]:.6g}; they must sum to "
                    f"1 within {_OFF:g} (logits have a setting of their own, `logits`)"
                )

    def row(self, row: int) -> str:
        """Return a row's name in errors."""
        known = "" if self.ids is None else f" ({shorten(str(self.ids[row]))})"
        return f"{self.where}, {self.place(row)}{known}"

    def distribution(self, data: Data) -> Distribution:
        """Return all answers, standardised, in the order of the data's classes.

        Raises:
            ValueError: They are of another task.
        """
        check_task(self.where, data)
        task = data.task
        kind = "regression" if self.mean is not None else "classification"
        name = "mean" if self.mean is not None else "logits" if self.logits is not None else None
        found = self.array(name or "probabilities")
        if kind != task.kind or found.shape[1] != task.size:
            raise ValueError(
                f"{self.where}: {found.shape[1]} {_nouns(kind, found.shape[1])}, but data "
                f"{data.name!r} have {task.size} {_nouns(task.kind, task.size)}{_named(data)}"
            )
        if kind == "regression":
            var = np.square(self.array("deviation"))
            said = standardised(gaussian(found, var), data)
            return type(said).from_output(said.parameters.float())
        found = found[:, _order(self, data)]
        if name == "logits":
            return Categorical(torch.from_numpy(found).float())
        return Categorical.from_probs(torch.from_numpy(found / found.sum(1, keepdims=True)).float())

    def fit(self, data: Data, seed: int) -> StoredTeacher:
        """Find the answers on the examples of a data set.

        Raises:
            ValueError: They do not go with the data.
        """
        return StoredTeacher(self, data)


def check_task(where: str, data: Data) -> None:
    """Refuse data for which answers cannot be stored.

    Raises:
        ValueError: They have several labels of 0 and 1.
    """
    if data.task.kind == "multilabel":
        raise ValueError(
            f"{where}: stored answers are for classes and real targets, and data {data.name!r} "
            f"have {data.task.size} labels of 0 and 1"
        )


def _nouns(kind: str, count: int) -> str:
    noun = "class" if kind == "classification" else "real target"
    return noun if count == 1 else f"{noun}{'es' if noun == 'class' else 's'}"


def _named(data: Data) -> str:
    return f" ({shorten(', '.join(data.classes))})" if data.classes else ""


def _order(answers: Answers, data: Data) -> list[int]:
    """Return the column of each class."""
    if answers.classes is None:
        return list(range(data.task.size))
    own = [str(name) for name in answers.classes]
    known = list(data.classes or map(str, range(data.task.size)))
    if sorted(own) != sorted(known):
        odd = [name for name in own if name not in known] or [n for n in known if n not in own]
        raise ValueError(
            f"{answers.where}: its classes are {shorten(', '.join(own))}, and those of data "
            f"{data.name!r} are {shorten(', '.join(known))}; {odd[0]!r} is in one of them alone"
        )
    return [own.index(name) for name in known]


class StoredTeacher(Capturable):
    """Stored answers on the examples of one data set.

    It can be asked only where it is known which examples are meant: bound to the draws of a
    sampler, or to a split.

    Args:
        answers: The answers.
        data: The data set; answers are kept on its device.

    Raises:
        ValueError: The answers do not go with the data, or training examples have none.
    """

    parameters = None

    def __init__(self, answers: Answers, data: Data) -> None:
        self.answers, self.data, self.task = answers, data, data.task
        said = answers.distribution(data)
        self.kind: type[Distribution] = type(said)
        self._said = said.parameters
        self._rows = _Rows(answers, data, self._said)
        self.notes = answers.notes
        self.answered: Tensor | None = None
        rows = self._rows.of_split("train")
        there = rows >= 0
        if not bool(there.all()):
            lost = self._rows.lost("train")
            if answers.missing == "error" or not bool(there.any()):
                way = "`missing: drop` leaves them out" if bool(there.any()) else "no one has"
                raise DataError(f"{lost}; {way}")
            self.answered = there.nonzero().squeeze(1)
            self.notes = (*self.notes, f"{lost}; students that learn from it never draw them.")
        # Examples without an answer are never drawn; if one is, NaN ends the training.
        self._train = self._take(rows.clamp_min(0)).masked_fill(
            ~there.to(data.device)[:, None], torch.nan
        )

    def _take(self, rows: Tensor) -> Tensor:
        return self._said[rows].to(self.data.device)

    def __call__(self, batch: Batch) -> NoReturn:
        """Refuse to answer, as a batch does not say which stored examples it has."""
        raise RecipeError(
            "teacher", f"has stored answers ({self.answers.where}), so new examples have no "
            "answer; use a teacher that can be asked"
        )  # fmt: skip

    def on_draws(self, sampler: Sampler) -> _Bound:
        """Return the teacher of a sampler's draws.

        Raises:
            RecipeError: The sampler makes examples for which there are no answers.
            DataError: An example of a pool has none.
        """
        # It answers about the draws that it sees, whatever the student sees of them.
        sampler = seen_by_teacher(sampler)
        try:
            tables = {id(one): self._table(one) for one in sources(sampler)}
        except ValueError as error:
            raise RecipeError(
                "sampler", f"{str(error)!r} needs answers on new examples, but those of the "
                "teacher are stored; empirical and pool, alone or in a blend or a share, draw "
                "examples that it has answered"
            ) from None  # fmt: skip
        return _Bound(self.kind, lambda ids: looked_up(sampler, ids, lambda one: tables[id(one)]))

    def on_split(self, part: str) -> _Bound:
        """Return the teacher of a split's examples, for batches whose ids are their numbers.

        Raises:
            DataError: An example has no answer.
        """
        if part == "train" and self.answered is not None:
            table = self._train
        else:
            table = self._take(self._rows.all_of(part))
        return _Bound(self.kind, lambda ids: table.index_select(0, ids))

    def _table(self, source: Sampler) -> Tensor:
        """Return the answers on all examples of a source of draws."""
        if isinstance(source, Empirical) and len(source.data.train) == len(self.data.train):
            images = streamed(source.data.train.x)
            if images is not None and images.files.skip:
                raise RecipeError(
                    "sampler", "puts other images in the place of damaged ones (damaged: skip), "
                    "for which no answer is found; set damaged: error, or stream: false"
                )  # fmt: skip
            return self._train
        if isinstance(source, Pool) and source.pool is source.data.unlabelled:
            return self._take(self._rows.all_of("unlabelled"))
        if isinstance(source, Pool) and source.names:
            return self._take(self._rows.of_files(source.names))
        raise RecipeError(
            "sampler", "draws from a pool whose examples have no names, so that their answers "
            "cannot be found; a folder of images has some, and so have rows without a target"
        )  # fmt: skip

    def identity(self) -> str:
        """Return a hash of the answers on the training examples, which identifies the teacher."""
        parts = (self._train,) if self.answered is None else (self._train, self.answered)
        digest = hashlib.sha256(self.kind.__name__.encode())
        for part in parts:
            digest.update(part.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:32]


class _Bound(Capturable):
    """Answers that are found by the ids of a batch alone."""

    def __init__(self, kind: type[Distribution], rows: Callable[[Tensor], Tensor]) -> None:
        self.kind, self.rows = kind, rows

    def __call__(self, batch: Batch) -> Distribution:
        """Return the answers on the examples of a batch."""
        return self.kind.from_output(self.rows(batch.ids))


class _Rows:
    """Finds the row of the answers for each example; -1 where there is none.

    Raises:
        ValueError: Ids are of another kind than the data's, or two rows of one id differ.
    """

    def __init__(self, answers: Answers, data: Data, said: Tensor) -> None:
        self.answers, self.data = answers, data
        self.known = _by_id(answers, data, said)

    def ids(self, part: str) -> Sequence[Any]:
        """Return the ids of a split.

        Raises:
            DataError: They are not known.
        """
        ids = self.data.ids.get(part)
        if ids is None:
            raise DataError(
                f"{self.answers.where}: the {part} examples of data {self.data.name!r} have no "
                "ids (names of files, or numbers of rows) by which their answers could be found"
            )
        return ids

    def of_split(self, part: str) -> Tensor:
        """Return the rows of a split's examples, int64, [N]."""
        return self._find(self.ids(part))

    def all_of(self, part: str) -> Tensor:
        """Return the rows of a split's examples, all of which have an answer.

        Raises:
            DataError: One has none.
        """
        rows = self.of_split(part)
        if len(rows) and int(rows.min()) < 0:
            raise DataError(self.lost(part))
        return rows

    def of_files(self, names: Sequence[str]) -> Tensor:
        """Return the rows of files of a pool, all of which have an answer."""
        own = {_plain(one) for ids in self.data.ids.values() for one in ids}
        both = next((name for name in names if _plain(name) in own), None)
        if both is not None:
            raise RecipeError(
                "sampler", f"draws from a pool whose image {both!r} has the name of an image of "
                "the data, so that nobody knows whose answer is whose; rename the pool's"
            )  # fmt: skip
        rows = self._find(names)
        if int(rows.min()) < 0:
            first = names[int((rows < 0).nonzero()[0])]
            raise DataError(
                f"{self.answers.where}: {int((rows < 0).sum()):,} of {len(rows):,} images of the "
                f"pool have no answer, such as {first!r}"
            )
        return rows

    def lost(self, part: str) -> str:
        """Return a clause on the examples of a split without an answer."""
        ids, rows = self.ids(part), self.of_split(part)
        gone = (rows < 0).nonzero().squeeze(1)
        noun = {"train": "training"}.get(part, part)
        few = next(iter(self.known), None)
        return (
            f"{self.answers.where}: {len(gone):,} of {len(rows):,} {noun} examples have no answer, "
            f"such as {ids[int(gone[0])]!r} (the first id with one is {few!r})"
        )

    def _find(self, ids: Iterable[Any]) -> Tensor:
        return torch.tensor([self.known.get(_plain(one), -1) for one in ids], dtype=torch.int64)


def _plain(one: Any) -> Any:
    """Return an id as it is compared: paths have one way to be written."""
    if isinstance(one, str):
        return one.replace("\\", "/").removeprefix("./")
    return int(one)


def _by_id(answers: Answers, data: Data, said: Tensor) -> Mapping[Any, int]:
    """Return the row of each id."""
    train = data.ids.get("train")
    named = train is not None and len(train) > 0 and isinstance(train[0], str)
    if answers.ids is None:
        if named:
            assert train is not None
            raise ValueError(
                f"{answers.where}: the examples of data {data.name!r} are known by names such as "
                f"{train[0]!r}, so the answers need ids, and a column `id` that has them"
            )
        return {row: row for row in range(len(said))}
    own = _as_names(answers.ids) if named else _as_numbers(answers, data)
    found: dict[Any, int] = {}
    for row, one in enumerate(own):
        first = found.setdefault(one, row)
        if first != row and not torch.equal(said[first], said[row]):
            raise ValueError(
                f"{answers.row(row)}: the id is there twice, with different answers "
                f"(first in {answers.place(first)})"
            )
    return found


def _as_names(ids: Sequence[Any] | Array) -> list[str]:
    """Return ids as names; whole numbers are written without a point."""
    values = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
    return [
        _plain(str(int(one) if isinstance(one, float) and one == int(one) else one))
        for one in values
    ]


def _as_numbers(answers: Answers, data: Data) -> list[int]:
    """Return ids as numbers of rows."""
    assert answers.ids is not None
    values = answers.ids.tolist() if isinstance(answers.ids, np.ndarray) else list(answers.ids)
    found = []
    for row, one in enumerate(values):
        try:
            number = float(one)
        except (TypeError, ValueError):
            number = float("nan")
        if number != number or number != int(number):
            raise ValueError(
                f"{answers.row(row)}: the examples of data {data.name!r} are known by numbers of "
                "rows, and this id is none; a table's setting `id` names its column of ids"
            )
        found.append(int(number))
    return found
