"""The last layer of a regression network: moments, or natural parameters.

The setting ``head`` of a network says what the outputs of its last linear layer are: means and log
variances (``moments``), or the natural parameters of a Gaussian (``natural``), which a layer
without weights turns into means and log variances. So outputs are read alike, and only the way that
gradients go through the last layer differs.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from extracurricular.distributions import Task, bent
from extracurricular.errors import RecipeError

Head: TypeAlias = Literal["moments", "natural"]

# Most of the log variance: the mean is a multiple of the variance, and its square must fit float32.
_MOST, _BOUND = 24.0, 16.0
# Below this, softplus is the exponential to all digits of float32, and so its logarithm the number.
_EXPONENTIAL = -15.0


# A network is traced to fold its batch norms; a wrapped function is one operation there.
@torch.fx.wrap
def moments(output: Tensor) -> Tensor:
    """Turn raw natural parameters [B, 2 D] into means and log variances [B, 2 D].

    The first half holds η₁ = μ / σ², the second half a real number r, of which -softplus(r) / 2 is
    η₂ = -1 / (2 σ²). So the variance is 1 / softplus(r), and the mean is η₁ times the variance.
    Half precision is computed in float32. The log variance is bent beyond ±16
    (:func:`~extracurricular.distributions.bent`), far from any target that is standardised, and at
    most 24.
    """
    wide = output.to(torch.promote_types(output.dtype, torch.float32))
    first, second = wide.chunk(2, dim=-1)
    usual = F.softplus(second.clamp_min(_EXPONENTIAL)).log()
    log_precision = torch.where(second < _EXPONENTIAL, second, usual)
    log_var = bent(-log_precision, _BOUND).clamp_max(_MOST)
    return torch.cat([first * log_var.exp(), log_var], dim=-1)


class NaturalHead(nn.Module):
    """A layer without weights from natural parameters to means and log variances (:func:`moments`).

    Source: Immer, Palumbo, Marx and Vogt 2023, "Effective Bayesian Heteroscedastic Regression with
    Deep Neural Networks", NeurIPS, in the form with softplus of the code that they published.
    """

    def forward(self, output: Tensor) -> Tensor:
        """Return means and log variances, [B, 2 D]."""
        return moments(output)


def head_layers(head: Head, outputs: int) -> list[nn.Module]:
    """Return the layers that follow the last linear layer of a network.

    Raises:
        ValueError: The head is of natural parameters, and the outputs are no pairs.
    """
    if head == "moments":
        return []
    if outputs % 2:
        raise ValueError(
            "head is 'natural', which is for real targets, with two outputs for each, "
            f"but there are {outputs} outputs"
        )
    return [NaturalHead()]


def add_head(model: nn.Sequential, head: Head, outputs: int) -> nn.Sequential:
    """Append the layers of :func:`head_layers` to a network, and return it."""
    for layer in head_layers(head, outputs):
        model.add_module(head, layer)
    return model


def check_head(model: nn.Module, task: Task, key: str) -> None:
    """Refuse a head for real targets in a network for classes or labels.

    Args:
        model: The network.
        task: What it is to predict.
        key: Key of the network's spec in the recipe, for the error.

    Raises:
        RecipeError: The network gives classes, and has such a head.
    """
    natural = any(isinstance(m, NaturalHead) for m in model.modules())
    if natural and task.family is not None:
        raise RecipeError(
            key, f"head is 'natural', which is for Gaussians, but the distribution is "
            f"{task.family.name!r}; leave head out"
        )  # fmt: skip
    if task.kind != "regression" and natural:
        what = "classes" if task.kind == "classification" else "labels of 0 and 1"
        raise RecipeError(
            key, f"head is 'natural', which is for real targets, but the data have {what}; "
            "leave head out"
        )  # fmt: skip
