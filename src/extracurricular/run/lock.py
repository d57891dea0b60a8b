"""The lock of a run's folder, in which one process is at work."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from extracurricular.errors import StorageError
from extracurricular.files import sweep, telling

# Folders of stages.
_STAGES = ("teacher", "generators", "knowledge", "students", "calibration")
_DATA = re.compile(r"\.data-\d+-\d+")
_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder against other runs while a block runs.

    What an earlier process left half-written is removed.

    Raises:
        StorageError: The folder cannot be made, another run is at work in it, or its file system
            has no locks.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The file is neither emptied nor found by way of a link, which may lead anywhere.
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        handle = os.open(folder / ".lock", flags, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise StorageError(f"{str(folder / '.lock')!r} is a link; remove it") from None
        raise StorageError(f"cannot write to {str(folder)!r}: {error.strerror or error}") from error
    try:
        _take(handle, folder)
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


def _take(handle: int, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows has no such lock; there users must not start two runs
        return
    try:
        # The system drops this lock when the process ends, however it ends.
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            raise StorageError(f"another run is at work in {str(folder)!r}") from None
        raise StorageError(
            f"the file system of {str(folder)!r} has no locks ({error.strerror}), so that two runs "
            "could write there at once; choose a folder on another for --out"
        ) from None
