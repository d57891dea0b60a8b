"""Copies of whole files that URLs name, kept in the user's cache folder while they are the same.

A copy is taken as long as the size and the ETag, or the time of change, of its source are those
that were noted when it was made.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from extracurricular.data.formats.cache import cache_folder
from extracurricular.data.progress import reading
from extracurricular.data.remote import (
    SourceError,
    Stamp,
    check_url,
    is_url,
    listing,
    local_path,
    read_ranges,
    shown,
    stamp,
)
from extracurricular.errors import DataError, StorageError
from extracurricular.files import read_sealed, sha256, telling, write_sealed

_BLOCK = 2**23


@contextmanager
def here(path: str) -> Iterator[Path]:
    """Yield the place of a file on this machine, which a URL may name; so for a pattern.

    In errors of the block, the place is called by its URL.

    Raises:
        DataError: A URL cannot be reached.
    """
    path = local_path(path)
    if not is_url(path):
        yield Path(path)
        return
    check_url(path)
    home, _, name = path.rpartition("/")
    folder = cache_folder() / f"remote-{sha256(path.encode())[:16]}"
    urls = listing(path) if "*" in name else [path]
    if not urls:
        raise DataError(f"path is {shown(path)!r}, and no file is called so")
    bases = [url.rpartition("/")[2].partition("?")[0] for url in urls]
    wanted = dict(zip(bases, urls, strict=True))
    with reading("copying files", len(urls), "files") as tell:
        for k, (base, url) in enumerate(wanted.items()):
            _copied(url, folder / base)
            tell(k + 1)
    for old in folder.iterdir():
        if old.name.removesuffix(".source") not in wanted:
            old.unlink(missing_ok=True)
    try:
        yield folder / (name if "*" in name else bases[0])
    except DataError as error:
        text = str(error).replace(str(folder), shown(home))
        raise DataError(text) from error


def _copied(url: str, file: Path) -> None:
    """Copy a file, unless that was done."""
    now, note = stamp(url), Path(f"{file}.source")
    try:
        known = read_sealed(note)
        same = Stamp(known["size"], known["tag"]) == now and known["url"] == shown(url)
        if same and file.stat().st_size == now.size:
            return
    except (StorageError, OSError, KeyError, TypeError):
        pass
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with telling(file, "write"):
            file.parent.mkdir(parents=True, exist_ok=True)
            note.unlink(missing_ok=True)
            with part.open("wb") as out:
                for start in range(0, now.size, _BLOCK):
                    end = min(now.size, start + _BLOCK)
                    out.write(read_ranges([(url, start, end)])[0])
            if stamp(url) != now:
                raise SourceError(
                    f"the URL {shown(url)!r} was changed while it was read; run again"
                )
            part.replace(file)
    except StorageError as error:
        raise DataError(f"{shown(url)!r} is copied to the cache folder, and {error}") from error
    finally:
        part.unlink(missing_ok=True)
    write_sealed(note, {"url": shown(url), "size": now.size, "tag": now.tag})
