"""The best student within limits is chosen by validation, and the front has what none beats."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from extracurricular.evaluation.front import Point, best, efficient, over, plain, read, verdict
from extracurricular.evaluation.words import WORDS

SMALL = Point("small", "float32", 300, ms=0.5, bytes=2_000, multiply_adds=290,
              validation=0.30, error=0.10, loss=1.0)  # fmt: skip
MIDDLE = Point("middle", "float32", 1_200, 1.0, 6_000, 1_180, 0.20, 0.40, 0.6)
QUICK = replace(MIDDLE, precision="int8", ms=0.8, bytes=3_000, validation=0.22)
LARGE = Point("large", "float32", 9_000, 4.0, 40_000, None, 0.05, 0.02, 0.2)
ALL = [SMALL, MIDDLE, QUICK, LARGE]


@pytest.mark.parametrize(
    ("limit", "wanted"),
    [
        ({}, LARGE),
        ({"ms": 1.0}, MIDDLE),
        ({"ms": 1.0, "bytes": 3_000}, QUICK),
        ({"bytes": 2_999}, SMALL),
        # What is not known cannot be within a limit.
        ({"multiply_adds": 10**9}, MIDDLE),
        ({"ms": 0.1}, None),
    ],
)
def test_the_best_within_the_limits_is_that_of_validation(
    limit: dict[str, float], wanted: Point | None
) -> None:
    assert best(ALL, limit) == wanted


def test_test_errors_choose_nothing() -> None:
    worse = [replace(one, error=1 - one.error) for one in ALL]
    for limit in ({}, {"ms": 1.0}, {"bytes": 3_000}):
        assert best(worse, limit).name == best(ALL, limit).name  # type: ignore[union-attr]


def test_equal_errors_are_told_apart_by_nll_and_then_by_bytes() -> None:
    sure = replace(MIDDLE, student="sure", loss=0.5)
    assert best([MIDDLE, sure], {}) == sure
    light = replace(MIDDLE, student="light", bytes=10)
    assert best([MIDDLE, light], {}) == light
    assert best([replace(MIDDLE, validation=math.nan)], {}) is None


def test_costs_over_their_limit_are_named() -> None:
    assert over(LARGE, {"ms": 4.0, "bytes": 39_999, "multiply_adds": 1}) == [
        "bytes",
        "multiply_adds",
    ]


def test_the_front_has_what_none_beats_in_error_and_cost() -> None:
    assert efficient([MIDDLE, LARGE, SMALL, QUICK], "bytes") == [SMALL, LARGE]
    assert efficient(ALL, "multiply_adds") == [SMALL]
    assert efficient([], "ms") == []


def test_the_sentence_names_it_with_its_costs() -> None:
    words = WORDS["error_rate"]
    assert verdict(ALL, {"ms": 1, "bytes": 3_000}, words) == (
        "Within 1 ms and 3,000 bytes, middle (int8) is best on validation examples: error rate "
        "22.00 %, 0.8 ms, 3,000 bytes, 1,180 multiply-adds."
    )
    assert verdict(ALL, {}, words).startswith("Without a limit, large is best")
    # The nearest is the one that is beyond by the smallest factor.
    assert verdict(ALL, {"ms": 0.4}, words) == (
        "No student is within 0.4 ms; the nearest is small, with 0.5 ms, 2,000 bytes, "
        "290 multiply-adds."
    )
    assert verdict([], {"ms": 1}, words) == "No student could be exported, so none is named."


def test_points_are_kept_as_json() -> None:
    odd = replace(SMALL, validation=math.nan)
    [kept] = plain([odd])
    assert kept["validation"] is None
    again = read(json.loads(json.dumps(kept, allow_nan=False)))
    assert math.isnan(again.validation)
    assert replace(again, validation=0.3) == SMALL
