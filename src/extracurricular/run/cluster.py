"""A Ray cluster: the one that is there, or one that is started for a run and ended after it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from extracurricular.errors import RecipeError, TrainingError, XclError, first_line, from_extra
from extracurricular.knowledge.fingerprint import canonical
from extracurricular.models import parameter_count
from extracurricular.recipe.named_code import named_code
from extracurricular.run.cohorts import most_together
from extracurricular.run.jobs import environment
from extracurricular.run.network import NetworkStage
from extracurricular.run.shared_data import size_of
from extracurricular.run.stages import Stage
from extracurricular.run.workspace import Workspace

ADDRESS = "RAY_ADDRESS"
"""The variable of the environment with the address of a cluster, as all programs of Ray read it."""
# The variable by which Ray encrypts what it sends.
_TLS = "RAY_USE_TLS"
# The variable by which it shows a token.
_AUTH = "RAY_AUTH_MODE"
# Seconds in which a machine answers that is there.
_PATIENCE = 5.0
# Seconds between two looks at a cluster, and those of silence after which its head is dead, which a
# network may cut off for a moment, or its part on this machine. Ray itself waits for 60 and 14.
_PULSE, _HEAD, _HERE = 1.0, 15.0, 5.0
# Memory of a process that has imported all it needs.
_BARE = 600 * 2**20
# Copies of a network's numbers in a training: weights, gradients, moments, averages, checkpoint.
_COPIES = 6
# Memory is asked for in such pieces: tasks that ask for the same follow each other quicker.
_PIECE = 256 * 2**20


def check_cluster(on: str, jobs: int | None) -> None:
    """Refuse a cluster that cannot be used, before anything is read.

    Raises:
        RecipeError: The address is none, nobody answers there, or jobs are given for a cluster that
            is there already.
        XclError: Ray is not installed.
    """
    address = address_of(on)
    _ray()
    if address is None:
        return
    if jobs is not None:
        raise RecipeError(
            "--jobs",
            f"is {jobs}, but the cluster at {address} has as many workers as it has; leave it out",
        )
    if address != "auto":
        _call(address, f"--on {on}" if on != "ray" else ADDRESS)


def address_of(on: str) -> str | None:
    """Return the address of the cluster that is there; None where one is to be started.

    Raises:
        RecipeError: The address is none.
    """
    if on == "ray":
        return os.environ.get(ADDRESS) or None
    if not on.startswith("ray://"):
        raise RecipeError(
            "--on", f"is {on!r}; it should be ray, or ray://HOST:PORT of a cluster that is there"
        )
    return on


def _call(address: str, key: str) -> None:
    """Look whether anybody answers at an address."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or port is None:
        raise RecipeError(key, f"is {address!r}; an address is ray://HOST:PORT or HOST:PORT")
    try:
        with socket.create_connection((host, port), timeout=_PATIENCE) as line:
            answers = bool(os.environ.get(_TLS)) or _speaks(line)
    except OSError as error:
        said = error.strerror or str(error)
        raise RecipeError(
            key,
            f"there is no cluster at {address!r}: {said}; begin one with `ray start --head`, or "
            "leave the address out, and one is started for the run",
        ) from None
    if not answers:
        raise RecipeError(key, f"what answers at {address!r} is no cluster of Ray")


def _speaks(line: socket.socket) -> bool:
    """Return whether the other end speaks HTTP/2, as Ray does; Ray itself would wait for minutes.

    Both sides begin with a frame of settings (RFC 9113, sections 3.4 and 6.5).
    """
    settings = b"\0\0\0\4\0\0\0\0\0"
    line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
    found = b""
    while len(found) < 4 and (more := line.recv(9)):
        found += more
    return found[3:4] == settings[3:4]


def _ray() -> ModuleType:
    """Return Ray.

    Raises:
        XclError: It is not installed.
    """
    try:
        # It prints the errors of workers, which a run tells in its own words.
        with warnings.catch_warnings(), environment(RAY_DEDUP_LOGS_SKIP_REGEX="(?s).*"):
            warnings.simplefilter("ignore")
            import ray
            import ray.util.scheduling_strategies
    except ImportError as error:
        raise XclError(f"--on ray needs Ray, {from_extra('ray')}") from error
    return ray


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what Ray tells of itself from the terminal while a block runs."""
    # The second passes nothing on to the first.
    loggers = [logging.getLogger(name) for name in ("ray", "ray.util.client.logsclient")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"ray\b")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextmanager
def cluster(on: str, jobs: int | None, workspaces: Sequence[Workspace]) -> Iterator[ModuleType]:
    """Join a cluster while a block runs; one that this process has joined already is taken.

    Args:
        on: ``ray``, or ``ray://HOST:PORT``.
        jobs: Stages at once, where one is started; None for as many as the cores allow.
        workspaces: Those of the runs that are to be done, for their threads and their code.

    Yields:
        The module ``ray``.

    Raises:
        XclError: There is no such cluster, or it cannot be joined.
    """
    check_cluster(on, jobs)
    ray, address = _ray(), address_of(on)
    if ray.is_initialized():
        yield ray
        return
    given: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL + 1}
    code = own_modules(workspaces)
    if code:
        given["runtime_env"] = {"py_modules": [str(file) for file in code]}
    if address is None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        threads = max(one.recipe.device.threads for one in workspaces)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        count = (jobs or max(1, (cores or 1) // threads)) * threads
        given |= {"num_cpus": count, "include_dashboard": False}
    try:
        with quiet(), _own_signals():
            ray.init(address or "local", **given)
    except Exception as error:  # it has many kinds of them
        where, hint = "a cluster cannot be started here", ""
        if address is not None:
            where = f"the cluster at {address!r} cannot be joined"
            hint = f"; one that asks for a token wants {_AUTH}=token here too"
        raise XclError(f"--on {on}: {where}: {first_line(error)}{hint}") from error
    try:
        yield ray
    finally:
        with quiet():
            ray.shutdown()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the end of this process as it is: Ray would print where it was at SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def own_modules(workspaces: Sequence[Workspace]) -> list[Path]:
    """Return the files and packages of a person's own code that recipes name.

    With each that is not installed goes what it has imported from beside it. They were imported
    when the recipe was checked.
    """
    names = {
        name.partition(":")[0].partition(".")[0]
        for workspace in workspaces
        for name in named_code(workspace.recipe.dump()).values()
    }
    named = [place for name in names if (place := _place(name)) is not None]
    beside = {place.parent for place in named}
    tops = {name.partition(".")[0] for name in sys.modules}
    places = {place for name in tops if (place := _place(name)) is not None}
    return sorted({*named, *(place for place in places if place.parent in beside)})


def _place(name: str) -> Path | None:
    """Return the file or folder of a module that no package manager has installed."""
    found = sys.modules.get(name)
    file = getattr(found, "__file__", None)
    paths = list(getattr(found, "__path__", []))
    place = Path(paths[0]) if paths else Path(file) if file else None
    if place is None or name in sys.stdlib_module_names or name in ("__main__", "extracurricular"):
        return None
    if {"site-packages", "dist-packages"} & set(place.parts):
        return None
    return place if place.is_dir() or place.suffix == ".py" else None


class Pulse:
    """Notices that the cluster of a run has died, before Ray ends this process itself.

    It does so without a word that a person could use: after a minute where the head of the cluster
    is gone, sooner where its own part on this machine is.

    Args:
        ray: The module, which has joined a cluster.
    """

    def __init__(self, ray: ModuleType) -> None:
        self._looked = time.monotonic()
        context = ray.get_runtime_context()
        self._places: list[tuple[str, float, str]] = []
        # By ray:// this process is no part of the cluster, and its calls raise where that is gone.
        if not ray.util.client.ray.is_connected():
            head, node = context.gcs_address, context.get_node_id()
            self._places = [(head, _HEAD, f"the head of the cluster at {head!r} has died")] + [
                (
                    f"{one['NodeManagerAddress']}:{one['NodeManagerPort']}",
                    _HERE,
                    "Ray has died here",
                )
                for one in ray.nodes()
                if one["NodeID"] == node
            ]
        self._answered = dict.fromkeys(self._places, self._looked)

    def feel(self) -> None:
        """Look now and then whether the head of the cluster and this machine's part are alive.

        Raises:
            TrainingError: One is not.
        """
        now = time.monotonic()
        if now - self._looked < _PULSE:
            return
        self._looked = now
        for place in self._places:
            address, silence, what = place
            if _listens(address):
                self._answered[place] = now
            elif now - self._answered[place] > silence:
                raise _dead(what)


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PULSE).close()
    except OSError:
        return False
    return True


def _dead(what: str) -> TrainingError:
    return TrainingError(
        f"{what}; the same command goes on from the checkpoints once there is a cluster"
    )


@contextmanager
def told_of_loss(on: str) -> Iterator[None]:
    """Tell in one sentence that a cluster that was joined by its address is gone.

    Raises:
        TrainingError: It is.
    """
    try:
        yield
    except ConnectionError as error:
        raise _dead(f"the cluster at {on!r} is gone ({first_line(error)})") from error


class Needs:
    """What stages ask of a machine, as options of a task of Ray.

    Args:
        ray: The module.
    """

    def __init__(self, ray: ModuleType) -> None:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self._cpus, self._gpus, self._memory = (
            max((node.get(name, 0) for node in nodes), default=0)
            for name in ("CPU", "GPU", "memory")
        )
        self._sizes: dict[bytes, int] = {}

    def of(self, stage: Stage, workspace: Workspace) -> dict[str, float]:
        """Return those of a stage, after a sentence where no machine has so much yet."""
        cpus = workspace.recipe.device.threads
        gpus = 1 / most_together(workspace) if workspace.device.type == "cuda" else 0
        if cpus > self._cpus:
            workspace.watcher.tell(
                f"no machine of the cluster has {cpus} CPUs (device.threads); the run waits for one"
            )
        if gpus > self._gpus:
            workspace.watcher.tell("no machine of the cluster has a GPU; the run waits for one")
        # It is an estimate: one that asks for more than any machine has would wait for ever.
        memory = min(self._bytes_of(stage, workspace), self._memory) // _PIECE * _PIECE
        return {"num_cpus": cpus, "num_gpus": gpus, "memory": memory}

    def _bytes_of(self, stage: Stage, workspace: Workspace) -> int:
        """Return about the bytes of memory that a stage takes."""
        numbers = 0
        if isinstance(stage, NetworkStage):
            members = getattr(stage.teacher, "members", ())
            models = [stage.model, *(member.model for member in members)]
            numbers = sum(self._numbers(model, stage, workspace) for model in models)
        return _BARE + size_of(workspace.data(stage.data)) + 4 * _COPIES * numbers

    def _numbers(self, model: Any, stage: Stage, workspace: Workspace) -> int:
        """Return the parameters of a network, or 0 for what is none."""
        known = canonical([model, stage.data])
        if known not in self._sizes:
            self._sizes[known] = 0
            with suppress(XclError):
                network = workspace.network(model, workspace.data(stage.data), 0, stage.key)
                self._sizes[known] = parameter_count(network)
        return self._sizes[known]
