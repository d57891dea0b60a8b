"""Teachers that know raw values alone: NumPy arrays in, an answer in its own units out.

A sampler gives standardised inputs, and a student predicts standardised targets. What was fitted
elsewhere knows neither, so the standardisation is undone before it is asked, and its answer is
standardised: :class:`RawTeacher` does both.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from extracurricular.data.base import Data
from extracurricular.distributions import Categorical, Distribution, Gaussian, Task, mixture
from extracurricular.inputs import Inputs, leaves
from extracurricular.samplers.base import Batch

Array: TypeAlias = np.ndarray[Any, Any]
Arrays: TypeAlias = Array | tuple[Array, ...] | dict[str, Array]
"""Raw inputs: float32 [B, ...], or a tuple or dict of such arrays."""

Output: TypeAlias = Literal["probs", "logits", "mean", "mean_std", "mean_var", "mean_log_var"]
"""How an answer is read; the first two are for classes, the others for real targets."""

_KINDS: dict[str, tuple[str, ...]] = {
    "classification": ("probs", "logits"),
    "regression": ("mean_std", "mean_var", "mean_log_var", "mean"),
}
# A share of the targets' standard deviation. Below it a teacher knows more than any data tell; and
# a variance of nothing would be a point mass.
LEAST_STD = 1e-3
# Rows of the training split whose answers tell one teacher from another, and their digits.
_PROBE = 32
_PROBE_DIGITS = 4


def raw_arrays(x: Inputs, data: Data) -> Arrays:
    """Undo the standardisation of network inputs.

    Args:
        x: As a sampler gives them, [B, ...] or a tuple or dict of such.
        data: The data set, for its scales.

    Returns:
        Raw values as float32 arrays, in the structure of ``x``. Bytes of images come as numbers
        from 0 to 255, and as what lies between where images were mixed.
    """

    def undo(key: str, leaf: Tensor) -> Array:
        scale = data.x_scale[key]
        raw = torch.addcmul(scale.shift, leaf.float(), scale.scale)
        array: Array = raw.cpu().numpy()
        return array

    if isinstance(x, Tensor):
        return undo("", x)
    if isinstance(x, dict):
        return {key: undo(key, leaf) for key, leaf in x.items()}
    return tuple(undo(str(place), leaf) for place, leaf in enumerate(x))


def parts_of(x: Arrays) -> dict[str, Array]:
    """Return the arrays by name: a dict's keys, a tuple's positions, or ``""`` for one array."""
    if isinstance(x, dict):
        return x
    return {str(k): v for k, v in enumerate(x)} if isinstance(x, tuple) else {"": x}


def standardised(answer: Distribution, data: Data) -> Distribution:
    """Bring an answer in the targets' own units to standardised ones; classes have none.

    Deviations below a thousandth of the targets' are read as that.
    """
    if isinstance(answer, Categorical) or data.y_scale is None:
        return answer
    scales = data.y_scale.to(answer.mean.device)
    shift, scale = scales.shift.double(), scales.scale.double()
    # The mean in double precision, as both may be large where their difference is not.
    mean = (answer.mean.double() - shift) / scale
    log_var = answer.log_var.double() - 2 * scale.log()
    return Gaussian(mean.float(), log_var.clamp_min(2 * float(np.log(LEAST_STD))).float())


def check_output(output: str | None, task: Task, std: object = None) -> str:
    """Return how answers are read, ``probs`` or ``mean_std`` where that is not said.

    Raises:
        ValueError: It does not go with the task, or ``mean`` lacks a deviation.
    """
    known = _KINDS[task.kind]
    found = known[0] if output is None else output
    if found not in known:
        raise ValueError(f"output is {found!r}; {task.kind} needs one of {', '.join(known)}")
    if found == "mean" and std is None:
        raise ValueError("output is 'mean', which has no variance; give std, in the target's units")
    return found


def read_answer(answer: Any, task: Task, output: str, std: Any = None) -> Distribution:
    """Read what a teacher said as a distribution, in the units that it said it in.

    Args:
        answer: For classes, probabilities or logits [B, C]. For real targets, means [B, D], and
            with them deviations, variances or log variances: two arrays, or one [B, 2 D]. With one
            target, [B] will do.
        task: What is predicted.
        output: Which of these it is.
        std: The deviation where the answer is the mean alone: a number, or one for each target.

    Raises:
        ValueError: The shape or a value cannot be.
    """
    if task.kind == "classification":
        scores = _array(answer, task, "logits" if output == "logits" else "probabilities")
        if output == "logits":
            return Categorical(torch.from_numpy(scores).float())
        return Categorical.from_probs(torch.from_numpy(_probabilities(scores)))
    if output == "mean":
        mean = _array(answer, task, "means")
        var = np.broadcast_to(np.square(np.asarray(std, dtype=np.float64)), mean.shape)
        return gaussian(mean, var)
    if not isinstance(answer, tuple | list):
        answer = np.split(_array(answer, task, "means and spreads", 2 * task.size), 2, axis=1)
    if len(answer) != 2:
        raise ValueError(f"the teacher gave {len(answer)} arrays; {output!r} takes two")
    mean, spread = _array(answer[0], task, "means"), _array(answer[1], task, "spreads")
    if output == "mean_log_var":
        return gaussian(mean, np.exp(np.clip(spread, -80, 80)))
    if spread.size and float(spread.min()) < 0:
        what = "deviation" if output == "mean_std" else "variance"
        raise ValueError(
            f"the teacher gave a {what} of {spread.min():.3g}; none can be below 0 "
            f"(output is {output!r})"
        )
    return gaussian(mean, np.square(spread) if output == "mean_std" else spread)


def gaussian(mean: Array, var: Array) -> Gaussian:
    """Make a Gaussian of means and variances [B, D]; float64, as units may be large or small."""
    tiny = np.finfo(np.float64).tiny
    log_var = torch.from_numpy(np.log(np.maximum(var, tiny)))
    return Gaussian(torch.from_numpy(np.asarray(mean, dtype=np.float64)), log_var)


def _array(values: Any, task: Task, what: str, size: int | None = None) -> Array:
    """Check a part of an answer, and return it as float64, [B, size]."""
    size = task.size if size is None else size
    try:
        found: Array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        kind = type(values).__name__
        raise ValueError(f"the teacher gave a {kind} for its {what}; it must be an array") from None
    if found.ndim == 1 and size == 1:
        found = found[:, None]
    if found.ndim != 2 or found.shape[1] != size:
        if task.kind == "classification" and found.ndim == 2:
            raise ValueError(
                f"the teacher knows {found.shape[1]} classes, but the data have {task.size}"
            )
        raise ValueError(f"the teacher gave {what} of shape {found.shape}; it must be [B, {size}]")
    if not np.isfinite(found).all():
        row, column = np.argwhere(~np.isfinite(found))[0]
        raise ValueError(
            f"the teacher gave {found[row, column]} among its {what}, for example {row} of a batch"
        )
    return found


def _probabilities(found: Array) -> Array:
    least = float(found.min()) if found.size else 0.0
    off = float(np.abs(found.sum(1) - 1).max()) if found.size else 0.0
    if least < -1e-6 or off > 1e-2:
        problem = f"one of {least:.3g}" if least < -1e-6 else f"sums that miss 1 by {off:.3g}"
        raise ValueError(
            f"the teacher gave probabilities with {problem}; of logits, say so by output"
        )
    return found


class RawTeacher(ABC):
    """A teacher asked in raw values and its own units.

    Args:
        data: The data set, for its task and scales.
    """

    def __init__(self, data: Data) -> None:
        self.data = data
        self.task = data.task

    @abstractmethod
    def answer(self, x: Arrays) -> Distribution:
        """Return the distribution for raw inputs of B examples, in the target's own units."""

    def __call__(self, batch: Batch) -> Distribution:
        """Return the distribution, standardised, where the batch lies."""
        said = standardised(self.answer(self.inputs(batch.x)), self.data)
        return _checked(said, batch)

    def inputs(self, x: Inputs) -> Arrays:
        """Return the arrays that the teacher is asked with."""
        return raw_arrays(x, self.data)

    @property
    def parameters(self) -> int | None:
        """Numbers that it is made of; None where nobody knows."""
        return None

    def identity(self) -> Any:
        """What tells this teacher from others of its kind: its answers to some training examples.

        They are rounded, so that the last bits of another machine make no other teacher.
        """
        raw = self.data.train[:_PROBE]
        ids = torch.arange(len(raw), device=next(iter(leaves(raw.x).values())).device)
        said = self(Batch(ids, self.data.inputs(raw.x)))
        digest = hashlib.sha256(type(self).__name__.encode())
        for part in (said.mean, *([said.log_var] if isinstance(said, Gaussian) else [])):
            rounded = part.double().cpu().numpy().round(_PROBE_DIGITS) + 0.0  # no negative zeros
            digest.update(rounded.tobytes())
        return digest.hexdigest()[:32]


class RawEnsemble(RawTeacher):
    """A teacher made of members, whose disagreement is the epistemic part of its uncertainty."""

    @abstractmethod
    def answers(self, x: Arrays) -> list[Distribution]:
        """Return each member's distribution for raw inputs, in the target's own units."""

    def answer(self, x: Arrays) -> Distribution:
        """Return the mixture."""
        return mixture(self.answers(x))

    def members(self, batch: Batch) -> list[Distribution]:
        """Return each member's distribution, standardised."""
        said = self.answers(self.inputs(batch.x))
        return [_checked(standardised(one, self.data), batch) for one in said]

    def __call__(self, batch: Batch) -> Distribution:
        """Return the mixture of the members, standardised."""
        # Of standardised ones, as their moments are near 1 and stay exact in single precision.
        return mixture(self.members(batch))


def _checked(said: Distribution, batch: Batch) -> Distribution:
    if len(said) != len(batch):
        raise ValueError(f"the teacher gave {len(said)} answers for {len(batch)} examples")
    parameters = said.parameters.float().to(batch.ids.device)
    return type(said).from_output(parameters)


class FunctionTeacher(RawTeacher):
    """Any Python function on NumPy arrays.

    Args:
        function: Maps raw inputs, float32 [B, ...] (or a tuple or dict of such), to an answer as
            :func:`read_answer` describes. It must be a function of each example alone.
        data: The data set.
        output: How answers are read; ``probs`` or ``mean_std`` where None.
        std: The deviation, in the target's own units, for ``mean``.

    Raises:
        ValueError: ``output`` does not go with the data.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        data: Data,
        *,
        output: Output | None = None,
        std: Any = None,
    ) -> None:
        super().__init__(data)
        self.function = function
        self.output = check_output(output, data.task, std)
        self.std = std

    def answer(self, x: Arrays) -> Distribution:
        """Ask the function."""
        return read_answer(self.function(x), self.task, self.output, self.std)
