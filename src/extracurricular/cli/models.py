"""The command that lists the networks and shows the cost of one."""

from __future__ import annotations

from typing import Annotated

import typer

from extracurricular.cli import base
from extracurricular.cli.explain import list_entries
from extracurricular.errors import RecipeError


@base.app.command(rich_help_panel=base.LOOK)
def models(
    name: Annotated[
        str | None, typer.Argument(help="A network, alone or as '{NAME: {setting: value}}'.")
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", help="Shape of an example, 3x32x32; NAME=3x32x32 for several."),
    ] = None,
    classes: Annotated[int, typer.Option(help="Number of outputs of the network.", min=1)] = 100,
) -> None:
    """List the networks, or show the cost of one: parameters, multiply-adds, time on this CPU."""
    if name is None:
        _list_models()
    else:
        _show_model(name, inputs or ["3x32x32"], classes)


def _list_models() -> None:
    list_entries("model")
    base.console().print("xcl models NAME shows the cost of one.")


def _show_model(name: str, shapes: list[str], outputs: int) -> None:
    import torch
    import yaml

    from extracurricular.models.cost import cost, read_shapes

    try:
        spec = yaml.safe_load(name) if name.lstrip().startswith("{") else name
    except yaml.YAMLError:
        raise RecipeError("", f"{name!r} is not valid YAML") from None
    found = cost(spec, inputs=read_shapes(shapes), outputs=outputs)
    console = base.console()
    given = ", ".join(shapes)
    console.print(f"[bold]{base.escaped(name)}[/bold]  {base.escaped(given)} to {outputs} outputs")
    console.print(f"parameters     {found.parameters:,}")
    console.print(f"multiply-adds  {found.multiply_adds:,}")
    count = torch.get_num_threads()
    threads = "a thread" if count == 1 else f"{count} threads"
    for batch, seconds in found.seconds.items():
        rate = batch / seconds
        console.print(
            f"batch of {batch:<5} {1e3 * seconds:.2f} ms, {rate:,.0f} examples/s (CPU, {threads})"
        )
