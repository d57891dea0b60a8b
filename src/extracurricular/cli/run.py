"""The commands that run a recipe: any recipe, or a demonstration."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from extracurricular.cli import base
from extracurricular.errors import RecipeError, known_names

if TYPE_CHECKING:
    from rich.console import Console

    from extracurricular.recipe.schema import Recipe
    from extracurricular.run.stages import Stage


@base.app.command(rich_help_panel=base.RUN)
def run(
    recipe: base.RecipeName,
    overrides: base.Overrides = None,
    out: base.Out = None,
    jobs: base.Jobs = None,
    on: base.On = None,
    minutes: base.Minutes = None,
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
        _show_plan(cut_to(read, folder, minutes, jobs, base.console()), folder, timed)
    else:
        execute_recipe(read, folder, jobs, minutes, on=on)


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


def cut_to(
    recipe: Recipe, out: Path, minutes: float | None, jobs: int | None, console: Console
) -> Recipe:
    """Return a recipe that ends within a time, after a sentence on what was chosen."""
    if minutes is None:
        return recipe
    from extracurricular.run.within import within

    with console.status("timing") as status:
        found, sentence = within(
            recipe, out, minutes, jobs, lambda title: status.update(f"timing {title}")
        )
    console.print(base.escaped(sentence))
    return found


def execute_recipe(
    recipe: Recipe,
    out: Path,
    jobs: int | None = None,
    minutes: float | None = None,
    console: Console | None = None,
    on: str | None = None,
) -> None:
    """Run a recipe, and show the results.

    Args:
        recipe: The recipe.
        out: Folder of the run.
        jobs: Stages at once; None for as many as the cores allow.
        minutes: The time in which it must end; None for as long as it takes.
        console: The console to write to; standard output where None.
        on: The Ray cluster that does the stages; None for this machine.
    """
    console = console or base.console()
    started = time.perf_counter()
    console.print(f"[bold]{base.escaped(recipe.name)}[/bold]  {base.escaped(recipe.about)}")
    recipe = cut_to(recipe, out, minutes, jobs, console)
    from extracurricular.cli.progress import Progress
    from extracurricular.report.terminal import classes_table, table, targets_table, verdict
    from extracurricular.run.execute import execute

    with Progress(console) as progress:
        summary = execute(recipe, out, progress, last=last_stages(recipe), jobs=jobs, on=on)
    console.print()
    console.print(table(summary, console.width))
    for more in (targets_table(summary), classes_table(summary, console.width)):
        if more is not None:
            console.print(more)
    for line in verdict(summary):
        console.print(line)
    show_front(recipe, out, console)
    files = "summary.json, recipe.yaml, students/, …"
    console.print(f"Everything lies in [bold]{base.escaped(out)}[/bold]: {files}")
    page = out / "report.html"
    if page.is_file():
        console.print(f"Look at [bold]{base.escaped(page)}[/bold]")
    if progress.worked:
        console.print(f"Took {time.perf_counter() - started:.0f} s.")
    else:
        console.print("Everything was done already; nothing was trained.")


def last_stages(recipe: Recipe) -> list[Stage]:
    """Return the stages at the end of a run: the front, if the recipe has one, and the page."""
    from extracurricular.report.write import ReportStage

    if not recipe.front:
        return [ReportStage()]
    from extracurricular.export.front import FrontStage

    return [FrontStage(), ReportStage()]


def show_front(recipe: Recipe, out: Path, console: Console) -> None:
    """Show the front of a finished run as a table, with the best student within the limits."""
    if not recipe.front:
        return
    from extracurricular.cli.front_table import front_table
    from extracurricular.export.front import read_front, report

    found = read_front(out)
    if found is None:
        return
    told = report(found, recipe)
    console.print(front_table(told))
    console.print(base.escaped(told["sentence"]))


def _show_plan(recipe: Recipe, out: Path, timed: bool) -> None:
    from extracurricular.cli.plan_table import plan_lines
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
            plan(recipe, last_stages(recipe)),
            workspace,
            timed=timed,
            tell=lambda title: status.update(f"timing {title}"),
        )
    for line in plan_lines(found):
        console.print(line)
    console.print(f"The run {workspace.arithmetic}.")
