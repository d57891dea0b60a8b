"""A job: a process that does stages of runs for another one, and what it keeps between them."""

from __future__ import annotations

import ctypes
import os
import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from extracurricular.data.base import Data
from extracurricular.errors import DataError, RecipeError, XclError, own_mistake, show_traceback
from extracurricular.knowledge.fingerprint import canonical
from extracurricular.recipe.schema import Recipe
from extracurricular.run.cohorts import do_group
from extracurricular.run.plan import plan
from extracurricular.run.stages import Stage
from extracurricular.run.workspace import Workspace

# Runs whose workspaces a job keeps, with the teachers and generators that these have loaded.
_KEPT_RUNS = 4
# Freed memory that a process keeps.
_KEPT_BYTES = 2**28

Report = Callable[[str, str, tuple[Any, ...]], None]
"""Takes the folder of a run, the name of a method of its watcher, and the arguments."""


Read = tuple[Any, Data, str]
"""The spec of a data set, the data set, and its fingerprint."""
Fetch = Callable[[bytes], Read | None]


@dataclass(frozen=True)
class Order:
    """Stages to do at once.

    Args:
        run: The folder of their run.
        recipe: Its recipe, pickled: a job that has the run at hand does not read it.
        paths: The stages, by their paths.
        content: The fingerprint that their data must have; None where the job is given the data.
    """

    run: Path
    recipe: bytes
    paths: tuple[str, ...]
    content: str | None = None


@dataclass(frozen=True)
class Failed:
    """An error of a job, in a form that crosses to another process."""

    kind: type[XclError]
    arguments: tuple[str, ...]

    def error(self) -> XclError:
        """Return the error."""
        return self.kind(*self.arguments)


class Job:
    """The data sets, and the runs of the last stages, that a process keeps for its next stage.

    Args:
        report: Passes on what the watchers of runs are told.
        fetch: Returns a data set that another process has read, with its fingerprint, by its spec
            in canonical form; None for one that each process reads itself.
    """

    def __init__(self, report: Report, fetch: Fetch) -> None:
        self.report, self.fetch = report, fetch
        self._data: dict[bytes, Read] = {}
        self._runs: OrderedDict[Path, tuple[Workspace, dict[str, Stage]]] = OrderedDict()

    def do(self, order: Order) -> Failed | None:
        """Do stages, and return how they failed; None where they are done."""
        try:
            self._do(order)
        except RecipeError as error:
            show_traceback(error)
            return Failed(RecipeError, (error.key, error.problem))
        except XclError as error:
            show_traceback(error)
            return Failed(type(error), (str(error),))
        except Exception as error:
            # It leaves its place behind when it crosses to the parent.
            text = own_mistake(error)
            if text is None:
                raise
            show_traceback(error)
            return Failed(XclError, (text,))
        return None

    def _do(self, order: Order) -> None:
        workspace, stages = self._run(order)
        group = [stages[path] for path in order.paths]
        for stage in group:
            self._give(workspace, stage)
        torch.set_num_threads(workspace.recipe.device.threads)
        for stage in group if order.content is not None else ():
            if workspace.content(stage.data) != order.content:
                raise DataError(
                    f"{stage.title}: the data that this machine finds are not those of the run; "
                    "all machines must see the same at the same path"
                )
        do_group(group, workspace)
        for stage in group:
            known = canonical(stage.data)
            if known not in self._data:
                # Other runs have the same.
                found = stage.data, workspace.data(stage.data), workspace.content(stage.data)
                self._data[known] = found

    def _give(self, workspace: Workspace, stage: Stage) -> None:
        """Give a workspace the data set of a stage, unless it is to read it itself."""
        known = canonical(stage.data)
        if known not in self._data and (found := self.fetch(known)) is not None:
            self._data[known] = found
        if known in self._data:
            workspace.give(*self._data[known])

    def _run(self, order: Order) -> tuple[Workspace, dict[str, Stage]]:
        """Return workspace and stages of a run; they are made once, and kept for a while."""
        if order.run not in self._runs:
            recipe: Recipe = pickle.loads(order.recipe)
            workspace = Workspace(recipe, order.run, Reporter(str(order.run), self.report))
            stages = {stage.path: stage for stage in plan(recipe).trained}
            self._runs[order.run] = workspace, stages
            while len(self._runs) > _KEPT_RUNS:
                self._runs.popitem(last=False)
        self._runs.move_to_end(order.run)
        return self._runs[order.run]


class Reporter:
    """A watcher that reports what it is told.

    Args:
        run: The folder of the run.
        report: Passes it on.
    """

    def __init__(self, run: str, report: Report) -> None:
        self.run, self.report = run, report

    def plan(self, steps: int, done: int) -> None:
        """Report nothing: the parent knows."""

    def begin(self, title: str, steps: int) -> None:
        """Report that a stage begins."""
        self.report(self.run, "begin", (title, steps))

    def advance(self, title: str, step: int, loss: float | None) -> None:
        """Report how many steps are done."""
        self.report(self.run, "advance", (title, step, loss))

    def end(self, title: str, steps: int, seconds: float, problem: str = "") -> None:
        """Report that a stage has ended."""
        self.report(self.run, "end", (title, steps, seconds, problem))

    def tell(self, text: str) -> None:
        """Report a sentence."""
        self.report(self.run, "tell", (text,))


def keep_memory() -> None:
    """Let the C library keep the memory that tensors have freed, for the tensors of the next step.

    By default glibc gives it back to the system, and gets it again, cleared, page by page: a sixth
    of the time of a step on images of medium size.
    """
    if sys.platform == "linux":
        trim_threshold, mmap_threshold = -1, -3
        with suppress(AttributeError):  # another C library
            library = ctypes.CDLL(None)
            library.mallopt(trim_threshold, _KEPT_BYTES)
            library.mallopt(mmap_threshold, _KEPT_BYTES // 8)


@contextmanager
def environment(**changes: str) -> Iterator[None]:
    """Set variables of the environment for the time of a block."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
