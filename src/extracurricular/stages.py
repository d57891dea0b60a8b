"""One stage of a run: a network to train, all that its result depends on, and who watches it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from extracurricular.recipe import Recipe
from extracurricular.storage import first_difference as first_difference
from extracurricular.training import Training


class Watcher(Protocol):
    """What wants to know how a run comes along."""

    def plan(self, steps: int, done: int) -> None:
        """Tell the student and teacher steps of the whole run, and those that are done already."""

    def begin(self, title: str, steps: int) -> None:
        """Tell that a stage begins."""

    def advance(self, step: int, loss: float) -> None:
        """Tell how many steps of the stage are done."""

    def end(self, title: str, steps: int, seconds: float) -> None:
        """Tell that a stage has ended."""


@dataclass(frozen=True)
class Stage:
    """One network to train.

    Args:
        path: Its folder, relative to the run.
        title: What a person calls it.
        key: Where its settings stand in the recipe.
        model: Spec of the network.
        sampler: Chain of the sampler.
        training: How it is trained.
        seed: Seed of everything in it.
        matching: Settings of the loss.
        learns_from: ``labels`` or ``teacher``.
        upstream: Settings of the stages it depends on.
    """

    path: str
    title: str
    key: str
    model: Any
    sampler: Any
    training: Training
    seed: int
    matching: dict[str, Any] = field(default_factory=dict)
    learns_from: str = "labels"
    upstream: tuple[dict[str, Any], ...] = ()

    def settings(self, recipe: Recipe) -> dict[str, Any]:
        """All that the result depends on, as plain values."""
        training = self.training.model_dump(mode="json")
        for key in ("evaluate_every", "checkpoint_every"):
            del training[key]
        return {
            "data": recipe.data,
            "model": self.model,
            "sampler": self.sampler,
            "training": training,
            "matching": self.matching,
            "learns_from": self.learns_from,
            "seed": self.seed,
            "precision": recipe.device.precision,
            "upstream": list(self.upstream),
        }
