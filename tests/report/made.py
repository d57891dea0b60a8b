"""A report made by hand, without a run: students of any names, four classes, two seeds."""

from __future__ import annotations

from typing import Any

import torch

from extracurricular.distributions import Categorical
from extracurricular.evaluation import metrics
from extracurricular.evaluation.classes import each_class, without
from extracurricular.evaluation.summary import summarise
from extracurricular.report.collect import (
    Answers,
    Report,
    add_answers,
    compared_student,
    shown_students,
)
from extracurricular.report.logs import Curves
from tests.conftest import image_data

SEEDS = [0, 1]
# Students by name, how sharply each sees the truth. The names are what nobody would guess.
STUDENTS = {"baseline": 1.0, "plain_kd": 1.5, "ours": 3.0}
ROLES = {"reference": "plain_kd", "plain": "baseline", "subject": "ours"}


def made_report(
    students: dict[str, float] | None = None,
    roles: dict[str, str | None] | None = None,
    more: dict[str, float] | None = None,
    curves: Curves | None = None,
    names: tuple[str, ...] = ("a", "b", "c", "d"),
    counts: dict[str, int] | None = None,
) -> Report:
    """Make a report.

    Args:
        students: How sharply each student sees the truth, by name; the higher the better.
        roles: The recipe's ``reference``, ``plain`` and ``subject``.
        more: Figures that everybody has beside those that the package computes.
        curves: The curves of their trainings; none where None.
        names: Names of the classes.
        counts: Training examples of each class; unknown where None.
    """
    students = STUDENTS if students is None else students
    roles = ROLES if roles is None else roles
    size = len(names)
    data = image_data(count=60, classes=size)
    y = torch.arange(60) % size
    noise = torch.Generator().manual_seed(0)

    def said(sharpness: float) -> Categorical:
        truth = torch.nn.functional.one_hot(y, size)
        return Categorical(sharpness * truth + torch.randn(60, size, generator=noise))

    def row(prediction: Categorical, teacher: Categorical | None = None) -> dict[str, Any]:
        figures = metrics.figures(prediction, y, teacher=teacher)
        classes = each_class(prediction, y, names)
        told = {"classes": classes, "without": without(figures, classes, "classification")}
        more_figures = figures | (more or {})
        return {"metrics": more_figures, "steps": 5, "seconds": 1.0, "parameters": 10, **told}

    teacher, answers = Answers(), {name: Answers() for name in students}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ["", *students]}
    entropy = []
    for _ in SEEDS:
        best = said(6.0)
        entropy.append(best.entropy().double().numpy())
        add_answers(teacher, best, y, None, data)
        rows[""].append(row(best))
        for name, sharpness in students.items():
            prediction = said(sharpness)
            add_answers(answers[name], prediction, y, best, data)
            rows[name].append(row(prediction, best))
    recipe = {"name": "made", "about": "", "data": "made", "evaluation": {"split": "test"}, **roles}
    summary = summarise(recipe, "classification", SEEDS, rows.pop(""), rows, counts)
    times = {"1": 1e-3, "32": 2e-3}
    return Report(
        summary=summary,
        classes=names,
        examples=60,
        unit="",
        shown=shown_students(summary),
        compared=compared_student(summary),
        teacher=teacher,
        students=answers,
        teacher_entropy=entropy,
        curves=Curves() if curves is None else curves,
        latency={
            "cpu": "a CPU",
            "threads": 1,
            "teacher": times,
            "students": dict.fromkeys(students, times),
        },
        galleries=[],
        time=[],
        trained=[{"extracurricular": "9.8", "torch": "2.13.0+cpu"}],
        command="xcl run made.yaml --out again",
    )
