"""The command line as a person meets it: exit statuses, one-line errors, the table."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from extracurricular import __version__
from extracurricular.cli import base
from extracurricular.cli.progress import Progress
from extracurricular.data.progress import reading, watched_by
from tests.cli.called import xcl
from tests.run.test_run import TINY


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(TINY))
    return file


def test_help_and_version_need_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['xcl', '--version']\n"
        "from extracurricular.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"xcl {__version__}\n"
    text = xcl("--help").stdout
    for command in ("run", "demo", "recipes"):
        assert command in text


def test_recipes_are_listed_and_shown(tmp_path: Path) -> None:
    listed = xcl("recipes")
    assert listed.returncode == 0
    assert "digits" in listed.stdout
    assert "gaze" in listed.stdout
    shown = xcl("recipes", "show", "digits")
    assert yaml.safe_load(shown.stdout)["name"] == "digits"
    assert xcl("recipes", "show", "digit").returncode == 2


def test_a_run_prints_its_table_and_where_everything_lies(recipe: Path, tmp_path: Path) -> None:
    first = xcl("run", str(recipe), "seeds=[0]", "--out", "here", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    for word in ("teacher", "erm", "kd", "xcl", "accuracy", "gap closed", "here"):
        assert word in first.stdout
    again = xcl("run", str(recipe), "seeds=[0]", "--out", "here", cwd=tmp_path)
    assert "nothing was trained" in again.stdout
    default = xcl("run", str(recipe), "seeds=[0]", "students.xcl.training.steps=31", cwd=tmp_path)
    assert (tmp_path / "runs" / "tiny" / "summary.json").is_file()
    assert "unequal budgets" in default.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "nothing.yaml"], "there is no recipe file 'nothing.yaml'"),
        (["demo", "digit"], "did you mean 'digits'"),
        (["run", "RECIPE", "seed=3"], "unknown key 'seed'; did you mean 'seeds'"),
        (["run", "RECIPE", "students.kd.model=resnt20"], "students.kd.model: unknown model"),
        (["run", "RECIPE", "seeds"], "not of the form key.path=value"),
        (["run", "RECIPE", "name='[bold]x'", "schema=7"], "schema: is 7; it should be 1"),
        (["run", "RECIPE", "--out", "/proc/nowhere"], "cannot write to '/proc/nowhere'"),
    ],
)
def test_a_mistake_ends_in_one_line_and_status_2(
    recipe: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    given = [str(recipe) if a == "RECIPE" else a for a in arguments]
    done = xcl(*given, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "runs").exists()


def test_no_command_shows_help() -> None:
    done = xcl()
    assert "Usage" in done.stdout + done.stderr


def test_an_unknown_option_is_status_2() -> None:
    assert xcl("run", "digits", "--outt", "x").returncode == 2


def test_reading_is_shown_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    terminal = Console(file=said, force_terminal=True, width=90)
    with Progress(terminal), reading("reading images", 300, "images") as tell:
        tell(300)
    assert "reading images" in said.getvalue()
    assert "/300" in said.getvalue()
    assert watched_by(None) is None
    quiet = io.StringIO()
    with Progress(Console(file=quiet)), reading("reading images", 300, "images") as tell:
        tell(300)
    assert quiet.getvalue().strip() == ""  # older versions of rich end with an empty line
    # A command without a bar of its own has one for the reading.
    monkeypatch.setattr(base, "make_console", lambda **_: terminal)
    try:
        base.console()
        said.truncate(0)
        with reading("reading a table", None, "files") as tell:
            tell(1)
        assert "reading a table" in said.getvalue()
    finally:
        watched_by(None)
