"""The commands that list and show the recipes that ship."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.syntax import Syntax

from extracurricular.cli import base
from extracurricular.errors import RecipeError, known_names

recipes_app = typer.Typer(
    help="List the recipes that ship with xcl, or show one.", invoke_without_command=True
)
base.app.add_typer(recipes_app, name="recipes", rich_help_panel=base.LOOK)


@recipes_app.callback()
def list_recipes(context: typer.Context) -> None:
    """List the recipes that ship with xcl."""
    if context.invoked_subcommand is not None:
        return
    from rich.table import Table

    from extracurricular.recipe.ships import abouts

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, about in abouts().items():
        table.add_row(f"[bold]{name}[/bold]", base.escaped(about))
    base.console().print(table)


@recipes_app.command("show")
def show_recipe(
    name: Annotated[str, typer.Argument(help="The recipe's name, as `xcl recipes` lists it.")],
) -> None:
    """Print a recipe, to save and to change."""
    from extracurricular.recipe.ships import shipped_recipes

    shipped = shipped_recipes()
    if name not in shipped:
        raise RecipeError("", f"there is no shipped recipe {name!r}; {known_names(name, shipped)}")
    console = base.console()
    if console.is_terminal:
        console.print(Syntax(shipped[name], "yaml", background_color="default"))
    else:
        sys.stdout.write(shipped[name])
