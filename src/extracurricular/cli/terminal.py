"""The terminal: any encoding, any width, full devices, and names that try to steer it."""

from __future__ import annotations

import codecs
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook
from rich.measure import Measurement
from rich.segment import Segment

from extracurricular.errors import StorageError

# Signs that some streams lack, and what stands for them there; others become "?".
_PLAIN = {
    "✓": "+", "✗": "x", "·": "-", "•": "*", "…": "...", "±": "+-", "×": "x", "÷": "/", "–": "-",
    "—": "-", "−": "-", "“": '"', "”": '"', "‘": "'", "’": "'", "→": "->", "←": "<-", "↑": "^",
    "↓": "v", "≤": "<=", "≥": ">=", "≈": "~", "°": " deg", "²": "^2", "‖": "||", "∞": "inf",
    "━": "-", "─": "-", "│": "|", "╭": "+", "╮": "+", "╰": "+", "╯": "+", "╸": "-", "╺": "-",
}  # fmt: skip
# Characters that steer a terminal, or that hide how a line reads: C0 but for tab and line feed,
# DEL, C1, line separators, and marks that turn the direction of writing.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_HANDLER = "extracurricular.plain"


def safe(text: str) -> str:
    """Return text in which no character steers a terminal: each such becomes ``�``."""
    return _STEERING.sub("�", text)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    encodable = []
    for sign in error.object[error.start : error.end]:
        other = _PLAIN.get(sign, "?")
        with suppress(UnicodeError):
            # A stream may have a nearer sign than ASCII has, as latin-1 has the middle dot.
            sign.encode(error.encoding)
            other = sign
        encodable.append(other)
    return "".join(encodable), error.end


codecs.register_error(_HANDLER, _plain)


class _Harmless:
    """Something to print of which no text steers the terminal."""

    def __init__(self, shown: RenderableType) -> None:
        self.shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self.shown, options):
            # Control segments are rich's own: bars that are drawn over, say.
            text = segment.text if segment.control else safe(segment.text)
            yield Segment(text, segment.style, segment.control)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self.shown)


class _Hook(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Harmless(one) for one in renderables]


class _Stream:
    """Standard output or error, whichever it is at the time, with failures in one sentence."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(getattr(sys, self._name), name)

    def write(self, text: str) -> int:
        with _told(self._name):
            return int(getattr(sys, self._name).write(text))

    def flush(self) -> None:
        with _told(self._name):
            getattr(sys, self._name).flush()


@contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise  # whoever reads, such as `head`, has enough
    except OSError as error:
        drop_output()
        where = "output" if name == "stdout" else "error"
        raise StorageError(f"cannot write to standard {where}: {error.strerror}") from None


def make_console(
    stderr: bool = False, soft_wrap: bool = False, width: int | None = None
) -> Console:
    """Return a console that shows names from files as text, whatever is in them."""
    stream: Any = _Stream("stderr" if stderr else "stdout")
    found = Console(file=stream, soft_wrap=soft_wrap, highlight=False, width=width)
    found.push_render_hook(_Hook())
    return found


def prepare_streams() -> None:
    """Let standard streams write what they lack a sign for in plainer signs, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors=_HANDLER)  # type: ignore[union-attr]


def drop_output() -> None:
    """Send what is still to be written nowhere, so that closing the stream cannot fail again."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
