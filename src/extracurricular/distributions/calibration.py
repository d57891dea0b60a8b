"""Calibrated predictions: numbers that were fitted on validation examples, applied to an answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from extracurricular.distributions.categorical import Categorical
from extracurricular.distributions.gaussian import Gaussian
from extracurricular.distributions.task import Distribution, Task

_TINY = 1e-30


@dataclass(frozen=True)
class Conformal:
    """Intervals or sets with a stated coverage (split conformal prediction).

    An interval of a real target is μ ± q σ, with a q for each output. A set of classes has all
    whose probability is at least a bound; it may be empty, or have several.

    Args:
        coverage: The part of new examples whose label is inside, in (0, 1), on average over
            validation sets.
        deviations: q of each output, D of them; None for classes.
        least: The least probability of a class in the set; None for real targets.
        examples: Number of examples it was fitted on.
    """

    coverage: float
    deviations: tuple[float, ...] | None = None
    least: float | None = None
    examples: int = 0

    def bounds(self, said: Gaussian) -> tuple[Tensor, Tensor]:
        """Return the lower and upper bounds of the intervals, in the units of ``said``, [B, D]."""
        assert self.deviations is not None
        return said.within(torch.tensor(self.deviations, dtype=torch.float64))

    def contains(self, said: Categorical) -> Tensor:
        """Return whether each class is in the set, [B, C]."""
        assert self.least is not None
        return said.probs.double() >= self.least

    def dump(self) -> dict[str, Any]:
        """Return it as plain values."""
        found: dict[str, Any] = {"coverage": self.coverage, "examples": self.examples}
        found["least"] = self.least
        found["deviations"] = None if self.deviations is None else list(self.deviations)
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class Calibration:
    """A map from a model's answers to calibrated ones.

    Args:
        temperature: Logits of classes and labels are divided by it; None for no change.
        variance: Factors of the variances of real targets, D of them; None for no change.
        conformal: Intervals or sets; they change no distribution.
        examples: Number of examples it was fitted on.
    """

    temperature: float | None = None
    variance: tuple[float, ...] | None = None
    conformal: Conformal | None = None
    examples: int = field(default=0, kw_only=True)

    @property
    def changes(self) -> bool:
        """Whether it changes distributions."""
        return self.temperature is not None or self.variance is not None

    def __call__(self, said: Distribution) -> Distribution:
        """Return the calibrated distributions of B answers, in whichever units these are."""
        return self._tempered(said, 1.0)

    def goes_with(self, task: Task) -> bool:
        """Return whether it is one of such answers, with as many numbers as they have targets."""
        found = self.conformal
        if task.kind != "regression":
            sets = found is None or (found.least is not None and found.deviations is None)
            return self.variance is None and sets and (found is None or not task.binary)
        parts = [self.variance, *([] if found is None else [found.deviations])]
        counts = {len(part) for part in parts if part is not None}
        intervals = found is None or (found.least is None and found.deviations is not None)
        usual = self.variance is None or task.family is None
        return self.temperature is None and intervals and usual and counts <= {task.size}

    def undone(self, said: Distribution) -> Distribution:
        """Return the distributions from before, of calibrated ones."""
        return self._tempered(said, -1.0)

    def _tempered(self, said: Distribution, power: float) -> Distribution:
        # Both are temperatures: that of a Gaussian multiplies its variance.
        if isinstance(said, Gaussian):
            if self.variance is None:
                return said
            return said.tempered(_on(self.variance, said.mean.device) ** power)
        return said if self.temperature is None else said.tempered(self.temperature**power)

    def dump(self) -> dict[str, Any]:
        """Return it as plain values; what there is none of is left out."""
        found: dict[str, Any] = {"examples": self.examples, "temperature": self.temperature}
        found["variance"] = None if self.variance is None else list(self.variance)
        found["conformal"] = None if self.conformal is None else self.conformal.dump()
        return {name: value for name, value in found.items() if value is not None}

    @classmethod
    def load(cls, found: Any) -> Calibration:
        """Read what :meth:`dump` returned.

        Raises:
            ValueError: It is damaged.
        """
        if not isinstance(found, Mapping):
            raise ValueError(f"a calibration is a mapping, not a {type(found).__name__}")
        inner = found.get("conformal")
        if inner is not None and not isinstance(inner, Mapping):
            raise ValueError("the conformal part of a calibration is no mapping")
        conformal = None
        if inner is not None:
            conformal = Conformal(
                _part(inner["coverage"]),
                _numbers(inner.get("deviations"), 0.0),
                None if inner.get("least") is None else _number(inner["least"], 0.0),
                int(inner.get("examples", 0)),
            )
        temperature = found.get("temperature")
        return cls(
            None if temperature is None else _number(temperature),
            _numbers(found.get("variance")),
            conformal,
            examples=int(found.get("examples", 0)),
        )


@lru_cache
def _on(values: tuple[float, ...], device: torch.device) -> Tensor:
    # Kept, since a CUDA graph cannot hold a copy from the host.
    return torch.tensor(values, device=device)


def _part(value: Any) -> float:
    if not 0 < float(value) < 1:
        raise ValueError(f"the coverage of a calibration is {value!r}")
    return float(value)


def _number(value: Any, least: float = _TINY) -> float:
    if not least <= float(value) < math.inf:
        raise ValueError(f"a number of a calibration is {value!r}")
    return float(value)


def _numbers(values: Any, least: float = _TINY) -> tuple[float, ...] | None:
    return None if values is None else tuple(_number(value, least) for value in values)
