"""The loss as a plain function, for a training loop of one's own."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from torch import Tensor

from extracurricular.distributions import Distribution, Kind, Task, kind_of_distribution
from extracurricular.errors import RecipeError, shorten
from extracurricular.matching.loss import Matching, build_matching


def matching(
    output: Any,
    teacher: Distribution,
    y: Tensor | None = None,
    weight: Tensor | None = None,
    **settings: Any,
) -> Tensor:
    """Return the divergence of a student from its teacher, averaged over a batch.

    ``xcl.matching(net(x), teacher, temperature=4)`` is the loss that a recipe with
    ``matching: {temperature: 4}`` trains with: both sides tempered, T² times the KL of classes.

    Args:
        output: The student's raw output, [B, K]: C logits, or D means and D log variances, as the
            teacher's distribution has classes or real values. A network's output of
            ``transformers`` will do, and so will a distribution.
        teacher: The teacher's distribution for the same B examples, as ``xcl.draws`` gives it.
        y: Labels, for ``label_weight``.
        weight: Weight of each example, [B].
        settings: Those of :class:`~extracurricular.matching.Matching`, such as ``divergence``,
            ``temperature`` and ``label_weight``.

    Returns:
        The loss, a scalar, with its gradient.

    Raises:
        RecipeError: A setting is unknown or has a wrong value, or the teacher is no distribution.
        ValueError: The output has another shape than the teacher's distribution asks for.
    """
    if not isinstance(teacher, Distribution):
        raise RecipeError(
            "teacher",
            f"is {shorten(type(teacher).__name__)}; it must be a distribution, such as "
            "xcl.Categorical(logits), as the batches of xcl.draws have it",
        )
    student = output if isinstance(output, Distribution) else _read(output, teacher)
    return _loss(**settings)(student, teacher, y, weight)


def _read(output: Any, teacher: Distribution) -> Distribution:
    kind: Kind = kind_of_distribution(teacher)
    return Task(kind, teacher.mean.shape[-1]).distribution(output)


def _loss(**settings: Any) -> Matching:
    try:
        return _built(tuple(sorted(settings.items())))
    except TypeError:  # a setting that is a dict, such as a course, has no hash
        return build_matching(settings, "")


@lru_cache(maxsize=64)
def _built(settings: tuple[tuple[str, Any], ...]) -> Matching:
    """Return a loss; reading its settings takes longer than a step of a small network."""
    return build_matching(dict(settings), "")
