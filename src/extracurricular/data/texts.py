"""Read texts as numbers and dates: decimal commas, thousands, currencies, percentages, date forms.

Every function maps a polars series to one of the same length, with null for a missing value, and
does the same to one row as to a million. A form is decided once, from a whole column, and kept.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import polars as pl

USUAL_MISSING = ("", "?", "na", "n/a", "nan", "null", "none", "#n/a", "<na>")
"""Words that stand for a missing value in any column, in lower case."""

MISSING_NUMBERS = ("-", "--", ".", "nil", "missing", "#value!", "#div/0!", "#ref!", "#num!")
"""Words that stand for a missing value among numbers or dates, in lower case."""

# So many values decide which forms are worth a try on a whole column.
_SAMPLE = 200
_CODES = "USD|EUR|GBP|JPY|CHF|CNY|INR|CAD|AUD|SEK|NOK|DKK|PLN|BRL|kr|zł"
_MONEY = rf"US\$|[$€£¥₹₽₩]|{_CODES}"
_EXPONENT = r"(?:[eE][+-]?\d+)?"
_GROUPS = {".": (",", " ", "'"), ",": (".", " ", "'")}
_DAY = 86400.0

DATE_FORMATS = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y",
    "%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%b %d, %Y",
    "%d %B %Y", "%B %d, %Y", "%d. %B %Y",
)  # fmt: skip
"""Forms of a date that are tried, in chrono's notation, which is that of ``strftime``."""

_CLOCK = (
    r"^(.+?)(?:[T ]\s*(\d{1,2}):(\d{2})(?::(\d{2}(?:\.\d+)?))?\s*([AaPp])?(?:[Mm])?"
    r"\s*(Z|UTC|[+-]\d{2}:?\d{2})?)?$"
)


@dataclass(frozen=True)
class NumberForm:
    """A way to write numbers.

    Args:
        decimal: The sign between whole and part, ``.`` or ``,``.
        thousands: The sign between groups of three digits; empty for none.
        units: A currency or ``%`` that stands before or after each number; empty for none.
    """

    decimal: str = "."
    thousands: str = ""
    units: str = ""

    @property
    def pattern(self) -> str:
        """A regular expression that a number of this form fits, without its units."""
        point = re.escape(self.decimal)
        plain = rf"(?:\d+(?:{point}\d*)?|{point}\d+){_EXPONENT}|(?i:inf(?:inity)?)"
        if self.thousands:
            plain += rf"|[1-9]\d{{0,2}}(?:{re.escape(self.thousands)}\d{{3}})+(?:{point}\d*)?"
        return rf"^[+-]?(?:{plain})$"


def stripped(texts: pl.Series, missing: Collection[str] = ()) -> pl.Series:
    """Return texts without blanks around them, and null for those that mean a missing value.

    Args:
        texts: Texts.
        missing: Words, in lower case, that mean a missing value.
    """
    bare = texts.str.strip_chars()
    if not missing:
        return bare
    # A comparison of every text with every word costs more than the lengths, which rule most out.
    longest = max(len(word.encode()) for word in missing)
    short = (bare.str.len_bytes() <= longest).fill_null(False)
    if not short.any():
        return bare
    absent = short & bare.str.to_lowercase().is_in(list(missing)).fill_null(False)
    return bare.zip_with(~absent, pl.Series([None], dtype=pl.String)) if absent.any() else bare


def words(values: pl.Series, missing: Collection[str] = ()) -> pl.Series:
    """Return values of any kind as texts: the names of a category."""
    if values.dtype == pl.String:
        return stripped(values, missing)
    if values.dtype.is_float():
        # 2.0 and 2 are one name, as a hole in a column makes floats of its whole numbers.
        reals = values.fill_nan(None)
        whole = bool((reals == reals.round()).all()) and bool((reals.abs() < 1e15).all())
        if whole:
            return reals.cast(pl.Int64).cast(pl.String)
        return pl.Series(values.name, [None if v is None else f"{v:.15g}" for v in reals])
    return values.cast(pl.String)


def without(reals: pl.Series, absent: float) -> pl.Series:
    """Return numbers with null in place of one that means a missing value."""
    # As float32, which inputs are, so that a value can be named as `xcl data` shows it.
    keep = (reals.cast(pl.Float32) != pl.Series([absent], dtype=pl.Float32)).fill_null(True)
    return reals if keep.all() else reals.zip_with(keep, pl.Series([None], dtype=pl.Float64))


# Numbers


def bare_numbers(texts: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Return texts without a currency or percent sign around them, and those signs.

    A number in brackets is negative, as accountants write it.
    """
    plain = (
        texts.str.replace_all("[\u2212\u2013]", "-")
        .str.replace_all("[\u00a0\u202f\u2009]", " ")
        .str.replace_all("\u2019", "'", literal=True)
        .str.replace(r"^\(\s*(.*?)\s*\)$", "-$1")
    )
    frame = plain.to_frame("t").select(
        sign=pl.col("t").str.extract(rf"^([+-]?)\s*(?:{_MONEY})"),
        before=pl.col("t").str.extract(rf"^[+-]?\s*({_MONEY})"),
        after=pl.col("t").str.extract(rf"\d[.,]?\s*({_MONEY}|%|‰)$"),
        t=pl.col("t"),
    )
    bare = frame.select(
        pl.when(pl.col("before").is_null() & pl.col("after").is_null())
        .then(pl.col("t"))
        .otherwise(
            pl.col("sign").fill_null("")
            + pl.col("t")
            .str.replace(rf"^[+-]?\s*(?:{_MONEY})\s*", "")
            .str.replace(rf"\s*(?:{_MONEY}|%|‰)$", "")
        )
        .alias(texts.name)
    ).to_series()
    units = frame.select(pl.coalesce("before", "after").fill_null("")).to_series()
    return bare, units


def number_forms(
    texts: pl.Series, decimal: str | None = None, thousands: str | None = None
) -> list[NumberForm]:
    """Return the forms in which all texts are numbers, those with fewer signs first.

    Args:
        texts: Texts without blanks around them; null is passed over.
        decimal, thousands: What the form must have; None for any.
    """
    known = texts.drop_nulls()
    if not len(known):
        return []
    sample = known.gather_every(max(1, len(known) // _SAMPLE))
    found = [f for f in _forms(decimal, thousands) if _fit(sample, f)]
    if not found:
        return []
    bare, units = bare_numbers(known)
    signs = units.unique().to_list()
    if len(signs) > 1 and not (len(signs) == 2 and "" in signs):
        return []
    unit = "".join(signs)
    return [
        NumberForm(f.decimal, f.thousands, unit)
        for f in found
        if bool(bare.str.contains(f.pattern).all())
        and (not f.thousands or bool(bare.str.contains(f.thousands, literal=True).any()))
    ]


def all_numbers(texts: Sequence[str]) -> bool:
    """Return whether some texts, and not only empty ones, are numbers of some form each.

    This is for a few texts, to which polars would take longer.
    """
    known = [text.strip() for text in texts if text.strip()]
    return bool(known) and all(_SOME_NUMBER.match(text) for text in known)


def _forms(decimal: str | None, thousands: str | None) -> list[NumberForm]:
    points = [decimal] if decimal else [".", ","]
    groups = {p: (thousands,) if thousands is not None else ("", *_GROUPS[p]) for p in points}
    forms = [NumberForm(p, g) for p in points for g in groups[p] if g != p]
    return sorted(forms, key=lambda form: bool(form.thousands))


def _fit(sample: pl.Series, form: NumberForm) -> bool:
    bare, _ = bare_numbers(sample)
    return bool(bare.str.contains(form.pattern).all())


def numbers(texts: pl.Series, form: NumberForm) -> pl.Series:
    """Return texts as float64; null for one that is no number of the form."""
    if form == NumberForm():
        plain = texts.cast(pl.Float64, strict=False)
        if plain.null_count() == texts.null_count():
            return plain
    bare, units = bare_numbers(texts)
    fits = bare.str.contains(form.pattern) & units.is_in(["", form.units])
    if form.thousands:
        bare = bare.str.replace_all(form.thousands, "", literal=True)
    if form.decimal != ".":
        bare = bare.str.replace(form.decimal, ".", literal=True)
    values = bare.str.strip_chars_start("+").cast(pl.Float64, strict=False)
    return values.zip_with(fits.fill_null(False), pl.Series([None], dtype=pl.Float64))


_SOME_NUMBER = re.compile(
    rf"^\(?[+\-\u2212\u2013]?\s*(?:{_MONEY})?\s*(?:"
    + "|".join(form.pattern[1:-1] for form in _forms(None, None))
    + rf")\s*(?:{_MONEY}|%|‰)?\)?$"
)


# Dates


def days(texts: pl.Series, form: str) -> pl.Series:
    """Return dates as days since 1970-01-01, float64; null for a text of another form.

    Args:
        texts: Texts without blanks around them. A time of the day may follow the date, and a zone
            the time, which is then turned into UTC.
        form: Form of the date, such as ``%d.%m.%Y``; with ``%H`` or ``%I``, of the time as well.
    """
    if "%H" in form or "%I" in form:
        whole = texts.str.to_datetime(form, strict=False, time_unit="us")
        return since_1970(whole)
    frame = texts.to_frame("t").select(
        **{
            part: pl.col("t").str.extract(_CLOCK, k + 1)
            for k, part in enumerate(("date", "hour", "minute", "second", "half", "zone"))
        }
    )
    hour = pl.col("hour").cast(pl.Float64)
    afternoon = pl.col("half").str.to_lowercase()
    hour = (
        pl.when(afternoon == "p")
        .then(hour % 12 + 12)
        .when(afternoon == "a")
        .then(hour % 12)
        .otherwise(hour)
    )
    minutes = pl.col("zone").str.extract(r"(\d{2})$").cast(pl.Float64)
    hours = pl.col("zone").str.extract(r"^[+-](\d{2})").cast(pl.Float64)
    west = pl.when(pl.col("zone").str.starts_with("-")).then(-1.0).otherwise(1.0)
    offset = (west * (hours * 3600 + minutes * 60)).fill_null(0.0)
    seconds = (
        hour.fill_null(0.0) * 3600
        + pl.col("minute").cast(pl.Float64).fill_null(0.0) * 60
        + pl.col("second").cast(pl.Float64).fill_null(0.0)
    )
    day = pl.col("date").str.to_date(form, strict=False).cast(pl.Int32).cast(pl.Float64)
    # A year of two digits fits %Y as well, as the year 24.
    day = pl.when(day > -600_000).then(day) if "%Y" in form else day
    return frame.select((day + (seconds - offset) / _DAY).alias(texts.name)).to_series()


def since_1970(moments: pl.Series) -> pl.Series:
    """Return dates or datetimes as days since 1970-01-01, float64."""
    if moments.dtype == pl.Date:
        return moments.cast(pl.Int32).cast(pl.Float64)
    if isinstance(moments.dtype, pl.Datetime) and moments.dtype.time_zone is not None:
        moments = moments.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return moments.dt.epoch("us").cast(pl.Float64) / (_DAY * 1e6)


def date_forms(texts: pl.Series, forms: Sequence[str] = DATE_FORMATS) -> list[str]:
    """Return the forms in which all texts are dates; null is passed over."""
    known = texts.drop_nulls()
    if not len(known):
        return []
    sample = known.gather_every(max(1, len(known) // _SAMPLE))
    if not bool((sample.str.contains(r"\d.*[-/. ].*\d") & (sample.str.len_chars() <= 40)).all()):
        return []
    found = [form for form in forms if not days(sample, form).null_count()]
    read: dict[str, pl.Series] = {}
    for form in found:
        values = days(known, form)
        # May is May in long and in short.
        if not values.null_count() and not any(values.equals(other) for other in read.values()):
            read[form] = values
    return list(read)
