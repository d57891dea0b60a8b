"""The settings of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from extracurricular.errors import RecipeError, shorten
from extracurricular.registry import explain_validation, split_spec
from extracurricular.training.optimizers import OPTIMIZERS, check_optimizer, refuse_closures


def _read_milestones(value: Any) -> tuple[float, ...]:
    if isinstance(value, list | tuple):
        parts = [v for v in value if isinstance(v, int | float) and not isinstance(v, bool)]
        within = all(0 < part < 1 for part in parts)
        if len(parts) == len(value) and within and all(a < b for a, b in pairwise(parts)):
            return tuple(float(part) for part in parts)
    raise ValueError(
        f"is {shorten(value)}; it must be a list of rising parts of the training, each between "
        "0 and 1, such as [0.625, 0.75, 0.875]"
    )


# Draws are counted in 64 bits, with room for several ids a draw; and a batch must fit somewhere.
MOST_BATCH, MOST_STEPS = 2**22, 2**36

RATES = {
    "sgd": 0.1, "adamw": 1e-2, "adam": 1e-2, "nadam": 1e-2, "rmsprop": 1e-2, "adagrad": 0.1,
    "lion": 1e-3,
}  # fmt: skip
"""The learning rate of each optimiser, where none is set."""

WEIGHT_DECAY = 5e-4
"""The weight decay beside a rate that is set."""


def _read_optimizer(value: Any) -> Any:
    if value is None:
        return None
    try:
        name, given = split_spec(value, "optimizer", "")
        # Whose code it is imports nothing yet: a recipe may be read to be looked at.
        refuse_closures(name, "")
        if not OPTIMIZERS.names_own_code(name):
            check_optimizer(value, "")
    except RecipeError as error:
        where = f"{error.key}: " if error.key else ""
        raise ValueError(f"{where}{error.problem}") from None
    return {name: given} if given else name


def _read_patterns(value: Any) -> tuple[str, ...]:
    if isinstance(value, list | tuple) and all(isinstance(part, str) and part for part in value):
        return tuple(value)
    raise ValueError(
        f"is {shorten(value)}; it must be a list of names of weights, in which * stands for any "
        "text, such as ['stem.*', 'stage1.*']"
    )


class _InWords(type(BaseModel)):  # type: ignore[misc]
    """Tells a wrong setting of ``Training(…)`` in one sentence; a recipe has its own keys."""

    def __call__(cls, *arguments: Any, **settings: Any) -> Any:
        """Make the settings.

        Raises:
            RecipeError: One is unknown or has a wrong value.
        """
        try:
            return super().__call__(*arguments, **settings)
        except ValidationError as error:
            known = dict.fromkeys(cls.model_fields)
            raise explain_validation(error, "", known, settings) from None


class Training(BaseModel, metaclass=_InWords):
    """Settings of a training.

    Args:
        steps: Optimiser steps.
        batch_size: Examples a step, over all devices.
        optimizer: ``sgd`` (with Nesterov momentum), ``adamw``, ``adam``, ``nadam``, ``rmsprop``,
            ``adagrad``, ``lion``, or ``module:Class`` of your own; null for ``sgd`` where ``lr`` is
            set or a convolutional network learns classes, and for ``adamw`` elsewhere.
        lr: Peak learning rate; it rises linearly for ``warmup`` steps, then follows ``schedule``.
            Null for 0.1 with ``sgd``; with ``adamw`` for 0.01, or 0.001 in convolutional networks.
            An optimiser of your own needs it.
        schedule: ``cosine`` or ``linear`` to 0 at the end; ``constant``; or ``steps``, which
            multiplies the rate by ``decay`` at each of ``milestones``.
        milestones: Parts of the whole training, between 0 and 1 and rising, so that they go with
            any number of steps. 150, 180 and 210 epochs of 240 are ``[0.625, 0.75, 0.875]``.
        decay: Factor of the rate at each milestone, in (0, 1].
        momentum: Momentum of ``sgd``.
        weight_decay: Applied to weights (matrices and kernels), not to biases and norms. Null for
            5e-4; where ``adamw`` has no ``lr`` either, for 1 with real targets, which keeps the
            variances of small tables from shrinking, and for 0.1 with classes.
        warmup: Steps of the linear rise.
        clip_norm: Largest norm of the gradient; null for no limit.
        ema: Decay of an exponential moving average of the weights, which becomes the result; null
            for none.
        evaluate_every: Steps between evaluations on the validation split; 0 for only one at the
            end.
        checkpoint_every: Steps between checkpoints.
        accumulate: Parts that the examples of a step are cut into, whose gradients are added before
            the one step of the optimiser. So a large batch needs the memory of a small one.
        freeze: Weights that stay as they are, by their names, in which ``*`` stands for any text
            (``stem.*``). A layer all of whose weights are frozen stays in evaluation mode, so that
            its batch norms and dropout do.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    steps: Annotated[int, Field(ge=1, le=MOST_STEPS)] = 2000
    batch_size: Annotated[int, Field(ge=1, le=MOST_BATCH)] = 64
    optimizer: Annotated[Any, BeforeValidator(_read_optimizer)] = None
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    schedule: Literal["cosine", "steps", "linear", "constant"] = "cosine"
    milestones: Annotated[tuple[float, ...], BeforeValidator(_read_milestones)] = ()
    decay: Annotated[float, Field(gt=0, le=1)] = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    warmup: Annotated[int, Field(ge=0)] = 0
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    evaluate_every: Annotated[int, Field(ge=0)] = 0
    checkpoint_every: Annotated[int, Field(ge=1)] = 500
    accumulate: Annotated[int, Field(ge=1)] = 1
    freeze: Annotated[tuple[str, ...], BeforeValidator(_read_patterns)] = ()

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        # Beside a rate of one's own they are what they always were.
        if isinstance(values, Mapping) and values.get("lr") is not None:
            given = {key: value for key, value in values.items() if value is not None}
            usual = {"optimizer": "sgd", "weight_decay": WEIGHT_DECAY}
            return {**values, **usual, **given}
        return values

    @property
    def shrinkage(self) -> float:
        """The weight decay, also where it is null and no network has decided it."""
        return WEIGHT_DECAY if self.weight_decay is None else self.weight_decay

    @property
    def rate(self) -> float:
        """The peak learning rate, also where ``lr`` is null and no network has decided it."""
        return RATES[self.optimizer_name] if self.lr is None else self.lr

    @property
    def optimizer_name(self) -> str:
        """The optimiser without its settings; ``sgd`` where no network has decided it."""
        return split_spec(self.optimizer or "sgd", "optimizer", "optimizer")[0]

    @model_validator(mode="after")
    def _check_steps(self) -> Training:
        name = self.optimizer_name
        if self.lr is None and name not in RATES:
            raise ValueError(f"lr is not set, and the optimizer {name!r} has no usual one; set lr")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate is {self.accumulate}, but batch_size, {self.batch_size}, cannot be "
                "cut into so many equal parts"
            )
        return self

    @model_validator(mode="after")
    def _check_schedule(self) -> Training:
        if self.schedule == "steps" and not self.milestones:
            raise ValueError(
                "schedule is 'steps', which needs milestones, parts of the training such as "
                "[0.625, 0.75, 0.875]"
            )
        usual = Training.model_fields["decay"].default
        if self.schedule != "steps" and (self.milestones or self.decay != usual):
            key = "milestones" if self.milestones else "decay"
            raise ValueError(
                f"{key} is set, but schedule is {self.schedule!r}; set schedule to 'steps', or "
                f"remove {key}"
            )
        return self


@dataclass(frozen=True)
class Execution:
    """How the steps of a training are carried out, which changes its numbers by rounding alone.

    Args:
        capture: ``auto`` replays draws and steps as CUDA graphs, on CUDA devices and where they can
            be captured; ``off`` launches each operation from Python.
        compile: Whether ``torch.compile`` compiles the student.
        sync_batchnorm: Whether batch norms take their statistics over the batch of all devices, as
            one device would. If False, those of each device are other ones, and the numbers depend
            on the number of devices.
    """

    capture: Literal["auto", "off"] = "auto"
    compile: bool = False
    sync_batchnorm: bool = True
