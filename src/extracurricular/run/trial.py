"""Call each network, sampler and loss of a recipe once, before anything is trained.

A network that does not take the data, gives another shape or cannot learn is refused here by its
key, on two examples, and not after the hours of another's training. A trial leaves weights and
random states as they were, so no number of the run depends on it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import UninitializedParameter

from extracurricular.data.base import Data, Split
from extracurricular.distributions import Distribution, Task
from extracurricular.distributions.outputs import raw_output
from extracurricular.errors import RecipeError, XclError, own_code, own_place, raised, shorten
from extracurricular.evaluation.predict import not_finite, rows_not_finite
from extracurricular.inputs import Batch, Inputs, channels_last, leaves, tree_map
from extracurricular.matching import DIVERGENCES, Matching, find_divergence, traits_of
from extracurricular.matching.course import ends
from extracurricular.matching.divergences import kinds_in_words
from extracurricular.samplers import Sampler
from extracurricular.teachers import Teacher
from extracurricular.teachers.base import on_draws
from extracurricular.teachers.raw import NotFiniteError

PROBE = 2
"""Examples that a network is tried on."""

MOST_SECONDS = 2.0
"""Time in which a teacher is asked, before a run, about examples that it will be asked about."""

# It is asked about more and more at once, as one that is slow must not take much longer.
_AT_ONCE = (2, 256)

# Most that rounding moves an answer, as a part of the largest.
_ROUNDING = 0.02


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Put weights, buffers, modes and all random states back once a block ends."""
    for name, own in module.named_parameters():
        if isinstance(own, UninitializedParameter):
            raise ValueError(
                f"has a layer whose size is not known before its first call ({name}); give it its "
                "sizes, as nn.Linear has them and nn.LazyLinear has not"
            )
    tensors: list[Tensor] = [*module.parameters(), *module.buffers()]
    kept = [value.detach().clone() for value in tensors]
    modes = [(part, part.training) for part in module.modules()]
    devices = {value.device for value in tensors if value.device.type == "cuda"}
    # The user's own code draws from wherever it likes.
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=list(devices)):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        with torch.no_grad():
            for value, old in zip(tensors, kept, strict=True):
                value.copy_(old)
                value.grad = None
        for part, mode in modes:
            part.training = mode


def check_loss(matching: Matching, learns_from: str, batch: Batch, task: Task, owner: str) -> None:
    """Refuse a loss that does not go with the draws or the task.

    Args:
        matching: The loss.
        learns_from: ``labels`` or ``teacher``.
        batch: Some draws.
        task: What is predicted.
        owner: Where the student or teacher stands in the recipe.

    Raises:
        RecipeError: The loss does not fit them.
    """
    key = f"{owner}.matching"
    try:
        matching.beta_for(task.kind)
    except ValueError as error:
        raise RecipeError(key, str(error)) from error
    _check_kind(matching, task, key)
    labelled = batch.y is not None
    if learns_from == "labels":
        if not labelled:
            raise RecipeError(
                f"{owner}.learns_from",
                "is 'labels', but the sampler gives examples without labels",
            )
        reason = traits_of(matching.divergence).no_labels.get(task.kind)
        if reason is not None:
            known = {name: traits_of(name) for name in DIVERGENCES.names()}
            takes = [
                name
                for name, traits in known.items()
                if task.kind in traits.kinds and task.kind not in traits.no_labels
            ]
            raise RecipeError(
                f"{key}.divergence",
                f"is {matching.divergence!r}, {reason}; learning from labels needs one of "
                f"{', '.join(takes)}",
            )
        if any(value != 1 for value in ends(matching.temperature)):
            raise RecipeError(
                f"{key}.temperature",
                f"is {matching.temperature}; labels have no temperature, so it must be 1",
            )
    if matching.label_weight > 0 and not labelled:
        raise RecipeError(
            f"{key}.label_weight",
            f"is {matching.label_weight}, but the sampler gives examples without labels",
        )


def _check_kind(matching: Matching, task: Task, key: str) -> None:
    """Refuse a loss that is for tasks of another kind.

    Raises:
        RecipeError: It is.
    """
    if DIVERGENCES.is_barred(matching.divergence_name):
        return  # a run that is only looked at is read without its author's code
    kinds = traits_of(find_divergence(matching.divergence, f"{key}.divergence")).kinds
    what = kinds_in_words((task.kind,))
    if task.kind not in kinds:
        raise RecipeError(
            f"{key}.divergence",
            f"is {shorten(matching.divergence)}, which is for {kinds_in_words(kinds)}, but the "
            f"data have {what}",
        )
    if matching.label_smoothing and task.kind == "regression":
        raise RecipeError(
            f"{key}.label_smoothing",
            f"is {matching.label_smoothing}, but the data have {what}, without classes to spread "
            "it over; leave it out",
        )


def try_sampler(sampler: Sampler, ids: Tensor, key: str) -> Batch:
    """Draw a few examples; parts of the user's own are asked for as many, if others hide them.

    Raises:
        RecipeError: A sampler raises something, or does not give a batch of so many examples.
    """
    for part in _own_parts(sampler):
        _drawn(part, ids, key)
    return _drawn(sampler, ids, key)


def _drawn(sampler: Sampler, ids: Tensor, key: str) -> Batch:
    try:
        batch: Any = sampler(ids)
    except XclError:
        raise
    except Exception as error:  # a sampler of the user's own raises what it likes
        own = own_place(error) is not None or not isinstance(error, ValueError)
        text = f"cannot draw two examples: {raised(error)}" if own else str(error)
        raise RecipeError(key, text) from error
    if not isinstance(batch, Batch):
        raise RecipeError(
            key, f"gives a {type(batch).__name__}; a sampler gives an extracurricular Batch"
        )
    sizes = {len(batch.ids), *(len(leaf) for leaf in leaves(batch.x).values())}
    if sizes != {len(ids)}:
        raise RecipeError(
            key, f"gives {max(sizes - {len(ids)})} examples where {len(ids)} were drawn"
        )
    return batch


def _own_parts(sampler: object) -> Iterator[Any]:
    """Yield the samplers inside one that are no part of this package."""
    for child in getattr(sampler, "_children", ()):
        if not _is_ours(child):
            yield child
        yield from _own_parts(child)


def _is_ours(thing: object) -> bool:
    return type(thing).__module__.partition(".")[0] == "extracurricular"


def try_answer(teacher: Teacher, batch: Batch, task: Task, key: str) -> Distribution:
    """Ask a teacher about a few examples.

    Raises:
        RecipeError: It raises something, or gives no distribution of the task.
    """
    with own_code(key, "the teacher cannot be asked about two examples", plain=True):
        said: Any = teacher(batch)
    if not isinstance(said, Distribution):
        raise RecipeError(
            key, f"the teacher gives a {type(said).__name__}; a teacher gives a Distribution"
        )
    own = replace(task, family=said.family)
    shape, wanted = tuple(said.parameters.shape), (len(batch), own.outputs)
    if shape != wanted:
        raise RecipeError(key, f"the teacher gives {shape}, and {_needs(own, len(batch))}")
    return said


def try_answers(teacher: Teacher, data: Data, split: Split, who: str) -> None:
    """Ask a teacher that needs no training about a split, as far as :data:`MOST_SECONDS` allow.

    Raises:
        TrainingError: It gives NaN or infinity for some examples; the sentence names the first.
    """
    bad: list[int] = []
    done, began, (size, most) = 0, time.perf_counter(), _AT_ONCE
    while done < len(split) and time.perf_counter() - began < MOST_SECONDS:
        raw = split[slice(done, done + size)]
        ids = torch.arange(done, done + len(raw), device=data.device)
        try:
            said = teacher(Batch(ids, data.inputs(raw.x)))
            bad += [done + row for row in rows_not_finite(said)]
        except NotFiniteError as error:
            bad += [done + row for row in error.rows]
        done, size = done + len(raw), min(2 * size, most)
    if bad:
        raise not_finite(who, bad, data, split, done)


def lesson_of(teacher: Teacher, sampler: Sampler, task: Task) -> Callable[[Batch], Distribution]:
    """Return a teacher as it is tried on the draws of a sampler."""
    asked = on_draws(teacher, sampler)

    def teach(batch: Batch) -> Distribution:
        return try_answer(asked, batch.taught, task, "teacher")

    return teach


def probe_of(data: Data) -> Inputs:
    """Return the inputs that networks are tried on."""
    rows = torch.arange(PROBE, device=data.device) % len(data.train)
    return data.inputs(data.train[rows].x)


@dataclass(frozen=True)
class Trial:
    """One network, to be called on a few examples of its data.

    Args:
        module: The network, on the device of the data.
        task: What it predicts.
        probe: Inputs of :data:`PROBE` examples of the data.
        key: Where the student or teacher stands in the recipe; empty where there is no recipe.
        name: Its spec and its data; networks of one name need be tried only once.
    """

    module: nn.Module
    task: Task
    probe: Inputs
    key: str
    name: str = ""

    def at(self, part: str) -> str:
        """Return the key of a part of the student; its network's is "student" without a recipe."""
        if self.key:
            return f"{self.key}.{part}"
        return "student" if part == "model" else part

    def answer(self, batch: Batch | None = None) -> None:
        """Call the network in evaluation mode.

        Args:
            batch: :data:`PROBE` draws of its sampler; the examples of the probe where None.

        Raises:
            RecipeError: It raises something, or gives another shape, or NaN.
        """
        x = self.probe if batch is None else batch.x
        with self._as_it_was(), torch.no_grad():
            said = self._called(self.module.eval(), x, draws=batch is not None)
            if not bool(said.isfinite().all()):
                raise RecipeError(
                    self.at("model"),
                    "gives NaN or infinity for the first examples, before any training",
                )
            if self._mixes(x, said):
                raise RecipeError(
                    self.at("model"), "gives an example another answer if the others in its batch "
                    "stand in another order; the first dimension counts examples"
                )  # fmt: skip

    def _mixes(self, x: Inputs, said: Tensor) -> bool:
        """Return whether answers depend on the order of the examples, as of a recurrent network."""

        def differs(other: Tensor) -> bool:
            return bool((other - said).abs().max() > _ROUNDING * said.abs().max())

        turned = raw_output(self.module(tree_map(lambda leaf: leaf.flip(0), x))).flip(0)
        # A network that draws even in evaluation mode differs from itself, too.
        return differs(turned) and not differs(raw_output(self.module(x)))

    def step(self, batch: Batch, target: Distribution, matching: Matching, size: int) -> None:
        """Compute the loss and its gradients once, as a step of the training does.

        Args:
            batch: :data:`PROBE` draws of the sampler.
            target: What the student learns to say on them.
            matching: The loss.
            size: Examples in a step of the training.

        Raises:
            RecipeError: The network cannot be called on draws, or has nothing to learn, or the loss
                is not one number for each example, or it has no gradient.
        """
        with self._as_it_was(), torch.enable_grad():
            own = [part for part in self.module.parameters() if part.requires_grad]
            if not own:
                raise RecipeError(self.at("model"), "has no parameters that can be trained")
            self.module.train()
            if any(isinstance(part, nn.Conv2d) for part in self.module.modules()):
                # As in the training, where a network that calls view() may fail.
                self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                batch = replace(batch, x=tree_map(channels_last, batch.x))
            if size == 1:
                self._alone(batch)
            prediction = self.task.distribution(self._called(self.module, batch.x, draws=True))
            loss = self._loss(prediction, target, batch, matching)
            with own_code(self.at("model"), "has no gradient on two examples"):
                torch.autograd.backward(loss)
            if all(part.grad is None for part in own):
                raise RecipeError(
                    self.at("model"), "gives answers that none of its trained parameters changes"
                )

    def _alone(self, batch: Batch) -> None:
        """Call the network on a single draw; batch norm may refuse that."""
        try:
            self.module(batch[:1].x)
        except Exception as error:
            self._called(self.module, batch.x, draws=True)
            norms = any(isinstance(part, _BatchNorm) for part in self.module.modules())
            why = "has batch norm, which is trained on two examples or more"
            why = why if norms else f"is trained on two examples, but not on one ({raised(error)})"
            raise RecipeError(
                self.at("training.batch_size"),
                f"is 1, and the network {why}; set it to 2 or more",
            ) from error

    def _called(self, module: nn.Module, x: Inputs, draws: bool = False) -> Tensor:
        """Return the raw output for :data:`PROBE` examples."""
        key = self.at("model")
        shown = ", ".join(str(tuple(leaf.shape)) for leaf in leaves(x).values())
        mode = "in training mode" if module.training else "in evaluation mode"
        if draws and _shapes(x) != _shapes(self.probe):
            key = self.at("sampler")
            mode += f", on draws of other shapes than the data have ({_text(self.probe)})"
        with own_code(key, f"the network cannot be called on inputs {shown} {mode}"):
            said = raw_output(module(x))
        shape, wanted = tuple(said.shape), (PROBE, self.task.outputs)
        if shape != wanted:
            raise RecipeError(key, f"gives {shape}, and {_needs(self.task, PROBE)}")
        return said

    def _loss(
        self, prediction: Distribution, target: Distribution, batch: Batch, matching: Matching
    ) -> Tensor:
        key = self.at("matching")
        t, name = ends(matching.temperature)[0], matching.divergence_name
        if ":" in name:
            divergence = find_divergence(matching.divergence, f"{key}.divergence")
            with own_code(f"{key}.divergence", f"{name!r} cannot be called on two examples"):
                each: Any = divergence(target.tempered(t), prediction.tempered(t))
            shape = tuple(each.shape) if isinstance(each, Tensor) else type(each).__name__
            if shape != (PROBE,):
                raise RecipeError(
                    f"{key}.divergence", f"is {name!r}, which gives {shape} for {PROBE} examples; "
                    f"it must give one number for each, ({PROBE},)"
                )  # fmt: skip
        try:
            loss = matching(prediction, target, batch.y, batch.weight, t)
        except ValueError as error:
            raise RecipeError(key, str(error)) from error
        if not loss.requires_grad:
            if prediction.parameters.requires_grad:
                raise RecipeError(
                    f"{key}.divergence", f"is {name!r}, which has no gradient; it must be computed "
                    "of tensors throughout"
                )  # fmt: skip
            raise RecipeError(
                self.at("model"),
                "gives answers without a gradient; it must not detach them, nor use no_grad",
            )
        return loss

    @contextmanager
    def _as_it_was(self) -> Iterator[None]:
        try:
            with untouched(self.module):
                yield
        except XclError:
            raise
        except ValueError as error:
            raise RecipeError(self.at("model"), str(error)) from error


def try_lesson(
    trial: Trial,
    batch: Batch,
    lesson: Callable[[Batch], Distribution],
    matching: Matching,
    size: int,
    known: set[str],
) -> None:
    """Call a network, and compute its loss on some draws, unless the like was done before.

    Args:
        trial: The network.
        batch: :data:`PROBE` draws of its sampler.
        lesson: Returns what it learns to say on draws.
        matching: The loss.
        size: Examples in a step of the training.
        known: What was tried before; added to.
    """
    if trial.name not in known:
        known.add(trial.name)
        trial.answer()
    if _shapes(batch.x) != _shapes(trial.probe):
        trial.answer(batch)
    loss = [matching.divergence, bool(matching.label_weight), size == 1]
    draws = [str(_shapes(batch.x)), batch.y is None, batch.weight is None]
    name = f"{trial.name} {loss} {draws} {trial.task} {getattr(lesson, '__name__', type(lesson))}"
    if name not in known:
        known.add(name)
        trial.step(batch, lesson(batch), matching, size)


def _needs(task: Task, count: int) -> str:
    """Return the shape that a task needs, as the end of a sentence."""
    wanted = f"({count}, {task.outputs})"
    if task.family is not None:
        return f"{task.family.noun} need {wanted}: {task.needs}"
    if task.kind == "regression":
        if task.size == 1:
            return f"a real target needs {wanted}: a mean and a log variance"
        parts = f"{task.size} means and {task.size} log variances"
        return f"{task.size} real targets need {wanted}: {parts}"
    return f"{task.size} {'labels' if task.binary else 'classes'} need {wanted}"


def _shapes(x: Inputs) -> dict[str, tuple[int, ...]]:
    return {name: tuple(leaf.shape[1:]) for name, leaf in leaves(x).items()}


def _text(x: Inputs) -> str:
    return ", ".join(str(shape) for shape in _shapes(x).values())
