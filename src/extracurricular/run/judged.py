"""The judgement of a finished training: whether it is any better than a constant, and if not, why.

It is made on validation examples, on test examples where there are none, and decides nothing: it
is told, and stands in ``stage.json`` and ``summary.json``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from extracurricular.data.base import Data, Split, spaced
from extracurricular.distributions import Distribution
from extracurricular.errors import StorageError, TrainingError, XclError
from extracurricular.evaluation import metrics
from extracurricular.evaluation.constant import Against, against_constant, is_dead
from extracurricular.evaluation.marks import KEY as KEY
from extracurricular.files import read_lines
from extracurricular.run.workspace import Workspace
from extracurricular.teachers import NetworkTeacher, Teacher
from extracurricular.teachers.base import on_split
from extracurricular.training import Training

# So many examples say enough.
_MOST = 4096
# Of fewer lines of a log nobody can say whether the loss fell.
_FEWEST = 10
_RATIOS = {
    "rmse": ("RMSE", "of the target's deviation"),
    "hamming": ("Hamming loss", ""),
    "error_rate": ("error rate", ""),
    "balanced_error_rate": ("balanced error rate", ""),
}


def validation(workspace: Workspace, data: Data, module: nn.Module) -> dict[str, float]:
    """Return figures on the validation split, for the log alone: they decide nothing."""
    if len(data.validation) == 0:
        return {}
    prediction = workspace.predict(NetworkTeacher(module, data.task), data, data.validation)
    labels = data.validation.y
    assert labels is not None
    found = metrics.figures(prediction, labels.cpu(), angular=data.angular, ranks=False)
    return {name: round(value, 6) for name, value in found.items()}


def judged(
    workspace: Workspace,
    network: Teacher,
    data: Data,
    path: str,
    training: Training | None,
    teachers: Sequence[str] = (),
) -> dict[str, Any]:
    """Return what ``stage.json`` says of a trained network beside a constant; {} without labels.

    Args:
        workspace: The workspace of the run.
        network: The network.
        data: Its data set.
        path: Its folder, with its log.
        training: Its training; None for an estimator, which is fitted.
        teachers: Folders of the networks that it learned from.
    """
    name, split = _held(data)
    if split is None:
        return {}
    assert split.y is not None
    found = against_constant(workspace.predict(network, data, split), split.y, data)
    said: dict[str, Any] = {"split": name, "examples": len(split), **_plain(found)}
    if found.better and not is_dead(found) and not _is_constant(data):
        note = too_sure(found)
        return {KEY: {**said, "note": note} if note else said}
    workspace.told.add(path)
    if _is_constant(data):
        why = "the target is the same in every training example"
        return {KEY: {**said, "problem": f"no better than a constant: {why}"}}
    why = _cause(found, workspace, network, data, path, training, teachers)
    return {KEY: {**said, "problem": f"{shortfall(found)}; likely cause: {why}"}}


def tell_of_teachers(workspace: Workspace, paths: Sequence[str]) -> None:
    """Tell of teachers that are no better than a constant, each once, before a student begins."""
    for path in paths:
        problem = problem_of(_record(workspace, path))
        if problem is not None and path not in workspace.told:
            workspace.told.add(path)
            workspace.watcher.tell(f"the teacher in {path} is {problem}")


def judgement(prediction: Distribution, labels: Tensor, data: Data) -> dict[str, Any]:
    """Return the judgement of predictions alone, without a likely cause."""
    found = against_constant(prediction, labels, data)
    said = {"examples": len(labels), **_plain(found)}
    if found.better and not is_dead(found):
        note = too_sure(found)
        return {**said, "note": note} if note else said
    return {**said, "problem": shortfall(found)}


@contextmanager
def blaming(workspace: Workspace, data: Data, teacher: Teacher | None) -> Iterator[None]:
    """Name the teacher as the cause where a training fails whose teacher answers no better.

    Args:
        workspace: The workspace of the run.
        data: The data set.
        teacher: The teacher; None where the training learns from labels.

    Raises:
        TrainingError: The training failed; the sentence says of whose fault.
    """
    try:
        yield
    except TrainingError as error:
        said = None if teacher is None else _fault_of(workspace, data, teacher)
        if said is None:
            raise
        what = str(error).partition(";")[0]
        raise TrainingError(f"{what}; the cause is its teacher, which is {said}") from error


def _fault_of(workspace: Workspace, data: Data, teacher: Teacher) -> str | None:
    name, split = _held(data)
    if split is None:
        return None
    assert split.y is not None
    try:
        said = workspace.predict(on_split(teacher, name), data, split)
        found = against_constant(said, split.y, data)
    except (XclError, ValueError):
        return None  # it cannot be asked about them
    return None if found.better and not is_dead(found) else shortfall(found)


def of_members(known: Sequence[Any]) -> dict[str, Any] | None:
    """Return the judgement of a teacher by those of its networks; None where they do not say.

    They do where there is one network, and where all have problems.
    """
    found = [one for one in known if isinstance(one, dict)]
    if len(found) == 1 == len(known) or (found and all("problem" in one for one in found)):
        return found[0] if len(found) == len(known) else None
    return None


def problem_of(record: Mapping[str, Any]) -> str | None:
    """Return the problem that a ``stage.json``, or its outcome, tells; None where there is none."""
    known = record.get(KEY)
    found = known.get("problem") if isinstance(known, Mapping) else None
    return found if isinstance(found, str) else None


def shortfall(found: Against) -> str:
    """Return how a network that is no better than a constant stands, as a clause."""
    if found.better and is_dead(found):
        part = f"{100 * found.far_out:.0f} % of the examples"
        return f"as good as dead: its variance is far out of bounds for {part}"
    title, unit = _RATIOS[found.measure]
    error = f"{title} {_figure(found.error)} against {_figure(found.constant_error)} {unit}".strip()
    return f"no better than a constant: {error}, NLL {_figure(found.nll)} against " + _figure(
        found.constant_nll
    )


def too_sure(found: Against) -> str | None:
    """Return a clause on an NLL that is worse than a constant's; None where it is not."""
    if not found.too_sure:
        return None
    return (
        f"too sure of itself: its NLL is {_figure(found.nll)}, a constant's "
        f"{_figure(found.constant_nll)}"
    )


def _plain(found: Against) -> dict[str, Any]:
    """Return figures as plain values; one that is not finite is None, as JSON has none."""
    return {
        name: value if not isinstance(value, float) or math.isfinite(value) else None
        for name, value in found.dump().items()
    }


def _figure(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "not finite"


def _is_constant(data: Data) -> bool:
    """Whether all real targets are constant in training, so that there is nothing to learn."""
    y = data.train.y
    return y is not None and y.is_floating_point() and bool((y == y[:1]).all())


def _held(data: Data) -> tuple[str, Split | None]:
    for name, split in (("validation", data.validation), ("test", data.test)):
        if len(split) and split.y is not None:
            return name, _some(split)
    return "", None


def _some(split: Split) -> Split:
    if len(split) <= _MOST or split.y is None:
        return split
    return split[spaced(len(split), _MOST).to(split.y.device)]


def _cause(
    found: Against,
    workspace: Workspace,
    network: Teacher,
    data: Data,
    path: str,
    training: Training | None,
    teachers: Sequence[str],
) -> str:
    """Return the likely cause, as a clause."""
    if any(problem_of(_record(workspace, teacher)) for teacher in teachers):
        return "its teacher, which is no better itself"
    if training is None:
        return "inputs that say little of the target, or too few draws"
    rate = f"lr {training.rate:g}, {training.steps:,} steps of {training.optimizer_name}"
    if is_dead(found):
        return f"a variance thrown out of its bounds; a smaller lr or a clip_norm may help ({rate})"
    fell = _fall(workspace, path)
    if fell is not None and not fell[1] < fell[0]:
        return f"its loss never fell; another lr ({rate})"
    if found.same:
        return f"it gives the same answer to every example; another lr or more steps ({rate})"
    own = _some(data.train)
    assert own.y is not None
    known = against_constant(workspace.predict(network, data, own), own.y, data)
    if known.better:
        return "it knows its training examples and no others: few rows, or a weight_decay too small"
    return f"inputs that say little of the target, or too short a training ({rate})"


def _record(workspace: Workspace, path: str) -> dict[str, Any]:
    try:
        return workspace.record(path)
    except StorageError:
        return {}


def _fall(workspace: Workspace, path: str) -> tuple[float, float] | None:
    """Return the first and the last loss of the log; None where it has too few."""
    try:
        lines = read_lines(workspace.folder / path / "log.jsonl")
    except (StorageError, OSError):
        return None
    losses = [line["loss"] for line in lines if isinstance(line.get("loss"), float)]
    return (losses[0], losses[-1]) if len(losses) >= _FEWEST else None
