"""The trainings of one CIFAR-100 pair, each of which can be interrupted, for evidence.py."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from evidence_figures import Asked, figures, measured, release
from evidence_folder import begin, clear, keep
from extracurricular.data.base import Data
from extracurricular.errors import StorageError
from extracurricular.files import load_weights, read_json, save_weights, sha256, write_json
from extracurricular.matching import build_matching
from extracurricular.models.checkpoints import read_checkpoint
from extracurricular.models.weights import check_state, fitting_names
from extracurricular.recipe.read import read_recipe
from extracurricular.recipe.schema import Recipe, TeacherSection
from extracurricular.recipe.students import StudentSection
from extracurricular.run.answering import answering
from extracurricular.run.environment import environment
from extracurricular.run.precision import teacher_dtype
from extracurricular.run.settings import training_settings
from extracurricular.run.workspace import Workspace, sampler_seed
from extracurricular.samplers import Context, build_sampler
from extracurricular.teachers import LabelTeacher
from extracurricular.training import mastery_of, train

Up = Callable[[], bool]
Section = TeacherSection | StudentSection


class TimeIsUp(Exception):  # noqa: N818
    """A training was interrupted by the clock."""


class Pair:
    """One recipe in one budget, on a device.

    Args:
        name: A pair, ``TEACHER-STUDENT``.
        options: The arguments of the command line.
        up: Says whether the time is up.
    """

    def __init__(self, name: str, options: argparse.Namespace, up: Up) -> None:
        self.name, self.options, self.up = name, options, up
        self.out, self.evidence = Path(options.out), Path(options.evidence)
        self.recipe: Recipe = self.read()

    def read(self, *more: str) -> Recipe:
        """Read the recipe, with further overrides."""
        given = [f"budget={self.options.size}", f"device.accelerator={self.options.device}"]
        given += [f"data.path={self.options.data}"] if self.options.data else []
        return read_recipe(f"cifar100-{self.name}", [*given, *self.options.set, *more])

    @cached_property
    def workspace(self) -> Workspace:
        """The device, and the data on it."""
        return Workspace(self.recipe, self.out)

    @property
    def data(self) -> Data:
        """The data set, on the device."""
        return self.workspace.data_of(self.recipe.seeds[0])

    # -- teachers ---------------------------------------------------------------------------------

    @property
    def teacher_name(self) -> str:
        """Name of the trained teacher: pairs with the same teacher share it."""
        teacher = self.recipe.teacher
        return f"teacher-{teacher.model}-{teacher.training.steps}-steps"

    def asked(self) -> Asked:
        """Return the teacher: a given file, the trained one of before, or one that is trained now.

        Raises:
            TimeIsUp: The clock has interrupted its training.
        """
        section, data = self.recipe.teacher, self.data
        state = self._given()
        source = "trained here" if state is None else "given"
        file = self.out / f"{self.teacher_name}.safetensors"
        if state is None:
            if not file.is_file():
                module, job = self.trained(self.teacher_name, section, 0, None)
                save_weights(file, _half(module.state_dict()))
                self._write(self.teacher_name, module, section, 0, job, None)
                clear(self.out / self.teacher_name)
            state = load_weights(file)
        module = self.workspace.network(section.model, data, 0, "teacher.model")
        module.load_state_dict(state)
        module.to(self.workspace.device).eval()
        facts = {
            "network": section.model,
            "source": source,
            "sha256": _identity(state),
            "accuracy": measured(self.workspace, data, module, None)["accuracy"],
        }
        dtype = teacher_dtype(self.workspace.precision, self.workspace.hardware)
        return Asked(module, answering([module], data, dtype, False).teacher, facts)

    def _given(self) -> dict[str, Tensor] | None:
        """Return the weights in the first given file that holds the teacher's network."""
        module = self.workspace.network(self.recipe.teacher.model, self.data, 0, "teacher.model")
        expected = module.state_dict()
        for name in self.options.teacher:
            for found in read_checkpoint(Path(name)).states.values():
                state, _ = fitting_names(found, expected)
                try:
                    check_state(expected, state, name)
                except StorageError:
                    continue
                return dict(state)
        return None

    # -- trainings --------------------------------------------------------------------------------

    def student(self, which: str, seed: int, asked: Asked) -> bool:
        """Train one student, unless its figures are there; return whether it was trained.

        Raises:
            TimeIsUp: The clock has interrupted its training.
        """
        name = f"{self.options.size}-{self.name}-{which}-seed-{seed}-{asked.facts['sha256'][:8]}"
        section = self.recipe.students[which]
        if self._is_known(name, section, seed):
            return False
        module, job = self.trained(name, section, seed, asked)
        found = self._write(name, module, section, seed, job, asked)
        said = release(self.evidence, self.workspace, self.data, module, found)
        tell(said or f"{name}: a better student of its kind stays released")
        clear(self.out / name)
        return True

    def _settings(self, section: Section, seed: int) -> dict[str, Any]:
        return {
            "model": section.model,
            "sampler": section.sampler,
            "matching": section.matching,
            "training": training_settings(section.training),
            "seed": seed,
            "images": len(self.data.train),
        }

    def _is_known(self, name: str, section: Section, seed: int) -> bool:
        file = self.evidence / f"{name}.json"
        if not file.is_file():
            return False
        if read_json(file)["settings"] != self._settings(section, seed):
            raise StorageError(
                f"{str(file)!r} has figures of other settings; choose another --evidence"
            )
        return True

    def trained(
        self, name: str, section: Section, seed: int, asked: Asked | None
    ) -> tuple[nn.Module, dict[str, Any]]:
        """Train a network, or go on with it; return it and what is known of its training.

        Raises:
            TimeIsUp: The clock has interrupted it.
        """
        folder, data = self.out / name, self.data
        job = begin(folder, self._settings(section, seed), tell)
        # A training goes on in the precision in which it was begun.
        workspace = self.workspace
        if job.setdefault("precision", workspace.precision) != workspace.precision:
            workspace = Workspace(self.read(f"device.precision={job['precision']}"), self.out)
        here = environment(workspace.device)
        job["trained"] += [] if here in job["trained"] else [here]
        keep(folder, job)
        module = workspace.network(section.model, data, seed, "model").to(workspace.device)
        matching = build_matching(section.matching, "matching")
        with workspace.exact():
            teacher = LabelTeacher() if asked is None else asked.teacher
            context = Context(None if asked is None else teacher)
            source = sampler_seed(seed)
            mastery = mastery_of(
                section.sampler, data, teacher, section.training, workspace.fabric,
                seed=source, temperature=matching.temperature, context=context,
            )  # fmt: skip
            result = train(
                module,
                build_sampler(section.sampler, data, source, "sampler", context),
                teacher,
                data.task,
                matching=matching,
                settings=section.training,
                seed=seed,
                fabric=workspace.fabric,
                folder=folder,
                execution=workspace.execution,
                mastery=mastery,
                on_log=lambda line: job.update(mastery=line["mastery"]) if "mastery" in line else 0,
                tell=lambda text: tell(f"{name}: {text}"),
                interrupted=self.up,
            )
        job["seconds"] = round(result.seconds, 1)
        keep(folder, job)
        if result.steps < section.training.steps:
            tell(f"{name}: {result.steps} of {section.training.steps} steps, goes on next time")
            raise TimeIsUp
        return module, job

    def _write(
        self,
        name: str,
        module: nn.Module,
        section: Section,
        seed: int,
        job: dict[str, Any],
        asked: Asked | None,
    ) -> dict[str, Any]:
        """Write the figures of a finished network, and return them."""
        settings = self._settings(section, seed)
        found = figures(self.workspace, self.data, module, settings, job, asked)
        found |= {"name": name, "size": self.options.size, "command": self._command()}
        if asked is not None:
            students = self.recipe.students.items()
            found["student"] = next(which for which, one in students if one == section)
        write_json(self.evidence / f"{name}.json", found)
        said = found["figures"]
        tell(f"{name}: accuracy {100 * said['accuracy']:.2f} %, NLL {said['nll']:.3f}")
        return found

    def _command(self) -> str:
        words = ["python", "benchmarks/evidence.py", "--size", self.options.size]
        words += [word for change in self.options.set for word in ("--set", change)]
        words += ["--teacher", "FILE"] if self.options.teacher else []
        return shlex.join([*words, "--data", "DATA", "--out", "FOLDER"])


def _half(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.half() if v.is_floating_point() else v for k, v in state.items()}


def _identity(state: dict[str, Tensor]) -> str:
    """Return the checksum of weights, rounded to float16, whatever file they come from."""
    parts = [f"{k} {tuple(v.shape)}".encode() for k, v in sorted(state.items())]
    parts += [v.cpu().contiguous().numpy().tobytes() for _, v in sorted(_half(state).items())]
    return sha256(b"".join(parts))


def tell(text: str) -> None:
    print(text, flush=True)
