"""Findings about columns and classes: each fires, names its setting, and the setting mends it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from extracurricular.assess.survey import survey
from extracurricular.assess.survey_columns import far_values, look_alikes, plain
from extracurricular.data.sets.table import table

ROWS = 120


def columns() -> dict[str, list[str]]:
    g = np.random.default_rng(0)
    a, b = g.normal(50, 10, ROWS), g.normal(size=ROWS)
    kinds = ["ant", "bee", "cow"]
    return {
        "a": [f"{v:.3f}" for v in a],
        "b": [f"{v:.3f}" for v in b],
        "kind": [kinds[k] for k in g.integers(0, 3, ROWS)],
        "y": [f"{2 * v + w:.3f}" for v, w in zip(a, b, strict=True)],
    }


def written(folder: Path, change: Callable[[dict[str, list[str]]], Any]) -> str:
    cells = columns()
    change(cells)
    # The target stays last.
    names = [*(name for name in cells if name != "y"), "y"]
    lines = [
        ",".join(names),
        *(",".join(row) for row in zip(*(cells[n] for n in names), strict=True)),
    ]
    path = folder / "t.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def settings(sentence: str) -> dict[str, Any]:
    """The settings that a sentence names, as a recipe would have them."""
    found: dict[str, Any] = {}
    for piece in re.findall(r"`([a-z_]+: [^`]+)`", sentence):
        found |= yaml.safe_load(piece)
    return found


def put(
    name: str, values: Callable[[int], str], last: bool = False
) -> Callable[[dict[str, list[str]]], None]:
    def change(cells: dict[str, list[str]]) -> None:
        cells[name] = [values(k) for k in range(ROWS)]

    return change


def some(name: str, value: str, rows: list[int]) -> Callable[[dict[str, list[str]]], None]:
    def change(cells: dict[str, list[str]]) -> None:
        for row in rows:
            cells[name][row] = value

    return change


def copied(cells: dict[str, list[str]]) -> None:
    cells["again"] = cells["a"]


def leaked(cells: dict[str, list[str]]) -> None:
    cells["result"] = cells["y"]


def repeated(cells: dict[str, list[str]]) -> None:
    for values in cells.values():
        values[ROWS // 2 :] = values[: ROWS // 2]


def alike(cells: dict[str, list[str]]) -> None:
    cells["kind"] = [k.replace("cow", "Ant") for k in cells["kind"]]


CASES: dict[str, tuple[Callable[[dict[str, list[str]]], Any], str]] = {
    "counts the rows": (put("rowid", lambda k: str(1000 + k)), "rowid counts the rows"),
    "identifier": (put("user_id", lambda k: str(7919 * k)), "user_id is another number in each"),
    "names of rows": (put("photo", lambda k: f"{k}.jpg"), "photo has 84 different texts in 84"),
    "code": (put("zip", lambda k: str(10115 + k % 7)), "zip has numbers, but is called like"),
    "compact dates": (put("day", lambda k: f"202401{1 + k % 28:02d}"), "day has numbers that look"),
    "no value": (some("a", "-999", [3, 5, 70]), "a is -999 in 3 rows, far from all others"),
    "far": (some("b", "5000.25", [4]), "b is once 5000.25, "),
    "constant": (put("same", lambda k: "3"), r"same \(3\) is constant in training"),
    "constant text": (put("where", lambda k: "here"), "where=here"),
    "copy": (copied, "again equals a in all training rows"),
    "leak": (leaked, "result equals the target y in all training rows"),
    "repeats": (repeated, "examples in test are in train too"),
    "look-alikes": (alike, "'ant' and 'Ant' of kind look alike"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_finding_names_its_setting_and_the_setting_mends_it(tmp_path: Path, case: str) -> None:
    change, says = CASES[case]
    path = written(tmp_path, change)
    found = survey(table(path)).suspicious
    [sentence] = [one for one in found if re.search(says, one)]
    mend = settings(sentence)
    assert mend, sentence
    left = survey(table(path, **mend)).suspicious
    assert not any(re.search(says, one) for one in left), left


def test_a_clean_table_has_nothing_suspicious(tmp_path: Path) -> None:
    assert survey(table(written(tmp_path, lambda cells: None))).suspicious == []


def test_classes_that_look_alike_or_are_rare(tmp_path: Path) -> None:
    def change(cells: dict[str, list[str]]) -> None:
        cells["y"] = ["yes" if k % 2 else "no" for k in range(ROWS)]
        cells["y"][::8] = ["No"] * len(cells["y"][::8])
        cells["y"][3] = "never"

    path = written(tmp_path, change)
    found = survey(table(path)).suspicious
    [alike] = [one for one in found if "look alike" in one]
    assert alike.startswith("The classes 'no' and 'No' look alike;")
    data = table(path, **settings(alike))
    assert data.classes == ("No", "never", "yes")
    rare = next(one for one in found if "no test examples" in one)
    assert "never" in rare
    mended = table(path, **settings(alike), **settings(rare))
    assert "never" not in mended.classes
    assert not any("examples:" in one for one in survey(mended).suspicious)


def test_a_skewed_target_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, put("y", lambda k: f"{np.exp(k / 12):.3f}"))
    assert any(one.startswith("The target y is skewed") for one in survey(table(path)).suspicious)


def test_names_that_look_alike() -> None:
    assert look_alikes(["cat", "dog", "Cat"]) == [("Cat", "cat")]
    assert look_alikes(["cat", "c\u0430t"]) == [("c\u0430t", "cat")]
    assert look_alikes(["Köln", "Ko\u0308ln", "Koln"]) == [("Ko\u0308ln", "Köln")]
    assert look_alikes(["a b", "a_b", "a\u200bb"]) == [("a_b", "a b")]
    assert look_alikes(["1", "2", "10"]) == []


def test_far_values_of_few_rows_and_of_long_tails() -> None:
    g = np.random.default_rng(1)
    values = g.normal(size=50)
    assert far_values(values, values) is None
    values[7] = 40.0
    found = far_values(values, values)
    assert found is not None
    assert found[:2] == (40.0, 1)
    tail = np.exp(2 * g.normal(size=2000))
    assert far_values(tail, tail) is None
    assert far_values(np.array([1e6]), np.exp(g.normal(size=50) / 5)) is not None
    assert far_values(np.zeros(50), np.zeros(50)) is None


def test_numbers_as_they_were_written() -> None:
    for text in ("-999", "0.1", "5000.25", "1e+20", "123456.79"):
        assert float(np.float32(plain(float(text)))) == float(np.float32(text))
    assert plain(-999.0) == "-999"
