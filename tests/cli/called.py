"""Call ``xcl`` in a fork of a process that has imported it, so that a command begins at once.

The fork has the environment and the streams that a new interpreter would have. What is about the
start of an interpreter itself, such as what is imported or how streams are encoded, is tested with
real ones.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

_SECONDS = 300
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["extracurricular.run.preloaded", "extracurricular.cli"])


def xcl(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Return what came of a command.

    Args:
        arguments: The words behind ``xcl``.
        cwd: The folder that it runs in; this process's own where None.

    Raises:
        TimeoutExpired: It took too long.
    """
    where = str(Path.cwd() if cwd is None else cwd)
    with tempfile.TemporaryDirectory() as folder:
        said = [str(Path(folder) / name) for name in ("out", "err")]
        fork = _FORKS.Process(target=_call, args=(arguments, where, said, dict(os.environ)))
        fork.start()
        fork.join(_SECONDS)
        if fork.is_alive():
            fork.kill()
            raise subprocess.TimeoutExpired(["xcl", *arguments], _SECONDS)
        texts = [Path(file).read_text(encoding="utf-8") for file in said]
    return subprocess.CompletedProcess(["xcl", *arguments], fork.exitcode or 0, *texts)


def _call(
    arguments: tuple[str, ...], cwd: str, said: list[str], environment: dict[str, str]
) -> None:
    for stream, file in enumerate(said, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = ["xcl", *arguments]
    status = 1
    try:
        status = _status()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _status() -> int:
    from extracurricular.cli import main

    try:
        main()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    return 0
