"""Tell whoever watches how far the reading of data is; nobody does unless a program asks to.

The library prints nothing. A program that has a terminal sets a function with :func:`watched_by`,
which the reading of images and of large tables then calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TypeAlias

# Takes a title, the number of things to read (None if unknown) and a word for them; the block's
# function takes the number that is done.
Watch: TypeAlias = Callable[[str, int | None, str], AbstractContextManager[Callable[[int], None]]]

_WATCH: ContextVar[Watch | None] = ContextVar("watch", default=None)
# Less is read too soon to be watched.
FEWEST_IMAGES, FEWEST_BYTES = 256, 2**25


def watched_by(watch: Watch | None) -> Watch | None:
    """Have the reading of data in this thread watched from now on; return who watched before."""
    before = _WATCH.get()
    _WATCH.set(watch)
    return before


@contextmanager
def reading(
    title: str, total: int | None, noun: str, large: bool = True
) -> Iterator[Callable[[int], None]]:
    """Yield a function that tells how many things are read.

    Args:
        title: The work, such as ``reading images``.
        total: Number of things; None if it is not known before the end.
        noun: A word for them.
        large: Whether they are enough to be watched.
    """
    watch = _WATCH.get()
    if watch is None or not large:
        yield lambda done: None
        return
    with watch(title, total, noun) as tell:
        yield tell
