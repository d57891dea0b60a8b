"""The words for one figure: what it is called, how it is written, which way is better."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Group = Literal[
    "classes",
    "real targets",
    "labels",
    "classes, labels",
    "classes, real targets, labels",
    "teacher",
    "other data",
    "each class",
    "each class, other data",
]

_DIGITS = 4
# Numbers beyond these are written with a power of ten.
_LEAST, _MOST = 1e-4, 1e6


@dataclass(frozen=True)
class Words:
    """The words for one figure.

    Args:
        name: Its key in ``summary.json`` and in the JSON of ``xcl evaluate``.
        title: Its name for people.
        about: The definition, without a full stop.
        group: What it is measured on.
        better: Which values are better: ``higher``, ``lower``, or ``neither``.
        form: How it is written: ``percent`` for a share, in percent with two decimals; ``digits``
            for four significant digits, below 0.0001 and from a million on with a power of ten; or
            a format such as ``.3f``.
        unit: ``nats``, ``°``, ``target`` for the units of the target, or empty.
        range: Values that it can have, for the docs.
        remark: How to read it, without a full stop; empty where that is plain.
        hint: What stands beside it in a list, instead of its unit or after the sign of percent.
        short: Title in the heading of a narrow table; the title where empty.
        small: Which narrow tables show it: none, those of runs, those of runs whose classes are
            imbalanced, or all, those of exports too. summary.json has more figures than a terminal
            is wide.
        needs: The reason that is told where it is absent, without a full stop: "needs …"; empty for
            a figure that every prediction has.
        hides: Name of a figure that says the same in other units, and that a narrow table leaves
            out for this one.
    """

    name: str
    title: str
    about: str
    group: Group
    better: Literal["higher", "lower", "neither"]
    form: str = "digits"
    unit: str = ""
    range: str = ""
    remark: str = ""
    hint: str = ""
    short: str = ""
    small: Literal["none", "runs", "imbalanced", "all"] = "none"
    hides: str = ""
    needs: str = ""

    @property
    def scale(self) -> int:
        """Factor between a value and the number that people read."""
        return 100 if self.form == "percent" else 1

    @property
    def sign(self) -> str:
        """The unit where it is a sign, which belongs in every heading; else empty."""
        return "%" if self.form == "percent" else self.unit if self.unit == "°" else ""

    @property
    def heading(self) -> str:
        """Heading of a column: ``accuracy %``."""
        return _with(self.short or self.title, " ", self.sign)

    @property
    def label(self) -> str:
        """Label of an axis or a row: ``accuracy, %``."""
        return _with(self.title, ", ", self.sign)

    @property
    def change(self) -> str:
        """Heading of a column of differences: ``accuracy points``."""
        return self.heading.replace("%", "points") if self.form == "percent" else self.heading

    @property
    def beside(self) -> str:
        """What stands beside the value in a list: its unit, or a hint."""
        if self.form == "percent":
            return f"% {self.hint}".rstrip()
        return self.hint or ("in units of the target" if self.unit == "target" else self.unit)

    @property
    def explained(self) -> str:
        """What it is and how to read it, in a sentence or two."""
        units = {"nats": ", in nats", "target": ", in units of the target"}
        side = "" if self.better == "neither" else f"; {self.better} is better"
        remark = f" {self.remark[0].upper()}{self.remark[1:]}." if self.remark else ""
        return f"{self.about}{units.get(self.unit, '')}{side}.{remark}"

    def number(self, value: float, like: float | None = None) -> str:
        """Write a finite value, to the last digit of another one, or of its own where None."""
        return self._text(value, value if like is None else like, _DIGITS)

    def signed(self, value: float, like: float | None = None) -> str:
        """Write a difference: with its sign, a true minus; percentages as points."""
        text = self._text(value, value if like is None else like, _DIGITS - 1, "+")
        text = text[:1].replace("-", "−") + text[1:]
        # There is no sign before a 0.
        return text if any(c in "123456789" for c in text) else text[1:]

    def _text(self, value: float, like: float, digits: int, sign: str = "") -> str:
        value, size = self.scale * value, self.scale * abs(like)
        if self.form == "digits" and not _LEAST <= (size or 1) < _MOST:
            # To the place of the last digit of the other: 7.148e+07 ± 9.54e+06.
            last = math.floor(math.log10(size)) - digits + 1
            own = math.floor(math.log10(abs(value))) if value else last
            return format(value, f"{sign}.{max(1, own - last + 1)}g")
        return format(value, f"{sign}{self._format(size, digits)}")

    def _format(self, size: float, digits: int) -> str:
        if self.form == "percent":
            return ".2f"
        if self.form != "digits":
            return self.form
        # Digits before the point are never left out.
        before = math.floor(math.log10(size)) + 1 if size else 1
        return f".{max(0, digits - before)}f"


def _with(title: str, between: str, sign: str) -> str:
    return title if not sign or title.endswith(sign) else f"{title}{between}{sign}"
