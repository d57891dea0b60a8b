"""The command that predicts the rows of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from extracurricular.cli import base
from extracurricular.cli.progress import counting
from extracurricular.cli.terminal import drop_output, make_console


@base.app.command(rich_help_panel=base.SHIP)
def predict(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A finished run, a saved student, or an exported model (folder or .onnx file).",
        ),
    ],
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="A table (CSV, TSV, parquet, … or several by a *); or images: a folder, a file, "
            "a .zip, or a .txt with a name in each line.",
        ),
    ],
    out: Annotated[
        str,
        typer.Option("--out", "-o", help="A .parquet or .csv file; - is CSV on standard output."),
    ] = "-",
    student: Annotated[
        str | None, typer.Option(help="Student of the run; the recipe's subject by default.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Its seed; the run's first by default.")] = None,
    teacher: Annotated[
        bool, typer.Option("--teacher", help="Predict by the run's teacher instead.")
    ] = False,
    id: Annotated[
        str | None,
        typer.Option(help="Column whose values name the rows; they are counted from 0 by default."),
    ] = None,
    trust: base.Trust = False,
) -> None:
    """Predict the rows of a table or the images of a folder, however many.

    For classes: the class, a probability for each, and the entropy.
    For real targets: mean, deviation, and intervals of 50 and 90 %.
    The column unlike_training says why a row is unlike the training data.
    """
    from extracurricular.predictors.load import load
    from extracurricular.predictors.predict_files import UNLIKE, open_source, predicted
    from extracurricular.predictors.sinks import check_out, sink

    path = Path(source)
    check_out(out, path)
    # Standard output is for the predictions.
    console = make_console(stderr=True, soft_wrap=True)

    def tell(text: str) -> None:
        console.print(f"[yellow]Note:[/yellow] {base.escaped(text)}")

    predictor = load(run, student=student, seed=seed, teacher=teacher, trust=trust)
    found = open_source(predictor, path, id=id, tell=tell)
    done = odd = empty = 0
    try:
        with _bar(console, found.count, found.noun) as advance, sink(out) as write:
            for frame in predicted(predictor, found):
                write(frame)
                done += frame.height
                odd += frame.height - frame[UNLIKE].null_count()
                empty += frame[frame.columns[1]].null_count()
                advance(done)
    except BrokenPipeError:
        # The reader of a pipe, such as `head`, has enough; Python would complain at its end.
        drop_output()
        raise typer.Exit(1) from None
    where = "" if out == "-" else f" in [bold]{base.escaped(out)}[/bold]"
    text = f"{done:,} {found.noun} are predicted{where} by {base.escaped(predictor.name)}."
    if odd:
        verb = "is" if odd == 1 else "are"
        text += f" {odd:,} of them {verb} unlike the training data; the column {UNLIKE} says why."
    if empty:
        text += f" {empty:,} {'has' if empty == 1 else 'have'} no prediction."
    console.print(text)


@contextmanager
def _bar(console: Console, count: int | None, noun: str) -> Iterator[Callable[[int], None]]:
    """Show how far the work is while a block runs; without a number to reach, how much is done."""
    if count is not None:
        with counting(console, "predicting", count, noun) as advance:
            yield advance
        return
    with console.status("predicting") as status:
        yield lambda done: status.update(f"predicting, {done:,} {noun}")
