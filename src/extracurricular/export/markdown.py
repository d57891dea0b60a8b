"""Names of data in Markdown, where they must not be read as markup."""

from __future__ import annotations

import re

# What ends a line, steers a terminal or turns the direction of writing.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|!&~])")


def plain(text: str) -> str:
    """Return text that Markdown shows as it is, in one line."""
    return _MARKUP.sub(r"\\\1", one_line(text))


def code(text: str) -> str:
    """Return text as code within a line."""
    line = one_line(text)
    fence = "`" * (_longest_run(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") or not line.strip() else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def block(text: str, language: str) -> str:
    """Return lines of text as a block of code, which nothing in them ends."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text}{fence}"


def one_line(text: str) -> str:
    """Return text without what ends a line or is not seen; a blank stands for it."""
    return _UNSEEN.sub(" ", text)


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
