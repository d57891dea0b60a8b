"""The locks of a run: its folder has one process at work, and so has each stage on a cluster.

A run on a cluster has a mark in its folder: random content, which a task compares with what it was
told. So a task knows that it sees the folder, and one of an earlier run that it is to end. A task
locks its stage, looks at the mark, and works; a run locks its folder, removes the mark, and waits
until no stage is locked. So no stage is ever written by two processes at once.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from extracurricular.errors import StorageError
from extracurricular.files import sweep, telling

# Folders of stages.
_STAGES = ("teacher", "generators", "knowledge", "students", "calibration")
_DATA = re.compile(r"\.data-\d+-\d+")
# What tasks of a cluster leave in the folder of a run while it is at work.
_TASKS = ".tasks"
_MARK = "mark"
# Seconds until a process that was killed, or whose run was, has ended for certain.
_PATIENCE = 90.0
_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder against other runs while a block runs.

    What an earlier process left half-written is removed.

    Raises:
        StorageError: The folder cannot be made, another run is at work in it, or its file system
            has no locks.
    """
    handle = _opened(folder / ".lock")
    try:
        if not _take(handle, folder):
            raise StorageError(f"another run is at work in {str(folder)!r}")
        _wait_for_tasks(folder)
        sweep(folder, _STAGES)
        remove_data(folder)
        yield
    finally:
        os.close(handle)


def remove_data(folder: Path) -> None:
    """Remove the data sets that jobs share, of a run that was killed or has ended.

    Only the run that has locked the folder may have some in use.
    """
    for file in folder.glob(".data-*"):
        if _DATA.fullmatch(file.name):
            with telling(file, "remove"):
                file.unlink(missing_ok=True)


# -- stages on a cluster --------------------------------------------------------------------------


@contextmanager
def marked(folder: Path, content: str) -> Iterator[None]:
    """Put a mark into the folder of a run, which this process has locked, while a block runs."""
    tasks = folder / _TASKS
    with telling(tasks / _MARK, "write"):
        tasks.mkdir(exist_ok=True)
        (tasks / _MARK).write_text(content)
    try:
        yield
    except BaseException:
        # The locks of tasks that are still to end stay.
        (tasks / _MARK).unlink(missing_ok=True)
        raise
    shutil.rmtree(tasks, ignore_errors=True)


def has_mark(folder: Path, content: str, patience: float = 5.0) -> bool:
    """Return whether a folder has a mark; a file system of a network may show it late."""
    until = time.monotonic() + patience
    while True:
        try:
            if (folder / _TASKS / _MARK).read_text() == content:
                return True
        except (OSError, ValueError):
            pass
        if time.monotonic() > until or (folder / _TASKS / _MARK).exists():
            return False  # it never changes: another mark is that of another run
        time.sleep(0.2)


@dataclass(frozen=True)
class Attempt:
    """One attempt at a stage, whose lock it has.

    Args:
        file: The file of the lock, which names the last attempt.
        own: Its own name.
        is_first: Whether there was none before it in this run.
    """

    file: Path
    own: bytes
    is_first: bool

    @property
    def is_last(self) -> bool:
        """Whether no later one has begun, as may be where locks are those of one machine alone."""
        try:
            return self.file.read_bytes() == self.own
        except FileNotFoundError:
            return False  # another run has begun


@contextmanager
def stage_locked(folder: Path, path: str) -> Iterator[Attempt]:
    """Lock a stage against earlier attempts at it while a block runs.

    Args:
        folder: The folder of the run.
        path: The path of the stage.

    Raises:
        StorageError: An earlier attempt is still at work, and does not end.
    """
    file = folder / _TASKS / (path.replace("/", "+") + ".lock")
    handle, own = _opened(file), f"{socket.gethostname()} {os.getpid()} {time.time_ns()}".encode()
    try:
        _wait_for(handle, file, path)
        before = os.pread(handle, 1, 0)
        os.ftruncate(handle, 0)
        os.pwrite(handle, own, 0)
        yield Attempt(file, own, not before)
    finally:
        os.close(handle)


def _wait_for_tasks(folder: Path) -> None:
    """Wait until the tasks of an earlier run on a cluster have ended, and forget them."""
    if not (folder / _TASKS).is_dir():
        return
    (folder / _TASKS / _MARK).unlink(missing_ok=True)
    for file in sorted((folder / _TASKS).glob("*.lock")):
        handle = _opened(file)
        try:
            _wait_for(handle, file, file.stem.replace("+", "/"))
        finally:
            os.close(handle)
    shutil.rmtree(folder / _TASKS, ignore_errors=True)


def _wait_for(handle: int, file: Path, path: str) -> None:
    """Take the lock of a stage, as soon as the process that has it ends."""
    until = time.monotonic() + _PATIENCE
    while not _take(handle, file.parent.parent):
        if time.monotonic() > until:
            host, _, process = os.pread(handle, 300, 0).decode(errors="replace").partition(" ")
            raise StorageError(
                f"an earlier attempt at {path!r} is still at work in {str(file.parent.parent)!r}: "
                f"process {process.partition(' ')[0]} on {host}; end it, or wait until it ends"
            )
        time.sleep(0.1)


# -- files ----------------------------------------------------------------------------------------


def _opened(file: Path) -> int:
    """Open a file to lock it."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # The file is neither emptied nor found by way of a link, which may lead anywhere.
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        return os.open(file, flags, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise StorageError(f"{str(file)!r} is a link; remove it") from None
        folder = str(file.parent)
        raise StorageError(f"cannot write to {folder!r}: {error.strerror or error}") from error


def _take(handle: int, folder: Path) -> bool:
    """Take a lock, and return whether nobody has it."""
    try:
        import fcntl
    except ImportError:  # Windows has no such lock; there users must not start two runs
        return True
    try:
        # The system drops this lock when the process ends, however it ends.
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise StorageError(
            f"the file system of {str(folder)!r} has no locks ({error.strerror}), so that two runs "
            "could write there at once; choose a folder on another for --out"
        ) from None
    return True
