"""Tables with warts, from ``xcl init`` by ``xcl run`` to ``xcl predict``, beside the clean table.

A wart is another way to write the same table, or something more in it that says nothing. So the
predictions are those of the clean table: to the last bit where the wart loses nothing, and to
rounding where a unit is another.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from extracurricular.cli import app, init
from extracurricular.report import write
from tests.data.test_warts import HEAD, ROWS, commas, grouped, mapped, rows, saved, text

# A few steps of the recipe that was written, all else as it is.
FEW = (
    "budget=tiny",
    "defaults.training.steps=12",
    "defaults.training.warmup=2",
    "teacher.estimator.random_forest.trees=3",
    "keep=8",
)
Cells = list[list[str]]


def xcl(*arguments: str) -> str:
    """Call a command in this process, and return what it said."""
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


@dataclass(frozen=True)
class Trip:
    """What came of a table: what ``init`` said, its recipe, and the predictions."""

    said: str
    recipe: dict[str, Any]
    predictions: pl.DataFrame


def trip(folder: Path, file: str, *settings: str, target: str = "price") -> Trip:
    """Take a table the whole way; predictions are those of the student ``kd``."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        said = xcl("init", file, *settings, "--target", target)
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
        xcl("run", "recipe.yaml", *FEW, "--out", "run")
        xcl("predict", "run", file, "--student", "kd", "--out", "said.parquet")
    finally:
        os.chdir(before)
    return Trip(said, recipe, pl.read_parquet(folder / "said.parquet"))


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """Leave out what other tests look at: the timing of steps, and the page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(init, "_seconds", lambda text, out: ((0.0, 0.0), (5.0, 30.0)))
        patch.setattr(write, "write_report", lambda *given, **more: True)
        yield


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Trip:
    folder = tmp_path_factory.mktemp("clean")
    saved(folder / "mine.csv", text(rows()))
    return trip(folder, "mine.csv")


# -- the warts ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wart:
    """A table with a wart.

    Args:
        file: Its name.
        content: Its bytes or text.
        says: Something that ``init`` says of it.
        settings: Settings of the data that a person has to give.
    """

    file: str
    content: str | bytes
    says: str = ""
    settings: tuple[str, ...] = ()


def dates(form: str) -> Callable[[str], str]:
    return lambda cell: np.datetime64(cell).item().strftime(form)


def beside(*columns: tuple[str, list[str]], at: int = 0) -> str:
    """The clean table with further columns, which stand in front of one of its own."""
    cells = [
        [*row[:at], *(own[k] for _, own in columns), *row[at:]] for k, row in enumerate(rows())
    ]
    return text(cells, head=[*HEAD[:at], *(name for name, _ in columns), *HEAD[at:]])


def nulls() -> Cells:
    words = ["NA", "n/a", "NULL", "?", "nan", "-", "#N/A", ""]
    return [
        [cell or words[(k + j) % len(words)] for j, cell in enumerate(row)]
        for k, row in enumerate(rows())
    ]


def units() -> Cells:
    cells = mapped(lambda cell: f"{cell} %", 2)
    return [[*row[:5], f"${grouped(row[5])}" if row[5] else ""] for row in cells]


def blanks() -> str:
    cells = [[cell or "NA" for cell in row] for row in rows()]
    return text(cells, " ").replace(" 2024", "    2024")


WARTS: dict[str, Wart] = {
    "decimal commas": Wart("a.csv", text(mapped(commas, 0, 1, 2, 5), ";"), "`decimal: ','`"),
    "thousands": Wart("a.csv", text(mapped(grouped, 1, 5)), "`thousands: ','`"),
    "utf-16": Wart("a.csv", text(rows()).encode("utf-16"), "`encoding: utf-16`"),
    "latin-1": Wart("a.csv", text(rows()).encode("latin-1"), "encoding"),
    "a mark of utf-8": Wart("a.csv", text(rows()).encode("utf-8-sig"), "encoding"),
    "tabs": Wart("a.tsv", text(rows(), "\t")),
    "blanks": Wart("a.dat", blanks(), "separator"),
    "words for holes": Wart("a.csv", text(nulls()), "missing: impute"),
    "dates": Wart("a.csv", text(mapped(dates("%d.%m.%Y"), 3)), "%d.%m.%Y"),
    "per cent and currency": Wart("a.csv", text(units())),
    "the index of pandas": Wart("a.csv", beside(("", [str(k) for k in range(ROWS)])), "index"),
    "constant and identical columns": Wart(
        "a.csv",
        beside(
            ("country", ["DE"] * ROWS), ("version", ["3"] * ROWS),
            ("again", [row[1] for row in rows()]),
            at=5,
        ),
        "drop: [",
    ),
    "identifiers": Wart(
        "a.csv",
        beside(
            ("order", [f"A-{7 * k % 97:04d}" for k in range(ROWS)]),
            ("id", [str(k + 100) for k in range(ROWS)]),
        ),
        "drop: [order, id]",
    ),
    "packed": Wart("a.csv.gz", gzip.compress(text(rows()).encode())),
}  # fmt: skip


def put(folder: Path, wart: Wart) -> Trip:
    saved(folder / wart.file, wart.content)
    return trip(folder, wart.file, *wart.settings)


@pytest.mark.parametrize("name", list(WARTS))
def test_a_wart_that_loses_nothing_changes_no_prediction(
    name: str, clean: Trip, tmp_path: Path
) -> None:
    found = put(tmp_path, WARTS[name])
    assert WARTS[name].says in found.said
    assert_frame_equal(found.predictions, clean.predictions, check_exact=True)


def test_rows_without_a_target_are_drawn_and_predicted(clean: Trip, tmp_path: Path) -> None:
    more = [[*row[:5], ""] for row in rows()[:30]]
    found = put(tmp_path, Wart("a.csv", text([*rows(), *more])))
    assert "38 of 120 rows have no target and are kept as unlabelled examples" in found.said
    assert "pool" in str(found.recipe["students"]["xcl"])
    # The student that draws them is another; the one that does not is the same.
    assert_frame_equal(found.predictions[:ROWS], clean.predictions, check_exact=True)
    assert found.predictions.height == ROWS + 30


@pytest.mark.parametrize(
    "powers",
    [{0: 1e-9, 1: 1e12, 5: 1e6}, {0: 1e22, 1: 1e-22, 5: 1e-18}, {5: 1e-26}, {1: 1e30, 5: 1e20}],
)
def test_huge_and_tiny_units_change_rounding_alone(
    powers: dict[int, float], clean: Trip, tmp_path: Path
) -> None:
    cells = [
        [repr(float(c) * powers[k]) if k in powers and c else c for k, c in enumerate(row)]
        for row in rows()
    ]
    found = put(tmp_path, Wart("a.csv", text(cells)))
    values = [name for name, kind in clean.predictions.schema.items() if kind.is_float()]
    assert_frame_equal(
        found.predictions.select(pl.col(values).cast(pl.Float64) / powers[5]),
        clean.predictions.select(pl.col(values).cast(pl.Float64)),
        rel_tol=1e-5,
        abs_tol=10.0,  # of deviations of a million
    )
    assert found.predictions["unlike_training"].null_count() == ROWS


def test_a_target_far_from_zero_is_learned_as_near_it(clean: Trip, tmp_path: Path) -> None:
    """Seconds since 1970: float32 cannot tell them apart, but they stay float64."""
    cells = mapped(lambda cell: f"{1.7e9 + float(cell) / 1e5:.6f}", 5)
    found = put(tmp_path, Wart("a.csv", text(cells)))
    values = [name for name, kind in clean.predictions.schema.items() if kind.is_float()]
    near = [
        (pl.when(pl.col(name) > 1e9).then(pl.col(name) - 1.7e9).otherwise(pl.col(name)) * 1e5)
        .cast(pl.Float64)
        .alias(name)
        for name in values
    ]
    assert_frame_equal(
        found.predictions.select(near),
        clean.predictions.select(pl.col(values).cast(pl.Float64)),
        rel_tol=1e-5,
        abs_tol=30.0,  # of deviations of a million
    )


def test_a_skewed_target_is_told_and_predicted(tmp_path: Path) -> None:
    g = np.random.default_rng(1)
    cells = [[*row[:5], f"{np.exp(1.2 * float(row[2]) / 20 + g.normal()):.4f}"] for row in rows()]
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    plain = put(tmp_path / "one", Wart("a.csv", text(cells)))
    assert "skewed" in plain.said
    german = [[c.replace(".", ",") if k != 3 else c for k, c in enumerate(row)] for row in cells]
    other = put(tmp_path / "two", Wart("a.csv", text(german, ";")))
    assert_frame_equal(other.predictions, plain.predictions, check_exact=True)


def test_all_that_stand_together_at_once(clean: Trip, tmp_path: Path) -> None:
    """A German export: an index, constants, identifiers, units, dates, holes, utf-16, tabs, gz."""
    cells = []
    for k, (width, weight, share, day, city, price) in enumerate(rows()):
        cells.append(
            [
                str(k), f"A-{7 * k % 97:04d}", "DE", commas(width) or "n/a",
                grouped(weight, ".", ","), grouped(weight, ".", ","), commas(share) + " %",
                dates("%d.%m.%Y")(day), city, f"{grouped(price, '.', ',')} €" if price else "-",
            ]
        )  # fmt: skip
    head = ["", "order", "country", "width", "weight", "again", *HEAD[2:]]
    whole = text(cells, "\t", head).replace("\n", "\r\n").replace("Paris\r\n", "Paris\n")
    found = put(tmp_path, Wart("a.tsv.gz", gzip.compress(whole.encode("utf-16"))))
    assert_frame_equal(found.predictions, clean.predictions, check_exact=True)


@pytest.mark.parametrize("name", ["decimal commas", "words for holes", "identifiers"])
def test_classes_are_predicted_alike(name: str, tmp_path: Path) -> None:
    """The cities, one of them with a line's end in its name, as classes."""
    found = []
    for place, wart in (("clean", Wart("mine.csv", text(rows()))), ("wart", WARTS[name])):
        (tmp_path / place).mkdir()
        saved(tmp_path / place / wart.file, wart.content)
        found.append(trip(tmp_path / place, wart.file, target="city").predictions)
    assert_frame_equal(found[1], found[0], check_exact=True)
