"""Runs on a Ray cluster of two nodes, of which workers, a node, the head or the run are killed.

The nodes are processes on this machine. A run ends with the numbers of an undisturbed one, or with
one sentence, and then the same command goes on to them.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from drills._runs import Base, base, differences
from drills.common import Dice, Ended, Result, Tally, xcl

COUNT = 20
KINDS = ("worker", "node", "run", "head")
_WORDS = ("run", "r.yaml", "--on", "ray", "--out")
# Words of Ray that no terminal shows.
_TALK = ("raylet", "ray::", ".cc:", ".h:", "WARNING", "INFO")
# Kills of one trial.
_WORKERS = 2
# Seconds in which a run ends whose cluster has died.
_ENDS = 60.0
# Seconds in which a cluster begins a stage, or a worker that was killed another one.
_PATIENCE = 120.0


def drill(dice: Dice, count: int, folder: Path) -> Result:
    """Make ``count`` trials."""
    tally = Tally()
    training = {"steps": 2500, "batch_size": 16, "lr": 0.003, "checkpoint_every": 100}
    model = {"mlp": {"hidden": [8]}}
    whole = base(
        "plain",
        folder / "plain",
        seeds=[0],
        teacher={"model": model, "members": 2, "training": training},
        defaults={"model": model, "training": training},
    )
    with _Nodes() as nodes:
        for number, own in dice.trials(count):
            tally.tried += 1
            nodes.renew()
            _trial(number, own, whole, nodes, tally)
    return tally.result()


def _trial(number: int, dice: Dice, whole: Base, nodes: _Nodes, tally: Tally) -> None:
    kind = KINDS[number % len(KINDS)]
    out = whole.folder / f"trial-{number}"
    shutil.rmtree(out, ignore_errors=True)
    if kind == "run":
        ended = xcl(*_WORDS, out.name, cwd=whole.folder, real=True, kill_after=dice.uniform(8, 25))
        killed = int(ended.status == -signal.SIGKILL)
    else:
        killer = _Killer(kind, dice, nodes)
        killer.start()
        ended = xcl(*_WORDS, out.name, cwd=whole.folder, real=True)
        killer.stop.set()
        killer.join()
        killed = killer.kills
        late = time.monotonic() - killer.at
        if kind == "head" and killed and (ended.status != 2 or late > _ENDS):
            nodes.restart()
            tally.fault(number, f"status {ended.status} {late:.0f} s after the head was killed: "
                        f"{ended.text[-300:]}")  # fmt: skip
            return
    tally.outcome(f"{kind}s killed", killed)
    tally.outcome("stages gone on with", ended.text.count("goes on from its checkpoint"))
    if ended.status != 0:
        if kind != "run" and not _fine(number, ended, tally):
            return
        tally.outcome("ended early")
        if kind == "head":
            nodes.restart()
        ended = xcl(*_WORDS, out.name, cwd=whole.folder, real=True)
    found = differences(out, whole.run) if ended.status == 0 else [ended.text[-800:]]
    if found or not _fine(number, ended, tally):
        tally.fault(number, f"{kind}: {'; '.join(found[:5])} ({out})")
        return
    tally.outcome("bit-equal at the end")
    shutil.rmtree(out)


def _fine(number: int, ended: Ended, tally: Tally) -> bool:
    """Return whether a command did nothing that none may do, such as Ray's own talk."""
    talk = [line for line in ended.text.splitlines() if any(word in line for word in _TALK)]
    fault = ended.fault or (f"talk of the engine: {talk[0]}" if talk else None)
    if fault is not None:
        tally.fault(number, fault)
    return fault is None


class _Killer(threading.Thread):
    """Kills workers, a node or the head while a run is at work."""

    def __init__(self, kind: str, dice: Dice, nodes: _Nodes) -> None:
        super().__init__(daemon=True)
        self.kind, self.dice, self.nodes = kind, dice, nodes
        self.stop, self.kills, self.at = threading.Event(), 0, 0.0

    def run(self) -> None:
        """Kill, until enough is killed or the run has ended."""
        while self.kills < (_WORKERS if self.kind == "worker" else 1):
            if not self._begun() or self.stop.wait(self.dice.uniform(0.1, 2.0)):
                return
            if self.kind != "worker":
                self.at = time.monotonic()
                self.nodes.kill(self.kind)
                self.kills += 1
                return
            at_work = self.nodes.at_work()
            if at_work:
                with suppress(ProcessLookupError):
                    os.kill(self.dice.choice(at_work), signal.SIGKILL)
                    self.kills += 1

    def _begun(self) -> bool:
        """Wait until a stage is at work, where the kind of kill wants one; return whether it is."""
        until = time.monotonic() + _PATIENCE
        second = self.kind == "node"
        while time.monotonic() < until and not self.stop.is_set():
            if self.nodes.at_work(second):
                return True
            time.sleep(0.05)
        return False


class _Nodes:
    """A cluster of two nodes with one worker each."""

    def __enter__(self) -> _Nodes:
        with warnings.catch_warnings(), _silent():
            warnings.simplefilter("ignore")
            from ray.cluster_utils import Cluster

            self.cluster: Any = Cluster(
                initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
            )
        self.second: Any = None
        self.before = os.environ.get("RAY_ADDRESS")
        os.environ["RAY_ADDRESS"] = self.cluster.address
        return self

    def __exit__(self, *_: object) -> None:
        os.environ.pop("RAY_ADDRESS")
        if self.before is not None:
            os.environ["RAY_ADDRESS"] = self.before
        with _silent():
            self.cluster.shutdown()

    def renew(self) -> None:
        """Begin the second node, unless it is alive."""
        if self.second is None:
            with _silent():
                self.second = self.cluster.add_node(num_cpus=1)

    def kill(self, kind: str) -> None:
        """Kill the second node, or all processes of the first, which is the head."""
        if kind == "node":
            second, self.second = self.second, None
            with _silent():
                self.cluster.remove_node(second, allow_graceful=False)
            return
        for some in self.cluster.head_node.all_processes.values():
            for one in some:
                with suppress(ProcessLookupError):
                    os.kill(one.process.pid, signal.SIGKILL)

    def restart(self) -> None:
        """End the cluster, and begin another."""
        self.__exit__()
        self.__enter__()
        self.renew()

    def at_work(self, second: bool = False) -> list[int]:
        """Return the processes that do a stage, on the second node or on both."""
        nodes = [self.second] if second else [self.cluster.head_node, self.second]
        nodes = [node for node in nodes if node is not None]
        raylets = {
            one.process.pid for node in nodes for one in node.all_processes.get("raylet", [])
        }
        return [pid for pid, title, parent in processes() if parent in raylets and works(title)]


def works(title: str) -> bool:
    """Return whether a process of Ray does a stage."""
    return title.startswith("ray::") and title.partition("::")[2].startswith(
        ("teacher", "erm", "kd", "xcl")
    )


def processes() -> Iterator[tuple[int, str, int]]:
    """Yield number, title and parent of each process."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError, ValueError):
                title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                yield int(folder.name), title, parent


@contextmanager
def _silent() -> Iterator[None]:
    """Keep what Ray tells from the terminal."""
    import logging

    logger, before = logging.getLogger("ray"), logging.getLogger("ray").level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
