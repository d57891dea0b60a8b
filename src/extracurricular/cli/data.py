"""The command that looks at a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from extracurricular.cli import base


@base.app.command(rich_help_panel=base.LOOK)
def data(
    what: Annotated[
        str,
        typer.Argument(metavar="SPEC", help="A data set, a recipe (file or name), or a run."),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SETTING=VALUE]...", help="Settings of the data set, such as path=FILE."
        ),
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="PNG file to draw some images to.")] = None,
    trust: base.Trust = False,
) -> None:
    """Look at a data set: sizes, values, classes or targets, and anything suspicious."""
    from extracurricular.assess.survey import survey
    from extracurricular.cli import survey_table
    from extracurricular.files import write_atomic
    from extracurricular.recipe.lookup import find_data

    console = base.console()
    found = find_data(what, overrides or [], trust=trust)
    for line in survey_table.lines(found, survey(found)):
        console.print(line)
    if sheet is not None:
        write_atomic(sheet, survey_table.sheet(found))
        console.print(f"Look at [bold]{base.escaped(str(sheet))}[/bold]")
