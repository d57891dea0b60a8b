"""Torch modules as teachers, whichever units they take: raw values or standardised ones.

Networks trained here take standardised inputs. A module that somebody trained elsewhere mostly
takes values as they are in the data, and nothing in it says so. So it is asked both ways, and its
answers are compared with the labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from extracurricular.data.base import Data, Split, spaced
from extracurricular.data.target_transform import transformed_errors
from extracurricular.distributions import Bernoulli, Categorical, Distribution
from extracurricular.distributions.outputs import raw_output
from extracurricular.errors import RecipeError
from extracurricular.evaluation.predict import predict
from extracurricular.inputs import Batch, Inputs, batch_size, hard_labels
from extracurricular.teachers import NetworkTeacher, Teacher
from extracurricular.teachers.prepared import PROBE, prepare
from extracurricular.teachers.raw import LEAST_STD, Array, Arrays, FunctionTeacher, raw_arrays

# Examples that a module is tried on: at most so many, and the training split where the validation
# split has fewer than the least.
_MOST, _LEAST = 4096, 30
# Part of a constant's error that is rounding, and no evidence.
_MARGIN = 1e-3


def module_teacher(module: nn.Module, data: Data, raw: bool | None = None) -> Teacher:
    """Return a torch module as a teacher.

    A module that takes raw values gets floats, images of bytes as numbers from 0 to 255, and gives
    logits for classes and labels; for real targets means [B, D], or means and log variances
    [B, 2 D], in the target's own units. Means alone get a deviation for each target: the root of
    the mean squared error on the examples below. A module that takes standardised values gives
    what a network of this package gives.

    Where ``raw`` is None, a fixed rule decides. The module is asked both ways on up to 4,096
    examples of the validation split, or of the training split if validation has fewer than 30. The
    way with the lower error is taken: by accuracy for classes and labels, by RMSE for real targets.
    If they are equal, the lower negative log-likelihood decides, and then the standardised way.

    Args:
        module: The module. It is moved to the device of the data and put in evaluation mode.
        data: The data set.
        raw: Whether it takes raw values; found out where None.

    Raises:
        RecipeError: It cannot be asked; or, where ``raw`` is None, it is no better than a constant
            either way.
    """
    module.to(data.device).eval()
    if raw is False:
        return _standardised(module, data)
    if raw is True:
        return _raw(module, data)
    tried = _tried(data)
    if tried is None:
        raise RecipeError("raw", "is needed: the data have no labels to find out by; give raw=True "
                          "if the teacher takes raw values, else raw=False")  # fmt: skip
    ways: list[_Way] = []
    problems: list[Exception] = []
    makers: list[tuple[str, Callable[[nn.Module, Data], Teacher]]]
    makers = [("standardised", _standardised), ("raw", _raw)]
    for name, make in makers:
        try:
            teacher = make(module, data)
            answers = predict(teacher, data, tried)
        except Exception as error:  # a module raises what it likes for inputs of other units
            problems.append(error)
        else:
            ways.append(_way(name, teacher, answers, tried))
    if not ways:
        raise problems[0]
    best = min(ways, key=lambda way: (way.error, way.nll))
    constant = _constant_error(data, tried)
    if best.error >= constant * (1 - _MARGIN):
        raise RecipeError("teacher", _no_better(ways, constant, data))
    return best.teacher


@dataclass(frozen=True)
class _Way:
    """A way to ask a module, with its errors."""

    name: str
    teacher: Teacher
    error: float
    nll: float


def _way(name: str, teacher: Teacher, answers: Distribution, tried: Split) -> _Way:
    assert tried.y is not None
    y = tried.y.cpu()
    if isinstance(answers, Categorical):
        error = float((answers.probs.argmax(-1) != hard_labels(y)).float().mean())
    elif isinstance(answers, Bernoulli):
        error = float(((answers.probs >= 0.5) != (y >= 0.5)).float().mean())
    else:
        error = float((answers.mean.double() - y.double()).square().mean().sqrt())
    nll = float(answers.nll(y).double().mean())
    return _Way(name, teacher, *(v if math.isfinite(v) else math.inf for v in (error, nll)))


def _constant_error(data: Data, tried: Split) -> float:
    """Return the error of the most frequent class, or of the mean, of the training split.

    Of several labels, each counts by its more frequent value.
    """
    assert data.train.y is not None
    assert tried.y is not None
    own, y = data.train.y.cpu(), tried.y.cpu()
    if data.task.kind == "classification":
        y = hard_labels(y)
        return float((y != hard_labels(own).bincount().argmax()).float().mean())
    if data.task.kind == "multilabel":
        return float((y != (own.mean(0) >= 0.5).float()).float().mean())
    return float((y.double() - own.double().mean(0)).square().mean().sqrt())


def _no_better(ways: list[_Way], constant: float, data: Data) -> str:
    classes = data.task.kind != "regression"

    def figure(error: float) -> str:
        return f"{1 - error:.2f}" if classes else f"{error:.3g}"

    word, known = {
        "classification": ("accuracy", "the most frequent class"),
        "regression": ("RMSE", "the mean"),
        "multilabel": ("accuracy of labels", "the commonest value of each label"),
    }[data.task.kind]
    shown = [f"{way.name} inputs ({word} {figure(way.error)})" for way in reversed(ways)]
    return (
        f"is no better than a constant on these data, with {' or '.join(shown)}; {known} alone has "
        f"{figure(constant)}; give a module that scales its inputs as it needs them, or raw=True "
        "or raw=False to use it all the same"
    )


def _tried(data: Data) -> Split | None:
    """Return the labelled examples to try a module on, spread evenly; None where there are none."""
    enough = data.validation.y is not None and len(data.validation) >= _LEAST
    split = data.validation if enough else data.train
    if split.y is None or not len(split):
        return None
    if len(split) <= _MOST:
        return split
    return split[spaced(len(split), _MOST).to(split.y.device)]


def _standardised(module: nn.Module, data: Data) -> Teacher:
    """Return a module that takes and gives standardised values.

    Raises:
        ValueError: It gives one number for each real target, where two are needed.
    """
    teacher, probe = NetworkTeacher(module, data.task), _probe(data)
    if data.task.kind == "regression" and _width(module, probe) == data.task.size:
        raise ValueError(
            f"the network gave {data.task.size} numbers for each example, which are means alone; a "
            f"standardised answer needs {data.task.size} means and {data.task.size} log variances, "
            "so give raw=True if they are means in the target's own units"
        )
    # One question now, so that a misfit shows at once.
    teacher(Batch(torch.arange(batch_size(probe), device=data.device), probe))
    # As a run does with its teachers, so that both ask the very same network.
    fast = prepare(module.eval(), data.inputs(data.train[:PROBE].x))
    return NetworkTeacher(module, data.task, fast)


def _raw(module: nn.Module, data: Data) -> Teacher:
    """Return a module that takes raw values."""
    ask = _Asked(module, data.device)
    if data.task.kind != "regression":
        return FunctionTeacher(ask, data, output="logits")
    raw = raw_arrays(_probe(data), data)
    if _width(module, ask.tensors(raw)) == data.task.size:
        return FunctionTeacher(ask, data, output="mean", std=_deviation(ask, data))
    return FunctionTeacher(ask, data, output="mean_log_var")


@dataclass(frozen=True)
class _Asked:
    """A module as a function on raw arrays."""

    module: nn.Module
    device: torch.device

    @torch.no_grad()
    def __call__(self, x: Arrays) -> Array:
        found: Array = raw_output(self.module(self.tensors(x))).cpu().double().numpy()
        return found

    def tensors(self, x: Arrays) -> Any:
        """Return raw arrays as tensors on the device, in the same structure."""
        if isinstance(x, dict):
            return {key: torch.from_numpy(part).to(self.device) for key, part in x.items()}
        if isinstance(x, tuple):
            return tuple(torch.from_numpy(part).to(self.device) for part in x)
        return torch.from_numpy(x).to(self.device)


def _deviation(ask: _Asked, data: Data) -> Array:
    """Return the root of the mean squared error of means, for each target, [D], in its units.

    Of a transformed target it is in units of the transform.
    """
    tried = _tried(data)
    if tried is None:
        raise RecipeError(
            "teacher", "gives means alone, and the data have no labels to find their deviation by; "
            "give xcl.FunctionTeacher(f, data, output='mean', std=…)"
        )  # fmt: skip
    teacher = FunctionTeacher(ask, data, output="mean", std=1.0)
    assert tried.y is not None
    errors = transformed_errors(data, predict(teacher, data, tried).mean, tried.y.cpu())
    assert data.y_scale is not None
    least = LEAST_STD * data.y_scale.scale.cpu().double()
    found: Array = np.asarray(torch.maximum(errors.square().mean(0).sqrt(), least))
    return found


def _probe(data: Data) -> Inputs:
    return data.inputs(data.train[:2].x)


@torch.no_grad()
def _width(module: nn.Module, x: Inputs) -> int | None:
    """Return how many numbers a module gives for an example; None if that is no matrix."""
    said = raw_output(module(x))
    return said.shape[1] if said.ndim == 2 else None
