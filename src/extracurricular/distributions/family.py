"""A family: how the raw outputs of a network are read as distributions.

Each kind of task has a usual family (:data:`~extracurricular.distributions.FAMILIES`), whose
networks need no description. A richer one is described by a :class:`Family`, which a
:class:`~extracurricular.distributions.Task` carries. Its distributions are subclasses of the usual
ones, of which they have all figures (mean, deviation, probabilities), and know more.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, TypeAlias

from torch import Tensor

Kind: TypeAlias = Literal["classification", "regression", "multilabel"]
Match: TypeAlias = Literal["disagreement", "members"]
Members: TypeAlias = Literal["unused", "used", "needed"]


class Shaped:
    """Anything that knows its family; the usual distributions have none."""

    richer: ClassVar[bool] = False
    """Whether it knows more than the usual family of its kind."""

    @property
    def family(self) -> Family | None:
        """The family, by which :attr:`parameters` are read again; None for the usual one."""
        return None

    @property
    def disagreement(self) -> Tensor | None:
        """The part of its uncertainty that is an ensemble's disagreement; None if it knows none.

        Mutual information in nats, [B]; or the variance of the mean in squared units, [B, D].
        """
        return None

    def kl_from(self, teacher: Any, weight: Tensor | None = None) -> Tensor:
        """Return the divergence of a teacher from this one, if it is :attr:`richer`, [B]."""
        raise NotImplementedError

    def energy_from(self, teacher: Any) -> Tensor:
        """Return the energy distance from a teacher, if it is :attr:`richer`, [B]."""
        raise NotImplementedError


@dataclass(frozen=True)
class Family:
    """A richer family; its settings are those of a recipe.

    Args:
        kind: The kind of task that it answers.
        name: Its name in a recipe.
        noun: Its distributions, in the plural, for a person.
        matching: Settings of the loss that suit it, where a recipe says nothing.
        members: Whether it learns from each member of a teacher that has several.
        more: The outputs of an exported model besides the usual ones: for each its shape for an
            example, in which ``D`` is the number of targets, and a word for a person.
    """

    kind: ClassVar[Kind]
    name: ClassVar[str]
    noun: ClassVar[str]
    matching: ClassVar[dict[str, Any]] = {}
    members: ClassVar[Members] = "used"
    more: ClassVar[dict[str, tuple[str, str]]] = {}

    @property
    def spec(self) -> Any:
        """The family as a recipe writes it: its name, or the name with its settings."""
        given = {one.name: getattr(self, one.name) for one in fields(self)}
        return {self.name: given} if given else self.name

    def check(self, size: int) -> None:
        """Refuse a number of outputs that it cannot have.

        Raises:
            ValueError: It cannot.
        """

    def outputs(self, size: int) -> int:
        """Return the number of raw outputs for ``size`` targets or classes."""
        raise NotImplementedError

    def needs(self, size: int) -> str:
        """Return what the raw outputs are, as the end of a sentence."""
        raise NotImplementedError

    def read(self, output: Tensor, size: int) -> Any:
        """Read a network's raw output [B, outputs] as distributions."""
        raise NotImplementedError

    def stored(self, parameters: Tensor) -> Any:
        """Read what the ``parameters`` of such distributions were, unchanged."""
        raise NotImplementedError

    def named(self, said: Any) -> dict[str, Tensor]:
        """Return what an exported model gives besides the usual outputs, by :attr:`more`."""
        raise NotImplementedError

    def from_named(self, outputs: dict[str, Tensor], limit: float) -> Any:
        """Return the distributions of an exported model's outputs.

        Args:
            outputs: The outputs by name, [N, …].
            limit: The bound of log variances (:class:`~extracurricular.distributions.Gaussian`).
        """
        raise NotImplementedError


MEASURES: dict[str, Literal["place", "factor"]] = {
    "mean": "place",
    "lower": "place",
    "upper": "place",
    "quantiles": "place",
    "means": "place",
    "variance": "factor",
    "variances": "factor",
    "df": "factor",
    "precision": "factor",
    "epistemic_variance": "factor",
}
"""How two values of an exported output are compared: in units of the target, or by their ratio.

All others (probabilities, weights, correlations) are compared as they are.
"""
