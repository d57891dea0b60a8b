"""Quantise an exported model's weights and activations to 8 bits, by onnxruntime's quantiser.

Convolutions and matrix products are computed in integers. Static quantisation finds their scales on
examples, which here are draws of the student's own sampler; a student that was trained with
simulated 8 bits brings them along. Normalisation, distribution and all other operators stay
float32.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from extracurricular.data.base import Data
from extracurricular.errors import ExportError
from extracurricular.export.formats import quietly
from extracurricular.export.graph import input_names
from extracurricular.inputs import leaves
from extracurricular.samplers.base import Sampler
from extracurricular.training.simulated import Ranges, scale_of

DRAWS = 512
_BATCH = 32
_OPERATORS = ["Conv", "Gemm", "MatMul"]
# How the weights of a layer are called in the model.
_NETWORK, _WEIGHT = "network.", ".weight"


def raw_draws(
    sampler: Sampler, data: Data, first: int = 0, count: int = DRAWS
) -> list[dict[str, Tensor]]:
    """Return draws in batches of raw values, as the exported model takes them.

    A sampler gives normalised values, which are mapped back; bytes are rounded and cut to 0..255.
    So a draw that is no possible image, such as one with noise beyond white, becomes the nearest.

    Args:
        sampler: The sampler of the examples.
        data: The data set that the sampler draws for.
        first, count: The first id and the number of draws.
    """
    names, dtypes = input_names(data), {k: v.dtype for k, v in leaves(data.train.x).items()}
    batches = []
    for start in range(first, first + count, _BATCH):
        ids = torch.arange(start, min(start + _BATCH, first + count), device=data.device)
        batch = {}
        for key, leaf in leaves(sampler(ids).x).items():
            scale = data.x_scale[key]
            raw = scale.undo(leaf).cpu()
            if dtypes[key] == torch.uint8:
                raw = raw.round().clamp(0, 255)
            batch[names[key]] = raw.to(dtypes[key])
        batches.append(batch)
    return batches


class _Reader:
    """The batches as the quantiser reads them, one at a time."""

    def __init__(self, batches: list[dict[str, Tensor]]) -> None:
        self._rest = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._rest, None)
        return None if batch is None else {name: part.numpy() for name, part in batch.items()}


def quantise(proto: Any, batches: list[dict[str, Tensor]], ranges: Ranges | None = None) -> Any:
    """Return an ``onnx.ModelProto`` quantised to 8 bits.

    Args:
        proto: The float32 model; it is left as it is.
        batches: Raw examples on which the quantiser finds the ranges of the activations.
        ranges: The ranges with which the network was trained, by layer; those of the others are
            found on the examples.

    Raises:
        ExportError: The quantiser fails.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    model = onnx.ModelProto()
    model.CopyFrom(proto)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "int8.onnx"
        try:
            with quietly():
                quantize_static(
                    model,
                    str(target),
                    _Reader(batches),
                    quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=_OPERATORS,
                    per_channel=True,
                    activation_type=QuantType.QInt8,
                    weight_type=QuantType.QInt8,
                    calibrate_method=CalibrationMethod.MinMax,
                    extra_options={"TensorQuantOverrides": _trained(model, ranges or {})},
                )
        except Exception as error:  # the quantiser raises errors of all kinds
            text = " ".join(str(error).split())
            raise ExportError(f"onnxruntime cannot quantise the model: {text}") from error
        return onnx.load(io.BytesIO(target.read_bytes()))


def _trained(model: Any, ranges: Ranges) -> dict[str, list[dict[str, Any]]]:
    """Return scale and zero of each tensor that goes into or comes out of a trained layer.

    The layer of an operator is known by the name of its weights.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for node in model.graph.node:
        names = [name for name in node.input if name.endswith(_WEIGHT)]
        layer = names[0].removeprefix(_NETWORK).removesuffix(_WEIGHT) if names else ""
        if node.op_type not in _OPERATORS or layer not in ranges:
            continue
        for side, tensor in (("input", node.input[0]), ("output", node.output[0])):
            scale, zero = scale_of(torch.tensor(ranges[layer][side]))
            found[tensor] = [
                {
                    "scale": numpy.array(scale.numpy(), dtype=numpy.float32),
                    "zero_point": numpy.array(zero.numpy(), dtype=numpy.int8),
                }
            ]
    return found
