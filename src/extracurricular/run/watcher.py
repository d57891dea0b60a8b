"""Who follows a run while it is at work: a progress bar, a log, or nobody."""

from __future__ import annotations

from typing import Protocol


class Watcher(Protocol):
    """Anything that follows how a run comes along."""

    def plan(self, steps: int, done: int) -> None:
        """Take the steps of the whole run, and how many of them are done already."""

    def begin(self, title: str, steps: int) -> None:
        """Take that a stage begins."""

    def advance(self, title: str, step: int, loss: float | None) -> None:
        """Take how many steps of the stage are done, and the loss if there is one."""

    def end(self, title: str, steps: int, seconds: float) -> None:
        """Take that a stage has ended."""

    def tell(self, text: str) -> None:
        """Take a sentence that a person should read."""


class Silent:
    """A watcher that does nothing."""

    def plan(self, steps: int, done: int) -> None:
        """Do nothing."""

    def begin(self, title: str, steps: int) -> None:
        """Do nothing."""

    def advance(self, title: str, step: int, loss: float | None) -> None:
        """Do nothing."""

    def end(self, title: str, steps: int, seconds: float) -> None:
        """Do nothing."""

    def tell(self, text: str) -> None:
        """Do nothing."""
