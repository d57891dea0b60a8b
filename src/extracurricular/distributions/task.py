"""What is predicted, and which family of distributions says it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from extracurricular.distributions.bernoulli import Bernoulli
from extracurricular.distributions.categorical import Categorical
from extracurricular.distributions.dirichlet import Ensembled
from extracurricular.distributions.family import Family, Kind
from extracurricular.distributions.gaussian import Gaussian, bent
from extracurricular.distributions.gaussian_mixture import GaussianMixture
from extracurricular.distributions.outputs import raw_output
from extracurricular.distributions.richer import Richer, moments_of

Distribution: TypeAlias = Categorical | Gaussian | Bernoulli

FAMILIES: dict[Kind, type[Categorical] | type[Gaussian] | type[Bernoulli]] = {
    "classification": Categorical,
    "regression": Gaussian,
    "multilabel": Bernoulli,
}
"""The usual family of each kind of task."""

_NEEDED = {
    "classification": "{0} logits",
    "regression": "{0} means and {0} log variances",
    "multilabel": "{0} logits, one for each label,",
}


def kind_of_distribution(distribution: Distribution) -> Kind:
    """Return the kind of task that a distribution answers."""
    return next(kind for kind, family in FAMILIES.items() if isinstance(distribution, family))


@dataclass(frozen=True)
class Task:
    """The kind and size of a prediction, which define how a network's raw output is read.

    Args:
        kind: ``"classification"``, ``"regression"`` or ``"multilabel"``.
        size: Number of classes C, of real outputs D, or of labels L.
        family: The family of distributions that outputs are read as; the usual one where None.
    """

    kind: Kind
    size: int
    family: Family | None = None

    @property
    def outputs(self) -> int:
        """Number of raw outputs a network needs: C or L logits, or D means and D log variances."""
        if self.family is not None:
            return self.family.outputs(self.size)
        return 2 * self.size if self.kind == "regression" else self.size

    @property
    def classes(self) -> int | None:
        """Number of classes; None where there are none."""
        return self.size if self.kind == "classification" else None

    @property
    def binary(self) -> bool:
        """Whether labels are of 0 and 1, each on its own."""
        return self.kind == "multilabel"

    @property
    def needs(self) -> str:
        """The raw outputs that a network needs, in words."""
        if self.family is not None:
            return self.family.needs(self.size)
        return _NEEDED[self.kind].format(self.size)

    @property
    def usual(self) -> Task:
        """The same task with the usual family."""
        return self if self.family is None else Task(self.kind, self.size)

    def distribution(self, output: Any) -> Distribution:
        """Read a network's raw output [B, outputs] as a distribution.

        A log variance that is far out is bent back towards ±14 (:func:`~.gaussian.bent`).

        Args:
            output: A tensor, or what :func:`~extracurricular.distributions.outputs.raw_output`
                finds one in.

        Raises:
            ValueError: The output has another shape, or no tensor in it.
        """
        output = raw_output(output)
        if output.ndim != 2 or output.shape[1] != self.outputs:
            raise ValueError(
                f"the network gave an output of shape {tuple(output.shape)}; "
                f"{self.kind} needs {self.needs} for each example"
            )
        if self.family is not None:
            return self.family.read(output, self.size)  # type: ignore[no-any-return]
        if self.kind == "regression":
            mean, log_var = output.chunk(2, dim=-1)
            return Gaussian(mean, bent(log_var))
        return FAMILIES[self.kind].from_output(output)


def mixture(members: Sequence[Distribution]) -> Distribution:
    """Return one distribution for an ensemble: averaged probabilities, or matched moments.

    Raises:
        ValueError: There are no members, or members of different kinds.
    """
    return _family(members).mixture(members)  # type: ignore[no-any-return]


def epistemic(members: Sequence[Distribution]) -> Tensor:
    """Return an ensemble's disagreement: mutual information [B], or variance of means [B, D].

    Raises:
        ValueError: There are no members, or members of different kinds.
    """
    return _family(members).epistemic(members)  # type: ignore[no-any-return]


def concatenate(parts: Sequence[Distribution]) -> Distribution:
    """Join batches to one with the examples of all parts, in order.

    Raises:
        ValueError: There are no parts, or parts of different kinds.
    """
    _family(parts)
    joined = torch.cat([part.parameters for part in parts])
    first = parts[0]
    if not isinstance(first, Gaussian):
        return reader_of(first)(joined)
    limit = max(part.limit for part in parts)  # type: ignore[union-attr]
    return replace(first.like(joined), limit=limit)


def together(members: Sequence[Distribution]) -> Distribution:
    """Return one distribution for an ensemble that still knows each member's answer.

    It is a mixture of Gaussians with a component for each member, or the mean probabilities with
    those of the members (:class:`~.dirichlet.Ensembled`).

    Raises:
        ValueError: There are no members, or labels of 0 and 1, whose members are not kept.
    """
    if members and all(isinstance(m, Gaussian) for m in members):
        return GaussianMixture.of_members(members)  # type: ignore[arg-type]
    if members and all(isinstance(m, Categorical) for m in members):
        logs = [m.log_probs for m in members]  # type: ignore[union-attr]
        return Ensembled.of(torch.stack(logs, dim=1))
    raise ValueError("an ensemble is kept apart for one or more members of classes or real targets")


def usual_of(said: Distribution) -> Distribution:
    """Return a distribution as the usual family has it: by mean and variance, or probabilities."""
    if isinstance(said, Richer):
        return moments_of(said)
    return Categorical(said.logits) if said.family is not None else said  # type: ignore[union-attr]


def reader_of(said: Distribution) -> Callable[[Tensor], Distribution]:
    """Return a function that reads the ``parameters`` of distributions of the same family."""
    return type(said).from_output if said.family is None else said.family.stored


def _family(members: Sequence[Distribution]) -> type[Any]:
    kinds = {type(m) for m in members}
    if len(kinds) != 1:
        raise ValueError("an ensemble needs one or more members, all of one family")
    return kinds.pop()
