"""The settings of a training."""

from __future__ import annotations

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

from extracurricular.errors import shorten
from extracurricular.registry import explain_validation


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
            raise explain_validation(error, "", dict.fromkeys(cls.model_fields)) from None


class Training(BaseModel, metaclass=_InWords):
    """Settings of a training.

    Args:
        steps: Optimiser steps.
        batch_size: Examples a step, over all devices.
        optimizer: ``sgd`` (with Nesterov momentum) or ``adamw``.
        lr: Peak learning rate; it rises linearly for ``warmup`` steps, then follows ``schedule``.
        schedule: ``cosine`` or ``linear`` to 0 at the end; ``constant``; or ``steps``, which
            multiplies the rate by ``decay`` at each of ``milestones``.
        milestones: Parts of the whole training, between 0 and 1 and rising, so that they go with
            any number of steps. 150, 180 and 210 epochs of 240 are ``[0.625, 0.75, 0.875]``.
        decay: Factor of the rate at each milestone, in (0, 1].
        momentum: Momentum of ``sgd``.
        weight_decay: Applied to weights (matrices and kernels), not to biases and norms.
        warmup: Steps of the linear rise.
        clip_norm: Largest norm of the gradient; null for no limit.
        ema: Decay of an exponential moving average of the weights, which becomes the result; null
            for none.
        evaluate_every: Steps between evaluations on the validation split; 0 for only one at the
            end.
        checkpoint_every: Steps between checkpoints.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    steps: Annotated[int, Field(ge=1, le=MOST_STEPS)] = 2000
    batch_size: Annotated[int, Field(ge=1, le=MOST_BATCH)] = 64
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    schedule: Literal["cosine", "steps", "linear", "constant"] = "cosine"
    milestones: Annotated[tuple[float, ...], BeforeValidator(_read_milestones)] = ()
    decay: Annotated[float, Field(gt=0, le=1)] = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5e-4
    warmup: Annotated[int, Field(ge=0)] = 0
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    evaluate_every: Annotated[int, Field(ge=0)] = 0
    checkpoint_every: Annotated[int, Field(ge=1)] = 500

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
    """

    capture: Literal["auto", "off"] = "auto"
    compile: bool = False
