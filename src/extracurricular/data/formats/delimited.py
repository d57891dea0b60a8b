"""Read text tables by polars: find out their encoding, separator and header, and check their rows.

polars reads quickly, but passes over rows that are too short and stumbles over odd quotes. Rows are
therefore counted again where one could be short, and a file that polars refuses is read by ``csv``,
which names the line that is wrong.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl

from extracurricular.data.formats.text_files import (
    CHUNK,
    HEAD,
    chunks,
    encoding_of,
    opened_text,
    packing,
)
from extracurricular.data.texts import NumberForm, all_numbers, number_forms
from extracurricular.errors import DataError, shorten

_SAMPLE = 1000
_NAMES = {" ": "blanks", "\t": "tabs"}
# A text that holds one of these in each line is hardly separated by the next of the list.
_SEPARATORS = ("\t", ";", "|", ",")
_PLAIN = re.compile(NumberForm().pattern)
_PADDED = re.compile(r"0\d+$")
_BLOCK = 50_000


@dataclass(frozen=True)
class TextForm:
    """How a text table is written; None is found out.

    Args:
        separator: The character between the columns; a blank stands for any number of blanks.
        header: Whether the first line names the columns; else they are ``"0"``, ``"1"``…
        encoding: Name of a codec, such as ``utf-8`` or ``latin-1``.
        skip: Number of lines before the table, which are passed over.
    """

    separator: str | None = None
    header: bool | None = None
    encoding: str | None = None
    skip: int = 0


@dataclass(frozen=True)
class Raw:
    """A table as its file has it.

    Args:
        source: The file, for errors.
        frame: Its columns, unnamed ones under the name ``""`` or ``"column K"``.
        place: Function from row k, counted from 0, to its name in errors (``"line 2"``).
        notes: Sentences about how the file was read.
    """

    source: str
    frame: pl.DataFrame
    place: Callable[[int], str]
    notes: tuple[str, ...] = ()


def read_delimited(
    path: Path,
    form: TextForm | None = None,
    texts: Callable[[Sequence[str]], Collection[str]] = lambda names: (),
    missing: Collection[str] = (),
    decimal: str | None = None,
) -> Raw:
    """Read a text table, plain or packed by gzip or zstd.

    Args:
        path: The file.
        form: How it is written.
        texts: Function from the names of all columns to those that are kept as texts.
        missing: Words, in lower case, that mean a missing value.
        decimal: The sign between whole and part, if known.

    Returns:
        Columns of float64 where all values are plain numbers, and of texts elsewhere; rows that are
        empty are left out.

    Raises:
        DataError: The file is no text, or a line of it has another number of values.
    """
    where = f"the file {str(path)!r}"
    with _told(where):
        return _read(where, path, _form(where, path, form), texts, missing, decimal)


def text_blocks(path: Path, form: TextForm | None, size: int) -> Iterator[pl.DataFrame]:
    """Yield the rows of a text table, ``size`` at a time, each value as its text or null.

    The file is never in memory as a whole, unless zstd packs it.

    Raises:
        DataError: The file is no text, or a line of it has another number of values.
    """
    where = f"the file {str(path)!r}"
    with _told(where):
        file, names, _ = _looked_at(where, path, _form(where, path, form))
        rows = file.rows(len(names))
        while block := [row for _, row in islice(rows, size)]:
            yield _texts(names, block)


def _form(where: str, path: Path, form: TextForm | None) -> TextForm:
    """Return how a file is written, with a separator of one character, and its encoding."""
    form = form or TextForm()
    if form.separator is not None:
        # In YAML '\t' in single quotes is two characters.
        form = replace(form, separator=form.separator.replace("\\t", "\t"))
        if len(form.separator or "") != 1:
            raise DataError(f"separator is {form.separator!r}; it must be one character")
    return replace(form, encoding=encoding_of(where, path, form.encoding))


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Turn what goes wrong with a file into a sentence."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where} is no text in {error.encoding}: {error}; set `encoding`"
        ) from error
    except csv.Error as error:
        raise DataError(f"{where}: {error}") from error
    except (OSError, EOFError) as error:
        raise DataError(f"{where} cannot be read: {error}") from error


def _read(
    where: str,
    path: Path,
    form: TextForm,
    texts: Callable[[Sequence[str]], Collection[str]],
    missing: Collection[str],
    decimal: str | None,
) -> Raw:
    file, names, body = _looked_at(where, path, form)
    separator, header = file.separator, file.header
    keep = set(texts(names))
    kinds: dict[str, type[pl.DataType]] = {
        name: pl.Float64
        if name not in keep and decimal != "," and _plain([row[k : k + 1] for row in body], missing)
        else pl.String
        for k, name in enumerate(names)
    }
    if decimal is None and _commas(body, [k for k, n in enumerate(names) if kinds[n] == pl.String]):
        kinds = dict.fromkeys(names, pl.String)
    frame = _frame(file, kinds, missing)
    blank = all(frame[name].null_count() for name in names)
    if blank and frame.height:
        frame = frame.filter(~pl.all_horizontal(pl.all().is_null()))
    # A row that is too short ends in a null.
    if len(names) > 1 and frame[names[-1]].null_count() and not file.even(len(names), frame.height):
        file.check(len(names))
    how = [
        f"`separator: {separator!r}`" + (f" ({_NAMES[separator]})" if separator in _NAMES else ""),
        f"`encoding: {form.encoding}`",
        f"`header: {str(header).lower()}`",
    ]
    return Raw(where, frame, file.place(missing), (f"The text is read with {', '.join(how)}.",))


def _looked_at(where: str, path: Path, form: TextForm) -> tuple[_File, list[str], list[list[str]]]:
    """Return how a file is written, the names of its columns, and the first rows of its body."""
    assert form.encoding is not None
    with opened_text(path, form.encoding, form.skip + _SAMPLE) as stream:
        lines = list(islice(stream, form.skip, form.skip + _SAMPLE))
    if not any(line.strip() for line in lines):
        raise DataError(f"{where} is empty")
    separator = form.separator or _separator(lines)
    sample = [row for _, row in _records(where, iter(lines), separator, whole=len(lines) < _SAMPLE)]
    header = _header(where, sample, form.header)
    body = sample[1:] if header else sample
    names = [name.strip() for name in sample[0]] if header else list(map(str, range(len(body[0]))))
    if header and body and all(len(row) == len(names) + 1 for row in body):
        names = ["", *names]  # R names the rows, but not their column
    names = _checked(where, names, separator)
    file = _File(where, path, form.encoding, separator, header, form.skip)
    return file, names, body


# The separator and the header


def _separator(lines: Sequence[str]) -> str:
    """Find the character that gives all lines the same number of columns, more than one."""
    some = [line for line in lines[:100] if line.strip()]
    best, fit = ",", 0.0
    for separator in (*_SEPARATORS, " "):
        try:
            rows = [row for _, row in _records("", iter(some), separator, whole=False)]
        except csv.Error:
            continue
        if not rows or len(rows[0]) < 2:
            continue
        share = Counter(map(len, rows))
        first = len(rows[0])
        # R leaves out the name of the column of row names.
        equal = max(share[first], share[first + 1]) / len(rows)
        if equal > fit:
            best, fit = separator, equal
    return best


def _records(
    where: str, lines: Iterator[str], separator: str, whole: bool = True, first: int = 0
) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the last line of each row that is not empty, and its values.

    Raises:
        DataError: A quote is not closed; with ``whole`` alone, as the rest may close it.
    """
    if separator == " ":
        lines = (line.replace("\t", " ").strip() + "\n" for line in lines)
    reader = csv.reader(_lines(lines), delimiter=separator, strict=True, skipinitialspace=True)
    try:
        for row in reader:
            if row:
                yield first + reader.line_num, row
    except csv.Error as error:
        if not whole and "unexpected end" in str(error):
            return
        if where:
            raise DataError(f"{where}, line {first + reader.line_num}: {error}") from error
        raise


def _lines(lines: Iterator[str]) -> Iterator[str]:
    """Yield lines that end as those of today do, whatever machine wrote them."""
    for line in lines:
        if "\r" in line.rstrip("\r\n"):
            yield from (part + "\n" for part in line.rstrip("\r\n").split("\r"))
        else:
            yield line


def _plain(cells: Sequence[Sequence[str]], missing: Collection[str]) -> bool:
    """Return whether some texts are numbers as programs write them, and the others missing."""
    known = [c.strip() for cell in cells for c in cell if c.strip().lower() not in missing]
    # 007 may be a name, so that it is looked at again as a text.
    return bool(known) and all(_PLAIN.match(c) and not _PADDED.match(c) for c in known)


def _commas(body: Sequence[Sequence[str]], columns: Sequence[int]) -> bool:
    """Return whether some column has numbers that can only have decimal commas."""
    for k in columns:
        cells = pl.Series([row[k].strip() or None for row in body if k < len(row)], dtype=pl.String)
        forms = {form.decimal for form in number_forms(cells)}
        if forms == {","}:
            return True
    return False


def _header(where: str, rows: Sequence[Sequence[str]], given: bool | None) -> bool:
    """Return whether the first line has names, which numbers with a point are not."""
    if given is not None:
        return given
    first, body = rows[0], rows[1:]
    columns = [[row[k] for row in body if k < len(row)] for k in range(len(first))]
    numeric = [all_numbers([cell]) for cell in first]
    named = [not own and all_numbers(below) for own, below in zip(numeric, columns, strict=True)]
    if not any(numeric) or any(named):
        return True
    cells = [cell.strip() for cell, own in zip(first, numeric, strict=True) if own]
    if len(set(cells)) < len(cells) or not all(re.fullmatch(r"\d+", cell) for cell in cells):
        return False
    # Years are names in some tables.
    raise DataError(
        f"{where}: the first line has numbers where the names of the columns should be, such as "
        f"{cells[0]!r}; if there are no names, set `header: false`, and if these are names, "
        "`header: true`"
    )


def _checked(where: str, names: list[str], separator: str) -> list[str]:
    if len(names) == 1:
        other = next((c for c in (";", "\t", ",", "|") if c != separator and c in names[0]), None)
        if other is not None:
            raise DataError(
                f"{where} has one column, {shorten(names[0])}; set `separator: {other!r}`"
            )
    unnamed = [k for k, name in enumerate(names) if not name]
    if len(unnamed) > 1 or (unnamed and unnamed != [0]):
        names = [name or f"column {k}" for k, name in enumerate(names)]
    for k, name in enumerate(names):
        if name in names[:k]:
            raise DataError(
                f"{where}, line 1: {name!r} is there twice; each column needs a name of its own"
            )
    return names


# The rows


@dataclass(frozen=True)
class _File:
    """A text file of which all is known that its rows need."""

    where: str
    path: Path
    encoding: str
    separator: str
    header: bool
    skip: int

    def records(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the line and the values of each row, header included."""
        with opened_text(self.path, self.encoding) as stream:
            lines = islice(stream, self.skip, None)
            yield from _records(self.where, lines, self.separator, first=self.skip)

    def rows(self, columns: int | None = None) -> Iterator[tuple[int, list[str]]]:
        """Yield the line and the values of each row of the body, which must be so many."""
        for line, row in islice(self.records(), int(self.header), None):
            if columns is not None and len(row) != columns:
                raise DataError(
                    f"{self.where}, line {line}: the row has {len(row)} values, but there are "
                    f"{columns} columns"
                    + ("; `skip: N` passes over lines before the table" if line < 9 else "")
                )
            yield line, row

    def check(self, columns: int) -> None:
        """Refuse a row that has another number of values than there are columns."""
        for _ in self.rows(columns):
            pass

    def place(self, missing: Collection[str]) -> Callable[[int], str]:
        """Return a function from a row to its line; the file is read again for it."""

        def line_of(row: int) -> str:
            full = (
                line
                for line, cells in self.rows()
                if any(cell.strip().lower() not in {"", *missing} for cell in cells)
            )
            return f"line {next(islice(full, row, None))}"

        return line_of

    def even(self, columns: int, height: int) -> bool:
        """Return whether counting signs proves that no row is too short."""
        if self.separator == " " or packing(self.path) or not self._utf8:
            return False
        signs = lines = 0
        with self.path.open("rb") as file:
            while chunk := file.read(CHUNK):
                if b'"' in chunk:
                    return False
                signs += chunk.count(self.separator.encode())
                lines += chunk.count(b"\n")
                last = chunk[-1:]
        lines += last != b"\n"
        return not self.skip and lines == height + self.header and signs == lines * (columns - 1)

    @property
    def _utf8(self) -> bool:
        return codecs.lookup(self.encoding).name in ("utf-8", "ascii")

    def source(self) -> Path | bytes:
        """Return what polars reads: the file if it is one that polars understands, else a text."""
        utf8 = self._utf8 or (self.header and self.encoding == "utf-8-sig")
        if utf8 and self.separator != " " and not self._odd_lines():
            return self.path
        with opened_text(self.path, self.encoding) as stream:
            text = stream.read()
        if "\r" in text and "\n" not in text:
            text = text.replace("\r", "\n")
        if self.separator == " ":
            text = _single(text)
        return text.encode()

    def _odd_lines(self) -> bool:
        """Return whether lines end as those of old Macs do."""
        head = next(chunks(self.path), b"")[:HEAD]
        return b"\r" in head and b"\n" not in head


def _single(text: str) -> str:
    """Put one tab where there are blanks between columns, and none at the ends of lines."""
    if '"' in text:
        text = re.sub(r'("(?:[^"]|"")*")|[ \t]+', lambda found: found[1] or "\t", text)
    else:
        text = re.sub(r"[ \t]+", "\t", text)
    return re.sub(r"(?m)^\t+|\t+(?=\r?$)", "", text)


def _frame(
    file: _File, kinds: dict[str, type[pl.DataType]], missing: Collection[str]
) -> pl.DataFrame:
    """Read all rows by polars, or by ``csv`` where polars cannot."""
    source = file.source()
    odd = _odd_quotes(source, file.separator)
    spellings = {w for word in missing for w in (word, word.upper(), word.title(), word.lower())}
    spellings |= {"NaN"} if "nan" in missing else set()
    skipped = next(file.records())[0] if file.header else file.skip
    for schema in () if odd else (kinds, dict.fromkeys(kinds, pl.String)):
        try:
            return pl.read_csv(
                source,
                separator="\t" if file.separator == " " else file.separator,
                has_header=False,
                skip_lines=skipped,
                schema=dict(schema),
                null_values=sorted(spellings - {""}),
            )
        except pl.exceptions.NoDataError:
            return pl.DataFrame(schema=dict(schema))
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
            continue
    file.check(len(kinds))
    rows = file.rows()
    names = list(kinds)
    blocks = [_texts(names, [])]
    while block := [row for _, row in islice(rows, _BLOCK)]:
        blocks.append(_texts(names, block))
    return pl.concat(blocks)


def _texts(names: Sequence[str], rows: Sequence[Sequence[str]]) -> pl.DataFrame:
    """Return rows of texts as a frame, null where nothing stands."""
    columns = {name: [row[k] or None for row in rows] for k, name in enumerate(names)}
    return pl.DataFrame(columns, schema=dict.fromkeys(names, pl.String))


def _odd_quotes(source: Path | bytes, separator: str) -> bool:
    """Return whether quotes stand where polars may misread them.

    Lines of an even number of quotes are safe. An odd number is a quoted line end, which is sound,
    or a quote that stands for itself (5" of rain), and only ``csv`` tells one from the other.
    """
    blank = separator.encode() + b' "'
    odd = False
    for chunk in chunks(source):
        if b'"' not in chunk:
            continue
        if blank in chunk:
            return True
        buffer = np.frombuffer(chunk, np.uint8)
        quotes, ends = np.flatnonzero(buffer == 34), np.flatnonzero(buffer == 10)
        before = np.searchsorted(quotes, ends) + odd
        if (before % 2).any():
            return True
        odd = bool((len(quotes) + odd) % 2)
    return odd
