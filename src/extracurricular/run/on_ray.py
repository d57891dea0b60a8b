"""Do stages on the machines of a Ray cluster: each stage is one task of Ray.

Ray knows what each task needs, and begins it where there is room as soon as that is done; a task
whose worker or machine dies is done again from its checkpoint. Runs lie in folders that all
machines see. Data sets travel by Ray's object store, where the tasks of a machine share them, and a
person's own code by its ``runtime_env``.
"""

from __future__ import annotations

import os
import pickle
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from extracurricular.data.images.stream import streamed
from extracurricular.errors import StorageError, TrainingError, XclError, first_line
from extracurricular.knowledge.fingerprint import canonical
from extracurricular.run.cluster import Needs, Pulse, cluster, quiet, told_of_loss
from extracurricular.run.jobs import Failed, Job, Order, Read, keep_memory
from extracurricular.run.lock import Attempt, has_mark, marked, stage_locked
from extracurricular.run.shared_data import Sent, received, sent, size_of
from extracurricular.run.tasks import Key, Task, ready_tasks
from extracurricular.run.workspace import Workspace

RETRIES = 5
"""How often a stage is done again whose worker or machine died."""
# Larger data sets are read by each process itself.
_MOST_SENT = 2**30
# Seconds between two looks at what tasks report, and between two reports of a task.
_POLL = 0.2
_EVERY = 0.5

Told = tuple[str, str, tuple[Any, ...]]
"""The folder of a run, the name of a method of its watcher, and the arguments."""


@dataclass(frozen=True)
class _Outcome:
    """The end of a task.

    Args:
        failed: Its error; None where it has none.
        told: What its watcher was told for good.
    """

    failed: Failed | None = None
    told: tuple[Told, ...] = ()


@dataclass(frozen=True)
class _Setting:
    """All that the tasks of one call have in common.

    Args:
        mark: The content of the marks in the folders of runs.
        host: The machine of the driver.
        version: The version of this package.
    """

    mark: str
    host: str
    version: str


def do_on_ray(
    tasks: Sequence[Task],
    workspaces: Mapping[Path, Workspace],
    on: str,
    jobs: int | None = None,
    finished: Callable[[Task], None] | None = None,
) -> None:
    """Do stages of one run or of several on a Ray cluster.

    Args:
        tasks, workspaces: As for :func:`~extracurricular.run.executors.do_tasks`.
        on: ``ray``, or the address of a cluster: ``ray://HOST:PORT``.
        jobs: Stages at once on a cluster that is started here; None for as many as the cores allow.
        finished: Called with each task that is done, before any that needs it begins.

    Raises:
        XclError: There is no such cluster, a stage failed, or its worker died too often.
    """
    mark = secrets.token_hex(16)
    with ExitStack() as stack:
        ray = stack.enter_context(cluster(on, jobs, list(workspaces.values())))
        for workspace in workspaces.values():
            stack.enter_context(marked(workspace.folder, mark))
        driver = _Driver(ray, workspaces, mark, finished)
        try:
            with quiet(), told_of_loss(on):
                driver.run(tasks)
        except BaseException:
            driver.cancel()
            raise


class _Driver:
    """The tasks that a cluster is at work on."""

    def __init__(
        self,
        ray: Any,
        workspaces: Mapping[Path, Workspace],
        mark: str,
        finished: Callable[[Task], None] | None,
    ) -> None:
        self.ray, self.workspaces, self.mark, self.finished = ray, workspaces, mark, finished
        self.watchers = {str(_absolute(one)): one.watcher for one in workspaces.values()}
        self.recipes = {run: _recipe(one) for run, one in workspaces.items()}
        self.running: dict[Any, Task] = {}
        self.refs: dict[Key, Any] = {}
        self.told: set[tuple[str, str, str]] = set()
        self.asked: Any = None

    def run(self, tasks: Sequence[Task]) -> None:
        """Do all tasks."""
        ray = self.ray
        # Where the driver's own process is, if it is in the cluster: it lives as long as the run.
        here = ray.get_runtime_context().get_node_id()
        near = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=True)
        own = {"num_cpus": 0, "scheduling_strategy": near, "max_restarts": -1}
        # The dashboard shows stages alone.
        reports = ray.remote(_Reports).options(**own, enable_task_events=False)
        self.reports = reports.remote()
        self.data = self._sent(tasks)
        self.setting = _Setting(self.mark, socket.gethostname(), _version())
        self.do, self.needs = ray.remote(_do_task), Needs(ray)
        # The longest first, so that none is left alone at the end.
        waiting = sorted(tasks, key=lambda task: task.work, reverse=True)
        ahead = {task.key for task in tasks}
        looked, pulse = 0.0, Pulse(ray)
        while waiting or self.running:
            # Ray begins a task when what it needs is done. Where the caller has something to do in
            # between, it gets the task no sooner.
            after = ahead if self.finished is not None else {task.key for task in waiting}
            while ready := ready_tasks(waiting, after):
                for task in ready:
                    self._submit(task)
                begun = {task.key for task in ready}
                waiting = [task for task in waiting if task.key not in begun]
                after = after - begun if self.finished is None else ahead
            ended, _ = ray.wait(list(self.running), timeout=_POLL)
            for ref in ended:
                task = self.running.pop(ref)
                self._end(task, ref)
                ahead.discard(task.key)
            if time.monotonic() - looked > _EVERY:
                pulse.feel()
                self._pass_on()
                looked = time.monotonic()

    def _sent(self, tasks: Sequence[Task]) -> dict[bytes, Any]:
        """Give data sets to Ray, but for those that each process reads itself."""
        found: dict[bytes, Any] = {}
        for task in tasks:
            workspace, spec = self.workspaces[task.run], task.stage.data
            if (known := canonical(spec)) not in found:
                data = workspace.data(spec)
                itself = streamed(data.train.x) is not None or size_of(data) > _MOST_SENT
                content = workspace.content(spec)
                found[known] = None if itself else self.ray.put(sent(spec, data, content))
        return found

    def _submit(self, task: Task) -> None:
        workspace = self.workspaces[task.run]
        content = workspace.content(task.stage.data)
        order = Order(_absolute(workspace), self.recipes[task.run], (task.stage.path,), content)
        data = self.data[canonical(task.stage.data)]
        needs = [self.refs[key] for key in sorted(task.needs) if key in self.refs]
        options = self.needs.of(task.stage, workspace)
        do = self.do.options(name=task.stage.title, max_retries=RETRIES, **options)
        ref = do.remote(order, self.setting, self.reports, [data], *needs)
        self.refs[task.key], self.running[ref] = ref, task

    def _end(self, task: Task, ref: Any) -> None:
        """Take the end of a task."""
        outcome = _got(self.ray, ref, task)
        self._tell(outcome.told)
        if outcome.failed is not None:
            raise outcome.failed.error()
        if self.finished is not None:
            self.finished(task)

    def _pass_on(self) -> None:
        """Pass on to the watchers what tasks have reported; what is lost on its way is no harm."""
        if self.asked is None:
            self.asked = self.reports.take.remote()
        if not self.ray.wait([self.asked], timeout=0)[0]:
            return
        with suppress(self.ray.exceptions.RayError):
            self._tell(self.ray.get(self.asked))
        self.asked = None

    def _tell(self, told: Iterable[Told]) -> None:
        """Pass reports on to the watchers; but for steps, each comes twice."""
        for run, name, arguments in told:
            if name != "advance":
                if (run, name, arguments[0]) in self.told:
                    continue
                self.told.add((run, name, arguments[0]))
            getattr(self.watchers[run], name)(*arguments)

    def cancel(self) -> None:
        """End all tasks."""
        if not self.ray.is_initialized():
            return  # the connection is lost, and Ray would look for another cluster
        with quiet(), suppress(Exception):  # the cluster may be gone
            for ref in self.running:
                self.ray.cancel(ref, force=True)


def _got(ray: Any, ref: Any, task: Task) -> _Outcome:
    """Return the end of a task.

    Raises:
        XclError: Its worker died too often, or never began.
    """
    title, errors = task.stage.title, ray.exceptions
    try:
        found: _Outcome = ray.get(ref)
    except errors.RuntimeEnvSetupError as error:
        raise XclError(
            f"{title}: the code that the recipe names cannot be brought to a machine of the "
            f"cluster: {first_line(error)}"
        ) from None
    except errors.RayTaskError as error:
        if isinstance(error.cause, ImportError):
            raise XclError(
                f"{title}: a machine of the cluster has not all that this one has "
                f"({first_line(error.cause)}); install the same there"
            ) from None
        raise
    except errors.OutOfMemoryError:
        raise TrainingError(
            f"{title}: its machine has too little memory; the same command goes on from its "
            "checkpoint"
        ) from None
    except errors.RayError as error:
        raise TrainingError(
            f"{title}: its worker or machine died {RETRIES + 1} times "
            f"({type(error).__name__}); the same command goes on from its checkpoint"
        ) from None
    return found


def _absolute(workspace: Workspace) -> Path:
    return workspace.folder.absolute()


def _recipe(workspace: Workspace) -> bytes:
    """Return the recipe of a run, with the device that this machine has: others may have more."""
    recipe = workspace.recipe
    device = recipe.device.model_copy(update={"accelerator": workspace.hardware.kind})
    return pickle.dumps(recipe.model_copy(update={"device": device}))


@cache
def _version() -> str:
    return version("extracurricular")


# -- in the cluster -------------------------------------------------------------------------------


class _Reports:
    """Keeps what tasks report until the driver asks."""

    def __init__(self) -> None:
        self.told: list[Told] = []

    def put(self, told: list[Told]) -> None:
        """Take reports."""
        self.told += told

    def take(self) -> list[Told]:
        """Return all reports since the last call."""
        found, self.told = self.told, []
        return found


class _Worker:
    """A process of the cluster: its job, and the attempt that it is at work on."""

    def __init__(self, setting: _Setting) -> None:
        keep_memory()
        self.setting, self.job = setting, Job(self.report, self.fetch)
        self.data: Any = None
        self.reports: Any = None
        self.told: list[Told] = []
        self.attempt: Attempt | None = None
        self.at = 0.0

    def fetch(self, known: bytes) -> Read | None:
        """Return the data set of the task, if the driver has sent it."""
        import ray

        found: Sent | None = None if self.data is None else ray.get(self.data)
        if found is None or canonical(found.spec) != known:
            return None
        return found.spec, received(found), found.content

    def report(self, run: str, name: str, arguments: tuple[Any, ...]) -> None:
        """Report to the driver: steps at once, and the rest with the outcome at the latest."""
        attempt = self.attempt
        assert attempt is not None
        if name != "advance":
            self.told.append((run, name, arguments))
        if name == "begin" and not attempt.is_first:
            text = f"{arguments[0]} goes on from its checkpoint: its worker or machine died"
            self.told.append((run, "tell", (text,)))
        if name == "begin" or (name == "advance" and time.monotonic() - self.at > _EVERY):
            if not attempt.is_last:
                # The cluster took this machine for dead, and another is at work on the stage.
                os._exit(1)
            self.at = time.monotonic()
            told = self.told if name == "begin" else [(run, name, arguments)]
            self.reports.put.remote(list(told))


_WORKER: list[_Worker] = []


def _do_task(
    order: Order, setting: _Setting, reports: Any, data: list[Any], *needs: _Outcome
) -> _Outcome:
    """Do a stage, unless one that it needs has failed."""
    if any(need.failed is not None for need in needs):
        return _Outcome(next(need.failed for need in needs if need.failed is not None))
    if not _WORKER or _WORKER[0].setting.mark != setting.mark:
        _WORKER[:] = [_Worker(setting)]
    [worker] = _WORKER
    [worker.data], worker.reports, worker.told, [path] = data, reports, [], order.paths
    try:
        _check_place(order, setting)
        with stage_locked(order.run, path) as worker.attempt:
            _check_place(order, setting)  # another run may have begun in the meantime
            failed = worker.job.do(order)
    except XclError as error:
        failed = Failed(type(error), (str(error),))
    if failed is not None and socket.gethostname() != setting.host:
        *rest, text = failed.arguments
        failed = replace(failed, arguments=(*rest, f"{text} (on {socket.gethostname()})"))
    return _Outcome(failed, tuple(worker.told))


def _check_place(order: Order, setting: _Setting) -> None:
    """Refuse a machine that has another version, or that does not see the folder of the run."""
    host, own = socket.gethostname(), _version()
    if own != setting.version:
        raise XclError(
            f"the machine {host} has extracurricular {own}, and this one {setting.version}; "
            "install the same on all machines of the cluster"
        )
    if not has_mark(order.run, setting.mark):
        raise StorageError(
            f"the machine {host} does not see the folder {str(order.run)!r} of the run; give an "
            "--out on a file system that all machines of the cluster share, at the same path"
        )
