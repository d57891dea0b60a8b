"""Watchers follow a run while it is at work: a progress bar, a log, or nobody."""

from __future__ import annotations

from typing import Protocol


class Watcher(Protocol):
    """Anything that follows a run."""

    def plan(self, steps: int, done: int) -> None:
        """Receive the steps of the whole run, and the number that is done already."""

    def begin(self, title: str, steps: int) -> None:
        """Receive the title and the steps of a stage that begins."""

    def advance(self, title: str, step: int, loss: float | None) -> None:
        """Receive the steps of a stage that are done, and the loss if there is one."""

    def end(self, title: str, steps: int, seconds: float, problem: str = "") -> None:
        """Receive the title, the steps and the seconds of a stage that has ended.

        ``problem`` says why its result is good for nothing; it is empty, or not given, elsewhere.
        """

    def tell(self, text: str) -> None:
        """Receive a sentence for the user."""


class Silent:
    """A watcher that does nothing."""

    def plan(self, steps: int, done: int) -> None:
        """Do nothing."""

    def begin(self, title: str, steps: int) -> None:
        """Do nothing."""

    def advance(self, title: str, step: int, loss: float | None) -> None:
        """Do nothing."""

    def end(self, title: str, steps: int, seconds: float, problem: str = "") -> None:
        """Do nothing."""

    def tell(self, text: str) -> None:
        """Do nothing."""
