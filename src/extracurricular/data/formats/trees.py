"""List the folders and images in a folder, a zip or a tar alike."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from extracurricular.data.formats.checksums import FILE
from extracurricular.data.formats.examples import image_names, is_hidden, is_image_name
from extracurricular.data.images.packed import Store, open_store
from extracurricular.errors import DataError


class Tree:
    """The folders and images of a folder or an archive, by their paths in it.

    Args:
        root: The folder or archive. Of an archive with one folder at its top, this folder.

    Attributes:
        store: Opens the images; names in it begin with :attr:`top`.
        top: Path of the tree in the store: empty, or a folder and ``/``.
        passed: Paths of what was listed and passed over
            (:func:`~extracurricular.data.formats.examples.told_passed`).

    Raises:
        DataError: There is no such folder or archive, or it cannot be read.
    """

    def __init__(self, root: Path) -> None:
        self.store: Store = open_store(root)
        self.root = root
        self.passed: dict[str, None] = {}
        self.top = ""
        if self.store.members is not None:
            found = self._archived("")
            files = any("/" not in name for name in self._names)
            self.top = f"{found[0]}/" if len(found) == 1 and not files else ""
            self.passed = dict.fromkeys(name for name in self.store.members if _is_odd(name))

    @cached_property
    def _names(self) -> list[str]:
        """Names of all members that are not hidden; those of folders end in ``/``."""
        return sorted(
            name
            for name in self.store.members or ()
            if not any(is_hidden(part) for part in name.split("/"))
        )

    def _under(self, prefix: str) -> list[str]:
        """Return the members whose names begin so, without that beginning."""
        start = bisect_left(self._names, prefix)
        # No sign comes after this one.
        end = bisect_left(self._names, f"{prefix}\U0010ffff")
        return [name[len(prefix) :] for name in self._names[start:end]]

    def folders(self, inside: str = "") -> list[str]:
        """Return the names of the folders that lie directly in one, without hidden ones."""
        if self.store.members is not None:
            return self._archived(self.top + inside)
        folder = self.root / inside
        try:
            entries = sorted(folder.iterdir())
        except OSError as error:
            why = f"the folder {str(folder)!r} cannot be read: {error.strerror}"
            raise DataError(why) from error
        shown = [entry for entry in entries if not is_hidden(entry.name)]
        found = [entry.name for entry in shown if entry.is_dir()]
        other = [e.name for e in entries if e.name not in found and e.name != FILE]
        self.passed |= dict.fromkeys(inside + name for name in other)
        _check_names(self.where(inside), found)
        return found

    def _archived(self, prefix: str) -> list[str]:
        return sorted({name.partition("/")[0] for name in self._under(prefix) if "/" in name})

    def images(self, inside: str = "") -> list[str]:
        """Return the paths of the images in a folder and those below, within that folder.

        Args:
            inside: The folder; empty, or its path with a ``/`` at its end.
        """
        if self.store.members is None:
            passed: list[str] = []
            found = image_names(self.root / inside, passed)
            self.passed |= dict.fromkeys(inside + name for name in passed)
            _check_names(self.where(inside), found)
            return found
        return [name for name in self._under(self.top + inside) if is_image_name(name)]

    def where(self, inside: str = "") -> str:
        """Return a folder as a sentence names it."""
        return f"the {self.store.noun} {str(self.root / inside)!r}"


def _check_names(where: str, names: Sequence[str]) -> None:
    """Refuse names that no file of a run could hold.

    Raises:
        DataError: A name is not UTF-8.
    """
    for name in names:
        # The system gives bytes that are no text as lone surrogates.
        if any("\ud800" <= sign <= "\udfff" for sign in name):
            raise DataError(
                f"{where} has the name {os.fsencode(name)!r}, which is not UTF-8; rename it"
            )


def _is_odd(name: str) -> bool:
    """Return whether a member of an archive is neither a folder nor an image that is shown."""
    hidden = any(is_hidden(part) for part in name.split("/"))
    return not name.endswith("/") and (hidden or not is_image_name(name))


def find_store(root: Path, names: Sequence[str]) -> tuple[Store, str]:
    """Return where images lie that are given by name, and what has to stand before their names.

    A zip often has one folder at its top that the names do not have.

    Raises:
        DataError: There is no such folder or archive, or it cannot be read.
    """
    store = open_store(root)
    if store.members is None or any(name in store for name in names[:100]):
        return store, ""
    top = Tree(root).top
    return store, top if any(top + name in store for name in names[:100]) else ""
