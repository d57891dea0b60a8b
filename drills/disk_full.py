"""The disk is full after a random amount, and later it has room again.

Either no file may grow beyond a size (``ulimit -f``), or all that the process writes together is
bounded, and one byte more gives "No space left on device". The run ends with one sentence and exit
status 2, or without the page alone. The same command then goes on, and ends bit-equal to a run
whose disk was never full.
"""

from __future__ import annotations

import builtins
import errno
import io
import math
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from drills._runs import KINDS, Base, base, differences
from drills.common import Dice, Result, Tally, real, xcl

COUNT = 40
# Bytes of the smallest file that matters, and more than all files of a small run together.
_LEAST, _MOST = 200, 3_000_000
_LARGEST = 300_000
_REASONS = ("No space left on device", "File too large")
_JOBS_EVERY = 8


def drill(dice: Dice, count: int, folder: Path) -> Result:
    """Fill the disk of ``count`` runs."""
    tally, bases, kinds = Tally(), dict[str, Base](), list(KINDS)
    for number, own in dice.trials(count):
        kind = kinds[number % len(kinds)]
        if kind not in bases:
            bases[kind] = base(kind, folder / kind)
        tally.tried += 1
        _trial(number, own, bases[kind], tally)
    return tally.result()


def _trial(number: int, dice: Dice, whole: Base, tally: Tally) -> None:
    out = whole.folder / f"trial-{number}"
    shutil.rmtree(out, ignore_errors=True)
    jobs = 2 if number % _JOBS_EVERY == _JOBS_EVERY - 1 else 1
    words = ("run", "r.yaml", "--out", out.name, "--jobs", str(jobs))
    first: Callable[[], object] | None = None
    size = None
    if real(number) or jobs > 1 or dice.random() < 0.4:
        size = _amount(dice, _LARGEST)
        what = f"no file above {size} bytes"
    else:
        room = _amount(dice, _MOST)
        first, what = partial(_bounded, room), f"{room} bytes of room"
    ended = xcl(*words, cwd=whole.folder, real=real(number), file_size=size, first=first)
    said = f"{whole.kind}, {jobs} jobs, {what}"
    reason = any(reason in ended.text for reason in _REASONS)
    if ended.fault:
        tally.fault(number, f"{said}: {ended.fault}")
        return
    if ended.status == 2:
        tally.outcome("one sentence")
        if not reason:
            tally.fault(number, f"{said}: another sentence: {ended.refusal}")
            return
    else:
        tally.outcome("the page alone is missing" if reason else "there was room")
    ended = xcl(*words, cwd=whole.folder, real=real(number))
    if ended.status != 0 or ended.fault:
        tally.fault(number, f"{said}: with room again: {ended.fault or ended.refusal}")
    elif found := differences(out, whole.run):
        tally.fault(number, f"{said}: {'; '.join(found[:5])} ({out})")
    else:
        tally.outcome("with room again bit-equal at the end")
        shutil.rmtree(out)


def _amount(dice: Dice, most: int) -> int:
    """Return a number of bytes; small ones are as likely as large ones."""
    return round(math.exp(dice.uniform(math.log(_LEAST), math.log(most))))


def _bounded(room: int) -> None:
    """Let this process write so many bytes to files, and no more."""
    left = [room]
    opened = builtins.open

    def open_(file: Any, mode: str = "r", *given: Any, **more: Any) -> Any:
        found = opened(file, mode, *given, **more)
        device = isinstance(file, int) or str(file).startswith("/dev/")
        return found if device or not set(mode) & set("wax+") else _Full(found, left)

    builtins.open = open_
    io.open = open_


class _Full:
    """A file on a disk with some room left."""

    def __init__(self, file: Any, left: list[int]) -> None:
        self._file, self._left = file, left

    def write(self, content: Any) -> int:
        size = len(content.encode()) if isinstance(content, str) else memoryview(content).nbytes
        if size > self._left[0]:
            fits = content[: self._left[0]]
            self._left[0] = 0
            self._file.write(fits)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._left[0] -= size
        return int(self._file.write(content))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Full:
        self._file.__enter__()
        return self

    def __exit__(self, *given: Any) -> None:
        self._file.__exit__(*given)
