"""Failures of the system that nobody foresaw end in one sentence too."""

from __future__ import annotations

import errno
import os

import pytest

from extracurricular import cli


def test_a_file_that_fails_unforeseen_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), "a[/b]/stage.json")

    monkeypatch.setattr(cli, "app", fails)
    monkeypatch.setattr(cli, "prepare_streams", lambda: None)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert told == "error: cannot use 'a[/b]/stage.json': Permission denied\n"


def test_an_error_without_a_file_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(cli, "app", fails)
    monkeypatch.setattr(cli, "prepare_streams", lambda: None)
    with pytest.raises(OSError, match="Input/output error"):
        cli.main()
