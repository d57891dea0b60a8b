"""What drills share: chance that can be repeated, commands that are run apart, and results."""

from __future__ import annotations

import contextlib
import io
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# One trial of so many calls ``xcl`` as users do, in a new interpreter.
REAL_EVERY = 20
# Seconds after which a command counts as hanging.
LIMIT = 300.0


class Dice(random.Random):
    """Random numbers of a drill, and of each of its trials apart from those of the others.

    Args:
        name: The seed, as a text.
        only: The number of the one trial to do; None for all.
        until: The time (:func:`time.monotonic`) after which no trial begins; None for any.
    """

    def __init__(self, name: str, only: int | None = None, until: float | None = None) -> None:
        super().__init__(name)
        self.name, self.only, self.until = name, only, until

    def trials(self, count: int) -> Iterator[tuple[int, Dice]]:
        """Yield number and dice of each trial to do; a trial is the same whatever others do."""
        for number in range(count) if self.only is None else [self.only]:
            if self.until is not None and time.monotonic() > self.until:
                return
            yield number, Dice(f"{self.name}/{number}")


@dataclass(frozen=True)
class Fault:
    """One trial that went wrong.

    Args:
        trial: Its number, for ``--only``.
        text: What was done and what came of it.
    """

    trial: int
    text: str


@dataclass(frozen=True)
class Result:
    """The outcome of a drill.

    Args:
        tried: Number of trials.
        outcomes: How often each kind of outcome came, with one or more for each trial.
        faults: The trials that went wrong.
    """

    tried: int
    outcomes: Mapping[str, int] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()


class Tally:
    """Counts outcomes and gathers faults; :meth:`result` is the result of the drill."""

    def __init__(self) -> None:
        self.tried = 0
        self.outcomes: Counter[str] = Counter()
        self.faults: list[Fault] = []

    def outcome(self, kind: str, count: int = 1) -> None:
        """Count an outcome."""
        self.outcomes[kind] += count

    def fault(self, trial: int, text: str) -> None:
        """Keep a fault, and tell of it at once."""
        self.faults.append(Fault(trial, text))
        print(f"  FAULT in trial {trial}: {text}", file=sys.stderr, flush=True)

    def result(self) -> Result:
        """Return the result."""
        return Result(self.tried, dict(self.outcomes), tuple(self.faults))


@dataclass(frozen=True)
class Ended:
    """A command that has ended.

    Args:
        status: Its exit status; negative where a signal ended it.
        out, err: What it wrote.
        seconds: How long it took.
        hung: Whether it was killed for taking longer than its limit.
    """

    status: int
    out: str
    err: str
    seconds: float
    hung: bool = False

    @property
    def text(self) -> str:
        """All that it wrote."""
        return self.out + self.err

    @property
    def fault(self) -> str | None:
        """What no command may do, whatever it is given; None where it did nothing of that."""
        if self.hung:
            return f"no end in {self.seconds:.0f} s"
        if "Traceback (most recent call last)" in self.text:
            return f"traceback: {self.text.strip().splitlines()[-1]}"
        if self.status not in (0, 2):
            return f"exit status {self.status}: {self.text.strip()[-300:]}"
        if self.status == 2 and "rror" not in self.err:
            return f"refused without a sentence: {self.text.strip()[-300:]!r}"
        return None

    @property
    def refusal(self) -> str:
        """The sentence of a refusal, in one line; empty where there was none."""
        lines = " ".join(self.err.split())
        return lines.partition("error: ")[2] if self.status == 2 else ""


def real(number: int) -> bool:
    """Return whether a trial calls a real command."""
    return number % REAL_EVERY == REAL_EVERY - 1


def xcl(
    *words: str | Path,
    cwd: Path,
    real: bool = False,
    limit: float = LIMIT,
    kill_after: float | None = None,
    file_size: int | None = None,
    first: Callable[[], object] | None = None,
) -> Ended:
    """Run an ``xcl`` command and return what came of it.

    It runs in a fork of this process, which has imported all that it needs and has no threads, so
    that it begins at once, changes nothing here, and can be killed like any process.

    Args:
        words: The words of the command behind ``xcl``.
        cwd: The folder that it runs in.
        real: Run it in a new interpreter instead, as a user would.
        limit: Seconds that it may take.
        kill_after: Seconds after which it gets SIGKILL; None for never.
        file_size: The most bytes that a file may have, as on a full disk (EFBIG).
        first: Called in the fork before the command; a real command runs without.
    """
    preload()
    told = [cwd / f".drill-{stream}" for stream in ("out", "err")]
    begin = _begin_real if real else _begin_fork
    started = time.monotonic()
    pid = begin([str(word) for word in words], cwd, told, file_size, first)
    patience = limit if kill_after is None else min(limit, kill_after)
    ended = _wait(pid, started + patience)
    hung = ended is None and patience == limit
    if ended is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    seconds = time.monotonic() - started
    out, err = (_read_and_remove(file) for file in told)
    return Ended(ended, out, err, seconds, hung)


def preload() -> None:
    """Import all that commands need, once; nothing of it starts a thread."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import extracurricular.run.preloaded  # noqa: I001
    import extracurricular.cli
    import extracurricular.report.page  # noqa: F401


def _begin_real(
    words: Sequence[str],
    cwd: Path,
    told: Sequence[Path],
    file_size: int | None,
    first: Callable[[], object] | None,
) -> int:
    command = [sys.executable, "-m", "extracurricular.cli", *words]
    with told[0].open("wb") as out, told[1].open("wb") as err:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
            preexec_fn=lambda: _limit(file_size),
        )
    process.returncode = 0  # it is waited for by its number
    return process.pid


def _begin_fork(
    words: Sequence[str],
    cwd: Path,
    told: Sequence[Path],
    file_size: int | None,
    first: Callable[[], object] | None,
) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    # The fork never returns from here.
    status = 70
    try:
        for stream, file in enumerate(told, 1):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        os.chdir(cwd)
        sys.argv = ["xcl", *words]
        _limit(file_size)
        if first is not None:
            first()
        status = _call()
    except BaseException:
        traceback.print_exc()
    finally:
        for written in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                written.flush()
        os._exit(status)


def _call() -> int:
    from extracurricular.cli import main

    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, int) or end.code is None:
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    return 0


def _limit(file_size: int | None) -> None:
    if file_size is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))


def _wait(pid: int, until: float) -> int | None:
    """Wait for a process up to a time; return its exit status, or None where it still runs."""
    handle = os.pidfd_open(pid)
    try:
        ready = select.select([handle], [], [], max(0.0, until - time.monotonic()))[0]
    finally:
        os.close(handle)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if ready else None


def _read_and_remove(file: Path) -> str:
    text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
    file.unlink(missing_ok=True)
    return text


def fresh(folder: Path) -> Path:
    """Return an empty folder at a path, whatever was there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def table(results: Mapping[str, tuple[Result, float, str]]) -> str:
    """Return the results as a Markdown table: result, seconds and command by drill."""
    text = io.StringIO()
    print("| drill | trials | outcomes | faults | minutes | command |", file=text)
    print("|---|---:|---|---:|---:|---|", file=text)
    for name, (result, seconds, command) in results.items():
        kinds = sorted(result.outcomes.items(), key=lambda pair: (-pair[1], pair[0]))
        told = ", ".join(f"{kind} {count:,}" for kind, count in kinds)
        figures = f"{len(result.faults)} | {seconds / 60:.1f} | `{command}`"
        print(f"| {name} | {result.tried:,} | {told} | {figures} |", file=text)
    return text.getvalue()
