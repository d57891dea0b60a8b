"""``xcl sweep``: its table, its JSON, its page, and mistakes in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from extracurricular.cli import app
from extracurricular.errors import XclError
from extracurricular.run.finished import open_run
from tests.run.test_sweep import SMALL, T


def test_a_sweep_ends_with_a_table_a_page_and_json(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**SMALL, "seeds": [0]}))
    given = ["sweep", str(tmp_path / "r.yaml"), "--over", f"{T}=1,4", "--jobs", "1"]
    given += ["--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*given, "defaults.training.steps=8"])
    assert done.exit_code == 0, done.output
    assert "is best by validation: xcl has" in done.output
    assert "10 stages are" not in done.output
    assert "8 stages are 5 different ones" in done.output
    text = (tmp_path / "out" / "sweep.html").read_text()
    assert text.count("/report.html") == 1
    again = CliRunner().invoke(app, [*given, "defaults.training.steps=8", "--json"])
    found = json.loads(again.stdout)
    assert [row["steps"] for row in found["rows"]] == [8, 8]
    assert open_run(tmp_path / "out" / found["rows"][0]["run"]).students == ["erm", "kd", "xcl"]
    wrong = CliRunner().invoke(app, [*given, "defaults.training.steps=9"])
    assert isinstance(wrong.exception, XclError)
    assert "steps = 8, but the recipe says 9" in str(wrong.exception)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([], "--over: is needed"),
        (["--over", "seeds=1,2"], "seeds: are never varied"),
        (["--over", "students.xcl.matching.temperatur=1,2"], "did you mean 'temperature'"),
        (["--over", f"{T}=1,2", "--halving", "2"], "--halving: is '2'"),
    ],
)
def test_mistakes_end_in_a_sentence_and_leave_nothing(
    given: list[str], sentence: str, tmp_path: Path
) -> None:
    done = CliRunner().invoke(app, ["sweep", "digits", *given, "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, XclError)
    assert sentence in str(done.exception)
    assert not (tmp_path / "out").exists()
