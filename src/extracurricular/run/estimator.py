"""A student that is no network: trees that are fitted to the teacher's answers on draws.

The budget is a number of draws, not of steps: the draws are made, the teacher is asked about each
once, and a scikit-learn estimator is fitted (:mod:`~extracurricular.models.estimators`). No
estimator is kept, but its trees as tensors, in ``weights.safetensors``. A fit that is interrupted
begins anew, and ends at the same trees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from extracurricular.data.base import Data
from extracurricular.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Gaussian,
    concatenate,
)
from extracurricular.errors import RecipeError, own_code
from extracurricular.files import save_weights
from extracurricular.inputs import Batch, leaves
from extracurricular.models import parameter_count
from extracurricular.models.estimators import ESTIMATORS
from extracurricular.models.trees import Array, Block, Trees, planted, restored
from extracurricular.registry import split_spec
from extracurricular.run.answering import check_draws
from extracurricular.run.expense import questions
from extracurricular.run.judged import blaming, judged, tell_of_teachers
from extracurricular.run.network import NetworkStage
from extracurricular.run.precision import autocast
from extracurricular.run.settings import checked_as, data_settings
from extracurricular.run.stages import Checks, Price, begun
from extracurricular.run.trial import PROBE, try_sampler
from extracurricular.run.workspace import Workspace
from extracurricular.samplers import Context, Sampler, Share, is_pure
from extracurricular.samplers.build import share_is_auto
from extracurricular.teachers import LabelTeacher, NetworkTeacher, Teacher
from extracurricular.teachers.base import check_answer, on_draws

# Draws that are made, and asked about, at once.
_AT_ONCE = 1024
TRIED = 64
"""Draws on which an estimator of the user's own is tried."""
_WHY = "but an estimator is fitted at once, and no student is in training"


@dataclass(frozen=True)
class EstimatorStage(NetworkStage):
    """An estimator to fit as a student.

    Args:
        estimator: Spec of the estimator.

    The ``training`` has one step, whose batch is all the draws.
    """

    estimator: Any = None

    @property
    def steps(self) -> int:
        """The number of steps, 1: a fit is a single act."""
        return 1

    @property
    def leaves(self) -> tuple[str, ...]:
        """Nothing: a fit has no log."""
        return ()

    @property
    def settings(self) -> dict[str, Any]:
        """All that the result depends on but the content of the data, as plain values."""
        return {
            "data": data_settings(self.data),
            "estimator": self.estimator,
            "draws": self.length,
            "sampler": self.sampler,
            "learns_from": self.learns_from,
            "seed": self.seed,
            "precision": self.precision,
            "upstream": self.upstream,
        }

    def asks_once(self, teacher: Teacher, sampler: Sampler) -> bool:
        """Whether a loop asks the teacher once about each stored example; there is no loop."""
        return False

    # -- building and loading ---------------------------------------------------------------------

    def untrained(self, workspace: Workspace) -> nn.Module:
        """Return the trees on the CPU; one leaf for each output where they are not fitted yet."""
        if self.is_done(workspace):
            return self._restored(workspace)
        return no_trees(workspace.described(self.data))

    def trained(self, workspace: Workspace, device: torch.device | None = None) -> nn.Module:
        """Return the fitted trees, on the device of the run or on another.

        Raises:
            StorageError: They are missing or damaged.
        """
        return self._restored(workspace).to(device or workspace.device)

    def _restored(self, workspace: Workspace) -> Trees:
        spec, state = workspace.record(self.path).get("trees"), workspace.weights(self.path)
        return restored(spec, state, *sizes_of(workspace.described(self.data)))

    # -- doing ------------------------------------------------------------------------------------

    def do(self, workspace: Workspace) -> None:
        """Fit the estimator; an interrupted fit begins anew."""
        if self.is_done(workspace):
            return
        tell_of_teachers(workspace, self.networks)
        data = workspace.data(self.data)
        with begun(workspace, self) as outcome:
            sampler, teacher = self.lesson(workspace, None)  # type: ignore[arg-type]  # no draw depends on it
            blamed = None if self.learns_from == "labels" else teacher
            with blaming(workspace, data, blamed):
                with autocast(workspace.precision, workspace.device):
                    asked = asked_about(sampler, teacher, self.length, workspace.device)
                trees = fitted_trees(self.estimator, self.seed, asked, f"{self.key}.estimator")
            trees = trees.to(workspace.device)
            network = NetworkTeacher(trees, data.task)
            folder = workspace.folder / self.path
            outcome |= {
                "sha256": save_weights(folder / "weights.safetensors", trees.state_dict()),
                "trees": trees.spec,
                "steps": 0,
                "draws": self.length,
                "parameters": parameter_count(trees),
                **judged(workspace, network, data, self.path, None, self.networks),
            }

    # -- checking ---------------------------------------------------------------------------------

    def check(self, workspace: Workspace, checks: Checks) -> None:
        """Build estimator and sampler, draw, and try an estimator of the user's own on the draws.

        Raises:
            RecipeError: Something cannot be built, or the draws need a student in training.
        """
        name = checked_as(self.key, self.settings, self.record is not None)
        if name in checks.seen:
            return
        checks.seen.add(name)
        key = f"{self.key}.sampler"
        ESTIMATORS.build(self.estimator, key=f"{self.key}.estimator")
        check_share(self.sampler, key)
        context = Context()
        if self.teacher is not None:
            checks.teacher = checks.teacher or self.teacher.preview(workspace)
            context = Context(checks.teacher, self.untrained(workspace), checks.generators)
        sampler = self.build_sampler(workspace, context)
        check_pure(sampler, key)
        if self.learns_from == "teacher" and checks.teacher is not None:
            check_draws(checks.teacher, sampler, self.key)
        batch = try_sampler(sampler, torch.arange(PROBE).to(workspace.device), key)
        if self.learns_from == "labels" and batch.y is None:
            raise RecipeError(
                key, "gives examples without labels, but the student learns from labels"
            )
        checks.asks[self.key] = questions(sampler, self.learns_from)
        if self.record is not None or (self.teacher is not None and self.teacher.is_stored):
            checks.asks[self.key] = 0.0
        if is_own(self.estimator):
            taught = self.learns_from == "teacher" and checks.teacher is not None
            asked = checks.teacher if taught else LabelTeacher()
            assert asked is not None
            with workspace.exact():
                found = asked_about(sampler, asked, TRIED, workspace.device)
            fitted_trees(self.estimator, self.seed, found, f"{self.key}.estimator")

    def price(self, workspace: Workspace, checks: Checks) -> Price:
        """Return the cost of the fit."""
        asked = round(self.length * checks.asks.get(self.key, 0.0)) if self.teacher else 0
        return Price(1, self.length, asked)


def check_share(chain: Any, key: str) -> None:
    """Refuse a chain, or a sampler, with a share that follows the student in training.

    Raises:
        RecipeError: It has one.
    """
    auto = isinstance(chain, Share) and chain.of is None
    if auto or (isinstance(chain, str | dict | list) and share_is_auto(chain)):
        raise RecipeError(
            key, f"has a share of 'auto', which follows the student's mastery, {_WHY}"
        )


def check_pure(sampler: Sampler, key: str) -> None:
    """Refuse a sampler whose draws depend on the student in training.

    Raises:
        RecipeError: They do.
    """
    if not is_pure(sampler):
        raise RecipeError(key, f"gives draws that depend on the student, {_WHY}")


def no_trees(data: Data) -> Trees:
    """Return one leaf for each output, which stands for trees that are not fitted yet."""
    return planted([Block([], np.zeros(data.task.outputs))])


def sizes_of(data: Data) -> tuple[int, int]:
    """Return the numbers of inputs and outputs of trees for a data set."""
    inputs = sum(math.prod(leaf.shape[1:]) for leaf in leaves(data.train.x).values())
    return inputs, data.task.outputs


def is_own(estimator: Any) -> bool:
    """Return whether an estimator is code of the user's own, which is tried before it is needed."""
    kind, _ = split_spec(estimator, "estimator", "")
    return kind == "sklearn" or ESTIMATORS.names_own_code(kind)


def asked_about(
    sampler: Sampler, teacher: Teacher, count: int, device: torch.device
) -> tuple[Array, Distribution, Array]:
    """Return the draws that differ, the teacher's distributions, and how often each was drawn.

    Args:
        sampler: The sampler.
        teacher: The teacher, or labels.
        count: Draws.
        device: The device of both.
    """
    asked = on_draws(teacher, sampler)
    x, said = [], []
    with torch.no_grad():
        for start in range(0, count, _AT_ONCE):
            slots = torch.arange(start, min(start + _AT_ONCE, count), device=device)
            # A share says by a draw's id which side it is of.
            batch = sampler(sampler.ids(slots) if isinstance(sampler, Share) else slots)
            answer = asked(batch.taught)
            # Whoever is sure, as labels are, has a variance of 0, whose logarithm is not finite.
            if not bool(torch.isfinite(answer.mean).all()):
                check_answer(answer, batch.ids)
            x.append(table(batch))
            said.append(on_cpu(answer))
    return gathered(np.concatenate(x), concatenate(said))


def fitted_trees(spec: Any, seed: int, asked: tuple[Array, Distribution, Array], key: str) -> Trees:
    """Fit an estimator, and return its trees, on the CPU.

    Args:
        spec: Spec of the estimator.
        seed: Seed of everything random in it.
        asked: Draws, distributions and counts, as :func:`asked_about` gives them.
        key: Where the spec stands.

    Raises:
        RecipeError: The spec is wrong, or the fit fails.
    """
    from threadpoolctl import threadpool_limits

    entry = ESTIMATORS.build(spec, key=key)
    key = f"{key}.{split_spec(spec, 'estimator', key)[0]}"
    # On one thread sums have one order, so that fitting again gives the same trees.
    with threadpool_limits(limits=1), own_code(key, "cannot be fitted", plain=True):
        try:
            return entry.fit(*asked, seed)
        except RecipeError as error:
            raise RecipeError(f"{key}.{error.key}".strip("."), error.problem) from error
        except ValueError as error:
            raise RecipeError(key, str(error)) from error


def table(batch: Batch) -> Array:
    """Return the inputs of a batch as estimators take them, standardised, float32, [B, K]."""
    parts = [leaf.reshape(len(leaf), -1) for leaf in leaves(batch.x).values()]
    found: Array = torch.cat(parts, 1).float().cpu().numpy()
    return found


def on_cpu(said: Distribution) -> Distribution:
    """Return distributions in float32 on the CPU."""
    parameters = said.parameters.float().cpu()
    return (
        said.like(parameters) if isinstance(said, Gaussian) else type(said).from_output(parameters)
    )


def gathered(x: Array, said: Distribution) -> tuple[Array, Distribution, Array]:
    """Return the rows that differ, in order, the mixture of the distributions of each, and counts.

    A stored example that is drawn ten times is one row, so that a leaf of at least 20 rows holds 20
    examples.
    """
    number: dict[bytes, int] = {}
    place = np.array([number.setdefault(row.tobytes(), len(number)) for row in x])
    if len(number) == len(x):
        return x, said, np.ones(len(x))
    row, weight = torch.from_numpy(place), np.bincount(place).astype(np.float64)
    first = np.unique(place, return_index=True)[1]

    def mean(values: Tensor) -> Tensor:
        total = torch.zeros(len(weight), values.shape[1], dtype=torch.float64)
        return total.index_add_(0, row, values.double()) / torch.from_numpy(weight)[:, None]

    joined: Distribution
    if isinstance(said, Gaussian):
        middle = mean(said.mean)
        # The variance of the mixture: the mean variance, and the variance of the means.
        var = mean(said.var) + mean(said.mean.double().square()) - middle.square()
        joined = Gaussian(middle.float(), var.clamp_min(0).log().float())
    elif isinstance(said, Categorical):
        joined = Categorical.from_probs(mean(said.probs).float())
    else:
        joined = Bernoulli.from_probs(mean(said.mean).float())
    return x[first], joined, weight
