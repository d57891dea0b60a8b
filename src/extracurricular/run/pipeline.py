"""The stages of a recipe, each resumable: teachers, students, evaluation, summary.

A run is a folder::

    recipe.yaml                      the recipe, with its defaults filled in
    teacher/SEED/member-0/           one trained network: weights.safetensors, stage.json, log.jsonl
    teacher/SEED/outside/            or one that is no network: stage.json alone
    generators/NAME/SEED/            one fitted generator, with quality.json and contact.png
    knowledge/KEY/                   the teacher recorded on the draws of one sampler
    students/NAME/seed-0/            the same for a student, and metrics.json
    environment.json                 versions and hardware of what was trained
    summary.json                     what came out

``stage.json`` is begun before a stage's training and finished after it. It holds all settings that
the result depends on; if a recipe asks for others, the run is refused instead of mixing results.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning_fabric import Fabric
from torch import nn

from extracurricular import rng
from extracurricular.data.base import Data, Split
from extracurricular.data.images.stream import left_out_of_draws
from extracurricular.data.sets import DATA
from extracurricular.distributions import Distribution
from extracurricular.errors import DataError, RecipeError, TrainingError, XclError, during
from extracurricular.evaluation import metrics
from extracurricular.evaluation.predict import predict
from extracurricular.evaluation.summary import summarise
from extracurricular.files import (
    Checkpoints,
    load_weights,
    locked,
    read_json,
    save_weights,
    write_if_changed,
    write_json,
    write_json_if_changed,
)
from extracurricular.generators import Generator
from extracurricular.models import build_model, parameter_count
from extracurricular.recipe.overrides import FULL, describe_budget
from extracurricular.recipe.schema import Recipe
from extracurricular.registry import split_spec
from extracurricular.run import teaching
from extracurricular.run.checking import build_matching, check
from extracurricular.run.environment import note_environment
from extracurricular.run.generating import fit, generator_stages, load, look, sentence
from extracurricular.run.loggers import Curves
from extracurricular.run.recording import knowledge_stages, record_stage, replayed
from extracurricular.run.stages import (
    AnyStage,
    GeneratorStage,
    KnowledgeStage,
    OutsideStage,
    Stage,
    Watcher,
)
from extracurricular.samplers import Context, Sampler, build_sampler
from extracurricular.samplers.build import Requirements, requirements
from extracurricular.teachers import LabelTeacher, NetworkTeacher, Teacher
from extracurricular.training import train

# Answers on the evaluation split that a run remembers, so that its report asks nobody again.
_REMEMBERED_BYTES = 64 * 2**20


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
        self._data: dict[str, Data] = {}
        self._generators: dict[str, Generator | Split] = {}
        self.asks: dict[str, float] = {}
        self._answers: dict[str, Distribution] = {}

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

    @property
    def data(self) -> Data:
        """The data set of the first seed, on the device."""
        return self.data_for(self.recipe.seeds[0])

    def data_for(self, seed: int) -> Data:
        """The data set of one seed, on the device; the same for all unless the recipe varies it."""
        spec = self.recipe.data_of(seed)
        known = json.dumps(spec, sort_keys=True)
        if known not in self._data:
            try:
                data = DATA.build(spec, key="data")
            except DataError as error:
                name, _ = split_spec(spec, "data set", "data")
                raise RecipeError(f"data.{name}", str(error)) from error
            self._data[known] = data.to(self.fabric.device)
        return self._data[known]

    def split_of(self, data: Data) -> Split:
        """The examples that results are measured on."""
        split = getattr(data, self.recipe.evaluation.split)
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
            self._begin(list(self.stages()))
            for stage in self.stages():
                self._do(stage)
            summary = self._summarise()
            write_json_if_changed(self.folder / "summary.json", summary)
        return summary

    def generate(self) -> dict[str, dict[str, Any]]:
        """Train the teachers and fit the generators, and no students.

        Returns:
            The figures of each generator, by the path of its folder.

        Raises:
            XclError: With one sentence for the user.
        """
        if not self.recipe.generators:
            raise RecipeError("generators", "is empty; there is nothing to generate from")
        self.check()
        with locked(self.folder):
            stages = [s for s in self.stages() if s.path.startswith(("teacher/", "generators/"))]
            self._begin(stages)
            for stage in stages:
                self._do(stage)
            found = {s.path: self._look(s) for s in stages if isinstance(s, GeneratorStage)}
        return {path: figures for path, figures in found.items() if figures is not None}

    def check(self) -> None:
        """Find every mistake of the recipe before anything is written.

        Raises:
            XclError: Something cannot be built, or the folder belongs to another recipe.
        """
        self.asks = check(self)

    # -- what there is to do ----------------------------------------------------------------------

    def teacher_seeds(self) -> list[int]:
        """Seeds of the teachers: the recipe's, or just 0 for the one that all share."""
        return self.recipe.seeds if self.recipe.teacher.per_seed else [0]

    def teacher_stages(self, seed: int) -> list[AnyStage]:
        """What the teacher that students of this seed learn from is made of."""
        return teaching.teacher_stages(self, seed)

    def student_stage(self, name: str, seed: int) -> Stage:
        """One student of one seed."""
        section = self.recipe.students[name]
        upstream: list[dict[str, Any]] = []
        required = self._requirements(section.sampler, f"students.{name}.sampler")
        if section.learns_from == "teacher" or required.teacher:
            upstream = [stage.settings(self.recipe) for stage in self.teacher_stages(seed)]
            upstream.append({"mc_dropout": self.recipe.teacher.mc_dropout})
        used = [s for s in generator_stages(self.recipe, seed) if s.name in required.generators]
        upstream += [stage.settings(self.recipe) for stage in used]
        teacher = self.recipe.teacher
        if section.learns_from == "teacher" and teacher.record is not None:
            upstream.append({"record": teacher.record, "codec": teacher.codec})
        return Stage(
            path=f"students/{name}/seed-{seed}",
            title=f"{name}, seed {seed}",
            key=f"students.{name}",
            data=self.recipe.data_of(seed),
            model=section.model,
            sampler=section.sampler,
            training=section.training,
            # Not the student's name: all students of a seed start from the same weights.
            seed=seed,
            matching=section.matching,
            learns_from=section.learns_from,
            upstream=tuple(upstream),
        )

    @staticmethod
    def _requirements(chain: Any, key: str) -> Requirements:
        try:
            return requirements(chain)
        except RecipeError as error:
            raise RecipeError(key, error.problem) from error

    def stages(self) -> Iterator[AnyStage]:
        """Everything to train and fit, in order."""
        if self.recipe.teacher.weights is None:
            for seed in self.teacher_seeds():
                yield from self.teacher_stages(seed)
        for seed in self.recipe.seeds if self.recipe.data_varies else [0]:
            yield from generator_stages(self.recipe, seed)
        yield from knowledge_stages(self)
        for seed in self.recipe.seeds:
            for name in self.recipe.students:
                yield self.student_stage(name, seed)

    # -- building ---------------------------------------------------------------------------------

    def model(self, stage: Stage, key: str) -> nn.Module:
        """A stage's network with its first weights; ``key`` is where its spec stands."""
        data = self.data_of(stage)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.fold(stage.seed, "init") >> 1)
            return build_model(
                stage.model,
                inputs=data.shapes,
                outputs=data.task.outputs,
                key=key,
                pixels=data.pixels,
            )

    def sampler(
        self, stage: Stage, context: Context | None = None, seed: int | None = None
    ) -> Sampler:
        """A stage's sampler; with the trained teacher and generators unless others are given."""
        seed, key = seed or rng.fold(stage.seed, "sampler"), f"{stage.key}.sampler"
        context = context or self.context(stage)
        return build_sampler(stage.sampler, self.data_of(stage), seed, key, context)

    def generators_of(self, stage: Stage) -> list[GeneratorStage]:
        """The generators that a student's sampler draws from."""
        names = self._requirements(stage.sampler, f"{stage.key}.sampler").generators
        return [s for s in generator_stages(self.recipe, stage.seed) if s.name in names]

    def context(self, stage: Stage, student: nn.Module | None = None) -> Context:
        """What the samplers of a stage may need: the trained teacher, and the fitted generators."""
        if stage.key == "teacher":
            return Context()
        required = self._requirements(stage.sampler, f"{stage.key}.sampler")
        teacher = self.teacher(stage.seed) if required.teacher else None
        used = self.generators_of(stage)
        return Context(teacher, student, {s.name: self.generator(s) for s in used})

    def generator(self, stage: GeneratorStage) -> Generator | Split:
        """A fitted generator."""
        if stage.path not in self._generators:
            self._generators[stage.path] = load(stage, self.folder, self.data_of(stage))
        return self._generators[stage.path]

    def data_of(self, stage: AnyStage) -> Data:
        """The data set of a stage, on the device."""
        seeds = [s for s in self.recipe.seeds if self.recipe.data_of(s) == stage.data]
        return self.data_for(seeds[0]) if seeds else self.data

    def load(self, stage: Stage) -> nn.Module:
        """Read a stage's trained network."""
        folder = self.folder / stage.path
        record = read_json(folder / "stage.json")
        state = load_weights(folder / "weights.safetensors", record.get("sha256"))
        module = self.model(stage, f"{stage.key}.model")
        module.load_state_dict(state)
        return module.to(self.fabric.device).eval()

    def teacher(self, seed: int) -> Teacher:
        """The trained teacher for students of this seed."""
        seed = seed if self.recipe.teacher.per_seed else 0
        if seed not in self._teachers:
            self._teachers[seed] = teaching.load_teacher(self, seed)
        return self._teachers[seed]

    def _network(self, stage: Stage) -> NetworkTeacher:
        return NetworkTeacher(self.load(stage), self.data_of(stage).task)

    def prepare(self, stage: Stage) -> None:
        """Do all that a student's stage needs first: its teacher, and what its sampler draws from.

        Of several processes, the first does it and the others wait.
        """
        trained = self.recipe.teacher.weights is None
        needed = self.teacher_stages(stage.seed) if trained else []
        needed += self.generators_of(stage)
        if int(os.environ.get("RANK", "0")) > 0:
            while not all(map(self._is_done, needed)):
                time.sleep(0.5)
        elif not all(map(self._is_done, needed)):
            with locked(self.folder):
                for part in needed:
                    self._do(part)

    # -- doing ------------------------------------------------------------------------------------

    def _begin(self, stages: list[AnyStage]) -> None:
        plain = yaml.safe_dump(self.recipe.plain(), sort_keys=False, allow_unicode=True)
        write_if_changed(self.folder / "recipe.yaml", plain.encode())
        if not all(map(self._is_done, stages)):
            note_environment(self.folder, self.fabric.device)
        if self.watcher is not None:
            name, changes = self.recipe.budget_name, self.recipe.budget_changes
            if name != FULL:
                self.watcher.tell(describe_budget(name, changes))
            for note in self.data.notes:
                self.watcher.tell(note)
            for data in self._data.values():
                left_out_of_draws(data)  # of those that checked the recipe
            for key, asks in self.asks.items():
                if asks > 1 and any(s.key == key and not self._is_done(s) for s in stages):
                    name = key.partition(".")[2]
                    self.watcher.tell(f"{name} asks the teacher {asks:.3g} times as often")
            done = sum(s.steps for s in stages if self._is_done(s))
            self.watcher.plan(sum(s.steps for s in stages), done)

    def _is_done(self, stage: AnyStage) -> bool:
        file = self.folder / stage.path / "stage.json"
        if not file.exists():
            return False
        record = read_json(file)
        enough = not isinstance(stage, KnowledgeStage) or record.get("draws", 0) >= stage.draws
        return bool(record.get("done")) and enough

    def _do(self, stage: AnyStage) -> None:
        if isinstance(stage, KnowledgeStage):
            if not self._is_done(stage):
                record_stage(self, stage)
        elif isinstance(stage, GeneratorStage):
            known = (self.folder / stage.path / "quality.json").exists()
            if not self._is_done(stage):
                fit(stage, self.recipe, self.folder, self.data_of(stage), self.watcher)
            figures = self._look(stage)
            if figures is not None and not known and self.watcher is not None:
                self.watcher.tell(sentence(stage.name, figures))
        elif self._is_done(stage):
            return
        elif isinstance(stage, OutsideStage):
            teaching.fit_stage(self, stage)
        else:
            self._train(stage)

    def _look(self, stage: GeneratorStage) -> dict[str, Any] | None:
        """Measure a fitted generator by the features of the teacher's first network."""
        teacher = self.teacher(self._seed_of(stage))
        network = teaching.first_network(teacher)
        return look(stage, self.recipe, self.folder, self.data_of(stage), teacher, network)

    def _seed_of(self, stage: AnyStage) -> int:
        """The first seed whose data a stage has."""
        return next((s for s in self.recipe.seeds if self.recipe.data_of(s) == stage.data), 0)

    def _train(self, stage: Stage) -> None:
        folder = self.folder / stage.path
        record: dict[str, Any] = {"settings": stage.settings(self.recipe), "done": False}
        write_json(folder / "stage.json", record)
        steps = stage.training.steps
        if self.watcher is not None:
            self.watcher.begin(stage.title, steps)
        student = self.model(stage, f"{stage.key}.model").to(self.fabric.device)
        data = self.data_of(stage)
        teacher: Teacher
        if stage.learns_from == "labels":
            sampler, teacher = self.sampler(stage, self.context(stage, student)), LabelTeacher()
        elif self.recipe.teacher.record is not None:
            sampler, teacher = replayed(self, stage)
        else:
            sampler = self.sampler(stage, self.context(stage, student))
            teacher = self.teacher(stage.seed)
        tell = self.watcher.tell if self.watcher is not None else None
        curves = Curves(self.recipe.log, folder, stage.title, str(self.folder), record, tell)
        status = "failed"
        try:
            result = train(
                student,
                sampler,
                teacher,
                self.data.task,
                matching=build_matching(stage.matching, f"{stage.key}.matching"),
                settings=stage.training,
                seed=stage.seed,
                fabric=self.fabric,
                folder=folder,
                evaluate=lambda module: self._validation(module, data),
                on_progress=self.watcher.advance if self.watcher is not None else None,
                on_log=curves,
            )
            status = "success"
        except ValueError as error:
            # Of a sampler, at a draw that the check before did not meet.
            raise TrainingError(f"{stage.title}: {error}") from error
        except XclError as error:
            raise during(stage.title, error) from error
        finally:
            curves.close(status)
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
            for told in left_out_of_draws(data):
                self.watcher.tell(told)

    def _validation(self, module: nn.Module, data: Data) -> dict[str, float]:
        """Figures on the validation split, for the log alone: they decide nothing."""
        if len(data.validation) == 0:
            return {}
        prediction = self.predict(NetworkTeacher(module, data.task), data, data.validation)
        labels = data.validation.y
        assert labels is not None
        figures = metrics.figures(prediction, labels.cpu(), angular=data.angular)
        return {name: round(value, 6) for name, value in figures.items()}

    def predict(self, teacher: Teacher, data: Data, split: Split) -> Distribution:
        """Predict a split in the target's own units, on the CPU, at the recipe's precision."""
        size = self.recipe.evaluation.batch_size
        with self.fabric.autocast():
            return predict(teacher, data, split, size)

    def answers(self, path: str, data: Data, ask: Callable[[], Teacher]) -> Distribution:
        """Predict the split that results are measured on; remembered, as long as there is room.

        Args:
            path: What is asked: the path of a student's stage, or ``teacher/SEED``.
            data: The data set of its seed.
            ask: Gives the network or teacher, if it is not remembered.
        """
        if path in self._answers:
            return self._answers[path]
        found = self.predict(ask(), data, self.split_of(data))
        kept = sum(answer.parameters.nbytes for answer in self._answers.values())
        if kept + found.parameters.nbytes <= _REMEMBERED_BYTES:
            self._answers[path] = found
        return found

    def _summarise(self) -> dict[str, Any]:
        """Evaluate what is not evaluated yet, and put the figures of all seeds together."""
        teachers: dict[int, Distribution] = {}
        teacher_rows: list[dict[str, Any]] = []
        student_rows: dict[str, list[dict[str, Any]]] = {n: [] for n in self.recipe.students}
        for seed in self.recipe.seeds:
            own = seed if self.recipe.teacher.per_seed else 0
            data = self.data_for(seed)
            split, angular = self.split_of(data), data.angular
            assert split.y is not None
            labels = split.y.cpu()
            if own not in teachers:
                teachers[own] = self.answers(f"teacher/{own}", data, partial(self.teacher, own))
            figures = metrics.figures(teachers[own], labels, angular=angular)
            records = teaching.teacher_records(self, own)
            teacher_rows.append({"metrics": figures, **records})
            for name in self.recipe.students:
                stage = self.student_stage(name, seed)
                prediction = self.answers(stage.path, data, partial(self._network, stage))
                figures = metrics.figures(
                    prediction, labels, teacher=teachers[own], angular=angular
                )
                record = read_json(self.folder / stage.path / "stage.json")
                taken = {key: record[key] for key in ("steps", "seconds", "parameters")}
                write_json_if_changed(self.folder / stage.path / "metrics.json", figures)
                student_rows[name].append({"metrics": figures, **taken})
        return summarise(
            self.recipe.plain(), self.data.task.kind, self.recipe.seeds, teacher_rows, student_rows
        )
