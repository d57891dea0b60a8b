"""The command that ships a student."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from extracurricular.cli import base
from extracurricular.errors import RecipeError

if TYPE_CHECKING:
    from rich.table import Table

    from extracurricular.export import Shipped


class Format(StrEnum):
    """A format of an exported file."""

    onnx = "onnx"
    pt2 = "pt2"
    torch = "torch"


@base.app.command(rich_help_panel=base.SHIP)
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    student: Annotated[
        str | None, typer.Option(help="Student of the run; the recipe's subject by default.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the student; the recipe's first by default.")
    ] = None,
    format: Annotated[
        Format,
        typer.Option(
            help="onnx, which xcl.load reads, or pt2, a program of torch.export. torch is the old "
            "name of pt2."
        ),
    ] = Format.onnx,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="File to write; RUN/export/STUDENT.onnx or .pt2 by default."
        ),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Also write an ONNX file quantised to 8 bits.")
    ] = False,
    limit: Annotated[
        float, typer.Option(help="Largest allowed difference from the student.")
    ] = 1e-4,
    push: Annotated[
        str | None,
        typer.Option(
            metavar="REPO", help="Upload the files to this repository of the Hugging Face Hub."
        ),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Push to a private repository only.")
    ] = False,
    trust: base.Trust = False,
) -> None:
    """Export a student with normalisation and distribution inside, verified on real examples.

    metadata.json and a model card are written beside the file.
    Nothing is written if the file answers differently from the student.
    """
    from extracurricular.export import check_push, export_run
    from extracurricular.export import push as upload

    chosen: Literal["onnx", "pt2"] = "onnx" if format is Format.onnx else "pt2"
    if format is Format.torch:
        typer.echo("note: --format torch is called pt2 now", err=True)
    if private and push is None:
        raise RecipeError("--private", "is for --push; give --push REPO too")
    if push is not None:
        check_push(push)
    console = base.console()
    with console.status("exporting and verifying"):
        shipped = export_run(
            run,
            out,
            student=student,
            seed=seed,
            format=chosen,
            int8=int8,
            limit=limit,
            trust=trust,
        )
    for line in _lines(shipped):
        console.print(line)
    if push is not None:
        address = upload(shipped.files, push, private=private)
        console.print(f"Pushed to [bold]{base.escaped(address)}[/bold]")


def _lines(shipped: Shipped) -> list[str | Table]:
    import torch
    from rich import box
    from rich.table import Table

    from extracurricular.export.rows import cells, headings

    metadata = shipped.metadata
    form = metadata["files"][shipped.files[0].name]
    opset = f", opset {form['opset']}" if "opset" in form else ""
    name = base.escaped(shipped.title)
    lines: list[str | Table] = [
        f"[bold]{name}[/bold], seed {metadata['seed']}: {form['format']}{opset}"
    ]
    count = torch.get_num_threads()
    threads = "one thread" if count == 1 else f"{count} threads"
    verified = form["verified"]
    figures = (
        f"on {form['examples']:,} examples of the {form['split']} split"
        if verified
        else f"the student's figures are those of the {form['split']} split"
    )
    table = Table(
        caption=f"{figures}; ms of a call with so many examples, on this CPU, {threads}",
        caption_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for place, heading in enumerate(headings(shipped.rows)):
        # In a narrow terminal, headings are broken between words, and nothing else is.
        least = max(map(len, heading.split()), default=0)
        side: Literal["left", "right"] = "right" if place else "left"
        table.add_column(heading, justify=side, min_width=least, no_wrap=" " not in heading)
    for row in cells(shipped.rows):
        table.add_row(*map(base.escaped, row))
    first, *rest = (file.name for file in shipped.files)
    folder = base.escaped(str(shipped.files[0].parent))
    return [
        *lines,
        table,
        ("Verified." if verified else "Not verified: the run keeps no examples (keep: 0).")
        + f" [bold]{folder}[/bold] has {base.escaped(', '.join([first, *rest]))}",
    ]
