"""What the verdict says of a student: against the reference, against the plain one, and by itself.

Each figure that a sentence compares stands in it. Figures that read the same are told as equal, and
a student that is worse is told to be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from extracurricular.evaluation.entries import (
    error_name,
    gap_text,
    interval,
    mean_error,
    mean_of,
    seed_errors,
    shown_measure,
)
from extracurricular.evaluation.words import BALANCED, WORDS, Words, figure_text


@dataclass(frozen=True)
class Sentence:
    """A sentence of the verdict.

    Args:
        parts: Its words in order, and whether they matter most.
        note: Whether it says what makes the figures less than they seem.
    """

    parts: tuple[tuple[str, bool], ...]
    note: bool = False

    @property
    def text(self) -> str:
        """The plain sentence."""
        return "".join(text for text, _ in self.parts)


def with_unit(words: Words, value: float | None) -> str:
    """Write a figure with its unit, as a sentence has it."""
    text = figure_text(words, value)
    unit = words.sign or (words.unit if words.unit == "nats" else "")
    between = "" if unit == "°" else " "
    return f"{text}{between}{unit}" if unit and value is not None else text


def against_reference(
    name: str, entry: Mapping[str, Any], reference: str, other: Mapping[str, Any], measure: str
) -> Sentence | None:
    """Return a sentence on a student and the reference; None where a figure is not finite.

    Args:
        name: The student.
        entry: Its entry of the summary.
        reference, other: The reference and its entry.
        measure: Name of the error that gaps are measured in.
    """
    words = shown_measure(measure)
    own, theirs = mean_of(entry, words.name), mean_of(other, words.name)
    errors = mean_error(entry, measure), mean_error(other, measure)
    if own is None or theirs is None or errors[0] is None or errors[1] is None:
        return None
    if with_unit(words, own) == with_unit(words, theirs):
        parts = _equal(name, reference, words, own)
        side = ""
    elif errors[0] < errors[1] and entry["gap_closed"] is not None:
        parts, side = _closes(name, entry, reference, words, own, theirs), "better"
    else:
        side = "better" if errors[0] < errors[1] else "worse"
        parts = (
            (name, True),
            (f" is {side} than {reference}: its {words.title} is ", False),
            (with_unit(words, own), True),
            (f" against {with_unit(words, theirs)}{_seeds(entry, other, measure, side)}.", False),
        )
    return Sentence((*parts, *_nll(entry, other, measure, side)))


def _equal(name: str, other: str, words: Words, value: float) -> tuple[tuple[str, bool], ...]:
    return (
        (name, True),
        (" is ", False),
        ("as good as", True),
        (f" {other}: the {words.title} of both is {with_unit(words, value)}.", False),
    )


def _closes(
    name: str, entry: Mapping[str, Any], reference: str, words: Words, own: float, theirs: float
) -> tuple[tuple[str, bool], ...]:
    gap = entry["gap_closed"]
    part = gap_text(entry) if round(100 * gap["value"]) else "less than 1 %"
    # A figure without its interval invites too much trust.
    known = f"95 % interval over seeds: {interval(gap)}"
    if gap["ci95"] == [None, None] and len(next(iter(entry["metrics"].values()))["per_seed"]) == 1:
        known = "one seed, so no interval"
    return (
        (name, True),
        (" closes ", False),
        (part, True),
        (f" of the gap that {reference} leaves to the teacher ({known}): ", False),
        (
            f"its {words.title} is {with_unit(words, own)} against {with_unit(words, theirs)}.",
            False,
        ),
    )


def _seeds(entry: Mapping[str, Any], other: Mapping[str, Any], measure: str, side: str) -> str:
    """Return in how many seeds a student is better or worse; nothing for one seed."""
    pairs = list(zip(seed_errors(entry, measure), seed_errors(other, measure), strict=False))
    if len(pairs) < 2:
        return ""
    count = sum(a < b if side == "better" else a > b for a, b in pairs)
    return f" ({side} in {count} of {len(pairs)} seeds)"


def _nll(
    entry: Mapping[str, Any], other: Mapping[str, Any], measure: str, side: str
) -> tuple[tuple[str, bool], ...]:
    """Return a sentence on the NLL of real targets, which may disagree with the error of the mean.

    Args:
        entry, other: The student and the one that it is compared with.
        measure: Name of the error.
        side: ``better``, ``worse``, or empty where the errors are equal.
    """
    if measure in ("error_rate", "hamming", BALANCED):
        return ()
    words = WORDS["nll"]
    own, theirs = mean_of(entry, "nll"), mean_of(other, "nll")
    if own is None or theirs is None:
        return ()
    texts = with_unit(words, own), with_unit(words, theirs)
    if texts[0] == texts[1]:
        return ((f" The NLL of both is {texts[0]}.", False),)
    found = "better" if own < theirs else "worse"
    link = "too" if found == side else "though" if side else "however"
    return (
        (" Its NLL is ", False),
        (found, found != side),
        (f", {link}: {texts[0]} against {texts[1]}.", False),
    )


def against_plain(
    name: str, entry: Mapping[str, Any], plain: str, other: Mapping[str, Any], measure: str
) -> Sentence | None:
    """Return a sentence on a student and the plain one; None where a figure is not finite.

    Args:
        name: The student.
        entry: Its entry of the summary.
        plain, other: The plain student and its entry.
        measure: Name of the error that gaps are measured in.
    """
    error, theirs = mean_error(entry, measure), mean_error(other, measure)
    words = shown_measure(measure)
    own_figure, their_figure = mean_of(entry, words.name), mean_of(other, words.name)
    if error is None or theirs is None or own_figure is None or their_figure is None:
        return None
    if with_unit(words, own_figure) == with_unit(words, their_figure):
        return Sentence(_equal(name, plain, words, own_figure))
    texts = f"{with_unit(words, own_figure)} against {with_unit(words, their_figure)}"
    if measure == BALANCED:
        side = "above" if own_figure > their_figure else "below"
        amount = f"{_apart(words, own_figure, their_figure)} points"
    elif theirs == 0:
        side, amount = "above", ""
    else:
        side = "below" if error < theirs else "above"
        part = 100 * abs(1 - error / theirs)
        amount = f"{part:.0f} %" if round(part) else "less than 1 %"
    title = words.title if measure == BALANCED else error_name(entry, measure)
    return Sentence(
        (
            (f"The {title} of ", False),
            (name, True),
            (" is ", False),
            (f"{amount} {side}".strip(), True),
            (f" that of {plain}: {texts}.", False),
        )
    )


def _apart(words: Words, a: float, b: float) -> str:
    """Return the difference of two figures as they are written, so that it is that of the texts."""
    texts = words.number(a), words.number(b)
    decimals = max(len(text.partition(".")[2]) for text in texts)
    return f"{abs(float(texts[0]) - float(texts[1])):.{decimals}f}"


def from_labels(name: str, entry: Mapping[str, Any], measure: str) -> Sentence | None:
    """Return a sentence on a student that learns from labels; None where a figure is not finite."""
    words = shown_measure(measure)
    own = mean_of(entry, words.name)
    if own is None:
        return None
    text = f" learns from labels, without the teacher: its {words.title} is "
    return Sentence(((name, True), (text, False), (with_unit(words, own), False), (".", False)))


def of_balance(summary: Mapping[str, Any]) -> str | None:
    """Return a note on imbalanced classes, and on the measure; None where they are balanced."""
    balance = summary.get("balance") or {}
    if not balance.get("imbalanced"):
        return None
    counts = {name: count for name, count in balance["train"].items() if count}
    most, least = max(counts, key=lambda k: counts[k]), min(counts, key=lambda k: counts[k])
    return (
        f"classes are imbalanced: {counts[most]:,} training examples are of class {most} and "
        f"{counts[least]:,} of class {least}. So the gap and the verdict are in balanced "
        "accuracy, the mean of the recalls of all classes: each counts the same, however rare."
    )
