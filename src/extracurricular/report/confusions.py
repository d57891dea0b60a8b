"""How the confusions of a student differ from those of kd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from extracurricular.report.collect import Report
from extracurricular.report.curves import Array


@dataclass(frozen=True)
class Confusions:
    """How confusions of one student differ from those of kd.

    Args:
        student: The student.
        classes: Names of the classes.
        table: Student less kd, true by predicted, means over seeds, [C, C]; empty for many classes.
        largest: The largest difference.
        pairs: The largest differences: true class, predicted class, count of kd, of the student.
    """

    student: str
    classes: Sequence[str]
    table: list[list[float]]
    largest: float
    pairs: list[tuple[str, str, float, float]]


def confusions(report: Report, most: int = 16, pairs: int = 8) -> Confusions | None:
    """Return how the confusions of a student differ from those of kd; None where there are none.

    Args:
        report: What the page shows.
        most: Classes of which the whole table is shown.
        pairs: Number of pairs that are told.
    """
    name = report.compared
    if name is None or not {name, "kd"} <= set(report.students):
        return None
    kd, own = report.students["kd"].confusion, report.students[name].confusion
    if kd is None or own is None or not (own != kd).any():
        return None
    return compare(name, report.classes, kd, own, most, pairs)


def compare(
    name: str, classes: Sequence[str], kd: Array, own: Array, most: int, pairs: int
) -> Confusions:
    """Compare two tables of confusions, [C, C], true by predicted; see :func:`confusions`."""
    difference = own - kd
    wrong = difference * (1 - np.eye(len(classes)))
    order = np.argsort(-np.abs(wrong), axis=None, kind="stable")[:pairs]
    places = [divmod(int(k), len(classes)) for k in order if wrong.flat[k]]
    told = [(classes[a], classes[b], float(kd[a, b]), float(own[a, b])) for a, b in places]
    return Confusions(
        student=name,
        classes=classes,
        table=difference.tolist() if len(classes) <= most else [],
        largest=float(np.abs(difference).max()),
        pairs=told,
    )
