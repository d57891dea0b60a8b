"""Checksums of many files, kept beside them and made again only where size or time has changed.

They lie in the files' own folder, in :data:`FILE`; where that cannot be written to, and for the
files of an archive, in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

from extracurricular.data.formats.cache import cache_folder
from extracurricular.data.images.packed import Extents, Store, is_packed, read_place
from extracurricular.errors import StorageError
from extracurricular.files import sha256, write_atomic

FILE = ".xcl-checksums"
"""Name of the file of checksums: a line ``CHECKSUM SIZE TIME NAME`` for each file."""

# Stands for a file that is not there.
_MISSING = "-" * 32
_BLOCK = 2**20

# Size in bytes, and time of change in ns.
_Stamp: TypeAlias = tuple[int, int]


def checksums(store: Store, names: Sequence[str]) -> list[str]:
    """Return the SHA-256 of each file, in hexadecimal, cut to 32 digits.

    Args:
        store: The folder or archive of the files.
        names: Path of each file within it. A file that cannot be read has a checksum of dashes.
    """
    root = store.root
    if isinstance(store.members, Extents):
        noted = [store.members.checksum(name) for name in names]
        found = [one for one in noted if one is not None]
        if len(found) == len(noted):
            return found
    known = _read(root)
    stamps = _stamps(store, names)
    changed = [n for n, stamp in stamps.items() if stamp and known.get(n, ("", None))[1] != stamp]
    if changed:
        # Reading and hashing both leave the interpreter to other threads.
        with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool:
            fresh = list(pool.map(lambda name: _checksum(store.place(name)), changed, chunksize=64))
        for name, checksum in zip(changed, fresh, strict=True):
            stamp = stamps[name]
            if checksum != _MISSING and stamp is not None:
                known[name] = (checksum, stamp)
            else:
                stamps[name] = None
        _write(root, known)
    return [known[name][0] if stamps[name] else _MISSING for name in names]


def _stamps(store: Store, names: Sequence[str]) -> dict[str, _Stamp | None]:
    """Return size and time of the file that each image lies in."""
    if store.members is None:
        return {name: _stamp(store.root / name) for name in dict.fromkeys(names)}
    if not isinstance(store.members, Extents):
        return dict.fromkeys(names, _stamp(store.root))
    files = {file: _stamp(Path(file)) for file in store.members.files}
    return {name: files[store.members[name].file] for name in dict.fromkeys(names)}


def _stamp(file: Path) -> _Stamp | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _checksum(place: str) -> str:
    digest = hashlib.sha256()
    try:
        if is_packed(place):
            return hashlib.sha256(read_place(place)).hexdigest()[:32]
        with Path(place).open("rb") as content:
            while block := content.read(_BLOCK):
                digest.update(block)
    except (OSError, ValueError):
        return _MISSING
    return digest.hexdigest()[:32]


def _places(root: Path) -> list[Path]:
    """Return the file of checksums beside the files, and the one to take where that cannot be."""
    key = sha256(os.fsencode(os.path.realpath(root)))[:16]
    return [root / FILE, cache_folder() / f"checksums-{key}"]


def _read(root: Path) -> dict[str, tuple[str, _Stamp]]:
    known: dict[str, tuple[str, _Stamp]] = {}
    for place in _places(root):
        try:
            text = os.fsdecode(place.read_bytes())
        except OSError:
            continue
        for line in text.split("\n"):
            try:
                checksum, size, time, name = line.split(" ", 3)
                known[name] = (checksum, (int(size), int(time)))
            except ValueError:
                continue  # a damaged line is made again
        break
    return known


def _write(root: Path, known: dict[str, tuple[str, _Stamp]]) -> None:
    lines = (
        f"{checksum} {size} {time} {name}\n"
        for name, (checksum, (size, time)) in known.items()
        if "\n" not in name
    )
    content = os.fsencode("".join(lines))
    for place in _places(root):
        try:
            write_atomic(place, content)
        except StorageError:
            continue  # without them all is right, but slower
        return
