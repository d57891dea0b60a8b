"""The commands that run a recipe: any recipe, or a demonstration."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from extracurricular.cli import base
from extracurricular.errors import RecipeError, known_names

if TYPE_CHECKING:
    from extracurricular.recipe.schema import Recipe


@base.app.command(rich_help_panel=base.RUN)
def run(
    recipe: base.RecipeName,
    overrides: base.Overrides = None,
    out: base.Out = None,
    jobs: base.Jobs = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show the stages and their cost, and run none.")
    ] = False,
    timed: Annotated[
        bool, typer.Option("--time", help="With --plan: time a few steps of each training.")
    ] = False,
) -> None:
    """Run a recipe: teachers, students, evaluation, report.

    Finished stages are kept, and an interrupted run goes on where it stopped.
    """
    from extracurricular.recipe.read import read_recipe

    if timed and not plan:
        raise RecipeError("--time", "is for --plan; give --plan too")
    read = read_recipe(recipe, overrides or [])
    folder = out or Path("runs") / read.folder_name
    if plan:
        _show_plan(read, folder, timed)
    else:
        execute_recipe(read, folder, jobs)


@base.app.command(rich_help_panel=base.RUN)
def demo(
    name: Annotated[str, typer.Argument(help="The recipe: digits or gaze.")] = "digits",
    overrides: base.Overrides = None,
    out: base.Out = None,
    jobs: base.Jobs = None,
) -> None:
    """Run a shipped recipe: real handwritten digits, or rendered eyes and their gaze."""
    from extracurricular.recipe.read import read_recipe

    if name not in ("digits", "gaze"):
        raise RecipeError("", f"there is no demo {name!r}; {known_names(name, ['digits', 'gaze'])}")
    execute_recipe(read_recipe(name, overrides or []), out or Path("runs") / name, jobs)


def execute_recipe(recipe: Recipe, out: Path, jobs: int | None = None) -> None:
    """Run a recipe, and show the results."""
    console = base.console()
    started = time.perf_counter()
    console.print(f"[bold]{base.escaped(recipe.name)}[/bold]  {base.escaped(recipe.about)}")
    from extracurricular.cli.progress import Progress
    from extracurricular.report.terminal import classes_table, table, targets_table, verdict
    from extracurricular.report.write import ReportStage
    from extracurricular.run.execute import execute

    with Progress(console) as progress:
        summary = execute(recipe, out, progress, last=[ReportStage()], jobs=jobs)
    console.print()
    console.print(table(summary, console.width))
    for more in (targets_table(summary), classes_table(summary, console.width)):
        if more is not None:
            console.print(more)
    for line in verdict(summary):
        console.print(line)
    files = "summary.json, recipe.yaml, students/, …"
    console.print(f"Everything lies in [bold]{base.escaped(out)}[/bold]: {files}")
    page = out / "report.html"
    if page.is_file():
        console.print(f"Look at [bold]{base.escaped(page)}[/bold]")
    if progress.worked:
        console.print(f"Took {time.perf_counter() - started:.0f} s.")
    else:
        console.print("Everything was done already; nothing was trained.")


def _show_plan(recipe: Recipe, out: Path, timed: bool) -> None:
    from extracurricular.cli.plan_table import plan_lines
    from extracurricular.report.write import ReportStage
    from extracurricular.run.equal_cost import settled
    from extracurricular.run.estimate import estimate
    from extracurricular.run.plan import plan
    from extracurricular.run.workspace import Workspace

    console = base.console()
    console.print(f"[bold]{base.escaped(recipe.name)}[/bold]  {base.escaped(recipe.about)}")
    workspace = Workspace(recipe, out)
    with console.status("checking") as status:
        recipe = workspace.recipe = settled(recipe, workspace)
        found = estimate(
            plan(recipe, [ReportStage()]),
            workspace,
            timed=timed,
            tell=lambda title: status.update(f"timing {title}"),
        )
    for line in plan_lines(found):
        console.print(line)
    console.print(f"The run {workspace.arithmetic}.")
