"""A teacher maps a batch of examples to a predictive distribution on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from extracurricular.distributions import Categorical, Distribution, epistemic
from extracurricular.errors import RecipeError, TrainingError, shorten
from extracurricular.inputs import Batch

# Larger than the id of any draw.
_NO_ID = torch.iinfo(torch.int64).max


@runtime_checkable
class Teacher(Protocol):
    """Anything that maps a batch to the teacher's predictive distribution on its examples."""

    def __call__(self, batch: Batch) -> Distribution:
        """Return the distribution for the B examples of ``batch``."""
        ...


def check_teacher(given: Any) -> None:
    """Refuse what cannot be a teacher.

    Raises:
        RecipeError: It is a torch module, which does not say how its outputs are read, or it cannot
            be called.
    """
    if isinstance(given, nn.Module):
        raise RecipeError(
            "teacher",
            f"is a {type(given).__name__}, a torch module; give xcl.Network(module, task) if it "
            "takes standardised inputs, or call xcl.distill, which finds out what it takes",
        )
    if isinstance(given, type) or not callable(given):
        raise RecipeError(
            "teacher",
            f"is {shorten(given)}; it must be a teacher, such as xcl.Network(module, task), "
            "xcl.OnnxTeacher(path, data) or xcl.LabelTeacher()",
        )


@runtime_checkable
class HasMembers(Teacher, Protocol):
    """A teacher with several members, whose disagreement is epistemic uncertainty."""

    def members(self, batch: Batch) -> list[Distribution]:
        """Return each member's distribution for the B examples of ``batch``."""
        ...


def epistemic_uncertainty(teacher: HasMembers, batch: Batch) -> Tensor:
    """Return the members' disagreement: mutual information [B], or variance of means [B, D]."""
    return epistemic(teacher.members(batch))


def on_draws(teacher: Teacher, sampler: Any) -> Teacher:
    """Return a teacher as it answers about the draws of a sampler.

    Most teachers look at the examples alone. One whose answers are stored
    (:class:`~extracurricular.knowledge.answers.StoredTeacher`) must know where examples come from.

    Raises:
        RecipeError: The sampler makes examples for which no answer is stored.
    """
    bind = getattr(teacher, "on_draws", None)
    return teacher if bind is None else cast(Teacher, bind(sampler))


def on_split(teacher: Teacher, part: str) -> Teacher:
    """Return a teacher as it answers about a split, for batches whose ids count its examples.

    Args:
        teacher: The teacher.
        part: ``train``, ``validation`` or ``test``.

    Raises:
        DataError: Its answers are stored, and an example of the split has none.
    """
    bind = getattr(teacher, "on_split", None)
    return teacher if bind is None else cast(Teacher, bind(part))


class Faults:
    """A record, on the device, of the draws for which a teacher gave NaN or infinity.

    Adding to it asks the device nothing.

    Args:
        device: Device of the answers.
    """

    def __init__(self, device: torch.device) -> None:
        # Number of draws in all and at fault, and the smallest id at fault.
        self._found = torch.zeros(3, dtype=torch.int64, device=device)
        self.clear()

    def clear(self) -> None:
        """Forget the draws so far."""
        self._found[:2].zero_()
        self._found[2:].fill_(_NO_ID)

    @torch.no_grad()
    def add(self, target: Distribution, ids: Tensor) -> None:
        """Look at the answers for some draws.

        Args:
            target: The teacher's distribution for B draws.
            ids: The draw ids, [B].
        """
        bad = _at_fault(target)
        draws, faulty, first = self._found.unbind()
        draws.add_(len(ids))
        faulty.add_(bad.sum())
        first.clamp_max_(torch.where(bad, ids, _NO_ID).amin())

    def gather(self, total: Callable[[Tensor], Tensor], least: Callable[[Tensor], Tensor]) -> None:
        """Take in what other processes noted.

        Args:
            total: Returns the sum of a tensor over all processes.
            least: Returns its least value over all of them.
        """
        counts, first = self._found[:2].clone(), self._found[2:].clone()
        self._found.copy_(torch.cat([total(counts), least(first)]))

    def check(self) -> None:
        """Refuse the draws at fault; this waits for the device.

        Raises:
            TrainingError: There are some; the sentence names their number and the smallest id.
        """
        draws, bad, first = self._found.tolist()
        if bad:
            raise _error([first], bad, draws)


def check_answer(target: Distribution, ids: Tensor) -> None:
    """Refuse a teacher's NaN or infinity.

    Args:
        target: The teacher's distribution for B draws.
        ids: The draw ids, [B].

    Raises:
        TrainingError: A parameter is not finite; the sentence names the draws.
    """
    bad = _at_fault(target)
    if bool(bad.any()):
        at_fault = ids[bad].tolist()
        raise _error(at_fault[:5], len(at_fault), len(ids))


def _at_fault(target: Distribution) -> Tensor:
    if isinstance(target, Categorical):
        # A logit of -inf masks a class; the largest shows NaN and infinity.
        return ~torch.isfinite(target.parameters.amax(-1))
    return ~torch.isfinite(target.parameters).all(-1)


def _error(ids: list[int], count: int, draws: int) -> TrainingError:
    shown = ", ".join(map(str, ids)) + (", …" if count > len(ids) else "")
    return TrainingError(
        f"the teacher gave NaN or infinity for {count} of {draws} draws: ids {shown}"
    )
