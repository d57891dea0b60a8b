"""Write frames one after the other to one file, which is there only when it is whole."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias

import polars as pl

from extracurricular.errors import RecipeError, StorageError, first_line

Write: TypeAlias = Callable[[pl.DataFrame], None]

# A part of a parquet file has at least so many rows but for the last.
_PART = 2**17


def check_out(out: str, source: Path) -> None:
    """Refuse a file of another kind, and the file that is read.

    Raises:
        RecipeError: It cannot be written to.
    """
    if out == "-":
        return
    file = Path(out)
    if file.suffix.lower() not in (".parquet", ".csv"):
        raise RecipeError(
            "--out", f"is {out!r}; it must end in .parquet or .csv, or be - for standard output"
        )
    if file.is_dir():
        raise RecipeError("--out", f"is {out!r}, which is a folder; name a file")
    if file.exists() and source.exists() and file.samefile(source):
        raise RecipeError("--out", f"is {out!r}, which is the input; give another file")


@contextmanager
def sink(out: str) -> Iterator[Write]:
    """Open a .csv or .parquet file, or standard output for ``-``, to write frames to.

    An interruption leaves the file as it was.

    Yields:
        A function to call with each frame.

    Raises:
        StorageError: The file cannot be written.
    """
    if out == "-":
        with _csv(sys.stdout.buffer) as write:
            yield write
            sys.stdout.buffer.flush()
        return
    file = Path(out)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{file.name}.", suffix=".part", dir=file.parent))
    except OSError as error:
        raise StorageError(f"cannot write {out!r}: {error.strerror or error}") from error
    try:
        whole = folder / "whole"
        if file.suffix.lower() == ".csv":
            with whole.open("wb") as opened, _csv(opened) as write:
                yield write
        else:
            with _parquet(folder, whole) as write:
                yield write
        whole.replace(file)
    except OSError as error:
        raise StorageError(f"cannot write {out!r}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _csv(opened: BinaryIO) -> Iterator[Write]:
    first = True

    def write(frame: pl.DataFrame) -> None:
        nonlocal first
        opened.write(frame.write_csv(include_header=first).encode())
        first = False

    yield write


@contextmanager
def _parquet(folder: Path, whole: Path) -> Iterator[Write]:
    """Write parts, and join them at the end, as a parquet file cannot be appended to."""
    waiting: list[pl.DataFrame] = []
    parts: list[Path] = []

    def flush() -> None:
        if waiting:
            parts.append(folder / f"{len(parts):06d}.parquet")
            pl.concat(waiting, how="vertical_relaxed").write_parquet(parts[-1])
            waiting.clear()

    def write(frame: pl.DataFrame) -> None:
        waiting.append(frame)
        if sum(one.height for one in waiting) >= _PART:
            flush()

    yield write
    flush()
    try:
        frames = [pl.scan_parquet(part, glob=False) for part in parts]
        pl.concat(frames, how="vertical_relaxed").sink_parquet(whole)
    except pl.exceptions.PolarsError as error:
        raise StorageError(f"cannot write the predictions: {first_line(error)}") from error
