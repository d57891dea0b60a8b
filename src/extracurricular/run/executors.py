"""Do stages one after the other, or several at once in processes of their own.

A training has the same number of threads either way (``device.threads``, 1 unless the recipe says
otherwise), so the numbers do not depend on the number of jobs. A job is a process of the standard
library's pool: it builds the plan again, gets the data set from the parent as a mapped file, and
keeps the teachers and generators that it has loaded for its next stage. Stages of several runs are
done in the same way as those of one.
"""

from __future__ import annotations

import itertools
import os
import pickle
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver, get_context, parent_process
from pathlib import Path
from typing import Any

import torch

from extracurricular.errors import TrainingError
from extracurricular.files import telling
from extracurricular.knowledge.fingerprint import canonical
from extracurricular.recipe.schema import Recipe
from extracurricular.run.cohorts import do_in_order, group_of
from extracurricular.run.jobs import Failed, Job, Order, Read, environment, keep_memory
from extracurricular.run.lock import remove_data
from extracurricular.run.shared_data import Mapped, mapped, read_mapped
from extracurricular.run.stages import Stage
from extracurricular.run.tasks import Task, as_tasks, ready_tasks
from extracurricular.run.workspace import Workspace

# A process takes as long to start as some thousand steps of a small network.
_FEWEST_STEPS = 2000
# Seconds between two looks at what the jobs report.
_POLL = 0.05


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


def do_stages(
    stages: Sequence[Stage], workspace: Workspace, jobs: int | None = 1, on: str | None = None
) -> None:
    """Do stages of one run, each after those that it needs.

    Args:
        stages: The stages, in an order in which each stands behind all that it needs.
        workspace: The workspace of the run.
        jobs, on: As for :func:`do_tasks`.

    Raises:
        XclError: A stage failed, or the system killed a job. What is done is kept.
    """
    run, some = workspace.folder, stages
    if on is not None or jobs != 1:
        done = [stage for stage in stages if stage.is_done(workspace)]
        for stage in done:
            stage.do(workspace)  # what is finished may still have something to look at
        some = [stage for stage in stages if stage not in done]
    do_tasks(as_tasks(some, run), {run: workspace}, jobs=jobs, on=on)


def do_tasks(
    tasks: Sequence[Task],
    workspaces: Mapping[Path, Workspace],
    *,
    jobs: int | None = 1,
    on: str | None = None,
    finished: Callable[[Task], None] | None = None,
) -> None:
    """Do stages of one run or of several, each after those that it needs.

    The caller has locked the folders of the runs (:func:`~extracurricular.run.lock.locked`).

    Args:
        tasks: The stages; one that needs another of them may stand before it.
        workspaces: The workspace of each run, by its folder.
        jobs: How many are done at once; 1 for one after the other in this process. With ``on``,
            the workers of the cluster that is started, None for as many as the cores allow.
        on: The cluster that does them: ``ray``, or ``ray://HOST:PORT``; None for this machine.
        finished: Called in this process with each task that is done, before any task that needs it
            begins.

    Raises:
        XclError: A stage failed, or the system killed a job. What is done is kept.
    """
    if not tasks:
        return
    keep_memory()
    some = {run: workspaces[run] for run in dict.fromkeys(task.run for task in tasks)}
    _share_data(tasks, some)
    if on is not None:
        from extracurricular.run.on_ray import do_on_ray  # an extra

        do_on_ray(tasks, some, on, jobs, finished)
        return
    finished = finished or (lambda task: None)
    if jobs is None or jobs == 1:
        with threads(torch.get_num_threads()):
            do_in_order(tasks, some, finished)
        return
    with _data_files(tasks, some) as files, _Pool(some, files, jobs) as pool:
        pool.run(tasks, finished)


def _by_data(tasks: Sequence[Task]) -> list[list[Task]]:
    """Return the tasks with each data set, by run the first alone."""
    found: dict[bytes, dict[Path, Task]] = {}
    for task in tasks:
        found.setdefault(canonical(task.stage.data), {}).setdefault(task.run, task)
    return [list(some.values()) for some in found.values()]


def _share_data(tasks: Sequence[Task], workspaces: Mapping[Path, Workspace]) -> None:
    """Read each data set once for all runs that have it."""
    for first, *others in _by_data(tasks):
        source, spec = workspaces[first.run], first.stage.data
        for other in others:
            workspaces[other.run].give(spec, source.data(spec), source.content(spec))


@contextmanager
def _data_files(
    tasks: Sequence[Task], workspaces: Mapping[Path, Workspace]
) -> Iterator[list[Mapped]]:
    """Put the data sets of tasks into files that all jobs map, for the time of a block."""
    first = [some[0] for some in _by_data(tasks)]
    files: list[Mapped] = []
    try:
        for number, task in enumerate(first):
            workspace, spec = workspaces[task.run], task.stage.data
            file = workspace.folder / f".data-{os.getpid()}-{number}"
            data, content = workspace.data(spec), workspace.content(spec)
            with telling(file, "write"):
                found = mapped(spec, data, content, file)
            files += [found] if found is not None else []
        yield files
    finally:
        for run in {task.run for task in first}:
            remove_data(workspaces[run].folder)


# -- the parent -----------------------------------------------------------------------------------


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
    with environment(**_thread_counts(workspace)):
        forkserver.ensure_running()
    return context


def _thread_counts(workspace: Workspace) -> dict[str, str]:
    """Return the variables that give a job's libraries their number of threads."""
    count = str(workspace.recipe.device.threads)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return dict.fromkeys(names, count)


class _Pool:
    """The processes of some runs, and the tasks that they are at work on."""

    def __init__(
        self, workspaces: Mapping[Path, Workspace], files: list[Mapped], jobs: int
    ) -> None:
        self.workspaces, self.jobs = workspaces, jobs
        self.first = next(iter(workspaces.values()))
        self.watchers = {str(one.folder): one.watcher for one in workspaces.values()}
        self.recipes = {run: pickle.dumps(one.recipe) for run, one in workspaces.items()}
        context = job_context(self.first)
        self.reports = context.Queue()
        self.executor = ProcessPoolExecutor(
            jobs,
            mp_context=context,
            initializer=_begin_job,
            initargs=(files, self.reports, sys.path),
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

    def run(self, tasks: Sequence[Task], finished: Callable[[Task], None]) -> None:
        """Do all tasks."""
        # The longest first, so that none is left alone at the end.
        waiting = sorted(tasks, key=lambda task: task.work, reverse=True)
        running: dict[Future[Failed | None], list[Task]] = {}
        ahead = {task.key for task in tasks}
        while waiting or running:
            while len(running) < self.jobs:
                ready = ready_tasks(waiting, ahead)
                if not ready:
                    break
                group = group_of(ready)
                begun = {task.key for task in group}
                waiting = [task for task in waiting if task.key not in begun]
                at_work = [*itertools.chain(*running.values()), *group]
                running[self._submit(group, at_work)] = group
            ended, _ = wait(running, timeout=_POLL, return_when=FIRST_COMPLETED)
            self._pass_on()
            for future in ended:
                group = running.pop(future)
                self._check(future, [*group, *itertools.chain(*running.values())])
                for task in group:
                    finished(task)
                    ahead.discard(task.key)
        self._pass_on()

    def _submit(self, group: list[Task], at_work: list[Task]) -> Future[Failed | None]:
        run = group[0].run
        paths = tuple(task.stage.path for task in group)
        order = Order(self.workspaces[run].folder, self.recipes[run], paths)
        try:
            # The pool begins its processes as stages come.
            with environment(**_thread_counts(self.first)):
                return self.executor.submit(_do_job, order)
        except BrokenProcessPool:
            raise _killed(at_work) from None

    def _check(self, future: Future[Failed | None], at_work: list[Task]) -> None:
        try:
            failed = future.result()
        except BrokenProcessPool:
            raise _killed(at_work) from None
        if failed is not None:
            self._pass_on()
            raise failed.error()

    def _pass_on(self) -> None:
        """Pass on to the watchers what jobs have reported."""
        # A report may still be on its way when its job is done.
        while True:
            try:
                run, name, arguments = self.reports.get(timeout=0.001)
            except queue.Empty:
                return
            getattr(self.watchers[run], name)(*arguments)


def _killed(tasks: list[Task]) -> TrainingError:
    titles = ", ".join(task.stage.title for task in tasks)
    return TrainingError(
        f"a job was killed, most likely for want of memory, while these were at work: {titles}; "
        "the same command goes on from their checkpoints, with --jobs 1 for less memory"
    )


# -- a job ----------------------------------------------------------------------------------------

_JOB: list[Job] = []


def _begin_job(files: list[Mapped], reports: Any, path: list[str]) -> None:
    sys.path[:] = path
    # The parent hears an interruption from the keyboard, and ends its jobs.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_memory()
    _end_with_parent()
    found = {canonical(file.spec): file for file in files}

    def fetch(known: bytes) -> Read | None:
        file = found.get(known)
        return None if file is None else (file.spec, read_mapped(file), file.content)

    _JOB[:] = [Job(lambda *told: reports.put(told), fetch)]


def _end_with_parent() -> None:
    """End this process with its parent, so that it never writes where another run has begun."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _do_job(order: Order) -> Failed | None:
    [job] = _JOB
    return job.do(order)
