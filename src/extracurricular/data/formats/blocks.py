"""Read tables and images block by block, so that any number of them takes a constant memory."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import polars as pl

from extracurricular.data.formats.columns import Reading
from extracurricular.data.formats.delimited import text_blocks
from extracurricular.data.formats.examples import Source, image_names, is_hidden, is_image_name
from extracurricular.data.formats.tables import TEXTS, kind_of_file, read_raw, table_files
from extracurricular.data.formats.text_files import CHUNK, packing
from extracurricular.data.images.decode import some_endings
from extracurricular.data.images.packed import Store, is_archive, open_store
from extracurricular.errors import DataError, first_line

_LISTS = (".txt", ".lst")
_KINDS = (
    "an image, a folder, a .zip or .tar, several by a *, or a .txt with the name of a file in each "
    "line"
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
class Images:
    """Images by name, not yet opened.

    Args:
        names: A name for each, by which a person knows it.
        store: The folder or archive that the names are relative to.
        places: Their names in it, where they have others there; None where they have not.
    """

    names: list[str]
    store: Store
    places: list[str] | None = None

    def blocks(self, size: int) -> Iterator[list[Source]]:
        """Yield the images, ``size`` at a time."""
        pairs = zip(self.names, self.places or self.names, strict=True)
        while some := list(islice(pairs, size)):
            yield [(name, self.store.place(place)) for name, place in some]


def find_pictures(path: Path) -> Images:
    """Find images: one, those of a folder and its subfolders, of an archive, a pattern or a list.

    Raises:
        DataError: There are none.
    """
    path = path.expanduser()
    kind = path.suffix.lower()
    home = Store(path.absolute().parent)
    if path.is_dir():
        found = Images(image_names(path), Store(path))
    elif path.is_file() and is_archive(path):
        store = open_store(path)
        found = Images(sorted(filter(_is_shown, store.members or ())), store)
    elif path.is_file() and kind in _LISTS:
        found = Images(_listed(path), home)
    elif path.is_file() and is_image_name(path.name):
        found = Images([path.name], home)
    elif "*" in str(path):
        names = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207
        found = Images([name for name in names if is_image_name(name)], Store(Path.cwd()))
    else:
        verb = "is no image" if path.exists() else "does not exist"
        raise DataError(f"{str(path)!r} {verb}; the input must be {_KINDS}")
    if not found.names:
        raise DataError(f"{str(path)!r} has no images ({some_endings()})")
    return found


def _listed(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the list {str(path)!r} cannot be read: {error}") from error
    return [line.strip() for line in lines if line.strip()]


def _is_shown(name: str) -> bool:
    """Return whether a member of an archive is an image that is not hidden."""
    return is_image_name(name) and not any(map(is_hidden, name.split("/")))
