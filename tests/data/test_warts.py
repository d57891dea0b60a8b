"""Tables with warts, alone and as many at once as stand together, read as the clean one.

The clean table has numbers, large numbers, shares, dates, names and a real target. A wart is
another way to write the same table; what is read must be the same to the last bit.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch

from extracurricular.data.base import Data
from extracurricular.data.sets.table import from_frame, table
from extracurricular.inputs import leaves

ROWS = 90
CITIES = ["Köln", "Paris\n(Nord)", "São Paulo"]
HEAD = ["width", "weight", "share", "day", "city", "price"]
CLEAN: dict[str, Any] = {"missing": "impute"}


def rows() -> list[list[str]]:
    """The clean cells; the width of each seventh row is missing, the price of each eleventh too."""
    g = np.random.default_rng(3)
    found = []
    for k in range(ROWS):
        width = "" if k % 7 == 5 else f"{g.normal():.4f}"
        day = f"2024-{1 + k % 12:02d}-{1 + k % 28:02d}"
        price = "" if k % 11 == 4 else f"{g.uniform(500, 3e6):.2f}"
        weight, share = f"{g.uniform(900, 2e6):.1f}", f"{g.uniform(0, 100):.1f}"
        found.append([width, weight, share, day, CITIES[k % 3], price])
    return found


def quoted(cell: str, separator: str) -> str:
    special = any(sign in cell for sign in (separator, '"', "\n", "'", " "))
    return '"' + cell.replace('"', '""') + '"' if special else cell


def text(cells: list[list[str]], separator: str = ",", head: list[str] | None = None) -> str:
    lines = [head or HEAD, *cells]
    return "".join(
        separator.join(quoted(cell, separator) for cell in line) + "\n" for line in lines
    )


def saved(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def clean(folder: Path, cells: list[list[str]] | None = None, **settings: Any) -> Data:
    path = saved(folder / "clean.csv", text(cells or rows()))
    return table(path, **(CLEAN | settings))


def same(found: Data, wanted: Data) -> None:
    assert found.task == wanted.task
    assert found.columns == wanted.columns
    assert found.classes == wanted.classes
    for part in ("train", "validation", "test", "unlabelled"):
        one, other = getattr(found, part), getattr(wanted, part)
        assert torch.equal(leaves(one.x)[""], leaves(other.x)[""]), part
        if part != "unlabelled":
            assert torch.equal(one.y, other.y), part
    for key, scale in wanted.x_scale.items():
        assert torch.equal(found.x_scale[key].shift, scale.shift)
        assert torch.equal(found.x_scale[key].scale, scale.scale)


def mapped(change: Callable[[str], str], *columns: int) -> list[list[str]]:
    """The cells with a change in some columns where they are not empty."""
    return [
        [change(cell) if k in columns and cell else cell for k, cell in enumerate(row)]
        for row in rows()
    ]


# The warts


def commas(cell: str) -> str:
    return cell.replace(".", ",")


def grouped(cell: str, group: str = ",", point: str = ".") -> str:
    return f"{float(cell):,.2f}".replace(",", "\0").replace(".", point).replace("\0", group)


def test_decimal_commas(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.csv", text(mapped(commas, 0, 1, 2, 5), ";"))
    found = table(path, **CLEAN)
    same(found, clean(tmp_path))
    assert any("`decimal: ','`" in note for note in found.notes)


def test_thousands(tmp_path: Path) -> None:
    wanted = clean(tmp_path)
    for group, point, separator in ((",", ".", ","), (".", ",", ";"), ("\u202f", ",", ";")):
        cells = mapped(lambda c: grouped(c, group, point), 1, 5)  # noqa: B023
        cells = [
            [commas(c) if k in (0, 2) and point == "," else c for k, c in enumerate(r)]
            for r in cells
        ]
        same(table(saved(tmp_path / "a.csv", text(cells, separator)), **CLEAN), wanted)


def test_currencies_and_percent_signs(tmp_path: Path) -> None:
    cells = mapped(lambda c: f"{c} %", 2)
    cells = [[*row[:5], f"${grouped(row[5])}" if row[5] else ""] for row in cells]
    found = table(saved(tmp_path / "a.csv", text(cells)), **CLEAN)
    same(found, clean(tmp_path))
    assert found.fields is not None
    assert [f.units for f in found.fields.inputs] == ["", "", "%", "", ""]
    assert found.fields.targets[0].units == "$"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    same(table(saved(tmp_path / "a.csv", text(rows()).encode(encoding)), **CLEAN), clean(tmp_path))


def test_tabs_and_other_separators(tmp_path: Path) -> None:
    wanted = clean(tmp_path)
    for name, separator in (("a.tsv", "\t"), ("b.csv", "\t"), ("c.txt", "|"), ("d.csv", ";")):
        same(table(saved(tmp_path / name, text(rows(), separator)), **CLEAN), wanted)


def test_several_blanks_between_columns(tmp_path: Path) -> None:
    # A cell cannot be empty here, so that a word stands for it.
    cells = [[cell or "NA" for cell in row] for row in rows()]
    lines = text(cells, " ").replace('"', '"').splitlines(keepends=True)
    wide = "".join("  " + line if k % 2 else line for k, line in enumerate(lines) if line)
    wide = (
        wide.replace(" 2024", "\t   2024").replace("  Paris", "Paris").replace("  (Nord", "(Nord")
    )
    same(table(saved(tmp_path / "a.dat", wide), **CLEAN), clean(tmp_path))


def test_words_for_missing_values(tmp_path: Path) -> None:
    words = ["NA", "n/a", "NULL", "?", "nan", "-", "#DIV/0!", " "]
    cells = [
        [cell or words[(k + j) % len(words)] for j, cell in enumerate(row)]
        for k, row in enumerate(rows())
    ]
    same(table(saved(tmp_path / "a.csv", text(cells)), **CLEAN), clean(tmp_path))
    cells = [[cell or "-999" for cell in row] for row in rows()]
    found = table(saved(tmp_path / "a.csv", text(cells)), **CLEAN, missing_values=["usual", -999])
    same(found, clean(tmp_path))


def test_dates_in_other_forms(tmp_path: Path) -> None:
    wanted = clean(tmp_path)

    def turned(form: str) -> Callable[[str], str]:
        return lambda cell: np.datetime64(cell).item().strftime(form)

    for form in ("%d.%m.%Y", "%d/%m/%Y", "%b %d, %Y", "%Y-%m-%d 00:00:00", "%Y/%m/%d", "%d.%m.%y"):
        same(table(saved(tmp_path / "a.csv", text(mapped(turned(form), 3))), **CLEAN), wanted)


def test_packed_files(tmp_path: Path) -> None:
    wanted, plain = clean(tmp_path), text(rows()).encode()
    same(table(saved(tmp_path / "a.csv.gz", gzip.compress(plain)), **CLEAN), wanted)
    packed = pa.compress(plain, codec="zstd", asbytes=True)
    same(table(saved(tmp_path / "a.csv.zst", packed), **CLEAN), wanted)


def frame() -> pl.DataFrame:
    """The clean table as a program has it."""
    columns = [list(column) for column in zip(*rows(), strict=True)]
    return pl.DataFrame(
        {
            name: pl.Series([v or None for v in values], dtype=pl.String)
            for name, values in zip(HEAD, columns, strict=True)
        }
    ).with_columns(
        pl.col("width", "weight", "share", "price").cast(pl.Float64), pl.col("day").str.to_date()
    )


def test_parquet_spreadsheets_and_frames(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    wanted, polars = clean(tmp_path), frame()
    polars.write_parquet(tmp_path / "a.parquet")
    same(table(str(tmp_path / "a.parquet"), **CLEAN), wanted)
    same(from_frame(polars, **CLEAN), wanted)
    same(from_frame(polars.lazy(), **CLEAN), wanted)
    same(from_frame(polars.to_dict(as_series=False), **CLEAN), wanted)
    same(from_frame(polars.to_dicts(), **CLEAN), wanted)
    other = pandas.DataFrame(polars.to_dict(as_series=False)).assign(
        day=lambda f: pandas.to_datetime(f["day"]), city=lambda f: f["city"].astype("category")
    )
    same(from_frame(other, **CLEAN), wanted)
    same(from_frame(other.sample(frac=1, random_state=1).sort_index(), **CLEAN), wanted)
    openpyxl = pytest.importorskip("openpyxl")
    pytest.importorskip("fastexcel")
    book = openpyxl.Workbook()
    for row in [HEAD, *polars.rows()]:
        book.active.append(list(row))
    book.save(tmp_path / "a.xlsx")
    same(table(str(tmp_path / "a.xlsx"), **CLEAN), wanted)
    same(table(str(tmp_path / "a.xlsx"), **CLEAN, sheet="Sheet"), wanted)


def test_several_files(tmp_path: Path) -> None:
    cells = rows()
    (tmp_path / "parts").mkdir()
    for k in range(3):
        saved(tmp_path / "parts" / f"part-{k}.csv", text(cells[30 * k : 30 * k + 30]))
    found = table(str(tmp_path / "parts" / "part-*.csv"), **CLEAN)
    same(found, clean(tmp_path))
    assert found.name == "parts"


def test_the_index_of_pandas_and_r(tmp_path: Path) -> None:
    wanted, cells = clean(tmp_path), rows()
    for name, start in (("", 0), ("Unnamed: 0", 0), ("", 1)):
        counted = [[str(k + start), *row] for k, row in enumerate(cells)]
        found = table(saved(tmp_path / "a.csv", text(counted, head=[name, *HEAD])), **CLEAN)
        same(found, wanted)
        assert any("counts the rows and is left out (`index: keep`" in n for n in found.notes)
    # R gives the rows names, but not their column.
    named = [[str(k + 1), *row] for k, row in enumerate(cells)]
    same(table(saved(tmp_path / "b.csv", text(named)), **CLEAN), wanted)


def test_a_table_without_names(tmp_path: Path) -> None:
    cells = rows()
    bare = text(cells).partition("\n")[2]
    found = table(saved(tmp_path / "a.csv", bare), **CLEAN)
    wanted = clean(tmp_path)
    assert torch.equal(leaves(found.train.x)[""], leaves(wanted.train.x)[""])
    assert torch.equal(found.test.y, wanted.test.y)  # type: ignore[arg-type]
    assert "4=Köln" in found.columns


def test_odd_lines(tmp_path: Path) -> None:
    wanted, plain = clean(tmp_path), text(rows())
    for odd in (
        plain.replace("\n", "\r\n"),
        plain.replace("price\n", "price\n\n") + "\n\n",
        plain.replace(",", ", "),
        plain.rstrip("\n"),
    ):
        same(
            table(saved(tmp_path / "a.csv", odd), **CLEAN, rename={"Paris\r\n(Nord)": CITIES[1]}),
            wanted,
        )
    short = plain.replace('"Paris\n(Nord)"', "Paris").replace("\n", "\r")
    cells = [[c.replace("\n(Nord)", "") for c in row] for row in rows()]
    same(table(saved(tmp_path / "a.csv", short), **CLEAN), clean(tmp_path, cells))


def test_quotes_that_stand_for_themselves(tmp_path: Path) -> None:
    """An inch sign in a text that is not quoted is no beginning of a quoted text."""
    cells = [[c.replace("Paris\n(Nord)", 'Paris 5"') for c in row] for row in rows()]
    bare = text(cells).replace('"Paris 5"""', 'Paris 5"')
    assert 'Paris 5",' in bare
    same(table(saved(tmp_path / "a.csv", bare), **CLEAN), clean(tmp_path, cells))


def test_all_at_once(tmp_path: Path) -> None:
    """A German spreadsheet: an index, words for holes, units, tabs, packed, in two files."""
    folder = tmp_path / "parts"
    folder.mkdir()
    for k, some in enumerate((slice(0, 40), slice(40, ROWS))):
        cells = []
        for number, (width, weight, share, day, city, price) in enumerate(rows()[some]):
            year, month, date = day.split("-")
            cells.append(
                [
                    str(number), commas(width) or "k.A.", grouped(weight, ".", ","),
                    commas(share) + " %", f"{date}.{month}.{year} 00:00", city,
                    f"{grouped(price, '.', ',')} €" if price else "-",
                ]
            )  # fmt: skip
        whole = text(cells, "\t", ["", *HEAD]).replace("\n", "\r\n").replace("Paris\r\n", "Paris\n")
        saved(folder / f"{k}.tsv.gz", gzip.compress(whole.encode("utf-16")))
    found = table(str(folder / "*.tsv.gz"), missing_values=["usual", "k.A."], **CLEAN)
    same(found, clean(tmp_path))
