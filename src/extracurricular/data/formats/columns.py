"""Find out what the columns of a table hold: numbers, dates or texts, and how they are written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import polars as pl

from extracurricular.data.formats.delimited import Raw, TextForm
from extracurricular.data.texts import (
    DATE_FORMATS,
    MISSING_NUMBERS,
    USUAL_MISSING,
    NumberForm,
    bare_numbers,
    date_forms,
    days,
    number_forms,
    numbers,
    since_1970,
    stripped,
    without,
    words,
)
from extracurricular.errors import DataError, shorten

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Reading:
    """How a table is read.

    Args:
        text: How a text file is written.
        decimal, thousands: Signs of numbers in texts; None if they are found out, and an empty
            ``thousands`` for none.
        missing_values: What stands for a missing value: words, numbers, and ``usual`` for
            :data:`~extracurricular.data.texts.USUAL_MISSING` and, among numbers,
            :data:`~extracurricular.data.texts.MISSING_NUMBERS`.
        date_format: The form of all dates, or of those of some columns, by name.
        categorical: Columns, by name or position, whose values are names even if they look like
            numbers or dates.
        drop: Columns to leave out, whatever they hold.
        rename: Texts to put in place of others.
        index: Whether to ``drop`` or ``keep`` a column without name that counts the rows.
        sheet: Name or position of the sheet of a spreadsheet.
    """

    text: TextForm = field(default_factory=TextForm)
    decimal: Literal[".", ","] | None = None
    thousands: Literal["", ",", ".", " ", "'"] | None = None
    missing_values: Sequence[str | float] = ("usual",)
    date_format: str | Mapping[str, str] | None = None
    categorical: Collection[str | int] = ()
    drop: Collection[str | int] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    index: Literal["drop", "keep"] = "drop"
    sheet: str | int = 0

    def text_of(self, ending: str) -> TextForm:
        """Return how a text file with an ending, such as ``.tsv``, is written."""
        if ending == ".tsv" and self.text.separator is None:
            return replace(self.text, separator="\t")
        return self.text

    def dump(self) -> dict[str, Any]:
        """Return what another file of the same kind needs to be read alike, as JSON has it."""
        known = asdict(self.text) | {"sheet": self.sheet}
        usual = asdict(TextForm()) | {"sheet": 0}
        return {key: value for key, value in known.items() if value != usual[key]}

    @staticmethod
    def load(given: Mapping[str, Any]) -> Reading:
        """Read what :meth:`dump` returned.

        Raises:
            DataError: It is damaged.
        """
        try:
            text = {key: value for key, value in given.items() if key != "sheet"}
            return Reading(text=TextForm(**text), sheet=given.get("sheet", 0))
        except TypeError as error:
            raise DataError(f"the way to read a table is damaged: {error}") from error

    @property
    def missing(self) -> tuple[str, ...]:
        """Words that mean a missing value in any column, in lower case."""
        given = [str(word).strip().lower() for word in self.missing_values if word != "usual"]
        return ("", *(USUAL_MISSING[1:] if "usual" in self.missing_values else ()), *given)

    @property
    def missing_numbers(self) -> tuple[float, ...]:
        """Numbers that mean a missing value."""
        found = []
        for word in self.missing_values:
            try:
                found.append(float(word))
            except ValueError:
                continue
        return tuple(v for v in found if v == v)


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        kind: ``number``; ``date``, in days since 1970-01-01; or ``text``.
        values: float64, or texts; null where a value is missing.
        form: How its numbers are written in texts.
        date_format: How its dates are written in texts; empty if they are no texts.
        padded: A text of digits that begins with 0 although the column is of numbers, if any.
    """

    kind: Literal["number", "date", "text"]
    values: pl.Series
    form: NumberForm = field(default_factory=NumberForm)
    date_format: str = ""
    padded: str = ""


@dataclass(frozen=True)
class Table:
    """A table whose columns are understood.

    Args:
        source: The file, for errors.
        columns: The columns by name, in the order of the file.
        place: Function from row k, counted from 0, to its name in errors (``"line 2"``).
        notes: Sentences about how the table was read.
        reading: How it was read.
        empty: Names of columns without any value, which count where one is given by position.
    """

    source: str
    columns: dict[str, Column]
    place: Callable[[int], str]
    notes: tuple[str, ...] = ()
    reading: Reading = field(default_factory=Reading)
    empty: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())).values)

    def named(self, which: str | int, setting: str) -> str:
        """Return the name of a column that is given by name or position; -1 is the last.

        Raises:
            DataError: There is no such column, or it is empty; the sentence names the setting.
        """
        names = list(self.columns)
        for position, name in self.empty.items():
            names.insert(position, name)
        found = column_named(self.source, names, which, setting)
        if found not in self.columns:
            raise DataError(
                f"{self.source}: the column {found!r}, which {setting} names, has no values"
            )
        return found


def shorten_names(names: Sequence[str]) -> str:
    """Return a list of names for a sentence; of many names the middle ones are left out."""
    return ", ".join(names if len(names) <= 12 else [*names[:8], "…", *names[-3:]])


def understood(raw: Raw, reading: Reading) -> Table:
    """Find out which columns of a table are numbers, dates and texts.

    Raises:
        DataError: There are no columns or rows; a column mixes texts with numbers, can be read in
            two ways, or has numbers that float32 cannot hold.
    """
    names = raw.frame.columns
    dropped = {column_named(raw.source, names, which, "drop") for which in reading.drop}
    categorical = {
        column_named(raw.source, names, which, "categorical") for which in reading.categorical
    }
    kept = [name for name in names if name not in dropped]
    if not kept or not raw.frame.height:
        raise DataError(f"{raw.source} has no {'rows' if kept else 'columns'}")
    if isinstance(reading.date_format, Mapping):
        for which in reading.date_format:
            column_named(raw.source, names, which, "date_format")
    cleaned = {name: _clean(raw, name, name in categorical, reading) for name in kept}
    decimal = reading.decimal or _decimal(cleaned.values(), reading)
    columns, notes = {}, list(raw.notes)
    empty = [name for name in kept if cleaned[name].null_count() == raw.frame.height]
    for name in kept:
        if name not in empty:
            one = _column(raw, name, cleaned[name], name in categorical, decimal, reading)
            columns[name] = one
    if empty:
        verb = "is empty and" if len(empty) == 1 else "are empty and"
        notes.append(
            f"{_quoted(empty)} {verb} left out."
            if columns
            else f"{_quoted(empty)} {verb} of no use."
        )
    if not columns:
        raise DataError(f"{raw.source} has no values")
    notes += _told(columns)
    # A separator at the end of each line makes a column that nobody means.
    counted = {k: name for k, name in enumerate(kept) if name in empty and name != f"column {k}"}
    return Table(raw.source, columns, raw.place, tuple(notes), reading, counted)


def _quoted(names: Sequence[str]) -> str:
    word = "The column" if len(names) == 1 else "The columns"
    return f"{word} {shorten_names([repr(name) for name in names])}"


def _told(columns: Mapping[str, Column]) -> list[str]:
    """Return sentences about what was guessed of columns, each with the setting to change it."""
    notes = []
    signs = {(c.form.decimal, c.form.thousands) for c in columns.values() if c.kind == "number"}
    if any(sign != (".", "") for sign in signs):
        points = sorted({point for point, _ in signs if point != "."}) or ["."]
        groups = sorted({group for _, group in signs if group})
        how = f"`decimal: {points[0]!r}`" + (f", `thousands: {groups[0]!r}`" if groups else "")
        notes.append(f"Numbers are read with {how}.")
    for name, column in columns.items():
        if column.padded:
            notes.append(
                f"The column {name!r} has numbers such as {column.padded!r}, whose 0 is left out; "
                f"`categorical: [{name}]` reads them as names."
            )
    units: dict[str, list[str]] = {}
    for name, column in columns.items():
        if column.form.units:
            units.setdefault(column.form.units, []).append(name)
    for unit, named in units.items():
        verb = "has numbers" if len(named) == 1 else "have numbers"
        notes.append(f"{_quoted(named)} {verb} in {unit} (`categorical` reads them as names).")
    return notes


# Columns


def column_named(source: str, names: Sequence[str], which: str | int, setting: str) -> str:
    """Return the name of a column that a setting gives by name or position.

    Raises:
        DataError: There is no such column; the sentence names the setting.
    """
    if isinstance(which, str) and which in names:
        return which
    if isinstance(which, int) and -len(names) <= which < len(names):
        return names[which]
    raise DataError(
        f"{source} has no column {which!r}, which {setting} names; it has {shorten_names(names)}"
    )


def _clean(raw: Raw, name: str, categorical: bool, reading: Reading) -> pl.Series:
    """Return a column as float64, dates or texts, with null where a value is missing."""
    values = raw.frame[name]
    kind = values.dtype
    if isinstance(kind, pl.Categorical | pl.Enum):
        values = values.cast(pl.String)
    elif kind == pl.Null:
        return pl.Series(name, [None] * len(values), dtype=pl.Float64)
    if categorical or kind == pl.String or values.dtype == pl.String:
        texts = words(values, reading.missing)
        return texts.replace(dict(reading.rename)) if reading.rename else texts
    if kind.is_numeric() or kind == pl.Boolean:
        reals = values.cast(pl.Float64).fill_nan(None)
        return _known(raw, name, values, reals, reading)
    if kind in (pl.Date, pl.Datetime):
        return values
    raise DataError(
        f"{raw.source}: the column {name!r} is neither of numbers nor of texts; name it in `drop`"
    )


def _known(raw: Raw, name: str, values: pl.Series, reals: pl.Series, reading: Reading) -> pl.Series:
    """Return numbers without those that mean a missing value; refuse one that float32 cannot hold.

    Args:
        raw: The table, for the error.
        name: Name of the column.
        values: Its values as they stand in the table.
        reals: The numbers read from them.
        reading: Which numbers mean a missing value.
    """
    for absent in reading.missing_numbers:
        reals = without(reals, absent)
    wrong = (reals.abs() > _LARGEST).fill_null(False)
    if wrong.any():
        row = int(wrong.arg_true()[0])
        raise _too_large(raw, name, row, values[row])
    return reals


def _too_large(raw: Raw, name: str, row: int, value: object) -> DataError:
    return DataError(
        f"{raw.source}, {raw.place(row)}: the column {name!r} has {value}, which float32 cannot "
        "hold; mend it, leave out the row, or name the column in `drop`"
    )


def _decimal(columns: Collection[pl.Series], reading: Reading) -> str | None:
    """Find the sign between whole and part from the columns that leave no choice."""
    seen: set[str] = set()
    for values in columns:
        if values.dtype == pl.Float64 and len(seen) < 2:
            # A fraction that was read without a doubt has a point.
            if bool((values != values.floor()).any()):
                seen.add(".")
        elif values.dtype == pl.String:
            points = {form.decimal for form in number_forms(values, None, reading.thousands)}
            if len(points) == 1:
                seen |= points
    return seen.pop() if len(seen) == 1 else None


def _column(
    raw: Raw, name: str, values: pl.Series, categorical: bool, decimal: str | None, reading: Reading
) -> Column:
    """Decide what a column holds."""
    given = reading.date_format
    form = given.get(name) if isinstance(given, Mapping) else given
    if values.dtype in (pl.Date, pl.Datetime):
        return Column("date", since_1970(values))
    if categorical:
        return Column("text", values)
    if values.dtype == pl.Float64:
        if isinstance(given, Mapping) and form is not None:
            return _dates(raw, name, words(values), [form], reading)
        return Column("number", values)
    if isinstance(given, Mapping) and form is not None:
        return _dates(raw, name, values, [form], reading)
    found = _numbers(raw, name, values, decimal, reading)
    if found is None and "usual" in reading.missing_values:
        bare = stripped(values, MISSING_NUMBERS)
        if bare.null_count() > values.null_count():
            found = _numbers(raw, name, bare, decimal, reading)
            if found is None and date_forms(bare):
                values = bare
    if found is not None:
        return found
    forms = date_forms(values, [form] if form else DATE_FORMATS)
    if forms:
        return _dates(raw, name, values, forms, reading)
    _refuse_mixture(raw, name, values)
    return Column("text", values)


def _numbers(
    raw: Raw, name: str, values: pl.Series, decimal: str | None, reading: Reading
) -> Column | None:
    forms = number_forms(values, reading.decimal, reading.thousands)
    if len({form.decimal for form in forms}) > 1:
        each = [numbers(values, form) for form in forms]
        if all(each[0].equals(other) for other in each[1:]):
            forms = forms[:1]
        else:
            forms = [form for form in forms if decimal is None or form.decimal == decimal]
    if not forms:
        return None
    if len(forms) > 1 and forms[0].decimal != ".":
        # 1,234 may be one and a part, or a thousand; 1.234 alone is read as programs write it.
        text = str(values.drop_nulls()[0])
        low, high = (float(numbers(values.drop_nulls()[:1], form)[0]) for form in forms[:2])
        raise DataError(
            f"{raw.source}, {raw.place(0)}: the column {name!r} has {text!r}, which may be {low:g} "
            f"or {high:g}; set `decimal: ','` or `decimal: '.'`"
        )
    form = forms[0]
    reals = _known(raw, name, values, numbers(values, form), reading)
    padded = values.filter(values.str.contains(r"^0\d+$").fill_null(False))
    return Column("number", reals, form, padded=str(padded[0]) if len(padded) else "")


def _dates(
    raw: Raw, name: str, values: pl.Series, forms: Sequence[str], reading: Reading
) -> Column:
    if len(forms) > 1:
        text = str(values.drop_nulls()[0])
        raise DataError(
            f"{raw.source}: the column {name!r} has dates such as {text!r}, which may be "
            f"{' or '.join(forms[:2])}; set `date_format: {forms[0]!r}` or "
            f"`date_format: {forms[1]!r}`"
        )
    found = days(values, forms[0])
    wrong = found.is_null() & values.is_not_null()
    if wrong.any():
        row = int(wrong.arg_true()[0])
        raise DataError(
            f"{raw.source}, {raw.place(row)}: the column {name!r} has {shorten(values[row])}, "
            f"which is no date of the form {forms[0]!r}, which date_format names"
        )
    return Column("date", found, date_format=forms[0])


def _refuse_mixture(raw: Raw, name: str, values: pl.Series) -> None:
    """Refuse a column some of whose texts are numbers."""
    known = values.drop_nulls()
    bare = known.str.contains(NumberForm().pattern) | known.str.contains(NumberForm(",").pattern)
    if not bare.any():
        _refuse_units(raw, name, known)
        return
    flags = values.str.contains(NumberForm().pattern) | values.str.contains(NumberForm(",").pattern)
    row = int((~flags).fill_null(False).arg_true()[0]) if not bare.all() else 0
    if bare.all():
        raise DataError(
            f"{raw.source}: the column {name!r} has numbers with decimal commas and with decimal "
            "points; bring them to one form, or name the column in `categorical` or `drop`"
        )
    word = shorten(values[row])
    raise DataError(
        f"{raw.source}, {raw.place(row)}: the column {name!r} has {word} among numbers; mend it, "
        "or name the column in `categorical` or `drop`, or set `missing_values: [usual, "
        f"{values[row]!r}]` if it means none"
    )


def _refuse_units(raw: Raw, name: str, known: pl.Series) -> None:
    """Refuse a column whose numbers have several currencies."""
    sample = known[:1000]
    bare, units = bare_numbers(sample)
    signs = sorted(set(units.to_list()) - {""})
    if len(signs) > 1 and bool(bare.str.contains(r"^[+-]?[\d.,' ]+$").all()):
        raise DataError(
            f"{raw.source}: the column {name!r} has numbers in {' and in '.join(signs)}; bring "
            "them to one, or name the column in `categorical` or `drop`"
        )
