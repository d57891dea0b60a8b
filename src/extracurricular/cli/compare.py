"""The command that compares runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from extracurricular.cli import base


@base.app.command(rich_help_panel=base.JUDGE)
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs.")],
    reference: Annotated[
        str | None,
        typer.Option(help="Student of the first run that the others are compared with."),
    ] = None,
    against: Annotated[str | None, typer.Option(hidden=True)] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="HTML file to write the page to.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    trust: base.Trust = False,
) -> None:
    """Put runs side by side: figures, paired differences over seeds, different settings.

    Each student is compared with the one of the same name in the first run.
    The students of the first run are compared with its reference.
    """
    from extracurricular.assess import compare as comparing
    from extracurricular.errors import reading
    from extracurricular.files import write_if_changed
    from extracurricular.report import comparison_table
    from extracurricular.run.finished import open_run

    if against is not None:
        typer.echo("note: --against NAME is called --reference now", err=True)
    names = comparing.labels(runs)
    summaries = {n: open_run(run, trust=trust).summary for n, run in zip(names, runs, strict=True)}
    with reading("a summary.json"):
        found = comparing.compare(summaries, reference or against)
    if out is not None:
        from extracurricular.report.comparison import render_comparison

        write_if_changed(out, render_comparison(found).encode())
    if as_json:
        json.dump(comparing.plain(found), sys.stdout, indent=2, allow_nan=False)
        sys.stdout.write("\n")
        return
    console = base.console()
    for line in comparison_table.lines(found):
        console.print(line)
    if out is not None:
        console.print(f"Look at [bold]{base.escaped(out)}[/bold]")
