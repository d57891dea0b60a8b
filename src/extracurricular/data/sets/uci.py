"""UCI regression sets with the train/test splits that the literature on uncertainty publishes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from extracurricular.data.base import Data, make_data
from extracurricular.data.sets import DATA
from extracurricular.data.splits import split_indices
from extracurricular.data.target_transform import transform_targets
from extracurricular.data.transform import Setting
from extracurricular.errors import DataError, shorten

_LARGEST = float(np.finfo(np.float32).max)


@DATA.register("uci")
def uci(
    path: str,
    split: int = 0,
    validation: float = 0.2,
    seed: int = 0,
    target_transform: Setting = None,
) -> Data:
    """Read a regression set with published splits from a folder.

    The folder has the files of the sets and splits of Hernández-Lobato and Adams (2015,
    "Probabilistic backpropagation for scalable learning of Bayesian neural networks"), which Gal
    and Ghahramani (2016) use too: ``data.txt``, rows of numbers with blanks or tabs between them;
    ``index_features.txt`` and ``index_target.txt``, columns of it; ``index_train_K.txt`` and
    ``index_test_K.txt``, the rows of split K; all counted from 0. Targets are in their own units.

    Args:
        path: The folder, whose name becomes the data set's.
        split: Number of the published split, from 0.
        validation: Part of the published training rows to choose settings on; 0 for none.
        seed: Seed of the choice of these rows.
        target_transform: What students learn of a real target: its ``log`` or ``asinh``, or a
            mapping of these by target (:func:`~.target_transform.transform_targets`).

    Raises:
        DataError: The folder or a file of it is missing or cannot be used, or has no such split.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(
            f"the folder {path!r} does not exist; path must name a folder with data.txt"
        )
    table = _table(folder / "data.txt")
    count, columns = table.shape
    features = _indices(folder / "index_features.txt", columns, "column")
    targets = _indices(folder / "index_target.txt", columns, "column")
    _disjoint(folder, features, targets, "column", ("index_features.txt", "index_target.txt"))
    _check_split(folder, split)
    files = (f"index_train_{split}.txt", f"index_test_{split}.txt")
    train, test = (_indices(folder / name, count, "row") for name in files)
    _disjoint(folder, train, test, "row", files)
    if not 0 <= validation < 1:
        raise DataError(f"data {path!r}: validation is {validation}; it must be a part in [0, 1)")
    size = round(validation * len(train))
    if size >= len(train):
        raise DataError(
            f"data {path!r}: validation is {validation}; "
            f"of {len(train)} training rows it must leave some to train on"
        )
    parts = split_indices(len(train), [size, len(train) - size], seed)

    def rows(which: np.ndarray[Any, Any]) -> tuple[Any, Any]:
        return table[np.ix_(which, features)], table[np.ix_(which, targets)]

    made = make_data(
        folder.absolute().name,
        train=rows(train[parts[1]]),
        test=rows(test),
        validation=rows(train[parts[0]]),
    )
    return transform_targets(made, target_transform)


def _numbers(file: Path) -> list[tuple[int, list[float]]]:
    """Return the numbers of each line that has any, with the number of the line, from 1."""
    if not file.is_file():
        raise DataError(f"the file {str(file)!r} is missing")
    # Bytes that are no text become no number either, so the error below covers them.
    lines = file.read_text(encoding="utf-8-sig", errors="replace").split("\n")
    found = []
    for line, text in enumerate(lines, start=1):
        values = []
        for word in text.split():
            try:
                # Python reads 1_000 as a number, but no such file means one.
                value = float(word) if "_" not in word else float("nan")
            except ValueError:
                value = float("nan")
            if not abs(value) <= _LARGEST:
                raise DataError(
                    f"the file {str(file)!r}, line {line}: {shorten(word)} is not a number "
                    "that float32 can hold"
                )
            values.append(value)
        if values:
            found.append((line, values))
    if not found:
        raise DataError(f"the file {str(file)!r} holds no numbers")
    return found


def _table(file: Path) -> np.ndarray[Any, Any]:
    """Read rows of equal length, float64, [N, D]."""
    found = _numbers(file)
    width = len(found[0][1])
    for line, values in found:
        if len(values) != width:
            raise DataError(
                f"the file {str(file)!r}, line {line}: the row has {len(values)} numbers, "
                f"the first one {width}; all rows must have the same number"
            )
    return np.array([values for _, values in found])


def _indices(file: Path, count: int, what: str) -> np.ndarray[Any, Any]:
    """Read different whole numbers in [0, count), int64; 3.000e+00 is whole too."""
    seen: set[int] = set()
    indices = []
    for line, values in _numbers(file):
        for value in values:
            where = f"the file {str(file)!r}, line {line}: {value:.15g}"
            if not value.is_integer():
                raise DataError(f"{where} is not a whole number, as a {what} must be")
            if not 0 <= value < count:
                raise DataError(
                    f"{where} is no {what} of the data, which have {what}s 0 to {count - 1}"
                )
            index = int(value)
            if index in seen:
                raise DataError(f"{where} is there twice; each {what} may be there once")
            seen.add(index)
            indices.append(index)
    return np.array(indices, dtype=np.int64)


def _disjoint(
    folder: Path,
    first: np.ndarray[Any, Any],
    second: np.ndarray[Any, Any],
    what: str,
    names: tuple[str, str],
) -> None:
    common = np.intersect1d(first, second)
    if len(common):
        raise DataError(
            f"the folder {str(folder)!r}: {what} {common[0]} is in both {names[0]} and "
            f"{names[1]}; they must have no {what} in common"
        )


def _check_split(folder: Path, split: int) -> None:
    """Refuse a split if neither of its files is there."""
    matches = (re.fullmatch(r"index_(?:train|test)_(\d+)\.txt", f.name) for f in folder.iterdir())
    known = sorted({int(match[1]) for match in matches if match})
    if not known:
        raise DataError(
            f"the folder {str(folder)!r} has no splits; it must have index_train_0.txt "
            "and index_test_0.txt"
        )
    if split not in known:
        # If a number in between is missing, all are listed.
        gapless = known == list(range(len(known)))
        names = f"0 to {known[-1]}" if gapless and len(known) > 1 else ", ".join(map(str, known))
        plural = "s" if len(known) > 1 else ""
        raise DataError(
            f"the folder {str(folder)!r}: split is {split}; it has split{plural} {names}"
        )
