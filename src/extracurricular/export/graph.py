"""The student as one module: raw values in, a distribution out."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from extracurricular.data.base import Data
from extracurricular.data.transform import Rule
from extracurricular.distributions import (
    MAX_LOG_VAR,
    OWN_LOG_VAR,
    WIDE_LOG_VAR,
    Bernoulli,
    Calibration,
    Categorical,
    Task,
)
from extracurricular.errors import ExportError
from extracurricular.inputs import Inputs, is_leaf, leaves

OUTPUTS = {
    "classification": ("probs",),
    "regression": ("mean", "variance"),
    "multilabel": ("probs",),
}
"""Names of the outputs, by the kind of the task."""

STATED: dict[str, tuple[str, ...]] = {
    "classification": ("in_set",),
    "regression": ("lower", "upper"),
}
"""Names of the outputs of a model with conformal sets or intervals, which it has besides."""


def output_names(task: Task, calibration: Calibration | None) -> tuple[str, ...]:
    """Return the names of the outputs, in order."""
    stated = calibration is not None and calibration.conformal is not None
    more = () if task.family is None else tuple(task.family.more)
    return OUTPUTS[task.kind] + (STATED[task.kind] if stated else ()) + more


def input_names(data: Data, calibration: Calibration | None = None) -> dict[str, str]:
    """Return the graph's name of each input tensor of the data.

    The name is ``x`` if there is just one input, a dict's key, or ``x0``, ``x1``, … for a tuple.

    Raises:
        ExportError: An input has the name of an output.
    """
    x = data.train.x
    if is_leaf(x):
        return {"": "x"}
    names = {key: key if isinstance(x, dict) else f"x{key}" for key in leaves(x)}
    for taken in output_names(data.task, calibration):
        if taken in names.values():
            raise ExportError(
                f"the data have an input {taken!r}, but an exported model gives that name to its "
                "output; give the input another name"
            )
    return names


class Exported(nn.Module):
    """A network between its normalisation and its distribution, on the CPU.

    Args:
        module: Maps normalised inputs to raw outputs [N, task.outputs]; it is copied.
        data: The data set, for its scales and its task.
        calibration: The calibration of the network's distributions; None for none.

    It is called with a dict of raw tensors [N, ...] by name (:func:`input_names`), in the data's
    own dtype. It returns ``{"probs": [N, K]}`` for classes and for labels, or
    ``{"mean": [N, D], "variance": [N, D]}`` with means in the target's own units and variances in
    these squared; and what a family has besides (:func:`output_names`). Conformal sets add
    ``in_set``, bools [N, K], and intervals ``lower`` and ``upper``, [N, D], in these units.
    """

    def __init__(
        self, module: nn.Module, data: Data, calibration: Calibration | None = None
    ) -> None:
        super().__init__()
        self.network = copy.deepcopy(module).cpu().float().eval()
        self.task: Task = data.task
        self.calibration = calibration or Calibration()
        self.outputs = output_names(data.task, calibration)
        self.names = input_names(data, calibration)
        self.single = is_leaf(data.train.x)
        self.named = isinstance(data.train.x, dict)
        self.example = {
            self.names[key]: torch.zeros(2, *leaf.shape[1:], dtype=leaf.dtype)
            for key, leaf in leaves(data.train.x).items()
        }
        for place, key in enumerate(self.names):
            # This is Affine.apply; what does not depend on the example is computed beforehand.
            scale = data.x_scale[key].to(torch.device("cpu"))
            if scale.scale.dtype == torch.float64:
                self.register_buffer(f"factor{place}", scale.scale)
                self.register_buffer(f"offset{place}", scale.shift)
                continue
            factor = scale.scale.reciprocal()
            self.register_buffer(f"factor{place}", factor)
            self.register_buffer(f"offset{place}", -scale.shift * factor)
        self.scaled = data.y_scale is not None
        self.transform = data.y_transform
        if data.y_scale is not None:
            self.register_buffer("target_scale", data.y_scale.scale.cpu())
            self.register_buffer("target_shift", data.y_scale.shift.cpu())
        if self.calibration.variance is not None:
            # Tempered as Gaussian.tempered does it.
            self.register_buffer("log_factor", torch.tensor(self.calibration.variance).log())
        conformal = self.calibration.conformal
        if conformal is not None and conformal.deviations is not None:
            deviations = torch.tensor(conformal.deviations, dtype=torch.float64)
            self.register_buffer("deviations", deviations)
        self.eval()

    def normalised(self, raw: dict[str, Tensor]) -> Inputs:
        """Return network inputs, float32, in the structure that the network takes."""
        parts = {
            key: _standardised(
                raw[name], self.get_buffer(f"offset{place}"), self.get_buffer(f"factor{place}")
            )
            for place, (key, name) in enumerate(self.names.items())
        }
        if self.single:
            return parts[""]
        return parts if self.named else tuple(parts.values())

    def forward(self, raw: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the parameters of the distribution, in the type of the target's scale."""
        said = self.task.distribution(self.network(self.normalised(raw)))
        conformal, family = self.calibration.conformal, self.task.family
        if isinstance(said, Categorical | Bernoulli):
            calibrated = self.calibration(said)
            found = {"probs": calibrated.mean}
            if conformal is not None and conformal.least is not None:
                found["in_set"] = calibrated.mean >= conformal.least
            return found if family is None else found | family.named(calibrated)
        if family is not None:
            own: Any = self.calibration(said)
            if self.scaled:
                scale = self.get_buffer("target_scale")
                own = own.scaled(scale, self.get_buffer("target_shift"))
            found = {"mean": own.mean, "variance": own._log_var.exp()}
            if conformal is not None:
                found["lower"], found["upper"] = conformal.bounds(own)
            return found | family.named(own)
        # This is Gaussian.scaled and Gaussian.var without point masses: a network gives none, so
        # the graph needs no operators that look for them.
        mean, log_var = said.mean.float(), _bounded(said.log_var.float())
        if self.calibration.variance is not None:
            log_var = _bounded(log_var + self.get_buffer("log_factor"))
        if self.scaled:
            scale = self.get_buffer("target_scale")
            if scale.dtype == torch.float64:
                mean, log_var = mean.double(), log_var.double()
            most = WIDE_LOG_VAR if scale.dtype == torch.float64 else OWN_LOG_VAR
            mean = mean * scale + self.get_buffer("target_shift")
            log_var = (log_var + 2 * scale.abs().log()).clamp(-most, most)
        bounds = {}
        if conformal is not None:
            half = self.get_buffer("deviations").to(mean.dtype) * (0.5 * log_var).exp()
            bounds = {"lower": mean - half, "upper": mean + half}
        if self.transform is not None:
            bounds = {name: self.transform.undo(one) for name, one in bounds.items()}
            moments = partial(Rule.moments, wide=mean.dtype == torch.float64)
            mean, log_var = self.transform.pairs(moments, mean, log_var.exp())
        return {"mean": mean, "variance": log_var.exp(), **bounds}


def _standardised(raw: Tensor, offset: Tensor, factor: Tensor) -> Tensor:
    """Return :meth:`.Affine.apply` of raw values, in float64 where the scale is."""
    if factor.dtype == torch.float64:
        return ((raw.double() - offset) / factor).float()
    return torch.addcmul(offset, raw.float(), factor)


def _bounded(log_var: Tensor) -> Tensor:
    return log_var.clamp(-MAX_LOG_VAR, MAX_LOG_VAR)
