"""The registry of models, the shapes they are built from, and checks of their settings."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor, nn

from extracurricular.errors import RecipeError, shorten
from extracurricular.registry import Registry, split_spec

Shapes: TypeAlias = tuple[int, ...] | tuple[tuple[int, ...], ...] | Mapping[str, tuple[int, ...]]
"""The shape of one example's input: of its tensor, or of each tensor of a tuple or a dict."""

Place: TypeAlias = str | int
"""The place of a tensor in an input of several: its key in a dict, its position in a tuple."""

MODELS: Registry[nn.Module] = Registry(
    "model", "extracurricular.models", lambda value: isinstance(value, nn.Module)
)


Pixels: TypeAlias = tuple[Tensor, Tensor]
"""Shift and scale of images, in units of bytes: the input is ``(byte - shift) / scale``."""


def build_model(
    spec: object,
    *,
    inputs: Shapes,
    outputs: int,
    key: str = "model",
    pixels: Pixels | None = None,
) -> nn.Module:
    """Build the model that a recipe asks for.

    Args:
        spec: ``name`` or ``{name: {setting: value}}``.
        inputs: Shape of one example, without the batch: a tuple for a model called with one tensor
            ``[B, *shape]``, a mapping for a model called with a dict of such tensors.
        outputs: Number of raw outputs; the model returns ``[B, outputs]``.
        key: Key of the spec in the recipe, for errors.
        pixels: Shift and scale by which the data standardise images of bytes, for networks trained
            on images standardised otherwise; None if inputs are no such images.

    Raises:
        RecipeError: The name or a setting is wrong, or the model does not take such inputs.
    """
    shape: Any = inputs
    if not isinstance(shape, Mapping | Sequence) or isinstance(shape, str):
        raise RecipeError(
            "inputs", f"is {shorten(inputs)}; it must be the shape of one example, such as (3, 32, "
            "32), as data.shapes has it"
        )  # fmt: skip
    given: dict[str, Any] = {"inputs": inputs, "outputs": outputs}
    name, _ = split_spec(spec, "model", key)
    if "pixels" in inspect.signature(MODELS.find(name, key=key)[0]).parameters:
        given["pixels"] = pixels
    return MODELS.build(spec, key=key, **given)


def parameter_count(module: nn.Module) -> int:
    """Return the number of trainable parameters, each counted once."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def parts_of(inputs: Shapes) -> dict[Place, tuple[int, ...]] | None:
    """Return the shapes of an input of several tensors by place; None for a single tensor."""
    pairs = inputs.items() if isinstance(inputs, Mapping) else enumerate(inputs)
    several: dict[Place, tuple[int, ...]] = {k: v for k, v in pairs if isinstance(v, tuple)}
    return several if several or isinstance(inputs, Mapping) else None


def one_image(inputs: Shapes) -> tuple[int, int, int]:
    """Return ``(C, H, W)`` of an input that is one image.

    Raises:
        ValueError: The input is anything else.
    """
    if parts_of(inputs) is not None or len(inputs) != 3:
        raise ValueError(f"takes one image [C, H, W], but the input is {_show(inputs)}")
    channels, height, width = (int(size) for size in inputs)  # type: ignore[arg-type]
    return channels, height, width


def image_and_vectors(inputs: Shapes) -> tuple[Place, tuple[int, int, int], dict[Place, int]]:
    """Split an input that has exactly one image and at least one vector.

    Returns:
        The image's place, its ``(C, H, W)``, and the size of each vector by place, in order.

    Raises:
        ValueError: The input is anything else.
    """
    named = parts_of(inputs) or {}
    images = [name for name, shape in named.items() if len(shape) == 3]
    vectors = {name: shape[0] for name, shape in named.items() if len(shape) == 1}
    if len(images) != 1 or not vectors or len(named) != 1 + len(vectors):
        raise ValueError(
            "takes one image [C, H, W] and one or more vectors [D], "
            f"but the input is {_show(inputs)}"
        )
    channels, height, width = named[images[0]]
    return images[0], (channels, height, width), vectors


def check_at_least(least: int, **settings: int) -> None:
    """Refuse, with ``ValueError``, any of the named integers that is below ``least``."""
    for name, value in settings.items():
        if value < least:
            raise ValueError(f"{name} is {value}; it should be at least {least}")


def check_dropout(dropout: float) -> None:
    """Refuse, with ``ValueError``, a share of dropped units outside [0, 1)."""
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout}; it should be at least 0 and below 1")


def blocks_per_stage(depth: int, extra: int) -> int:
    """Return ``n`` for ``depth = 6n + extra``: three stages of ``n`` two-convolution blocks.

    Raises:
        ValueError: No ``n`` of at least 1 gives this depth.
    """
    blocks, rest = divmod(depth - extra, 6)
    if blocks < 1 or rest:
        known = ", ".join(str(6 * n + extra) for n in range(1, 5))
        raise ValueError(f"depth is {depth}; it should be 6n+{extra} ({known}, …)")
    return blocks


def _show(inputs: Shapes) -> str:
    return str(dict(inputs)) if isinstance(inputs, Mapping) else str(tuple(inputs))
