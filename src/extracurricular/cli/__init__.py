"""The command ``xcl``: parse, call, print."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from pathlib import Path
from tempfile import gettempdir
from typing import TextIO

import typer

# Each module adds its commands to the application; `xcl --help` lists them in this order.
from extracurricular.cli import (  # isort: skip
    init as init,
    run as run,
    sweep as sweep,
    sweep_over as sweep_over,
    distill as distill,
    record as record,
    generate as generate,
    data as data,
    models as models,
    recipes as recipes,
    explain as explain,
    draws as draws,
    evaluate as evaluate,
    compare as compare,
    report as report,
    predict as predict,
    export as export,
)
from extracurricular.cli.base import app as app
from extracurricular.cli.base import escaped
from extracurricular.cli.terminal import make_console, prepare_streams, safe
from extracurricular.errors import (
    TOLD,
    NoteWarning,
    OldWordWarning,
    XclError,
    own_mistake,
    show_traceback,
)
from extracurricular.registry import find_own_code_in

_INTERRUPTED = 130
# Errors of a disk that is full, for a person or for all.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a note as one line, and any other warning as Python does."""
    if issubclass(category, OldWordWarning | NoteWarning):
        typer.echo(safe(f"note: {message}"), err=True)
    else:
        text = warnings.formatwarning(message, category, filename, lineno, line)
        (file or sys.stderr).write(text)


def main() -> None:
    """Run the command line; a user's mistake ends in one sentence and exit status 2."""
    # A recipe's my_file:Thing is found in the working directory.
    find_own_code_in(Path.cwd())
    if "RANK" in os.environ:  # torch warns of what several processes mean to do
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    warnings.showwarning = _show_warning
    prepare_streams()
    try:
        app()
    except XclError as error:
        _tell(error, str(error))
        sys.exit(2)
    except MemoryError as error:
        _tell(error, f"there is not enough memory: {' '.join(str(error).split())}".rstrip(": "))
        sys.exit(2)
    except OSError as error:
        # A file or a folder that failed where nobody expected it; without its name, nobody could
        # mend it.
        if error.filename is None and error.errno in _FULL:
            _tell(error, f"there is no room: {error.strerror}; see the disk, and {gettempdir()!r}")
            sys.exit(2)
        if error.filename is None:
            raise
        make_console(stderr=True, soft_wrap=True).print(
            f"[bold red]error:[/bold red] cannot use {escaped(repr(str(error.filename)))}: "
            f"{escaped(error.strerror or str(error))}"
        )
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as end:
        # Typer turns an interruption into this status by itself.
        if isinstance(end, SystemExit) and end.code != _INTERRUPTED:
            raise
        if os.environ.get(TOLD) is None:  # whoever started this process says it once
            typer.echo("\ninterrupted; the same command goes on from here", err=True)
        sys.exit(_INTERRUPTED)
    except Exception as error:
        # A mistake of the user's own code is told as one; a mistake of this package is shown whole.
        text = own_mistake(error)
        if text is None:
            raise
        _tell(error, text)
        sys.exit(2)


def _tell(error: Exception, text: str) -> None:
    """Print an error, after its traceback where that is asked for."""
    show_traceback(error)
    console = make_console(stderr=True, soft_wrap=True)
    console.print(f"[bold red]error:[/bold red] {escaped(text)}")
