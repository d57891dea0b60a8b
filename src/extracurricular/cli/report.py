"""The command that makes the page of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from extracurricular.cli import base


@base.app.command(rich_help_panel=base.JUDGE)
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write; RUN/report.html by default.")
    ] = None,
    trust: base.Trust = False,
) -> None:
    """Make the page of a finished run, one file with verdict, figures, draws and recipe.

    `xcl run` makes the page at its end; this command makes it again.
    """
    from extracurricular.report.write import write_report
    from extracurricular.run.finished import open_run

    file = out or run / "report.html"
    console = base.console()
    found = open_run(run, trust=trust)
    write_report(found, file, tell=lambda text: console.print(base.escaped(text)))
    console.print(f"Look at [bold]{base.escaped(file)}[/bold]")
