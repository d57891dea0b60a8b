"""Matching of features: what a layer of the student gives, beside what one of the teacher gives.

Both layers are found by name, and heard by hooks, on the very draws of each step. Where shapes
differ, a projector is trained with the student and dropped with the training.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from extracurricular import rng
from extracurricular.distributions.outputs import raw_output
from extracurricular.errors import RecipeError, known_names, shorten
from extracurricular.inputs import Inputs

if TYPE_CHECKING:
    from collections.abc import Iterator

LOSSES = ("mse", "attention", "similarity")


@dataclass(frozen=True)
class Features:
    """Which layers are matched, and how.

    Args:
        student, teacher: Names of a layer of each, as ``named_modules`` has them.
        loss: ``mse`` (FitNets, Romero et al. 2015): squared error of the projected features;
            ``attention`` (Zagoruyko and Komodakis 2017): squared error of normalised maps of
            squares summed over channels; ``similarity`` (Tung and Mori 2019): squared error of the
            normalised similarities of all pairs of examples in a batch.
        weight: Weight of this loss beside the matching, greater than 0.
    """

    student: str
    teacher: str
    loss: Literal["mse", "attention", "similarity"] = "mse"
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.loss not in LOSSES:
            raise RecipeError(
                "features.loss", f"is {shorten(self.loss)}; it must be one of {', '.join(LOSSES)}"
            )
        if not 0 < self.weight < float("inf"):
            raise RecipeError("features.weight", f"is {self.weight}; it must be finite and above 0")

    @property
    def relates(self) -> bool:
        """Whether the loss of an example depends on the others of its batch."""
        return self.loss == "similarity"


class FeatureLoss:
    """The loss of features of one training, with its projector.

    Args:
        features: What is matched.
        student, teacher: The networks, on the device; the teacher answers in evaluation mode.
        x: Some inputs, for the shapes of the features.
        seed: Seed of the projector's first weights.

    Raises:
        RecipeError: A layer is in neither network, or its features do not go with the loss.
    """

    def __init__(
        self, features: Features, student: nn.Module, teacher: nn.Module, x: Inputs, seed: int
    ) -> None:
        self.features, self.teacher = features, teacher
        self._layers = {
            "student": layer_of(student, features.student, "student"),
            "teacher": layer_of(teacher, features.teacher, "teacher"),
        }
        self._heard: dict[str, Tensor] = {}
        with in_evaluation(student), self._listening(student, "student"):
            student(x)
        said, wanted = self._heard.pop("student"), self._ask(x)
        check_shapes(features, said, wanted)
        self.projector = projector(features, said, wanted, seed).to(said.device)
        self._hook = self._layers["student"].register_forward_hook(self._hear("student"))

    @contextmanager
    def _listening(self, module: nn.Module, side: str) -> Iterator[None]:
        hook = self._layers[side].register_forward_hook(self._hear(side))
        try:
            with torch.no_grad():
                yield
        finally:
            hook.remove()

    def _hear(self, side: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            self._heard[side] = raw_output(output)

        return hook

    def _ask(self, x: Inputs) -> Tensor:
        """Return the teacher's features of some inputs."""
        if any(part.training for part in self.teacher.modules()):
            self.teacher.eval()
        with self._listening(self.teacher, "teacher"):
            self.teacher(x)
        return self._heard.pop("teacher")

    def __call__(
        self, x: Inputs, weight: Tensor | None, autocast: AbstractContextManager[None]
    ) -> Tensor:
        """Return the weighted loss for the inputs that the student was just called on, a scalar."""
        said = self._heard.pop("student")
        with autocast:
            wanted = self._ask(x)
        return self.features.weight * feature_loss(
            self.features.loss, self.projector(said.float()), wanted.float(), weight
        )

    def stop(self) -> None:
        """Listen no longer."""
        self._hook.remove()


def feature_loss(loss: str, said: Tensor, wanted: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the distance of features from those that are wanted, a scalar.

    Args:
        loss: ``mse``, ``attention`` or ``similarity``.
        said, wanted: Features [B, C], or maps [B, C, H, W]; of two sizes, the larger maps are
            averaged to the smaller ones.
        weight: Weight of each example, [B]; not for ``similarity``, which is about pairs.
    """
    if said.ndim == 4:
        said, wanted = _same_size(said, wanted)
    if loss == "similarity":
        return (_similarities(said) - _similarities(wanted)).square().mean()
    if loss == "attention":
        said, wanted = _attention(said), _attention(wanted)
    each = (said - wanted).square().flatten(1).mean(1)
    return (each if weight is None else each * weight).mean()


def _same_size(said: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    height, width = (min(a, b) for a, b in zip(said.shape[2:], wanted.shape[2:], strict=True))
    size = (height, width)
    first, second = (
        maps if maps.shape[2:] == size else F.adaptive_avg_pool2d(maps, size)
        for maps in (said, wanted)
    )
    return first, second


def _attention(maps: Tensor) -> Tensor:
    """Return the normalised sum of squares over channels, [B, H · W]; equation 2 of the paper."""
    return F.normalize(maps.square().sum(1).flatten(1), dim=1)


def _similarities(features: Tensor) -> Tensor:
    """Return the products of all pairs of examples, each row normalised, [B, B]; equation 1."""
    flat = features.flatten(1)
    return F.normalize(flat @ flat.T, dim=1)


def layer_of(network: nn.Module, name: str, side: str) -> nn.Module:
    """Return the layer of a network that has a name.

    Raises:
        RecipeError: There is none; the sentence lists names that are close.
    """
    parts: dict[str, nn.Module] = {n: part for n, part in network.named_modules() if n}
    if name not in parts:
        raise RecipeError(
            f"features.{side}", f"is {name!r}, which is no layer; {known_names(name, parts)}"
        )
    return parts[name]


def check_shapes(features: Features, said: Tensor, wanted: Tensor) -> None:
    """Refuse features that do not go with the loss.

    Raises:
        RecipeError: They do not; the sentence has their shapes.
    """
    shapes = f"{tuple(said.shape[1:])} of the student, {tuple(wanted.shape[1:])} of the teacher"
    if features.loss == "attention" and not said.ndim == wanted.ndim == 4:
        raise RecipeError(
            "features.loss",
            f"is 'attention', which needs maps [C, H, W], but the layers give {shapes}",
        )
    if features.loss == "mse" and (said.ndim != wanted.ndim or said.ndim not in (2, 4)):
        raise RecipeError(
            "features.loss",
            "is 'mse', which needs vectors [D] of both, or maps [C, H, W] of both, but the layers "
            f"give {shapes}",
        )


def projector(features: Features, said: Tensor, wanted: Tensor, seed: int) -> nn.Module:
    """Return what brings the student's features to the teacher's channels: a linear layer, or none.

    Of maps it is a convolution of 1x1. Attention and similarities need none.
    """
    first, last = said.shape[1], wanted.shape[1]
    if features.loss != "mse" or first == last:
        return nn.Identity()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.fold(seed, "projector") >> 1)
        return nn.Linear(first, last) if said.ndim == 2 else nn.Conv2d(first, last, 1)


@contextmanager
def in_evaluation(network: nn.Module) -> Iterator[None]:
    """Put a network in evaluation mode while a block runs."""
    modes = [(part, part.training) for part in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
