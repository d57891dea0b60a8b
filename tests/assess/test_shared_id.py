"""A table and a file of answers that name the same rows by a column of both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from extracurricular.assess.first_teacher import shared_id
from extracurricular.data.sets.table import table
from extracurricular.knowledge.answers_file import guessed
from extracurricular.teachers.named import ENTRIES


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A table of customers, and answers on them in another order."""
    rng = np.random.default_rng(0)
    names = [f"c{k:03d}" for k in range(60)]
    x = rng.normal(size=60).round(3)
    own = pl.DataFrame({"customer": names, "x": x, "y": ["yes" if v > 0 else "no" for v in x]})
    own.write_csv(tmp_path / "own.csv")
    p = (1 / (1 + np.exp(-x))).round(4)
    answers = pl.DataFrame({"customer": names, "p_no": 1 - p, "p_yes": p})
    answers.sample(fraction=1, shuffle=True, seed=1).write_csv(tmp_path / "answers.csv")
    return tmp_path / "own.csv", tmp_path / "answers.csv"


def test_the_column_of_both_is_found(files: tuple[Path, Path]) -> None:
    own, answers = files
    assert shared_id(own, answers) == "customer"
    pl.read_csv(answers).rename({"customer": "client"}).write_csv(answers)
    assert shared_id(own, answers) is None
    pl.read_csv(answers).rename({"client": "customer"}).with_columns(
        customer=pl.lit("c000")
    ).write_csv(answers)
    assert shared_id(own, answers) is None


def test_answers_that_are_found_by_their_order_are_told_to_be(files: tuple[Path, Path]) -> None:
    own, answers = files
    data = table(str(own), target="y", drop=["customer"])
    found = ENTRIES.build({"answers": guessed(answers, data)}, key="teacher").fit(data, 0)
    [note] = [one for one in found.notes if "order of their rows" in one]  # type: ignore[attr-defined]
    assert "'customer' seems to name these: `id: customer`" in note
    data = table(str(own), target="y", id="customer")
    found = ENTRIES.build({"answers": guessed(answers, data)}, key="teacher").fit(data, 0)
    assert not any("order of their rows" in one for one in found.notes)  # type: ignore[attr-defined]
