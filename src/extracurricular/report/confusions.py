"""The differences between the confusions of a student and of the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from extracurricular.evaluation.summary import Parts
from extracurricular.report.collect import Report
from extracurricular.report.curves import Array

# Classes of a whole table: as many columns fit a telephone.
MOST = 16


@dataclass(frozen=True)
class Confusions:
    """The differences between the confusions of two students.

    Args:
        student: The student.
        reference: The student that it is compared with.
        classes: Names of the classes.
        table: Student less reference, true by predicted, means over seeds, [C, C]; empty for many
            classes.
        largest: The largest difference.
        pairs: The largest differences: true class, predicted class, count of the reference, count
            of the student.
    """

    student: str
    reference: str
    classes: Sequence[str]
    table: list[list[float]]
    largest: float
    pairs: list[tuple[str, str, float, float]]


@dataclass(frozen=True)
class Shares:
    """The confusions of one student.

    Args:
        student: The student.
        classes: Names of the classes.
        shares: Of the examples of each class, the share taken for each, in percent, [C, C].
    """

    student: str
    classes: Sequence[str]
    shares: list[list[float]]


def own_confusions(report: Report, most: int = MOST) -> Shares | None:
    """Return the confusions of the subject; None for many classes, or where there are none.

    Args:
        report: The content of the page.
        most: Largest number of classes with a table.
    """
    name = Parts.of(report.summary).subject
    answers = report.students.get(name or "")
    if name is None or answers is None or answers.confusion is None:
        return None
    if len(report.classes) > most:
        return None
    counts = answers.confusion
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1e-9)
    return Shares(name, report.classes, shares.tolist())


def confusions(report: Report, most: int = MOST, pairs: int = 8) -> Confusions | None:
    """Compare a student's confusions with the reference's; None where they are the same.

    Args:
        report: The content of the page.
        most: Largest number of classes with a whole table.
        pairs: Number of pairs of classes to list.
    """
    name, reference = report.compared, Parts.of(report.summary).reference
    if name is None or reference is None or not {name, reference} <= set(report.students):
        return None
    theirs, own = report.students[reference].confusion, report.students[name].confusion
    if theirs is None or own is None or not (own != theirs).any():
        return None
    return compare((name, reference), report.classes, theirs, own, most, pairs)


def compare(
    names: tuple[str, str],
    classes: Sequence[str],
    theirs: Array,
    own: Array,
    most: int,
    pairs: int,
) -> Confusions:
    """Compare two tables of confusions.

    Args:
        names: The student, and the reference.
        classes: Names of the classes.
        theirs, own: Tables of reference and student, true by predicted, [C, C].
        most, pairs: See :func:`confusions`.
    """
    difference = own - theirs
    wrong = difference * (1 - np.eye(len(classes)))
    order = np.argsort(-np.abs(wrong), axis=None, kind="stable")[:pairs]
    places = [divmod(int(k), len(classes)) for k in order if wrong.flat[k]]
    return Confusions(
        *names,
        classes=classes,
        table=difference.tolist() if len(classes) <= most else [],
        largest=float(np.abs(difference).max()),
        pairs=[(classes[a], classes[b], float(theirs[a, b]), float(own[a, b])) for a, b in places],
    )
