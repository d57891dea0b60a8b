"""What an ONNX file gives: which outputs are the answer, and maps from class to number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from extracurricular.data.base import Data
from extracurricular.distributions import Task
from extracurricular.teachers.raw import Array

_REALS = ("tensor(float)", "tensor(double)", "tensor(float16)")
# What scikit-learn's converter makes of a classifier: for each example a map from class to number.
_MAPS = ("seq(map(int64,tensor(float)))", "seq(map(string,tensor(float)))")


def answer_names(
    found: Mapping[str, str], wanted: Sequence[str], output: str, task: Task, where: str
) -> list[str]:
    """Return the names of the outputs that are the answer.

    Args:
        found: Types of the file's outputs, by name.
        wanted: Names that the person gave; where empty, all that can be an answer.
        output: How answers are read.
        task: What is predicted.
        where: The file, for errors.

    Raises:
        ValueError: A name is wrong, or it is not clear which outputs are the answer.
    """
    able = (*_REALS, *_MAPS) if task.kind == "classification" else _REALS
    for name in wanted:
        if found.get(name) not in able:
            reals = [key for key, kind in found.items() if kind in able]
            problem = f"is a {found[name]}" if name in found else "is none of the file's"
            raise ValueError(
                f"outputs has {name!r}, which {problem}; those with real numbers are "
                f"{', '.join(reals) or 'none'}"
            )
    names = list(wanted) or [key for key, kind in found.items() if kind in able]
    two = output in ("mean_std", "mean_var", "mean_log_var")
    if not names or len(names) > 1 + two:
        told = ", ".join(f"{name} ({kind})" for name, kind in found.items())
        count = "one or two that are" if two else "one that is"
        raise ValueError(f"{where} gives {told}; name the {count} the answer in outputs")
    return names


def columns_of(rows: Sequence[Mapping[Any, float]], data: Data, output: str, where: str) -> Array:
    """Return maps from class to number as columns of the data's classes, float64, [B, C].

    Classes are found by name where they are texts or all of them are names, else by index. One that
    no map has gets no probability.

    Raises:
        ValueError: The data have no such class.
    """
    known, size = list(data.classes), data.task.size
    names = list(dict.fromkeys(name for row in rows for name in row))
    by_name = all(str(name) in known for name in names) or isinstance(names[0], str)
    places = {}
    for name in names:
        text = str(name)
        place = (known.index(text) if text in known else -1) if by_name else name
        if not isinstance(place, int) or not 0 <= place < size:
            raise ValueError(
                f"{where} knows the class {name!r}, but the data have "
                f"{', '.join(known) or f'0 to {size - 1}'}"
            )
        places[name] = place
    table = np.full((len(rows), size), 0.0 if output == "probs" else -np.inf)
    for number, row in enumerate(rows):
        for name, value in row.items():
            table[number, places[name]] = value
    return table
