"""A generator of a run: fitted once, measured, and refused if it has collapsed.

A generator's folder holds ``weights.safetensors`` and ``stage.json`` like that of any stage, then
``quality.json``, and pictures for a person: ``contact.png`` (conditions down, latents across) and
``between.png`` (from one condition to another).
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from extracurricular import rng
from extracurricular.data.base import Data, Split
from extracurricular.errors import RecipeError, StorageError, TrainingError, XclError, own_code
from extracurricular.files import read_checked, save_weights, write_json
from extracurricular.generators import GENERATORS, Fit, Generator
from extracurricular.generators.quality import Quality, assess, flat_features, teacher_features
from extracurricular.inputs import Batch, Inputs, batch_size, images
from extracurricular.run.generator_pictures import histograms, image_sheets
from extracurricular.run.settings import data_settings
from extracurricular.run.stages import Checks, Stage, begun, note_files
from extracurricular.run.teacher import TeacherPlan
from extracurricular.run.workspace import Workspace
from extracurricular.samplers import Generated
from extracurricular.samplers.generated import draw
from extracurricular.teachers import Teacher
from extracurricular.teachers.order import first_network

FILE = "quality.json"
PICTURES = ("contact.png", "between.png")


@dataclass(frozen=True)
class GeneratorStage(Stage):
    """One generator to fit and to measure.

    Args:
        name: Its name in the recipe.
        model: Spec of the generator.
        seed: Seed of everything in it.
        least_variety: Least variety of its draws, as a part of that of real examples.
        teacher: The teacher whose features and answers it is measured by.
    """

    name: str
    model: Any
    seed: int
    least_variety: float
    teacher: TeacherPlan

    @property
    def steps(self) -> int:
        """Steps of the fit."""
        return self.fit.steps

    @property
    def needs(self) -> tuple[Stage, ...]:
        """The stages of the teacher that it is measured by."""
        return self.teacher.stages

    @property
    def settings(self) -> dict[str, Any]:
        """All that the result depends on but the content of the data, as plain values."""
        return {"data": data_settings(self.data), "model": self.model, "seed": self.seed}

    @property
    def fit(self) -> Fit:
        """The fit that the model's spec names.

        Raises:
            RecipeError: Its name or a setting of it is wrong.
        """
        return GENERATORS.build(self.model, key=f"{self.key}.model")

    def blame(self, error: ValueError) -> XclError:
        """Return the error to raise for a setting that does not go with the data."""
        return RecipeError(f"{self.key}.model", str(error))

    def load(self, workspace: Workspace) -> Generator | Split:
        """Return the fitted generator, or a pool."""
        return self.fit.load(workspace.weights(self.path), workspace.data(self.data))

    def check(self, workspace: Workspace, checks: Checks) -> None:
        """Build the generator unfitted."""
        if self.name not in checks.generators:
            data = workspace.data(self.data)
            with own_code(f"{self.key}.model", "the generator cannot be made", plain=True):
                checks.generators[self.name] = self.fit.preview(data)

    def do(self, workspace: Workspace) -> None:
        """Fit and measure the generator; an interrupted fit goes on where it stopped."""
        if not self.is_done(workspace):
            self._fit(workspace)
        known = self._known(workspace)
        figures = self.look(workspace)
        if figures is not None and known is None:
            workspace.watcher.tell(sentence(self.name, figures))

    def _fit(self, workspace: Workspace) -> None:
        folder, data = workspace.folder / self.path, workspace.data(self.data)
        with begun(workspace, self) as outcome:
            state = self.fit.fit(
                data,
                seed=self.seed,
                folder=folder,
                device=data.device,
                on_progress=partial(workspace.watcher.advance, self.title),
            )
            outcome["sha256"] = save_weights(folder / "weights.safetensors", state)
        # A pool kept these parts of itself on the way.
        for file in folder.glob("images-*.safetensors"):
            file.unlink()

    def look(self, workspace: Workspace) -> dict[str, Any] | None:
        """Measure the fitted generator and draw its pictures, if that is not done yet.

        Returns:
            The figures of :class:`~extracurricular.generators.quality.Quality`; None for a pool.

        Raises:
            TrainingError: The generator has collapsed.
        """
        folder, data = workspace.folder / self.path, workspace.data(self.data)
        figures = self._known(workspace)
        if figures is None:
            generator = workspace.made(self)
            if isinstance(generator, Split):
                return None
            teacher = workspace.made(self.teacher)
            try:
                sampler = Generated(data, generator, seed=rng.fold(self.seed, "quality"))
                with workspace.exact():
                    figures = plain(measure(sampler, teacher, first_network(teacher)))
                draw_pictures(sampler, folder, figures)
            except ValueError as error:
                raise TrainingError(f"{self.key}: {error}") from error
            write_json(folder / FILE, figures)
            note_files(folder, (FILE, *PICTURES))
        self._refuse_collapse(figures, data, folder)
        return dict(figures)

    def _known(self, workspace: Workspace) -> dict[str, Any] | None:
        """Return the figures that were measured; None where there are none, or a damaged file."""
        folder, record = workspace.folder / self.path, workspace.record(self.path)
        noted: dict[str, str] = record.get("files", {})
        if not (folder / FILE).exists() or ("files" in record and FILE not in noted):
            return None
        try:
            found = json.loads(read_checked(folder / FILE, noted.get(FILE)))
            for name in set(PICTURES) & set(noted):
                read_checked(folder / name, noted[name])
        except (StorageError, ValueError):
            return None
        names = {field.name for field in fields(Quality)}
        return found if isinstance(found, dict) and names <= set(found) else None

    def _refuse_collapse(self, figures: dict[str, Any], data: Data, folder: Path) -> None:
        least, found, worst = self.least_variety, figures["variety"], figures["least_variety"]
        if found >= least and (worst is None or worst >= least / 2):
            return
        raise TrainingError(
            f"{self.key}: the generator has collapsed: two of its draws of one condition differ "
            f"{percent(found)} as much as two real examples do"
            + ("" if worst is None else f", in class {_class(data, figures)} {percent(worst)}")
            + f", and least_variety asks for {percent(least)}"
            + (f" (for one class alone: {percent(least / 2)})" if worst is not None else "")
            + f"; see {folder / 'contact.png'}; fit it longer or with other settings, "
            f"or set {self.key}.least_variety to 0 to use it as it is"
        )


def measure(sampler: Generated, teacher: Teacher, network: nn.Module | None) -> Quality:
    """Measure a generator through its sampler.

    Args:
        sampler: Draws from the generator.
        teacher: The trained teacher.
        network: The network whose features are compared; None to compare inputs.
    """
    data = sampler.data

    def draws(ids: Tensor) -> tuple[Inputs, Tensor]:
        return sampler(ids).x, sampler.condition(ids)

    def predict(x: Inputs) -> Tensor:
        ids = torch.zeros(batch_size(x), dtype=torch.int64, device=data.device)
        return teacher(Batch(ids, x)).mean

    features = flat_features if network is None else teacher_features(network)
    # A teacher of stored answers has none on draws of a generator.
    asked = None if hasattr(teacher, "on_draws") else predict
    return assess(sampler.generator, data, draws, features, asked)


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
    """Return the figures as JSON has them: null for a figure that is not finite."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in asdict(quality).items()
    }


def sentence(name: str, figures: dict[str, Any]) -> str:
    """Return the figures as a sentence for the user."""
    floor = "" if figures["floor"] is None else f" (held-out real examples: {figures['floor']:.3g})"
    return (
        f"{name}: Fréchet distance {figures['frechet']:.3g}{floor}, "
        f"variety {percent(figures['variety'])} of the real, "
        f"coverage {percent(figures['coverage'])}"
    )


def percent(part: float | None) -> str:
    """Return a share as a percentage without decimals; a dash for None."""
    return "–" if part is None else f"{100 * part:.0f} %"


def _class(data: Data, figures: dict[str, Any]) -> str:
    number = figures["least_varied"]
    return repr(data.classes[number]) if data.classes else str(number)
