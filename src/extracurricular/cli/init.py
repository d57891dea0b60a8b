"""The command that writes a first recipe for a person's data."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table

from extracurricular.cli import base
from extracurricular.errors import RecipeError, StorageError

if TYPE_CHECKING:
    from extracurricular.assess.first_data import Found
    from extracurricular.assess.first_recipe import Choice
    from extracurricular.data.base import Data


@base.app.command(rich_help_panel=base.RUN)
def init(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A table (.csv, .tsv, .parquet, .xlsx; or several by a quoted *), a folder of "
            "images by class, shards of images (.tar), a URL of a table or of shards, an .npz "
            "file, or the name of a data set.",
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SETTING=VALUE]...", help="Settings of the data set, such as group=patient."
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Column of a table to predict; found out by default.")
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="A teacher that is there: an ONNX file; weights, with --model; the folder of a "
            "saved student; an estimator's name; module:function; or a file of its answers (.npz, "
            ".csv, .parquet). Trained here by default."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Network that the teacher's weights belong to.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write the recipe to.")] = Path(
        "recipe.yaml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Look at data, and write a commented recipe for them that runs in some minutes.

    It says what was guessed, and which setting changes it.
    """
    import torch

    from extracurricular.assess.first_data import find_first, recognised
    from extracurricular.assess.first_recipe import choose, facts_of, fitted, recipe_text
    from extracurricular.assess.first_teacher import (
        answered_pool,
        fixed_settings,
        is_answers,
        shared_id,
    )
    from extracurricular.files import write_atomic
    from extracurricular.recipe.overrides import override

    if out.exists() and not force:
        raise StorageError(f"{str(out)!r} is there already; give --force, or another --out")
    given: dict[str, Any] = {}
    for change in overrides or []:
        override(given, change)
    console = base.console()
    with console.status("reading the data") as status:
        if recognised(data)[0] == "table":
            given = {**fixed_settings(teacher, model), **given}
            if "id" not in given and teacher is not None and is_answers(Path(teacher)):
                given |= {k: v for k, v in [("id", shared_id(Path(data), Path(teacher)))] if v}
        found = find_first(data, given, target)
        facts = facts_of(found, torch.cuda.is_available())
        section, told = _teacher(teacher, model, found.data, out)
        facts = replace(facts, unlabelled=answered_pool(section, found.data))
        choice = choose(facts, section)
        name = _name(found.data.name)
        path = _path(found, out)
        beside = [
            replace(s, value=_relative(s.value, out)) if s.name in ("table", "root") else s
            for s in found.settings
        ]
        found = replace(found, settings=tuple(beside))

        def text(of: Choice) -> str:
            return recipe_text(found, of, name=name, file=shlex.quote(str(out)), path=path)

        status.update("timing a few steps of each training")
        one_seed = replace(choice, seeds=1)
        whole = _seconds(text(one_seed), out)
        choice = fitted(choice, sum(whole[0]) / 2, sum(whole[1]) / 2)
        low, high = _scaled(whole, one_seed, choice)
    write_atomic(out, text(choice).encode())
    for line in _lines(found, choice, told):
        console.print(line)
    if high:
        from extracurricular.cli.plan_table import span

        console.print(f"The trainings take {span(low, high)} on this machine, one after the other.")
    following = base.escaped(f"xcl run {shlex.quote(str(out))}")
    console.print(f"Wrote [bold]{base.escaped(out)}[/bold]. Next: [bold]{following}[/bold]")


def _teacher(
    given: str | None, model: str | None, data: Data, out: Path
) -> tuple[dict[str, Any] | None, str]:
    """Return the section ``teacher`` for a teacher that is there, and a sentence on it."""
    from extracurricular.assess.first_teacher import asked, is_answers, of_answers, of_folder
    from extracurricular.cli.distill import teacher_section

    if given is None:
        if model is not None:
            raise RecipeError("--model", "is for the weights of a --teacher; give both")
        return None, ""
    path = Path(given).expanduser()
    if path.is_dir():
        section, told = of_folder(path, data), ""
    elif is_answers(path):
        section, told = of_answers(path, data)
    else:
        if path.suffix and not path.is_file() and ":" not in given and "{" not in given:
            raise RecipeError("--teacher", f"is {given!r}, which does not exist")
        section, told = asked(teacher_section(given, model), data)
    files = ((section.get(word), "path") for word in ("onnx", "answers"))
    for holder, key in ((section, "weights"), *files):
        if isinstance(holder, dict) and key in holder:
            holder[key] = _relative(holder[key], out)
    return section, told


def _relative(path: str, out: Path) -> str:
    """Return a path as the recipe has it: relative to its folder, unless it was absolute."""
    if Path(os.path.expandvars(path)).expanduser().is_absolute():
        return path
    return os.path.relpath(path, out.absolute().parent)


def _path(found: Found, out: Path) -> str | None:
    """Return the path of the data as the recipe has it; None if they have none."""
    from extracurricular.data.remote import is_url

    path = next((s.value for s in found.settings if s.name == "path"), None)
    hub = isinstance(path, str) and found.name == "hf" and not Path(path).exists()
    return path if path is None or hub or is_url(str(path)) else _relative(str(path), out)


def _name(name: str) -> str:
    """Return a name that may be that of a folder."""
    kept = "".join(sign if sign.isalnum() or sign in "-_." else "-" for sign in name).strip("-.")
    return kept or "first"


def _seconds(text: str, out: Path) -> tuple[tuple[float, float], tuple[float, float]]:
    """Time a few steps; return the bounds of the seconds of the teacher, and of all students.

    Raises:
        XclError: The recipe cannot be run.
    """
    import yaml

    from extracurricular.recipe.paths import absolute_paths
    from extracurricular.recipe.read import parse_recipe
    from extracurricular.report.write import ReportStage
    from extracurricular.run.estimate import estimate
    from extracurricular.run.plan import plan
    from extracurricular.run.workspace import Workspace

    values = yaml.safe_load(text)
    absolute_paths(values, out.absolute().parent)
    recipe = parse_recipe(values)
    workspace = Workspace(recipe, out.absolute().parent / "runs" / recipe.folder_name)
    sums = {"teacher": [0.0, 0.0], "students": [0.0, 0.0]}
    for one in estimate(plan(recipe, [ReportStage()]), workspace, timed=True):
        if one.seconds is not None:
            is_teacher = getattr(one.stage, "key", "").startswith("teacher")
            own = sums["teacher" if is_teacher else "students"]
            own[0] += one.seconds[0]
            own[1] += one.seconds[1]
    (a, b), (c, d) = sums.values()
    return (a, b), (c, d)


def _scaled(
    whole: tuple[tuple[float, float], tuple[float, float]], before: Choice, after: Choice
) -> tuple[float, float]:
    """Return the bounds of the seconds of a run, after its steps and seeds were chosen."""
    ratio = after.training.steps / before.training.steps
    own = 1.0
    if before.teacher_training is not None and after.teacher_training is not None:
        own = after.teacher_training.steps / before.teacher_training.steps
    teacher, students = whole
    low, high = (own * t + after.seeds * ratio * s for t, s in zip(teacher, students, strict=True))
    return low, high


def _lines(found: Found, choice: Choice, told: str) -> Iterator[Any]:
    """Yield what was guessed, with what changes it, and what was found."""
    from extracurricular.assess.first_recipe import flow, task_words

    data = found.data
    sizes = (len(data.train), len(data.validation), len(data.test))
    yield (
        f"[bold]{base.escaped(data.name)}[/bold]  {task_words(data)}; {sizes[0]:,} examples to "
        f"train on, {sizes[1]:,} to validate, {sizes[2]:,} to test"
    )
    yield ""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("guessed", "why", "setting that changes it"):
        table.add_column(heading)
    for setting in found.settings:
        if not setting.given:
            key = f"data.{found.name}.{setting.name}"
            shown = flow({setting.name: setting.value})[1:-1]
            table.add_row(*map(base.escaped, (shown, " ".join(setting.why), key)))
    rows = [
        ("teacher", choice.why["teacher"] + (f" {told}" if told else ""), "teacher, or --teacher"),
        (f"students: {flow(choice.student)}", choice.why["student"], "defaults.model"),
        (choice.length, choice.why["training"], "defaults.training"),
        ("extended examples", choice.why["extended"], "students.xcl.sampler"),
        (f"{choice.seeds} seed" + "s" * (choice.seeds > 1), "", "seeds"),
    ]
    for row in rows:
        table.add_row(*map(base.escaped, row))
    yield table
    yield ""
    known = {why for setting in found.settings for why in setting.why}
    for note in data.notes:
        if note not in known:
            yield base.escaped(note)
    if found.left:
        yield "[bold yellow]Left as it is[/bold yellow]"
        for sentence in found.left:
            yield f"  • {base.escaped(sentence)}"
