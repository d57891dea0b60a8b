"""Data sets from tables: numbers and categories in, real targets or classes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from extracurricular.data.base import Data, make_data, split_indices
from extracurricular.data.formats.columns import Array, Table, read_table, shorten_names
from extracurricular.data.sets import DATA
from extracurricular.data.splits import part_size
from extracurricular.distributions import Task
from extracurricular.errors import DataError, shorten

# A target of at most so many different whole numbers is taken for classes.
_FEW = 20
_MOST = 1000
_PARTS = ("train", "validation", "test")


@DATA.register("table")
def table(
    path: str,
    target: str | int | list[str | int] = -1,
    task: Literal["classification", "regression"] | None = None,
    test: int | float = 0.2,
    validation: int | float = 0.1,
    split: str | int | None = None,
    categorical: list[str | int] | None = None,
    drop: list[str | int] | None = None,
    separator: str = ",",
    header: bool = True,
    seed: int = 0,
) -> Data:
    """Read a table from a CSV, parquet or .npz file.

    Columns of texts, and those named in ``categorical``, become one column of 0 and 1 for each of
    their values. A row with a missing value is refused. Targets stay in their own units.

    Args:
        path: The file (see :func:`extracurricular.data.formats.columns.read_table`).
        target: Name or position of the target's column, or a list of several; -1 is the last.
        task: Kind of the target. Without it texts are classes, and so are at most 20 different
            whole numbers; several targets are real.
        test, validation: Rows to set aside, as parts or as numbers of rows; ``validation`` may be
            0.
        split: Column that has ``train``, ``validation`` or ``test`` in each row. If it has no
            validation rows, they are set aside from the training rows.
        categorical: Columns whose numbers are names.
        drop: Columns to leave out.
        separator: The character between the columns of a text file.
        header: Whether the first line of a text file names the columns.
        seed: Seed of the split.

    Raises:
        DataError: The file or a value in it cannot be used, or a setting does not fit the file.
    """
    read = read_table(Path(path), separator, header, categorical or (), drop or ())
    given = target if isinstance(target, list) else [target]
    targets = [read.named(which, "target") for which in given]
    if not targets or len(set(targets)) != len(targets):
        raise DataError(f"target is {target!r}; it must name one column or several different ones")
    parts = None if split is None else read.named(split, "split")
    inputs = [name for name in read.columns if name not in targets and name != parts]
    if parts in targets or not inputs:
        raise DataError(f"the file {path!r} has no columns left to predict {targets} from")
    y, classes = _targets(read, targets, task)
    x, names = _inputs(read, inputs)
    rows = _split(read, parts, test, validation, seed)
    pairs = {part: (x[which], y[which]) for part, which in rows.items()}
    return make_data(
        Path(path).stem,
        train=pairs["train"],
        validation=pairs["validation"],
        test=pairs["test"],
        task=Task("classification", len(classes)) if classes else None,
        classes=classes,
        columns=names,
        outputs=targets,
        ids={part: which.tolist() for part, which in rows.items()},
    )


def _inputs(read: Table, names: list[str]) -> tuple[Array, list[str]]:
    """Return the inputs, float32, [N, D], with the names of their columns."""
    columns: list[Array] = []
    labels: list[str] = []
    for name in names:
        values = read.columns[name]
        if values.dtype.kind == "f":
            columns.append(values)
            labels.append(name)
            continue
        kinds = np.array(_sorted(values))
        if len(kinds) > _MOST:
            raise DataError(
                f"the file {str(read.path)!r}: the column {name!r} has {len(kinds)} different "
                f"texts, and a category has at most {_MOST}; name it in `drop`"
            )
        columns += list((values[None] == kinds[:, None]).astype(np.float32))
        labels += [f"{name}={kind}" for kind in kinds]
    return np.stack(columns, axis=1).astype(np.float32), labels


def _sorted(values: Array) -> list[str]:
    """Return the different texts, sorted as numbers if all are numbers."""
    kinds = np.unique(values).tolist()
    try:
        return sorted(kinds, key=float)
    except ValueError:
        return list(kinds)


def _targets(read: Table, names: list[str], task: str | None) -> tuple[Array, list[str]]:
    """Return real targets [N, D], or class indices [N] with the names of the classes."""
    where = f"the file {str(read.path)!r}"
    columns = [read.columns[name] for name in names]
    if len(columns) > 1 or task == "regression":
        for name, values in zip(names, columns, strict=True):
            if task == "classification":
                raise DataError(f"{where}: target is {names}; classes are in one column")
            if values.dtype.kind != "f":
                raise DataError(
                    f"{where}: the target {name!r} has texts such as {shorten(str(values[0]))}; "
                    "a real target must have numbers"
                )
        return np.stack(columns, axis=1), []
    [values] = columns
    if values.dtype.kind == "f":
        kinds = np.unique(values)
        whole = bool((kinds == np.round(kinds)).all())
        if task is None and not (whole and len(kinds) <= _FEW):
            return values[:, None], []
        if not whole:
            bad = int(np.flatnonzero(values != np.round(values))[0])
            raise DataError(
                f"{where}, {read.place(bad)}: the target {names[0]!r} is {values[bad]:g}; "
                "classes must be texts or whole numbers"
            )
        values = np.array([f"{v:.0f}" for v in values])
    classes = _sorted(values)
    if len(classes) < 2:
        raise DataError(f"{where}: the target {names[0]!r} is {classes[0]!r} in every row")
    index = {name: k for k, name in enumerate(classes)}
    return np.array([index[str(v)] for v in values], dtype=np.int64), classes


def _split(
    read: Table, column: str | None, test: float, validation: float, seed: int
) -> dict[str, Array]:
    """Return the rows of each split."""
    where, count = f"the file {str(read.path)!r}", len(read)
    if column is None:
        sizes = [
            part_size(test, count, "test", where),
            part_size(validation, count, "validation", where),
        ]
        if sum(sizes) >= count:
            raise DataError(f"{where}: test and validation leave none of {count} rows to train on")
        chosen = split_indices(count, [*sizes, count - sum(sizes)], seed)
        return {"train": chosen[2], "validation": chosen[1], "test": chosen[0]}
    values: Any = read.columns[column]
    known = {"val": "validation", "valid": "validation"} | {part: part for part in _PARTS}
    found = [known.get(str(value).lower()) for value in values]
    if None in found:
        bad = found.index(None)
        raise DataError(
            f"{where}, {read.place(bad)}: the split {column!r} is {shorten(str(values[bad]))}; "
            "it must be train, validation or test"
        )
    rows = {part: np.flatnonzero(np.array(found) == part) for part in _PARTS}
    for part in ("train", "test"):
        if not len(rows[part]):
            kinds = shorten_names([str(v) for v in np.unique(values)])
            raise DataError(f"{where}: no row is of the {part} split; {column!r} has {kinds}")
    if not len(rows["validation"]):
        size = part_size(validation, len(rows["train"]), "validation", where)
        chosen = split_indices(len(rows["train"]), [size, len(rows["train"]) - size], seed)
        rows["validation"], rows["train"] = (rows["train"][part] for part in chosen)
    return rows
