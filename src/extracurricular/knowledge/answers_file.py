"""Read a file of a teacher's answers: which columns are ids, which belong to which class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from extracurricular.data.base import Data
from extracurricular.data.formats.columns import Reading, Table, understood
from extracurricular.data.formats.npz import read_npz
from extracurricular.data.formats.tables import kind_of_file, read_raw
from extracurricular.errors import DataError, known_names, shorten
from extracurricular.knowledge.answers import Answers, Missing, check_task
from extracurricular.teachers.raw import Array

_VALUES = ("probabilities", "logits", "mean", "deviation")
# Between a name and what else is in that of its column.
_BETWEEN = "_. :-"


class Given(Protocol):
    """The settings of a file of answers (:class:`~extracurricular.knowledge.named.AnswersFile`)."""

    @property
    def path(self) -> str:
        """The file."""
        ...

    @property
    def id(self) -> str | None:
        """The column of ids."""
        ...

    @property
    def missing(self) -> Missing:
        """What examples without an answer do."""
        ...


def read_answers_file(given: Given, data: Data) -> Answers:
    """Read a file of answers.

    Args:
        given: The file, and the columns in it.
        data: The data set, for the names of its classes and targets.

    Raises:
        DataError: The file cannot be read.
        ValueError: A column is not there, does not belong to one class, or has no answers.
    """
    path = Path(given.path)
    if not path.is_file():
        raise DataError(f"the file {str(path)!r} does not exist; path must name a file of answers")
    return _npz(path, given) if kind_of_file(path) == ".npz" else _table(path, given, data)


def _npz(path: Path, given: Given) -> Answers:
    where = f"the file {str(path)!r}"
    found = read_npz(path)
    arrays: dict[str, Any] = {}
    named = any(getattr(given, setting) is not None for setting in _VALUES)
    for setting in _VALUES:
        value = getattr(given, setting)
        if isinstance(value, list | Mapping):
            raise ValueError(
                f"{setting} is {shorten(value)}, but {where} has arrays; give the name of one"
            )
        if value is None and not named and setting in found:
            value = setting
        arrays[setting] = _array(where, found, value) if isinstance(value, str) else value
    ids = "ids" if given.id is None and "ids" in found else given.id
    classes = found.get("classes")
    return Answers(
        None if ids is None else _array(where, found, ids),
        **arrays,
        classes=None if classes is None else [str(name) for name in classes.tolist()],
        missing=given.missing,
        where=where,
        notes=() if classes is not None else _in_order(arrays),
    )


def _in_order(arrays: Mapping[str, Any]) -> tuple[str, ...]:
    if arrays["mean"] is not None:
        return ()
    return ("The columns of the teacher's answers are in the order of the classes.",)


def _array(where: str, found: Mapping[str, Array], name: str) -> Array:
    if name not in found:
        raise ValueError(f"{where} has no array {name!r}; {known_names(name, found)}")
    return found[name]


def _table(path: Path, given: Given, data: Data) -> Answers:
    check_task(repr(str(path)), data)
    reading = Reading(index="keep", categorical=() if given.id is None else (given.id,))
    raw = read_raw(path, reading)
    names = raw.frame.columns
    columns: dict[str, Any] = {}
    notes: list[str] = []
    count = map(str, range(data.task.size))
    targets = data.task.kind == "regression"
    wanted = (data.outputs if targets else data.classes) or tuple(count)
    for setting in _VALUES:
        value = getattr(given, setting)
        if value is None or isinstance(value, float | int):
            columns[setting] = value
            continue
        if targets != (setting in ("mean", "deviation")):
            raise ValueError(
                f"{setting} is set, but data {data.name!r} have "
                f"{'real targets' if targets else 'classes'}"
            )
        chosen, told = matched(setting, value, wanted)
        columns[setting] = chosen
        notes += [told] if told else []
    used = [c for value in columns.values() if isinstance(value, list) for c in value]
    for name in ([] if given.id is None else [given.id]) + used:
        if name not in names:
            raise ValueError(f"{raw.source} has no column {name!r}; {known_names(name, names)}")
    keep = [name for name in names if name in used or name == given.id]
    if not used:
        raise ValueError(
            f"{raw.source}: nothing says which columns are answers; set probabilities or logits, "
            f"or mean and deviation, to some of {shorten(', '.join(names))}"
        )
    if given.id is None:
        notes += _by_order(raw.frame, used)
    frame = raw.frame.select(keep)
    table = understood(type(raw)(raw.source, frame, raw.place, raw.notes), reading)
    arrays: dict[str, Any] = {
        setting: _numbers(table, value) if isinstance(value, list) else value
        for setting, value in columns.items()
    }
    return Answers(
        None if given.id is None else _ids(table, given.id),
        **arrays,
        missing=given.missing,
        where=table.source,
        place=table.place,
        notes=tuple(notes),
    )


def _by_order(frame: pl.DataFrame, used: list[str]) -> list[str]:
    """Return a sentence where rows are found by their order, though a column seems to name them."""
    for name in frame.columns:
        if name not in used and frame[name].dtype == pl.String and frame[name].is_unique().all():
            return [
                f"The teacher's answers are found by the order of their rows, but the column "
                f"{name!r} seems to name these: `id: {name}`, for the table too, finds them by it."
            ]
    return []


def _ids(table: Table, name: str) -> list[str]:
    if name not in table.columns:
        raise ValueError(f"{table.source}: the column {name!r}, which id names, is empty")
    values = table.columns[name].values.cast(pl.String)
    if values.null_count():
        row = int(values.is_null().arg_true()[0])
        raise ValueError(f"{table.source}, {table.place(row)}: the id {name!r} is missing")
    return values.to_list()


def _numbers(table: Table, names: Sequence[str]) -> Array:
    parts = []
    for name in names:
        if name not in table.columns or table.columns[name].kind != "number":
            raise ValueError(f"{table.source}: the column {name!r} must have numbers")
        parts.append(table.columns[name].values.fill_null(float("nan")).to_numpy())
    return np.stack(parts, axis=1)


def matched(setting: str, given: Any, wanted: Sequence[str]) -> tuple[list[str], str]:
    """Return the column of each class or target, and a sentence on how they were matched.

    A mapping says it. Columns in a list go by their names, where each ends with, begins with or is
    the name of one class; and in their order where none does.

    Args:
        setting: The setting, for errors.
        given: A column, a list of them, or ``{name: column}``.
        wanted: The names of the classes or targets.

    Raises:
        ValueError: They cannot be matched.
    """
    if isinstance(given, Mapping):
        own = {str(name): column for name, column in given.items()}
        if sorted(own) != sorted(wanted):
            odd = [n for n in own if n not in wanted] or [n for n in wanted if n not in own]
            raise ValueError(
                f"{setting} has {shorten(', '.join(own))}, and the data have "
                f"{shorten(', '.join(wanted))}; {odd[0]!r} is in one of them alone"
            )
        return [own[name] for name in wanted], ""
    columns = [given] if isinstance(given, str) else list(given)
    if len(columns) != len(wanted) or len(set(columns)) != len(columns):
        raise ValueError(
            f"{setting} names {shorten(', '.join(columns))}, but there must be one column for each "
            f"of {shorten(', '.join(wanted))}"
        )
    if len(columns) == 1:
        return columns, ""
    meant = {column: _meant(column, wanted) for column in columns}
    found = {name: column for column, name in meant.items() if name is not None}
    pairs = ", ".join(f"{name} = {found.get(name)}" for name in wanted[:6])
    if len(found) == len(wanted):
        return [found[name] for name in wanted], f"Columns of {setting} go by their names: {pairs}."
    if any(name is not None for name in meant.values()):
        other = next(column for column in columns if found.get(meant[column] or "") != column)
        way = f"{{{wanted[0]}: {columns[0]}, …}}"
        raise ValueError(
            f"{setting} names columns of which some have the names of "
            f"{shorten(', '.join(wanted))}, but {other!r} has none of its own; give {way}"
        )
    pairs = ", ".join(f"{n} = {c}" for n, c in list(zip(wanted, columns, strict=True))[:6])
    return columns, f"Columns of {setting} go by their order: {pairs}."


def _meant(column: str, wanted: Sequence[str]) -> str | None:
    """Return the longest name that a column's name is, ends or begins with."""
    fits = [
        name
        for name in wanted
        if column == name
        or (column.endswith(name) and column[: -len(name)][-1:] in tuple(_BETWEEN))
        or (column.startswith(name) and column[len(name) :][:1] in tuple(_BETWEEN))
    ]
    return max(fits, key=len, default=None)


def guessed(path: Path, data: Data) -> dict[str, Any]:
    """Return the settings of a file of answers that nobody has described.

    Columns are found by the names of classes or targets, and ids by the values of columns.

    Raises:
        DataError: The file cannot be read.
        ValueError: No columns look like answers.
    """
    if kind_of_file(path) == ".npz":
        return {"path": str(path)}
    raw = read_raw(path, Reading(index="keep"))
    names = raw.frame.columns
    found: dict[str, Any] = {"path": str(path)}
    identifier = _id_column(raw.frame, data)
    if identifier is not None:
        found["id"] = identifier
    rest = [name for name in names if name != identifier]
    if data.task.kind == "classification":
        wanted = data.classes or tuple(map(str, range(data.task.size)))
        own = {name: [c for c in rest if _meant(c, wanted) == name] for name in wanted}
        if all(len(some) == 1 for some in own.values()):
            chosen = {name: some[0] for name, some in own.items()}
            values = raw.frame.select(pl.col(list(chosen.values())).cast(pl.Float64, strict=False))
            sums = values.sum_horizontal()
            close = sums.len() > 0 and bool(((sums - 1).abs() < 1e-2).all())
            return found | {"probabilities" if close else "logits": chosen}
        raise ValueError(
            f"{raw.source}: no column for each of the classes {shorten(', '.join(wanted))} is "
            f"found among {shorten(', '.join(names))}; write `teacher: {{answers: {{path: …, id: "
            "…, probabilities: {class: column}}}` into a recipe"
        )
    outputs = list(data.outputs)
    spread = ("std", "sd", "deviation", "sigma")
    stds = [c for c in rest if any(c.lower().endswith(word) for word in spread)]
    means = [c for c in rest if c.lower().endswith("mean")]
    means = means or [c for c in rest if c in outputs and c not in stds]
    if len(means) == len(stds) == data.task.size:
        mean, _ = matched("mean", means, outputs or means)
        deviation, _ = matched("deviation", stds, outputs or stds)
        one = data.task.size == 1
        return found | {
            "mean": mean[0] if one else mean,
            "deviation": deviation[0] if one else deviation,
        }
    raise ValueError(
        f"{raw.source}: columns of means and of deviations (…_mean, …_std) are not found among "
        f"{shorten(', '.join(names))}; write `teacher: {{answers: {{path: …, id: …, mean: …, "
        "deviation: …}}` into a recipe"
    )


def _id_column(frame: pl.DataFrame, data: Data) -> str | None:
    """Return the column whose values are ids of training examples; None if there is none."""
    ids = data.ids.get("train") or []
    if not len(ids):
        return None
    named = isinstance(ids[0], str)
    wanted = {str(one) for one in ids}
    for name in frame.columns:
        values = frame[name].cast(pl.String, strict=False)
        if named and len(wanted & set(values.to_list())) > len(wanted) / 2:
            return name
        if not named and name.lower() in ("id", "ids", "row", "index") and values.is_unique().all():
            return name
    return None
