"""Make a data set of a table: targets, splits, missing values, and the inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import polars as pl

from extracurricular.data.base import Data, make_data
from extracurricular.data.encode import (
    MOST_CATEGORIES,
    encode_columns,
    fit_field,
    ordered,
)
from extracurricular.data.fields import Field, Fields
from extracurricular.data.formats.columns import Column, Table, shorten_names
from extracurricular.data.formats.table_notes import column_notes
from extracurricular.data.formats.target_columns import flags, read_several
from extracurricular.data.several import strata_of
from extracurricular.data.splits import part_size, repeats, split_rows
from extracurricular.data.target_transform import transform_targets
from extracurricular.data.tasks import kind_of
from extracurricular.data.transform import Setting
from extracurricular.distributions import Task
from extracurricular.errors import DataError, shorten

Array: TypeAlias = np.ndarray[Any, Any]

PARTS = ("train", "validation", "test")
_EPOCH = np.datetime64("1970-01-01")


@dataclass(frozen=True)
class Choices:
    """What is made of a table (see :func:`extracurricular.data.sets.table.table`)."""

    target: str | int | Sequence[str | int] = -1
    task: Literal["classification", "regression", "multilabel"] | None = None
    test: float = 0.2
    validation: float = 0.1
    split: str | int | None = None
    group: str | int | None = None
    time: str | int | None = None
    id: str | int | None = None
    stratify: bool = True
    duplicates: Literal["keep", "drop"] = "keep"
    missing: Literal["error", "drop", "impute"] = "error"
    dates: Literal["days", "parts"] = "days"
    fewest: int = 1
    seed: int = 0
    target_transform: Setting = None


@dataclass(frozen=True)
class _Labels:
    """The targets of a table.

    Args:
        names: Their columns.
        known: Whether each row has all of them, bool, [N].
        y: Reals, labels of 0 and 1 or probabilities, float64, [N, D], or class indices, int64,
            [N]; of no meaning where not known.
        classes: Names of the classes; none for real targets and labels.
        why: A sentence on the kind of the task; empty where it is set.
        binary: Whether they are several labels of 0 and 1.
    """

    names: list[str]
    known: Array
    y: Array
    classes: list[str]
    why: str
    binary: bool = False

    @property
    def task(self) -> Task:
        """What is predicted."""
        if self.classes:
            return Task("classification", len(self.classes))
        return Task("multilabel" if self.binary else "regression", self.y.shape[1])

    def strata(self, rows: Array) -> Array:
        """Return labels of some rows by which a split is made fair."""
        own = self.y[rows]
        soft = bool(self.classes) and own.ndim == 2
        return strata_of(own, self.binary) if self.binary or soft else own


def make_table(name: str, table: Table, choices: Choices) -> Data:
    """Make a data set of a table whose columns are understood.

    Raises:
        DataError: A setting does not fit the table, or a value is missing.
    """
    notes = list(table.notes)
    special = {
        setting: table.named(which, setting)
        for setting in ("split", "group", "time", "id")
        if (which := getattr(choices, setting)) is not None
    }
    targets = _target_names(table, choices.target)
    inputs = [name for name in table.columns if name not in (*targets, *special.values())]
    if set(special.values()) & set(targets) or not inputs:
        raise DataError(f"{table.source} has no columns left to predict {targets} from")
    labels = _labels(table, targets, choices.task)
    notes += [labels.why] if labels.why else []
    notes += [
        f"The column {column!r} makes the {setting} and is no input."
        for setting, column in special.items()
        if setting != "split"
    ]
    ids = ids_of_rows(table, special["id"]) if "id" in special else np.arange(len(table))
    kept, told = _whole_rows(table, inputs, labels, choices)
    notes += told
    kept, labels, told = _without_rare(table, kept, labels, choices.fewest)
    notes += told
    rows, told = _split(table, special, np.flatnonzero(kept & labels.known), labels, choices)
    notes += told
    fields = _fit(table, inputs, labels, rows["train"], choices)
    columns = {name: table.columns[name].values for name in inputs}
    notes += column_notes(fields, columns, rows)
    rows["unlabelled"] = np.flatnonzero(kept & ~labels.known)
    x = {part: encode_columns(fields, columns, own) for part, own in rows.items()}
    if choices.duplicates == "drop":
        for part in ("validation", "test"):
            again = repeats(x["train"], x[part])
            x[part], rows[part] = x[part][~again], rows[part][~again]
            if again.any():
                notes.append(
                    f"{again.sum():,} rows of {part} repeat inputs of training and are left out."
                )
    y = {part: labels.y[own] for part, own in rows.items()}
    written = table.reading.dump()
    made = make_data(
        name,
        train=(x["train"], y["train"]),
        validation=(x["validation"], y["validation"]),
        test=(x["test"], y["test"]),
        task=labels.task,
        classes=labels.classes,
        columns=fields.columns,
        # Columns of probabilities or of a single 1 name classes, and there is no other name.
        outputs=() if labels.classes and len(targets) > 1 else targets,
        notes=notes,
        fields=fields,
        reading={"columns": fields.dump(), **({"table": written} if written else {})},
        ids={part: ids[own].tolist() for part, own in rows.items() if part in PARTS or len(own)},
        unlabelled=x["unlabelled"] if len(x["unlabelled"]) else None,
    )
    return transform_targets(made, choices.target_transform)


def ids_of_rows(table: Table, name: str) -> Array:
    """Return the id of each row, as a text."""
    values = table.columns[name].values.cast(pl.String)
    odd = values.is_null() | values.is_duplicated()
    if odd.any():
        row = int(odd.arg_true()[0])
        raise DataError(
            f"{table.source}, {table.place(row)}: the column {name!r}, which id names, "
            + ("has no value" if values[row] is None else f"has {values[row]!r} in several rows")
            + "; every row needs an id of its own"
        )
    return np.array(values.to_list(), dtype=object)


# Targets


def _target_names(table: Table, target: Any) -> list[str]:
    given = list(target) if isinstance(target, list | tuple) else [target]
    names = [table.named(which, "target") for which in given]
    if not names or len(set(names)) != len(names):
        raise DataError(f"target is {target!r}; it must name one column or several different ones")
    return names


def _labels(table: Table, names: list[str], task: str | None) -> _Labels:
    columns = [table.columns[name] for name in names]
    known = np.ones(len(table), dtype=bool)
    for column in columns:
        known &= column.values.is_not_null().to_numpy()
    if not known.any():
        raise DataError(f"{table.source}: no row has a value of the target {names}")
    for name, column in zip(names, columns, strict=True):
        if column.kind == "date":
            raise DataError(
                f"{table.source}: the target {name!r} has dates; name it in `categorical` if they "
                "are classes"
            )
    if task == "regression":
        return _reals(table, names, columns, known, task)
    if len(columns) > 1 or task == "multilabel":
        columns = [flags(column) for column in columns]
        several = read_several(table, names, columns, task)
        if several is None:
            return _reals(table, names, columns, known, task)
        classes = [] if several.meaning == "labels" else names
        return _Labels(names, several.known, several.y, classes, several.why, not classes)
    [column] = columns
    why = ""
    if task is None:
        given = column.values.drop_nulls()
        if column.kind == "number":
            task, why = kind_of(names[0], given.to_numpy())
        else:
            task = "classification"
            why = (
                f"The target {names[0]!r} has texts, which are read as {given.n_unique()} classes."
            )
        if task == "regression":
            return _reals(table, names, columns, known, task, why)
    values = column.values
    if column.kind == "number":
        odd = values.fill_null(0.0) != values.fill_null(0.0).round()
        if odd.any():
            bad = int(odd.arg_true()[0])
            raise DataError(
                f"{table.source}, {table.place(bad)}: the target {names[0]!r} is {values[bad]:g}; "
                "classes must be texts or whole numbers"
            )
        values = values.cast(pl.Int64).cast(pl.String)
    classes = ordered(values.drop_nulls().unique().to_list())
    if len(classes) < 2:
        raise DataError(
            f"{table.source}: the target {names[0]!r} is {classes[0]!r} in every row; there must "
            "be at least two classes"
        )
    codes = values.cast(pl.Enum(classes)).to_physical().cast(pl.Int64).fill_null(0).to_numpy()
    return _Labels(names, known, codes, classes, why)


def _reals(
    table: Table,
    names: list[str],
    columns: list[Column],
    known: Array,
    task: str | None,
    why: str = "",
) -> _Labels:
    for name, column in zip(names, columns, strict=True):
        if column.kind != "number":
            text = shorten(str(column.values.drop_nulls()[0]))
            raise DataError(
                f"{table.source}: the target {name!r} has texts such as {text}; a real target "
                "must have numbers"
            )
    y = np.stack([column.values.fill_null(0.0).to_numpy() for column in columns], axis=1)
    return _Labels(names, known, y, [], why)


# Rows


def _whole_rows(
    table: Table, inputs: list[str], labels: _Labels, choices: Choices
) -> tuple[Array, list[str]]:
    """Return which rows are used, bool, [N], and sentences about the others."""
    notes = []
    holes = {
        name: column.values.is_null().to_numpy()
        for name, column in table.columns.items()
        if name in inputs and column.values.null_count()
    }
    kept = np.ones(len(table), dtype=bool)
    if holes and choices.missing == "error":
        raise holes_in(table, holes)
    if holes and choices.missing == "drop":
        for absent in holes.values():
            kept &= ~absent
        notes.append(
            f"{(~kept).sum():,} of {len(table):,} rows are left out, as they lack a value of "
            f"{shorten_names(list(holes))}."
        )
        if not kept.any():
            raise DataError(f"{table.source}: every row lacks a value; set `missing: impute`")
    lost = int((kept & ~labels.known).sum())
    if lost:
        verb = "has no target and is kept" if lost == 1 else "have no target and are kept"
        notes.append(
            f"{lost:,} of {len(table):,} rows {verb} as unlabelled examples, which the sampler "
            "`pool` draws."
        )
    return kept, notes


def holes_in(table: Table, holes: dict[str, Array]) -> DataError:
    """Return an error that names all columns with holes."""
    first = min(holes, key=lambda name: int(np.flatnonzero(holes[name])[0]))
    row = int(np.flatnonzero(holes[first])[0])
    named = [f"{name!r} in {absent.sum():,}" for name, absent in holes.items()]
    usual = "usual" in table.reading.missing_values
    words = usual and any(table.columns[name].kind == "text" for name in holes)
    if len(holes) == 1:
        told = f"the column {first!r} has no value, and in {holes[first].sum():,} rows in all"
    else:
        told = f"the column {first!r} has no value; of {len(table):,} rows " + (
            f"a value is missing of {shorten_names(named)}"
        )
    return DataError(
        f"{table.source}, {table.place(row)}: {told}; set `missing: impute` to fill holes in, "
        "`missing: drop` to leave out their rows, or name the "
        f"column{'s' if len(holes) > 1 else ''} in `drop`"
        + ("; `missing_values: []` has words such as NA be names" * words)
    )


def _without_rare(
    table: Table, kept: Array, labels: _Labels, fewest: int
) -> tuple[Array, _Labels, list[str]]:
    """Leave out the rows of classes that have too few."""
    if not labels.classes:
        return kept, labels, []
    if labels.y.ndim == 2:
        if fewest > 1:
            raise DataError(
                f"{table.source}: fewest is {fewest}, but the targets are probabilities of "
                "classes, which no rows are left out for; leave it out"
            )
        return kept, labels, []
    counts = np.bincount(labels.y[kept & labels.known], minlength=len(labels.classes))
    rare = [k for k, count in enumerate(counts) if count < fewest]
    if not rare:
        return kept, labels, []
    left = [k for k in range(len(counts)) if k not in rare]
    if len(left) < 2:
        raise DataError(
            f"{table.source}: fewest is {fewest}, which leaves {len(left)} classes of "
            f"{len(counts)}; there must be at least two"
        )
    gone = np.isin(labels.y, rare) & labels.known & kept
    place = np.zeros(len(counts), dtype=np.int64)
    place[left] = np.arange(len(left))
    fewer = _Labels(
        labels.names, labels.known, place[labels.y], [labels.classes[k] for k in left], labels.why
    )
    names = shorten_names([labels.classes[k] for k in rare])
    word = "class has" if len(rare) == 1 else "classes have"
    told = (
        f"{gone.sum():,} rows are left out, as their {word} fewer than {fewest} rows "
        f"(`fewest`): {names}."
    )
    return kept & ~gone, fewer, [told]


def _split(
    table: Table, special: dict[str, str], rows: Array, labels: _Labels, choices: Choices
) -> tuple[dict[str, Array], list[str]]:
    """Return the rows of each split."""
    where, count = table.source, len(rows)
    if "split" in special:
        return _given_split(table, special, rows, labels, choices), []
    sizes = [
        part_size(choices.test, count, "test", where),
        part_size(choices.validation, count, "validation", where),
    ]
    if sum(sizes) >= count:
        raise DataError(f"{where}: test and validation leave none of {count} rows to train on")
    by = _by(table, special, rows)
    chosen = split_rows(
        where, labels.strata(rows), [*sizes, count - sum(sizes)], choices.seed,
        stratify=choices.stratify, **by,
    )  # fmt: skip
    notes = []
    if "time" in by and len(chosen[0]):
        start = float(by["time"][chosen[0]].min())
        column = table.columns[special["time"]]
        shown = (
            str(_EPOCH + np.timedelta64(int(start), "D")) if column.kind == "date" else f"{start:g}"
        )
        notes.append(f"Rows are tested on from {special['time']} {shown} on.")
    return {"train": rows[chosen[2]], "validation": rows[chosen[1]], "test": rows[chosen[0]]}, notes


def _by(table: Table, special: dict[str, str], rows: Array) -> dict[str, Array]:
    """Return what a split goes by: the groups or the times of rows, [N]."""
    found: dict[str, Array] = {}
    for setting in ("group", "time"):
        if setting not in special:
            continue
        name = special[setting]
        column = table.columns[name]
        values = column.values.gather(rows)
        if values.null_count():
            row = int(rows[int(values.is_null().arg_true()[0])])
            raise DataError(
                f"{table.source}, {table.place(row)}: the column {name!r}, which {setting} names, "
                "has no value; fill it in, or leave out the row"
            )
        if setting == "time" and column.kind == "text":
            raise DataError(
                f"{table.source}: time is {name!r}, which has texts such as {shorten(values[0])}; "
                "it must have numbers or dates"
            )
        found[setting] = values.to_numpy()
    return found


def _given_split(
    table: Table, special: dict[str, str], rows: Array, labels: _Labels, choices: Choices
) -> dict[str, Array]:
    """Return the rows of each split that a column names."""
    where, column = table.source, special["split"]
    values = table.columns[column].values.cast(pl.String)
    known = {"val": "validation", "valid": "validation", "training": "train"}
    known |= {part: part for part in PARTS}
    parts = values.str.to_lowercase().replace_strict(known, default=None, return_dtype=pl.String)
    if parts.null_count():
        # A row without a split has no place to go to, whether it has a target or not.
        bad = int(parts.is_null().arg_true()[0])
        raise DataError(
            f"{where}, {table.place(bad)}: the split {column!r} is {shorten(str(values[bad]))}; "
            "it must be train, validation or test"
        )
    named = parts.gather(rows)
    found = {part: rows[(named == part).to_numpy()] for part in PARTS}
    for part in ("train", "test"):
        if not len(found[part]):
            kinds = shorten_names(sorted(values.unique().to_list()))
            raise DataError(f"{where}: no row is of the {part} split; {column!r} has {kinds}")
    if not len(found["validation"]):
        train = found["train"]
        size = part_size(choices.validation, len(train), "validation", where)
        chosen = split_rows(
            where, labels.strata(train), [size, len(train) - size], choices.seed,
            stratify=choices.stratify, **_by(table, special, train),
        )  # fmt: skip
        found["validation"], found["train"] = (train[part] for part in chosen)
    return found


# Inputs


def fit_input(table: Table, name: str, train: Array, choices: Choices) -> Field:
    """Describe a column by its values in the training rows.

    Raises:
        DataError: It has too many different texts, or no value.
    """
    column = table.columns[name]
    if column.kind == "text" and (kinds := column.values.n_unique()) > MOST_CATEGORIES:
        raise DataError(
            f"{table.source}: the column {name!r} has {kinds} different texts, and a category "
            f"has at most {MOST_CATEGORIES}; name it in `drop`"
        )
    try:
        return fit_field(
            name, column.values.gather(train), column.kind, column.form,
            date_format=column.date_format, impute=choices.missing == "impute",
            parts=choices.dates == "parts",
        )  # fmt: skip
    except DataError as error:
        raise DataError(f"{table.source}: {error}") from error


def _fit(
    table: Table, inputs: list[str], labels: _Labels, train: Array, choices: Choices
) -> Fields:
    """Describe the columns by their training values."""
    made = []
    for name in inputs:
        made.append(fit_input(table, name, train, choices))
    targets = []
    for name in labels.names:
        column = flags(table.columns[name])
        if labels.classes and len(labels.names) == 1:
            targets.append(Field(name, "category", categories=tuple(labels.classes)))
        else:
            targets.append(fit_field(name, column.values.gather(train), "number", column.form))
            form = targets[-1]
            targets[-1] = Field(
                name, "number", form.units, form.decimal, form.thousands, low=form.low,
                high=form.high,
            )  # fmt: skip
    reading = table.reading
    return Fields(
        tuple(made), tuple(targets), reading.missing, reading.missing_numbers,
        tuple(reading.rename.items()),
    )  # fmt: skip
