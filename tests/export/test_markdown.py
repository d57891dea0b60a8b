"""Names of data are texts on a model card, whatever is in them."""

from __future__ import annotations

import html
import re

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from extracurricular.export.markdown import block, code, one_line, plain

NASTY = st.text(
    st.sampled_from(list("`*_[]()<>#|!&~\\ab \n\t-=+1.:/")) | st.characters(codec="utf-8"),
    max_size=30,
)
RENDER = MarkdownIt("commonmark")


def words(text: str) -> str:
    """A text as HTML shows it: blanks at ends and in a row do not count."""
    return " ".join(text.split())


@given(NASTY)
def test_code_is_read_as_code_alone(text: str) -> None:
    found = RENDER.renderInline(f"a {code(text)} b")
    match = re.fullmatch(r"a <code>(.*)</code> b", found, re.DOTALL)
    assert match is not None
    assert words(html.unescape(match[1])) == words(one_line(text))


@given(NASTY)
def test_plain_text_is_read_as_text_alone(text: str) -> None:
    found = RENDER.renderInline(f"a {plain(text)} b")
    assert "<" not in found
    assert words(html.unescape(found)) == words(f"a {one_line(text)} b")


@given(NASTY)
def test_nothing_ends_a_block_but_its_end(text: str) -> None:
    lines = "\n".join(text.splitlines()) + "\n"
    tokens = RENDER.parse(f"{block(lines, 'yaml')}\n\nafter")
    kinds = [token.type for token in tokens]
    assert kinds == ["fence", "paragraph_open", "inline", "paragraph_close"]
