"""A finished run, opened for reading: its recipe, its figures, its networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extracurricular.data.base import Data
from extracurricular.distributions import Calibration
from extracurricular.errors import RecipeError, StorageError, known_names, reading
from extracurricular.evaluation.summary import SCHEMA
from extracurricular.files import curing, read_json
from extracurricular.recipe.named_code import named_code
from extracurricular.recipe.paths import absolute_spec
from extracurricular.recipe.read import parse_recipe, read_recipe
from extracurricular.recipe.schema import DeviceSection, Recipe
from extracurricular.registry import split_spec
from extracurricular.run.calibrated import calibrated_by
from extracurricular.run.evaluation import SUMMARY
from extracurricular.run.network import NetworkStage
from extracurricular.run.plan import Plan, plan
from extracurricular.run.settings import PLACE, data_settings
from extracurricular.run.workspace import RECORD, WEIGHTS, Workspace, read_record, recorded_files
from extracurricular.teachers import Teacher

# The folder of a sweep has this file.
SWEEP = "sweep.json"


@dataclass(frozen=True)
class Finished:
    """A finished run; nothing of it is trained here.

    Args:
        workspace: Its folder, to build its data and to read its networks.
        plan: Its stages.
        summary: Content of ``summary.json``, with the recipe in current words.
    """

    workspace: Workspace
    plan: Plan
    summary: dict[str, Any]

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read the run while a block runs: nothing that it names is imported, unless trusted.

        Raises:
            StorageError: Its files hold something odd that the block did not expect.
        """
        if not self.workspace.looks:  # it has just been made here
            yield
            return
        with reading(f"the run {str(self.folder)!r}"), self.workspace.looking():
            yield

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self.workspace.folder

    @property
    def recipe(self) -> Recipe:
        """The recipe, with its defaults filled in."""
        return self.plan.recipe

    @property
    def data(self) -> Data:
        """The data set of the first seed, on the device; it is read where it lies.

        Raises:
            XclError: It cannot be read, or is not that of the run.
        """
        return self.workspace.data_of(self.recipe.seeds[0])

    @property
    def described(self) -> Data:
        """What the run keeps of the data set of the first seed: all but its examples."""
        return self.workspace.described_of(self.recipe.seeds[0])

    @property
    def students(self) -> list[str]:
        """Names of the students, in the recipe's order."""
        return list(self.recipe.students)

    def stage(self, name: str, seed: int) -> NetworkStage:
        """Return the stage of a student.

        Raises:
            RecipeError: There is no such student or seed.
        """
        self.check_student(name)
        self.check_seed(seed)
        return self.plan.students[name, seed]

    def student(self, name: str, seed: int) -> Teacher:
        """Read a trained student, with calibrated answers.

        Raises:
            RecipeError: There is no such student or seed.
            StorageError: Its weights are missing or damaged.
        """
        student, fitted = self.stage(name, seed), self.plan.calibrations.get((name, seed))
        return calibrated_by(student.as_teacher(self.workspace), fitted, self.workspace)[0]

    def calibration(self, name: str | None, seed: int) -> Calibration | None:
        """Return the calibration of a student, or of the teacher where None; None without one.

        Raises:
            StorageError: It is missing or damaged.
        """
        if name is None:
            stage = self.plan.teachers[seed].calibration
        else:
            stage = self.plan.calibrations.get((name, seed))
        return None if stage is None else stage.load(self.workspace)

    def teacher(self, seed: int) -> Teacher:
        """Return the trained teacher of the students of a seed."""
        return self.workspace.made(self.plan.teachers[seed])

    def check_student(self, name: str) -> None:
        """Raise RecipeError if there is no student of this name."""
        if name not in self.recipe.students:
            problem = f"is {name!r}, but the run has no such student"
            raise RecipeError("--student", f"{problem}; {known_names(name, self.students)}")

    def check_seed(self, seed: int) -> None:
        """Raise RecipeError if there is no such seed."""
        if seed not in self.recipe.seeds:
            raise RecipeError("--seed", f"is {seed}; the run has the seeds {self.recipe.seeds}")

    def chosen_student(self, name: str | None = None) -> str:
        """Return the student of this name, or the recipe's subject where None.

        It is never the one that was best on test data.

        Raises:
            RecipeError: There is no such student.
        """
        chosen = self.recipe.subject if name is None else name
        self.check_student(chosen)
        return chosen


def open_run(
    folder: Path,
    device: DeviceSection | None = None,
    *,
    accepts: bool = False,
    place: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> Finished:
    """Open a finished run. No data are read.

    Args:
        folder: Folder of the run.
        device: Device and precision; where None, any available device at the run's precision.
            It need not be the device that the run was trained on.
        accepts: Whether data that are not those of the run are taken all the same, where they are
            asked for.
        place: Settings of the data that say where they lie now (``path``) and how they are read
            (``workers``, ``cache``).
        trust: Whether the code that the run names (``module:attribute``) may be imported.

    Raises:
        StorageError: There is no run, it is not finished, it is of another schema, or its recipe
            cannot be read.
    """
    with reading(f"the run {str(folder)!r}"):
        return _open_run(folder, device, accepts, place, trust)


def _open_run(
    folder: Path,
    device: DeviceSection | None,
    accepts: bool,
    place: Mapping[str, Any] | None,
    trust: bool,
) -> Finished:
    recipe_file, summary_file = folder / "recipe.yaml", folder / SUMMARY
    if not folder.is_dir():
        raise StorageError(f"there is no run {str(folder)!r}; `xcl run` makes one")
    if not recipe_file.is_file() and (folder / SWEEP).is_file():
        raise StorageError(
            f"the folder {str(folder)!r} is no run but a sweep; name one of those below "
            f"{str(folder / 'runs')!r}"
        )
    if not recipe_file.is_file():
        raise StorageError(f"the folder {str(folder)!r} is no run: it has no recipe.yaml")
    if not summary_file.is_file():
        raise StorageError(
            f"the run {str(folder)!r} is not finished: it has no summary.json; "
            f"`xcl run {recipe_file} --out {folder}` goes on with it"
        )
    measured = recorded_files(folder, "")
    # A checksum that differs does not tell which of the two files is wrong.
    either = f"or {RECORD} beside it, which has its checksum, is another run's; "
    with curing((either if SUMMARY in measured else "") + remake(folder)):
        summary = _summary(summary_file, measured.get(SUMMARY))
    try:
        recipe = read_recipe(str(recipe_file), quiet=True)
    except RecipeError as error:
        # A key alone would not tell that it is not a recipe of the reader's that is wrong.
        raise StorageError(
            f"the file {str(recipe_file)!r} is damaged, or of another version: {error}"
        ) from None
    if _but_device(summary["recipe"]) != _but_device(recipe.dump()):
        raise StorageError(
            f"the run {str(folder)!r} is not finished: its recipe.yaml is not the recipe of its "
            f"summary.json; `xcl run {recipe_file} --out {folder}` goes on with it"
        )
    _check_weights(folder, measured)
    device = device or recipe.device.model_copy(update={"accelerator": "auto"})
    recipe = recipe.model_copy(update={"device": device, "data": _placed(recipe.data, place)})
    own = None if trust else named_code(recipe.dump())
    workspace = Workspace(recipe, folder, looks=True, accepts=accepts, own=own)
    with workspace.looking():
        return Finished(workspace, plan(recipe), summary)


def opened(recipe: Recipe, folder: Path, summary: dict[str, Any]) -> Finished:
    """Return a run that has just been finished in this process."""
    return Finished(Workspace(recipe, folder), plan(recipe), summary)


def _placed(spec: Any, place: Mapping[str, Any] | None) -> Any:
    """Return the spec of data that lie elsewhere now."""
    if not place:
        return spec
    for key in place:
        if key not in PLACE:
            raise RecipeError(
                key, f"cannot be another for the data of a run; only {', '.join(PLACE)} can"
            )
    name, settings = split_spec(spec, "data set", "data")
    if "table" in settings:  # the place of images by a table has this name
        place = {"table" if key == "path" else key: value for key, value in place.items()}
    return absolute_spec({data_settings(name): {**settings, **place}}, Path.cwd())


def _but_device(recipe: Any) -> Any:
    """Return a recipe without its device, which changes no more than digits."""
    return {k: v for k, v in recipe.items() if k != "device"} if isinstance(recipe, dict) else None


def remake(folder: Path) -> str:
    """Return how to make anew the files of a run that follow from others."""
    return f"`xcl run {folder / 'recipe.yaml'} --out {folder}` makes it anew"


def _check_weights(folder: Path, files: Mapping[str, str]) -> None:
    """Refuse figures of other networks than those that are there.

    Args:
        folder: The folder of the run.
        files: The checksums of all that was measured.

    Raises:
        StorageError: A stage has other weights now than when it was measured.
    """
    for path, checksum in files.items():
        stage, _, name = path.rpartition("/")
        if name != WEIGHTS or not (folder / stage / RECORD).is_file():
            continue
        if read_record(folder, stage).get("sha256") != checksum:
            raise StorageError(
                f"{str(folder / 'summary.json')!r} tells of other weights than those of {stage!r}; "
                f"`xcl run {folder / 'recipe.yaml'} --out {folder}` measures these"
            )


def _summary(file: Path, checksum: str | None) -> dict[str, Any]:
    found = read_json(file, checksum)
    if not isinstance(found, dict) or "schema" not in found:
        raise StorageError(f"{str(file)!r} is no summary of a run: it has no schema")
    if found["schema"] != SCHEMA:
        raise StorageError(
            f"{str(file)!r} is of schema {found['schema']!r}, and this version reads {SCHEMA}"
        )
    try:
        recipe = parse_recipe(found.get("recipe"), quiet=True).dump()
    except RecipeError:
        return found | {"recipe": None}
    # The dump adds the defaults of settings that an older version did not have.
    return found | {"recipe": recipe}
