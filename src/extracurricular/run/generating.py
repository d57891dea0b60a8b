"""The generators of a run: fitted once, looked at, and refused if they have collapsed.

A generator's folder holds ``weights.safetensors`` and ``stage.json`` like that of any stage, then
``quality.json``, and pictures for a person: ``contact.png`` (conditions down, latents across) and
``between.png`` (from one condition to another).
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.table import Table
from torch import Tensor, nn

from extracurricular import rng
from extracurricular.data.base import Data, Split
from extracurricular.distributions import Categorical
from extracurricular.errors import RecipeError, TrainingError, XclError, during
from extracurricular.files import (
    Checkpoints,
    load_weights,
    read_json,
    save_weights,
    write_json,
)
from extracurricular.generators import GENERATORS, Fit, Generator
from extracurricular.generators.quality import (
    Quality,
    assess,
    flat_features,
    teacher_features,
)
from extracurricular.inputs import Inputs, batch_size, images
from extracurricular.recipe.schema import Recipe
from extracurricular.run.generator_pictures import histograms, image_sheets
from extracurricular.run.stages import GeneratorStage, Watcher
from extracurricular.samplers import Batch, Generated
from extracurricular.samplers.generated import draw
from extracurricular.teachers import Teacher


def generator_stages(recipe: Recipe, seed: int) -> list[GeneratorStage]:
    """The generators for students of this seed: shared by all, unless each has its own data.

    Raises:
        RecipeError: A generator's name or a setting of it is wrong.
    """
    which = f"seed-{seed}" if recipe.data_varies else "shared"
    own = seed if recipe.data_varies else 0
    return [
        GeneratorStage(
            path=f"generators/{name}/{which}",
            title=f"generator {name}" + (f", seed {seed}" if recipe.data_varies else ""),
            key=f"generators.{name}",
            name=name,
            data=recipe.data_of(own),
            model=section.model,
            seed=rng.fold(own, "generator", name) >> 1,
            steps=build_fit(section.model, f"generators.{name}.model").steps,
        )
        for name, section in recipe.generators.items()
    ]


def build_fit(spec: Any, key: str) -> Fit:
    """Return the way to a generator that a recipe names."""
    return GENERATORS.build(spec, key=key)


def preview(stage: GeneratorStage, data: Data) -> Generator | Split:
    """Return what the stage will give, unfitted, to check a recipe by.

    Raises:
        RecipeError: Its settings do not go with the data.
    """
    try:
        return build_fit(stage.model, f"{stage.key}.model").preview(data)
    except ValueError as error:
        raise RecipeError(f"{stage.key}.model", str(error)) from error


def fit(
    stage: GeneratorStage, recipe: Recipe, root: Path, data: Data, watcher: Watcher | None
) -> None:
    """Fit a generator into its folder, going on from where an interrupted fit was."""
    folder = root / stage.path
    record: dict[str, Any] = {"settings": stage.settings(recipe), "done": False}
    write_json(folder / "stage.json", record)
    if watcher is not None:
        watcher.begin(stage.title, stage.steps)
    started = time.perf_counter()
    try:
        state = build_fit(stage.model, f"{stage.key}.model").fit(
            data,
            seed=stage.seed,
            folder=folder,
            device=data.device,
            on_progress=watcher.advance if watcher is not None else None,
        )
    except ValueError as error:
        raise RecipeError(f"{stage.key}.model", str(error)) from error
    except XclError as error:
        raise during(stage.title, error) from error
    seconds = time.perf_counter() - started
    checksum = save_weights(folder / "weights.safetensors", state)
    record |= {"done": True, "sha256": checksum, "seconds": round(seconds, 3)}
    write_json(folder / "stage.json", record)
    Checkpoints(folder).clear()
    # What a pool kept of itself on the way.
    for file in folder.glob("images-*.safetensors"):
        file.unlink()
    if watcher is not None:
        watcher.end(stage.title, stage.steps, seconds)


def load(stage: GeneratorStage, root: Path, data: Data) -> Generator | Split:
    """Read a fitted generator, or a pool."""
    folder = root / stage.path
    record = read_json(folder / "stage.json")
    state = load_weights(folder / "weights.safetensors", record.get("sha256"))
    return build_fit(stage.model, f"{stage.key}.model").load(state, data)


def look(
    stage: GeneratorStage,
    recipe: Recipe,
    root: Path,
    data: Data,
    teacher: Teacher,
    network: nn.Module | None,
) -> dict[str, Any] | None:
    """Measure a fitted generator and draw its pictures, if that is not done yet.

    Args:
        stage: The generator.
        recipe: The recipe.
        root: Folder of the run.
        data: The data set.
        teacher: The trained teacher.
        network: The network whose features count; None to compare inputs.

    Returns:
        The figures of :class:`~extracurricular.generators.quality.Quality`; None for a pool.

    Raises:
        TrainingError: It has collapsed.
    """
    file = root / stage.path / "quality.json"
    if file.exists():
        figures = read_json(file)
    else:
        generator = load(stage, root, data)
        if isinstance(generator, Split):
            return None
        try:
            sampler = Generated(data, generator, seed=rng.fold(stage.seed, "quality"))
            figures = plain(measure(sampler, teacher, network))
            draw_pictures(sampler, root / stage.path, figures)
        except ValueError as error:
            raise TrainingError(f"{stage.key}: {error}") from error
        write_json(file, figures)
    least = recipe.generators[stage.name].least_variety
    found = figures["variety"]
    worst = figures["least_variety"]
    if found < least or (worst is not None and worst < least / 2):
        raise TrainingError(
            f"{stage.key}: the generator has collapsed: two of its draws of one condition differ "
            f"by {_percent(found)} of what two real examples do"
            + ("" if worst is None else f", in class {_class(data, figures)} by {_percent(worst)}")
            + f", and least_variety asks for {_percent(least)}"
            + (f" (for one class alone: {_percent(least / 2)})" if worst is not None else "")
            + f"; see {root / stage.path / 'contact.png'}; fit it longer or with other settings, "
            f"or set {stage.key}.least_variety to 0 to use it as it is"
        )
    return dict(figures)


def measure(sampler: Generated, teacher: Teacher, network: nn.Module | None) -> Quality:
    """Measure a generator through its sampler."""
    data = sampler.data

    def draw(ids: Tensor) -> tuple[Inputs, Tensor]:
        return sampler(ids).x, sampler.condition(ids)

    def predict(x: Inputs) -> Tensor:
        ids = torch.zeros(batch_size(x), dtype=torch.int64, device=data.device)
        prediction = teacher(Batch(ids, x))
        return prediction.probs if isinstance(prediction, Categorical) else prediction.mean

    features = flat_features if network is None else teacher_features(network)
    return assess(sampler.generator, data, draw, features, predict)


def draw_pictures(sampler: Generated, folder: Path, figures: dict[str, Any]) -> None:
    """Draw a generator's pictures into a folder."""
    data, generator = sampler.data, sampler.generator
    rows = " (rows: pitch, yaw)" if data.angular else ""
    title = f"Draws of {folder.parent.name!r} for {data.name}{rows}"
    note = sentence("", figures).removeprefix(": ")

    def render(ids: Tensor, condition: Tensor) -> Inputs:
        return draw(generator, data, sampler.latent(ids), condition)

    if images(data.train.x):
        image_sheets(data, render, folder, title, note, generator.conditional)
        return
    ids = torch.arange(len(data.train), device=data.device)
    histograms(data, render(ids, sampler.condition(ids)), folder, title, note)


def plain(quality: Quality) -> dict[str, Any]:
    """Return the figures as JSON has them: what is not finite is null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in asdict(quality).items()
    }


def sentence(name: str, figures: dict[str, Any]) -> str:
    """Return the figures as a person reads them."""
    floor = "" if figures["floor"] is None else f" (held-out real examples: {figures['floor']:.3g})"
    return (
        f"{name}: Fréchet distance {figures['frechet']:.3g}{floor}, "
        f"variety {_percent(figures['variety'])} of the real, "
        f"coverage {_percent(figures['coverage'])}"
    )


def table(found: dict[str, dict[str, Any]]) -> Table:
    """Return the figures of generators, by the path of each, as the table a person reads."""
    result = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    result.add_column("")
    for path in found:
        result.add_column(path.removeprefix("generators/"), justify="right")
    rows = (
        ("Fréchet distance to training examples", "frechet", "{:.3g}"),
        ("  of held-out real examples (the floor)", "floor", "{:.3g}"),
        ("variety, as a part of the real", "variety", "{:.0%}"),
        ("  of the class that has least", "least_variety", "{:.0%}"),
        ("coverage of the real examples", "coverage", "{:.0%}"),
        ("  by held-out real examples", "ceiling", "{:.0%}"),
        ("teacher's error against the condition", "label_error", "{:.3g}"),
        ("  on held-out real examples", "real_error", "{:.3g}"),
    )
    for text, name, form in rows:
        values = [figures[name] for figures in found.values()]
        if any(value is not None for value in values):
            cells = ("" if v is None else form.format(v).replace("%", " %") for v in values)
            result.add_row(text, *cells)
    return result


def _class(data: Data, figures: dict[str, Any]) -> str:
    number = figures["least_varied"]
    return repr(data.classes[number]) if data.classes else str(number)


def _percent(part: float | None) -> str:
    return "–" if part is None else f"{100 * part:.0f} %"
