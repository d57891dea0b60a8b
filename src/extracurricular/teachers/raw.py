"""Teachers that take and give raw values: NumPy arrays in, an answer in the target's units out.

A sampler gives standardised inputs, and a student predicts standardised targets. A model that was
fitted elsewhere knows neither. :class:`RawTeacher` undoes the standardisation of the inputs before
it asks the model, and standardises the answer.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from extracurricular.data.base import Data
from extracurricular.data.transform import Rule, Transform
from extracurricular.data.transformed import inner_of
from extracurricular.distributions import (
    FAMILIES,
    MAX_LOG_VAR,
    OWN_LOG_VAR,
    WIDE_LOG_VAR,
    Bernoulli,
    Categorical,
    Distribution,
    Gaussian,
    Task,
    mixture,
)
from extracurricular.errors import TrainingError
from extracurricular.inputs import Batch, Inputs, leaves

Array: TypeAlias = np.ndarray[Any, Any]
Arrays: TypeAlias = Array | tuple[Array, ...] | dict[str, Array]
"""Raw inputs: float32 [B, ...], or a tuple or dict of such arrays."""

Output: TypeAlias = Literal["probs", "logits", "mean", "mean_std", "mean_var", "mean_log_var"]
"""How to read an answer; the first two are for classes, the others for real targets."""

_KINDS: dict[str, tuple[str, ...]] = {
    "classification": ("probs", "logits"),
    "regression": ("mean_std", "mean_var", "mean_log_var", "mean"),
    "multilabel": ("probs", "logits"),
}
# The least deviation, as a part of the targets' own. No data can support a smaller one, and a
# variance of 0 would be a point mass.
LEAST_STD = 1e-3
# Training rows whose answers, rounded to some digits, distinguish one teacher from another.
_PROBE = 32
_PROBE_DIGITS = 4


class NotProbabilitiesError(ValueError):
    """A teacher's answers are no probabilities; they may be logits."""


class NotFiniteError(TrainingError, ValueError):
    """A teacher's answers hold NaN or infinity.

    Args:
        problem: The sentence.
        rows: Places of the examples at fault in the batch.
    """

    def __init__(self, problem: str, rows: Sequence[int] = ()) -> None:
        super().__init__(problem)
        self.rows = rows


class MeansAloneError(ValueError):
    """A teacher gives means, and nothing that says how sure it is of them."""


def raw_arrays(x: Inputs, data: Data) -> Arrays:
    """Undo the standardisation of network inputs.

    Args:
        x: Inputs as a sampler gives them, [B, ...] or a tuple or dict of such.
        data: The data set, for its scales.

    Returns:
        Raw values as arrays in the structure of ``x``, float32, or float64 where the data are.
        Images of bytes become numbers from 0 to 255, with fractions where images were mixed.
    """

    def undo(key: str, leaf: Tensor) -> Array:
        scale = data.x_scale[key]
        array: Array = scale.undo(leaf).cpu().numpy()
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
    """Standardise an answer in the targets' own units.

    Answers for classes and labels stay as they are. Deviations are at least a thousandth of the
    targets'. Where targets are transformed, the answer becomes the Gaussian of the transform for
    which the target has the same mean and variance
    (:func:`~extracurricular.data.transformed.inner_of`).
    """
    if not isinstance(answer, Gaussian) or data.y_scale is None:
        return answer
    if data.y_transform is not None:
        answer = inner_of(answer, data.y_transform)
    scales = data.y_scale.to(answer.mean.device)
    shift, scale = scales.shift.double(), scales.scale.double()
    # In double precision, since mean and shift may be large where their difference is small.
    mean = (answer.mean.double() - shift) / scale
    log_var = answer.log_var.double() - 2 * scale.log()
    return Gaussian(mean.float(), log_var.clamp_min(2 * float(np.log(LEAST_STD))).float())


def check_output(output: str | None, task: Task, std: object = None) -> str:
    """Return how to read answers: ``output``, or where it is None ``probs`` or ``mean_std``.

    Raises:
        ValueError: ``output`` does not go with the task, or ``mean`` lacks a deviation.
    """
    known = _KINDS[task.kind]
    found = known[0] if output is None else output
    if found not in known:
        raise ValueError(f"output is {found!r}; {task.kind} needs one of {', '.join(known)}")
    if found == "mean" and std is None:
        raise ValueError("output is 'mean', which has no variance; give std, in the target's units")
    return found


def read_answer(
    answer: Any, task: Task, output: str, std: Any = None, transform: Transform | None = None
) -> Distribution:
    """Read a teacher's answer as a distribution, in the answer's own units.

    Args:
        answer: For classes, probabilities or logits [B, C]; of two classes, those of the second
            alone will do, [B] or [B, 1]. For several labels, the probability of
            each, or its log-odds, [B, L]. For real targets, means [B, D], and
            with them deviations, variances or log variances: two arrays, or one [B, 2 D]. With one
            target, [B] will do.
        task: What the teacher predicts.
        output: How to read the answer.
        std: The deviation where the answer is only the mean: one number, or one for each target. Of
            a transformed target, that of the transform (0.2 under ``log`` is about 20 %).
        transform: The targets' transforms; only ``mean`` needs them.

    Raises:
        ValueError: The answer has a wrong shape or an impossible value.
    """
    if task.kind != "regression":
        scores = _array(
            _both(answer, task, output), task, "logits" if output == "logits" else "probabilities"
        )
        if output == "logits":
            return FAMILIES[task.kind].from_output(torch.from_numpy(scores).float())
        if task.kind == "multilabel":
            return Bernoulli.from_probs(torch.from_numpy(_of_labels(scores)))
        return Categorical.from_probs(torch.from_numpy(_probabilities(scores)))
    if output == "mean":
        mean = _array(answer, task, "means")
        var = np.broadcast_to(np.square(np.asarray(std, dtype=np.float64)), mean.shape)
        if transform is not None:
            pair = [torch.from_numpy(np.array(v, np.float64)) for v in (mean, var)]
            var = transform.each(Rule.spread, *pair).numpy()
        return gaussian(mean, var)
    if not isinstance(answer, tuple | list):
        try:
            whole = _array(answer, task, "means and spreads", 2 * task.size)
        except ValueError as error:
            shape = np.shape(answer)
            if shape[1:] == (task.size,) or (len(shape) == 1 and task.size == 1):
                raise MeansAloneError(f"{error}; means alone need output: mean, and std") from None
            raise
        answer = np.split(whole, 2, axis=1)
    if len(answer) != 2:
        raise ValueError(f"the teacher gave {len(answer)} arrays; {output!r} takes two")
    mean, spread = _array(answer[0], task, "means"), _array(answer[1], task, "spreads")
    if output == "mean_log_var":
        return gaussian(mean, np.exp(np.clip(spread, -WIDE_LOG_VAR, WIDE_LOG_VAR)))
    if spread.size and float(spread.min()) < 0:
        what = "deviation" if output == "mean_std" else "variance"
        raise ValueError(
            f"the teacher gave a {what} of {spread.min():.3g}; none can be below 0 "
            f"(output is {output!r})"
        )
    return gaussian(mean, np.square(spread) if output == "mean_std" else spread)


def _both(answer: Any, task: Task, output: str) -> Any:
    """Return the two columns of one sigmoid, which is the second of two classes."""
    if task != Task("classification", 2):
        return answer
    shape = np.shape(answer)
    if len(shape) not in (1, 2) or shape[1:] not in ((), (1,)):
        return answer
    one = np.asarray(answer, dtype=np.float64).reshape(-1, 1)
    return np.concatenate([np.zeros_like(one) if output == "logits" else 1 - one, one], axis=1)


def gaussian(mean: Array, var: Array) -> Gaussian:
    """Make a Gaussian of means and variances [B, D], in float64, as units may be large or small."""
    tiny = np.finfo(np.float64).tiny
    log_var = torch.from_numpy(np.log(np.maximum(var, tiny)))
    extreme = bool((log_var.abs() > OWN_LOG_VAR).any()) and bool((log_var > np.log(tiny)).any())
    limit = WIDE_LOG_VAR if extreme else MAX_LOG_VAR
    return Gaussian(torch.from_numpy(np.asarray(mean, dtype=np.float64)), log_var, limit=limit)


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
    wrong = ~np.isfinite(found)
    if what == "logits" and task.kind == "classification":
        # A logit of -inf masks a class, if another is left.
        wrong &= ~np.isneginf(found) | np.isneginf(found).all(1, keepdims=True)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise NotFiniteError(
            f"the teacher gave {found[row, column]} among its {what}, for example {row} of a batch",
            np.flatnonzero(wrong.any(1)).tolist(),
        )
    return found


def _of_labels(found: Array) -> Array:
    """Check the probabilities of several labels, which need not sum to 1."""
    if found.size and not (found.min() >= -1e-6 and found.max() <= 1 + 1e-6):
        odd = found.min() if found.min() < -1e-6 else found.max()
        raise NotProbabilitiesError(
            f"the teacher gave probabilities of labels with one of {odd:.3g}; if they are logits, "
            "set output: logits"
        )
    return found.clip(0, 1)


def _probabilities(found: Array) -> Array:
    least = float(found.min()) if found.size else 0.0
    off = float(np.abs(found.sum(1) - 1).max()) if found.size else 0.0
    if least < -1e-6 or off > 1e-2:
        problem = f"one of {least:.3g}" if least < -1e-6 else f"sums that miss 1 by {off:.3g}"
        raise NotProbabilitiesError(
            f"the teacher gave probabilities with {problem}; if they are logits, set output: logits"
        )
    return found


class RawTeacher(ABC):
    """A teacher that takes raw values and answers in the target's own units.

    Args:
        data: The data set, for its task and scales.
    """

    capturable = False
    obstacle = "the teacher is no torch module"

    def __init__(self, data: Data) -> None:
        self.data = data
        self.task = data.task

    @abstractmethod
    def answer(self, x: Arrays) -> Distribution:
        """Return the distribution for raw inputs of B examples, in the target's own units."""

    def __call__(self, batch: Batch) -> Distribution:
        """Return the standardised distribution, on the device of the batch."""
        said = standardised(self.answer(self.inputs(batch.x)), self.data)
        return _checked(said, batch)

    def inputs(self, x: Inputs) -> Arrays:
        """Return the arrays that :meth:`answer` takes."""
        return raw_arrays(x, self.data)

    @property
    def parameters(self) -> int | None:
        """Count of the numbers the teacher is made of; None where it is unknown."""
        return None

    def identity(self) -> Any:
        """Return a hash of the answers to some training examples, which identifies the teacher.

        The answers are rounded, so that the last bits of another machine make no other teacher.
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
    """A teacher with several members, whose disagreement is epistemic uncertainty."""

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
        if self.data.y_transform is not None:
            # Mixed in the target's own units, so that its mean is that of the teacher.
            return super().__call__(batch)
        # Standardised members have moments near 1, which stay exact in single precision.
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
        output: How to read answers; ``probs`` or ``mean_std`` where None.
        std: The deviation for ``mean``, in the target's own units, or those of its transform.

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
        found, transform = self.function(x), self.data.y_transform
        return read_answer(found, self.task, self.output, self.std, transform)
