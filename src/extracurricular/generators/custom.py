"""Generators of your own: a function, or a torch module with its weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn

from extracurricular.data.base import Data
from extracurricular.errors import NoteWarning, StorageError
from extracurricular.generators.base import GENERATORS, Fit, FitContext, Generator, conditions
from extracurricular.inputs import Inputs, leaves, obstacle
from extracurricular.models.weights import check_state, load_pretrained
from extracurricular.registry import Registry

Function: TypeAlias = Callable[[Tensor, Tensor], Inputs]

# It holds no entries, but imports what a recipe names as module:function.
_FACTORIES: Registry[Function] = Registry("factory")


@dataclass(frozen=True)
class _NoGrad:
    """A function of (latent, condition) that runs without gradients."""

    function: Function

    @property
    def obstacle(self) -> str | None:
        """The reason why a CUDA graph cannot hold the function, as a clause; None if it can."""
        return obstacle(self.function)

    def __call__(self, latent: Tensor, condition: Tensor) -> Inputs:
        with torch.no_grad():
            return self.function(latent, condition)


@GENERATORS.register("module")
@dataclass(frozen=True)
class OwnModule(Fit):
    """A generator of your own: ``factory()`` returns the function of (latent, condition).

    The factory is your code, found by name as ``module:function``. Only tensors are read from
    ``weights``, and a run keeps the tensors that it used.

    Args:
        factory: ``package.module:function``, which is called without arguments. It returns a torch
            module, which is put in evaluation mode, or any other callable, as
            :class:`~extracurricular.generators.Generator` describes.
        latent: Count of the numbers in a latent.
        weights: Tensors of the torch module: a .safetensors file, or a state dict that torch saved,
            alone or under ``state_dict`` or ``model``. None to keep the factory's.
        uniforms, conditional: As for :class:`~extracurricular.generators.Generator`.
        range: The values of black and white, such as [-1, 1]; empty for raw values.
    """

    factory: str
    latent: int
    weights: str | None = None
    uniforms: int = 0
    conditional: bool = True
    range: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check the settings."""
        if ":" not in self.factory:
            raise ValueError(f"factory is {self.factory!r}; it must be package.module:function")
        if len(self.range) not in (0, 2):
            raise ValueError(f"range is {list(self.range)}; it must be two numbers, as [-1, 1]")
        # A generator checks the other settings.
        self._generator(lambda latent, condition: latent)

    def preview(self, data: Data) -> Generator:
        """Make the generator, which needs no fitting."""
        return self.load(self.fit(data, seed=0, folder=None, device=data.device), data)

    def _fit(self, context: FitContext) -> dict[str, Tensor]:
        """Call the factory, load the weights, and try the generator once.

        Returns:
            The state dict of a torch module; an empty dict for another callable.

        Raises:
            ValueError: The factory cannot be used, or its generator does not go with the data.
            StorageError: The file of weights is missing or damaged, or does not fit the module.
        """
        # A factory that draws its weights draws the same ones for the same seed.
        torch.manual_seed(context.seed)
        function = self._make()
        state: dict[str, Tensor] = {}
        if isinstance(function, nn.Module):
            if self.weights is not None:
                for note in load_pretrained(function, Path(self.weights)):
                    warnings.warn(note, NoteWarning, stacklevel=2)
            state = {k: v.detach().cpu().clone() for k, v in function.state_dict().items()}
        elif self.weights is not None:
            raise ValueError(
                f"weights is {self.weights!r}, but the factory {self.factory!r} gives "
                f"{_a(function)}; only a torch module takes weights"
            )
        self._try(_ready(function, context.data), context.data)
        context.tell(1, 0.0)
        return state

    def load(self, state: dict[str, Tensor], data: Data) -> Generator:
        """Call the factory again, and load the weights that :meth:`fit` returned.

        Raises:
            StorageError: The factory returns another module than before.
        """
        with torch.random.fork_rng(devices=[]):
            function = self._make()
        where = f"the kept generator {self.factory!r}"
        if isinstance(function, nn.Module):
            check_state(function.state_dict(), state, where, owner="module")
            function.load_state_dict(state)
        elif state:
            raise StorageError(f"{where} is a torch module, but the factory gives {_a(function)}")
        return self._generator(_ready(function, data))

    def _generator(self, function: Function) -> Generator:
        low_high = (self.range[0], self.range[1]) if self.range else None
        return Generator(function, self.latent, self.uniforms, self.conditional, low_high)

    def _make(self) -> Function:
        factory, _ = _FACTORIES.find(self.factory, key="factory")
        function = factory()
        if not callable(function):
            raise ValueError(
                f"factory is {self.factory!r}, which gives {_a(function)}; "
                "it must give a torch module or a function of (latent, condition)"
            )
        return function

    def _try(self, function: Function, data: Data) -> None:
        # A mistake shows here, not after hours of training.
        condition = conditions(data, data.train[:2])
        made = function(condition.new_full((len(condition), self.latent), 0.5), condition)
        values = list(made.values()) if isinstance(made, dict) else made
        values = values if isinstance(values, list | tuple) else [values]
        if not all(isinstance(value, Tensor) for value in values):
            raise ValueError(f"the generator {self.factory!r} gives {_a(made)}, not tensors")
        found, wanted = (
            {k: tuple(v.shape[1:]) for k, v in leaves(x).items()} for x in (made, data.train.x)
        )
        if found != wanted or any(len(value) != len(condition) for value in values):
            raise ValueError(
                f"the generator {self.factory!r} gives examples of shape {_text(found)}, "
                f"those of data {data.name!r} have {_text(wanted)}"
            )


def _ready(function: Function, data: Data) -> Function:
    if isinstance(function, nn.Module):
        function = function.to(data.device).eval().requires_grad_(False)
    return _NoGrad(function)


def _a(value: object) -> str:
    """Return the type of a value as words, for errors."""
    return f"a value of type {type(value).__name__}"


def _text(shapes: dict[str, tuple[int, ...]]) -> str:
    return str(shapes[""]) if set(shapes) == {""} else str(shapes)
