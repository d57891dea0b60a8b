"""Predictions for a whole split, in the target's own units."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from extracurricular.data.base import Data, Split
from extracurricular.data.images.stream import announce_split
from extracurricular.data.transformed import Transformed
from extracurricular.distributions import Distribution, Filed, Gaussian, gathered
from extracurricular.inputs import Batch, leaves
from extracurricular.teachers.base import Teacher

# What the layers of a small network make of more examples leaves the cache of a core.
_ON_CPU = 256


@torch.no_grad()
def predict(teacher: Teacher, data: Data, split: Split, batch_size: int = 1024) -> Distribution:
    """Predict a split, in the target's own units, on the CPU.

    Answers over many classes for many examples lie in a file
    (:class:`~extracurricular.distributions.Filed`), so that no more than a batch is in memory.

    Args:
        teacher: A network (as :class:`~extracurricular.teachers.NetworkTeacher`) or any teacher.
        data: The data set, for its scales.
        split: Raw examples, N of them.
        batch_size: Number of examples at once; on a CPU no more than 256.
    """
    if _device_of(split).type == "cpu":
        batch_size = min(batch_size, _ON_CPU)

    def parts() -> Iterator[Distribution]:
        for start in range(0, len(split), batch_size):
            announce_split(split, slice(start + batch_size, start + 2 * batch_size))
            raw = split[slice(start, start + batch_size)]
            ids = torch.arange(start, start + len(raw), device=_device_of(raw))
            yield teacher(Batch(ids, data.inputs(raw.x)))

    return own_units(gathered(parts(), len(split)), data)


def own_units(standardised: Distribution, data: Data) -> Distribution:
    """Bring a standardised prediction to the target's own units, on the CPU; others have none."""
    if isinstance(standardised, Filed):
        return standardised
    found = type(standardised).from_output(standardised.parameters.float().cpu())
    if not isinstance(found, Gaussian) or data.y_scale is None:
        return found
    own = found.scaled(data.y_scale.scale.cpu(), data.y_scale.shift.cpu())
    return own if data.y_transform is None else Transformed.of(own, data.y_transform)


def _device_of(split: Split) -> torch.device:
    return next(iter(leaves(split.x).values())).device
