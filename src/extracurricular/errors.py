"""Errors that a person can act on.

Every problem that the user can cause raises an :class:`XclError`, whose text is one clear sentence.
The command line prints it and leaves with exit status 2; it never shows a traceback for one.
"""

from __future__ import annotations

import difflib
import os
import sysconfig
import tempfile
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class XclError(Exception):
    """The base of every error whose text is for the user."""


class RecipeError(XclError):
    """A setting is wrong.

    Args:
        key: Where the setting stands, as a dotted path (``students.xcl.sampler.1.mixup.alpha``).
        problem: What is wrong, with the value, and what would be right.
    """

    def __init__(self, key: str, problem: str) -> None:
        # A key may be whatever a file has in its place.
        shown = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in key)
        super().__init__(f"{shown}: {problem}" if key else problem)
        self.key = key
        self.problem = problem


class DataError(XclError):
    """The data cannot be used as they are."""


class TrainingError(XclError):
    """Training cannot go on (a teacher gave NaN, the loss is not finite)."""


class StorageError(XclError):
    """A file of a run is missing, damaged, or belongs to other settings."""


class TrustError(XclError):
    """A folder that is only looked at names code, which nobody said to trust."""


class ExportError(XclError):
    """A student cannot be exported, or the exported file differs from the student."""


class OldWordWarning(FutureWarning):
    """A word is called otherwise now; the old one is read for one release more."""


class NoteWarning(UserWarning):
    """A note on what was read or chosen; the command line shows it as one line."""


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Say in one sentence that files hold what no code of this package writes.

    A checksum tells of damage. Content that was made to be odd can make any step of the work fail,
    so this stands around all of it.

    Args:
        where: The files, such as ``the run 'out'``.

    Raises:
        StorageError: Anything but an :class:`XclError` was raised.
    """
    try:
        yield
    except XclError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise StorageError(
            f"{where} holds what no run has, or is of another version: "
            f"{type(error).__name__}: {shorten_text(text)}"
        ) from error


def shorten_text(text: str, limit: int = 200) -> str:
    """Return text on one line without signs that move the cursor, cut to ``limit`` characters."""
    shown = "".join(sign if sign.isprintable() else " " for sign in text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def during(title: str, error: XclError) -> XclError:
    """Return an error that also names the stage of a run in which it happened.

    An error about a setting names the setting's key already, so it is returned as it is.
    """
    return error if isinstance(error, RecipeError) else type(error)(f"{title}: {error}")


def shorten(value: object, limit: int = 60) -> str:
    """Return ``repr(value)``, cut to ``limit`` characters, to be quoted in an error."""
    text = " ".join(repr(value).split("\n"))
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


# Code of the user's own

TRACEBACK = "XCL_TRACEBACK"
"""The variable of the environment that asks for tracebacks, as ``xcl --traceback`` sets it."""

TOLD = "XCL_TOLD"
"""The variable that names the file for the sentence of a failure, where `xcl` itself started this
process with others, and tells it."""

_HERE = str(Path(__file__).parent) + os.sep
_INSTALLED = ("site-packages", "dist-packages")
# Libraries that this package calls itself: where one of them raised, nobody's own code need be.
_LIBRARIES = {
    "torch", "torchvision", "numpy", "scipy", "sklearn", "pandas", "polars", "pydantic", "yaml",
    "PIL", "joblib", "onnx", "onnxruntime", "lightning_fabric", "lightning_utilities", "timm",
    "transformers", "datasets", "diffusers", "safetensors", "threadpoolctl", "typer", "click",
    "rich",
}  # fmt: skip


def own_place(error: BaseException) -> str | None:
    """Return where the user's own code raised an error, as ``file.py, line 12``.

    That is the innermost call outside of this package, of Python and of installed libraries; where
    there is none, the innermost one in a library that this package does not use itself. None where
    no such code took part.
    """
    frames = [one for one in traceback.extract_tb(error.__traceback__) if _is_file(one.filename)]
    apart = [one for one in frames if not _installed_as(one.filename)]
    others = [one for one in frames if _installed_as(one.filename) not in (None, *_LIBRARIES)]
    for found in (*apart[-1:], *others[-1:]):
        path = Path(found.filename)
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        return f"{shown}, line {found.lineno}"
    return None


def _is_file(name: str) -> bool:
    """Return whether code is neither generated nor of this package nor of Python itself."""
    if name.startswith("<") or name.startswith(_HERE):
        return False
    python = {sysconfig.get_path(part) for part in ("stdlib", "platstdlib")}
    return _installed_as(name) is not None or not any(name.startswith(one) for one in python)


def _installed_as(name: str) -> str | None:
    """Return the name of the installed package that a file belongs to; None for any other file."""
    parts = Path(name).parts
    places = [k for k, part in enumerate(parts[:-1]) if part in _INSTALLED]
    return parts[places[-1] + 1].removesuffix(".py") if places else None


def raised(error: BaseException) -> str:
    """Return an error of the user's own code in words: its type, its text, its place."""
    text = shorten_text(" ".join(str(error).split()), 300).rstrip(".")
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    place = own_place(error)
    return said if place is None else f"{said} ({place})"


def own_mistake(error: Exception) -> str | None:
    """Return a sentence on an error that the user's own code raised; None for any other error.

    The notes of the error, such as the title of a stage, come first.
    """
    if own_place(error) is None:
        return None
    return ": ".join([*getattr(error, "__notes__", ()), f"your own code raised {raised(error)}"])


def show_traceback(error: BaseException) -> None:
    """Print the traceback of an error to standard error, if the environment asks for it."""
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)


@contextmanager
def telling_temporary(what: str) -> Iterator[None]:
    """Turn a failure of a temporary file, which has no name, into one sentence.

    Args:
        what: Its content, for the sentence: "answers".

    Raises:
        StorageError: The system refused.
    """
    try:
        yield
    except OSError as error:
        text, place = error.strerror or str(error), tempfile.gettempdir()
        raise StorageError(f"cannot keep {what} in a temporary file in {place!r}: {text}") from None


@contextmanager
def own_code(key: str, doing: str, *, plain: bool = False) -> Iterator[None]:
    """Turn whatever the user's own code raises while a block runs into one sentence.

    Args:
        key: Where the recipe names the code.
        doing: What fails, as the beginning of the sentence: "it cannot be called on two examples".
        plain: Whether a ``ValueError`` that the user's own code did not raise is a sentence by
            itself.

    Raises:
        RecipeError: The code raised something that is no :class:`XclError`.
    """
    try:
        yield
    except XclError:
        raise
    except Exception as error:  # it raises what it likes
        whole = plain and isinstance(error, ValueError) and own_place(error) is None
        raise RecipeError(key, str(error) if whole else f"{doing}: {raised(error)}") from error
