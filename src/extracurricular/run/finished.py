"""A run that is finished, opened to be looked at: its recipe, its figures, its networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extracurricular.errors import RecipeError, StorageError, known_names
from extracurricular.evaluation.summary import SCHEMA
from extracurricular.files import read_json
from extracurricular.recipe.schema import Recipe, read_recipe
from extracurricular.run.pipeline import Run
from extracurricular.teachers import NetworkTeacher, Teacher


@dataclass(frozen=True)
class Finished:
    """A finished run.

    Args:
        folder: Where it lies.
        run: The run, to build its data and to read its networks; nothing of it is trained here.
        summary: What ``summary.json`` says.
    """

    folder: Path
    run: Run
    summary: dict[str, Any]

    @property
    def recipe(self) -> Recipe:
        """The recipe, with its defaults filled in."""
        return self.run.recipe

    @property
    def students(self) -> list[str]:
        """Names of the students, in the recipe's order."""
        return list(self.recipe.students)

    def student(self, name: str, seed: int) -> NetworkTeacher:
        """Read a trained student.

        Raises:
            RecipeError: There is no such student or seed.
            StorageError: Its weights are missing or damaged.
        """
        self.check_student(name)
        if seed not in self.recipe.seeds:
            raise RecipeError("--seed", f"is {seed}; the run has the seeds {self.recipe.seeds}")
        stage = self.run.student_stage(name, seed)
        return NetworkTeacher(self.run.load(stage), self.run.data_for(seed).task)

    def teacher(self, seed: int) -> Teacher:
        """Return the trained teacher of the students of a seed."""
        return self.run.teacher(seed)

    def check_student(self, name: str) -> None:
        """Raise RecipeError if there is no student of this name."""
        if name not in self.recipe.students:
            problem = f"is {name!r}, but the run has no such student"
            raise RecipeError("--student", f"{problem}; {known_names(name, self.students)}")

    def chosen_student(self, name: str | None = None) -> str:
        """Return the student that is meant where none, or this one, is named.

        It is the one called ``xcl``, or the only one beside ``erm`` and ``kd``, or the only one.
        Never the one that was best on test data.

        Raises:
            RecipeError: There is no such student, or several could be meant.
        """
        if name is not None:
            self.check_student(name)
            return name
        others = [n for n in self.students if n not in ("erm", "kd")]
        for found in ([n for n in others if n == "xcl"], others, self.students):
            if len(found) == 1:
                return found[0]
        raise RecipeError("--student", f"is needed: the run has {', '.join(self.students)}")


def open_run(folder: Path) -> Finished:
    """Open a finished run.

    It is opened on whatever device is at hand, which need not be the one that it was trained on.

    Raises:
        StorageError: There is no run, it is not finished, or it is of another schema.
        RecipeError: Its recipe cannot be read.
    """
    recipe_file, summary_file = folder / "recipe.yaml", folder / "summary.json"
    if not folder.is_dir():
        raise StorageError(f"there is no run {str(folder)!r}; `xcl run` makes one")
    if not recipe_file.is_file():
        raise StorageError(f"the folder {str(folder)!r} is no run: it has no recipe.yaml")
    if not summary_file.is_file():
        raise StorageError(
            f"the run {str(folder)!r} is not finished: it has no summary.json; "
            f"`xcl run {recipe_file} --out {folder}` goes on with it"
        )
    summary = _summary(summary_file)
    recipe = read_recipe(str(recipe_file))
    if _but_device(summary.get("recipe")) != _but_device(recipe.plain()):
        raise StorageError(
            f"the run {str(folder)!r} is not finished: its recipe.yaml is not the recipe of its "
            f"summary.json; `xcl run {recipe_file} --out {folder}` goes on with it"
        )
    device = recipe.device.model_copy(update={"accelerator": "auto"})
    return Finished(folder, Run(recipe.model_copy(update={"device": device}), folder), summary)


def _but_device(recipe: Any) -> Any:
    """Where it is run changes no more than digits, so a run can be looked at elsewhere."""
    return {k: v for k, v in recipe.items() if k != "device"} if isinstance(recipe, dict) else None


def _summary(file: Path) -> dict[str, Any]:
    found = read_json(file)
    if not isinstance(found, dict) or "schema" not in found:
        raise StorageError(f"{str(file)!r} is no summary of a run: it has no schema")
    if found["schema"] != SCHEMA:
        raise StorageError(
            f"{str(file)!r} is of schema {found['schema']!r}, and this version reads {SCHEMA}; "
            "delete it and run the recipe again into the same folder: what is trained is kept"
        )
    return found
