"""Read a tar from its first byte to its last, without going back, and notice where it is cut off.

Python's own reader takes the end of a file for the end of an archive, so that half of a shard would
pass for a whole one. The forms of POSIX.1-1988 (ustar), POSIX.1-2001 (pax) and GNU are read; links,
folders and devices are passed over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_BLOCK = 512
_FILES = (b"0", b"\0", b"7")
_PAX, _PAX_ALL, _LONG, _SPARSE = b"x", b"g", b"L", b"S"
# A name is never longer, and neither is a record of pax; what is, is no tar.
_MOST_TEXT = 2**20


class TarError(ValueError):
    """A file is no tar, or is cut off; the text is the end of a sentence that begins with it."""


class File(NamedTuple):
    """A file in a tar.

    Args:
        name: Its path.
        offset: Place of its first byte in the tar.
        content: Its bytes.
    """

    name: str
    offset: int
    content: bytes


class Source:
    """The bytes of a tar in their order.

    Args:
        blocks: The bytes, in blocks of any size.
    """

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._held, self._start = b"", 0
        self._digest = hashlib.sha256()
        self.position = 0

    def take(self, count: int) -> bytes:
        """Return the next bytes, fewer at the end."""
        while len(self._held) - self._start < count:
            block = next(self._blocks, b"")
            if not block:
                break
            self._digest.update(block)
            self._held, self._start = self._held[self._start :] + block, 0
        found = self._held[self._start : self._start + count]
        self._start += len(found)
        self.position += len(found)
        return found

    def checksum(self) -> str:
        """Return the SHA-256 of all bytes, the rest included, in hexadecimal."""
        for block in self._blocks:
            self._digest.update(block)
        return self._digest.hexdigest()


def files(source: Source) -> Iterator[File]:
    """Yield the files of a tar.

    Raises:
        TarError: It is no tar, it is cut off, or it holds a file with holes.
    """
    name, size = "", -1
    while True:
        start = source.position
        header = source.take(_BLOCK)
        if len(header) == _BLOCK and not any(header):
            return
        if not header and start:
            raise TarError("ends without the mark of an end, as one that is cut off; copy it again")
        if len(header) < _BLOCK and start:
            raise TarError(f"is cut off after {source.position:,} bytes; copy it again")
        if len(header) < _BLOCK or not _is_header(header):
            raise TarError(
                f"is damaged after {start:,} bytes" if start else "is no tar, whatever its name"
            )
        kind, given = header[156:157], _number(header[124:136])
        if kind in (_PAX, _PAX_ALL, _LONG):
            if given > _MOST_TEXT:
                raise TarError(f"is damaged after {start:,} bytes")
            text = _content(source, given)
            if kind == _LONG:
                name = _text(text)
            elif kind == _PAX:
                known = _records(text)
                name = known.get("path", name)
                size = int(known["size"]) if known.get("size", "").isdigit() else size
                if any(key.startswith("GNU.sparse") for key in known):
                    kind = _SPARSE
        if kind == _SPARSE:
            raise TarError("holds a file with holes (sparse), which is not read; make it anew")
        if kind in (_PAX, _PAX_ALL, _LONG):
            continue
        size = given if size < 0 else size
        # Of a folder, a link or a device no bytes follow.
        held = kind in _FILES
        offset = source.position
        content = _content(source, size) if held else b""
        if held:
            yield File(name or _name(header), offset, content)
        name, size = "", -1


def _is_header(header: bytes) -> bool:
    try:
        wanted = int(header[148:156].split(b"\0", 1)[0].strip() or b"0", 8)
    except ValueError:
        return False
    return wanted == sum(header[:148]) + 8 * 32 + sum(header[156:])


def _number(field: bytes) -> int:
    """Read a number in octal, or in base 256 where its first bit is set."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    try:
        return int(field.split(b"\0", 1)[0].strip() or b"0", 8)
    except ValueError:
        raise TarError("is damaged: a size is no number") from None


def _text(field: bytes) -> str:
    try:
        return field.split(b"\0", 1)[0].decode()
    except UnicodeDecodeError:
        raise TarError(f"has the name {field[:60]!r}, which is not UTF-8; make it anew") from None


def _name(header: bytes) -> str:
    name = _text(header[:100])
    # GNU has other things there, and another mark.
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _content(source: Source, size: int) -> bytes:
    content = source.take(size)
    padding = -size % _BLOCK
    if len(content) < size or len(source.take(padding)) < padding:
        raise TarError(f"is cut off after {source.position:,} bytes; copy it again")
    return content


def _records(content: bytes) -> dict[str, str]:
    """Read the records of pax: length, key and value of each."""
    found = {}
    while content:
        length, _, _ = content.partition(b" ")
        try:
            end = int(length)
            record = content[len(length) + 1 : end]
        except ValueError:
            raise TarError("is damaged: a record of pax has no length") from None
        key, equals, value = record.partition(b"=")
        if end <= len(length) or not equals:
            raise TarError("is damaged: a record of pax is cut off")
        found[_text(key)] = _text(value.removesuffix(b"\n"))
        content = content[end:]
    return found
