"""The command that records a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from extracurricular.cli import base

if TYPE_CHECKING:
    from extracurricular.recipe.schema import Recipe


@base.app.command(rich_help_panel=base.RUN)
def record(
    recipe: base.RecipeName,
    draws: Annotated[int, typer.Option(help="Number of draws in the record.", min=1)],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the record; its draws are kept.")
    ],
    overrides: base.Overrides = None,
    student: Annotated[
        str | None,
        typer.Option(help="Student that draws; by default the first that learns from the teacher."),
    ] = None,
    codec: Annotated[
        str | None,
        typer.Option(help="Storage of answers: float16, float32, uint8, uint4, '{topk: {k: 20}}'."),
    ] = None,
    members: Annotated[
        bool, typer.Option("--members", help="Store every member of an ensemble.")
    ] = False,
    run: Annotated[
        Path | None, typer.Option(help="Folder of the run with the teacher, or to train it in.")
    ] = None,
) -> None:
    """Record the teacher's answers on draws, so that no student needs to ask it again.

    An interrupted recording goes on where it stopped.
    More draws than before are appended to the record.
    Several processes share the work:
    torchrun --nproc-per-node K --no-python -- xcl record …
    """
    from extracurricular.recipe.read import read_recipe

    read = read_recipe(recipe, overrides or [])
    _record(read, run or Path("runs") / read.folder_name, out, draws, student, codec, members)


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
    from extracurricular.run.record import one_gpu_each, read_codec, record_teacher, teacher_of
    from extracurricular.run.workspace import Workspace

    one_gpu_each()
    console = base.console()
    with Progress(console) as progress:
        workspace = Workspace(recipe, folder, progress)
        spec = read_codec(codec, workspace.data_of(recipe.seeds[0]).task)
        source = teacher_of(workspace, student)
    with counting(console, "recording", draws, "draws") as advance:
        report = record_teacher(
            source, out, draws, codec=spec, members=members, on_progress=advance
        )
    rate = report.recorded / max(report.seconds, 1e-9)
    size = report.draws * report.bytes_per_draw / 1e6
    console.print(
        f"[bold]{out}[/bold] holds {report.draws:,} draws of [bold]{source.name}[/bold], "
        f"{report.bytes_per_draw} bytes each, {size:,.1f} MB"
    )
    console.print(f"The teacher is kept in [bold]{base.escaped(folder)}[/bold].")
    for line in price_lines(report):
        console.print(line)
    if report.note is not None:
        console.print(f"[yellow]·[/yellow] {report.note}")
    if report.recorded:
        console.print(
            f"Recorded {report.recorded:,} of them in {report.seconds:.1f} s, {rate:,.0f} draws/s."
        )
    else:
        console.print("Everything was recorded already; the teacher was not asked.")
