"""The commands that do what a recipe says."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from extracurricular.cli import base
from extracurricular.errors import RecipeError, known_names

if TYPE_CHECKING:
    from rich.console import Console

    from extracurricular.recipe.schema import Recipe
    from extracurricular.run.pipeline import Run


@base.app.command()
def run(
    recipe: base.RecipeName,
    overrides: base.Overrides = None,
    out: base.Out = None,
) -> None:
    """Do whatever of a recipe is not done yet: teachers, students, evaluation, summary.

    Run again, it does nothing; interrupted, it goes on where it was.
    """
    from extracurricular.recipe.schema import read_recipe

    read = read_recipe(recipe, overrides or [])
    _execute(read, out or Path("runs") / read.folder_name)


@base.app.command()
def generate(
    recipe: base.RecipeName,
    overrides: base.Overrides = None,
    out: base.Out = None,
) -> None:
    """Fit the generators of a recipe and look at what they draw: figures and contact sheets.

    `xcl run` with the same --out then goes on from there.
    """
    from extracurricular.cli.progress import Progress
    from extracurricular.recipe.schema import read_recipe
    from extracurricular.run.generating import table
    from extracurricular.run.pipeline import Run

    read = read_recipe(recipe, overrides or [])
    out = out or Path("runs") / read.folder_name
    console = base.console()
    console.print(f"[bold]{base.escaped(read.name)}[/bold]  {base.escaped(read.about)}")
    with Progress(console) as progress:
        found = Run(read, out, progress).generate()
    console.print(table(found))
    for path in found:
        for file in sorted((out / path).glob("*.png")):
            console.print(f"Look at [bold]{file}[/bold]")


@base.app.command()
def demo(
    name: Annotated[str, typer.Argument(help="digits or gaze.")] = "digits",
    overrides: base.Overrides = None,
    out: base.Out = None,
) -> None:
    """Run a shipped recipe: real handwritten digits, or rendered eyes and their gaze."""
    from extracurricular.recipe.schema import read_recipe

    if name not in ("digits", "gaze"):
        raise RecipeError("", f"there is no demo {name!r}; {known_names(name, ['digits', 'gaze'])}")
    _execute(read_recipe(name, overrides or []), out or Path("runs") / name)


@base.app.command()
def record(
    recipe: base.RecipeName,
    draws: Annotated[int, typer.Option(help="Draws to have in the record.", min=1)],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the record; what is there is kept.")
    ],
    overrides: base.Overrides = None,
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
    from extracurricular.recipe.schema import read_recipe

    read = read_recipe(recipe, overrides or [])
    _record(read, run or Path("runs") / read.folder_name, out, draws, student, codec, members)


def _execute(recipe: Recipe, out: Path) -> None:
    console = base.console()
    started = time.perf_counter()
    console.print(f"[bold]{base.escaped(recipe.name)}[/bold]  {base.escaped(recipe.about)}")
    from extracurricular.cli.progress import Progress
    from extracurricular.evaluation.summary import table, verdict
    from extracurricular.run.pipeline import Run

    with Progress(console) as progress:
        run = Run(recipe, out, progress)
        summary = run.execute()
    console.print()
    console.print(table(summary))
    for line in verdict(summary):
        console.print(line)
    console.print(f"Everything lies in [bold]{out}[/bold]: summary.json, recipe.yaml, students/, …")
    _report(run, summary, console)
    if progress.worked:
        console.print(f"Took {time.perf_counter() - started:.0f} s.")
    else:
        console.print("Everything was done already; nothing was trained.")


def _report(run: Run, summary: dict[str, Any], console: Console) -> None:
    """Make the page of a run if it is missing or shows something else."""
    from extracurricular.report.write import write_report
    from extracurricular.run.finished import Finished

    try:
        write_report(Finished(run.folder, run, summary), again=False)
    except Exception as error:
        # The run is done and its figures are written; a page can be made at any time.
        said = " ".join(str(error).split()) or type(error).__name__
        console.print(
            f"  [yellow]·[/yellow] the report could not be made: {base.escaped(said)}; "
            f"`xcl report {base.escaped(run.folder)}` tries again"
        )
        return
    console.print(f"Look at [bold]{base.escaped(run.folder / 'report.html')}[/bold]")


def _record(
    recipe: Recipe,
    folder: Path,
    out: Path,
    draws: int,
    student: str | None,
    codec: str | None,
    members: bool,
) -> None:
    from extracurricular.cli.progress import Progress, counting
    from extracurricular.knowledge import price_lines
    from extracurricular.run.pipeline import Run
    from extracurricular.run.recording import one_gpu_each, read_codec, record_run, teacher_of

    one_gpu_each()
    console = base.console()
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
