"""The folder of a record: shards of rows, and a manifest that describes them.

    manifest.json                                   the origin of the rows, and the list of shards
    draws-000000000000-000000016384.CHECKSUM.npy    rows of draws [0, 16384), uint8 [16384, bytes]

A shard's checksum is in its name, so content and checksum arrive in the same rename. The checksum
also covers the origin (all that the content depends on) and the range of draws, so it detects a
shard of another record or under another's name. The manifest carries a checksum of its own. Both
are only data: nothing in them is executed, and names in the manifest cannot lead out of the folder.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from extracurricular.distributions import Kind
from extracurricular.errors import StorageError, shorten
from extracurricular.files import read_json
from extracurricular.knowledge.fingerprint import canonical

# Rows of uint8 and uint4 in format 2 may have classes off the scale; all else is the same.
FORMATS = (1, 2)
_NAME = re.compile(r"draws-([0-9]{12})-([0-9]{12})\.([0-9a-f]{32})\.npy")


class _Plain(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Origin(_Plain):
    """All that the content of a record depends on; a replay checks that it is the same.

    Args:
        kind: ``classification`` or ``regression``.
        size: Number of classes, of real outputs or of labels.
        classes: Names of the classes in their order, if known.
        data: Fingerprint of the data set.
        seed: Seed of the sampler.
        sampler: The sampler as plain values.
        teacher: Fingerprint of the teacher, or the name that its owner gave it.
        codec: Spec of the codec.
        members: Ensemble members in a row; 0 where a row holds only their mixture.
        choice: Whether a row ends in the index of the chosen candidate, one byte.
        family: The family of the answers as a recipe writes it; None for the usual one.
    """

    kind: Kind
    size: Annotated[int, Field(ge=1)]
    classes: list[str]
    data: str
    seed: int
    sampler: Any
    teacher: str
    codec: Any
    members: Annotated[int, Field(ge=0)] = 0
    choice: bool = False
    family: Any = None

    @model_serializer(mode="wrap")
    def _plain(self, make: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Records from before there were families have no such field, and their checksums neither.
        found: dict[str, Any] = make(self)
        return {k: v for k, v in found.items() if k != "family" or v is not None}


class Price(_Plain):
    """Cost of storing: KL(teacher ‖ stored) in nats, on a sample of draws.

    Args:
        draws: Draws in the record at the time of the measurement.
        sample: Draws in the sample.
        kl: ``mean`` and ``worst`` by temperature (``"1.0"``).
    """

    draws: int
    sample: int
    kl: dict[str, dict[str, float]]


class Manifest(_Plain):
    """Contents of ``manifest.json``, without its checksum.

    Args:
        format: Version of this format.
        origin: All that the content depends on.
        dtype: Type of the stored numbers.
        bytes_per_draw: Length of a row.
        draws: Draws 0 … draws - 1 are recorded.
        shards: Names of the shards, by their first draw.
        price: Cost of storing; None until it has been measured.
    """

    format: Literal[1, 2] = 1
    origin: Origin
    dtype: str
    bytes_per_draw: Annotated[int, Field(ge=1)]
    draws: Annotated[int, Field(ge=0)] = 0
    shards: list[str] = Field(default_factory=list)
    price: Price | None = None


@dataclass(frozen=True)
class Shard:
    """The name of a shard, which holds the rows of draws [first, last)."""

    name: str
    first: int
    last: int

    @classmethod
    def parse(cls, name: str) -> Shard | None:
        """Parse the name of a file; return None if it names no shard."""
        match = _NAME.fullmatch(name)
        if match is None or int(match[1]) >= int(match[2]):
            return None
        return cls(name, int(match[1]), int(match[2]))


def shard_name(origin: Origin, first: int, last: int, content: bytes) -> str:
    """Return the name of the shard with this content, which contains the checksum."""
    digest = hasher(origin, first, last)
    digest.update(content)
    return f"draws-{first:012d}-{last:012d}.{digest.hexdigest()[:32]}.npy"


def read_manifest(folder: Path) -> Manifest:
    """Read and check a record's manifest.

    Raises:
        StorageError: The manifest is missing, damaged, inconsistent, or of another format.
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
    if value.get("format") not in FORMATS:
        raise StorageError(
            f"the file {str(path)!r} has format = {shorten(value.get('format'))}, but this "
            f"version reads format = {' and '.join(map(str, FORMATS))}"
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
        StorageError: A field differs; the sentence names the first one and both values.
    """
    for key, value in wanted.items():
        if found.get(key) != value:
            path, was, now = _innermost(key, found.get(key), value)
            raise StorageError(
                f"{str(folder)!r} was recorded with {path} = {shorten(was)}, but here it is "
                f"{shorten(now)}; record again in another folder"
            )


def _innermost(path: str, was: Any, now: Any) -> tuple[str, Any, Any]:
    """Follow two plain values that differ, by dict keys and list places, to where they do."""
    while True:
        if isinstance(was, dict) and isinstance(now, dict):
            inner = [(f"{path}.{key}", was.get(key), now.get(key)) for key in [*now, *was]]
        elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
            inner = [(f"{path}.{k}", *both) for k, both in enumerate(zip(was, now, strict=True))]
        else:
            inner = []
        unequal = [(place, x, y) for place, x, y in inner if x != y]
        if not unequal:
            return path, was, now
        path, was, now = unequal[0]


def prefix(names: Sequence[str]) -> int:
    """Return the number of draws, from 0 on, that shards hold without a gap."""
    end = 0
    for shard in map(Shard.parse, names):
        if shard is None or shard.first != end:
            break
        end = shard.last
    return end


def hasher(origin: Origin, first: int, last: int) -> Any:
    """Begin the checksum of a shard, which covers its origin and its range of draws."""
    return hashlib.sha256(canonical([origin.model_dump(mode="json"), first, last]))
