"""The stages of a recipe, each resumable: teachers, students, evaluation, summary.

A run is a folder::

    recipe.yaml                      the recipe, with its defaults filled in
    teacher/SEED/member-0/           one trained network: weights.safetensors, stage.json, log.jsonl
    students/NAME/seed-0/            the same for a student, and metrics.json
    summary.json                     what came out

``stage.json`` is begun before a stage's training and finished after it. It holds all settings that
the result depends on; if a recipe asks for others, the run is refused instead of mixing results.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning_fabric import Fabric
from torch import Tensor, nn

from extracurricular import metrics, rng
from extracurricular.data import DATA, Data, Split
from extracurricular.distributions import Distribution
from extracurricular.errors import DataError, RecipeError, StorageError, XclError, shorten
from extracurricular.evaluation import predict
from extracurricular.matching import Matching
from extracurricular.models import build_model, parameter_count
from extracurricular.models.weights import load_pretrained
from extracurricular.recipe import Recipe
from extracurricular.registry import check_settings, split_spec
from extracurricular.samplers import Batch, Sampler, build_sampler
from extracurricular.stages import Stage, Watcher, first_difference
from extracurricular.storage import (
    Checkpoints,
    load_weights,
    locked,
    read_json,
    save_weights,
    sha256,
    write_if_changed,
    write_json,
    write_json_if_changed,
)
from extracurricular.summary import summarise
from extracurricular.teachers import Ensemble, Labels, MCDropout, Network, Teacher
from extracurricular.training import train


class Run:
    """A recipe in a folder.

    Args:
        recipe: What to do.
        folder: Where; it may hold what an earlier, interrupted run did.
        watcher: Told how it comes along.

    Everything the recipe names is built once before anything is written, so that mistakes show at
    once and leave the folder as it was.
    """

    def __init__(self, recipe: Recipe, folder: Path, watcher: Watcher | None = None) -> None:
        self.recipe = recipe
        self.folder = folder
        self.watcher = watcher
        self._teachers: dict[int, Teacher] = {}

    @cached_property
    def fabric(self) -> Fabric:
        """Device and precision."""
        try:
            return Fabric(
                accelerator=self.recipe.device.accelerator,
                devices=1,
                precision=self.recipe.device.precision,
            )
        except Exception as error:
            # Fabric reports a missing accelerator by exceptions of several kinds.
            chosen = self.recipe.device.accelerator
            raise RecipeError("device.accelerator", f"is {chosen!r}: {error}") from error

    @cached_property
    def data(self) -> Data:
        """The data set, on the device."""
        try:
            data = DATA.build(self.recipe.data, key="data")
        except DataError as error:
            name, _ = split_spec(self.recipe.data, "data set", "data")
            raise RecipeError(f"data.{name}", str(error)) from error
        return data.to(self.fabric.device)

    @cached_property
    def split(self) -> Split:
        """The examples that results are measured on."""
        split = getattr(self.data, self.recipe.evaluation.split)
        assert isinstance(split, Split)
        return split

    def execute(self) -> dict[str, Any]:
        """Do whatever is not done yet, and return the summary.

        Raises:
            XclError: With one sentence for the user.
        """
        metrics.check_available()
        self.check()
        with locked(self.folder):
            plain = yaml.safe_dump(self.recipe.plain(), sort_keys=False, allow_unicode=True)
            write_if_changed(self.folder / "recipe.yaml", plain.encode())
            self._announce()
            for stage in self.stages():
                self._train(stage)
            summary = self._summarise()
            write_json_if_changed(self.folder / "summary.json", summary)
        return summary

    # -- what there is to do ----------------------------------------------------------------------

    def teacher_seeds(self) -> list[int]:
        """Seeds of the teachers: the recipe's, or just 0 for the one that all share."""
        return self.recipe.seeds if self.recipe.teacher.per_seed else [0]

    def teacher_stages(self, seed: int) -> list[Stage]:
        """The members of the teacher that students of this seed learn from."""
        section = self.recipe.teacher
        which = f"seed-{seed}" if section.per_seed else "shared"
        seed = seed if section.per_seed else 0
        count = len(section.networks)
        return [
            Stage(
                path=f"teacher/{which}/member-{number}",
                title=f"teacher {number + 1}/{count}"
                + (f", seed {seed}" if section.per_seed else ""),
                key="teacher",
                model=model,
                sampler=section.sampler,
                training=section.training,
                seed=rng.fold(seed, "teacher", number) >> 1,
                upstream=self._given_weights(),
            )
            for number, model in enumerate(section.networks)
        ]

    def _given_weights(self) -> tuple[dict[str, Any], ...]:
        """What tells one file of teacher weights from another: its content, not its name."""
        given = self.recipe.teacher.weights
        if given is None or not Path(given).is_file():
            return ()
        return ({"weights_sha256": sha256(Path(given).read_bytes())},)

    def student_stage(self, name: str, seed: int) -> Stage:
        """One student of one seed."""
        section = self.recipe.students[name]
        upstream: list[dict[str, Any]] = []
        if section.learns_from == "teacher":
            upstream = [stage.settings(self.recipe) for stage in self.teacher_stages(seed)]
            upstream.append({"mc_dropout": self.recipe.teacher.mc_dropout})
        return Stage(
            path=f"students/{name}/seed-{seed}",
            title=f"{name}, seed {seed}",
            key=f"students.{name}",
            model=section.model,
            sampler=section.sampler,
            training=section.training,
            # Not the student's name: all students of a seed start from the same weights.
            seed=seed,
            matching=section.matching,
            learns_from=section.learns_from,
            upstream=tuple(upstream),
        )

    def stages(self) -> Iterator[Stage]:
        """Every network to train, in order."""
        if self.recipe.teacher.weights is None:
            for seed in self.teacher_seeds():
                yield from self.teacher_stages(seed)
        for seed in self.recipe.seeds:
            for name in self.recipe.students:
                yield self.student_stage(name, seed)

    # -- checks -----------------------------------------------------------------------------------

    def check(self) -> None:
        """Build everything the recipe names, and compare it with what the folder holds.

        Raises:
            XclError: Something cannot be built, or the folder belongs to another recipe.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise StorageError(f"--out is {str(self.folder)!r}, which is a file, not a folder")
        if len(self.split) == 0:
            where = self.recipe.evaluation.split
            raise RecipeError("evaluation.split", f"is {where!r}, but that split has no examples")
        device, probe = self.fabric.device, torch.arange(2)
        checked: set[str] = set()
        for stage in self.stages():
            if stage.key not in checked:
                checked.add(stage.key)
                self._model(stage, f"{stage.key}.model")
                sampler = self._sampler(stage)
                batch = self._draw(sampler, probe.to(device), f"{stage.key}.sampler")
                self._check_matching(stage, batch)
            self._check_folder(stage)
        if self.recipe.teacher.weights is not None:
            self.teacher(self.recipe.seeds[0])
        elif self.recipe.teacher.mc_dropout:
            [first, *_] = self.teacher_stages(self.recipe.seeds[0])
            self._as_teacher([self._model(first, "teacher.model")])

    def _draw(self, sampler: Sampler, ids: Tensor, key: str) -> Batch:
        try:
            return sampler(ids)
        except XclError:
            raise
        except ValueError as error:
            raise RecipeError(key, str(error)) from error

    def _check_matching(self, stage: Stage, batch: Batch) -> None:
        key = f"{stage.key}.matching"
        matching = build_matching(stage.matching, key)
        labelled = batch.y is not None
        if stage.learns_from == "labels":
            if not labelled:
                raise RecipeError(
                    f"{stage.key}.learns_from",
                    "is 'labels', but the sampler gives examples without labels",
                )
            if matching.divergence == "reverse_kl":
                raise RecipeError(
                    f"{key}.divergence", "is 'reverse_kl', which is infinite from labels; "
                    "learning from labels needs 'forward_kl'"
                )  # fmt: skip
            if matching.divergence == "js" and self.data.task.kind == "regression":
                raise RecipeError(
                    f"{key}.divergence", "is 'js', which real-valued labels do not have; "
                    "learning from labels needs 'forward_kl'"
                )  # fmt: skip
            if matching.temperature != 1:
                raise RecipeError(
                    f"{key}.temperature",
                    f"is {matching.temperature}; labels have no temperature, so it must be 1",
                )
        if matching.hard > 0 and not labelled:
            raise RecipeError(
                f"{key}.hard", f"is {matching.hard}, but the sampler gives examples without labels"
            )

    def _check_folder(self, stage: Stage) -> None:
        file = self.folder / stage.path / "stage.json"
        if not file.exists():
            return
        found = read_json(file).get("settings")
        wanted = stage.settings(self.recipe)
        if found != wanted:
            path, was, now = first_difference(found, wanted, "")
            raise StorageError(
                f"{stage.key}: {str(self.folder)!r} holds {stage.path} made with {path} = "
                f"{shorten(was)}, but the recipe says {shorten(now)}; "
                "choose another --out, or delete that stage's folder"
            )

    # -- building ---------------------------------------------------------------------------------

    def _model(self, stage: Stage, key: str) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.fold(stage.seed, "init") >> 1)
            return build_model(
                stage.model, inputs=self.data.shapes, outputs=self.data.task.outputs, key=key
            )

    def _sampler(self, stage: Stage) -> Sampler:
        seed = rng.fold(stage.seed, "sampler")
        return build_sampler(stage.sampler, self.data, seed, f"{stage.key}.sampler")

    def _load(self, stage: Stage) -> nn.Module:
        """Read a stage's trained network."""
        folder = self.folder / stage.path
        record = read_json(folder / "stage.json")
        state = load_weights(folder / "weights.safetensors", record.get("sha256"))
        module = self._model(stage, f"{stage.key}.model")
        module.load_state_dict(state)
        return module.to(self.fabric.device).eval()

    def teacher(self, seed: int) -> Teacher:
        """The trained teacher for students of this seed."""
        seed = seed if self.recipe.teacher.per_seed else 0
        if seed not in self._teachers:
            stages = self.teacher_stages(seed)
            if self.recipe.teacher.weights is None:
                modules = [self._load(stage) for stage in stages]
            else:
                module = self._model(stages[0], "teacher.model")
                noun = "classes" if self.data.task.kind == "classification" else "outputs"
                try:
                    load_pretrained(module, Path(self.recipe.teacher.weights), noun)
                except StorageError as error:
                    raise RecipeError("teacher.weights", str(error)) from error
                modules = [module.to(self.fabric.device).eval()]
            self._teachers[seed] = self._as_teacher(modules)
        return self._teachers[seed]

    def teacher_is_ready(self, seed: int) -> bool:
        """Whether the teacher for students of this seed is trained, or read from a file."""
        given = self.recipe.teacher.weights is not None
        return given or all(map(self._is_done, self.teacher_stages(seed)))

    def train_teacher(self, seed: int) -> Teacher:
        """The teacher for students of this seed, trained first as far as that is not done."""
        if not self.teacher_is_ready(seed):
            with locked(self.folder):
                for stage in self.teacher_stages(seed):
                    self._train(stage)
        return self.teacher(seed)

    def _as_teacher(self, modules: list[nn.Module]) -> Teacher:
        passes, task = self.recipe.teacher.mc_dropout, self.data.task
        teachers: list[Teacher]
        if passes is None:
            teachers = [Network(module, task) for module in modules]
        else:
            try:
                teachers = [MCDropout(module, task, passes) for module in modules]
            except ValueError as error:
                raise RecipeError("teacher.mc_dropout", f"is {passes}, but {error}") from error
        return teachers[0] if len(teachers) == 1 else Ensemble(teachers)

    # -- doing ------------------------------------------------------------------------------------

    def _announce(self) -> None:
        if self.watcher is not None:
            stages = list(self.stages())
            done = sum(s.training.steps for s in stages if self._is_done(s))
            self.watcher.plan(sum(s.training.steps for s in stages), done)

    def _is_done(self, stage: Stage) -> bool:
        file = self.folder / stage.path / "stage.json"
        return file.exists() and bool(read_json(file).get("done"))

    def _train(self, stage: Stage) -> None:
        if self._is_done(stage):
            return
        folder = self.folder / stage.path
        record: dict[str, Any] = {"settings": stage.settings(self.recipe), "done": False}
        write_json(folder / "stage.json", record)
        steps = stage.training.steps
        if self.watcher is not None:
            self.watcher.begin(stage.title, steps)
        student = self._model(stage, f"{stage.key}.model")
        teacher = self.teacher(stage.seed) if stage.learns_from == "teacher" else Labels()
        try:
            result = train(
                student,
                self._sampler(stage),
                teacher,
                self.data.task,
                matching=build_matching(stage.matching, f"{stage.key}.matching"),
                settings=stage.training,
                seed=stage.seed,
                fabric=self.fabric,
                folder=folder,
                evaluate=self._validation,
                on_progress=self.watcher.advance if self.watcher is not None else None,
            )
        except XclError as error:
            raise type(error)(f"{stage.title}: {error}") from error
        checksum = save_weights(folder / "weights.safetensors", student.state_dict())
        record |= {
            "done": True,
            "sha256": checksum,
            "steps": result.steps,
            "seconds": round(result.seconds, 3),
            "parameters": parameter_count(student),
        }
        write_json(folder / "stage.json", record)
        Checkpoints(folder).clear()
        if self.watcher is not None:
            self.watcher.end(stage.title, result.steps, result.seconds)

    def _validation(self, module: nn.Module) -> dict[str, float]:
        """Figures on the validation split, for the log alone: they decide nothing."""
        if len(self.data.validation) == 0:
            return {}
        prediction = self._predict(Network(module, self.data.task), self.data.validation)
        labels = self.data.validation.y
        assert labels is not None
        figures = metrics.evaluate(prediction, labels.cpu(), angular=self.data.angular)
        return {name: round(value, 6) for name, value in figures.items()}

    def _predict(self, teacher: Teacher, split: Split) -> Distribution:
        size = self.recipe.evaluation.batch_size
        with self.fabric.autocast():
            return predict(teacher, self.data, split, size)

    def _summarise(self) -> dict[str, Any]:
        """Evaluate what is not evaluated yet, and put the figures of all seeds together."""
        labels = self.split.y
        assert labels is not None
        labels = labels.cpu()
        angular = self.data.angular
        teachers: dict[int, Distribution] = {}
        teacher_rows: list[dict[str, Any]] = []
        student_rows: dict[str, list[dict[str, Any]]] = {n: [] for n in self.recipe.students}
        for seed in self.recipe.seeds:
            own = seed if self.recipe.teacher.per_seed else 0
            if own not in teachers:
                teachers[own] = self._predict(self.teacher(own), self.split)
            figures = metrics.evaluate(teachers[own], labels, angular=angular)
            records = self._teacher_records(own)
            teacher_rows.append({"metrics": figures, **records})
            for name in self.recipe.students:
                stage = self.student_stage(name, seed)
                prediction = self._predict(Network(self._load(stage), self.data.task), self.split)
                figures = metrics.evaluate(
                    prediction, labels, teacher=teachers[own], angular=angular
                )
                record = read_json(self.folder / stage.path / "stage.json")
                taken = {key: record[key] for key in ("steps", "seconds", "parameters")}
                write_json_if_changed(self.folder / stage.path / "metrics.json", figures)
                student_rows[name].append({"metrics": figures, **taken})
        return summarise(
            self.recipe.plain(), self.data.task.kind, self.recipe.seeds, teacher_rows, student_rows
        )

    def _teacher_records(self, seed: int) -> dict[str, Any]:
        stages = self.teacher_stages(seed)
        if self.recipe.teacher.weights is not None:
            modules = [self._model(stage, "teacher.model") for stage in stages]
            return {
                "steps": 0,
                "seconds": 0.0,
                "parameters": sum(parameter_count(module) for module in modules),
            }
        records = [read_json(self.folder / stage.path / "stage.json") for stage in stages]
        return {key: sum(r[key] for r in records) for key in ("steps", "seconds", "parameters")}


def build_matching(settings: dict[str, Any], key: str) -> Matching:
    """Make the loss that a recipe's ``matching`` section describes.

    Raises:
        RecipeError: An unknown key, or a value that cannot be.
    """
    try:
        return Matching(**check_settings(Matching, settings, key))
    except ValueError as error:
        raise RecipeError(key, str(error)) from error
