"""The content of the page, as plain data.

Networks predict the recipe's evaluation split once, one after the other. Only a few numbers for
each example are kept.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from extracurricular.data.base import Data
from extracurricular.data.target_transform import learned
from extracurricular.distributions import Distribution
from extracurricular.errors import XclError
from extracurricular.evaluation.entries import mean_error, measure_of
from extracurricular.evaluation.summary import Parts
from extracurricular.export.front import read_front
from extracurricular.export.front import report as front_report
from extracurricular.files import curing, read_checked
from extracurricular.recipe.read import read_recipe
from extracurricular.recipe.ships import shipped_recipes
from extracurricular.report.costs import latencies
from extracurricular.report.curves import Array, confusion
from extracurricular.report.differing import Differing, differing
from extracurricular.report.gallery import Gallery, galleries
from extracurricular.report.logs import Choice, Curves, choices_of, curves_of
from extracurricular.run.answers import FILE, read_answers, summed_up
from extracurricular.run.environment import trained_in
from extracurricular.run.evaluation import METRICS
from extracurricular.run.finished import Finished, remake
from extracurricular.run.kept import lost
from extracurricular.run.settings import data_settings
from extracurricular.run.workspace import RECORD, read_record

# A figure with curves of more students than this cannot be read.
MOST_SHOWN = 6
# A table of confusions of more classes takes more memory than it tells.
_MOST_CONFUSED = 2000


@dataclass
class Answers:
    """The figures of each example for the teacher or a student, an array for each seed.

    Args:
        confidence: Classification: probability of the predicted class, [N].
        right: Classification: 1 where the prediction is right, else 0, [N].
        confusion: Classification: counts, true by predicted class, the mean over seeds, [C, C].
        z: Regression: error divided by predicted deviation, [N, D].
        deviation, error: Regression: predicted deviation and absolute error, [N, D], in units of
            :attr:`Report.unit`.
        kl: Divergence from the teacher in nats, [N]; empty for the teacher.
    """

    confidence: list[Array] = field(default_factory=list)
    right: list[Array] = field(default_factory=list)
    confusion: Array | None = None
    z: list[Array] = field(default_factory=list)
    deviation: list[Array] = field(default_factory=list)
    error: list[Array] = field(default_factory=list)
    kl: list[Array] = field(default_factory=list)


@dataclass(frozen=True)
class Stretch:
    """A row of the table of times.

    Args:
        name: The thing that was trained, fitted or recorded.
        steps: Optimiser steps in all; None for a thing without steps.
        seconds: Time in all; None where it was not kept.
        count: Number of its stages.
    """

    name: str
    steps: int | None
    seconds: float | None
    count: int


@dataclass(frozen=True)
class Report:
    """The content of the page.

    Args:
        summary: ``summary.json``.
        classes: Names of the classes; empty for real targets.
        examples: Number of examples that figures are measured on, for the first seed.
        unit: Unit of errors of real targets.
        shown: Students whose curves are drawn, in the recipe's order.
        compared: The student whose confusions are compared with the reference's, or None.
        teacher, students: Figures of each example.
        teacher_entropy: Entropy of the teacher's answers in nats, for each seed, [N].
        curves: Loss, validation error, mastery and shares of the students shown, by step.
        choices: How students were chosen among candidates.
        learned: Sentences on what students learn of transformed targets.
        damaged: A sentence for each damaged file that was made anew, or is done without.
        front: Error against the cost of exported files, as :func:`~.export.front.report` gives it;
            None where the run has none.
        differing: The examples on which the subject and its teacher differ most.
        latency: Result of :func:`~extracurricular.report.costs.latencies`.
        galleries: Draws of each sampler.
        time: Rows of the table of times.
        trained: Environments that the run was trained in, oldest first.
        command: The command that repeats the run.
        precision: The precision of the run: what ``auto`` became.
    """

    summary: dict[str, Any]
    classes: tuple[str, ...]
    examples: int
    unit: str
    shown: list[str]
    compared: str | None
    teacher: Answers
    students: dict[str, Answers]
    teacher_entropy: list[Array]
    curves: Curves
    latency: dict[str, Any]
    galleries: list[Gallery]
    time: list[Stretch]
    trained: list[dict[str, Any]]
    command: str
    precision: str = "32-true"
    choices: list[Choice] = field(default_factory=list)
    learned: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    front: dict[str, Any] | None = None
    differing: Differing | None = None


def collect(finished: Finished) -> Report:
    """Gather the content of the page; networks predict, and nothing is trained.

    Raises:
        XclError: A file of the run is missing or damaged.
    """
    workspace = finished.workspace
    data = finished.described
    shown = shown_students(finished.summary)
    kept = finished.workspace.kept
    unnamed = lost(finished.folder) if kept is None else kept.without_names
    damaged: list[str] = [] if unnamed is None else [unnamed]
    _check_metrics(finished)
    teacher, students, entropy, examples = _answers(finished, shown)
    classes: tuple[str, ...] = ()
    if data.task.kind == "classification":
        classes = data.classes or tuple(map(str, range(data.task.size)))
    return Report(
        summary=finished.summary,
        classes=classes,
        examples=examples,
        unit=_unit(data),
        shown=shown,
        compared=compared_student(finished.summary),
        teacher=teacher,
        students=students,
        teacher_entropy=entropy,
        curves=curves_of(finished, shown),
        latency=latencies(finished, tell=damaged.append),
        galleries=galleries(finished),
        time=list(_time(finished)),
        trained=trained_in(finished.folder),
        command=command(finished),
        precision=workspace.precision,
        choices=choices_of(finished),
        learned=learned(data),
        damaged=damaged,
        front=_front(finished),
        differing=differing(finished),
    )


def _front(finished: Finished) -> dict[str, Any] | None:
    found = read_front(finished.folder) if finished.recipe.front else None
    return None if found is None else front_report(found, finished.recipe)


def _check_metrics(finished: Finished) -> None:
    """Refuse figures of single students, which people read, that are not as they were written."""
    files = [f"{stage.path}/{METRICS}" for stage in finished.plan.students.values()]
    with curing(remake(finished.folder)):
        for path in files:
            checksum = finished.workspace.checksum("", path)
            if checksum is not None:
                read_checked(finished.folder / path, checksum)


def shown_students(summary: dict[str, Any], most: int = MOST_SHOWN) -> list[str]:
    """Return the students whose curves are drawn.

    Up to ``most`` students are all shown; of more, the plain one, the reference, the subject and
    the students with the lowest error.
    """
    students, parts = summary["students"], Parts.of(summary)
    if len(students) <= most:
        return list(students)
    kept, measure = parts.named, measure_of(summary)
    others = {name: entry for name, entry in students.items() if name not in kept}
    errors = {name: mean_error(entry, measure) for name, entry in others.items()}
    known = {name: error for name, error in errors.items() if error is not None}
    kept += sorted(known, key=lambda name: known[name])[: most - len(kept)]
    return [name for name in students if name in kept]


def compared_student(summary: dict[str, Any]) -> str | None:
    """Return the subject if it can be compared with the reference, else None."""
    parts = Parts.of(summary)
    return None if parts.reference in (None, parts.subject) else parts.subject


# -- answers --------------------------------------------------------------------------------------


def _answers(
    finished: Finished, shown: Sequence[str]
) -> tuple[Answers, dict[str, Answers], list[Array], int]:
    teacher, students = Answers(), {name: Answers() for name in shown}
    labels: dict[str, Tensor] = {}
    entropies: dict[str, Array] = {}
    entropy: list[Array] = []
    for seed, planned in finished.plan.teachers.items():
        data, own = finished.workspace.described_of(seed), planned.path
        if own not in labels:
            kept = _kept(finished, own, seed)
            labels[own] = kept["labels"]
            if "entropy" in kept:  # a teacher of stored answers may have none on these examples
                entropies[own] = _array(kept["entropy"])
                add_kept(teacher, kept, labels[own], data)
        entropy += [entropies[own]] if own in entropies else []
        for name in shown:
            kept = _kept(finished, finished.stage(name, seed).path, seed, name)
            add_kept(students[name], kept, labels[own], data)
    for answers in (teacher, *students.values()):
        if answers.confusion is not None:
            answers.confusion /= len(answers.confidence)
    return teacher, students, entropy, len(next(iter(labels.values())))


def _kept(finished: Finished, path: str, seed: int, name: str | None = None) -> dict[str, Tensor]:
    """Return the answers that a run keeps, of a student or, without a name, of a teacher.

    Those of a version that kept none are asked for again, on the run's data.
    """
    workspace = finished.workspace
    with curing(remake(finished.folder)):
        kept = read_answers(finished.folder / path, workspace.checksum("", f"{path}/{FILE}"))
    if kept is not None:
        return kept
    data = workspace.data_of(seed)
    ask = partial(finished.teacher, seed)
    teacher = workspace.answers(finished.plan.teachers[seed].path, data, ask)
    if name is None:
        labels = workspace.evaluated(data).y
        assert labels is not None
        return summed_up(teacher, labels.cpu())
    answer = workspace.answers(path, data, partial(finished.student, name, seed))
    return summed_up(answer, teacher=teacher)


def add_answers(
    answers: Answers, prediction: Distribution, y: Tensor, teacher: Distribution | None, data: Data
) -> None:
    """Add the figures of one seed's predictions.

    Args:
        answers: The figures so far; ``confusion`` becomes the sum over seeds.
        prediction: Distributions for N examples, in the target's own units.
        y: Class indices [N], soft labels [N, C], labels of 0 and 1 [N, L], or real targets [N, D].
        teacher: The teacher's distributions for the same examples; None for the teacher itself.
        data: The data set, for the scale of targets.
    """
    kept = summed_up(prediction, y, teacher)
    add_kept(answers, kept, kept["labels"], data)


def add_kept(answers: Answers, kept: dict[str, Tensor], y: Tensor, data: Data) -> None:
    """Add the figures of one seed's predictions, as a run keeps them.

    Args:
        answers: The figures so far; ``confusion`` becomes the sum over seeds.
        kept: See :func:`~extracurricular.run.answers.summed_up`.
        y: Class indices [N], labels of 0 and 1 [N, L], or real targets [N, D].
        data: The description of the data set, for the scale of targets.
    """
    if "predicted" in kept:
        predicted = kept["predicted"]
        # A confidence of NaN counts as 0.
        answers.confidence.append(np.nan_to_num(_array(kept["confidence"])))
        answers.right.append(_array(predicted == y))
        if data.task.size <= _MOST_CONFUSED:
            counts = confusion(predicted.numpy(), y.numpy(), data.task.size)
            answers.confusion = counts if answers.confusion is None else answers.confusion + counts
    elif "probs" in kept:
        # Each pair of example and label is an answer of its own.
        probs = np.nan_to_num(_array(kept["probs"]))
        answers.confidence.append(np.maximum(probs, 1 - probs).ravel())
        answers.right.append(((probs >= 0.5) == (_array(y) >= 0.5)).astype(float).ravel())
    else:
        _add_reals(answers, kept, y, data)
    if "kl" in kept:
        answers.kl.append(_array(kept["kl"]))


def _add_reals(answers: Answers, kept: dict[str, Tensor], y: Tensor, data: Data) -> None:
    error = _array((y - kept["mean"]).abs())
    deviation = _array(kept["std"])
    # An error of 0 lies inside every interval, even one of width 0.
    transform, away, width = data.y_transform, error, deviation
    if transform is not None and "inner_mean" in kept:
        # Intervals are those of the transform, mapped to the target's units.
        away = _array((transform.apply(y.double()) - kept["inner_mean"]).abs())
        width = _array(kept["inner_std"])
    z = np.divide(away, width, out=np.full_like(away, np.inf), where=width > 0)
    answers.z.append(np.where(away == 0, 0.0, z))
    factor = np.ones(1)
    if data.angular:
        factor = np.array([180 / np.pi])
    elif data.task.size > 1 and data.y_scale is not None:
        factor = 1 / _array(data.y_scale.scale)
        if transform is not None:
            # Of several targets only the transforms have deviations that can be compared.
            error, deviation = away, width
    answers.deviation.append(deviation * factor)
    answers.error.append(error * factor)


def _unit(data: Data) -> str:
    if data.angular:
        return "°"
    if data.task.size == 1:
        return ""
    return "deviations of the target" if data.y_transform is None else "deviations of the transform"


def _array(values: Tensor) -> Array:
    return values.detach().cpu().double().numpy()


# -- time -----------------------------------------------------------------------------------------


def _time(finished: Finished) -> Iterator[Stretch]:
    """Yield the times of the run's stages, students by name and everything else by kind."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for stage in finished.plan.trained:
        kind, name = stage.path.split("/")[:2]
        title = {
            "teacher": "teacher",
            "generators": f"generator {name}",
            "knowledge": "recording the teacher",
            "calibration": "calibrating the teacher",
            "students": name,
        }[kind]
        there = (finished.folder / stage.path / RECORD).is_file()
        record = read_record(finished.folder, stage.path) if there else {}
        # The steps of a generator's fit are for its own code to say.
        counted = kind in ("teacher", "students")
        planned = {"steps": stage.steps} if counted else {}
        groups.setdefault(title, []).append({**planned, **record, "counted": counted})
    for title, records in groups.items():
        counted = records[0]["counted"]
        steps = sum(r["steps"] for r in records) if counted else None
        known = [r["seconds"] for r in records if isinstance(r.get("seconds"), int | float)]
        seconds = float(sum(known)) if len(known) == len(records) else None
        yield Stretch(title, steps, seconds, len(records))


def command(finished: Finished) -> str:
    """Return the command that repeats this run, with the name of a shipped recipe if it is one."""
    name = finished.summary["recipe"]["name"]
    if name in shipped_recipes():
        try:
            shipped, own = read_recipe(name).dump(), finished.summary["recipe"]
            if _but_place(shipped) == _but_place(own):
                return f"xcl run {name} --out again"
        except XclError:
            pass  # a file of this name in the working directory is something else
    return f"xcl run {shlex.quote(str(finished.folder.name))}/recipe.yaml --out again"


def _but_place(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe without the place of its data, which depends on the working directory."""
    return recipe | {"data": data_settings(recipe["data"])}


def pooled(parts: Sequence[Array] | Sequence[NDArray[Any]]) -> Array:
    """Return the values of all seeds as one array, [N]."""
    return np.concatenate([np.ravel(part) for part in parts])
