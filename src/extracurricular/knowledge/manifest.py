"""The folder of a record: shards of rows, and a manifest that says what they are.

    manifest.json                                   what was recorded, and which shards hold it
    draws-000000000000-000000016384.CHECKSUM.npy    rows of draws [0, 16384), uint8 [16384, bytes]

A shard's checksum is in its name, so content and checksum arrive in the same rename. It covers the
origin (all that the content depends on) and the range of draws too, so a shard of another record,
or one under another's name, is found out. The manifest carries a checksum of its own. Both are only
data: nothing in them is executed, and names in the manifest cannot point out of the folder.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from extracurricular.errors import StorageError, shorten
from extracurricular.files import first_difference, read_json
from extracurricular.knowledge.fingerprint import canonical

FORMAT = 1
_NAME = re.compile(r"draws-([0-9]{12})-([0-9]{12})\.([0-9a-f]{32})\.npy")


class _Plain(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Origin(_Plain):
    """All that the content of a record depends on; whoever replays it must want the same.

    Args:
        kind: ``classification`` or ``regression``.
        size: Number of classes or of real outputs.
        classes: Names of the classes in their order, if known.
        data: Fingerprint of the data set.
        seed: Seed of the sampler.
        sampler: The sampler as plain values.
        teacher: Fingerprint of the teacher, or the name its owner gave it.
        codec: Spec of the codec.
        members: Ensemble members in a row; 0 for their mixture alone.
        choice: Whether a row ends in the index of the chosen candidate, one byte.
    """

    kind: Literal["classification", "regression"]
    size: Annotated[int, Field(ge=1)]
    classes: list[str]
    data: str
    seed: int
    sampler: Any
    teacher: str
    codec: Any
    members: Annotated[int, Field(ge=0)] = 0
    choice: bool = False


class Price(_Plain):
    """What storing costs: KL(teacher ‖ stored) in nats, on a sample of draws.

    Args:
        draws: Draws in the record when it was measured.
        sample: Draws it was measured on.
        kl: By temperature (``"1.0"``), ``mean`` and ``worst``.
    """

    draws: int
    sample: int
    kl: dict[str, dict[str, float]]


class Manifest(_Plain):
    """What ``manifest.json`` holds, less its checksum.

    Args:
        format: Version of this format.
        origin: What was recorded.
        dtype: Type of the stored numbers.
        bytes_per_draw: Length of a row.
        draws: Draws 0 … draws - 1 are recorded.
        shards: Names of the shards, by their first draw.
        price: What storing costs; None until it has been measured.
    """

    format: Literal[1] = 1
    origin: Origin
    dtype: str
    bytes_per_draw: Annotated[int, Field(ge=1)]
    draws: Annotated[int, Field(ge=0)] = 0
    shards: list[str] = Field(default_factory=list)
    price: Price | None = None


@dataclass(frozen=True)
class Shard:
    """A shard's name, read: rows of draws [first, last)."""

    name: str
    first: int
    last: int

    @classmethod
    def parse(cls, name: str) -> Shard | None:
        """Read a name; None if it is no shard's."""
        match = _NAME.fullmatch(name)
        if match is None or int(match[1]) >= int(match[2]):
            return None
        return cls(name, int(match[1]), int(match[2]))


def shard_name(origin: Origin, first: int, last: int, content: bytes) -> str:
    """Name of the shard with this content, which holds its checksum."""
    digest = hasher(origin, first, last)
    digest.update(content)
    return f"draws-{first:012d}-{last:012d}.{digest.hexdigest()[:32]}.npy"


def read_manifest(folder: Path) -> Manifest:
    """Read and check a record's manifest.

    Raises:
        StorageError: It is missing, damaged, of another format, or not as it should be.
    """
    path = folder / "manifest.json"
    value = read_json(path)
    if not isinstance(value, dict):
        raise StorageError(f"the file {str(path)!r} is damaged: it holds no object")
    checksum = value.pop("sha256", None)
    try:
        whole = checksum == hashlib.sha256(canonical(value)).hexdigest()
    except ValueError:  # NaN, which is read but never written
        whole = False
    if not whole:
        raise StorageError(
            f"the file {str(path)!r} is damaged: its checksum differs from the recorded one; "
            "delete it and record again, which finds the shards that are whole"
        )
    if value.get("format") != FORMAT:
        raise StorageError(
            f"the file {str(path)!r} has format = {shorten(value.get('format'))}, but this "
            f"version reads format = {FORMAT}"
        )
    try:
        manifest = Manifest.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise StorageError(
            f"the file {str(path)!r} has {key} = {shorten(first['input'])}: {first['msg']}"
        ) from None
    end = 0
    for name in manifest.shards:
        shard = Shard.parse(name)
        if shard is None:
            raise StorageError(f"the file {str(path)!r} names a shard {name!r}, which is no name")
        if shard.first < end:
            raise StorageError(f"the file {str(path)!r} names shards that overlap: {name!r}")
        end = shard.last
    if prefix(manifest.shards) != manifest.draws:
        raise StorageError(
            f"the file {str(path)!r} has draws = {manifest.draws}, but its shards hold "
            f"{prefix(manifest.shards)} without a gap"
        )
    return manifest


def check_origin(folder: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuse a record that was made from something else.

    Raises:
        StorageError: Naming the first field that differs, and both values.
    """
    for key, value in wanted.items():
        if found.get(key) != value:
            path, was, now = first_difference({key: found.get(key)}, {key: value}, "")
            raise StorageError(
                f"{str(folder)!r} was recorded with {path} = {shorten(was)}, but here it is "
                f"{shorten(now)}; record again in another folder"
            )


def prefix(names: Sequence[str]) -> int:
    """Number of draws, from 0 on, that shards hold without a gap."""
    end = 0
    for shard in map(Shard.parse, names):
        if shard is None or shard.first != end:
            break
        end = shard.last
    return end


def hasher(origin: Origin, first: int, last: int) -> Any:
    """Begin the checksum of a shard, which covers what it is of."""
    return hashlib.sha256(canonical([origin.model_dump(mode="json"), first, last]))
