"""The command ``xcl``: parse, call, print."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.syntax import Syntax

from extracurricular import __version__
from extracurricular.errors import RecipeError, XclError, known_names

if TYPE_CHECKING:
    from extracurricular.recipe import Recipe

app = typer.Typer(
    help="Distil a big model into a small one that closes most of the gap.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
recipes_app = typer.Typer(
    help="List the recipes that ship with xcl, or show one.", invoke_without_command=True
)
app.add_typer(recipes_app, name="recipes")

Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Folder of the run; what is done there already is kept."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Settings to change in the recipe."),
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"xcl {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe.")],
    overrides: Overrides = None,
    out: Out = None,
) -> None:
    """Do whatever of a recipe is not done yet: teachers, students, evaluation, summary.

    Run again, it does nothing; interrupted, it goes on where it was.
    """
    from extracurricular.recipe import read_recipe

    read = read_recipe(recipe, overrides or [])
    _execute(read, out or Path("runs") / read.name)


@app.command()
def generate(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe.")],
    overrides: Overrides = None,
    out: Out = None,
) -> None:
    """Fit the generators of a recipe and look at what they draw: figures and contact sheets.

    `xcl run` with the same --out then goes on from there.
    """
    from extracurricular.generating import table
    from extracurricular.pipeline import Run
    from extracurricular.progress import Progress
    from extracurricular.recipe import read_recipe

    read = read_recipe(recipe, overrides or [])
    out = out or Path("runs") / read.name
    console = _console()
    console.print(f"[bold]{read.name}[/bold]  {read.about}")
    with Progress(console) as progress:
        found = Run(read, out, progress).generate()
    console.print(table(found))
    for path in found:
        for file in sorted((out / path).glob("*.png")):
            console.print(f"Look at [bold]{file}[/bold]")


@app.command()
def demo(
    name: Annotated[str, typer.Argument(help="digits or gaze.")] = "digits",
    overrides: Overrides = None,
    out: Out = None,
) -> None:
    """Run a shipped recipe: real handwritten digits, or rendered eyes and their gaze."""
    from extracurricular.recipe import read_recipe

    if name not in ("digits", "gaze"):
        raise RecipeError("", f"there is no demo {name!r}; {known_names(name, ['digits', 'gaze'])}")
    _execute(read_recipe(name, overrides or []), out or Path("runs") / name)


@app.command()
def record(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe.")],
    draws: Annotated[int, typer.Option(help="Draws to have in the record.", min=1)],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the record; what is there is kept.")
    ],
    overrides: Overrides = None,
    student: Annotated[
        str | None, typer.Option(help="Whose sampler; the first that learns from the teacher.")
    ] = None,
    codec: Annotated[
        str | None, typer.Option(help="float16, float32, uint8, uint4 or '{topk: {k: 20}}'.")
    ] = None,
    members: Annotated[
        bool, typer.Option("--members", help="Store every member of an ensemble.")
    ] = False,
    run: Annotated[
        Path | None, typer.Option(help="Run that has the teacher, or where to train it.")
    ] = None,
) -> None:
    """Record what the teacher says about draws, so that no student needs to ask it again.

    Interrupted, it goes on where it was; with more draws than before, it appends. Several
    processes (torchrun --nproc-per-node K --no-python xcl record …) share the work.
    """
    from extracurricular.recipe import read_recipe

    read = read_recipe(recipe, overrides or [])
    _record(read, run or Path("runs") / read.name, out, draws, student, codec, members)


@app.command()
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
    from extracurricular import survey_view
    from extracurricular.storage import write_atomic
    from extracurricular.survey import find_data, survey

    console = _console()
    found = find_data(what, overrides or [])
    for line in survey_view.lines(found, survey(found)):
        console.print(line)
    if sheet is not None:
        write_atomic(sheet, survey_view.sheet(found))
        console.print(f"Look at [bold]{_escaped(str(sheet))}[/bold]")


@app.command()
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

    from extracurricular.recipe import shipped_recipes

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, text in shipped_recipes().items():
        table.add_row(f"[bold]{name}[/bold]", yaml.safe_load(text).get("about", ""))
    _console().print(table)


@recipes_app.command("show")
def show_recipe(
    name: Annotated[str, typer.Argument(help="The recipe's name, as `xcl recipes` lists it.")],
) -> None:
    """Print a recipe, to be saved and changed."""
    from extracurricular.recipe import shipped_recipes

    shipped = shipped_recipes()
    if name not in shipped:
        raise RecipeError("", f"there is no shipped recipe {name!r}; {known_names(name, shipped)}")
    console = _console()
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
        table.add_row(f"[bold]{_escaped(name)}[/bold]", _escaped(said))
    _console().print(table)
    _console().print("xcl models NAME tells what one costs.")


def _show_model(name: str, shapes: list[str], outputs: int) -> None:
    import torch
    import yaml

    from extracurricular.models.cost import cost, read_shapes

    try:
        spec = yaml.safe_load(name) if name.lstrip().startswith("{") else name
    except yaml.YAMLError:
        raise RecipeError("", f"{name!r} is not valid YAML") from None
    found = cost(spec, inputs=read_shapes(shapes), outputs=outputs)
    console = _console()
    given = ", ".join(shapes)
    console.print(f"[bold]{_escaped(name)}[/bold]  {_escaped(given)} to {outputs} outputs")
    console.print(f"parameters     {found.parameters:,}")
    console.print(f"multiply-adds  {found.multiply_adds:,}")
    count = torch.get_num_threads()
    threads = "a thread" if count == 1 else f"{count} threads"
    for batch, seconds in found.seconds.items():
        rate = batch / seconds
        console.print(
            f"batch of {batch:<5} {1e3 * seconds:.2f} ms, {rate:,.0f} examples/s (CPU, {threads})"
        )


def _console() -> Console:
    # Without a terminal (a log, a pipe) lines are as long as they need to be.
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=160)


def _execute(recipe: Recipe, out: Path) -> None:
    console = _console()
    started = time.perf_counter()
    console.print(f"[bold]{recipe.name}[/bold]  {recipe.about}")
    from extracurricular.pipeline import Run
    from extracurricular.progress import Progress
    from extracurricular.summary import table, verdict

    with Progress(console) as progress:
        summary = Run(recipe, out, progress).execute()
    console.print()
    console.print(table(summary))
    for line in verdict(summary):
        console.print(line)
    console.print(f"Everything lies in [bold]{out}[/bold]: summary.json, recipe.yaml, students/, …")
    if progress.worked:
        console.print(f"Took {time.perf_counter() - started:.0f} s.")
    else:
        console.print("Everything was done already; nothing was trained.")


def _record(
    recipe: Recipe,
    folder: Path,
    out: Path,
    draws: int,
    student: str | None,
    codec: str | None,
    members: bool,
) -> None:
    from extracurricular.knowledge import price_lines
    from extracurricular.pipeline import Run
    from extracurricular.progress import Progress, counting
    from extracurricular.recording import one_gpu_each, read_codec, record_run, teacher_of

    one_gpu_each()
    console = _console()
    with Progress(console) as progress:
        run = Run(recipe, folder, progress)
        spec = read_codec(codec, run.data.task)
        source = teacher_of(run, student)
    with counting(console, "recording", draws, "draws") as tell:
        report = record_run(source, out, draws, codec=spec, members=members, on_progress=tell)
    rate = report.recorded / max(report.seconds, 1e-9)
    size = report.draws * report.bytes_per_draw / 1e6
    console.print(
        f"[bold]{out}[/bold] holds {report.draws:,} draws of [bold]{source.name}[/bold], "
        f"{report.bytes_per_draw} bytes each, {size:,.1f} MB"
    )
    for line in price_lines(report):
        console.print(line)
    if report.recorded:
        console.print(
            f"Recorded {report.recorded:,} of them in {report.seconds:.1f} s, {rate:,.0f} draws/s."
        )
    else:
        console.print("Everything was recorded already; the teacher was not asked.")


def main() -> None:
    """Run the command line; a user's mistake ends in one sentence and exit status 2."""
    # So that a recipe's my_file:Thing is found where the command is given; last, so that it hides
    # nothing.
    sys.path.append(str(Path.cwd()))
    try:
        app()
    except XclError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            f"[bold red]error:[/bold red] {_escaped(str(error))}"
        )
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("\ninterrupted; the same command goes on from here", err=True)
        sys.exit(130)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


if __name__ == "__main__":
    main()
