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
        Path | None, typer.Option("--out", "-o", help="Where to write it; RUN/report.html if none.")
    ] = None,
) -> None:
    """Make the page of a finished run: verdict, figures, draws, recipe, in one file.

    `xcl run` makes it at its end; this makes it anew.
    """
    from extracurricular.report.write import write_report
    from extracurricular.run.finished import open_run

    file = out or run / "report.html"
    write_report(open_run(run), file)
    base.console().print(f"Look at [bold]{base.escaped(file)}[/bold]")
