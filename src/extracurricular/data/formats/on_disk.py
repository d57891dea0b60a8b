"""Inputs of a table in files on the disk, float32, of which the system reads pages as needed.

An entry is a folder with one file for each split and ``entry.json``, which is written last and has
the size, the time and the SHA-256 of each, and the state of the sources. Files whose size and time
are those of the entry are taken; others are compared by their checksum, and made again where that
differs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from extracurricular.data.scales import Affine, fitted
from extracurricular.errors import DataError, StorageError
from extracurricular.files import read_sealed, sha256, telling, write_sealed

Array: TypeAlias = np.ndarray[Any, Any]

_SCHEMA = 1
_ENTRY = "entry.json"
_BLOCK = 2**20
# Rows of which a scale is summed up at once.
_ROWS = 2**13


def on_disk(
    folder: Path,
    made_from: Any,
    make: Callable[[], tuple[Mapping[str, Any], Iterator[tuple[str, Array]]]],
) -> tuple[dict[str, Tensor], Affine, dict[str, Any]]:
    """Return inputs by split, float32, [N, D], mapped from files, their scale, and the notes.

    Args:
        folder: The folder of the entry.
        made_from: Plain values that tell the sources and their state.
        make: Function that returns plain values to note, among them the number of ``columns``, D,
            and the inputs: the split that rows go to, and these rows, float32, [n, D].

    Raises:
        DataError: The files cannot be written.
    """
    known = _read(folder, made_from)
    if known is None:
        noted, blocks = make()
        known = _write(folder, made_from, noted, blocks)
    noted = dict(known["noted"])
    files = known["files"]
    found = {part: _mapped(folder / files[part]["file"], noted["columns"]) for part in files}
    scale = (torch.tensor(noted["scale"][key]) for key in ("shift", "scale"))
    return found, Affine(*scale), noted


def _mapped(file: Path, width: int) -> Tensor:
    count = file.stat().st_size // 4
    if not count:
        return torch.empty(0, width)
    # A private mapping: what a process writes to it is its own, and none does.
    flat = torch.from_file(str(file), shared=False, size=count, dtype=torch.float32)
    return flat.view(-1, width)


def _stamp(file: Path) -> list[int]:
    found = file.stat()
    return [found.st_size, found.st_mtime_ns]


def stamps(files: Sequence[Path]) -> list[list[Any]]:
    """Return path, size and time of change of files, as plain values."""
    return [[str(file.resolve()), *_stamp(file)] for file in files]


def _read(folder: Path, made_from: Any) -> dict[str, Any] | None:
    try:
        found = read_sealed(folder / _ENTRY)
        if found["schema"] != _SCHEMA or found["made_from"] != json.loads(json.dumps(made_from)):
            return None
        for one in found["files"].values():
            file = folder / one["file"]
            if _stamp(file) != one["stamp"] and _checksum(file) != one["sha256"]:
                return None
    except (StorageError, OSError, KeyError, TypeError, ValueError):
        return None
    return found


def _checksum(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _write(
    folder: Path, made_from: Any, noted: Mapping[str, Any], blocks: Iterator[tuple[str, Array]]
) -> dict[str, Any]:
    parts = ("train", "validation", "test", "unlabelled")
    digests = {part: hashlib.sha256() for part in parts}
    # An interruption leaves no entry, so that nobody takes half of a file for a whole one.
    opened: dict[str, Any] = {}
    try:
        with telling(folder, "write"):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / _ENTRY).unlink(missing_ok=True)
            for part in parts:
                opened[part] = (folder / f"{part}.f32").open("wb")
            for part, rows in blocks:
                content = np.ascontiguousarray(rows, np.float32).data
                opened[part].write(content)
                digests[part].update(content)
            for file in opened.values():
                file.close()
    except StorageError as error:
        _remove(folder, opened)
        raise DataError(f"the inputs of a table are kept on the disk, and {error}") from error
    except BaseException:
        _remove(folder, opened)
        raise
    files = {
        part: {
            "file": f"{part}.f32",
            "stamp": _stamp(folder / f"{part}.f32"),
            "sha256": digests[part].hexdigest(),
        }
        for part in parts
    }
    scale = scale_of(_mapped(folder / "train.f32", int(noted["columns"])))
    # float32 goes through JSON to the last bit.
    summed = {"shift": scale.shift.tolist(), "scale": scale.scale.tolist()}
    noted = {**noted, "scale": summed}
    found = {"schema": _SCHEMA, "made_from": made_from, "files": files, "noted": noted}
    write_sealed(folder / _ENTRY, found)
    return found


def _remove(folder: Path, opened: Mapping[str, Any]) -> None:
    for part, file in opened.items():
        with suppress(OSError):
            file.close()
        with suppress(OSError):
            (folder / f"{part}.f32").unlink(missing_ok=True)


def entry_folder(base: Path, source: Any) -> Path:
    """Return the folder of the entry of a source, which plain values tell."""
    return base / f"table-{sha256(json.dumps(source).encode())[:16]}"


def scale_of(rows: Tensor) -> Affine:
    """Return the scale of inputs [N, D], float32, by two passes in float64 over some rows at once.

    It is that of :func:`~extracurricular.data.base.fit_scale`, within the rounding of its sums.
    """
    mean = sum_of(rows, lambda some: some) / len(rows)
    variance = sum_of(rows, lambda some: (some - mean).square_()) / len(rows)
    return fitted(mean, variance.sqrt(), double=False)


def sum_of(rows: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the sum of a function of rows [N, D], taken in float64 some rows at once, [D]."""
    total = torch.zeros(rows.shape[1], dtype=torch.float64)
    for start in range(0, len(rows), _ROWS):
        total += function(rows[start : start + _ROWS].double()).sum(0)
    return total
