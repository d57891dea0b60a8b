"""The command that trains a student in several sizes, and shows which goes with its target."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from extracurricular.cli import base
from extracurricular.errors import RecipeError, known_names


@base.app.command(rich_help_panel=base.RUN)
def sweep_students(
    recipe: base.RecipeName,
    overrides: base.Overrides = None,
    sizes: Annotated[
        str | None,
        typer.Option(help="Networks of the student: '[{mlp: {hidden: [16]}}, …]', or resnet8,…"),
    ] = None,
    student: Annotated[
        str | None, typer.Option(help="Student to vary; the recipe's subject by default.")
    ] = None,
    limit: Annotated[
        str | None,
        typer.Option(help="The most it may cost: ms=2,bytes=500000,multiply_adds=1000000."),
    ] = None,
    out: base.Out = None,
    jobs: base.Jobs = None,
    minutes: base.Minutes = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Run a recipe with a student in several sizes; show error against time, bytes, multiply-adds.

    The teacher and its records are made once for all sizes. Each size is exported, float and 8
    bits, and timed here; the best within the limits is named by its validation error.
    """
    from extracurricular.cli.run import execute_recipe
    from extracurricular.export.front import read_front, report
    from extracurricular.recipe.read import read_recipe

    changes = list(overrides or [])
    if limit is not None:
        changes.append(f"limit={_limit(limit)}")
    if sizes is not None:
        known = read_recipe(recipe, changes)
        name = student or known.subject
        if name not in known.students:
            raise RecipeError(
                "--student", f"is {name!r}, but the recipe has no such student; "
                f"{known_names(name, known.students)}"
            )  # fmt: skip
        changes.append(f"students.{name}.sizes={_sizes(sizes)}")
    elif student is not None:
        raise RecipeError("--student", "is for --sizes; give --sizes too")
    read = read_recipe(recipe, changes)
    if not read.front:
        raise RecipeError(
            "--sizes", f"is needed, as the recipe has no sizes of its own: --sizes "
            f"'[{{mlp: {{hidden: [16]}}}}, {{mlp: {{hidden: [64]}}}}]', or sizes: […] of "
            f"students.{read.subject}"
        )  # fmt: skip
    folder = out or Path("runs") / read.folder_name
    console = base.console(stderr=as_json)
    execute_recipe(read, folder, jobs, minutes, console)
    found = read_front(folder)
    if as_json and found is not None:
        json.dump(report(found, read), sys.stdout, indent=2, allow_nan=False)
        sys.stdout.write("\n")


def _sizes(given: str) -> str:
    """Return a list of networks as YAML; names may stand without brackets."""
    text = given.strip()
    return text if text.startswith("[") else f"[{text}]"


def _limit(given: str) -> str:
    """Return limits as YAML: ``ms=2,bytes=500000`` is ``{ms: 2, bytes: 500000}``.

    Raises:
        RecipeError: They are of another form.
    """
    text = given.strip()
    if text.startswith("{"):
        return text
    parts = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and equals and value.strip() for name, equals, value in parts):
        raise RecipeError("--limit", f"is {given!r}; it should be like ms=2,bytes=500000")
    return "{" + ", ".join(f"{name.strip()}: {value.strip()}" for name, _, value in parts) + "}"
