"""Predictions for a whole split, in the target's own units."""

from __future__ import annotations

import torch

from extracurricular.data import Data, Split
from extracurricular.data.stream import announce_split
from extracurricular.distributions import Categorical, Distribution, Gaussian, concatenate
from extracurricular.samplers import Batch
from extracurricular.teachers import Teacher
from extracurricular.tree import leaves


@torch.no_grad()
def predict(teacher: Teacher, data: Data, split: Split, batch_size: int = 1024) -> Distribution:
    """Predict a split, in the target's own units, on the CPU.

    Args:
        teacher: A network (as :class:`~extracurricular.teachers.Network`) or any teacher.
        data: The data set, for its scales.
        split: Raw examples, N of them.
        batch_size: Examples at once.
    """
    parts: list[Distribution] = []
    for start in range(0, len(split), batch_size):
        announce_split(split, slice(start + batch_size, start + 2 * batch_size))
        raw = split[slice(start, start + batch_size)]
        ids = torch.arange(start, start + len(raw), device=_device_of(raw))
        parts.append(teacher(Batch(ids, data.inputs(raw.x))))
    joined = concatenate(parts).parameters.float().cpu()
    if isinstance(parts[0], Categorical) or data.y_scale is None:
        return type(parts[0]).from_output(joined)
    whole = Gaussian.from_output(joined)
    return whole.scaled(data.y_scale.scale.cpu(), data.y_scale.shift.cpu())


def _device_of(split: Split) -> torch.device:
    return next(iter(leaves(split.x).values())).device
