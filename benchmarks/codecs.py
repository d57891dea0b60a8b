"""What each way of storing a teacher costs: bytes per draw against KL, on a teacher of a recipe.

The teacher is asked about draws of a student's sampler, and each codec stores what it said. Prints
the table of docs/knowledge.md.

    python benchmarks/codecs.py RECIPE [KEY=VALUE ...] [--student xcl] [--run RUN] [--draws 4096]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from extracurricular.distributions import Categorical, Distribution
from extracurricular.errors import XclError
from extracurricular.knowledge import build_codec
from extracurricular.recipe.read import read_recipe
from extracurricular.run.record import teacher_of
from extracurricular.run.workspace import Workspace

TEMPERATURES = (1.0, 4.0)


def specs(classes: int | None) -> list[Any]:
    """Codecs to compare, most bytes first."""
    if classes is None:
        return ["float32", "float16"]
    tops = [k for k in (20, 10, 5) if k < classes]
    more = {"uint4": {"refine": -(-classes * 3 // 10)}}
    least = {"uint4": {"refine": 0}}
    return [
        "float32", "float16", "uint8", more, "uint4", least, *({"topk": {"k": k}} for k in tops),
    ]  # fmt: skip


def title(spec: Any) -> str:
    if isinstance(spec, str):
        return f"`{spec}`"
    [(name, settings)] = spec.items()
    return f"`{{{name}: {{{', '.join(f'{k}: {v}' for k, v in settings.items())}}}}}`"


def said_about(recipe: str, overrides: list[str], run: Path, student: str, draws: int) -> Any:
    """Ask a recipe's teacher about draws of a student's sampler."""
    source = teacher_of(Workspace(read_recipe(recipe, overrides), run), student)
    sampler = source.stage.draws(source.workspace)
    with torch.no_grad():
        parts = [
            source.teacher(sampler(ids)).parameters.float()
            for ids in torch.split(torch.arange(draws), 256)
        ]
    return source.workspace.data(source.stage.data).task, torch.cat(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--student", default="xcl")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--draws", type=int, default=4096)
    given = parser.parse_args()
    run = given.run or Path("runs") / Path(given.recipe).stem
    task, parameters = said_about(given.recipe, given.overrides, run, given.student, given.draws)
    truth: Distribution = task.distribution(parameters)
    if isinstance(truth, Categorical):
        print(f"mean entropy {float(truth.entropy().mean()):.2f} nats, {given.draws} draws\n")
    columns = [f"T = {t:g}: {what}" for t in TEMPERATURES for what in ("mean KL", "worst KL")]
    print("| codec | bytes | " + " | ".join(columns) + " |")
    print("|---|---|" + "---|" * len(columns))
    for spec in specs(task.size if isinstance(truth, Categorical) else None):
        codec = build_codec(spec, task)
        stored = codec.decode(codec.encode(truth))
        figures = []
        for t in TEMPERATURES:
            kl = truth.tempered(t).kl(stored.tempered(t))  # type: ignore[arg-type]
            figures += [f"{float(kl.mean()):.1e}", f"{float(kl.max()):.1e}"]
        print(f"| {title(spec)} | {codec.bytes_per_draw} | " + " | ".join(figures) + " |")


if __name__ == "__main__":
    try:
        main()
    except XclError as error:
        raise SystemExit(f"error: {error}") from None
