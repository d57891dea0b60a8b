"""``xcl run --plan``, and the groups of commands."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from tests.cli.called import xcl
from tests.run.test_run import TINY


def test_the_plan_is_shown_and_nothing_is_done(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**TINY, "seeds": [0]}))
    done = xcl("run", str(tmp_path / "r.yaml"), "--plan", "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert re.search(r"kd, seed 0 +30 +480 +100 ", done.stdout)
    assert "7 of 7 stages remain: 150 steps" in done.stdout
    assert re.search(r"The run computes in (32-true|bf16-mixed) on \w+ \(pre", done.stdout)
    assert not (tmp_path / "run").exists()
    timed = xcl("run", str(tmp_path / "r.yaml"), "--plan", "--time", "--out", str(tmp_path / "run"))
    assert re.search(r"The trainings take [\d.]+ to [\d.]+ s on this machine", timed.stdout)
    assert not (tmp_path / "run").exists()


def test_a_finished_run_has_nothing_to_do(digits_run: Path) -> None:
    done = xcl("run", str(digits_run / "recipe.yaml"), "--plan", "--out", str(digits_run))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("✓") >= 9


def test_time_needs_a_plan(tmp_path: Path) -> None:
    done = xcl("run", "digits", "--time", "--out", str(tmp_path / "run"))
    assert done.returncode == 2
    assert "--time: is for --plan" in done.stderr
    assert not (tmp_path / "run").exists()


def test_commands_stand_in_groups() -> None:
    text = xcl("--help").stdout
    places = [text.index(f"─ {group} ") for group in ("Run", "Look", "Judge", "Ship")]
    assert places == sorted(places)
    for group, verb in (("Run", "distill"), ("Look", "recipes"), ("Judge", "compare")):
        section = text[text.index(f"─ {group} ") :]
        assert f"│ {verb} " in section[: section.index("╰")]


def test_an_old_word_gives_one_line(tmp_path: Path) -> None:
    students = {"kd": {"matching": {"hard": 0.1}}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**TINY, "students": students}))
    done = xcl("run", str(tmp_path / "r.yaml"), "--plan", "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("note: recipe: students.kd.matching.hard is called label_weight now")
