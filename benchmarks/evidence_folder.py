"""The folder of evidence.py: trainings that go on next time, within limits on their size."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from extracurricular.files import Checkpoints, read_json, write_json

EACH, ALL = 16_000_000, 40_000_000
"""Most bytes of a file, and of all files."""

JOB = "job.json"
Tell = Callable[[str], object]


def begin(folder: Path, settings: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """Return what is known of a training in a folder; a new one where there is none.

    Args:
        folder: The folder of the training.
        settings: All that its result depends on. Where they differ from those in the folder, the
            training there is dropped.
        tell: Gets a sentence where that happens.
    """
    file = folder / JOB
    known: dict[str, Any] = read_json(file) if file.is_file() else {}
    if known and known["settings"] != settings:
        tell(f"{folder.name}: it was begun with other settings, so it begins anew")
        clear(folder)
        known = {}
    return known or {"settings": settings, "rounded": 0, "trained": []}


def keep(folder: Path, job: dict[str, Any]) -> None:
    """Write what is known of a training, with the time, which says which is the oldest."""
    write_json(folder / JOB, job | {"touched": time.time()})


def clear(folder: Path) -> None:
    """Remove a training."""
    for file in folder.glob("*"):
        file.unlink()
    if folder.is_dir():
        folder.rmdir()


def trim(folder: Path, tell: Tell, each: int = EACH, total: int = ALL) -> None:
    """Bring a folder within its limits.

    A checkpoint that is too large is rounded, and dropped if it still is. Beyond the limit on all
    files, unfinished trainings are dropped, oldest first, then trained teachers.

    Args:
        folder: The folder.
        tell: Gets a sentence for all that is rounded or dropped.
        each, total: Most bytes of a file, and of all files.
    """
    for part in sorted(path.parent for path in folder.glob(f"*/{JOB}")):
        for file in part.glob("*.ckpt"):
            if file.stat().st_size >= each:
                _round(part, tell)
        for file in part.glob("*.ckpt"):
            size = file.stat().st_size
            if size >= each:
                tell(
                    f"{part.name}: its checkpoint of {size / 1e6:.1f} MB is above "
                    f"{each / 1e6:.0f} MB and was dropped; it has to finish in one go"
                )
                clear(part)
    for file in folder.glob("*.safetensors"):
        size = file.stat().st_size
        if size >= each:
            tell(
                f"{file.stem}: its {size / 1e6:.1f} MB are above {each / 1e6:.0f} MB and were "
                "dropped; give its weights with --teacher"
            )
            file.unlink()
    while size_of(folder) > total:
        oldest = _oldest(folder)
        if oldest is None:
            return
        tell(f"{oldest.stem}: dropped, as all files together are above {total / 1e6:.0f} MB")
        if oldest.is_dir():
            clear(oldest)
        else:
            oldest.unlink()


def size_of(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _oldest(folder: Path) -> Path | None:
    """Return the oldest unfinished training; the oldest teacher where there is none."""
    unfinished = {path.parent: read_json(path)["touched"] for path in folder.glob(f"*/{JOB}")}
    teachers = {path: path.stat().st_mtime for path in folder.glob("*.safetensors")}
    times = unfinished or teachers
    return min(times, key=lambda path: (times[path], path.name)) if times else None


def _round(folder: Path, tell: Tell) -> None:
    """Round a checkpoint: weights to float16, momentum, whose range is wide, to bfloat16.

    The loop reads it as it reads any other, into tensors of float32.
    """
    checkpoints = Checkpoints(folder)
    state = checkpoints.newest()
    if state is None:
        return
    rounded = {
        name: _in_type(part, torch.bfloat16 if name == "optimizer" else torch.float16)
        for name, part in state.items()
    }
    checkpoints.clear()
    checkpoints.save(state["step"], rounded)
    job = read_json(folder / JOB)
    write_json(folder / JOB, job | {"rounded": job["rounded"] + 1})
    tell(f"{folder.name}: its checkpoint was rounded to 16 bits, for its size")


def _in_type(part: Any, dtype: torch.dtype) -> Any:
    if isinstance(part, torch.Tensor):
        return part.to(dtype) if part.is_floating_point() else part
    if isinstance(part, dict):
        return {key: _in_type(value, dtype) for key, value in part.items()}
    return [_in_type(value, dtype) for value in part] if isinstance(part, list) else part
