"""Weights that a training leaves as they are."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from extracurricular.errors import RecipeError, known_names


class Frozen:
    """Some weights of a student, which get no gradients until they are thawed.

    Args:
        student: The network.
        patterns: Names of its weights, in which ``*`` stands for any text.

    Raises:
        RecipeError: A pattern is that of no weight, or nothing is left to train.
    """

    def __init__(self, student: nn.Module, patterns: Sequence[str]) -> None:
        named = dict(student.named_parameters())
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in named):
                known = known_names(pattern, named)
                raise RecipeError(
                    "training.freeze", f"has {pattern!r}, which is no weight; {known}"
                )
        chosen = {n for n in named if any(fnmatchcase(n, pattern) for pattern in patterns)}
        trained = {name for name, weight in named.items() if weight.requires_grad}
        if patterns and trained <= chosen:
            raise RecipeError(
                "training.freeze", f"is {list(patterns)}, which leaves no weight to train"
            )
        self._weights = [named[name] for name in sorted(chosen & trained)]
        frozen = {id(named[name]) for name in chosen}
        # A batch norm that learns nothing must not change its averages either.
        self._still = [
            part
            for part in student.modules()
            if (own := [id(weight) for weight in part.parameters()]) and set(own) <= frozen
        ]
        for weight in self._weights:
            weight.requires_grad_(False)

    def hold(self) -> None:
        """Put the layers all of whose weights are frozen in evaluation mode."""
        for part in self._still:
            part.eval()

    def thaw(self) -> None:
        """Let the weights have gradients again."""
        for weight in self._weights:
            weight.requires_grad_(True)
