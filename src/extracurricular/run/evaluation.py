"""The evaluation of a run: figures of teacher and students on the split that the recipe names."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from extracurricular.data.base import Data
from extracurricular.distributions import Distribution
from extracurricular.errors import DataError, RecipeError, TrainingError
from extracurricular.evaluation import metrics
from extracurricular.evaluation.calibrated import calibration_figures
from extracurricular.evaluation.classes import counted, each_class, without
from extracurricular.evaluation.labels import each_label
from extracurricular.evaluation.marks import marks_of
from extracurricular.evaluation.predict import check_finite
from extracurricular.evaluation.summary import summarise
from extracurricular.evaluation.targets import by_target
from extracurricular.files import json_bytes, sha256, write_if_changed, write_sealed_if_changed
from extracurricular.knowledge.fingerprint import canonical
from extracurricular.run.answers import FILE as ANSWERS
from extracurricular.run.answers import keep_answers, summed_up
from extracurricular.run.calibrated import CalibrationStage, calibrated_by
from extracurricular.run.data_sets import data_specs
from extracurricular.run.drawn import keep_draws
from extracurricular.run.judged import KEY, judgement, of_members
from extracurricular.run.network import NetworkStage
from extracurricular.run.settings import SCHEMA
from extracurricular.run.stages import Checks, Price, Stage
from extracurricular.run.teacher import TeacherPlan
from extracurricular.run.workspace import RECORD, WEIGHTS, WHOSE, Workspace
from extracurricular.teachers import Teacher

SUMMARY, METRICS = "summary.json", "metrics.json"
_TAKEN = ("steps", "seconds", "parameters")


@dataclass(frozen=True)
class EvaluationStage(Stage):
    """The stage that measures teacher and students of all seeds, and combines their figures.

    It is done anew in every run, which costs seconds, and writes only what has changed.

    Args:
        teachers: The teacher of each seed.
        students: The stage of each student and seed.
        calibrations: The calibration of those that have one.
    """

    teachers: dict[int, TeacherPlan]
    students: dict[tuple[str, int], NetworkStage]
    calibrations: dict[tuple[str, int], CalibrationStage] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """The number of steps, 0: the progress of a run counts trainings."""
        return 0

    @property
    def needs(self) -> tuple[Stage, ...]:
        """All students, and the teachers."""
        parts = [stage for teacher in self.teachers.values() for stage in teacher.stages]
        return (*parts, *self.students.values(), *self.calibrations.values())

    def is_done(self, workspace: Workspace) -> bool:
        """Return whether there are figures of finished students."""
        whole = all(stage.is_done(workspace) for stage in self.needs)
        return whole and (workspace.folder / SUMMARY).exists()

    def check(self, workspace: Workspace, checks: Checks) -> None:
        """Refuse a split without examples."""
        where = workspace.recipe.evaluation.split
        if len(workspace.evaluated(workspace.data(self.data))) == 0:
            raise RecipeError("evaluation.split", f"is {where!r}, but that split has no examples")

    def price(self, workspace: Workspace, checks: Checks) -> Price:
        """Return the number of examples that the teachers predict, as a cost."""
        count = len(workspace.evaluated(workspace.data(self.data)))
        teachers = len({teacher.path for teacher in self.teachers.values()})
        return Price(0, draws=0, questions=count * teachers)

    def do(self, workspace: Workspace) -> None:
        """Write figures and answers of each student, the draws that are shown, and the summary."""
        recipe = workspace.recipe
        known: dict[str, Distribution | None] = {}
        # The checksums of all that the figures come from, and of what is written beside them.
        files: dict[str, str] = {}
        absent: str | None = None
        teacher_rows: list[dict[str, Any]] = []
        student_rows: dict[str, list[dict[str, Any]]] = {name: [] for name in recipe.students}
        for seed, teacher in self.teachers.items():
            data = workspace.data_of(seed)
            split = workspace.evaluated(data)
            assert split.y is not None
            labels = split.y.cpu()
            if teacher.path not in known:
                try:
                    said = teacher_answers(workspace, teacher, data)
                except DataError as error:
                    if not teacher.is_stored:
                        raise
                    known[teacher.path], absent, kept = None, str(error), {"labels": labels}
                else:
                    known[teacher.path], kept = said, summed_up(said, labels)
                checksum = keep_answers(workspace.folder / teacher.path, kept)
                files[f"{teacher.path}/{ANSWERS}"] = checksum
            answers = known[teacher.path]
            row: dict[str, Any] = {"metrics": {}}
            if answers is not None:
                row |= _figures(workspace, teacher.path, answers, labels, data)
                known_of = [workspace.record(stage.path).get(KEY) for stage in teacher.trained]
                row[KEY] = of_members(known_of) or judgement(answers, labels, data)
                row |= _calibration(teacher.calibration, workspace, answers, labels)
            teacher_rows.append({**row, **teacher.taken(workspace)})
            for name, rows in student_rows.items():
                stage = self.students[name, seed]
                fitted = self.calibrations.get((name, seed))
                ask = partial(_student, workspace, stage, fitted)
                prediction = workspace.answers(stage.path, data, ask)
                found = _figures(workspace, stage.path, prediction, labels, data, answers)
                figures = found["metrics"]
                record = workspace.record(stage.path)
                own = workspace.folder / stage.path
                kept = summed_up(prediction, teacher=answers)
                files[f"{stage.path}/{ANSWERS}"] = keep_answers(own, kept)
                measured = write_if_changed(own / METRICS, json_bytes(figures))
                files[f"{stage.path}/{METRICS}"] = measured
                mastery = record.get("mastery")
                row = {**found, "mastery": mastery, **{k: record[k] for k in _TAKEN}}
                row |= _calibration(fitted, workspace, prediction, labels)
                # Runs from before it was kept are judged by these examples.
                row[KEY] = record.get(KEY) or judgement(prediction, labels, data)
                # Runs from before multiply-adds were counted have none.
                rows.append(row | {k: record.get(k) for k in ("multiply_adds", "chosen")})
        first = recipe.seeds[0]
        students = {name: self.students[name, first] for name in recipe.students}
        keep_draws(workspace, students, self.teachers[first])
        task = workspace.data_of(first).task.kind
        if absent is not None:
            figures = next(iter(student_rows.values()))[0]["metrics"]
            for row in teacher_rows:
                row["metrics"] = row["metrics"] or dict.fromkeys(figures, math.nan)
        counts = _counts(workspace.data_of(first))
        summary = summarise(recipe.dump(), task, recipe.seeds, teacher_rows, student_rows, counts)
        if absent is not None:
            summary["teacher"]["absent"] = absent
        marks = marks_of(recipe.seeds, {"teacher": teacher_rows, **student_rows})
        if marks:
            summary["marks"] = marks
        whole = [workspace.contents(spec) for spec in data_specs(recipe)]
        summary["data"] = sha256(canonical(whole))[:32]
        for part in self.needs:
            weights = workspace.record(part.path).get("sha256")
            files |= {f"{part.path}/{WEIGHTS}": weights} if weights else {}
        files[SUMMARY] = write_if_changed(workspace.folder / SUMMARY, json_bytes(summary))
        whose = {"schema": SCHEMA, WHOSE: self.path}
        record = {**whose, "done": True, "files": dict(sorted(files.items()))}
        write_sealed_if_changed(workspace.folder / self.path / RECORD, record)


def teacher_answers(workspace: Workspace, teacher: TeacherPlan, data: Data) -> Distribution:
    """Return a teacher's answers on the split that results are measured on.

    Raises:
        TrainingError: It gave NaN or infinity, or no probabilities, for some examples.
    """
    split = workspace.evaluated(data)
    try:
        said = workspace.answers(teacher.path, data, partial(workspace.made, teacher))
    except (TrainingError, ValueError) as error:
        raise TrainingError(f"{teacher.title}: {error}") from error
    check_finite(said, teacher.title, data, split)
    return said


def _student(workspace: Workspace, stage: NetworkStage, fitted: CalibrationStage | None) -> Teacher:
    return calibrated_by(stage.as_teacher(workspace), fitted, workspace)[0]


def _calibration(
    stage: CalibrationStage | None, workspace: Workspace, answers: Distribution, labels: Tensor
) -> dict[str, Any]:
    """Return the calibration of a model, and its figures; {} without one."""
    if stage is None:
        return {}
    found = stage.load(workspace)
    figures = calibration_figures(found, answers, labels)
    return {"calibration": {"fitted": found.dump(), "figures": figures}}


def _figures(
    workspace: Workspace,
    path: str,
    answers: Distribution,
    labels: Tensor,
    data: Data,
    teacher: Distribution | None = None,
) -> dict[str, Any]:
    """Return the figures of a model, over all examples and apart; they are computed once."""
    if path not in workspace.figured:
        figures = metrics.figures(answers, labels, teacher=teacher, angular=data.angular)
        found = {"metrics": figures, **_apart(answers, labels, data, figures, teacher)}
        workspace.figured[path] = found
    return dict(workspace.figured[path])


def _apart(
    answers: Distribution,
    labels: Tensor,
    data: Data,
    figures: dict[str, float],
    teacher: Distribution | None = None,
) -> dict[str, Any]:
    """Return the figures of each label, class or target alone, and those that there are not."""
    classes = each_class(answers, labels, data.classes)
    return {
        "labels": each_label(answers, labels, data.outputs),
        "classes": classes,
        "targets": by_target(answers, labels, data, teacher),
        "without": without(figures, classes, data.task.kind),
    }


def _counts(data: Data) -> dict[str, int] | None:
    """Return the number of training examples of each class; None for other tasks."""
    if data.task.kind != "classification" or data.train.y is None:
        return None
    return counted(data.train.y.cpu(), data.classes, data.task.size)
