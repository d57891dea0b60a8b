"""Versions and hardware of a run's training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from extracurricular import __version__
from extracurricular.errors import StorageError
from extracurricular.run.environment import note_environment, trained_in

CPU = torch.device("cpu")


def test_each_place_is_noted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert trained_in(tmp_path) == []
    note_environment(tmp_path, CPU)
    before = (tmp_path / "environment.json").stat().st_mtime_ns
    note_environment(tmp_path, CPU)
    assert (tmp_path / "environment.json").stat().st_mtime_ns == before
    (first,) = trained_in(tmp_path)
    assert first["torch"] == torch.__version__
    assert first["extracurricular"] == __version__
    assert first["gpu"] is None
    # A run that goes on elsewhere keeps where it was before.
    monkeypatch.setattr("extracurricular.run.environment.cpu_name", lambda: "another")
    note_environment(tmp_path, CPU)
    assert [entry["cpu"] for entry in trained_in(tmp_path)] == [first["cpu"], "another"]


def test_what_is_no_such_file_is_passed_over_or_named(tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text('{"trained": [3]}')
    assert trained_in(tmp_path) == []
    (tmp_path / "environment.json").write_text("{")
    with pytest.raises(StorageError, match=r"environment\.json' is damaged"):
        trained_in(tmp_path)
