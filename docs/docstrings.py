"""What the site needs besides the pages: docstrings whose references are written as Sphinx does."""

from __future__ import annotations

import re
from typing import Any

import griffe


class PlainReferences(griffe.Extension):
    """Show ``words`` and :func:`references` of docstrings as code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring is not None:
            obj.docstring.value = plain(obj.docstring.value)


def plain(text: str) -> str:
    """Return a docstring as Markdown."""
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    return text.replace("``", "`").replace("::\n", ":\n")
