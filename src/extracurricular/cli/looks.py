"""The commands that look: at data, networks and recipes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.syntax import Syntax

from extracurricular.cli import base
from extracurricular.errors import RecipeError, known_names

recipes_app = typer.Typer(
    help="List the recipes that ship with xcl, or show one.", invoke_without_command=True
)
base.app.add_typer(recipes_app, name="recipes")


@base.app.command()
def data(
    what: Annotated[
        str, typer.Argument(metavar="SPEC", help="A data set, or a recipe's file or name.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SETTING=VALUE]...", help="Its settings, such as path=FILE."),
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="Where to draw some images, as PNG.")] = None,
) -> None:
    """Look at a data set: sizes, values, classes or targets, and what in it looks wrong."""
    from extracurricular.assess.survey import find_data, survey
    from extracurricular.cli import survey_table
    from extracurricular.files import write_atomic

    console = base.console()
    found = find_data(what, overrides or [])
    for line in survey_table.lines(found, survey(found)):
        console.print(line)
    if sheet is not None:
        write_atomic(sheet, survey_table.sheet(found))
        console.print(f"Look at [bold]{base.escaped(str(sheet))}[/bold]")


@base.app.command()
def models(
    name: Annotated[
        str | None, typer.Argument(help="A network, alone or as '{NAME: {setting: value}}'.")
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", help="Shape of an example, 3x32x32; NAME=3x32x32 for several."),
    ] = None,
    classes: Annotated[int, typer.Option(help="Outputs of the network.", min=1)] = 100,
) -> None:
    """List the networks, or tell what one costs: parameters, multiply-adds, time on this CPU."""
    if name is None:
        _list_models()
    else:
        _show_model(name, inputs or ["3x32x32"], classes)


@recipes_app.callback()
def list_recipes(context: typer.Context) -> None:
    """List the recipes that ship with xcl."""
    if context.invoked_subcommand is not None:
        return
    import yaml
    from rich.table import Table

    from extracurricular.recipe.schema import shipped_recipes

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, text in shipped_recipes().items():
        table.add_row(f"[bold]{name}[/bold]", yaml.safe_load(text).get("about", ""))
    base.console().print(table)


@recipes_app.command("show")
def show_recipe(
    name: Annotated[str, typer.Argument(help="The recipe's name, as `xcl recipes` lists it.")],
) -> None:
    """Print a recipe, to be saved and changed."""
    from extracurricular.recipe.schema import shipped_recipes

    shipped = shipped_recipes()
    if name not in shipped:
        raise RecipeError("", f"there is no shipped recipe {name!r}; {known_names(name, shipped)}")
    console = base.console()
    if console.is_terminal:
        console.print(Syntax(shipped[name], "yaml", background_color="default"))
    else:
        sys.stdout.write(shipped[name])


def _list_models() -> None:
    from rich.table import Table

    from extracurricular.models import MODELS

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name in MODELS.names():
        entry = MODELS.entry(name)
        said = (entry.__doc__ or "").strip().partition("\n")[0].replace("``", "")
        table.add_row(f"[bold]{base.escaped(name)}[/bold]", base.escaped(said))
    base.console().print(table)
    base.console().print("xcl models NAME tells what one costs.")


def _show_model(name: str, shapes: list[str], outputs: int) -> None:
    import torch
    import yaml

    from extracurricular.models.cost import cost, read_shapes

    try:
        spec = yaml.safe_load(name) if name.lstrip().startswith("{") else name
    except yaml.YAMLError:
        raise RecipeError("", f"{name!r} is not valid YAML") from None
    found = cost(spec, inputs=read_shapes(shapes), outputs=outputs)
    console = base.console()
    given = ", ".join(shapes)
    console.print(f"[bold]{base.escaped(name)}[/bold]  {base.escaped(given)} to {outputs} outputs")
    console.print(f"parameters     {found.parameters:,}")
    console.print(f"multiply-adds  {found.multiply_adds:,}")
    count = torch.get_num_threads()
    threads = "a thread" if count == 1 else f"{count} threads"
    for batch, seconds in found.seconds.items():
        rate = batch / seconds
        console.print(
            f"batch of {batch:<5} {1e3 * seconds:.2f} ms, {rate:,.0f} examples/s (CPU, {threads})"
        )
