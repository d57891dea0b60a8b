"""One run by several processes: rank 0 does the run, and the others take part in its trainings.

Rank 0 plans, checks, measures and writes, as a run of one process does. Before each training it
tells the others which stage to train (through the store of ``torchrun``, so that nobody's waiting
has a limit), and all train it together, each on its slice of the draws. They share recordings too,
and the answers of a sharded teacher. All else rank 0 does alone.
"""

from __future__ import annotations

import inspect
import json
import logging
import os
import secrets
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import torch
from torch import nn

from extracurricular.errors import DataError, RecipeError
from extracurricular.files import write_atomic
from extracurricular.inputs import static_shapes
from extracurricular.knowledge.fingerprint import state_fingerprint
from extracurricular.run.watch import Place, Watch, answering_for, store_of_torchrun
from extracurricular.teachers.sharded import Sharded

if TYPE_CHECKING:
    from lightning_fabric import Fabric

P = ParamSpec("P")
T = TypeVar("T")

TOKEN = ".ranks"
"""A file in the run's folder by which the others find out that they see the same folder."""

# How long a collective may take: rank 0 may measure and write meanwhile.
_LONGEST = timedelta(hours=1)
# Seconds in which a new file must show on every machine.
_TO_SEE = 15.0
# So many messages are kept; nobody is further behind, as all meet in each training and answer.
_KEPT = 64


def count() -> int:
    """Return the number of processes that ``torchrun`` started, 1 without it."""
    text = os.environ.get("WORLD_SIZE", "1")
    return int(text) if text.isdigit() else 1


def rank() -> int:
    """Return the number of this process among them.

    Raises:
        RecipeError: There are several, and they have no numbers, as ``torchrun`` gives them.
    """
    if count() == 1:
        return 0
    for name in ("RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        if name not in os.environ:
            raise RecipeError(
                "WORLD_SIZE", f"is {count()}, but {name} is not set, as torchrun sets it; start "
                "the run by xcl run --devices N, by torchrun, or without WORLD_SIZE"
            )  # fmt: skip
    return int(os.environ["RANK"])


def follows(ranks: Ranks | None) -> bool:
    """Return whether this process takes part in what another does, and writes nothing."""
    return ranks is not None and not ranks.leads


def by_all(train: Callable[P, T]) -> Callable[P, T]:
    """Make all processes of a run train a stage together, where there are several.

    Args:
        train: Called with the stage, its workspace, and how far to train (``until``, ``stop``).
    """
    names = list(inspect.signature(train).parameters)

    @wraps(train)
    def do(*given: P.args, **more: P.kwargs) -> T:
        told: dict[str, Any] = dict(zip(names, given, strict=False)) | more
        stage, workspace = told["stage"], told["workspace"]
        ranks: Ranks | None = workspace.ranks
        if ranks is None:
            return train(*given, **more)
        content = workspace.content(stage.data)
        until, stop = told.get("until"), told.get("stop")
        ranks.tell("train", path=stage.path, content=content, until=until, stop=stop)
        with ranks.together():
            return train(*given, **more)

    return do


class Ranks:
    """This process among those of a run.

    Args:
        place: Its number, and where it runs.
        local: Processes on this machine.
        store: The store of all, for this thread.
        watch: Watches the others; None in tests.
    """

    def __init__(self, place: Place, local: int, store: Any, watch: Watch | None = None) -> None:
        self.place, self.local, self.store, self.watch = place, local, store, watch
        self.shards = False
        self.networks: dict[str, Sharded] = {}
        self._number = 0
        # Whether all processes do the same now, so that nobody need be told.
        self._together = False

    @classmethod
    def join(cls) -> Ranks:
        """Return this process, once all have come.

        Raises:
            XclError: One has not come.
        """
        # Python hears nothing while it waits in a collective, and what is written is whole.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        place = Place.here(rank(), count())
        watch = Watch(place, store_of_torchrun())
        watch.begin()
        return cls(place, int(os.environ["LOCAL_WORLD_SIZE"]), store_of_torchrun(), watch)

    @property
    def leads(self) -> bool:
        """Whether this process does the run."""
        return self.place.rank == 0

    # -- messages ---------------------------------------------------------------------------------

    def tell(self, what: str, **details: Any) -> None:
        """Tell the others what to take part in; nothing where all do the same already."""
        if not self.leads or self._together:
            return
        message = json.dumps({"what": what, **details})
        self.store.set(f"message/{self._number}", message)
        with suppress(Exception):  # not every kind of store forgets
            self.store.delete_key(f"message/{self._number - _KEPT}")
        self._number += 1

    def hear(self) -> dict[str, Any]:
        """Wait for the next message, however long it takes."""
        key, since = f"message/{self._number}", time.monotonic()
        while not self.store.check([key]):
            # Messages that are to come come soon, but for those after a long act of rank 0.
            time.sleep(0.001 if time.monotonic() - since < 1 else 0.02)
        self._number += 1
        found: dict[str, Any] = json.loads(self.store.get(key))
        return found

    @contextmanager
    def together(self) -> Iterator[None]:
        """Do what all do at the same time, of which nobody is told any more."""
        before, self._together = self._together, True
        try:
            # A sharded teacher must be asked as often by all, so not as often as draws need it.
            with static_shapes() if self.shards else nullcontext():
                yield
        finally:
            self._together = before

    # -- devices ----------------------------------------------------------------------------------

    def fabric(self, accelerator: str, precision: Any) -> Fabric:
        """Return device, precision and processes, once all have come here."""
        from lightning_fabric import Fabric
        from lightning_fabric.strategies.ddp import DDPStrategy

        # Both tell what is no news: that processes begin, and how weights lie in memory.
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        for text in ("find_unused_parameters=True", "Grad strides do not match"):
            warnings.filterwarnings("ignore", message=f".*{text}")
        # One process trains a network of which not every weight takes part, so several do.
        strategy = DDPStrategy(timeout=_LONGEST, find_unused_parameters=True)
        fabric = Fabric(
            accelerator=accelerator,
            devices=self.local,
            num_nodes=self.place.world // self.local,
            strategy=strategy,
            precision=precision,
        )
        fabric.launch()
        return fabric

    def shard(self, name: str, module: nn.Module, device: torch.device) -> Sharded:
        """Spread a network over all processes, each of which does this at the same time.

        Args:
            name: A name for it, the same in all processes.
            module: The network, on the CPU.
            device: The device of this process.
        """
        found = Sharded(
            module, device, self.place.world, state_fingerprint(module),
            lambda: self.tell("answer", name=name),
        )  # fmt: skip
        self.networks[name] = found
        return found

    # -- folders and data -------------------------------------------------------------------------

    def meet(self, folder: Path) -> None:
        """See to it that all processes see the folder of the run.

        Raises:
            RecipeError: One does not.
        """
        token = secrets.token_hex(8)
        write_atomic(folder / TOKEN, token.encode())
        self.tell("meet", token=token)
        try:
            for other in range(1, self.place.world):
                key = f"met/{token}/{other}"
                with suppress(Exception):  # it is looked for below
                    self.store.wait([key], timedelta(seconds=2 * _TO_SEE))
                if not self.store.check([key]):
                    raise _unseen(folder, f"rank {other} of {self.place.world}", self.place.host)
        finally:
            (folder / TOKEN).unlink(missing_ok=True)

    def see(self, folder: Path, token: str, seconds: float = _TO_SEE) -> None:
        """Look for the token that rank 0 has left in the folder of the run.

        Args:
            folder: The folder.
            token: The token.
            seconds: The time in which it must show.

        Raises:
            RecipeError: It is not there.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with suppress(OSError):
                if (folder / TOKEN).read_text() == token:
                    self.store.set(f"met/{token}/{self.place.rank}", "seen")
                    return
            time.sleep(0.1)
        raise _unseen(folder, str(self.place), self.store.get("place/0").decode().split(" ")[1])

    def check_content(self, content: str, wanted: str) -> None:
        """Refuse training examples that are not those of rank 0.

        Raises:
            DataError: They are others.
        """
        if content != wanted:
            raise DataError(
                f"the training examples that {self.place} reads are not those of rank 0; "
                "give all machines the same data"
            )

    def end(self) -> None:
        """End the run: the others end too."""
        self.tell("end")
        self.leave()

    def leave(self) -> None:
        """End this process's part."""
        from torch import distributed

        if self.watch is not None:
            self.watch.end()
        if distributed.is_initialized():
            distributed.destroy_process_group()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """End all processes where a block fails in this one."""
        assert self.watch is not None
        with answering_for(self.watch, self.store):
            yield


def _unseen(folder: Path, who: str, where: str) -> RecipeError:
    return RecipeError(
        "--out", f"is {str(folder)!r}, which {who} does not see as rank 0 on {where} does; give a "
        "folder of a file system that all machines share"
    )  # fmt: skip
