"""Image files in a folder, a zip, a tar or several of them, read in place: none is unpacked.

A *place* is a text that says where an image lies: the path of its file, or for a member of an
archive the archive and the bytes of the member in it. The archive may be a URL. So a worker process
opens any image without knowing of the others. Nothing here needs torch.
"""

from __future__ import annotations

import os
import tarfile
import zipfile
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from unicodedata import normalize

from extracurricular.data.remote import SourceError, is_url, read_ranges
from extracurricular.errors import DataError

ARCHIVES = (".zip", ".tar")
# Archives that are packed as a whole, so that no member can be read without all before it.
_WHOLE = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
# No path has this sign.
_SIGN = "\0"
# The largest file that is read from an archive, in bytes.
_LARGEST = 1 << 29
_STORED, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
# A zip repeats the name of a member before its bytes; a tar has nothing there.
_HEADER = 30


class Member(NamedTuple):
    """A file in an archive.

    Args:
        offset: Place of its bytes in a tar; in a zip that of the header before them.
        packed, size: Number of its bytes in the archive, and unpacked.
        method: How a zip packs it; -1 in a tar.
        crc: Checksum of its bytes; 0 in a tar where it is not known.
        file: The file that it lies in, or its URL, where that is not the store's root.
    """

    offset: int
    packed: int
    size: int
    method: int = -1
    crc: int = 0
    file: str = ""


@dataclass(frozen=True)
class Store:
    """Where the images of a data set lie, by name.

    Args:
        root: A folder, or an archive.
        members: The files of the archive by name; None for a folder.
    """

    root: Path
    members: Mapping[str, Member] | None = field(default=None, repr=False)

    def place(self, name: str) -> str:
        """Return the place of an image, which :func:`read_place` and a decoder take."""
        if self.members is None:
            return os.path.join(self.root, name)  # noqa: PTH118 - many times as fast as Path
        member = self._member(name)
        if member is None:
            # Without numbers, the place is that of no file; whoever reads it is told so.
            return f"{self.root}{_SIGN}{name}"
        if member.offset < 0:
            return member.file
        return _SIGN.join([member.file or str(self.root), name, *map(str, member[:5])])

    def _member(self, name: str) -> Member | None:
        """Return a file of the archive; accents may be written in two ways."""
        assert self.members is not None
        return self.members.get(name) or self.members.get(normalize("NFC", name))

    def __contains__(self, name: str) -> bool:
        if self.members is None:
            return os.path.isfile(os.path.join(self.root, name))  # noqa: PTH113, PTH118
        return self._member(name) is not None

    def size(self, name: str) -> int:
        """Return the size of an image's file in bytes; -1 where there is none."""
        if self.members is not None:
            member = self._member(name)
            return -1 if member is None else member.size
        try:
            return (self.root / name).stat().st_size
        except OSError:
            return -1

    def files(self, names: list[str]) -> list[Path]:
        """Return the files on the disk that images are read from."""
        if self.members is None:
            return [self.root / name for name in names]
        held = getattr(self.members, "files", None)
        if held is None:
            return [self.root]
        return [Path(file) for file in held if not is_url(file)]

    @property
    def noun(self) -> str:
        """A word for it."""
        return "folder" if self.members is None else "archive"


def is_archive(path: Path) -> bool:
    """Return whether a path is called like an archive, be it one that can be read or not."""
    return path.name.lower().endswith((*ARCHIVES, *_WHOLE))


def open_store(root: Path) -> Store:
    """Open a folder, or list the files of an archive.

    Raises:
        DataError: It is neither, it is damaged, or its members cannot be read one by one.
    """
    if root.is_dir():
        return Store(root)
    if not root.is_file():
        raise DataError(f"{str(root)!r} does not exist; it must be a folder, a .zip or a .tar")
    if root.name.lower().endswith(_WHOLE):
        raise DataError(
            f"the archive {str(root)!r} is packed as a whole, so that no image in it can be read "
            "alone; unpack it to a .tar, which is hardly larger, or to a folder"
        )
    if not is_archive(root):
        raise DataError(f"{str(root)!r} is no folder, and neither a .zip nor a .tar")
    listed = _zip if root.suffix.lower() == ".zip" else _tar
    try:
        found = {normalize("NFC", name): member for name, member in listed(root)}
    except (zipfile.BadZipFile, tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise DataError(f"the archive {str(root)!r} cannot be read: {error}") from error
    return Store(root, found)


def _zip(path: Path) -> Iterator[tuple[str, Member]]:
    with zipfile.ZipFile(path) as archive:
        for one in archive.infolist():
            # A method of its own stands for what is encrypted, which no password is asked for.
            method = -2 if one.flag_bits & 1 else one.compress_type
            yield (
                one.filename,
                Member(one.header_offset, one.compress_size, one.file_size, method, one.CRC),
            )


def _tar(path: Path) -> Iterator[tuple[str, Member]]:
    with tarfile.open(path, "r:") as archive:
        for one in archive:
            name = str(PurePosixPath(one.name))
            if one.isdir():
                yield f"{name}/", Member(one.offset_data, 0, 0)
            elif one.isreg() and not one.issparse():
                yield name, Member(one.offset_data, one.size, one.size)


def is_packed(place: str) -> bool:
    """Return whether a place lies in an archive."""
    return _SIGN in place


def shown(place: str) -> str:
    """Return a place as a person reads it."""
    return "/".join(place.split(_SIGN)[:2])


def read_place(place: str) -> bytes:
    """Read a file of an archive.

    Raises:
        ValueError: It is damaged, or packed in a way that is not read.
        OSError: The archive is gone.
        SourceError: The archive's URL cannot be reached, or its content is not what it was.
    """
    archive, member = _at(place)
    if is_url(archive):
        return _checked(archive, member, read_ranges([_range(archive, member)])[0])
    try:
        if member.crc and member.method == -1:
            content = _kept_open(archive).read(member)
            if zlib.crc32(content) != member.crc:
                # Another file may have taken the place of the one that is open.
                _kept_open.cache_clear()
                content = _kept_open(archive).read(member)
            return _checked(archive, member, content)
        with open(archive, "rb", buffering=0) as opened:  # noqa: PTH123
            opened.seek(member.offset)
            if member.method != -1:
                header = opened.read(_HEADER)
                if header[:4] != b"PK\3\4":
                    raise ValueError("its archive is damaged")
                name, extra = (int.from_bytes(header[k : k + 2], "little") for k in (26, 28))
                opened.seek(name + extra, os.SEEK_CUR)
            content = opened.read(member.packed)
    except OSError as error:
        if not member.crc or member.method != -1:
            raise
        raise SourceError(f"the shard {archive!r} cannot be read: {error.strerror}") from error
    return _checked(archive, member, content)


class _Open:
    """A file that is kept open for many readings, and closed once nobody holds it any more."""

    def __init__(self, file: str) -> None:
        self._number = os.open(file, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def read(self, member: Member) -> bytes:
        return os.pread(self._number, member.size, member.offset)

    def __del__(self) -> None:
        number = getattr(self, "_number", None)
        if number is not None:
            os.close(number)


_kept_open = lru_cache(maxsize=32)(_Open)


def _at(place: str) -> tuple[str, Member]:
    """Return the archive of a place, and where in it the bytes lie.

    Raises:
        ValueError: They lie nowhere, or in a way that is not read.
    """
    archive, _, *numbers = place.split(_SIGN)
    if not numbers:
        raise ValueError("it is not in the archive")
    offset, packed, size, method, crc = map(int, numbers)
    member = Member(offset, packed, size, method, crc)
    if member.method == -2:
        raise ValueError("it is encrypted; unpack the archive")
    if member.method not in (-1, _STORED, _DEFLATED):
        raise ValueError("its archive packs it in an unusual way; make the .zip anew, or unpack it")
    if member.size > _LARGEST:
        raise ValueError(f"it has {member.size} bytes; at most {_LARGEST} are read")
    return archive, member


def _range(archive: str, member: Member) -> tuple[str, int, int]:
    return archive, member.offset, member.offset + member.size


def _checked(archive: str, member: Member, content: bytes) -> bytes:
    """Return the bytes of a file of an archive, unpacked and compared with their checksum."""
    if member.method == _DEFLATED:
        try:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, member.size + 1)
        except zlib.error as error:
            raise ValueError("its archive is damaged") from error
    whole = len(content) == member.size
    whole = whole and (not member.crc or zlib.crc32(content) == member.crc)
    if not whole and member.method == -1 and member.crc:
        # The other images of the shard are not what they were either.
        raise SourceError(
            f"the shard {archive!r} is not what it was when its index was made: it was replaced or "
            "is damaged; run again, and the index is made anew"
        )
    if not whole or (member.method != -1 and zlib.crc32(content) != member.crc):
        raise ValueError("its archive is damaged")
    return content


def read_remote(places: Sequence[str]) -> dict[str, bytes]:
    """Read those of several places that lie in URLs, with few requests; return them by place.

    Raises:
        SourceError: A URL cannot be reached, or its content is not what it was.
    """
    far = {}
    for place in dict.fromkeys(places):
        if is_packed(place) and is_url(place):
            try:
                far[place] = _at(place)
            except ValueError:
                continue  # whoever opens it alone is told
    if not far:
        return {}
    contents = read_ranges([_range(*one) for one in far.values()])
    pairs = zip(far.items(), contents, strict=True)
    return {place: _checked(*one, content) for (place, one), content in pairs}


class Extents(Mapping[str, Member]):
    """The images in several files by name, where each takes a few numbers of memory.

    Args:
        files: Paths or URLs of the files.
        names: Name of each image, N different ones.
        which: Number of the file that each lies in, [N]; where ``offsets`` is -1 it is an image.
        offsets, sizes: Where its bytes lie, [N].
        crcs: CRC-32 of its bytes, [N]; 0 where unknown.
        checksums: SHA-256 of the bytes of each, 32 hexadecimal digits; None where unknown.
    """

    def __init__(
        self,
        files: Sequence[str],
        names: Sequence[str],
        which: Sequence[int],
        offsets: Sequence[int],
        sizes: Sequence[int],
        crcs: Sequence[int] | None = None,
        checksums: Sequence[str] | None = None,
    ) -> None:
        self.files, self.names = files, names
        self._numbers = array("q"), array("q"), array("q"), array("q")
        for kept, given in zip(
            self._numbers, (which, offsets, sizes, crcs or [0] * len(names)), strict=True
        ):
            kept.extend(given)
        self._checksums = checksums
        self._rows = {name: row for row, name in enumerate(names)}

    def __getitem__(self, name: str) -> Member:
        row = self._rows[name]
        which, offsets, sizes, crcs = self._numbers
        size = sizes[row]
        return Member(offsets[row], size, size, -1, crcs[row], self.files[which[row]])

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def checksum(self, name: str) -> str | None:
        """Return the SHA-256 of an image's bytes, cut to 32 digits; None where it is not known."""
        return None if self._checksums is None else self._checksums[self._rows[name]]
