"""Equal stages of several runs: each is done once, and its folder is put into the other runs.

A stage is a pure function of its settings, of what stands upstream and of its data (law 9), so
stages that agree in these have the same result. Its files become hard links, or copies where the
file system has no links. Whoever writes a file of a run makes a new one and renames it, so nothing
is ever changed through a link, and each run stays whole when another is deleted.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from extracurricular.errors import StorageError
from extracurricular.files import sha256
from extracurricular.knowledge.fingerprint import canonical
from extracurricular.run.answers import FILE as ANSWERS
from extracurricular.run.environment import FILE as ENVIRONMENT
from extracurricular.run.evaluation import METRICS
from extracurricular.run.kept import EXAMPLES, IDS
from extracurricular.run.kept import FILE as DATA
from extracurricular.run.plan import Plan, in_order
from extracurricular.run.recorded import RecordStage
from extracurricular.run.stages import Stage
from extracurricular.run.tasks import Key, Task
from extracurricular.run.workspace import RECORD, Workspace

# The evaluation of a run leaves these in the folders of its stages.
MEASURED = (ANSWERS, METRICS)
# What a run keeps of its data, whose description has the checksums of the rest; and its machines.
KEPT = (IDS, EXAMPLES, DATA, ENVIRONMENT)


@dataclass(frozen=True)
class Member:
    """One of several runs.

    Args:
        workspace: Its workspace.
        plan: Its stages.
        keys: The key of each stage, by its path: equal for equal stages.
    """

    workspace: Workspace
    plan: Plan
    keys: Mapping[str, str]

    @property
    def folder(self) -> Path:
        """Its folder."""
        return self.workspace.folder


def member(plan: Plan, workspace: Workspace) -> Member:
    """Return a run with the keys of its stages."""
    found: dict[str, str] = {}
    for stage in in_order([*plan.trained, *plan.calibrations.values()]):
        parts = [
            stage.path,
            stage.settings_in(workspace),
            workspace.content(stage.data),
            stage.draws if isinstance(stage, RecordStage) else None,
            sorted(found[need.path] for need in stage.needs),
        ]
        found[stage.path] = sha256(canonical(parts))
    return Member(workspace, plan, found)


@dataclass
class EqualStages:
    """The stages of several runs, by key: where each is done, and which runs wait for it.

    Args:
        done: The folder of a run in which a stage of this key is done.
        waiting: The runs that get a stage of this key once it is done.
        linked: How many stages were put into a run, so far.
    """

    done: dict[str, Path] = field(default_factory=dict)
    waiting: dict[str, list[Member]] = field(default_factory=dict)
    linked: int = 0
    _keys: dict[Path, Mapping[str, str]] = field(default_factory=dict)

    def tasks(self, members: Sequence[Member]) -> list[Task]:
        """Return a task for each stage that no run has done; link those that one has into others.

        Raises:
            StorageError: A file cannot be written.
        """
        waiting: list[tuple[Member, Stage]] = []
        for one in members:
            self._keys[one.folder] = one.keys
            for stage in one.plan.trained:
                if stage.is_done(one.workspace):
                    self.done.setdefault(one.keys[stage.path], one.folder)
                else:
                    waiting.append((one, stage))
        owners: dict[str, Key] = {}
        found: list[Task] = []
        for one, stage in waiting:
            key = one.keys[stage.path]
            if key in self.done:
                self._put(key, stage.path, [one])
            elif key in owners:
                self.waiting.setdefault(key, []).append(one)
            else:
                needs = (owners.get(one.keys[need.path]) for need in stage.needs)
                task = Task(one.folder, stage, frozenset(need for need in needs if need))
                owners[key] = task.key
                found.append(task)
        return found

    def finished(self, task: Task) -> None:
        """Put the stage of a task that is done into all runs that wait for it."""
        key = self._keys[task.run][task.stage.path]
        self.done[key] = task.run
        self._put(key, task.stage.path, self.waiting.pop(key, ()))

    def put_calibration(self, one: Member, stage: Stage) -> None:
        """Put a calibration into a run, if another has fitted it; or remember that this one has."""
        key = one.keys[stage.path]
        if stage.is_done(one.workspace):
            self.done.setdefault(key, one.folder)
        elif key in self.done:
            self._put(key, stage.path, [one])

    def _put(self, key: str, path: str, members: Iterable[Member]) -> None:
        for one in members:
            link_stage(self.done[key] / path, one.folder / path)
            self.linked += 1


def link_stage(source: Path, target: Path) -> None:
    """Put the folder of a finished stage into another run, ``stage.json`` last.

    What the evaluation left there, checkpoints, and what is hidden stays behind. Where the file
    system has no hard links, the files are copied.

    Raises:
        StorageError: A file cannot be read or written.
    """
    files = [f for f in sorted(source.rglob("*")) if f.is_file() and _belongs(f.name)]
    for file in sorted(files, key=lambda f: f.name == RECORD):
        _link(file, target / file.relative_to(source))


def link_files(source: Path, target: Path, names: Sequence[str]) -> None:
    """Put files of a folder into that of another run, as far as it has none of these names.

    What writes them in that run compares them, and writes its own where they differ.

    Raises:
        StorageError: A file cannot be read or written.
    """
    for name in names:
        if (source / name).is_file() and not (target / name).exists():
            _link(source / name, target / name)


def _link(file: Path, target: Path) -> None:
    """Make a link to a file, or a copy of it, that is there whole or not at all."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        try:
            os.link(file, temporary)
        except OSError:
            shutil.copyfile(file, temporary)
        temporary.replace(target)
        # A rename from a link to another of the same file does nothing, and leaves the first.
        temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"cannot put {str(file)!r} into {str(target.parent)!r}: {error.strerror or error}"
        ) from error


def _belongs(name: str) -> bool:
    return not (name.startswith(".") or name.endswith(".ckpt") or name in MEASURED)
