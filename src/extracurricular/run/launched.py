"""Start the processes of a run on this machine, by the launcher of torch, and end with them."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from extracurricular.errors import TOLD, RecipeError, XclError, shorten
from extracurricular.recipe.schema import DeviceSection
from extracurricular.run.precision import hardware
from extracurricular.run.ranks import count
from extracurricular.run.watch import RESUMES, killed

# A CPU has no number of devices; this many processes for each core are surely a mistake.
_MOST_FOR_A_CORE = 4


def read_devices(text: str | None) -> int | str | None:
    """Return the number of devices that a person gives: ``auto``, or at least 1; None for none.

    Raises:
        RecipeError: It is neither.
    """
    if text is None or text == "auto":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise RecipeError(
            "--devices", f"is {shorten(text)}; it must be a whole number of at least 1, or auto"
        )
    return int(text)


def device_count(section: DeviceSection, wanted: int | str | None) -> int:
    """Return the number of processes to start on this machine.

    Args:
        section: The device of the recipe.
        wanted: What a person gives on the command line; None for what the recipe says.

    Raises:
        RecipeError: There are fewer devices, or they are on several machines.
    """
    key = "device.devices" if wanted is None else "--devices"
    asked = section.devices if wanted is None else wanted
    kind = hardware(section.accelerator).kind
    there = torch.cuda.device_count() if kind == "cuda" else 1
    found = max(1, there) if asked == "auto" else int(asked)
    if kind == "cpu" and found > 1:
        cores = os.cpu_count() or 1
        if found > _MOST_FOR_A_CORE * cores:
            raise RecipeError(
                key, f"is {found}, but this machine has {cores} cores, each for at most "
                f"{_MOST_FOR_A_CORE} processes"
            )  # fmt: skip
    elif found > max(1, there):
        raise RecipeError(key, f"is {found}, but this machine has {there} of {kind}")
    if section.nodes > 1:
        raise RecipeError(
            "device.nodes", f"is {section.nodes}, but xcl starts processes on this machine alone; "
            f"start it on each by torchrun --nnodes {section.nodes} --nproc-per-node {found} "
            "-m extracurricular.cli run RECIPE"
        )  # fmt: skip
    if section.strategy == "fsdp" and found == 1:
        raise RecipeError(
            "device.strategy", "is 'fsdp', which shards a teacher over several devices, but there "
            "is one; set device.devices, or strategy to auto"
        )  # fmt: skip
    return found


def check_one_process() -> None:
    """Refuse to be one of several processes that each would do the whole of a sweep.

    Raises:
        RecipeError: ``torchrun`` or a scheduler started several.
    """
    if count() > 1:
        raise RecipeError(
            "WORLD_SIZE", f"is {count()}, as torchrun sets it, but a sweep is one process; "
            "start it without torchrun (`--jobs N` does stages at once)"
        )  # fmt: skip


def check_alone(section: DeviceSection) -> None:
    """Refuse to be one process where the recipe asks for several.

    Raises:
        RecipeError: It does.
    """
    if section.nodes > 1 or section.devices not in ("auto", 1):
        key = "nodes" if section.nodes > 1 else "devices"
        raise RecipeError(
            f"device.{key}", f"is {getattr(section, key)}, but this is one process; start it by "
            "xcl run, or by torchrun"
        )  # fmt: skip


def check_world(section: DeviceSection, world: int, local: int) -> None:
    """Refuse processes of ``torchrun`` that are not those that the recipe asks for.

    Args:
        section: The device of the recipe.
        world: Number of processes.
        local: Number of those on this machine.

    Raises:
        RecipeError: The recipe names other numbers.
    """
    nodes = world // local
    if section.nodes not in (1, nodes):
        raise RecipeError(
            "device.nodes", f"is {section.nodes}, but torchrun runs on {nodes}; give it --nnodes "
            f"{section.nodes}, or leave nodes out"
        )  # fmt: skip
    if section.devices not in ("auto", 1, local) and TOLD not in os.environ:
        raise RecipeError(
            "device.devices", f"is {section.devices}, but torchrun started {local} processes on "
            f"this machine; give it --nproc-per-node {section.devices}, or leave devices out"
        )  # fmt: skip
    kind = hardware(section.accelerator).kind
    there = torch.cuda.device_count() if kind == "cuda" else 1
    if kind != "cpu" and local > there:
        raise RecipeError(
            "device.devices", f"torchrun started {local} processes on this machine, which has "
            f"{there} of {kind}"
        )  # fmt: skip


def launch(words: Sequence[str], devices: int, threads: int) -> None:
    """Run ``xcl`` in several processes on this machine, and wait for them.

    Args:
        words: The words behind ``xcl``.
        devices: The number of processes.
        threads: Threads of each on the CPU.

    Raises:
        XclError: One failed; the message is one sentence.
        KeyboardInterrupt: The person ended it.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # What it says is said again below, in one sentence.
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="xcl-") as folder:
        told = Path(folder) / "told"
        os.environ |= {TOLD: str(told), "TORCH_CPP_LOG_LEVEL": "ERROR"}
        # A process ends at once when it is asked to, unless it hangs.
        os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "5")
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = str(threads)
        config = LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=devices, run_id="run", rdzv_backend="c10d",
            rdzv_endpoint="localhost:0", max_restarts=0, monitor_interval=0.1,
        )  # fmt: skip
        try:
            elastic_launch(config, sys.executable)("-m", "extracurricular.cli", *words)
        except ChildFailedError as error:
            raise XclError(_sentence(told, error.get_first_failure(), devices)) from None
        except SignalException as error:
            _show_cursor()
            if error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            name = signal.Signals(error.sigval).name
            raise XclError(f"the run was ended by {name}; {RESUMES}") from None
        finally:
            os.environ.clear()
            os.environ.update(before)


def _sentence(told: Path, failure: tuple[int, Any], devices: int) -> str:
    """Return the sentence on the processes' end: their own, where one has left it."""
    _show_cursor()
    if told.is_file() and (text := told.read_text(encoding="utf-8")):
        return text
    rank, process = failure
    place = f"rank {rank} of {devices} (process {process.pid})"
    if process.exitcode < 0:
        return killed(place, signal.Signals(-process.exitcode).name)
    return f"{place} ended with status {process.exitcode}; {RESUMES}"


def _show_cursor() -> None:
    """Show the cursor of the terminal again, which a killed process has left hidden."""
    if sys.stdout.isatty():
        print("\x1b[?25h", end="", flush=True)
