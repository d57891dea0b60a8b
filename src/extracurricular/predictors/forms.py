"""Raw inputs of a model: their form, and how an array or a picture is checked against it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from extracurricular.data.base import check_finite
from extracurricular.data.images.decode import image_bytes
from extracurricular.errors import DataError
from extracurricular.inputs import Deferred

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Form:
    """The raw form of one input of a model.

    Args:
        shape: Shape of one example.
        dtype: ``uint8`` for bytes, else ``float32``, or ``float64`` for units that it cannot hold.
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def is_image(self) -> bool:
        """Whether the input is an image [C, H, W]."""
        return len(self.shape) == 3


def read_input(given: Any, form: Form, name: str = "x") -> Tensor:
    """Check one input of a model and make it a tensor [N, ...] of its type.

    Raises:
        DataError: The model does not take its shape, its type or a value in it.
    """
    if isinstance(given, Deferred):
        # These images are decoded batch by batch; their shape and type are known without that.
        stands: Any = given
        if (tuple(stands.shape[1:]), stands.dtype) == (form.shape, getattr(torch, form.dtype)):
            return stands  # type: ignore[no-any-return]
        given = given[:]
    if isinstance(given, Image.Image):
        return torch.from_numpy(np.array(_image(given, form, name))[None])
    if isinstance(given, list | tuple):
        if given and all(isinstance(one, Image.Image) for one in given):
            return torch.from_numpy(np.stack([_image(one, form, name) for one in given]))
        given = _stacked(given, name)
    if isinstance(given, Tensor):
        values = given.detach()
    else:
        array = np.asarray(given)
        if array.dtype.kind not in "fiub":
            raise DataError(f"{name} has values of type {array.dtype}; they must be numbers")
        if array.dtype.kind in "fiu" and not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        if array.dtype.kind == "u" and array.dtype.itemsize > 1:
            array = array.astype(np.int64)  # torch does little with other unsigned integers
        # torch cannot share negative strides or read-only memory, so such arrays are copied.
        shared = array.flags.writeable and all(step >= 0 for step in array.strides)
        values = torch.from_numpy(array if shared else array.copy())
    return _typed(_batch(values, form, name), form, name)


def _stacked(given: Any, name: str) -> Array:
    try:
        return np.asarray([np.asarray(one) for one in given])
    except ValueError:
        raise DataError(f"{name} is a list of examples of different shapes") from None


def _image(image: Image.Image, form: Form, name: str) -> Array:
    if not form.is_image or form.shape[0] not in (1, 3) or form.dtype != "uint8":
        raise DataError(f"{name} is an image; the model takes {_values_of(form)}")
    try:
        return image_bytes(image, form.shape)
    except ValueError as error:
        _, height, width = form.shape
        raise DataError(
            f"{name} is an image that {error}; the model takes {width} × {height} of bytes, "
            f"and image.resize(({width}, {height})) brings others there"
        ) from None


def _batch(values: Tensor, form: Form, name: str) -> Tensor:
    """Return [N, ...], whether one example or several are given."""
    shape, wanted = tuple(values.shape), form.shape
    grey = form.is_image and wanted[0] == 1
    if shape == wanted:
        values = values[None]
    elif grey and shape == wanted[1:]:
        values = values[None, None]
    elif grey and len(shape) == 3 and shape[1:] == wanted[1:]:
        values = values[:, None]
    elif len(shape) != len(wanted) + 1 or shape[1:] != wanted:
        last = form.is_image and len(shape) in (3, 4) and shape[-3:] == (*wanted[1:], wanted[0])
        remedy = (
            "; it has the channels last, but they must come before height and width" if last else ""
        )
        several = ", ".join(["N", *map(str, wanted)])
        raise DataError(f"{name} has the shape {shape}; the model takes ({several}){remedy}")
    if not len(values):
        raise DataError(f"{name} holds no examples")
    return values


def _typed(values: Tensor, form: Form, name: str) -> Tensor:
    """Return bytes, or finite float32."""
    if values.dtype == torch.bool or values.is_complex():
        raise DataError(
            f"{name} has values of type {values.dtype}; the model takes {_values_of(form)}"
        )
    if form.dtype == "uint8":
        if values.dtype == torch.uint8:
            return values
        low, high = (float(v) for v in values.aminmax())
        if values.is_floating_point():
            remedy = (
                "; if it was divided by 255, (255 * x).round().astype('uint8') undoes that"
                if low >= 0 and high <= 1
                else ", as the data set had them"
            )
            raise DataError(
                f"{name} has reals from {low:g} to {high:g}, but the model takes {_values_of(form)}"
                f"{remedy}"
            )
        if low < 0 or high > 255:
            value = low if low < 0 else high
            raise DataError(f"{name} has the value {value:g}; the model takes {_values_of(form)}")
        return values.to(torch.uint8)
    if form.is_image and values.dtype == torch.uint8:
        raise DataError(
            f"{name} has bytes, but the model takes {_values_of(form)} in the units of its data set"
        )
    values = values.to(getattr(torch, form.dtype))
    check_finite(values, name)
    return values


def _values_of(form: Form) -> str:
    return "bytes, 0 to 255 (uint8)" if form.dtype == "uint8" else f"reals ({form.dtype})"
