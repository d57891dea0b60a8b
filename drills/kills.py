"""Runs are killed at random moments, and the same command is run again until it ends.

A run is killed by SIGKILL four times: after a random time, or right before or after the nth file
that it flushes, renames or removes. Then it runs to its end, and must be bit-equal to a run that
was never killed.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

from drills._runs import KINDS, Base, base, differences, eager
from drills.common import Dice, Result, Tally, real, xcl

COUNT = 75
KILLS = 4
# One trial of so many does its stages in two jobs, which take seconds to begin.
_JOBS_EVERY = 5
# File operations of a small run, about.
_OPERATIONS = 150


def drill(dice: Dice, count: int, folder: Path) -> Result:
    """Kill ``count`` runs."""
    tally, bases, moments = Tally(), dict[str, Base](), dict[tuple[str, bool], float]()
    kinds = list(KINDS)
    for number, own in dice.trials(count):
        kind = kinds[number % len(kinds)]
        if kind not in bases:
            bases[kind] = base(kind, folder / kind)
        tally.tried += 1
        _trial(number, own, bases[kind], tally, moments)
    return tally.result()


def _trial(
    number: int, dice: Dice, whole: Base, tally: Tally, moments: dict[tuple[str, bool], float]
) -> None:
    jobs = 2 if number % _JOBS_EVERY == _JOBS_EVERY - 1 else 1
    out = whole.folder / f"trial-{number}"
    shutil.rmtree(out, ignore_errors=True)
    words = ("run", "r.yaml", "--out", out.name, "--jobs", str(jobs))
    # A new interpreter, or the processes of jobs, begin before anything can be killed in the run.
    slow = real(number) or jobs > 1
    longest = moments.get((whole.kind, slow), whole.seconds * (4 if slow else 1))
    kills = 0
    while kills < KILLS:
        if dice.random() < 0.5 and not real(number):
            at = dice.randrange(1, _OPERATIONS)
            hook: Callable[[], object] = partial(_die, at, dice.random() < 0.5)
            ended = xcl(*words, cwd=whole.folder, first=hook)
        else:
            after = dice.uniform(0.05, longest)
            ended = xcl(*words, cwd=whole.folder, real=real(number), kill_after=after, first=eager)
        if ended.status == -signal.SIGKILL and not ended.hung:
            kills += 1
            continue
        # It came to its end before the kill: the next kill needs another beginning.
        if not _judge(number, ended.fault or (ended.status and ended.text), out, whole, tally):
            return
        if slow and real(number):
            moments[whole.kind, slow] = ended.seconds
        shutil.rmtree(out, ignore_errors=True)
    tally.outcome("kills", kills)
    ended = xcl(*words, cwd=whole.folder, real=real(number), first=eager)
    if _judge(number, ended.fault or (ended.status and ended.text), out, whole, tally):
        tally.outcome("bit-equal at the end")
        shutil.rmtree(out)


def _judge(number: int, said: object, out: Path, whole: Base, tally: Tally) -> bool:
    if said:
        tally.fault(number, f"{whole.kind}: {str(said)[-600:]}")
        return False
    found = differences(out, whole.run)
    if found:
        tally.fault(number, f"{whole.kind}: {'; '.join(found[:5])} ({out})")
    return not found


def _die(at: int, before: bool) -> None:
    """Kill this process at its nth file operation, before or after it."""
    eager()
    left = [at]

    def deadly(operation: Callable[..., object]) -> Callable[..., object]:
        def do(*given: object, **more: object) -> object:
            left[0] -= 1
            if before and left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            found = operation(*given, **more)
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        return do

    for name in ("replace", "fsync", "unlink", "mkdir"):
        setattr(os, name, deadly(getattr(os, name)))
