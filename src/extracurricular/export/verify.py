"""Verify an exported file: its differences from the student, and its figures, on real examples."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from extracurricular.data.base import Affine, Data, Split
from extracurricular.data.transform import Transform
from extracurricular.data.transformed import own_kind
from extracurricular.distributions import (
    MEASURES,
    OWN_LOG_VAR,
    WIDE_LOG_VAR,
    Bernoulli,
    Categorical,
    Conformal,
    Distribution,
    Gaussian,
    Task,
    gathered,
)
from extracurricular.errors import ExportError
from extracurricular.evaluation import metrics
from extracurricular.export.formats import quietly
from extracurricular.export.graph import input_names
from extracurricular.inputs import hard_labels, leaves

BATCHES = (1, 7, 32)
"""Sizes of the batches that a file is called with, in turn."""

Runner: TypeAlias = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""A function from raw tensors [N, ...] by name to outputs by name."""


@dataclass(frozen=True)
class Checked:
    """The result of a file on real examples.

    Args:
        difference: The largest difference from the original, as :func:`differences` measures it.
        example: Place in the split of the example with that difference.
        output: Name of the output with that difference.
        batch: Number of examples in the batch with that difference.
        metrics: Figures of the file's answers on the split.
        coverage: The share of labels in the file's own sets or intervals; None where it has none.
    """

    difference: float
    example: int
    output: str
    batch: int
    metrics: dict[str, float]
    coverage: float | None = None


def onnx_runner(content: bytes) -> Runner:
    """Open the content of an ONNX file in onnxruntime, with as many threads as torch has.

    Raises:
        ExportError: onnxruntime does not open it.
    """
    session = session_of(content)
    outputs = [one.name for one in session.get_outputs()]

    def run(raw: dict[str, Tensor]) -> dict[str, Tensor]:
        found = session.run(outputs, {name: part.numpy() for name, part in raw.items()})
        return {name: torch.from_numpy(part) for name, part in zip(outputs, found, strict=True)}

    return run


def session_of(content: bytes) -> Any:
    """Open the content of an ONNX file in onnxruntime.

    Raises:
        ExportError: onnxruntime does not open it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # it has a class of its own for each way to fail
        raise ExportError(f"onnxruntime does not open the model: {_flat(error)}") from error


def torch_runner(content: bytes) -> Runner:
    """Open the content of a ``.pt2`` file that this process has made.

    A file from elsewhere must never be opened so, as torch unpickles its content.
    """
    with quietly():
        module = torch.export.load(io.BytesIO(content)).module()

    def run(raw: dict[str, Tensor]) -> dict[str, Tensor]:
        with torch.no_grad():
            found: dict[str, Tensor] = module(raw)
        return found

    return run


def outputs_of(said: Distribution, conformal: Conformal | None = None) -> dict[str, Tensor]:
    """Return a distribution as the outputs of an exported model, with its sets or intervals."""
    if isinstance(said, Categorical | Bernoulli):
        found = {"probs": said.probs}
        if conformal is not None and not isinstance(said, Bernoulli):
            found["in_set"] = conformal.contains(said)
    else:
        found = {"mean": said.mean.to(said.var.dtype), "variance": said.var}
        if conformal is not None:
            found["lower"], found["upper"] = conformal.bounds(said)
    return found if said.family is None else found | said.family.named(said)


def read_outputs(
    outputs: dict[str, Tensor], task: Task, transform: Transform | None = None
) -> Distribution:
    """Return the outputs of an exported model as a distribution."""
    if task.family is not None:
        real = outputs.get("mean")
        double = real is not None and real.dtype == torch.float64
        return task.family.from_named(  # type: ignore[no-any-return]
            outputs, WIDE_LOG_VAR if double else OWN_LOG_VAR
        )
    if task.kind == "multilabel":
        return Bernoulli.from_probs(outputs["probs"])
    if task.kind == "classification":
        return Categorical.from_probs(outputs["probs"])
    double = outputs["mean"].dtype == torch.float64
    limit = WIDE_LOG_VAR if double else OWN_LOG_VAR
    said = Gaussian(outputs["mean"], outputs["variance"].log(), limit=limit)
    return own_kind(said, transform)


def differences(
    found: dict[str, Tensor],
    wanted: dict[str, Tensor],
    target: Affine | None,
    transform: Transform | None = None,
    conformal: Conformal | None = None,
) -> dict[str, Tensor]:
    """Return the distances of N examples' outputs from those wanted, [N] for each output.

    For probabilities this is the largest absolute difference. For means it is the difference in
    units of the target's deviation, or of the mean's own distance from the target's average if that
    is larger, as float32 has no more digits; for bounds of intervals too. A class that is in one
    set alone is as far as its probability is from the bound. For variances it is the difference of
    the natural logarithms, which is the relative difference if it is small. What a family has
    besides is compared in one of these ways (:data:`~extracurricular.distributions.MEASURES`). A
    value that is not finite is infinitely far.

    Args:
        found: Outputs of a file.
        wanted: Outputs of the original.
        target: Average and deviation of the target, [D]; None for classes and labels.
        transform: The targets' transforms. With one, means differ in units of the predicted
            deviation, or of the mean itself if that is larger.
        conformal: The sets or intervals among the outputs.
    """
    result: dict[str, Tensor] = {}
    for name, right in wanted.items():
        value = found[name]
        if name == "in_set":
            assert conformal is not None
            least = conformal.least or 0.0
            far = (wanted["probs"].double() - least).abs().masked_fill(value == right, 0.0)
            result[name] = far.flatten(1).amax(1)
            continue
        how = MEASURES.get(name)
        if how == "factor":
            value, right = value.log(), right.log()
        far = (value - right).abs()
        if how == "place" and transform is not None:
            far = far / torch.maximum(wanted["variance"].sqrt(), right.abs())
        elif how == "place" and target is not None:
            # Quantiles and components have a dimension more than the target.
            scale, shift = (
                part.reshape(-1, *[1] * (right.ndim - 2)) for part in (target.scale, target.shift)
            )
            far = far / torch.maximum(scale.abs(), (right - shift).abs())
        far = torch.where(torch.isfinite(far), far, torch.inf)
        result[name] = far.flatten(1).amax(1)
    return result


def check(
    run: Runner,
    data: Data,
    split: Split,
    original: Distribution,
    conformal: Conformal | None = None,
) -> Checked:
    """Run a file on every example of a split, in batches of 1, 7 and 32 in turn.

    Args:
        run: The file.
        data: The data set, on the CPU.
        split: The examples; if there are fewer than 40, some are used twice.
        original: The student's predictions of them, in the target's own units.
        conformal: The student's sets or intervals, which the file gives too.

    Raises:
        ExportError: The file does not take such a batch, or has no such outputs.
    """
    names = input_names(data)
    order = torch.arange(max(len(split), sum(BATCHES))) % len(split)
    worst, held = (-1.0, 0, "", 0), list[Tensor]()
    assert split.y is not None
    labels = split.y

    def answers() -> Iterator[Distribution]:
        nonlocal worst
        start, turn = 0, 0
        while start < len(order):
            index = order[start : start + BATCHES[turn % len(BATCHES)]]
            raw = {names[key]: leaf[index] for key, leaf in leaves(split.x).items()}
            right = outputs_of(original[index], conformal)
            said = _asked(run, raw, right, len(index))
            held.append(_held(said, labels[index]))
            scales = data.y_scale, data.y_transform, conformal
            for name, far in differences(said, right, *scales).items():
                place = int(far.argmax())
                if float(far[place]) > worst[0]:
                    worst = (float(far[place]), int(index[place]), name, len(index))
            yield read_outputs(said, data.task, data.y_transform)
            start, turn = start + len(index), turn + 1

    whole = gathered(answers(), len(order))
    whole = whole if len(order) == len(split) else whole[: len(split)]
    coverage = None if conformal is None else float(torch.cat(held)[: len(split)].mean())
    return Checked(*worst, figures(whole, data, split), coverage)


def _held(said: dict[str, Tensor], y: Tensor) -> Tensor:
    """Return whether each label is in the set of a file, or in its interval, [B, ...]."""
    if "in_set" in said:
        return said["in_set"].gather(1, hard_labels(y).long()[:, None]).double()
    if "lower" in said:
        return ((y >= said["lower"]) & (y <= said["upper"])).double()
    return y.new_empty(0).double()


def figures(said: Distribution, data: Data, split: Split) -> dict[str, float]:
    """Return the figures of the predictions of a split."""
    assert split.y is not None
    return metrics.figures(said, split.y, angular=data.angular)


def enforce(checked: Checked, limit: float, split: str) -> None:
    """Refuse a file that is too far from the original, or gives values that are not finite.

    Raises:
        ExportError: The file is refused; the sentence names difference, limit and example.
    """
    if checked.difference <= limit and math.isfinite(checked.difference):
        return
    where = (
        f"{checked.output} of example {checked.example} of the {split} split, in a batch of "
        f"{checked.batch}"
    )
    if not math.isfinite(checked.difference):
        raise ExportError(
            f"the exported model gives a value that is not finite, or the student does: {where}; "
            "nothing was written"
        )
    raise ExportError(
        f"the exported model differs from the student by {checked.difference:.2g}, and the limit "
        f"is {limit:g}: {where}; nothing was written"
    )


def _asked(
    run: Runner, raw: dict[str, Tensor], wanted: dict[str, Tensor], count: int
) -> dict[str, Tensor]:
    examples = "an example" if count == 1 else f"a batch of {count}"
    try:
        said = run(raw)
    except Exception as error:  # onnxruntime and torch have many
        raise ExportError(
            f"the exported model does not take {examples}: {_flat(error)}; nothing was written"
        ) from error
    for name, right in wanted.items():
        shape: Any = tuple(said[name].shape) if name in said else "no such output"
        if shape != tuple(right.shape):
            raise ExportError(
                f"the exported model gives {shape} as {name} of {examples}; it must be "
                f"{tuple(right.shape)}; nothing was written"
            )
    return {name: said[name] for name in wanted}


def _flat(error: Exception) -> str:
    return " ".join(str(error).split())
