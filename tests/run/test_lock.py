"""The lock of a run's folder, and what may not be overwritten there."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from extracurricular.errors import StorageError
from extracurricular.files import JsonLines, read_json, read_lines, write_json
from extracurricular.recipe.read import parse_recipe
from extracurricular.run import execute as the_execute
from extracurricular.run.execute import execute
from extracurricular.run.lock import locked
from tests.run.test_run import TINY


def test_a_lock_that_is_a_link_empties_no_file(tmp_path: Path) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(victim)
    with pytest.raises(StorageError, match="is a link; remove it"), locked(tmp_path / "run"):
        pass
    assert victim.read_text() == "precious"


def test_a_folder_is_locked_for_one_and_what_lies_in_the_lock_stays(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("kept")
    with (
        locked(tmp_path),
        pytest.raises(StorageError, match="another run is at work in"),
        locked(tmp_path),
    ):
        pass
    with locked(tmp_path):
        assert (tmp_path / ".lock").read_text() == "kept"


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_said_to_be_one(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StorageError, match=r"has no locks \("), locked(tmp_path):
        pass


def test_half_written_files_of_dead_processes_are_removed_and_nobody_elses(tmp_path: Path) -> None:
    for name in ("students/kd", "mine"):
        (tmp_path / name).mkdir(parents=True)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    parts = [f".summary.json.{dead.pid}.part", f"students/kd/.w.{dead.pid}.part"]
    others = [
        *("a.part", ".hidden", ".film.mp4.part", f"mine/.film.{dead.pid}.part"),
        f"students/.w.{os.getpid()}.part",  # somebody is at work on it
    ]
    for name in (*parts, *others):
        (tmp_path / name).write_text("x")
    with locked(tmp_path):
        assert not any((tmp_path / name).exists() for name in parts)
        assert all((tmp_path / name).exists() for name in others)


def test_a_recipe_that_is_no_runs_own_is_not_overwritten(tmp_path: Path) -> None:
    mine = tmp_path / "recipe.yaml"
    mine.write_text("# my comments\n" + yaml.safe_dump(TINY))
    before = mine.read_bytes()
    with pytest.raises(StorageError, match=r"recipe\.yaml' is there and belongs to no run"):
        execute(parse_recipe(TINY), tmp_path)
    assert mine.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["recipe.yaml"]
    # Folders and files of such names are anybody's.
    (tmp_path / "teacher").mkdir()
    (tmp_path / "data.json").write_text("{}")
    with pytest.raises(StorageError, match="belongs to no run"):
        execute(parse_recipe(TINY), tmp_path)
    assert mine.read_bytes() == before


def test_a_run_that_was_stopped_after_its_first_file_goes_on(tmp_path: Path) -> None:
    recipe = parse_recipe(TINY)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text(the_execute.recipe_text(recipe))
    assert execute(recipe, tmp_path / "run")["recipe"]["name"] == TINY["name"]


def test_settings_are_compared_once_the_folder_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run trains the student between the check of a recipe and its lock."""
    checked = the_execute.check
    other = parse_recipe(TINY, ["defaults.training.lr=0.05"])

    def slow(*given: Any) -> Any:
        found = checked(*given)
        monkeypatch.setattr(the_execute, "check", checked)
        execute(other, tmp_path / "run")
        return found

    monkeypatch.setattr(the_execute, "check", slow)
    with pytest.raises(StorageError, match=r"lr"):
        execute(parse_recipe(TINY), tmp_path / "run")
    assert read_json(tmp_path / "run" / "summary.json")["recipe"] == other.dump()


def test_what_cannot_be_read_or_written_is_told_by_its_path(tmp_path: Path) -> None:
    folder = tmp_path / "a.json"
    folder.mkdir()
    with pytest.raises(StorageError, match=r"cannot read '.*a\.json': it is no file"):
        read_json(folder)
    with pytest.raises(StorageError, match=r"cannot write '.*a\.json': "):
        write_json(folder, 1)
    (tmp_path / "b.jsonl").write_bytes(b'{"step": 1}\n\xff\xfe\n')
    assert read_lines(tmp_path / "b.jsonl") == [{"step": 1}]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is full")
def test_a_log_on_a_full_disk_is_told_by_its_path(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "log.jsonl")
    log._file.close()
    log._file = Path("/dev/full").open("a")  # noqa: SIM115
    with pytest.raises(StorageError, match=r"cannot write '.*log\.jsonl': No space left"):
        log.write({"step": 1})
    log.close()


def test_data_that_jobs_shared_are_removed_after_a_run_was_killed(tmp_path: Path) -> None:
    left, own = tmp_path / ".data-123-0", tmp_path / ".data-mine"
    left.write_bytes(b"1")
    own.write_bytes(b"1")
    with locked(tmp_path):
        assert not left.exists()
        assert own.exists()
