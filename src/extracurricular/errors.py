"""Errors that a person can act on.

Every problem that the user can cause raises an :class:`XclError`, whose text is one clear sentence.
The command line prints it and leaves with exit status 2; it never shows a traceback for one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class XclError(Exception):
    """The base of every error whose text is for the user."""


class RecipeError(XclError):
    """A setting is wrong.

    Args:
        key: Where the setting stands, as a dotted path (``students.xcl.sampler.1.mixup.alpha``).
        problem: What is wrong, with the value, and what would be right.
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}" if key else problem)
        self.key = key
        self.problem = problem


class DataError(XclError):
    """The data cannot be used as they are."""


class TrainingError(XclError):
    """Training cannot go on (a teacher gave NaN, the loss is not finite)."""


class StorageError(XclError):
    """A file of a run is missing, damaged, or belongs to other settings."""


class ExportError(XclError):
    """A student cannot be exported, or the exported file differs from the student."""


class OldWordWarning(FutureWarning):
    """A word is called otherwise now; the old one is read for one release more."""


class NoteWarning(UserWarning):
    """A note on what was read or chosen; the command line shows it as one line."""


def during(title: str, error: XclError) -> XclError:
    """Return an error that also names the stage of a run in which it happened.

    An error about a setting names the setting's key already, so it is returned as it is.
    """
    return error if isinstance(error, RecipeError) else type(error)(f"{title}: {error}")


def shorten(value: object, limit: int = 60) -> str:
    """Return ``repr(value)``, cut to ``limit`` characters, to be quoted in an error."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def known_names(name: str, names: Iterable[str]) -> str:
    """Return the end of an 'unknown name' sentence: a close match, if any, and the known names."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=1)
    close = close or [known for known in names if len(name) > 2 and known.startswith(name)]
    if close:
        return f"did you mean {close[0]!r}? Known: {', '.join(names)}"
    return f"known: {', '.join(names)}"


def from_extra(extra: str) -> str:
    """Return the end of a 'needs' sentence: how to install what an extra of this package brings."""
    return f"which the extra {extra!r} installs: pip install -e '.[{extra}]' in a clone"


def first_line(error: Exception) -> str:
    """Return the first line of an error, as the end of a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
