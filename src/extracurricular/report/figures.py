"""Figures as SVG whose colours follow the page, light or dark.

matplotlib draws in placeholder colours, which are then replaced by custom properties of CSS. Text
stays text, in the font of the page; mathematical signs in it are not parsed.
"""

from __future__ import annotations

import html
import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from extracurricular.errors import XclError
from extracurricular.report.curves import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Roles of colours, in the order of their placeholders; the values are in templates/style.css.
ROLES = ("ink", "faint", "rule", "teacher", "s0", "s1", "s2", "s3", "s4", "s5", "other")
# The last two colours look like others to some readers, so dashes distinguish them too.
_DASHES = {"teacher": (0, (5, 2)), "s4": (0, (4, 1)), "s5": (0, (1.2, 1))}
_WIDTH, _HEIGHT = 340, 240  # units of the picture, which are pixels where it is not scaled
_MARGIN = {"left": 50, "right": 10, "top": 10, "bottom": 44}
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class Axis:
    """An axis of a figure.

    Args:
        label: The quantity, with its unit.
        log: Whether it is logarithmic.
        limits: Its ends; computed from the data where None.
        form: Formats the value of a tick.
        ticks: Values with a tick; chosen where None.
    """

    label: str
    log: bool = False
    limits: tuple[float, float] | None = None
    form: Callable[[float], str] | None = None
    ticks: Sequence[float] | None = None


@dataclass(frozen=True)
class Line:
    """A curve, or points.

    Args:
        role: Role of its colour, of :data:`ROLES`.
        x, y: Coordinates of its points, [K].
        low, high: Bounds of a band or of error bars around y, [K].
        style: ``line``, ``dotted``, ``steps`` (x are K + 1 edges), ``dots`` or ``both``.
        size: Areas of the dots, [K], in square units.
    """

    role: str
    x: Array
    y: Array
    low: Array | None = None
    high: Array | None = None
    style: str = "line"
    size: Array | None = None


@dataclass(frozen=True)
class Row:
    """A row of a figure of dots: a name, a value and the interval around it; None is unbounded."""

    name: str
    role: str
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Guides:
    """Thin lines behind the data: at values of x or of y, and where x equals y."""

    x: Sequence[float] = field(default_factory=tuple)
    y: Sequence[float] = field(default_factory=tuple)
    diagonal: bool = False


def chart(
    name: str, alt: str, lines: Sequence[Line], x: Axis, y: Axis, guides: Guides = Guides()
) -> str:
    """Draw curves.

    Args:
        name: Prefix that makes its ids unique on the page.
        alt: Description for readers who cannot see the figure.
        lines: Curves and points, the last on top.
        x, y: The axes.
        guides: Thin lines behind the data.

    Returns:
        An ``svg`` element.

    Raises:
        XclError: matplotlib is not installed.
    """
    with _settings(name):
        figure, axes = _new(_HEIGHT, _MARGIN["left"])
        _guide(axes, guides)
        for line in lines:
            _draw(axes, line)
        _shape(axes, "x", x)
        _shape(axes, "y", y)
        return _svg(name, alt, figure)


def dots(name: str, alt: str, rows: Sequence[Row], x: Axis, guides: Guides = Guides()) -> str:
    """Draw a value with its interval for each of several names, one below the other.

    Returns:
        An ``svg`` element.

    Raises:
        XclError: matplotlib is not installed.
    """
    with _settings(name):
        return _dots(name, alt, rows, x, guides)


def _dots(name: str, alt: str, rows: Sequence[Row], x: Axis, guides: Guides) -> str:
    names = [shortened(row.name) for row in rows]
    left = 16 + 7.2 * max(len(text) for text in names)
    figure, axes = _new(_MARGIN["top"] + _MARGIN["bottom"] + 24 * len(rows), left)
    _guide(axes, guides)
    known = [v for row in rows for v in (row.value, row.low, row.high) if v is not None]
    known += list(guides.x)
    room = 0.04 * (max(known) - min(known)) or 1.0
    ends = (min(known) - room, max(known) + room) if x.limits is None else x.limits
    for place, row in enumerate(rows):
        low = ends[0] if row.low is None else row.low
        high = ends[1] if row.high is None else row.high
        axes.plot([low, high], [place, place], color=_colour(row.role), linewidth=2, alpha=0.55)
        axes.plot([row.value], [place], "o", color=_colour(row.role), markersize=7)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), names)
    _shape(axes, "x", Axis(x.label, limits=ends, form=x.form))
    axes.tick_params(axis="y", length=0, labelsize=12, labelcolor=_colour("ink"))
    axes.spines["left"].set_visible(False)
    return _svg(name, alt, figure)


def shortened(name: str, most: int = 20) -> str:
    """Return a name without control characters that fits beside an axis."""
    name = clean(name)
    return name if len(name) <= most else name[: most - 1] + "…"


def clean(text: str) -> str:
    """Replace characters that no document may hold: control characters and lone surrogates."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def percent(value: float) -> str:
    """Write a share as a percentage."""
    return f"{100 * value:.3g}"


def plain(value: float) -> str:
    """Return a number as an axis shows it: 10,000 and 0.25."""
    form = ",.6g" if 1e-4 <= abs(value) < 1e7 else ".4g"
    return f"{value:{form}}".replace("-", "−")


def power(value: float) -> str:
    """Write a power of ten, or a number near 1 as it is."""
    exponent = round(math.log10(value))
    if -3 < exponent < 4:
        return f"{value:g}"
    lifted = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    first = value / 10.0**exponent
    return f"10{lifted}" if abs(first - 1) < 1e-6 else f"{first:.2g}·10{lifted}"


def short_count(value: float) -> str:
    """Write a number of parameters in short: 1k, 20M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def log_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers on a logarithmic axis: powers of ten, or 1, 2 and 5 times those."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    tens = [10.0**e for e in exponents if low <= 10.0**e <= high]
    if len(tens) > 1:
        return tens[:: -(-len(tens) // most)]
    fine = [m * 10.0**e for e in exponents for m in (1, 2, 5)]
    inside = [tick for tick in fine if low <= tick <= high]
    if len(inside) > 1:
        return inside
    return [float(f"{low:.2g}"), float(f"{high:.2g}")]


# -- matplotlib -----------------------------------------------------------------------------------


def _new(height: float, left: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH / 72, height / 72), dpi=72)
    figure.patch.set_visible(False)
    wide, high = _WIDTH - left - _MARGIN["right"], height - _MARGIN["top"] - _MARGIN["bottom"]
    axes = figure.add_axes(
        (left / _WIDTH, _MARGIN["bottom"] / height, wide / _WIDTH, high / height)
    )
    axes.patch.set_visible(False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_colour("rule"))
    axes.tick_params(color=_colour("rule"), labelcolor=_colour("faint"), labelsize=11, length=3)
    axes.grid(color=_colour("rule"), linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _colour(role: str) -> str:
    return f"#f1f0{ROLES.index(role):02x}"


def _guide(axes: Axes, guides: Guides) -> None:
    style: dict[str, Any] = {"color": _colour("faint"), "linewidth": 1, "dashes": (3, 3)}
    for value in guides.x:
        axes.axvline(value, **style)
    for value in guides.y:
        axes.axhline(value, **style)
    if guides.diagonal:
        axes.axline((1, 1), (2, 2), **style)


def _draw(axes: Axes, line: Line) -> None:
    colour = _colour(line.role)
    # The teacher's line is thinner and dashed, as all others are compared with it.
    teacher = line.role == "teacher"
    shape: dict[str, Any] = {"color": colour, "linewidth": 1.5 if teacher else 1.8}
    shape["linestyle"] = _DASHES.get(line.role, "-")
    if line.style == "steps":
        axes.stairs(line.y, line.x, baseline=None, **shape)
        return
    if line.low is not None and line.high is not None:
        if line.style == "line":
            axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.16, linewidth=0)
        else:
            axes.vlines(line.x, line.low, line.high, color=colour, linewidth=1.6, alpha=0.6)
    if line.style == "dotted":
        shape |= {"linestyle": (0, (1.2, 1.6)), "linewidth": 1.5}
    if line.style in ("line", "dotted", "both"):
        axes.plot(line.x, line.y, **shape)
    if line.style in ("dots", "both"):
        size = 42 if line.size is None else line.size
        marker = "D" if teacher else "o"
        axes.scatter(line.x, line.y, s=size, color=colour, linewidths=0, marker=marker, zorder=3)


def _shape(axes: Axes, which: str, axis: Axis) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    label = {"color": _colour("ink"), "fontsize": 12}
    getattr(axes, f"set_{which}label")(clean(axis.label), **label)
    if axis.log:
        getattr(axes, f"set_{which}scale")("log")
    if axis.limits is not None:
        getattr(axes, f"set_{which}lim")(*axis.limits)
    ticks = getattr(axes, f"{which}axis")
    form = axis.form or (power if axis.log else plain)
    if axis.ticks is not None:
        ticks.set_major_locator(FixedLocator(list(axis.ticks)))
    elif axis.log:
        ticks.set_major_locator(FixedLocator(log_ticks(*getattr(axes, f"get_{which}lim")())))
    else:
        ticks.set_major_locator(MaxNLocator(4 if which == "x" else 5, steps=[1, 2, 2.5, 5, 10]))
    if axis.log:
        ticks.set_minor_locator(NullLocator())
    ticks.set_major_formatter(FuncFormatter(lambda v, _: form(v)))


@contextmanager
def _settings(name: str) -> Iterator[None]:
    """Set up matplotlib for a figure, whatever the user's own settings are."""
    try:
        import matplotlib
    except ImportError as error:
        raise XclError(
            f"the figures of a report need matplotlib, which cannot be imported ({error}); "
            "pip install matplotlib"
        ) from error
    settings: dict[Any, Any] = {
        "font.family": ["DejaVu Sans"],
        "font.size": 11,
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.parse_math": False,
        "text.usetex": False,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # The page's fonts have signs that the font for measuring texts lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _svg(name: str, alt: str, figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator")))
    return _tidy(name, alt, figure, buffer.getvalue())


def _tidy(name: str, alt: str, figure: Figure, svg: str) -> str:
    """Turn matplotlib's document into an element of the page, with its colours, font and ids."""
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.S)
    svg = re.sub(r"<style type=\"text/css\">.*?</style>", "", svg, flags=re.S)
    used = set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", svg))

    def own(found: re.Match[str]) -> str:
        return f' id="{name}-{found[1]}"' if found[1] in used else ""

    def tag(found: re.Match[str]) -> str:
        text = re.sub(r' id="([^"]*)"', own, found[0])
        text = re.sub(r"(url\(|href=\")#", rf"\1#{name}-", text)
        text = re.sub(r"#f1f0([0-9a-f]{2})", lambda m: f"var(--{ROLES[int(m[1], 16)]})", text)
        # A path needs no more than two decimals of a pixel.
        text = re.sub(
            r"-?\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), text
        )
        text = re.sub(r" font-family: [^;\"]*;| transform=\"rotate\(-?0 [^)]*\)\"", "", text)
        return re.sub(r"\s+", " ", text)

    # Only tags are changed: the text between them is for readers.
    svg = re.sub(r"<[^>]*>", tag, svg)
    svg = re.sub(r">\s+<", "><", svg)
    shape = " ".join(f"{72 * inches:g}" for inches in figure.get_size_inches())
    head = f'<svg viewBox="0 0 {shape}" role="img" aria-label="{html.escape(alt)}">'
    return head + svg[svg.index(">") + 1 :].strip()
