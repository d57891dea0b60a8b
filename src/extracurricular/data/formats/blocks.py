"""Read tables and images block by block, so that any number of them takes a constant memory."""

from __future__ import annotations

import glob
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

import polars as pl

from extracurricular.data.formats.columns import Reading
from extracurricular.data.formats.delimited import text_blocks
from extracurricular.data.formats.examples import SUFFIXES, Source, image_names
from extracurricular.data.formats.tables import TEXTS, kind_of_file, read_raw, table_files
from extracurricular.data.formats.text_files import CHUNK, packing
from extracurricular.errors import DataError, first_line

# The largest image file that is read from an archive, in bytes.
_LARGEST = 1 << 29
_LISTS = (".txt", ".lst")
_KINDS = (
    "an image, a folder, a .zip, several by a *, or a .txt with the name of a file in each line"
)


# Tables


def table_blocks(path: Path, reading: Reading, size: int) -> Iterator[pl.DataFrame]:
    """Yield the rows of a table, ``size`` at a time; the last may be fewer.

    Values of a text file stay texts. Spreadsheets and ``.npz`` files are read as a whole.

    Args:
        path: A file, or a pattern with ``*`` for several of the same columns.
        reading: How text files and spreadsheets are written.
        size: Rows of a block.

    Raises:
        DataError: A file is missing or damaged, or the files differ in their columns.
    """
    left = pl.DataFrame()
    for block in _blocks(path, reading, size):
        left = block if not left.height else _joined(path, left, block)
        while left.height >= size:
            yield left[:size]
            left = left[size:]
    if left.height:
        yield left


def _joined(path: Path, first: pl.DataFrame, second: pl.DataFrame) -> pl.DataFrame:
    if set(first.columns) != set(second.columns):
        odd = sorted(set(first.columns) ^ set(second.columns))
        raise DataError(f"the files {str(path)!r} differ in the columns {', '.join(odd[:9])}")
    try:
        return pl.concat([first, second.select(first.columns)], how="vertical_relaxed")
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"the files {str(path)!r} differ in what their columns hold: {first_line(error)}"
        ) from error


def _blocks(path: Path, reading: Reading, size: int) -> Iterator[pl.DataFrame]:
    for file in table_files(path):
        kind = kind_of_file(file)
        if kind in TEXTS:
            blocks = text_blocks(file, reading.text_of(kind), size)
        elif kind == ".parquet":
            blocks = _parquet(file, size)
        else:
            blocks = read_raw(file, reading, ()).frame.iter_slices(size)
        for block in blocks:
            # A column without a name has this one in training, too.
            yield block.rename({"": "column 0"}, strict=False)


def _parquet(file: Path, size: int) -> Iterator[pl.DataFrame]:
    try:
        whole = pl.scan_parquet(file, glob=False, hive_partitioning=False)
        yield from whole.collect_batches(chunk_size=size, maintain_order=True)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"the file {str(file)!r} cannot be read as parquet: {first_line(error)}"
        ) from error


def count_rows(path: Path) -> int | None:
    """Return about how many rows a table has, for a bar of progress; None where that takes long."""
    count = 0
    for file in table_files(path):
        kind = kind_of_file(file)
        try:
            if kind == ".parquet":
                count += pl.scan_parquet(file, glob=False).select(pl.len()).collect().item()
            elif kind in TEXTS and not packing(file):
                count += _lines(file)
            else:
                return None
        except (pl.exceptions.PolarsError, OSError):
            return None
    return count


def _lines(file: Path) -> int:
    """Return the number of lines but one."""
    count, last = 0, b"\n"
    with file.open("rb") as opened:
        while chunk := opened.read(CHUNK):
            count, last = count + chunk.count(b"\n"), chunk[-1:]
    return max(0, count + (last != b"\n") - 1)


# Images


@dataclass(frozen=True)
class Pictures:
    """Images by name, not yet opened.

    Args:
        names: A name for each, by which a person knows it.
        root: The folder that the names are relative to, or an archive that holds them.
    """

    names: list[str]
    root: Path

    def blocks(self, size: int) -> Iterator[list[Source]]:
        """Yield the images, ``size`` at a time.

        Raises:
            DataError: The archive is damaged.
        """
        names = iter(self.names)
        if self.root.is_dir():
            while some := list(islice(names, size)):
                yield [(name, self.root / name) for name in some]
            return
        with _archive(self.root) as archive:
            while some := list(islice(names, size)):
                yield [(name, _member(archive, self.root, name)) for name in some]


def find_pictures(path: Path) -> Pictures:
    """Find images: one, those of a folder and its subfolders, of a zip, a pattern or a list.

    Raises:
        DataError: There are none.
    """
    path = path.expanduser()
    kind = path.suffix.lower()
    if path.is_dir():
        found = Pictures(image_names(path), path)
    elif path.is_file() and kind == ".zip":
        with _archive(path) as archive:
            names = [one.filename for one in archive.infolist() if _is_shown(one)]
        found = Pictures(sorted(names), path)
    elif path.is_file() and kind in _LISTS:
        found = Pictures(_listed(path), path.absolute().parent)
    elif path.is_file() and kind in SUFFIXES:
        found = Pictures([path.name], path.absolute().parent)
    elif "*" in str(path):
        names = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207
        names = [name for name in names if name.lower().endswith(SUFFIXES)]
        found = Pictures(names, Path.cwd())
    else:
        verb = "is no image" if path.exists() else "does not exist"
        raise DataError(f"{str(path)!r} {verb}; the input must be {_KINDS}")
    if not found.names:
        raise DataError(f"{str(path)!r} has no images ({', '.join(SUFFIXES)})")
    return found


def _listed(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the list {str(path)!r} cannot be read: {error}") from error
    return [line.strip() for line in lines if line.strip()]


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"the archive {str(path)!r} cannot be read: {error}") from error


def _is_shown(one: zipfile.ZipInfo) -> bool:
    """Return whether a member is an image that is not hidden, as those of macOS are."""
    parts = PurePosixPath(one.filename).parts
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not one.is_dir() and not hidden and one.filename.lower().endswith(SUFFIXES)


def _member(archive: zipfile.ZipFile, path: Path, name: str) -> bytes:
    if archive.getinfo(name).file_size > _LARGEST:
        raise DataError(f"{name!r} in {str(path)!r} has more than {_LARGEST} bytes")
    try:
        return archive.read(name)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError) as error:
        raise DataError(f"{name!r} in {str(path)!r} cannot be read: {error}") from error
