"""The command ``xcl``: parse, call, print."""

from __future__ import annotations

import sys
from pathlib import Path

import typer
from rich.console import Console

# Each module adds its commands to the application; `xcl --help` lists them in this order.
from extracurricular.cli import (  # isort: skip
    runs as runs,
    looks as looks,
    evaluate as evaluate,
    pages as pages,
    compare as compare,
    export as export,
)
from extracurricular.cli.base import app as app
from extracurricular.cli.base import escaped
from extracurricular.errors import XclError


def main() -> None:
    """Run the command line; a user's mistake ends in one sentence and exit status 2."""
    # So that a recipe's my_file:Thing is found where the command is given; last, so that it hides
    # nothing.
    sys.path.append(str(Path.cwd()))
    try:
        app()
    except XclError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            f"[bold red]error:[/bold red] {escaped(str(error))}"
        )
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("\ninterrupted; the same command goes on from here", err=True)
        sys.exit(130)
