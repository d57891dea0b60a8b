"""The loss: the divergence D(q_T ‖ q_S) of a student from its teacher, as one number.

:class:`Matching` tempers both sides, adds the optional label term, applies the weights of outputs
and examples and takes the mean over examples. Nothing else in the package reduces a loss.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from extracurricular.data.base import Data
from extracurricular.distributions import (
    Distribution,
    Gaussian,
    Kind,
    Task,
    kind_of_distribution,
)
from extracurricular.errors import OldWordWarning, RecipeError, known_names
from extracurricular.inputs import Capturable, obstacle
from extracurricular.matching.class_weight import (
    ClassWeights,
    Weighing,
    check_class_weight,
    class_weights,
)
from extracurricular.matching.course import Course, ends, plain_course, read_course
from extracurricular.matching.divergences import (
    DIVERGENCES,
    Spec,
    at_temperature,
    find_divergence,
    traits_of,
)
from extracurricular.matching.smoothing import check_smoothing, smoothed_labels
from extracurricular.registry import check_settings, split_spec

BETA = 0.5
"""The ``beta`` of a forward KL between Gaussians, unless another is set."""


def weighted_mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """Return the mean over examples [B] of ``weight * values``; weights have mean 1."""
    return (values if weight is None else values * weight).mean()


@dataclass(frozen=True)
class Matching(Capturable):
    """The loss of one batch.

    ``(1 - label_weight) · T^k · D(teacher at T, student at T) + label_weight · NLL of the labels``,
    averaged over examples. T^k (for KL, T² for classes and labels, T for Gaussians; see
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
        divergence: The divergence: ``forward_kl``, ``reverse_kl``, ``js``, ``wasserstein``,
            ``energy``, ``dkd``, ``dist``, ``standardised`` or ``temperatures``; one with settings
            as ``{dkd: {beta: 2}}``.
        temperature: T, greater than 0; both sides are tempered. Either a number, or a course over
            the steps of the training, also as a recipe writes it (``{"linear": [8, 1]}``).
        label_weight: Weight of the label term, in [0, 1].
        beta: Power of the variance that weighs each output of Gaussians under ``forward_kl``, in
            [0, 1]; None for 0.5 there, and for 0 elsewhere.
        class_weight: Weights of the classes in what comes from labels, which is the whole loss of a
            student that learns from labels, and else the label term: ``balanced`` for
            n / (K · n_c), weights by the names of classes, or None for equal ones. An example of
            soft labels has their mean weight.
        label_smoothing: Part of each label that is spread evenly over all classes, in [0, 1), in
            what comes from labels; a label of 0 or 1 moves by half of it towards 0.5.
    """

    divergence: Spec = "forward_kl"
    temperature: float | Course = 1.0
    label_weight: float = 0.0
    beta: float | None = None
    class_weight: Weighing = None
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Check the settings."""
        try:
            name, _ = split_spec(self.divergence, "divergence", "divergence")
        except RecipeError as error:
            raise ValueError(str(error).replace(": is", " is", 1)) from None
        if ":" not in name and name not in DIVERGENCES:
            raise ValueError(
                f"unknown divergence {name!r}; {known_names(name, DIVERGENCES.names())}"
            )
        if ":" not in name:
            find_divergence(self.divergence, "divergence")
        check_smoothing(self.label_smoothing)
        if isinstance(self.temperature, Mapping):
            try:
                object.__setattr__(self, "temperature", read_course(self.temperature))
            except ValueError as error:
                raise ValueError(f"temperature {error}") from None
        if not all(0 < value < float("inf") for value in ends(self.temperature)):
            raise ValueError(
                f"temperature is {self.temperature}; it must be finite and greater than 0"
            )
        if not 0 <= self.label_weight <= 1:
            raise ValueError(f"label_weight is {self.label_weight}; it must be between 0 and 1")
        check_class_weight(self.class_weight)
        if self.beta is not None and not 0 <= self.beta <= 1:
            raise ValueError(f"beta is {self.beta}; it must be between 0 and 1")
        if self.beta and not self._weighs:
            raise ValueError(
                f"beta is {self.beta}, but the divergence is {self.divergence!r}; only "
                "'forward_kl' is weighed by the variance, so leave beta out"
            )

    @property
    def divergence_name(self) -> str:
        """The divergence without its settings."""
        return split_spec(self.divergence, "divergence", "divergence")[0]

    @property
    def _weighs(self) -> bool:
        """Whether the divergence can be weighed; the user's own are not imported to find out."""
        return ":" not in self.divergence_name and traits_of(self.divergence).weighs

    @property
    def relates(self) -> bool:
        """Whether the loss of an example depends on the others of its batch."""
        return traits_of(self.divergence).relates

    @property
    def obstacle(self) -> str | None:
        """The reason why a CUDA graph cannot hold the loss, as a clause; None if it can."""
        if ":" not in self.divergence_name:
            return None
        return obstacle(find_divergence(self.divergence))

    @property
    def last_temperature(self) -> float:
        """The temperature at the end of the training, at which mastery and prices are measured."""
        return ends(self.temperature)[-1]

    def beta_for(self, kind: Kind) -> float:
        """Return the ``beta`` that a task of this kind is trained with; 0 for none.

        Raises:
            ValueError: A ``beta`` is set, and the task has classes or labels of 0 and 1.
        """
        if kind != "regression":
            if self.beta:
                what = "classes" if kind == "classification" else "labels of 0 and 1"
                raise ValueError(
                    f"beta is {self.beta}, but {what} have no variance; leave beta out"
                )
            return 0.0
        if self.beta is None:
            return BETA if self._weighs else 0.0
        return self.beta

    def for_data(self, data: Data, from_labels: bool) -> Matching:
        """Return the loss with the weights of classes that it has for a data set.

        Args:
            data: The data set.
            from_labels: Whether the student learns from labels, so that they weigh the whole loss.

        Raises:
            ValueError: There are weights, but no classes, or nothing comes from labels.
        """
        if self.class_weight is None or isinstance(self.class_weight, ClassWeights):
            return self
        if not from_labels and self.label_weight == 0:
            raise ValueError(
                "class_weight weighs what comes from labels, but label_weight is 0; set "
                "label_weight, or leave class_weight out"
            )
        return replace(self, class_weight=class_weights(self.class_weight, data, from_labels))

    def __call__(
        self,
        student: Distribution,
        teacher: Distribution,
        y: Tensor | None = None,
        weight: Tensor | None = None,
        temperature: float | Tensor | None = None,
    ) -> Tensor:
        """Return the loss, a scalar; in nats for KL and Jensen-Shannon where beta is 0.

        Args:
            student, teacher: Distributions for the same B examples.
            y: Labels for the label term (see ``nll`` of the distributions).
            weight: Weight of each example, [B].
            temperature: The temperature of this step, maybe as a scalar on the device; needed only
                where it follows a course.

        Raises:
            ValueError: The temperature follows a course, and none is given; ``label_weight`` is
                positive but the examples have no labels; or ``beta`` is set but the student gives
                classes; or weights of classes were not resolved.
        """
        t, kind = (
            self.temperature if temperature is None else temperature,
            kind_of_distribution(student),
        )
        if isinstance(t, Course):
            raise ValueError(f"temperature is {t}; give the temperature of the step")
        beta = self.beta_for(kind)
        outputs: dict[str, Tensor] = {}
        if beta and isinstance(student, Gaussian):
            outputs["weight"] = student.var_to(beta)
        loss = at_temperature(find_divergence(self.divergence), teacher, student, t, **outputs)
        if self.label_weight > 0:
            if y is None:
                raise ValueError(
                    f"label_weight is {self.label_weight}, but the sampler gives examples without "
                    "labels; set it to 0 or draw labelled examples"
                )
            wanted = smoothed_labels(y, student, self.label_smoothing)
            term = student.nll(wanted, **outputs)
            if self.class_weight is not None and not self._classes.whole:
                term = term * self._classes.of(y)
            loss = torch.lerp(loss, term, self.label_weight)
        if self.class_weight is not None and self._classes.whole and y is not None:
            loss = loss * self._classes.of(y)
        return weighted_mean(loss, weight)

    @property
    def _classes(self) -> ClassWeights:
        if not isinstance(self.class_weight, ClassWeights):
            raise ValueError(f"class_weight is {self.class_weight}; resolve it with for_data")
        return self.class_weight


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


def build_matching(settings: Mapping[str, Any], key: str) -> Matching:
    """Return the loss that a recipe's section ``matching`` describes.

    Args:
        settings: The section.
        key: Its key in the recipe, for errors.

    Raises:
        RecipeError: A key is unknown, or a value is invalid.
    """
    given = dict(settings)
    if "temperature" in given:
        try:
            given["temperature"] = read_course(given["temperature"])
        except ValueError as error:
            raise RecipeError(f"{key}.temperature".strip("."), str(error)) from error
    checked = check_settings(Matching, given, key)
    try:
        return Matching(**checked)
    except RecipeError as error:
        raise RecipeError(f"{key}.{error.key}".strip("."), error.problem) from error
    except ValueError as error:
        raise RecipeError(key, str(error)) from error


def describe(matching: Matching, task: Task | None = None) -> dict[str, Any]:
    """Return the settings as plain values, with ``beta`` as it is resolved.

    Args:
        matching: The loss.
        task: The task that it trains; real outputs where None.

    Raises:
        ValueError: A ``beta`` is set, and the task has classes.
    """
    weights = matching.class_weight
    if isinstance(weights, ClassWeights):
        weights = list(weights.values)
    return {
        "divergence": _spelt_out(matching.divergence),
        "temperature": plain_course(matching.temperature),
        "label_weight": matching.label_weight,
        "beta": matching.beta_for("regression" if task is None else task.kind),
        # Losses from before there were these have none.
        **({} if weights is None else {"class_weight": weights}),
        **({"label_smoothing": smoothing} if (smoothing := matching.label_smoothing) else {}),
    }


def _spelt_out(spec: Spec) -> Spec:
    """Return a divergence with all its settings, as far as it is one of this package."""
    name, given = split_spec(spec, "divergence", "divergence")
    found: Any = None if ":" in name else find_divergence(spec)
    if found is None or not is_dataclass(found):
        return {name: given} if given else name
    settings = {one.name: getattr(found, one.name) for one in fields(found) if one.init}
    if "of" in settings:
        settings["of"] = _spelt_out(settings["of"])
    return {name: {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}}
