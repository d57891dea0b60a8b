"""The samples in shards of the WebDataset layout, found by an index that is made once.

A shard is a tar whose files that share their path up to the first dot of their name, one after the
other, are a sample: ``KEY.jpg`` and ``KEY.cls``. The index of a shard has place, checksum and label
of every sample, so that any of them is read alone. It lies beside the shard, in
``SHARD.xcl-index``, or where that cannot be written, and for URLs, in the user's cache folder; it
is made anew where the shard's size, time of change or ETag is another one.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from extracurricular.data.formats import tar
from extracurricular.data.formats.cache import cache_folder
from extracurricular.data.images.decode import endings
from extracurricular.data.progress import reading
from extracurricular.data.remote import (
    SourceError,
    Stamp,
    is_url,
    read_ranges,
    shown,
    stamp,
)
from extracurricular.errors import DataError, StorageError, shorten
from extracurricular.files import read_sealed, sha256, write_sealed

Label: TypeAlias = int | float | str | None

SUFFIX = ".xcl-index"
_SCHEMA = 1
_LOCAL, _REMOTE = 2**20, 2**23
_THREADS = 4
# Fields of a .json that hold a label where no setting names one.
_FIELDS = ("label", "class", "cls", "target")
# A bar is shown from so many shards on.
_FEWEST = 4


@dataclass(frozen=True)
class Index:
    """The samples of a shard.

    Args:
        shard: Its file name.
        size, tag: What tells that it has changed (:class:`~extracurricular.data.remote.Stamp`).
        sha256: Checksum of all its bytes, in hexadecimal.
        image, label: The settings that chose image and label.
        names: Path of each image in it, N of them.
        offsets, sizes, crcs: Place, size and CRC-32 of each.
        checksums: SHA-256 of each, in hexadecimal, cut to 32 digits.
        labels: Label of each as it stands there; None where there is none.
        without: Number of samples without an image, which are left out.
    """

    shard: str
    size: int
    tag: str
    sha256: str
    image: str | None
    label: str | None
    names: list[str]
    offsets: list[int]
    sizes: list[int]
    crcs: list[int]
    checksums: list[str]
    labels: list[Label]
    without: int = 0


def indexes(
    shards: Sequence[str], image: str | None = None, label: str | None = None
) -> tuple[list[Index], int]:
    """Return the index of each shard, and how many had to be made.

    Args:
        shards: Paths or URLs.
        image: Ending of the images; the first file that is called like an image where None.
        label: Ending of the labels, or ``json.FIELD``; ``cls``, or a usual field of ``json``, where
            None.

    Raises:
        DataError: A shard is missing, cut off or no tar.
    """
    made = 0

    def one(shard: str) -> tuple[Index, bool]:
        now = _stamp(shard)
        known = _read(shard, now, image, label)
        if known is not None:
            return known, False
        found = make_index(shard, image, label)
        _write(shard, found)
        return found, True

    found = []
    with (
        ThreadPoolExecutor(_THREADS) as threads,
        reading("reading shards", len(shards), "shards", len(shards) >= _FEWEST) as tell,
    ):
        try:
            for index, fresh in threads.map(one, shards):
                found.append(index)
                made += fresh
                tell(len(found))
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
    return found, made


def make_index(shard: str, image: str | None = None, label: str | None = None) -> Index:
    """Read a shard once, from start to end, and return its index.

    Raises:
        DataError: It is cut off, no tar, or changes while it is read.
    """
    before = _stamp(shard)
    source = tar.Source(_blocks(shard, before.size))
    names: list[str] = []
    offsets: list[int] = []
    sizes: list[int] = []
    crcs: list[int] = []
    checksums: list[str] = []
    labels: list[Label] = []
    without = 0
    try:
        for key, sample in _samples(tar.files(source)):
            chosen = _image(sample, image)
            if chosen is None:
                without += 1
                continue
            content = chosen.content
            names.append(chosen.name)
            offsets.append(chosen.offset)
            sizes.append(len(content))
            crcs.append(zlib.crc32(content))
            checksums.append(hashlib.sha256(content).hexdigest()[:32])
            labels.append(_label(f"the sample {key!r}", sample, label))
        checksum = source.checksum()
    except tar.TarError as error:
        raise DataError(f"{_where(shard)} {error}") from error
    except ValueError as error:
        raise DataError(f"{_where(shard)}: {error}") from error
    if _stamp(shard) != before:
        raise SourceError(f"{_where(shard)} was changed while it was read; run again")
    return Index(
        _base(shard), before.size, before.tag, checksum, image, label, names, offsets, sizes, crcs,
        checksums, labels, without,
    )  # fmt: skip


def _where(shard: str) -> str:
    return f"the shard {shown(shard)!r}"


def _base(shard: str) -> str:
    return shard.rpartition("/")[2]


def _stamp(shard: str) -> Stamp:
    if is_url(shard):
        return stamp(shard)
    try:
        found = Path(shard).stat()
    except OSError as error:
        raise DataError(f"{_where(shard)} cannot be read: {error.strerror}") from error
    return Stamp(found.st_size, str(found.st_mtime_ns))


def _blocks(shard: str, size: int) -> Iterator[bytes]:
    """Yield the bytes of a shard."""
    if is_url(shard):
        for start in range(0, size, _REMOTE):
            yield read_ranges([(shard, start, min(size, start + _REMOTE))])[0]
        return
    try:
        with Path(shard).open("rb") as file:
            while block := file.read(_LOCAL):
                yield block
    except OSError as error:
        raise DataError(f"{_where(shard)} cannot be read: {error.strerror}") from error


# Samples


def _samples(files: Iterable[tar.File]) -> Iterator[tuple[str, dict[str, tar.File]]]:
    """Yield the key of each sample, and its files by their endings.

    Raises:
        ValueError: A key stands in two places, or a file does.
    """
    key, sample, known = None, dict[str, tar.File](), set[str]()
    for file in files:
        folder, slash, base = file.name.removeprefix("./").rpartition("/")
        stem, _, ending = base.partition(".")
        if stem.startswith("__") or not stem:
            continue  # notes that some tools add, and hidden files
        own = f"{folder}{slash}{stem}"
        if own != key:
            if key is not None:
                yield key, sample
            if own in known:
                raise ValueError(
                    f"the files of the sample {own!r} do not stand one after the other; make the "
                    "shard anew"
                )
            key, sample = own, {}
            known.add(own)
        ending = ending.lower()
        if ending in sample:
            raise ValueError(f"the file {file.name!r} is there twice; make the shard anew")
        sample[ending] = file
    if key is not None:
        yield key, sample


def _image(sample: dict[str, tar.File], image: str | None) -> tar.File | None:
    if image is not None:
        return sample.get(image.lower().removeprefix("."))
    known = endings()
    found = [ending for ending in sample if f".{ending.rpartition('.')[2]}" in known]
    # A mask beside an image is called KEY.mask.png.
    plain = [ending for ending in found if "." not in ending]
    return sample[(plain or found)[0]] if found else None


def _label(where: str, sample: dict[str, tar.File], label: str | None) -> Label:
    """Return the label of a sample; None where there is none.

    Raises:
        ValueError: The file or field that should have it is damaged.
    """
    if label is None:
        label = "cls" if "cls" in sample else "json"
    ending, _, field = label.removeprefix(".").partition(".")
    if ending != "json":
        ending, field = label.removeprefix("."), ""
    file = sample.get(ending.lower())
    if file is None:
        return None
    try:
        text = file.content.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{where} has a label .{ending} that is no text in UTF-8") from None
    if ending != "json":
        return _value(where, _plain(text.strip()))
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"{where} has a .json that cannot be read") from None
    for name in field.split(".") if field else ():
        found = found.get(name) if isinstance(found, dict) else None
    if not field and isinstance(found, dict):
        found = next((found[name] for name in _FIELDS if name in found), None)
    return _value(where, found)


def _plain(text: str) -> Label:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text or None


def _value(where: str, found: Any) -> Label:
    if isinstance(found, float) and not math.isfinite(found):
        raise ValueError(f"{where} has the label {found}; it must be finite")
    if found is None or isinstance(found, int | float | str):
        return int(found) if isinstance(found, bool) else found
    raise ValueError(f"{where} has the label {shorten(found)}; it must be a number or a text")


# The files of indexes


def _places(shard: str) -> list[Path]:
    """Return where an index may lie: beside the shard, or in the user's cache folder."""
    real = shard if is_url(shard) else str(Path(shard).resolve())
    key = sha256(real.encode("utf-8", "surrogateescape"))[:16]
    kept = cache_folder() / f"shard-{key}.json"
    return [kept] if is_url(shard) else [Path(f"{shard}{SUFFIX}"), kept]


def _read(shard: str, now: Stamp, image: str | None, label: str | None) -> Index | None:
    """Return the index of a shard as it is now; None where there is none."""
    for place in _places(shard):
        try:
            found = read_sealed(place)
            if found.pop("schema") != _SCHEMA:
                continue
            index = Index(**{**found, "checksums": _cut("".join(found["checksums"]))})
        except (StorageError, KeyError, TypeError, ValueError):
            continue  # a damaged index is made again
        wanted = (_base(shard), now.size, now.tag, image, label)
        own = (index.shard, index.size, index.tag, index.image, index.label)
        if own == wanted and _is_sound(index):
            return index
    return None


def _is_sound(index: Index) -> bool:
    """Return whether an index holds what an index holds, whoever wrote it."""
    numbers = [index.offsets, index.sizes, index.crcs]
    columns: list[list[Any]] = [index.names, *numbers, index.checksums, index.labels]
    return (
        {len(one) for one in columns} == {len(index.names)}
        and all(type(v) is int and v >= 0 for one in numbers for v in one)
        and all(isinstance(name, str) for name in index.names)
        and all(v is None or isinstance(v, int | float | str) for v in index.labels)
    )


def _cut(text: str) -> list[str]:
    return [text[k : k + 32] for k in range(0, len(text), 32)]


def _write(shard: str, index: Index) -> None:
    content = {"schema": _SCHEMA, **asdict(index), "checksums": ["".join(index.checksums)]}
    for place in _places(shard):
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            write_sealed(place, content)
        except (StorageError, OSError):
            continue  # without it all is right, but slower
        return
