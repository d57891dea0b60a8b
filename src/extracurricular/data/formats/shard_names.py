"""Find the shards that a path, a pattern or a URL names, and the splits that their names tell."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from extracurricular.data.remote import check_url, is_url, listing, local_path, shown
from extracurricular.data.splits import SPLIT_NAMES
from extracurricular.errors import DataError

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_PACKED = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".lz4")
# More than this many names in braces are a mistake.
_MOST = 10**6
_KINDS = "shards (.tar): a folder of them, or names such as 'train-{000..099}.tar' or 'train-*.tar'"


def find_shards(given: str, setting: str = "path", home: str = "") -> list[str]:
    """Return paths or URLs of shards, in the order of the pattern, or sorted.

    Args:
        given: A folder, or names with ``{000..099}``, ``{a,b}``, ``*`` and ``?``; or such URLs.
        setting: The setting that has it, for errors.
        home: The folder or URL that names are relative to.

    Raises:
        DataError: There are none, or they are packed so that they cannot be read in part.
    """
    if is_url(given):
        check_url(given)
        given = local_path(given)
    if not is_url(given):
        # The names of shards may be relative to those of others.
        far = is_url(home) and not given.startswith("/")
        given = f"{home}/{given}" if far else str(Path(home) / Path(given).expanduser())
    found = _in_folder(given)
    if found is None:
        patterns = expand(given, setting)
        found = [name for pattern in patterns for name in _matching(pattern, len(patterns))]
    twice = sorted({name for name in found if found.count(name) > 1}) if len(found) < 4096 else []
    if twice:
        raise DataError(f"{setting} is {shown(given)!r}, which names {shown(twice[0])!r} twice")
    if not found:
        raise DataError(
            f"{setting} is {shown(given)!r}, and no shard is called so; it must name {_KINDS}"
        )
    for name in found:
        if name.lower().endswith(_PACKED):
            raise DataError(
                f"the shard {shown(name)!r} is packed as a whole, so that no image in it can be "
                "read alone; unpack it to a .tar, which is hardly larger"
            )
    return found


def folder_of(given: str) -> str:
    """Return the folder, or its URL, in which the shards of a path or pattern lie."""
    given = local_path(given)
    if is_url(given):
        whole = given.rstrip("/")
        return whole if _in_folder(given) is not None else whole.rpartition("/")[0]
    path = Path(given).expanduser()
    return str(path if path.is_dir() else path.parent)


def expand(pattern: str, setting: str = "path") -> list[str]:
    """Return the names that a pattern with braces stands for: ``{08..10}`` is 08, 09, 10.

    Raises:
        DataError: They are too many, or a range goes down.
    """
    found = _BRACES.search(pattern)
    if found is None:
        return [pattern]
    inside, numbers = found[1], _RANGE.fullmatch(found[1])
    if numbers is not None:
        low, high = int(numbers[1]), int(numbers[2])
        if not 0 <= high - low < _MOST:
            raise DataError(
                f"{setting} is {shown(pattern)!r}, where {{{inside}}} must be a range that goes up"
            )
        width = len(numbers[1]) if numbers[1].startswith("0") else 0
        parts = [f"{k:0{width}d}" for k in range(low, high + 1)]
    else:
        parts = inside.split(",")
    rest = expand(pattern[found.end() :], setting)
    if len(parts) * len(rest) > _MOST:
        raise DataError(f"{setting} is {shown(pattern)!r}, which stands for too many names")
    return [f"{pattern[: found.start()]}{part}{end}" for part in parts for end in rest]


def _in_folder(given: str) -> list[str] | None:
    """Return the shards of a folder and of the folders in it; None if it is no folder."""
    if is_url(given):
        if given.rstrip("/").lower().endswith((".tar", *_PACKED)) or re.search(r"[*?{]", given):
            return None
        root = given.rstrip("/")
        return listing(f"{root}/*.tar") + listing(f"{root}/*/*.tar")
    folder = Path(given)
    if not folder.is_dir():
        return None
    found = [*folder.glob("*.tar"), *folder.glob("*/*.tar")]
    packed = [*folder.glob("*.tar.*"), *folder.glob("*.tgz")]
    packed = [file for file in packed if file.name.lower().endswith(_PACKED)]
    return [str(file) for file in sorted(found or packed) if not file.name.startswith(".")]


def _matching(pattern: str, count: int) -> list[str]:
    """Return the shards that fit a pattern without braces; a plain name must be there."""
    starred = any(sign in pattern for sign in "*?[")
    if is_url(pattern):
        return listing(pattern) if starred else [pattern]
    if starred:
        return sorted(glob.glob(pattern))  # noqa: PTH207 - Path.glob takes relative ones alone
    if not Path(pattern).is_file():
        if count == 1:
            return []
        raise DataError(f"the shard {pattern!r} does not exist, though the others may")
    return [pattern]


def parts_of(shards: Sequence[str], root: str) -> dict[str, list[str]]:
    """Return the shards of each split by the word in their names; all are ``train`` without one.

    Args:
        shards: The shards of a folder.
        root: The folder.

    Raises:
        DataError: Some names tell a split and others do not.
    """
    found: dict[str, list[str]] = {}
    for shard in shards:
        words = re.split(r"[^a-z]+", shard[len(root) :].lower())
        known = [word for names in SPLIT_NAMES.values() for word in names if word in words]
        found.setdefault(known[0] if known else "", []).append(shard)
    if set(found) == {""}:
        return {"train": found[""]}
    if "" in found:
        raise DataError(
            f"the shard {shown(found[''][0])!r} is of no split, while others are called train, val "
            "or test; name the shards by path, validation and test"
        )
    return found
