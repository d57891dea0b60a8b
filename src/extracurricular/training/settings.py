"""The settings of a training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Training(BaseModel):
    """Settings of a training.

    Args:
        steps: Optimiser steps.
        batch_size: Examples a step, over all devices.
        optimizer: ``sgd`` (with Nesterov momentum) or ``adamw``.
        lr: Peak learning rate; it rises linearly for ``warmup`` steps, then falls as a cosine to 0.
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

    steps: Annotated[int, Field(ge=1)] = 2000
    batch_size: Annotated[int, Field(ge=1)] = 64
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5e-4
    warmup: Annotated[int, Field(ge=0)] = 0
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    evaluate_every: Annotated[int, Field(ge=0)] = 0
    checkpoint_every: Annotated[int, Field(ge=1)] = 500


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
