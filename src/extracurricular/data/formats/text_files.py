"""Open text files that may be packed, and find out their encoding."""

from __future__ import annotations

import codecs
import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import polars as pl

from extracurricular.errors import DataError, first_line

HEAD = 2**18
"""So many bytes show how a file is written."""
CHUNK = 2**24
"""So many bytes are looked at in one piece."""
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_BOMS = {
    codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
_UNDEFINED = {0x81, 0x8D, 0x8F, 0x90, 0x9D}


def encoding_of(where: str, path: Path, given: str | None) -> str:
    """Return the encoding that is given, or the one that the bytes of a file suggest.

    Raises:
        DataError: There is no such encoding, or the file cannot be read.
    """
    if given is not None:
        try:
            codecs.lookup(given)
        except LookupError:
            raise DataError(
                f"encoding is {given!r}; it must be a codec's name, such as utf-8 or latin-1"
            ) from None
        return given
    packed = packing(path)
    if packed == ZSTD:
        return "utf-8-sig"
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            head = file.read(HEAD)
            found = next((name for bom, name in _BOMS.items() if head.startswith(bom)), None)
            if found:
                return found
            for k, name in ((1, "utf-16-le"), (0, "utf-16-be")):
                half = head[k::2]
                if half and half.count(0) > 0.4 * len(half):
                    return name
            decoder = codecs.getincrementaldecoder("utf-8")()
            chunk = head
            while chunk:
                decoder.decode(chunk)
                chunk = file.read(CHUNK)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        # Signs of Windows are undefined in Latin-1, and a few bytes in both.
        seen = set(error.object)
        return "cp1252" if seen & set(range(0x80, 0xA0)) and not seen & _UNDEFINED else "latin-1"
    except (OSError, EOFError) as error:
        raise DataError(f"{where} cannot be read: {error}") from error
    return "utf-8"


def packing(path: Path) -> bytes:
    """Return the mark of gzip or zstd with which a file begins; nothing if it is plain."""
    with path.open("rb") as file:
        start = file.read(4)
    return next((mark for mark in (GZIP, ZSTD) if start.startswith(mark)), b"")


def opened_text(path: Path, encoding: str, lines: int | None = None) -> TextIO:
    """Open the text of a file, or of its first lines."""
    packed = packing(path)
    if packed == GZIP:
        return io.TextIOWrapper(gzip.open(path), encoding=encoding, newline="")
    if packed == ZSTD:
        try:
            found = pl.read_lines(path, n_rows=lines).to_series()
        except pl.exceptions.PolarsError as error:
            raise DataError(
                f"the file {str(path)!r} cannot be read: {first_line(error)}; a table packed by "
                "zstd must be in UTF-8"
            ) from error
        return io.StringIO("\n".join(found).removeprefix("\ufeff") + "\n", newline="")
    return path.open(encoding=encoding, newline="")


def chunks(source: Path | bytes) -> Iterator[bytes]:
    """Yield the bytes of a file, unpacked, in pieces of :data:`CHUNK`."""
    if isinstance(source, bytes):
        yield from (source[k : k + CHUNK] for k in range(0, len(source), CHUNK))
        return
    if packing(source) == ZSTD:
        yield "\n".join(pl.read_lines(source).to_series()).encode()
        return
    with gzip.open(source) if packing(source) else source.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
