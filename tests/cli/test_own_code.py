"""What the user's own code raises is told by its file and line, and its traceback on demand."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from extracurricular import registry
from extracurricular.cli import main
from extracurricular.errors import TRACEBACK

CODE = """
import numpy as np


def late(child):
    def draw(ids):
        if int(ids.max()) > 99:
            raise KeyError("shard 7")
        return child(ids)
    return draw


def data(size: int = 3):
    return [][size]


def answer(x):
    return {"probs": np.ones((len(x), 10))}["probabilities"]
"""

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Write the recipe and the code, call the command, and return exit status and messages."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    # The folders of the tests before would be searched first.
    monkeypatch.setattr(registry, "_own_places", [])
    (tmp_path / "mine.py").write_text(CODE)

    def call(*arguments: str, first: tuple[str, ...] = (), **changes: object) -> tuple[int, str]:
        whole = {
            "name": "own",
            "data": {"digits": {"train": 60, "validation": 20}},
            "device": {"accelerator": "cpu"},
            "teacher": {"model": {"mlp": {"hidden": [4]}}, "training": {"steps": 5}},
            "students": {"kd": {"model": {"mlp": {"hidden": [4]}}, "training": {"steps": 60}}},
            **changes,
        }
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(whole))
        sys.modules.pop("mine", None)
        monkeypatch.setattr(
            sys, "argv", ["xcl", *first, "run", "recipe.yaml", "--out", "out", *arguments]
        )
        with pytest.raises(SystemExit) as ended:
            main()
        os.environ.pop(TRACEBACK, None)  # which --traceback sets
        return int(ended.value.code or 0), capfd.readouterr().err

    return call


def test_a_sampler_that_fails_in_the_training_is_told_with_stage_and_line(run: Run) -> None:
    code, said = run("students.kd.sampler=[empirical, 'mine:late']")
    assert code == 2
    assert said.strip() == (
        "error: kd, seed 0: your own code raised KeyError: 'shard 7' (mine.py, line 8)"
    )


def test_a_job_tells_the_same(run: Run) -> None:
    code, said = run("students.kd.sampler=[empirical, 'mine:late']", "seeds=[0, 1]", "--jobs", "2")
    assert code == 2
    assert "your own code raised KeyError: 'shard 7' (mine.py, line 8)" in said
    assert "Traceback" not in said


def test_data_of_ones_own_are_told_by_their_key(run: Run) -> None:
    code, said = run(data="mine:data")
    assert code == 2
    assert "data.mine:data: cannot be made: IndexError: " in said
    assert "(mine.py, line 14)" in said
    assert "Traceback" not in said


def test_a_teacher_of_ones_own_is_told_by_its_key(run: Run) -> None:
    code, said = run(teacher={"function": {"function": "mine:answer"}})
    assert code == 2
    assert "teacher.function: " in said
    assert "KeyError: 'probabilities' (mine.py, line 18)" in said


def test_a_file_that_cannot_be_imported_is_told(run: Run) -> None:
    Path("broken.py").write_text("x = 1 / 0")
    code, said = run("students.kd.model=broken:net")
    assert code == 2
    assert "students.kd.model: cannot import the model 'broken:net': ZeroDivisionError" in said


@pytest.mark.parametrize("by", ["option", "variable"])
def test_the_traceback_is_shown_where_it_is_asked_for(
    run: Run, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by == "variable":
        monkeypatch.setitem(os.environ, TRACEBACK, "1")
    first = ("--traceback",) if by == "option" else ()
    code, said = run("students.kd.sampler=[empirical, 'mine:late']", first=first)
    assert code == 2
    assert "Traceback (most recent call last)" in said
    assert said.strip().splitlines()[-1].startswith("error: kd, seed 0: your own code")
