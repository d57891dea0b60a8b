"""What the commands share: the application, the console, and the options of several of them."""

from __future__ import annotations

from importlib.metadata import version as installed
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

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
    typer.Option("--out", "-o", help="Folder of the run; what is done there already is kept."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Settings to change in the recipe."),
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
) -> None:
    pass


def console() -> Console:
    """Return the console of standard output."""
    # Without a terminal (a log, a pipe) lines are as long as they need to be.
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=160)


def escaped(text: object) -> str:
    """Return text such that none of it is read as markup."""
    return escape(str(text))
