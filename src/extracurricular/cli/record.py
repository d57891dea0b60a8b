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
    for line in price_lines(report):
        console.print(line)
    if report.recorded:
        console.print(
            f"Recorded {report.recorded:,} of them in {report.seconds:.1f} s, {rate:,.0f} draws/s."
        )
    else:
        console.print("Everything was recorded already; the teacher was not asked.")
