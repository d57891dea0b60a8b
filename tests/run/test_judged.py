"""A finished network that is no better than a constant is marked, told of, and blamed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import extracurricular as xcl
from extracurricular.cli.progress import Progress
from extracurricular.errors import TrainingError
from extracurricular.files import load_weights, read_sealed, save_weights, write_sealed
from extracurricular.report.terminal import verdict


class Told:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.ended: dict[str, str] = {}
        self.sentences: list[str] = []

    def plan(self, steps: int, done: int) -> None: ...

    def begin(self, title: str, steps: int) -> None: ...

    def advance(self, title: str, step: int, loss: float | None) -> None: ...

    def end(self, title: str, steps: int, seconds: float, problem: str = "") -> None:
        self.ended[title] = problem

    def tell(self, text: str) -> None:
        self.sentences.append(text)


def recipe(folder: Path, y: Any, teacher: dict[str, Any], student: dict[str, Any]) -> Any:
    x = np.random.default_rng(0).normal(size=(len(y), 3))
    np.savez(folder / "d.npz", x=x, y=np.asarray(y(x) if callable(y) else y))
    model = {"mlp": {"hidden": [8]}}
    return xcl.parse_recipe(
        {
            "name": "t",
            "data": {"arrays": {"path": str(folder / "d.npz"), "task": "regression"}},
            "device": {"accelerator": "cpu"},
            "teacher": {"model": model, "training": teacher},
            "defaults": {"model": model, "training": student},
            "students": {"erm": {"learns_from": "labels"}, "kd": {}},
        }
    )


def plain(count: int = 120) -> Any:
    x = np.random.default_rng(0).normal(size=(count, 3))
    return 3 * x[:, 0] + 0.1 * x[:, 1]


def test_a_good_network_has_its_tick(tmp_path: Path) -> None:
    told = Told()
    settings = {"steps": 80}
    summary = xcl.execute(recipe(tmp_path, plain(), settings, settings), tmp_path / "out", told)
    assert told.ended == {"teacher 1/1": "", "erm, seed 0": "", "kd, seed 0": ""}
    assert "marks" not in summary
    record = read_sealed(tmp_path / "out/students/kd/seed-0/stage.json")["against_constant"]
    assert record["split"] == "validation"
    assert record["error"] < record["constant_error"]


def test_a_dead_teacher_is_marked_and_so_is_its_student(tmp_path: Path) -> None:
    told, out = Told(), tmp_path / "out"
    dead = {"steps": 2, "optimizer": "adamw", "lr": 1e-9}
    made = recipe(tmp_path, -plain(), dead, {"steps": 80})
    summary = xcl.execute(made, out, told)
    assert "no better than a constant: RMSE" in told.ended["teacher 1/1"]
    assert told.ended["kd, seed 0"].endswith("likely cause: its teacher, which is no better itself")
    assert told.ended["erm, seed 0"] == ""
    marked = {mark["name"]: mark["problem"] for mark in summary["marks"]}
    assert set(marked) == {"teacher", "kd"}
    assert any("the teacher is no better than a constant" in line for line in verdict(summary))
    page = (out / "report.html").read_text() if (out / "report.html").exists() else ""
    assert not page or "no better than a constant" in page
    # Gone on with, the teacher that was trained before is told of before its student begins.
    again = Told()
    student = out / "students/kd/seed-0/stage.json"
    write_sealed(student, read_sealed(student) | {"done": False})
    xcl.execute(made, out, again)
    assert any("teacher/shared/member-0 is no better" in one for one in again.sentences)


@pytest.mark.parametrize(
    ("y", "settings", "cause"),
    [
        (np.full(120, 2.5), {"steps": 20}, "the target is the same in every training example"),
        (
            np.random.default_rng(4).normal(size=120),
            {"steps": 2, "lr": 1e-9, "optimizer": "adamw"},
            "too short a training",
        ),
        (
            np.random.default_rng(5).normal(size=40),
            {"steps": 300, "weight_decay": 0.0, "lr": 0.03, "optimizer": "adamw"},
            "it knows its training examples and no others",
        ),
    ],
)
def test_the_likely_cause(tmp_path: Path, y: Any, settings: dict[str, Any], cause: str) -> None:
    told = Told()
    xcl.execute(recipe(tmp_path, y, settings, {"steps": 1}), tmp_path / "out", told)
    assert cause in told.ended["teacher 1/1"]


def test_a_loss_that_is_gone_is_blamed_on_a_teacher_that_is_none(tmp_path: Path) -> None:
    """Its answers are finite, and far from all targets."""
    made = recipe(tmp_path, plain(), {"steps": 2}, {"steps": 40, "optimizer": "sgd", "lr": 0.1})
    out = tmp_path / "out"
    xcl.execute(made, out)
    member = out / "teacher/shared/member-0"
    state = load_weights(member / "weights.safetensors")
    last = [name for name in state if name.endswith("bias")][-1]
    state[last][0] = 1e25
    record = read_sealed(member / "stage.json")
    record["sha256"] = save_weights(member / "weights.safetensors", state)
    write_sealed(
        member / "stage.json", {k: v for k, v in record.items() if k != "against_constant"}
    )
    write_sealed(
        out / "students/kd/seed-0/stage.json",
        read_sealed(out / "students/kd/seed-0/stage.json") | {"done": False},
    )
    with pytest.raises(TrainingError, match="the cause is its teacher, which is no better than"):
        xcl.execute(made, out)


def test_a_problem_has_a_cross_in_the_terminal() -> None:
    console = Console(record=True, width=120, force_terminal=False)
    progress = Progress(console)
    progress.end("kd, seed 0", 20, 1.0)
    progress.end("xcl, seed 0", 20, 1.0, "no better than a constant: …")
    good, bad, why = console.export_text().splitlines()
    assert good.startswith("  ✓ kd")
    assert bad.startswith("  ✗ xcl")
    assert why == "    no better than a constant: …"


def test_answers_of_a_dead_network_are_finite() -> None:
    raw = torch.tensor([[0.0, -1e30], [0.0, 1e30]])
    said = xcl.Task("regression", 1).distribution(raw)
    assert bool(torch.isfinite(said.nll(torch.zeros(2, 1))).all())
