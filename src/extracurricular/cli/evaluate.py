"""The command that evaluates a trained model."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from extracurricular.cli import base
from extracurricular.errors import RecipeError

# Figures by name: what a person calls them, and the form: percent, or a format and its unit.
_FIGURES = {
    "accuracy": ("accuracy", "percent", ""),
    "rmse": ("RMSE", ".4g", "target"),
    "mae": ("MAE", ".4g", "target"),
    "angular_error": ("angular error", ".2f", "°"),
    "nll": ("NLL", ".3f", "nats"),
    "brier": ("Brier score", ".4f", ""),
    "crps": ("CRPS", ".4g", "target"),
    "ece": ("ECE", "percent", ""),
    "adaptive_ece": ("adaptive ECE", "percent", ""),
    "aurc": ("AURC", ".4f", ""),
    "coverage50": ("coverage of 50 %", "percent", ""),
    "coverage90": ("coverage of 90 %", "percent", ""),
    "coverage95": ("coverage of 95 %", "percent", ""),
    "sharpness90": ("width of 90 %", ".4g", "target"),
    "kl_to_teacher": ("KL to teacher", ".4f", "nats"),
    "js_to_teacher": ("JS to teacher", ".4f", "nats"),
    "agreement": ("agreement", "percent", ""),
    "auroc": ("AUROC", ".4f", "0.5 is chance"),
    "fpr95": ("false alarms", "percent", "where 95 % of the foreign ones are found"),
}
_ERRORS = {
    "error_rate": ("error rate", "percent", ""),
    "rmse": ("RMSE", ".4g", ""),
    "angular_error": ("angular error", ".2f", "°"),
}


@base.app.command()
def evaluate(
    source: Annotated[
        str, typer.Argument(metavar="MODEL", help="A finished run, an ONNX file, or weights.")
    ],
    data: Annotated[
        str | None,
        typer.Argument(metavar="[DATA]", help="A data set, or a recipe; a run's own by default."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SETTING=VALUE]...", help="Its settings, such as path=FILE."),
    ] = None,
    student: Annotated[str | None, typer.Option(help="Which student of the run.")] = None,
    seed: Annotated[int | None, typer.Option(help="Which seed of the run; all by default.")] = None,
    teacher: Annotated[
        bool, typer.Option("--teacher", help="Evaluate the run's teacher instead.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(help="Network of the weights; or how a foreign ONNX file is read."),
    ] = None,
    split: Annotated[str, typer.Option(help="test, validation or train.")] = "test",
    against: Annotated[
        str | None,
        typer.Option(help="Teacher to compare with: a run or a file; a run's own by default."),
    ] = None,
    corruptions: Annotated[
        str | None,
        typer.Option(help="Robustness to all, or to some: gaussian_noise,blur,jpeg."),
    ] = None,
    ood: Annotated[
        str | None, typer.Option(help="Other data, which the model should find foreign.")
    ] = None,
    score: Annotated[
        str, typer.Option(help="By what: entropy, margin or predictive_variance.")
    ] = "entropy",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Evaluate a trained model: figures, fidelity, robustness, what it finds foreign.

    All seeds of a run's student are evaluated, and told as mean ± standard deviation.
    """
    from extracurricular.assess.evaluate import Settings, evaluate_source
    from extracurricular.assess.survey import find_data
    from extracurricular.evaluation.corruptions import CORRUPTIONS

    names = [] if corruptions is None else [name.strip() for name in corruptions.split(",")]
    settings = Settings(split, CORRUPTIONS.names() if names == ["all"] else names, score=score)
    with Console(stderr=True).status("reading") as status:
        found = None if data is None else find_data(data, overrides or [])
        if ood is not None:
            settings = replace(settings, ood=find_data(ood))
        result = evaluate_source(
            source,
            found,
            settings,
            student=student,
            seed=seed,
            teacher=teacher,
            model=_spec(model),
            against=against,
            tell=status.update,
        )
    if as_json:
        text = json.dumps(result, indent=2, allow_nan=False, ensure_ascii=False)
        sys.stdout.write(text + "\n")
    else:
        _show(result)


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
    if result["fidelity"] is not None:
        console.print(f"[bold]Fidelity[/bold] to {base.escaped(result['against'])}")
        console.print(_list(result["fidelity"]))
    if result["corruptions"] is not None:
        _show_corruptions(console, result["corruptions"])
    if result["ood"] is not None:
        ood = result["ood"]
        console.print(
            f"[bold]Foreign[/bold] are {ood['examples']:,} examples of "
            f"{base.escaped(ood['data'])}, told by {ood['score']}"
        )
        console.print(_list({name: ood[name] for name in ("auroc", "fpr95")}))
    for note in result["notes"]:
        console.print(f"[yellow]Note:[/yellow] {base.escaped(note)}")


def _list(figures: dict[str, Any]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(style="dim")
    for name, (title, form, unit) in _FIGURES.items():
        if name in figures:
            unit = "in units of the target" if unit == "target" else unit
            told = f"% {unit}".rstrip() if form == "percent" else unit
            table.add_row(title, _figure(figures[name], form), told)
    return table


def _show_corruptions(console: Console, found: dict[str, Any]) -> None:
    title, form, unit = _ERRORS[found["measure"]]
    unit = "%" if form == "percent" else unit
    console.print(f"[bold]Robustness[/bold]: {title} {unit} under corruption, by strength")
    table = Table(box=None, padding=(0, 2, 0, 2), header_style="dim")
    table.add_column()
    columns = ["1", "2", "3", "4", "5", "mean"]
    for column in columns:
        table.add_column(column, justify="right")
    for name, entry in found["by_name"].items():
        cells = [_figure(entry["error"][column], form, spread=False) for column in columns]
        table.add_row(base.escaped(name), *cells)
    cells = [_figure(found["mean"]["error"][column], form, spread=False) for column in columns]
    table.add_row("[bold]mean[/bold]", *cells)
    console.print(table)
    ratio = found["ratio"]["mean"]
    times = "" if ratio is None else f", {ratio:.2f} times as much as clean"
    console.print(
        f"  {_figure(found['mean']['error']['mean'], form)} {unit} on average against "
        f"{_figure(found['clean']['error'], form)} {unit}{times}; "
        f"NLL {_figure(found['mean']['nll']['mean'], '.3f')} against "
        f"{_figure(found['clean']['nll'], '.3f')} nats"
    )


def _figure(figure: dict[str, Any], form: str, spread: bool = True) -> str:
    if figure["mean"] is None:
        return "not finite"
    scale, form = (100, ".2f") if form == "percent" else (1, form)
    text = format(figure["mean"] * scale, form)
    if spread and len(set(figure["per_seed"])) > 1:
        text += f" ± {format(figure['std'] * scale, form)}"
    return text
