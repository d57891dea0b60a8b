"""The command that ranks the draws of a recipe before any student is trained."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from extracurricular.cli import base
from extracurricular.cli.terminal import make_console
from extracurricular.errors import RecipeError

if TYPE_CHECKING:
    from extracurricular.run.plan import Plan
    from extracurricular.run.watcher import Watcher
    from extracurricular.run.workspace import Workspace


@base.app.command(rich_help_panel=base.LOOK)
def draws(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe, or the folder of a finished run.")
    ],
    overrides: base.Overrides = None,
    samplers: Annotated[
        str | None,
        typer.Option(
            help="Samplers to rank beside those of the students: standard ones by name (all that "
            "fit the data by default), or a YAML file of samplers by name."
        ),
    ] = None,
    count: Annotated[int, typer.Option(help="Draws of each sampler.")] = 4096,
    run: Annotated[
        Path | None,
        typer.Option(help="Folder of the run with the teacher, or to train it in."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the sheets of draws; RUN/draws by default."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    trust: base.Trust = False,
) -> None:
    """Rank the draws that students would learn from, by the teacher alone, and show some.

    The teacher is trained first if it is not there; no student is.
    """
    from extracurricular.assess.candidates import candidates, chosen
    from extracurricular.assess.draws import rank
    from extracurricular.assess.draws_sheet import write_draws
    from extracurricular.cli.draws_table import lines
    from extracurricular.cli.progress import Progress
    from extracurricular.files import write_json

    console = make_console(stderr=True) if as_json else base.console()
    with Progress(console) as progress:
        workspace, whole = _opened(recipe, overrides or [], run, progress, trust)
        with workspace.looking():
            found = rank(
                workspace,
                whole,
                lambda data: candidates(whole.recipe, data, chosen(samplers, data)),
                count,
            )
    folder = out or workspace.folder / "draws"
    plain = {"recipe": whole.recipe.name, **found.plain()}
    write_json(folder / "draws.json", plain)
    files = [write_draws(one, found.data, folder) for one in found.ranked]
    if as_json:
        sys.stdout.write(json.dumps(plain, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
        return
    console.print(
        f"[bold]{base.escaped(whole.recipe.name)}[/bold]  {base.escaped(found.data.name)}"
    )
    for line in lines(found):
        console.print(line)
    for file in files:
        console.print(f"Look at [bold]{base.escaped(file)}[/bold]")


def _opened(
    source: str, overrides: list[str], run: Path | None, watcher: Watcher, trust: bool
) -> tuple[Workspace, Plan]:
    """Return the workspace and the stages of a recipe, or of a finished run."""
    from extracurricular.recipe.read import read_recipe
    from extracurricular.recipe.ships import shipped_recipes
    from extracurricular.run.equal_cost import settled
    from extracurricular.run.finished import open_run
    from extracurricular.run.plan import plan
    from extracurricular.run.workspace import Workspace

    folder = Path(source)
    if (folder / "recipe.yaml").is_file() or (folder.is_dir() and source not in shipped_recipes()):
        if overrides:
            problem = f"{overrides[0]!r} would change a finished run"
            raise RecipeError("", f"{problem}; give the recipe instead of {source!r}, and --run")
        if run is not None:
            problem = f"is {str(run)!r}, but {source!r} is a run and has the teacher"
            raise RecipeError("--run", f"{problem}; leave one of them out")
        finished = open_run(folder, trust=trust)
        return finished.workspace, finished.plan
    read = read_recipe(source, overrides)
    workspace = Workspace(read, run or Path("runs") / read.folder_name, watcher)
    workspace.recipe = settled(read, workspace)
    return workspace, plan(workspace.recipe)
