"""All that a run keeps of its data, so that it can be used where they are not.

``data.json`` has for each data set of the run its description, the count and checksum of each
split, and the absolute path as a hint. ``ids.json.gz`` has what identifies the examples at their
source. ``examples.safetensors`` has up to ``keep`` examples of the training split, and as many of
the split that results are measured on: the first calibrate 8 bits, the others verify exports.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from extracurricular.data.base import Data, Split, spaced
from extracurricular.data.formats.contents import changes, ids_of
from extracurricular.data.formats.description import describe_data, read_description
from extracurricular.errors import StorageError
from extracurricular.files import (
    curing,
    load_weights,
    read_checked,
    read_sealed,
    sha256,
    write_if_changed,
    write_sealed,
)
from extracurricular.inputs import leaves
from extracurricular.knowledge.fingerprint import canonical
from extracurricular.registry import split_spec
from extracurricular.run.settings import data_settings

SCHEMA = 1
FILE = "data.json"
IDS = "ids.json.gz"
EXAMPLES = "examples.safetensors"


@dataclass(frozen=True)
class Kept:
    """All that a run keeps of its data; ``data.json``, with the files that it names.

    Args:
        folder: The folder of the run.
        content: Content of ``data.json``.
    """

    folder: Path
    content: Mapping[str, Any]

    @property
    def sets(self) -> list[dict[str, Any]]:
        """What is kept of each data set."""
        return list(self.content["sets"])

    def place(self, spec: Any) -> int | None:
        """Return the place of a data set among those that are kept; None where it is not."""
        wanted = canonical(data_settings(spec))
        known = [canonical(one["settings"]) for one in self.sets]
        return known.index(wanted) if wanted in known else None

    def frame(self, spec: Any) -> Data | None:
        """Return the description of a data set, as one with an empty example; None if unknown.

        Raises:
            StorageError: The description is damaged.
        """
        place = self.place(spec)
        if place is None:
            return None
        try:
            return read_description(self.sets[place]["description"])
        except (ValueError, RuntimeError) as error:
            raise self._damaged(str(error)) from None

    def examples(self, spec: Any) -> Data | None:
        """Return the description of a data set with the kept examples as its splits.

        A split of which nothing was kept has an empty example without a label.

        Raises:
            StorageError: A file is damaged.
        """
        found, place = self.frame(spec), self.place(spec)
        if found is None or not self._tensors:
            return found
        own = {
            part: split
            for part in ("train", "validation", "test")
            if (split := _split(self._tensors, f"{place}/{part}/", found.train)) is not None
        }
        return replace(found, **own)  # type: ignore[arg-type]

    def count(self, spec: Any, part: str) -> int:
        """Return how many examples a split had."""
        place = self.place(spec)
        return 0 if place is None else int(self.sets[place]["splits"][part]["count"])

    def changes(self, spec: Any, data: Data, fresh: Mapping[str, Any]) -> list[str]:
        """Return what differs between a data set and what is kept of it, a clause for each.

        Args:
            spec: Its spec.
            data: The data set as it is now.
            fresh: Its :func:`~extracurricular.data.formats.contents.contents`.
        """
        place = self.place(spec)
        if place is None:
            return []
        known = self.sets[place]
        if fresh == known["splits"] and describe_data(data) == known["description"]:
            return []
        ids = self._ids[place] if place < len(self._ids) else None
        return changes(known["description"], known["splits"], data, fresh, ids)

    def names(self, spec: Any, part: str) -> list[Any]:
        """Return what identifies the examples of a split at their source; empty if unknown."""
        place = self.place(spec)
        if place is None or place >= len(self._ids):
            return []
        return list(self._ids[place].get(part, ()))

    @property
    def without_names(self) -> str | None:
        """The reason why examples have no names, as a sentence; None where their file is whole."""
        if self.content.get("ids") is None:
            return None
        try:
            read_checked(self.folder / IDS, self.content["ids"])
        except StorageError as error:
            return f"{error}; without it, examples are told by their places"
        return None

    @cached_property
    def _ids(self) -> list[dict[str, Any]]:
        try:
            packed = read_checked(self.folder / IDS, self.content.get("ids"))
            found = json.loads(gzip.decompress(packed))
        except (StorageError, OSError, EOFError, ValueError):
            return []  # they only make a sentence clearer; see without_names
        return found if isinstance(found, list) else []

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        checksum = self.content["examples"]
        return {} if checksum is None else load_weights(self.folder / EXAMPLES, checksum)

    def _damaged(self, problem: str) -> StorageError:
        return StorageError(f"the file {str(self.folder / FILE)!r} is damaged: {problem}")


def read_kept(folder: Path) -> Kept | None:
    """Read what a run keeps of its data; None for a run of a version that kept nothing.

    Raises:
        StorageError: The file is damaged, or of a later version.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    with curing("without it, `xcl run` notes the data anew"):
        found = read_sealed(file)
    if found.get("schema") != SCHEMA:
        raise StorageError(
            f"the file {str(file)!r} is of schema {found.get('schema')!r}, and this version reads "
            f"{SCHEMA}"
        )
    sets = found.get("sets")
    keys = {"settings", "description", "splits"}
    whole = isinstance(sets, list) and all(isinstance(s, dict) and keys <= set(s) for s in sets)
    if not whole or "examples" not in found:
        raise StorageError(f"the file {str(file)!r} is damaged: it lacks what a run keeps")
    return Kept(folder, found)


def lost(folder: Path) -> str | None:
    """Return a sentence where a run has lost its ``data.json``; None where it never had one."""
    if (folder / FILE).is_file() or not (folder / IDS).is_file():
        return None
    return f"the file {str(folder / FILE)!r} is missing; without it, examples are told by places"


def keep_data(
    folder: Path,
    sets: Sequence[tuple[Any, Data, Mapping[str, Any]]],
    *,
    keep: int,
    measured: str,
) -> None:
    """Write what a run keeps of its data, unless that is there already.

    Args:
        folder: The folder of the run.
        sets: Spec, data set and contents of each.
        keep: The most examples to keep of a split; 0 for none.
        measured: The split that results are measured on.
    """
    wanted: dict[str, Any] = {
        "schema": SCHEMA,
        "keep": keep,
        "measured": measured,
        "sets": [
            {
                "settings": data_settings(spec),
                "path": _hint(spec),
                "description": describe_data(data),
                "splits": dict(splits),
            }
            for spec, data, splits in sets
        ],
    }
    if _is_there(folder, wanted):
        return
    tensors: dict[str, Tensor] = {}
    for place, (_, data, _) in enumerate(sets):
        for part in dict.fromkeys(("train", measured)) if keep else ():
            tensors |= _some(getattr(data, part), keep, f"{place}/{part}/")
    ids = json.dumps([ids_of(data) for _, data, _ in sets], separators=(",", ":"))
    # The time would make another file of the same content.
    packed = gzip.compress(ids.encode("utf-8", "surrogateescape"), mtime=0)
    wanted["ids"], wanted["examples"] = sha256(packed), None
    write_if_changed(folder / IDS, packed)
    if tensors:
        content = safetensors.torch.save(tensors)
        wanted["examples"] = sha256(content)
        write_if_changed(folder / EXAMPLES, content)
    else:
        (folder / EXAMPLES).unlink(missing_ok=True)
    write_sealed(folder / FILE, wanted)


def _is_there(folder: Path, wanted: Mapping[str, Any]) -> bool:
    try:
        known = read_kept(folder)
        found = {} if known is None else dict(known.content)
        # An interruption may have left the files of other data.
        whole = known is not None and _checksum(folder / IDS) == found.pop("ids", None)
        whole = whole and _checksum(folder / EXAMPLES) == found.pop("examples", None)
    except StorageError:
        return False
    return whole and found == wanted


def _checksum(file: Path) -> str | None:
    return sha256(read_checked(file, None)) if file.is_file() else None


def _hint(spec: Any) -> str | None:
    """Return the path of a data set, as a hint for people."""
    name, settings = split_spec(spec, "data set", "data")
    path = settings.get("path") or settings.get("table")
    path = path or (name.partition(":")[2] if data_settings(name) != name else None)
    return path if isinstance(path, str) else None


def _some(split: Split, most: int, prefix: str) -> dict[str, Tensor]:
    """Return examples that are spread evenly over a split, as tensors by name."""
    if not len(split):
        return {}
    some = split[spaced(len(split), most)]
    found = {f"{prefix}x/{key}": leaf for key, leaf in leaves(some.x).items()}
    found |= {} if some.y is None else {f"{prefix}y": some.y}
    return {name: value.cpu().contiguous() for name, value in found.items()}


def _split(tensors: Mapping[str, Tensor], prefix: str, like: Split) -> Split | None:
    names = {key: f"{prefix}x/{key}" for key in leaves(like.x)}
    if not all(name in tensors for name in names.values()):
        return None
    parts = {key: tensors[name] for key, name in names.items()}
    x: Any = parts
    if isinstance(like.x, tuple):
        x = tuple(parts.values())
    elif not isinstance(like.x, dict):
        [x] = parts.values()
    return Split(x, tensors.get(f"{prefix}y"))


def refusal(what: str, clauses: Sequence[str], way_out: str) -> StorageError:
    """Return the error for data that are not those of the run.

    Args:
        what: Whose data they are not, such as ``the data are not those of the run 'out'``.
        clauses: What differs.
        way_out: What to do.
    """
    shown = list(clauses[:3])
    more = len(clauses) - len(shown)
    listed = "; ".join(shown) + (f"; and {more} more" if more else "")
    return StorageError(f"{what}: {listed}; {way_out}")
