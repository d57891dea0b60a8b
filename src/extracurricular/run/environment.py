"""The environments of a run: versions and hardware, kept in its folder."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from extracurricular.errors import StorageError
from extracurricular.files import curing, read_sealed, write_sealed

SCHEMA = 1

FILE = "environment.json"


def environment(device: torch.device) -> dict[str, Any]:
    """Return versions and hardware of this process, as plain values.

    Args:
        device: The device that trains networks; a GPU is recorded by its name.
    """
    return {
        "extracurricular": importlib.metadata.version("extracurricular"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": importlib.metadata.version("numpy"),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


def cpu_name() -> str | None:
    """Return the processor's name as the system knows it, or None."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    for line in lines.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or None


def note_environment(
    folder: Path, device: torch.device, tell: Callable[[str], None] | None = None
) -> None:
    """Add this process's environment to those in a run's folder, unless it is there already.

    An interrupted run can go on on another machine, so there may be several.

    Args:
        folder: The folder of the run.
        device: The device that trains networks.
        tell: Gets a sentence where the file is damaged, and so begun anew.
    """
    try:
        known = _trained(folder / FILE)
    except StorageError as error:
        known = []
        if tell is not None:
            tell(f"{error}; where the run was trained before is no longer known")
    own = environment(device)
    if own not in [{k: v for k, v in entry.items() if k != "date"} for entry in known]:
        entries = [*known, {"date": time.strftime("%Y-%m-%d"), **own}]
        write_sealed(folder / FILE, {"schema": SCHEMA, "trained": entries})


def trained_in(folder: Path) -> list[dict[str, Any]]:
    """Return the environments a run was trained in, oldest first; [] where none was kept."""
    with curing("without it, the run does not tell where it was trained"):
        return _trained(folder / FILE)


def _trained(file: Path) -> list[dict[str, Any]]:
    trained = read_sealed(file).get("trained") if file.is_file() else None
    return [e for e in trained if isinstance(e, dict)] if isinstance(trained, list) else []
