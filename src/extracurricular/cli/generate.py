"""The command that fits the generators of a recipe."""

from __future__ import annotations

from pathlib import Path

from extracurricular.cli import base


@base.app.command(rich_help_panel=base.RUN)
def generate(
    recipe: base.RecipeName,
    overrides: base.Overrides = None,
    out: base.Out = None,
) -> None:
    """Fit the generators of a recipe and show the quality of their draws: figures, contact sheets.

    `xcl run` with the same --out goes on from there.
    """
    from extracurricular.cli.generator_table import generator_table
    from extracurricular.cli.progress import Progress
    from extracurricular.recipe.read import read_recipe
    from extracurricular.run.execute import generate as fit

    read = read_recipe(recipe, overrides or [])
    out = out or Path("runs") / read.folder_name
    console = base.console()
    console.print(f"[bold]{base.escaped(read.name)}[/bold]  {base.escaped(read.about)}")
    with Progress(console) as progress:
        found = fit(read, out, progress)
    console.print(generator_table(found))
    for path in found:
        for file in sorted((out / path).glob("*.png")):
            console.print(f"Look at [bold]{base.escaped(file)}[/bold]")
