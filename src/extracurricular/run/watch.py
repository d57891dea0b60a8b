"""The processes of a run watch each other, so that none waits for one that is dead or hangs.

Each sets a beat in the store of ``torchrun`` every second, by a thread. Who misses another's beat
for half a minute tells it, in one sentence, and ends; so does everybody who finds such a sentence
in the store. ``torchrun`` itself ends all processes of a machine when one of them has ended.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from extracurricular.errors import TOLD, XclError, own_mistake, show_traceback

LIMIT = 30.0
"""Seconds without a beat after which a process counts as hanging."""

RESUMES = "the same command goes on from the checkpoints"

_EVERY = 1.0
# Seconds for all processes to come, on one machine and on several; and for the store to answer.
_TO_COME_HERE, _TO_COME, _TO_ANSWER = 40.0, 300.0, 20.0
# Seconds in which a dead process shows after another has failed, and after the network has.
_SOON = 3.0
_NETWORK = ("gloo", "nccl", "connection", "peer", "socket", "timed out")


@dataclass(frozen=True)
class Place:
    """One of the processes.

    Args:
        rank: Its number, from 0.
        world: Number of all.
        host: Its machine.
        process: Its number there.
    """

    rank: int
    world: int
    host: str
    process: int

    @classmethod
    def here(cls, rank: int, world: int) -> Place:
        """Return this process."""
        return cls(rank, world, socket.gethostname(), os.getpid())

    def __str__(self) -> str:
        """Name it in a sentence."""
        return f"rank {self.rank} of {self.world} (process {self.process} on {self.host})"


def killed(place: object, by: str) -> str:
    """Return the sentence on a process that a signal ended."""
    why = ", perhaps for want of memory" if by == "SIGKILL" else ""
    return f"{place} was killed by {by}{why}; {RESUMES}"


class Watch:
    """Beats for this process, and watches the beats of all.

    Args:
        place: This process.
        store: The store, for the thread alone.
    """

    def __init__(self, place: Place, store: Any) -> None:
        self.place, self.store = place, store
        self.others: list[Place] = []
        self._seen: dict[int, tuple[bytes, float]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="beat", daemon=True)

    def begin(self) -> None:
        """Wait until all processes have come, and begin to watch.

        Raises:
            XclError: One has not come.
        """
        own = self.place
        self.store.set(f"beat/{own.rank}", "begun")
        self.store.set(f"place/{own.rank}", f"{own.process} {own.host}")
        patience = _TO_COME if os.environ.get(TOLD) is None else _TO_COME_HERE
        for rank in range(own.world):
            try:
                self.store.wait([f"place/{rank}"], timedelta(seconds=patience))
            except Exception:  # the store's own kinds, which differ by version
                raise XclError(
                    f"rank {rank} of {own.world} has not come in {patience:g} s; {RESUMES}"
                ) from None
            process, _, host = self.store.get(f"place/{rank}").decode().partition(" ")
            if rank != own.rank:
                self.others.append(Place(rank, own.world, host, int(process)))
        self._thread.start()

    def end(self) -> None:
        """End the watch; the others no longer wait for beats of this process."""
        self._ended.set()
        self._thread.join()
        with suppress(Exception):  # the store may be gone by now
            self.store.set(f"beat/{self.place.rank}", "ended")

    def _run(self) -> None:
        number = 0
        while not self._ended.wait(_EVERY):
            number += 1
            try:
                said = self.look(number, time.monotonic())
            except Exception:  # the launcher is gone, and with it whoever could hear
                os._exit(2)
            if said:
                leave(self.place, self.store, said)

    def look(self, number: int, now: float) -> str:
        """Beat for the nth time, and return the sentence of a failure; empty where there is none.

        Args:
            number: The number of the beat.
            now: The time in seconds.
        """
        self.store.set(f"beat/{self.place.rank}", str(number))
        if self.store.check(["failed"]):
            return str(self.store.get("failed").decode())
        for other in self.others:
            beat = self.store.get(f"beat/{other.rank}")
            known, since = self._seen.get(other.rank, (b"", now))
            if beat != known:
                self._seen[other.rank] = beat, now
            elif beat != b"ended" and now - since > LIMIT:
                if other.host == self.place.host:
                    # Its launcher asks it to end, which it does not hear.
                    with suppress(OSError):
                        os.kill(other.process, signal.SIGKILL)
                return f"{other} has given no sign of life for {LIMIT:g} s; {RESUMES}"
        return ""

    def dead(self) -> Place | None:
        """Return a process of this machine that is dead; None where all live."""
        here = (other for other in self.others if other.host == self.place.host)
        return next((other for other in here if _is_dead(other.process)), None)


def _is_dead(process: int) -> bool:
    """Return whether a process has ended; one whose parent has not heard of it yet has, too."""
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def leave(place: Place, store: Any, sentence: str) -> None:
    """End this process at once, and have all others end with the same sentence, told once.

    It is told once on each machine: by `xcl` itself where it started the processes, else here.
    """
    first = True
    with suppress(Exception):  # without a store, it is told all the same
        sentence = store.compare_set("failed", "", sentence).decode()
        first = store.compare_set(f"told/{place.host}", "", str(place.rank)) == b"%d" % place.rank
    file = os.environ.get(TOLD)
    if file is not None:
        with suppress(OSError), Path(file).open("x", encoding="utf-8") as told:
            told.write(sentence)
    elif first:
        print(f"error: {sentence}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(2)


@contextmanager
def answering_for(watch: Watch, store: Any) -> Iterator[None]:
    """End all processes where a block fails in this one, with one sentence and status 2.

    Args:
        watch: The watch.
        store: The store, for this thread.
    """
    try:
        yield
    except XclError as error:
        show_traceback(error)
        leave(watch.place, store, str(error))
    except Exception as error:
        _wait_for_the_dead(watch, store, error)
        own = own_mistake(error)
        if own is None:
            traceback.print_exc()
        leave(watch.place, store, own or f"{watch.place} failed: {type(error).__name__}: {error}")


def _wait_for_the_dead(watch: Watch, store: Any, error: Exception) -> None:
    """Find the process whose end made this one fail, and end in its name; return if there is none.

    Where a machine is gone, the thread that watches ends this process meanwhile.
    """
    text = f"{type(error).__name__} {error}".lower()
    network = any(word in text for word in _NETWORK)
    until = time.monotonic() + (LIMIT + _SOON if network else _SOON)
    while time.monotonic() < until:
        dead = watch.dead()
        if dead is not None:
            if os.environ.get(TOLD) is not None:
                time.sleep(_SOON)  # whoever started it knows by what it died, and ends this one
            leave(watch.place, store, f"{dead} has died; {RESUMES}")
        time.sleep(0.02)
    if network:
        leave(watch.place, store, f"{watch.place} has lost the others; {RESUMES}")


def store_of_torchrun() -> Any:
    """Return a connection of its own to the store that ``torchrun`` keeps."""
    from torch._C._distributed_c10d import PrefixStore, TCPStore

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=_TO_ANSWER))
    return PrefixStore(f"xcl/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
