"""The loss: the divergence D(q_T ‖ q_S) of a student from its teacher, as one number.

Divergences are functions of two distributions that return one number per example, [B], summed over
outputs. :class:`Matching` tempers both sides, adds the optional label term, applies the weights of
outputs and examples and takes the mean over examples. Nothing else in the package reduces a loss.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from extracurricular.distributions import Categorical, Distribution, Gaussian, Task
from extracurricular.errors import OldWordWarning, known_names
from extracurricular.inputs import Capturable, obstacle
from extracurricular.registry import Registry

DIVERGENCES: Registry[Tensor] = Registry("divergence")
BETA = 0.5
"""The ``beta`` of a forward KL between Gaussians, unless another is set."""

Kind: TypeAlias = Literal["classification", "regression"]
Divergence: TypeAlias = Callable[..., Tensor]


@dataclass(frozen=True)
class Traits:
    """The properties of a divergence that its formula does not show.

    Args:
        no_labels: The reason why it cannot learn from labels, as a clause that begins with
            "which", for the kinds of tasks whose labels it does not take.
        power: For the kinds of tasks where it is not that of the distributions
            (``temperature_power``): the power of T that keeps gradients comparable.
        weighs: Whether it takes ``weight``, a weight for each output of Gaussians, [B, D].
    """

    no_labels: Mapping[Kind, str] = field(default_factory=dict)
    power: Mapping[Kind, float] = field(default_factory=dict)
    weighs: bool = False


_TRAITS: dict[Divergence, Traits] = {}


def with_traits(traits: Traits) -> Callable[[Divergence], Divergence]:
    """Return a decorator that notes the traits of a divergence; one without has the defaults."""

    def note(divergence: Divergence) -> Divergence:
        _TRAITS[divergence] = traits
        return divergence

    return note


def traits_of(divergence: str) -> Traits:
    """Return the traits of a divergence, by its name.

    Raises:
        RecipeError: There is no such divergence, or it cannot be imported.
    """
    return _TRAITS.get(DIVERGENCES.find(divergence)[0], Traits())


@DIVERGENCES.register("forward_kl")
@with_traits(Traits(weighs=True))
def forward_kl(
    teacher: Distribution, student: Distribution, weight: Tensor | None = None
) -> Tensor:
    """Return KL(teacher ‖ student) in nats, [B]; the student must cover all the teacher believes.

    For labels, which are point masses, this is the negative log-likelihood.

    Args:
        teacher, student: Distributions of one kind for the same examples.
        weight: Weight of each output of Gaussians, [B, D]; equal weights where None.
    """
    _same(teacher, student)
    if weight is None:
        return teacher.kl(student)  # type: ignore[arg-type]
    assert isinstance(teacher, Gaussian)
    assert isinstance(student, Gaussian)
    return teacher.kl(student, weight)


_INFINITE = "which is infinite from labels"


@DIVERGENCES.register("reverse_kl")
@with_traits(Traits(no_labels={"classification": _INFINITE, "regression": _INFINITE}))
def reverse_kl(teacher: Distribution, student: Distribution) -> Tensor:
    """Return KL(student ‖ teacher) in nats, [B]; the student must believe nothing else."""
    return _same(teacher, student).kl(teacher)  # type: ignore[arg-type]


@DIVERGENCES.register("js")
@with_traits(Traits(no_labels={"regression": "which real-valued labels do not have"}))
def js(teacher: Distribution, student: Distribution) -> Tensor:
    """Return the Jensen-Shannon divergence in nats, [B]: symmetric, at most log 2 for classes."""
    return teacher.js(_same(teacher, student))  # type: ignore[arg-type]


@DIVERGENCES.register("wasserstein")
@with_traits(Traits(power={"classification": 1, "regression": 0}))
def wasserstein(teacher: Distribution, student: Distribution) -> Tensor:
    """Return the squared 2-Wasserstein distance, [B]: symmetric, and at most 1 for classes.

    For Gaussians it is (μ - μ')² + (σ - σ')², summed over outputs, so the gradient of the mean
    does not depend on any variance (:meth:`~extracurricular.distributions.Gaussian.wasserstein`).
    A label has σ = 0: from labels alone, the student learns the mean and no uncertainty.

    Classes have no distance, so any two count as 1 apart. The squared distance is then the total
    variation ½ Σ |p - q| (Levin and Peres 2017, "Markov Chains and Mixing Times", proposition 4.7),
    which is 1 - q_y from a label y.
    """
    _same(teacher, student)
    if isinstance(teacher, Gaussian) and isinstance(student, Gaussian):
        return teacher.wasserstein(student)
    return 0.5 * (teacher.probs - student.probs).abs().sum(-1)  # type: ignore[union-attr]


@DIVERGENCES.register("energy")
@with_traits(Traits(power={"regression": 0.5}))
def energy(teacher: Distribution, student: Distribution) -> Tensor:
    """Return the energy distance 2 E d(X, Y) - E d(X, X') - E d(Y, Y'), [B]: symmetric.

    For Gaussians d is the distance of real numbers, and outputs add up
    (:meth:`~extracurricular.distributions.Gaussian.energy`). From a label it is twice the
    continuous ranked probability score. That is a proper score, so the student learns mean and
    variance from labels too (Gneiting and Raftery 2007, section 4.2).

    Any two classes count as 1 apart, which gives Σ (p - q)²: from a label, the Brier score
    (Gneiting and Raftery 2007, section 3).
    """
    _same(teacher, student)
    if isinstance(teacher, Gaussian) and isinstance(student, Gaussian):
        return teacher.energy(student)
    return (teacher.probs - student.probs).square().sum(-1)  # type: ignore[union-attr]


def _same(teacher: Distribution, student: Distribution) -> Distribution:
    if type(teacher) is not type(student):
        raise ValueError(
            f"the teacher gives a {type(teacher).__name__}, "
            f"the student a {type(student).__name__}; they must give the same kind of distribution"
        )
    return student


def weighted_mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """Return the mean over examples [B] of ``weight * values``; weights have mean 1."""
    return (values if weight is None else values * weight).mean()


@dataclass(frozen=True)
class Matching(Capturable):
    """The loss of one batch.

    ``(1 - label_weight) · T^k · D(teacher at T, student at T) + label_weight · NLL of the labels``,
    averaged over examples. T^k (for KL, T² for classes and T for Gaussians; see
    ``temperature_power`` and :class:`Traits`) keeps the size of the gradients across temperatures.

    The KL of a Gaussian weighs the error of the mean by 1 / σ² of the student, so that the mean
    hardly learns as long as σ² is large. ``beta`` multiplies the loss of each output, in both
    terms, by the student's own σ^(2 beta), held constant in the gradient: the β-NLL of Seitzer et
    al., ICLR 2022, "On the Pitfalls of Heteroscedastic Uncertainty Estimation with Probabilistic
    Neural Networks". With 1 the gradient of the mean does not depend on σ², with 0 the loss is the
    plain KL. σ² is the variance before it is tempered: in T · KL the temperature has left the
    gradient of the mean already, and the tempered σ² would bring it back as T^beta.

    The loss is for training alone. What is reported as NLL or KL comes from the distributions.

    Args:
        divergence: Name of the divergence: ``forward_kl``, ``reverse_kl``, ``js``,
            ``wasserstein`` or ``energy``.
        temperature: T, greater than 0; both sides are tempered.
        label_weight: Weight of the label term, in [0, 1].
        beta: Power of the variance that weighs each output of Gaussians under ``forward_kl``, in
            [0, 1]; None for 0.5 there, and for 0 elsewhere.
    """

    divergence: str = "forward_kl"
    temperature: float = 1.0
    label_weight: float = 0.0
    beta: float | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        if ":" not in self.divergence and self.divergence not in DIVERGENCES:
            known = known_names(self.divergence, DIVERGENCES.names())
            raise ValueError(f"unknown divergence {self.divergence!r}; {known}")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(
                f"temperature is {self.temperature}; it must be finite and greater than 0"
            )
        if not 0 <= self.label_weight <= 1:
            raise ValueError(f"label_weight is {self.label_weight}; it must be between 0 and 1")
        if self.beta is not None and not 0 <= self.beta <= 1:
            raise ValueError(f"beta is {self.beta}; it must be between 0 and 1")
        if self.beta and not self._weighs:
            raise ValueError(
                f"beta is {self.beta}, but the divergence is {self.divergence!r}; only "
                "'forward_kl' is weighed by the variance, so leave beta out"
            )

    @property
    def _weighs(self) -> bool:
        """Whether the divergence can be weighed; the user's own are not imported to find out."""
        return ":" not in self.divergence and traits_of(self.divergence).weighs

    @property
    def obstacle(self) -> str | None:
        """The reason why a CUDA graph cannot hold the loss, as a clause; None if it can."""
        if ":" not in self.divergence:
            return None
        return obstacle(DIVERGENCES.find(self.divergence)[0])

    def beta_for(self, kind: Kind) -> float:
        """Return the ``beta`` that a task of this kind is trained with; 0 for none.

        Raises:
            ValueError: A ``beta`` is set, and the task has classes.
        """
        if kind == "classification":
            if self.beta:
                raise ValueError(
                    f"beta is {self.beta}, but classes have no variance; leave beta out"
                )
            return 0.0
        if self.beta is None:
            return BETA if self._weighs else 0.0
        return self.beta

    def __call__(
        self,
        student: Distribution,
        teacher: Distribution,
        y: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Return the loss, a scalar; in nats for KL and Jensen-Shannon where beta is 0.

        Args:
            student, teacher: Distributions for the same B examples.
            y: Labels for the label term (see ``nll`` of the distributions).
            weight: Weight of each example, [B].

        Raises:
            ValueError: ``label_weight`` is positive but the examples have no labels, or ``beta``
                is set but the student gives classes.
        """
        divergence, _ = DIVERGENCES.find(self.divergence)
        t, kind = self.temperature, _kind(student)
        beta = self.beta_for(kind)
        outputs: dict[str, Tensor] = {}
        if beta and isinstance(student, Gaussian):
            outputs["weight"] = student.var_to(beta)
        loss: Tensor = divergence(teacher.tempered(t), student.tempered(t), **outputs)
        traits = _TRAITS.get(divergence, Traits())
        power = traits.power.get(kind, student.temperature_power)
        loss = loss * (t**power)
        if self.label_weight > 0:
            if y is None:
                raise ValueError(
                    f"label_weight is {self.label_weight}, but the sampler gives examples without "
                    "labels; set it to 0 or draw labelled examples"
                )
            loss = torch.lerp(loss, student.nll(y, **outputs), self.label_weight)
        return weighted_mean(loss, weight)


def _kind(distribution: Distribution) -> Kind:
    return "classification" if isinstance(distribution, Categorical) else "regression"


def _accept_hard(init: Callable[..., None]) -> Callable[..., None]:
    """Return a constructor that also takes ``hard``, the old name of ``label_weight``."""

    @wraps(init)
    def accept(self: Matching, *arguments: Any, **settings: Any) -> None:
        if "hard" in settings and "label_weight" not in settings:
            warnings.warn(
                "hard of Matching is called label_weight now; the next release takes only that",
                OldWordWarning,
                stacklevel=2,
            )
            settings["label_weight"] = settings.pop("hard")
        init(self, *arguments, **settings)

    return accept


# The signature stays that of the dataclass, from which the settings of recipes are read.
Matching.__init__ = _accept_hard(Matching.__init__)  # type: ignore[method-assign]


def describe(matching: Matching, task: Task | None = None) -> dict[str, Any]:
    """Return the settings as plain values, with ``beta`` as it is resolved.

    Args:
        matching: The loss.
        task: The task that it trains; real outputs where None.

    Raises:
        ValueError: A ``beta`` is set, and the task has classes.
    """
    return {
        "divergence": matching.divergence,
        "temperature": matching.temperature,
        "label_weight": matching.label_weight,
        "beta": matching.beta_for("regression" if task is None else task.kind),
    }
