"""Any terminal: streams that lack signs, full devices, narrow ones, names that try to steer it."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from extracurricular import cli
from extracurricular.cli.terminal import make_console, prepare_streams, safe
from extracurricular.errors import StorageError, telling_temporary
from extracurricular.report.terminal import table
from tests.report.made import made_report

HOSTILE = "a\x1b[31mb\x07c\x9b1md\u202ee\x00f\rg"


def xcl(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "extracurricular.cli", *words]
    env = {**os.environ, "NO_COLOR": "1", **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, errors="replace")


@given(st.text())
def test_safe_text_has_no_character_that_steers(text: str) -> None:
    found = safe(text)
    assert len(found) == len(text)
    assert not any((c < " " and c not in "\n\t") or "\x7f" <= c <= "\x9f" for c in found)
    assert safe(found) == found


def test_no_name_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console = make_console()
    shown = Table(HOSTILE)
    shown.add_row(HOSTILE)
    for thing in (shown, HOSTILE):
        console.print(thing, markup=False)
    console.log(HOSTILE, markup=False)
    out = capsys.readouterr().out
    assert not set(out) & set("\x1b\x07\x9b\u202e\x00\r")
    assert out.count("a�[31mb") == 4


def test_colours_and_bars_still_work() -> None:
    file = io.StringIO()
    console = make_console()
    console.file = file
    console._force_terminal = True
    console._color_system = Console(force_terminal=True, color_system="truecolor")._color_system
    with console.status("reading"):
        console.print("[bold]x[/bold]")
    assert "\x1b[1mx\x1b[0m" in file.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_every_encoding_gets_all_that_is_said(encoding: str) -> None:
    said = xcl("run", "no-such-recipe…✓", PYTHONIOENCODING=encoding)
    assert said.returncode == 2
    assert "Traceback" not in said.stderr
    assert said.stderr.startswith("error: there is no recipe file")
    found = xcl("recipes", PYTHONIOENCODING=encoding)
    assert found.returncode == 0
    assert "digits" in found.stdout


def test_plainer_signs_stand_for_those_that_a_stream_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    prepare_streams()
    print("✓ 1 ± 2 … 漢")
    sys.stdout.flush()
    assert raw.getvalue() == b"+ 1 +- 2 ... ?\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is full")
@pytest.mark.parametrize("words", [("recipes",), ("run", "digits", "--plan")])
def test_a_full_device_is_told_in_one_sentence(words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        said = subprocess.run(
            [sys.executable, "-m", "extracurricular.cli", *words],
            stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert said.returncode == 2
    assert said.stderr.strip() == "error: cannot write to standard output: No space left on device"


def test_a_reader_that_goes_away_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m extracurricular.cli recipes | head -1",
        shell=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120])
def test_a_narrow_terminal_shows_fewer_columns_and_never_fewer_digits(width: int) -> None:
    summary = made_report({"kd": 1.0, "a-rather-long-name-of-a-student": 2.0}).summary
    wide, narrow = (
        Console(width=w, file=io.StringIO(), record=True, color_system=None) for w in (400, width)
    )
    wide.print(table(summary))
    narrow.print(table(summary, width))
    shown, all_of_it = narrow.export_text(), wide.export_text()
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    figures = {word for word in all_of_it.split() if word[0].isdigit()}
    rows = shown[shown.index("teacher") :].split("\n\n")[0]
    for word in rows.replace("%", " ").split():
        assert word in figures or not word[0].isdigit()


def test_several_processes_that_torchrun_did_not_start_are_no_run() -> None:
    said = xcl("run", "digits", RANK="1", WORLD_SIZE="2")
    assert said.returncode == 2
    assert said.stderr.startswith("error: WORLD_SIZE: is 2, but LOCAL_WORLD_SIZE is not set")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_that_nobody_expected_is_one_sentence(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full() -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(cli, "app", full)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    told = " ".join(capsys.readouterr().err.split())
    assert told.startswith(f"error: there is no room: {os.strerror(number)}; see the disk")


def test_a_temporary_file_without_room_is_told_with_its_folder() -> None:
    said = f"cannot keep answers in a temporary file in '{tempfile.gettempdir()}': No space left"
    with pytest.raises(StorageError, match=said), telling_temporary("answers"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
