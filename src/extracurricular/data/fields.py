"""Describe the columns of a table, so that one raw row becomes the very input that training saw.

A :class:`Fields` is fitted on the training rows and is all that
:func:`extracurricular.data.encode.encode` needs. It is kept as JSON, in which Python writes a
float64 so that it is read back to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeAlias

from extracurricular.errors import DataError, shorten

Kind: TypeAlias = Literal["number", "date", "category"]
KINDS = ("number", "date", "category")

SEASONS = ("sine of the year", "cosine of the year", "sine of the week", "cosine of the week")
CLOCK = ("sine of the day", "cosine of the day")


@dataclass(frozen=True)
class Field:
    """One column of a table, and the inputs that are made of it.

    Args:
        name: Name of the column.
        kind: ``number`` and ``date`` become ``(value - origin) * factor``, where a date is days
            since 1970-01-01; ``category`` becomes one column of 0 and 1 for each of its values.
        units: The currency or ``%`` that stands beside its numbers, if any.
        decimal, thousands: How its numbers are written in texts.
        date_format: How its dates are written in texts; empty for dates that are no texts.
        categories: Values of a category, in the order of their columns.
        fill: The value that stands in for a missing one, before ``origin``; None to refuse those.
        indicator: Whether a further column says where values were missing.
        origin: The number that is subtracted, so that float32 holds the rest.
        factor: The number to multiply with, for units that float32 cannot hold.
        parts: Whether further columns have the season and the weekday of a date.
        clock: Whether further columns have its time of the day.
        low, high: The least and the greatest value of the training rows.
    """

    name: str
    kind: Kind
    units: str = ""
    decimal: str = "."
    thousands: str = ""
    date_format: str = ""
    categories: tuple[str, ...] = ()
    fill: float | str | None = None
    indicator: bool = False
    origin: float = 0.0
    factor: float = 1.0
    parts: bool = False
    clock: bool = False
    low: float = 0.0
    high: float = 0.0

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the inputs that are made of the column, in order."""
        if self.kind == "category":
            made = [f"{self.name}={value}" for value in self.categories]
        elif self.kind == "date":
            made = [f"{self.name} in days"]
            made += [f"{self.name}, {part}" for part in SEASONS if self.parts]
            made += [f"{self.name}, {part}" for part in CLOCK if self.parts and self.clock]
        else:
            shift = f" {'-' if self.origin > 0 else '+'} {abs(self.origin):.15g}"
            label = self.name + (shift if self.origin else "")
            scaled = f"({label})" if self.origin else label
            made = [label if self.factor == 1 else f"{scaled} × {self.factor:g}"]
        return (*made, f"{self.name} is missing") if self.indicator else tuple(made)


@dataclass(frozen=True)
class Fields:
    """The columns of a table: those that become inputs, in order, and the targets.

    Args:
        inputs: The columns whose labels, one after the other, are the columns of the input.
        targets: The target of each output; for classes one category, in the order of the classes.
        missing: Words that mean a missing value, in lower case.
        missing_numbers: Numbers that mean a missing value.
        rename: Texts that are read as others.
    """

    inputs: tuple[Field, ...]
    targets: tuple[Field, ...] = ()
    missing: tuple[str, ...] = ("",)
    missing_numbers: tuple[float, ...] = ()
    rename: tuple[tuple[str, str], ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of the input, in order."""
        return tuple(label for field in self.inputs for label in field.labels)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns that a raw row needs, in order."""
        return tuple(field.name for field in self.inputs)

    @property
    def texts(self) -> tuple[str, ...]:
        """Names of the columns that a reader keeps as texts, so that 007 stays 007."""
        return tuple(
            field.name
            for field in (*self.inputs, *self.targets)
            if field.kind != "number"
            or (field.decimal, field.thousands, field.units) != (".", "", "")
        )

    def dump(self) -> dict[str, Any]:
        """Return the description as JSON has it."""
        return asdict(self)

    @staticmethod
    def load(given: Mapping[str, Any]) -> Fields:
        """Read a description from what :meth:`dump` returned, through JSON or not.

        Raises:
            DataError: It is none.
        """
        try:
            return Fields(
                inputs=tuple(map(_field, given["inputs"])),
                targets=tuple(map(_field, given.get("targets", ()))),
                missing=tuple(map(str, given.get("missing", ("",)))),
                missing_numbers=tuple(map(float, given.get("missing_numbers", ()))),
                rename=tuple((str(a), str(b)) for a, b in given.get("rename", ())),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"the description of the columns is damaged: {error!r}") from error


def _field(given: Mapping[str, Any]) -> Field:
    """Read one column's description; every value must have the type that it was written with."""
    known = {one.name: one.default for one in fields(Field)}
    odd = sorted(set(given) - set(known))
    if odd:
        raise ValueError(f"unknown key {odd[0]!r}")
    if given["kind"] not in KINDS:
        raise ValueError(f"kind is {shorten(given['kind'])}")
    values: dict[str, Any] = {}
    for key, value in given.items():
        usual = known[key]
        if key == "categories":
            values[key] = tuple(map(str, value))
        elif key == "fill":
            values[key] = value if value is None or isinstance(value, str) else float(value)
        elif isinstance(usual, bool):
            values[key] = bool(value)
        elif isinstance(usual, float):
            values[key] = float(value)
        else:
            values[key] = str(value)
    return Field(**values)
