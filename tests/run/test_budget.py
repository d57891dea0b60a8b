"""A time budget as a pure function of measured times: no clock is read here."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extracurricular.run.budget import (
    ENOUGH,
    LEAST,
    Choice,
    TooShortError,
    choose,
    duration,
    largest_part,
    makespan,
    steps_of,
)


def linear(seconds: float, each: float = 0.0, fixed: float = 0.0) -> object:
    """Trainings of ``seconds``, and of ``each`` for each of the candidates a, b and c."""

    def span(part: float, without: tuple[str, ...]) -> float:
        return part * (seconds + each * (3 - len(without))) + fixed

    return span


def test_all_steps_are_kept_where_there_is_time() -> None:
    assert choose(linear(100), [], 100) == Choice(1.0, (), 100)


def test_a_part_of_the_steps_is_kept_where_there_is_less() -> None:
    assert choose(linear(100, fixed=10), [], 50).part == 0.4


@given(st.floats(1, 1e6), st.floats(0, 10), st.floats(0.1, 1e6))
def test_what_is_chosen_fits_and_a_little_more_does_not(
    whole: float, fixed: float, seconds: float
) -> None:
    def span(part: float) -> float:
        return whole * part + fixed

    part = largest_part(span, seconds)
    if part is None:
        assert span(LEAST) > seconds
        return
    assert LEAST <= part <= 1
    assert span(part) <= seconds
    assert part == 1 or span(part + 1e-4) > seconds
    assert part == round(part, 4)


def test_candidates_are_left_out_while_too_little_is_left_for_each() -> None:
    # 400 seconds in all, 300 without a, 200 without a and b.
    span = linear(100, each=100)
    names = ["a", "b", "c"]
    assert choose(span, names, 100) == Choice(0.25, (), 100)
    assert choose(span, names, 80).without == ("a",)
    assert choose(span, names, 30) == Choice(0.3, ("a", "b", "c"), 30)
    # Where nothing keeps enough, all go, and the steps are few.
    last = choose(span, names, 10)
    assert last.without == ("a", "b", "c")
    assert LEAST <= last.part < ENOUGH


def test_too_short_a_time_says_what_it_takes() -> None:
    with pytest.raises(TooShortError) as error:
        choose(linear(100, each=100, fixed=7), ["a", "b", "c"], 3)
    assert error.value.needed == pytest.approx(LEAST * 100 + 7)


def test_steps_are_whole_and_at_least_one() -> None:
    assert steps_of(2000, 0.4) == 800
    assert steps_of(2000, 1.0) == 2000
    assert steps_of(3, 0.05) == 1
    # 0.29 · 100 is 28.999…
    assert steps_of(100, 0.29) == 29


def test_stages_wait_for_what_they_need_and_for_a_free_job() -> None:
    stages = [("t", []), ("a", ["t"]), ("b", ["t"]), ("c", ["t"]), ("e", ["a"])]
    seconds = {"t": 4.0, "a": 1.0, "b": 2.0, "c": 3.0, "e": 1.0}
    assert makespan(stages, seconds, 1) == 11
    # t to 4; a to 5, b to 6; c from 5 to 8; e from 6 to 7.
    assert makespan(stages, seconds, 2) == 8
    assert makespan(stages, seconds, 9) == 7
    assert makespan([], {}, 2) == 0


def test_times_are_written_as_a_person_would() -> None:
    told = {0.2: "1 second", 40: "40 seconds", 150: "2.5 minutes", 7200: "2 hours"}
    assert {seconds: duration(seconds) for seconds in told} == told
