"""Cut the training of ``xcl.distill``, or its candidates, so that it ends within a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from extracurricular.errors import RecipeError
from extracurricular.run.budget import LEAST, TooShortError, choose, duration, minutes_of, steps_of
from extracurricular.run.contest import Candidate, Contest, Lessons
from extracurricular.run.estimate import for_timing, time_steps
from extracurricular.run.halving import Halving
from extracurricular.run.loss import fitted_loss
from extracurricular.samplers import Share
from extracurricular.training import train

# Kept for what is not timed: seconds, and a part of the time.
_ONCE, _SPARE = 1.0, 0.1


def lessons_within(
    lessons: Lessons,
    single: Candidate,
    choice: Contest | None,
    minutes: Any,
    known: Mapping[str, Any] | None = None,
    began: float | None = None,
) -> tuple[Lessons, Contest | None, dict[str, Any], str]:
    """Return trainings that end within a time, the choice as plain values, and a sentence on it.

    Args:
        lessons: All that the trainings share.
        single: The student, where there is no choice.
        choice: The choice among candidates; None without one.
        minutes: The time.
        known: What was chosen for the same training when it began; None for a new one.
        began: The reading of the clock (``time.perf_counter``) at which the time began; now where
            None.

    Raises:
        RecipeError: The time is no number above 0, or too short.
    """
    usable = isinstance(minutes, int | float) and not isinstance(minutes, bool)
    if not usable or not 0 < minutes < float("inf"):
        raise RecipeError("minutes", f"is {minutes!r}; it must be a number above 0")
    steps = lessons.settings.steps
    if known is None:
        started = time.perf_counter() if began is None else began
        among = {"": single} if choice is None else choice.among
        each = max(_seconds(lessons, one) for one in among.values())

        def span(part: float, without: tuple[str, ...]) -> float:
            whole = steps_of(steps, part)
            return each * (whole if choice is None else _left(choice, without, whole).halving.total)

        gone = () if choice is None else tuple(reversed(list(choice.among)[2:]))
        left = 60 * minutes * (1 - _SPARE) - _ONCE - (time.perf_counter() - started)
        try:
            chosen = choose(span, gone, left)
        except TooShortError as error:
            least = (error.needed + _ONCE + time.perf_counter() - started) / (60 * (1 - _SPARE))
            raise RecipeError(
                "minutes",
                f"is {minutes:g}, but with {100 * LEAST:g} % of its steps the training takes "
                f"{max(least, 0.01):.2g} minutes; give more, or fewer steps",
            ) from None
        known = {"minutes": minutes, "part": chosen.part, "without": list(chosen.without)}
        rest = f"about {duration(chosen.seconds)}"
    else:
        rest = "as was chosen when it began"
    part, without = known["part"], tuple(known["without"])
    whole = steps_of(steps, part)
    warmup = int(lessons.settings.warmup * part)
    settings = lessons.settings.model_copy(update={"steps": whole, "warmup": warmup})
    shorter = replace(lessons, settings=settings)
    fewer = None if choice is None else _left(choice, without, whole)
    names = f", without {', '.join(without)}" if without else ""
    said = f"Within {minutes_of(minutes)}: {whole:,} of {steps:,} steps{names}, {rest}."
    return shorter, fewer, dict(known), said


def _left(choice: Contest, without: tuple[str, ...], steps: int) -> Contest:
    """Return a choice with other steps and without some candidates."""
    among = {name: one for name, one in choice.among.items() if name not in without}
    sections = {name: choice.section.among[name] for name in among}
    section = choice.section.model_copy(update={"among": sections})
    return Contest(section, among, Halving(tuple(among), steps, choice.halving.after))


def _seconds(lessons: Lessons, candidate: Candidate) -> float:
    """Return the seconds of a step, rather too many than too few."""
    module, source = lessons.prepared(candidate)
    if isinstance(source, Share):
        # Whatever the share will be, half of the draws are extended.
        source = replace(source, of=0.5)

    def steps(count: int, on_progress: Callable[[int, float], None]) -> None:
        train(
            module,
            source,
            lessons.teacher,
            lessons.data.task,
            matching=fitted_loss(candidate.loss, "matching", lessons.data),
            settings=for_timing(lessons.settings, count),
            seed=lessons.seed,
            fabric=lessons.fabric,
            on_progress=on_progress,
        )

    return time_steps(steps)[1]
