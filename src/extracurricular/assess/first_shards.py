"""Find out whether a person's data are shards of images, and where some of the images lie."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from extracurricular.data.remote import is_url

# Members of a tar that are looked at, and images of the first shard.
_MEMBERS, _SOME = 32, 64
_LABELS = (".cls", ".json")


def names_shards(what: str) -> bool:
    """Return whether a text names shards: a pattern or a URL of tars, or a URL of a folder."""
    if what.lstrip().startswith("{"):
        return False
    if is_url(what):
        base = what.partition("?")[0].rpartition("/")[2]
        return base.endswith(".tar") or "." not in base
    return what.endswith(".tar") and any(sign in what for sign in "*{?")


def is_shard(path: Path) -> bool:
    """Return whether a tar has samples, ``KEY.jpg`` with ``KEY.cls`` or ``KEY.json``.

    A tar that cannot be read is none; whoever reads it says why.
    """
    if path.suffix.lower() != ".tar":
        return False
    kinds: dict[str, set[str]] = {}
    try:
        with tarfile.open(path, "r:") as opened:
            for _, member in zip(range(_MEMBERS), opened, strict=False):
                name = PurePosixPath(member.name)
                key = f"{name.parent}/{name.name.partition('.')[0]}"
                kinds.setdefault(key, set()).add(name.suffix.lower())
    except (tarfile.TarError, OSError, ValueError, RecursionError):
        return False
    return any(len(own) > 1 and own & set(_LABELS) for own in kinds.values())


def shard_places(given: Mapping[str, Any]) -> list[str]:
    """Return where some images of the first shard lie.

    Args:
        given: The settings of the data set.

    Raises:
        DataError: There is no such shard, or it cannot be read.
    """
    from extracurricular.data.formats.shard_names import find_shards, folder_of
    from extracurricular.data.formats.shards import indexes
    from extracurricular.data.images.packed import Extents, Store

    [shard, *_] = find_shards(str(given["path"]))
    [index], _ = indexes([shard], given.get("image"), given.get("label"))
    zeros = [0] * len(index.names)
    members = Extents([shard], index.names, zeros, index.offsets, index.sizes, index.crcs)
    store = Store(Path(folder_of(str(given["path"]))), members)
    return [store.place(name) for name in index.names[:: max(1, len(index.names) // _SOME)]]
