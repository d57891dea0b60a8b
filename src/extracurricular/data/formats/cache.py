"""A cache of decoded arrays on the disk, so that the second reading takes seconds.

An entry is a folder with one .npy file per array and ``entry.json``, which is written last and has
their checksums and the state of their source files. An entry that is damaged, or whose sources have
changed, is made anew; nothing in it is executed.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from extracurricular.errors import DataError, StorageError
from extracurricular.files import read_json, sha256, write_atomic, write_json

Arrays: TypeAlias = dict[str, np.ndarray[Any, Any]]

_VERSION = 1


def cache_folder() -> Path:
    """Return the user's cache folder, where entries lie unless a folder is given."""
    home = os.environ.get("XDG_CACHE_HOME") or ""
    # The XDG specification says that relative paths are ignored.
    base = Path(home) if Path(home).is_absolute() else Path.home() / ".cache"
    return base / "extracurricular"


def cached(
    name: str,
    files: Sequence[Path],
    make: Callable[[], Arrays],
    *,
    cache: bool | str = True,
    settings: Any = None,
) -> Arrays:
    """Return the arrays that ``make`` makes, from the disk if they were made before.

    Args:
        name: First part of the entry's name.
        files: The source files. A file whose time of change or size differs counts as changed.
        make: Function that makes the arrays; none may hold objects.
        cache: Whether to keep them, or the folder to keep them in. A failure to write is no error
            in the user's cache folder, but it is one in a given folder.
        settings: Plain values that the arrays depend on too.

    Raises:
        DataError: The given folder cannot be written.
    """
    if cache is False:
        return make()
    base = cache_folder() if cache is True else Path(cache)
    # Each source has one entry, so that a source that changes leaves no old entries behind.
    source = [name, _VERSION, [os.path.realpath(f) for f in files], settings]
    folder = base / f"{name}-{sha256(json.dumps(source).encode())[:16]}"
    made_from = [_stamp(file) for file in files]
    arrays = _read(folder, made_from)
    if arrays is None:
        arrays = make()
        try:
            _write(folder, made_from, arrays)
        except (StorageError, OSError) as error:
            if cache is not True:
                raise DataError(f"cache is {cache!r}: {error}") from error
    return arrays


def _stamp(file: Path) -> list[int] | None:
    """Return time of change (ns) and size (bytes) of a file, or None for a link to nowhere."""
    if not file.exists():
        return None
    stat = file.stat()
    return [stat.st_mtime_ns, stat.st_size]


def _read(folder: Path, made_from: Any) -> Arrays | None:
    """Read an entry, or return None if it is missing, damaged or made from other sources."""
    try:
        entry = read_json(folder / "entry.json")
        if entry["made_from"] != made_from:
            return None
        arrays: Arrays = {}
        for name, checksum in entry["arrays"].items():
            content = (folder / f"{name}.npy").read_bytes()
            if sha256(content) != checksum:
                return None
            arrays[name] = np.load(io.BytesIO(content), allow_pickle=False)
    except (StorageError, OSError, ValueError, KeyError, TypeError, AttributeError, EOFError):
        return None
    return arrays


def _write(folder: Path, made_from: Any, arrays: Arrays) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "entry.json").unlink(missing_ok=True)
    checksums = {}
    for name, array in arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        content = buffer.getvalue()
        checksums[name] = sha256(content)
        write_atomic(folder / f"{name}.npy", content)
    write_json(folder / "entry.json", {"made_from": made_from, "arrays": checksums})
