"""Do stages one after the other, or several at once in processes of their own.

A training has the same number of threads either way (``device.threads``, 1 unless the recipe says
otherwise), so the numbers do not depend on the number of jobs. A job is a process of the standard
library's pool: it builds the plan again, gets the data set from the parent as a mapped file, and
keeps the teachers and generators that it has loaded for its next stage.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver, get_context, parent_process
from pathlib import Path
from typing import Any

import torch

from extracurricular.errors import (
    RecipeError,
    TrainingError,
    XclError,
    own_mistake,
    show_traceback,
)
from extracurricular.files import telling
from extracurricular.recipe.schema import Recipe
from extracurricular.run.cohorts import do_group, do_in_order, next_group
from extracurricular.run.lock import remove_data
from extracurricular.run.network import NetworkStage, asks_at_each_step
from extracurricular.run.plan import plan
from extracurricular.run.shared_data import Mapped, mapped, read_mapped
from extracurricular.run.stages import Stage
from extracurricular.run.workspace import Workspace

# A process takes as long to start as some thousand steps of a small network.
_FEWEST_STEPS = 2000
# Seconds between two looks at what the jobs report.
_POLL = 0.05
# Freed memory that a process keeps.
_KEPT_BYTES = 2**28


def job_count(wanted: int | None, recipe: Recipe, stages: Sequence[Stage]) -> int:
    """Return how many stages are done at once.

    Args:
        wanted: What a person asks for; None for as many as the cores allow.
        recipe: The recipe, for its device and threads.
        stages: The stages that are to do.
    """
    if wanted is not None:
        return max(1, min(wanted, len(stages)))
    accelerator = recipe.device.accelerator
    other = torch.cuda.is_available() or torch.backends.mps.is_available()
    if accelerator not in ("cpu", "auto") or (accelerator == "auto" and other):
        return 1
    if sum(stage.steps for stage in stages) < _FEWEST_STEPS:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min((cores or 1) // recipe.device.threads, len(stages)))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Give torch this many threads for the time of a block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _keep_memory() -> None:
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


def do_stages(stages: Sequence[Stage], workspace: Workspace, jobs: int = 1) -> None:
    """Do stages, each after those that it needs.

    Args:
        stages: The stages, in an order in which each stands behind all that it needs.
        workspace: The workspace of the run.
        jobs: How many are done at once; 1 for one after the other in this process.

    Raises:
        XclError: A stage failed, or the system killed a job. What is done is kept.
    """
    _keep_memory()
    if jobs == 1:
        do_in_order(stages, workspace)
        return
    done = [stage for stage in stages if stage.is_done(workspace)]
    for stage in done:
        stage.do(workspace)  # what is finished may still have something to look at
    waiting = [stage for stage in stages if stage not in done]
    if waiting:
        with _data_files(waiting, workspace) as files, _Pool(workspace, files, jobs) as pool:
            pool.run(waiting, {stage.path for stage in done})


@contextmanager
def _data_files(stages: Sequence[Stage], workspace: Workspace) -> Iterator[list[Mapped]]:
    """Put the data sets of stages into files that all jobs map, for the time of a block."""
    specs = {repr(stage.data): stage.data for stage in stages}
    files: list[Mapped] = []
    try:
        for number, spec in enumerate(specs.values()):
            file = workspace.folder / f".data-{os.getpid()}-{number}"
            data, content = workspace.data(spec), workspace.content(spec)
            with telling(file, "write"):
                found = mapped(spec, data, content, file)
            files += [found] if found is not None else []
        yield files
    finally:
        remove_data(workspace.folder)


# -- the parent -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Failed:
    """An error of a job, in a form that crosses to another process."""

    kind: type[XclError]
    arguments: tuple[str, ...]

    def error(self) -> XclError:
        """Return the error."""
        return self.kind(*self.arguments)


def job_context(workspace: Workspace) -> Any:
    """Return the way in which jobs begin, and start what they begin from.

    Jobs are never forks of this process, which would inherit locks that threads hold. On Linux they
    are forks of a process that has imported what they need and has no threads; it imports in the
    background. A GPU must not be touched before a fork, and elsewhere than on Linux libraries are
    not made for one: there each job is a new interpreter.
    """
    if sys.platform != "linux" or workspace.device.type != "cpu":
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["extracurricular.run.preloaded"])
    with _environment(**_thread_counts(workspace)):
        forkserver.ensure_running()
    return context


def _thread_counts(workspace: Workspace) -> dict[str, str]:
    """Return the variables that give a job's libraries their number of threads."""
    count = str(workspace.recipe.device.threads)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return dict.fromkeys(names, count)


class _Pool:
    """The processes of a run, and the stages that they are at work on."""

    def __init__(self, workspace: Workspace, files: list[Mapped], jobs: int) -> None:
        self.workspace, self.jobs = workspace, jobs
        context = job_context(workspace)
        self.reports = context.Queue()
        given = (workspace.recipe, workspace.folder, files, self.reports, sys.path)
        self.executor = ProcessPoolExecutor(
            jobs, mp_context=context, initializer=_begin_job, initargs=given
        )

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        processes = list((getattr(self.executor, "_processes", None) or {}).values())
        self.executor.shutdown(wait=kind is None, cancel_futures=True)
        if kind is not None:
            # Their stages are resumed from their checkpoints.
            for process in processes:
                process.kill()
            for process in processes:
                process.join()
        self.reports.close()
        self.reports.cancel_join_thread()

    def run(self, stages: Sequence[Stage], done: set[str]) -> None:
        """Do all stages; ``done`` are the paths of those that are finished already."""
        waiting, running = list(stages), dict[Future[_Failed | None], list[Stage]]()
        ahead = {stage.path for stage in stages}
        while waiting or running:
            while len(running) < self.jobs:
                needed = ahead - done
                ready = [s for s in waiting if not any(one.path in needed for one in s.needs)]
                if not ready:
                    break
                # The longest first, so that none is left alone at the end.
                group = next_group(sorted(ready, key=_work, reverse=True))
                waiting = [stage for stage in waiting if stage not in group]
                running[self._submit(group)] = group
            finished, _ = wait(running, timeout=_POLL, return_when=FIRST_COMPLETED)
            self._pass_on()
            for future in finished:
                group = running.pop(future)
                self._check(future, [*group, *itertools.chain(*running.values())])
                done |= {stage.path for stage in group}
        self._pass_on()

    def _submit(self, group: list[Stage]) -> Future[_Failed | None]:
        try:
            # The pool begins its processes as stages come.
            with _environment(**_thread_counts(self.workspace)):
                return self.executor.submit(_do_job, [stage.path for stage in group])
        except BrokenProcessPool:
            raise _killed(group) from None

    def _check(self, future: Future[_Failed | None], at_work: list[Stage]) -> None:
        try:
            failed = future.result()
        except BrokenProcessPool:
            raise _killed(at_work) from None
        if failed is not None:
            self._pass_on()
            raise failed.error()

    def _pass_on(self) -> None:
        """Pass on to the watcher what jobs have reported."""
        # A report may still be on its way when its job is done.
        while True:
            try:
                name, arguments = self.reports.get(timeout=0.001)
            except queue.Empty:
                return
            getattr(self.workspace.watcher, name)(*arguments)


def _work(stage: Stage) -> int:
    """Return the steps of a stage, twice those of a student that asks its teacher at each."""
    asks = isinstance(stage, NetworkStage) and asks_at_each_step(stage)
    return stage.steps * (2 if asks else 1)


def _killed(stages: list[Stage]) -> TrainingError:
    titles = ", ".join(stage.title for stage in stages)
    return TrainingError(
        f"a job was killed, most likely for want of memory, while these were at work: {titles}; "
        "the same command goes on from their checkpoints, with --jobs 1 for less memory"
    )


@contextmanager
def _environment(**changes: str) -> Iterator[None]:
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


# -- a job ----------------------------------------------------------------------------------------


class _Reporter:
    """A watcher that reports to the parent."""

    def __init__(self, reports: Any) -> None:
        self.reports = reports

    def plan(self, steps: int, done: int) -> None:
        """Report nothing: the parent knows."""

    def begin(self, title: str, steps: int) -> None:
        """Report that a stage begins."""
        self.reports.put(("begin", (title, steps)))

    def advance(self, title: str, step: int, loss: float | None) -> None:
        """Report how many steps are done."""
        self.reports.put(("advance", (title, step, loss)))

    def end(self, title: str, steps: int, seconds: float, problem: str = "") -> None:
        """Report that a stage has ended."""
        self.reports.put(("end", (title, steps, seconds, problem)))

    def tell(self, text: str) -> None:
        """Report a sentence."""
        self.reports.put(("tell", (text,)))


@dataclass
class _Job:
    """What a job keeps between its stages."""

    workspace: Workspace
    stages: dict[str, Stage]


_JOB: list[_Job] = []


def _begin_job(
    recipe: Recipe,
    folder: Path,
    files: list[Mapped],
    reports: Any,
    path: list[str],
) -> None:
    sys.path[:] = path
    # The parent hears an interruption from the keyboard, and ends its jobs.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _keep_memory()
    _end_with_parent()
    torch.set_num_threads(recipe.device.threads)
    workspace = Workspace(recipe, folder, _Reporter(reports))
    for one in files:
        workspace.give(one.spec, read_mapped(one), one.content)
    _JOB[:] = [_Job(workspace, {stage.path: stage for stage in plan(recipe).trained})]


def _end_with_parent() -> None:
    """End this process with its parent, so that it never writes where another run has begun."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _do_job(paths: list[str]) -> _Failed | None:
    [job] = _JOB
    try:
        do_group([job.stages[path] for path in paths], job.workspace)
    except RecipeError as error:
        show_traceback(error)
        return _Failed(RecipeError, (error.key, error.problem))
    except XclError as error:
        show_traceback(error)
        return _Failed(type(error), (str(error),))
    except Exception as error:
        # It leaves its place behind when it crosses to the parent.
        text = own_mistake(error)
        if text is None:
            raise
        show_traceback(error)
        return _Failed(XclError, (text,))
    return None
