"""A process of a run on several devices is killed or stopped, and the same command goes on.

A random rank of two gets SIGKILL or SIGSTOP at a random moment. Within a minute the run must end
with one sentence that names the rank, exit status 2, and no process left; then the same command
must come to the figures of a run that nothing happened to, to the last bit.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from drills._runs import Base, base, differences, eager
from drills.common import Dice, Ended, Result, Tally, xcl

COUNT = 12
RANKS = 2
# Seconds in which a run must end.
_SOON = 60.0
_STEPS = 1200


def drill(dice: Dice, count: int, folder: Path) -> Result:
    """Kill or stop a rank of ``count`` runs."""
    tally, whole = Tally(), None
    for number, own in dice.trials(count):
        whole = whole or _base(folder / "plain")
        tally.tried += 1
        _trial(number, own, whole, tally)
    return tally.result()


def _base(folder: Path) -> Base:
    """Make a recipe whose trainings take a while, and a run of it that nothing happens to."""
    training = {"steps": _STEPS, "batch_size": 16, "optimizer": "adamw", "lr": 0.01}
    training["checkpoint_every"] = 50
    model = {"mlp": {"hidden": [8]}}
    found = base(
        "plain",
        folder,
        seeds=[0],
        teacher={"model": model, "training": training},
        defaults={"model": model, "training": training},
    )
    ended = _xcl(found, found.run.name)
    if ended.status != 0:
        raise RuntimeError(f"the run on {RANKS} devices cannot be made: {ended.text[-2000:]}")
    return Base(found.kind, found.folder, ended.seconds)


def _xcl(whole: Base, out: str) -> Ended:
    shutil.rmtree(whole.folder / out, ignore_errors=True) if out == whole.run.name else None
    words = ("run", "r.yaml", "--out", out, "--devices", str(RANKS))
    return xcl(*words, cwd=whole.folder, real=True, first=eager)


def _trial(number: int, dice: Dice, whole: Base, tally: Tally) -> None:
    out = whole.folder / f"trial-{number}"
    sign = (signal.SIGKILL, signal.SIGSTOP)[number % 2]
    rank = dice.randrange(RANKS)
    while True:
        shutil.rmtree(out, ignore_errors=True)
        said, seconds, left = _disturbed(whole, out.name, sign, rank, dice)
        if said is not None:
            break
    what = f"{sign.name} of rank {rank}"
    lines = [line for line in said.err.splitlines() if line.strip()]
    if said.status != 2 or len(lines) != 1 or f"rank {rank} of {RANKS}" not in lines[0]:
        tally.fault(number, f"{what}: status {said.status}, {said.text[-600:]!r}")
        return
    if seconds > _SOON or left:
        tally.fault(number, f"{what}: ended after {seconds:.0f} s, processes left: {left}")
        return
    tally.outcome(f"{sign.name}: one sentence within {_SOON:.0f} s")
    ended = _xcl(whole, out.name)
    found = differences(out, whole.run)
    if ended.status or found:
        tally.fault(number, f"{what}: {ended.text[-600:] if ended.status else found[:5]}")
        return
    tally.outcome("bit-equal at the end")
    shutil.rmtree(out)


def _disturbed(
    whole: Base, out: str, sign: signal.Signals, rank: int, dice: Dice
) -> tuple[Ended | None, float, list[int]]:
    """Run until a random moment, send a signal to a rank, and wait for the end.

    Returns:
        What the run said, None where it ended before; the seconds that it still took; and the
        processes that are left.
    """
    command = [sys.executable, "-m", "extracurricular.cli", "run", "r.yaml", "--out", out]
    process = subprocess.Popen(
        [*command, "--devices", str(RANKS)],
        cwd=whole.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while process.poll() is None and len(ranks_of(process.pid)) < RANKS:
            time.sleep(0.05)
        until = time.monotonic() + dice.uniform(0.1, max(1.0, whole.seconds - 5))
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        ranks = ranks_of(process.pid)
        started = time.monotonic()
        if process.poll() is not None or rank not in ranks:
            process.communicate(timeout=4 * _SOON)
            return None, 0.0, []
        os.kill(ranks[rank], sign)
        try:
            told = process.communicate(timeout=4 * _SOON)
        except subprocess.TimeoutExpired:
            return Ended(-1, "", f"no end in {4 * _SOON:.0f} s", 4 * _SOON, hung=True), 0.0, []
    finally:
        if process.poll() is None:
            for one in (*ranks_of(process.pid).values(), process.pid):
                os.kill(one, signal.SIGKILL)
    seconds = time.monotonic() - started
    left = [one for one in ranks.values() if Path(f"/proc/{one}").exists()]
    ended = Ended(process.returncode, *told, seconds)
    return (None if ended.status == 0 else ended), seconds, left


def ranks_of(launcher: int) -> dict[int, int]:
    """Return the processes that a launcher has started, by their rank."""
    found: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            variables = (entry / "environ").read_bytes() if parent == launcher else b""
        except (OSError, IndexError):
            continue
        match = re.search(rb"(?:^|\0)RANK=(\d+)", variables)
        if match:
            found[int(match[1])] = int(entry.name)
    return found
