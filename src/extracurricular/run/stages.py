"""A stage of a run: one thing to do, all that its result depends on, and how its folder is kept.

``stage.json`` is begun before a stage's work and finished after it, with the checksums of the files
that the stage leaves and of itself. A run whose recipe has other settings than the file is refused,
so that results never mix.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from extracurricular.data.base import Split
from extracurricular.errors import (
    StorageError,
    XclError,
    during,
    own_mistake,
    shorten,
)
from extracurricular.files import Checkpoints, read_checked, read_sealed, sha256, write_sealed
from extracurricular.generators import Generator
from extracurricular.knowledge.fingerprint import canonical
from extracurricular.recipe.difference import first_difference
from extracurricular.run.precision import settled
from extracurricular.run.settings import (
    SCHEMA,
    placeless,
    stored_settings,
    with_losses,
    with_places,
)
from extracurricular.run.workspace import RECORD, WEIGHTS, WHOSE, Workspace
from extracurricular.teachers import Teacher

LOG = "log.jsonl"
"""The log of a training, in the folder of its stage."""


@dataclass
class Checks:
    """The parts that a check of a recipe has built, so that nothing is built twice.

    Args:
        asks: How often each student's draw asks the teacher, by the key of the student.
        seen: Keys of the stages that were checked.
        teacher: The teacher as it will be, untrained.
        generators: The generators as they will be, unfitted, by name.
    """

    asks: dict[str, float] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    teacher: Teacher | None = None
    generators: dict[str, Generator | Split] = field(default_factory=dict)


@dataclass(frozen=True)
class Price:
    """The cost of a stage.

    Args:
        steps: Steps of its progress.
        draws: Draws of examples.
        questions: Examples that the teacher is asked about.
        bytes: Bytes that it writes, about.
        parameters: Numbers of its network.
    """

    steps: int
    draws: int = 0
    questions: int = 0
    bytes: int = 0
    parameters: int | None = None


@dataclass(frozen=True)
class Stage:
    """One thing to do in a run.

    Args:
        path: Its folder, relative to the run.
        title: Its title for the user.
        key: Where its settings stand in the recipe.
        data: Spec of the data set.
    """

    path: str
    title: str
    key: str
    data: Any

    @property
    def steps(self) -> int:
        """Steps that its progress counts; 1 where it is a single act."""
        return 1

    @property
    def needs(self) -> tuple[Stage, ...]:
        """The stages that must be done before this one."""
        return ()

    @property
    def settings(self) -> dict[str, Any]:
        """All that the result depends on but the content of the data, as plain values.

        Empty for a stage that is done anew in every run.
        """
        return {}

    @property
    def leaves(self) -> tuple[str, ...]:
        """The files that it leaves in its folder besides weights, with paths from there."""
        return ()

    @property
    def trainings(self) -> tuple[str, ...]:
        """The folders of its trainings, relative to the run, in which checkpoints are kept."""
        return (self.path,)

    def clear_checkpoints(self, workspace: Workspace) -> None:
        """Remove the checkpoints of its trainings, which a finished stage needs no longer."""
        for folder in self.trainings:
            Checkpoints(workspace.folder / folder).clear()

    def settings_in(self, workspace: Workspace) -> dict[str, Any]:
        """Return the settings with what ``auto`` became, as ``stage.json`` holds them."""
        found = settled(self.settings, workspace.precision, workspace.recipe.device.tf32)
        return with_losses(found, workspace.described(self.data).task)

    def damaged(self, workspace: Workspace) -> list[str]:
        """Return a sentence for each file that it left and that is not as it was written.

        Nothing is computed from them but from the weights, which are compared when they are read:
        here they are only looked for.
        """
        found, folder = [], workspace.folder / self.path
        if workspace.record(self.path).get("sha256") and not (folder / WEIGHTS).is_file():
            found.append(f"the file {str(folder / WEIGHTS)!r} is missing")
        for name in self.leaves:
            checksum = workspace.checksum(self.path, name)
            try:
                if checksum is not None:
                    read_checked(folder / name, checksum)
            except StorageError as error:
                found.append(str(error))
        return found

    def bound(self, workspace: Workspace) -> str:
        """Return all that its checkpoints belong to: its settings, its data and its place."""
        whole = [self.path, self.settings_in(workspace), workspace.content(self.data)]
        return canonical(placeless(whole)).decode()

    def do(self, workspace: Workspace) -> None:
        """Do the stage, unless it is done already.

        Raises:
            XclError: The stage failed; the message is one sentence.
        """
        raise NotImplementedError

    def check(self, workspace: Workspace, checks: Checks) -> None:
        """Build once all that the stage names, so that a mistake shows before anything is written.

        Raises:
            XclError: Something cannot be built.
        """

    def price(self, workspace: Workspace, checks: Checks) -> Price:
        """Return the cost of the stage."""
        return Price(self.steps)

    def is_done(self, workspace: Workspace) -> bool:
        """Return whether its folder says that it is finished."""
        file = workspace.folder / self.path / RECORD
        return file.exists() and self.is_finished(workspace.record(self.path))

    def is_finished(self, record: dict[str, Any]) -> bool:
        """Return whether a ``stage.json`` is that of a finished stage."""
        return bool(record.get("done"))

    def blame(self, error: ValueError) -> XclError:
        """Return the error to raise for a value that was refused while the stage was at work."""
        return XclError(f"{self.title}: {error}")

    def check_folder(self, workspace: Workspace) -> None:
        """Refuse a folder that was made with other settings or from other data.

        Raises:
            StorageError: The settings or the data are others.
        """
        if not self.settings or not (workspace.folder / self.path / RECORD).exists():
            return
        record = workspace.record(self.path)
        where = f"{self.key}: {str(workspace.folder)!r} holds {self.path}"
        way_out = "choose another --out, or delete that stage's folder"
        wanted = self.settings_in(workspace)
        found = with_places(stored_settings(record, f"{where}, which"), wanted)
        if found != wanted:
            path, was, now = first_difference(found, wanted, "")
            if path == "upstream":
                raise StorageError(
                    f"{where} made from other stages than the recipe names: another number of "
                    "teachers or generators, another teacher.calibrate, or with a record where "
                    f"there is none now; {way_out}"
                )
            raise StorageError(
                f"{where} made with {path} = {shorten(was)}, "
                f"but the recipe says {shorten(now)}; {way_out}"
            )
        content = record.get("content")
        if content is not None and content != workspace.content(self.data):
            raise StorageError(
                f"{where} made from other data: the training examples are not those that it "
                f"learned from; {way_out}"
            )


def note_files(folder: Path, names: Iterable[str]) -> None:
    """Add the checksums of files, as far as they are there, to the record of a finished stage."""
    record = read_sealed(folder / RECORD)
    found = {n: sha256(read_checked(folder / n, None)) for n in names if (folder / n).exists()}
    files = {**record.get("files", {}), **found}
    write_sealed(folder / RECORD, record | {"files": files})


@contextmanager
def begun(workspace: Workspace, stage: Stage) -> Iterator[dict[str, Any]]:
    """Record a stage in its ``stage.json`` and with the watcher while its work runs as a block.

    The file is begun before the block and finished after it. It then holds the values that the
    block puts into the dict it gets; ``seconds`` is the time of the block unless the block sets it.
    An error names the stage, and leaves it unfinished.
    """
    folder = workspace.folder / stage.path
    record: dict[str, Any] = {
        "schema": SCHEMA,
        WHOSE: stage.path,
        "settings": stage.settings_in(workspace),
        "content": workspace.content(stage.data),
        "done": False,
    }
    write_sealed(folder / RECORD, record)
    workspace.watcher.begin(stage.title, stage.steps)
    started = time.perf_counter()
    outcome: dict[str, Any] = {}
    try:
        with workspace.exact():
            yield outcome
    except XclError as error:
        raise during(stage.title, error) from error
    except ValueError as error:
        own = own_mistake(error)
        raise stage.blame(error if own is None else ValueError(own)) from error
    except Exception as error:
        error.add_note(stage.title)
        raise
    seconds = outcome.setdefault("seconds", round(time.perf_counter() - started, 3))
    outcome["files"] = {name: sha256(read_checked(folder / name, None)) for name in stage.leaves}
    write_sealed(folder / RECORD, record | {"done": True} | outcome)
    stage.clear_checkpoints(workspace)
    judged = outcome.get("against_constant") or {}
    problem = [judged["problem"]] if "problem" in judged else []
    workspace.watcher.end(stage.title, stage.steps, seconds, *problem)
    if "note" in judged:
        workspace.watcher.tell(f"{stage.title}: {judged['note']}")
