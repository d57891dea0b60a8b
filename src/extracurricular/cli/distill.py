"""The command that distils one teacher into one student, without a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from extracurricular.cli import base
from extracurricular.errors import RecipeError, StorageError

if TYPE_CHECKING:
    from extracurricular.recipe.schema import Recipe
    from extracurricular.recipe.students import CalibrateSection

_WEIGHTS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")


@base.app.command(rich_help_panel=base.RUN)
def distill(
    teacher: Annotated[
        str,
        typer.Option(
            help="An ONNX file; weights, with --model; random_forest or '{NAME: {setting: value}}' "
            "for an estimator to fit; or module:function."
        ),
    ],
    data: Annotated[
        str,
        typer.Option(help="A data set: NAME, NAME:PATH or '{NAME: {setting: value}}'."),
    ],
    student: Annotated[
        str,
        typer.Option(
            help="The student's network: NAME or '{NAME: {setting: value}}'; or trees: "
            "'{estimator: gradient_boosting, draws: 20000}'."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the run; finished stages are kept.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Settings to change in the recipe."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Network that the teacher's weights belong to.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Optimiser steps; 2000 by default.", min=1)
    ] = None,
    minutes: base.Minutes = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.", min=0)] = 0,
    choose: Annotated[
        str | None,
        typer.Option(
            help="Train candidates, and finish the best by held-out KL: kd,half,auto,all, some of "
            "these, or '{NAME: {sampler: […], matching: {…}}}'."
        ),
    ] = None,
    alone: Annotated[
        bool,
        typer.Option(
            "--alone",
            help="With --choose: train no kd of as many steps as all candidates beside it.",
        ),
    ] = False,
    calibrate: Annotated[
        str | None,
        typer.Option(
            help="Calibrate the student on the validation examples: temperature, variance, "
            "conformal, some of these with commas between, or '{conformal: {coverage: 0.95}}'."
        ),
    ] = None,
) -> None:
    """Distil a teacher into a student with good defaults, and show how they compare.

    xcl evaluate, report and export take the folder, as it is that of a run.
    Its recipe.yaml is the recipe to start from for changes.
    """
    from extracurricular.cli.run import execute_recipe
    from extracurricular.predictors.load import known_data
    from extracurricular.recipe.candidates import read_text
    from extracurricular.recipe.lookup import data_spec, read_spec
    from extracurricular.recipe.read import parse_recipe
    from extracurricular.recipe.single import SAMPLER, read_trees, recipe_for, refuse_for_trees
    from extracurricular.run.calibrated import check_methods

    if alone and choose is None:
        raise RecipeError("--alone", "is for --choose; give --choose too")
    among = None if choose is None else read_text(choose, SAMPLER, "--choose")
    methods = None if calibrate is None else _methods(calibrate)
    trained = read_spec(student, "--student")
    if read_trees(trained, "--student") is not None:
        given = {"--steps": steps, "--minutes": minutes, "--choose": choose}
        refuse_for_trees(given, "--student")
    spec = data_spec(data)
    known = known_data(spec)
    if methods is not None:
        check_methods(methods, known, "--calibrate")
    values = recipe_for(
        teacher_section(teacher, model),
        trained,
        spec,
        known,
        name=out.resolve().name,
        steps=steps,
        seed=seed,
        choose=among,
        beside=not alone,
        calibrate=methods,
    )
    recipe = parse_recipe(values, overrides or [])
    _refuse_others(out, recipe)
    try:
        execute_recipe(recipe, out, minutes=minutes)
    except RecipeError as error:
        raise RecipeError(error.key, error.problem + _remedy(error)) from error


def _methods(text: str) -> CalibrateSection | None:
    """Read a calibration: methods with commas between, or YAML.

    Raises:
        RecipeError: It is neither, or a method is unknown.
    """
    import yaml

    from extracurricular.recipe.single import read_calibrate

    given: Any = [name.strip() for name in text.split(",")]
    if text.lstrip().startswith(("{", "[")):
        try:
            given = yaml.safe_load(text)
        except yaml.YAMLError:
            raise RecipeError("--calibrate", f"{text!r} is not valid YAML") from None
    return read_calibrate(given, "--calibrate")


def _refuse_others(out: Path, recipe: Recipe) -> None:
    """Refuse a folder that holds a saved student, or a run with another teacher or other students.

    Raises:
        StorageError: It does.
    """
    from extracurricular.predictors.saved import FILE
    from extracurricular.recipe.read import read_recipe

    if (out / FILE).is_file():
        raise StorageError(f"{str(out)!r} holds a saved student; choose another --out")
    if not (out / "recipe.yaml").is_file():
        return
    found = read_recipe(str(out / "recipe.yaml"), quiet=True)
    same = found.dump()["teacher"] == recipe.dump()["teacher"]
    if not same or set(found.students) != set(recipe.students):
        raise StorageError(
            f"{str(out)!r} holds a run of another recipe (its students are "
            f"{', '.join(found.students)}); choose another --out"
        )


def _remedy(error: RecipeError) -> str:
    """Return the override that reads a teacher's answers rightly; nothing where none is known."""
    from extracurricular.teachers.raw import MeansAloneError, NotProbabilitiesError

    if isinstance(error.__cause__, NotProbabilitiesError):
        return f"; on the command line {error.key}.output=logits"
    if isinstance(error.__cause__, MeansAloneError):
        return f"; on the command line {error.key}.output=mean {error.key}.std=NUMBER"
    return ""


def teacher_section(given: str, model: str | None) -> dict[str, Any]:
    """Return the section ``teacher`` of the recipe for a teacher from the command line."""
    from extracurricular.recipe.lookup import read_spec

    suffix = Path(given).suffix.lower()
    weights = suffix in _WEIGHTS
    if weights and model is None:
        raise RecipeError(
            "--model", f"is needed: {given!r} holds weights alone; name their network"
        )
    if model is not None and not weights:
        raise RecipeError("--model", f"is for weights, and --teacher is {given!r}")
    if weights and model is not None:
        return {"model": read_spec(model, "--model"), "weights": given}
    if suffix == ".onnx":
        return {"onnx": {"path": given}}
    if suffix == ".npz":
        return {"answers": {"path": given}}
    if ":" in given and not given.lstrip().startswith("{"):
        return {"function": given}
    return {"estimator": read_spec(given, "--teacher")}
