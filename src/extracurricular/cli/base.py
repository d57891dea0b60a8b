"""The parts that commands share: the application, the console, and common options."""

from __future__ import annotations

import os
from functools import partial
from importlib.metadata import version as installed
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from extracurricular.cli.terminal import make_console
from extracurricular.errors import TRACEBACK

app = typer.Typer(
    help="Distil a big model into a small one that closes most of the gap.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

# Groups of commands, in the order in which `xcl --help` shows them.
RUN = "Run"
LOOK = "Look"
JUDGE = "Judge"
SHIP = "Ship"

RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped recipe.")
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", help="Folder of the run, runs/NAME by default; finished stages are kept."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Settings to change in the recipe."),
]

Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Import code that the folder names (module:attribute); trust its author."
    ),
]

Jobs = Annotated[
    int | None,
    typer.Option(
        help="Stages to do at once, each in a process of its own; as many as the cores allow by "
        "default. No number depends on it.",
        min=1,
    ),
]

On = Annotated[
    str | None,
    typer.Option(
        "--on",
        help="Do stages on a Ray cluster: ray, for the one of RAY_ADDRESS or for one that is "
        "started for the run with --jobs workers; or ray://HOST:PORT.",
    ),
]

Minutes = Annotated[
    float | None,
    typer.Option(
        help="Time in which to end: steps, sizes and candidates are chosen to fit, by timed steps."
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"xcl {installed('extracurricular')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    traceback: Annotated[
        bool,
        typer.Option("--traceback", help="Show where an error was raised, before its sentence."),
    ] = False,
) -> None:
    if traceback:
        os.environ[TRACEBACK] = "1"


def console(stderr: bool = False) -> Console:
    """Return the console of standard output, which shows the reading of data on a terminal.

    Args:
        stderr: Whether it is that of standard error, as standard output holds JSON.
    """
    found = make_console(stderr=stderr)
    if not found.is_terminal:
        # Lines are not wrapped at 80 columns without a terminal (a log, a pipe).
        return make_console(stderr=stderr, width=160)
    from extracurricular.cli.progress import counting
    from extracurricular.data.progress import watched_by

    watched_by(partial(counting, found))
    return found


def escaped(text: object) -> str:
    """Return text with its markup escaped."""
    return escape(str(text))
