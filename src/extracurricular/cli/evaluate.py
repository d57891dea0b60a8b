"""The command that evaluates a trained model."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from extracurricular.cli import base
from extracurricular.cli.terminal import make_console
from extracurricular.errors import RecipeError
from extracurricular.evaluation.words import WORDS, figure_text, known


@base.app.command(rich_help_panel=base.JUDGE)
def evaluate(
    source: Annotated[
        str, typer.Argument(metavar="MODEL", help="A finished run, an ONNX file, or weights.")
    ],
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATA]",
            help="A data set, or a recipe; a run's own by default, elsewhere with path=PLACE.",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SETTING=VALUE]...", help="Settings of the data set, such as path=FILE."
        ),
    ] = None,
    student: Annotated[
        str | None, typer.Option(help="Student of the run; the recipe's subject by default.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run; all by default.")] = None,
    teacher: Annotated[
        bool, typer.Option("--teacher", help="Evaluate the run's teacher instead.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(help="Network that the weights belong to."),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Where the weights stand in their file: model_ema.")
    ] = None,
    onnx: Annotated[
        str | None,
        typer.Option(
            metavar="SETTINGS",
            help="Settings of an ONNX file from elsewhere: '{output: logits}'.",
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(help="Split of the data: test, validation or train.")
    ] = "test",
    against: Annotated[
        str | None,
        typer.Option(help="Teacher to compare with: a run or a file; a run's own by default."),
    ] = None,
    corruptions: Annotated[
        str | None,
        typer.Option(help="Measure robustness to all, or to some: gaussian_noise,blur,jpeg."),
    ] = None,
    ood: Annotated[
        str | None, typer.Option(help="Foreign data, on which the model should be less certain.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Also show figures by the values of a column of the input, or of the target.",
        ),
    ] = None,
    data_changed: Annotated[
        str,
        typer.Option(
            metavar="refuse|accept",
            help="Whether a run's own data are taken if they are not those it was made with.",
        ),
    ] = "refuse",
    score: Annotated[
        str, typer.Option(help="Uncertainty for --ood: entropy, margin or predictive_variance.")
    ] = "entropy",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    trust: base.Trust = False,
) -> None:
    """Evaluate a trained model: figures, fidelity, robustness, detection of foreign data.

    A run's student is evaluated for all its seeds.
    Figures are then mean ± standard deviation.
    """
    from extracurricular.assess.assess import Settings
    from extracurricular.assess.evaluate import evaluate as evaluate_model
    from extracurricular.evaluation.corruptions import CORRUPTIONS
    from extracurricular.recipe.lookup import find_data

    names = [] if corruptions is None else [name.strip() for name in corruptions.split(",")]
    chosen = CORRUPTIONS.names() if names == ["all"] else names
    settings = Settings(split, chosen, score=score, by=by)
    with make_console(stderr=True).status("reading") as status:
        found: Any = None
        if data is not None and "=" in data and not data.lstrip().startswith("{"):
            found = [data, *(overrides or [])]  # where a run's own data lie now
        elif data is not None:
            found = find_data(data, overrides or [], trust=trust)
        if ood is not None:
            settings = replace(settings, ood=find_data(ood, trust=trust))
        result = evaluate_model(
            source,
            found,
            settings,
            student=student,
            seed=seed,
            teacher=teacher,
            key=key,
            model=_spec(model) if onnx is None else {"onnx": _settings(onnx, model)},
            against=against,
            changed=data_changed,  # type: ignore[arg-type]
            trust=trust,
            tell=status.update,
        )
    if as_json:
        text = json.dumps(result, indent=2, allow_nan=False, ensure_ascii=False)
        sys.stdout.write(text + "\n")
    else:
        _show(result)


def _settings(text: str, model: str | None) -> Any:
    """Return the settings of an ONNX file."""
    if model is not None:
        raise RecipeError("--onnx", "is for an ONNX file, and --model for weights; give one")
    found = _spec(text)
    if not isinstance(found, dict):
        raise RecipeError("--onnx", f"is {text!r}; it must be '{{setting: value}}'")
    return found


def _spec(text: str | None) -> Any:
    if text is None or not text.lstrip().startswith("{"):
        return text
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise RecipeError("model", f"{text!r} is not valid YAML") from None


def _show(result: dict[str, Any]) -> None:
    console = base.console()
    seeds = result["seeds"] or []
    several = f", mean ± standard deviation over {len(seeds)} seeds" if len(seeds) > 1 else ""
    alone = f", seed {seeds[0]}" if len(seeds) == 1 else ""
    console.print(f"[bold]{base.escaped(result['model'])}[/bold]{alone}{several}")
    size = "" if result["parameters"] is None else f"{result['parameters']:,} parameters; "
    console.print(
        f"{size}{result['examples']:,} examples of the {result['split']} split of "
        f"{base.escaped(result['data'])}"
    )
    console.print(_list(result["metrics"]))
    if result.get("conformal"):
        from extracurricular.evaluation.calibrated import stated_sentence

        console.print(f"  {stated_sentence(result['conformal'], result['split'])}")
    if result.get("targets"):
        _show_targets(console, result["targets"])
    if result.get("labels"):
        console.print(_labels(result["labels"]))
    if result.get("classes"):
        _show_classes(console, result["classes"])
    if result.get("by"):
        _show_groups(console, result["by"])
    if result["fidelity"] is not None:
        console.print(f"[bold]Fidelity[/bold] to {base.escaped(result['against'])}")
        console.print(_list(result["fidelity"]))
    if result["corruptions"] is not None:
        _show_corruptions(console, result["corruptions"])
    if result["ood"] is not None:
        ood = result["ood"]
        console.print(
            f"[bold]Foreign data[/bold]: {ood['examples']:,} examples of "
            f"{base.escaped(ood['data'])}, detected by {ood['score']}"
        )
        console.print(_list({name: ood[name] for name in ("auroc", "fpr95")}))
    from extracurricular.evaluation.classes import absent_notes

    for note in [*absent_notes(result.get("without") or {}), *result["notes"]]:
        console.print(f"[yellow]Note:[/yellow] {base.escaped(note)}")


def _show_targets(console: Console, found: dict[str, Any]) -> None:
    from extracurricular.evaluation.targets import SHOWN

    shown = known(SHOWN)
    table = Table(box=None, padding=(0, 2, 0, 2), header_style="dim")
    table.add_column("[bold]Each target[/bold]")
    for words in shown:
        table.add_column(words.heading, justify="right")
    for name, figures in found.items():
        texts = (figure_text(words, figures[words.name]) for words in shown)
        table.add_row(base.escaped(name), *texts)
    console.print(table)


def _labels(labels: Mapping[str, Any]) -> Table:
    from extracurricular.evaluation.labels import label_rows

    table = Table(box=None, padding=(0, 2, 0, 2), header_style="dim")
    headings, rows = label_rows(labels)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left")
    for name, *texts in rows:
        table.add_row(base.escaped(name), *texts)
    return table


def _show_classes(console: Console, classes: Mapping[str, Any]) -> None:
    from extracurricular.evaluation.classes import class_rows, shown_classes

    headings, rows = class_rows(classes)
    # A narrow terminal breaks a figure before its deviation, and a heading between words.
    table = Table(box=None, padding=(0, 2, 0, 2), header_style="dim")
    table.add_column("[bold]Each class[/bold]", overflow="fold")
    for heading in headings[1:]:
        table.add_column(heading, justify="right")
    for name, *texts in rows:
        bound = (text.replace(" ± ", " ±\N{NO-BREAK SPACE}") for text in texts)
        table.add_row(base.escaped(name), *bound)
    console.print(table)
    _, left = shown_classes(classes)
    if left is not None:
        console.print(f"  [dim]{left}[/dim]")


def _show_groups(console: Console, found: Mapping[str, Any]) -> None:
    """Show the figures of each group, with the 95 % intervals over its examples."""
    rows = found["groups"]
    shown = [words for words in known(next(iter(rows.values()))) if words.name != "examples"]
    table = Table(box=None, padding=(0, 2, 0, 2), header_style="dim")
    table.add_column(f"[bold]{base.escaped(found['column'])}[/bold]", overflow="fold")
    table.add_column("examples", justify="right")
    for words in shown:
        table.add_column(words.heading, justify="right")
        table.add_column("95 %")
    for name, figures in rows.items():
        texts = []
        for words in shown:
            low, high = (
                figure_text(words, figures[f"{words.name}_{end}"], spread=False)
                for end in ("low", "high")
            )
            texts += [figure_text(words, figures[words.name], spread=False), f"{low} to {high}"]
        table.add_row(base.escaped(name), f"{figures['examples']:,}", *texts)
    console.print(table)


def _list(figures: Mapping[str, Any]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(style="dim")
    for words in known(figures):
        table.add_row(words.title, figure_text(words, figures[words.name]), words.beside)
    return table


def _show_corruptions(console: Console, found: dict[str, Any]) -> None:
    error, nll = WORDS[found["measure"]], WORDS["nll"]
    console.print(f"[bold]Robustness[/bold]: {error.heading} under corruption, by strength")
    table = Table(box=None, padding=(0, 2, 0, 2), header_style="dim")
    table.add_column()
    columns = ["1", "2", "3", "4", "5", "mean"]
    for column in columns:
        table.add_column(column, justify="right")
    rows = {base.escaped(name): entry["error"] for name, entry in found["by_name"].items()}
    for name, errors in {**rows, "[bold]mean[/bold]": found["mean"]["error"]}.items():
        table.add_row(name, *(figure_text(error, errors[c], spread=False) for c in columns))
    console.print(table)
    ratio = found["ratio"]["mean"]
    times = "" if ratio is None else f" ({ratio:.2f} times as much)"
    mean, clean = found["mean"], found["clean"]
    errors = [
        f"{figure_text(error, figure)} {error.sign}".rstrip()
        for figure in (mean["error"]["mean"], clean["error"])
    ]
    console.print(
        f"  {errors[0]} on average, {errors[1]} clean{times}; NLL "
        f"{figure_text(nll, mean['nll']['mean'])} nats, {figure_text(nll, clean['nll'])} clean"
    )
