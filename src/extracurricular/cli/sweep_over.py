"""The command that runs a recipe with all combinations of some values."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from extracurricular.cli import base


@base.app.command(rich_help_panel=base.RUN)
def sweep(
    recipe: base.RecipeName,
    overrides: base.Overrides = None,
    over: Annotated[
        list[str] | None,
        typer.Option(
            help="Setting to vary, KEY.PATH=VALUE,VALUE; values are split at commas outside "
            "brackets and quotes. Repeat it for the cross product."
        ),
    ] = None,
    student: Annotated[
        str | None,
        typer.Option(help="Student to judge; that of the keys, or the recipe's subject, else."),
    ] = None,
    halving: Annotated[
        str | None,
        typer.Option(
            help="Parts of the steps after which the worse half stops, such as 0.25 or 0.1,0.3."
        ),
    ] = None,
    most: Annotated[
        int | None, typer.Option(help="Most combinations, 100 by default.", min=1)
    ] = None,
    pages: Annotated[
        bool,
        typer.Option(
            "--pages", help="Make the page of every run; by default that of the best alone."
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the sweep, runs/NAME-sweep by default."),
    ] = None,
    jobs: base.Jobs = None,
    on: base.On = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Run a recipe with all combinations of some values; choose the best by validation.

    Each combination is a run of its own. Equal stages, such as the teacher, are done once.
    """
    from extracurricular.cli.progress import Progress
    from extracurricular.recipe.over import MOST
    from extracurricular.recipe.read import read_recipe
    from extracurricular.report.sweep import write_sweep
    from extracurricular.report.sweep_table import sentences, sweep_table
    from extracurricular.run.sweep import Wanted, do_sweep

    base_recipe = read_recipe(recipe, overrides or [], quiet=True)
    folder = out or Path("runs") / f"{base_recipe.folder_name}-sweep"
    console = base.console(stderr=as_json)
    wanted = Wanted(recipe, over or [], overrides or [], student, halving, most or MOST)
    console.print(
        f"[bold]{base.escaped(base_recipe.name)}[/bold]  {base.escaped(base_recipe.about)}"
    )
    with Progress(console) as progress:
        found = do_sweep(wanted, folder, jobs, progress, on)
        _write_pages(found, folder, progress, every=pages)
    page = write_sweep(found, folder)
    if as_json:
        json.dump(found, sys.stdout, indent=2, allow_nan=False)
        sys.stdout.write("\n")
        return
    console.print()
    console.print(sweep_table(found))
    for sentence in sentences(found):
        console.print(base.escaped(sentence))
    console.print(f"Look at [bold]{base.escaped(page)}[/bold]")
    best = next((row for row in found["rows"] if row["best"]), None)
    if best is not None:
        console.print(f"The best run is [bold]{base.escaped(folder / best['run'])}[/bold]")
    if progress.worked:
        console.print(f"Took {found['seconds']:.0f} s.")
    else:
        console.print("Everything was done already; nothing was trained.")


def _write_pages(found: dict[str, Any], folder: Path, progress: Any, *, every: bool) -> None:
    """Make the pages of all runs, or of the best alone; a failure is told, and fails nothing."""
    from extracurricular.report.write import write_report
    from extracurricular.run.finished import open_run

    rows = [row for row in found["rows"] if not row["stopped"] and (every or row["best"])]
    for run in dict.fromkeys(row["run"] for row in rows):
        try:
            finished = open_run(folder / run, trust=True)
            write_report(finished, again=False, tell=progress.tell)
        except Exception as error:
            text = " ".join(str(error).split()) or type(error).__name__
            progress.tell(f"the page of {run} could not be made: {text}")
